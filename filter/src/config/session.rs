//! How clients log in, and how they are told to go.

use std::time::Duration;

use super::command::{CommandShape, CommandSpec};
use super::faults::Faults;
use super::units::Span;
use crate::protocol::layout::OwnedCommand;

/// What each mode needs and refuses, for the schema.
#[cfg(feature = "schema")]
fn modes() -> serde_json::Value {
    serde_json::json!({
        "if": { "properties": { "mode": { "const": "none" } } },
        "then": {
            "properties": {
                "login": false,
                "audience": false,
                "tls_terminated_by_listener": false,
                "trusted": false
            }
        },
        "else": { "required": ["login", "audience"] }
    })
}

object! {
    /// How clients log in.
    #[derive(Clone, Debug, PartialEq)]
    #[cfg_attr(feature = "schema", schemars(extend("allOf" = [modes()])))]
    pub struct SessionSpec {
        /// How a client proves who it is. Fixed for the listener: nothing is negotiated.
        pub mode: Mode,
        /// Which frame logs in, and how long that may take. Needed for `ticket` and `noise`.
        pub login: Option<LoginSpec>,
        /// What sessions are for; a ticket must have been issued for the same audience. Needed for
        /// `ticket` and `noise`; 1 to 128 printable ASCII letters.
        pub audience: Option<String>,
        /// With `ticket`: true states that the listener terminates TLS, so that tickets cannot be
        /// read on their way.
        pub tls_terminated_by_listener: Option<bool>,
        /// With `ticket`: true states that the network between client and listener is trusted with
        /// tickets and frames in the clear.
        pub trusted: Option<bool>,
        /// The frame that tells a client why its connection ends (kick, drain). Without it such a
        /// connection is closed without a word.
        pub goodbye: Option<GoodbyeSpec>,
    }
}

choice! {
    /// How a client proves who it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Mode {
        /// Not at all: every frame goes on. For trusted networks.
        None = "none",
        /// By a ticket or JWT in the login frame; frames stay plain.
        Ticket = "ticket",
        /// By a Noise handshake that carries a ticket or JWT; frames are sealed from then on.
        Noise = "noise",
    }
}

object! {
    /// Which frame logs in, and how long that may take.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LoginSpec {
        /// The command of the login frame.
        pub command: CommandSpec,
        /// From the connection's start to its session; then it is closed. At least
        /// `handshake_timeout`.
        #[cfg_attr(feature = "schema", schemars(default = "login_timeout"))]
        pub timeout: Span = login_timeout(),
        /// How long the companion may take to answer; then the client is told to try again.
        #[cfg_attr(feature = "schema", schemars(default = "handshake_timeout"))]
        pub handshake_timeout: Span = handshake_timeout(),
    }
}

fn login_timeout() -> Span {
    Span::from_millis(10_000)
}

fn handshake_timeout() -> Span {
    Span::from_millis(3_000)
}

object! {
    /// The frame that tells a client why its connection ends.
    #[derive(Clone, Debug, PartialEq)]
    pub struct GoodbyeSpec {
        /// The command of the frame, which is a push. Its status says what kind of end it is (or is
        /// the code that a kick was given), its body the reason.
        pub command: CommandSpec,
    }
}

/// How clients log in, and how they are told to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// `None`: clients do not log in.
    pub login: Option<LoginConfig>,
    /// The command of the push that says why a connection ends.
    pub goodbye: Option<OwnedCommand>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginConfig {
    pub mode: LoginMode,
    pub command: OwnedCommand,
    pub audience: Box<str>,
    /// From the connection's start to its session.
    pub timeout: Duration,
    /// For the companion's answer.
    pub handshake_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginMode {
    Ticket,
    Noise,
}

impl SessionConfig {
    /// Where nobody logs in.
    pub const fn none() -> Self {
        Self { login: None, goodbye: None }
    }
}

impl SessionSpec {
    /// Paths in `faults` start below `session`.
    pub fn compile(self, shape: CommandShape, faults: &mut Faults) -> SessionConfig {
        let login_mode = match self.mode {
            Mode::None => None,
            Mode::Ticket => Some(LoginMode::Ticket),
            Mode::Noise => Some(LoginMode::Noise),
        };
        let goodbye = self.goodbye.as_ref().and_then(|goodbye| {
            let command = goodbye.command.resolve(shape);
            command.map_err(|problem| faults.add("goodbye.command", &problem)).ok()
        });
        let login = match login_mode {
            Some(mode) => self.login(mode, shape, faults),
            None => {
                self.refuse_login_keys(faults);
                None
            }
        };
        if let (Some(login), Some(goodbye)) = (&login, &goodbye)
            && login.command == *goodbye
        {
            let problem = "a client would take a goodbye for the answer to its login, expected \
                           another command than the login's";
            faults.add("goodbye.command", &problem);
        }
        SessionConfig { login, goodbye }
    }

    fn login(
        self,
        mode: LoginMode,
        shape: CommandShape,
        faults: &mut Faults,
    ) -> Option<LoginConfig> {
        let name = self.mode.name();
        self.check_clear_text(mode, faults);
        let audience = self.audience.unwrap_or_default();
        if audience.is_empty() || audience.len() > 128 || !audience.bytes().all(is_printable) {
            let problem = format_args!(
                "the mode {name:?} needs what its sessions are for, such as \"game-live\": \
                 1 to 128 printable ASCII letters"
            );
            faults.add("audience", &problem);
        }
        let Some(login) = self.login else {
            let problem = format_args!(
                "the mode {name:?} needs the command of its login frame: \
                 \"login\": {{\"command\": 1}}"
            );
            faults.add("login", &problem);
            return None;
        };
        let (least, hour) = (Span::from_millis(100), Span::from_millis(3_600_000));
        if let Err(problem) = login.handshake_timeout.within(least, hour) {
            faults.add("login.handshake_timeout", &problem);
        } else if let Err(problem) = login.timeout.within(login.handshake_timeout, hour) {
            faults.add("login.timeout", &problem);
        }
        match login.command.resolve(shape) {
            Ok(command) => Some(LoginConfig {
                mode,
                command,
                audience: audience.into(),
                timeout: login.timeout.get(),
                handshake_timeout: login.handshake_timeout.get(),
            }),
            Err(problem) => {
                faults.add("login.command", &problem);
                None
            }
        }
    }

    /// Tickets in the clear are taken only where somebody wrote that this is meant.
    fn check_clear_text(&self, mode: LoginMode, faults: &mut Faults) {
        match mode {
            LoginMode::Ticket => {
                if self.tls_terminated_by_listener != Some(true) && self.trusted != Some(true) {
                    let problem = "a ticket can be read on its way unless TLS carries it: set \
                                   \"tls_terminated_by_listener\": true if the listener \
                                   terminates TLS, or \"trusted\": true if the network may see \
                                   tickets, or use the mode \"noise\"";
                    faults.add("mode", &problem);
                }
            }
            LoginMode::Noise => {
                for (key, value) in self.clear_text_keys() {
                    if value {
                        let problem = "the mode \"noise\" protects its frames itself, leave this \
                                       key out";
                        faults.add(key, &problem);
                    }
                }
            }
        }
    }

    fn refuse_login_keys(&self, faults: &mut Faults) {
        let keys = [("login", self.login.is_some()), ("audience", self.audience.is_some())];
        for (key, present) in keys.into_iter().chain(self.clear_text_keys()) {
            if present {
                let problem = "nobody logs in with the mode \"none\": leave this key out, or \
                               choose \"ticket\" or \"noise\"";
                faults.add(key, &problem);
            }
        }
    }

    fn clear_text_keys(&self) -> [(&'static str, bool); 2] {
        [
            ("tls_terminated_by_listener", self.tls_terminated_by_listener.is_some()),
            ("trusted", self.trusted.is_some()),
        ]
    }
}

fn is_printable(byte: u8) -> bool {
    (b'!'..=b'~').contains(&byte)
}
