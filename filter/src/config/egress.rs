//! The other direction: gRPC callers, and a server that speaks private frames.
//!
//! The document is the same: its layout is the server's, its command table is read from the method
//! to the command. `server` says what the server is told besides calls.

use std::time::Duration;

use super::command::{CommandShape, CommandSpec};
use super::commands::Options;
use super::document::Document;
use super::faults::Faults;
use super::limits::Limits;
use super::read::Entries;
use super::units::Span;
use super::upstream::is_authority;
use crate::protocol::layout::{Given, Layout, OwnedCommand};
use crate::route::index::Texts;
use crate::route::{Route, Routes};

choice! {
    /// Who calls whom.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Direction {
        /// Private clients call gRPC services.
        #[default]
        Ingress = "ingress",
        /// gRPC callers call a server that speaks private frames.
        Egress = "egress",
    }
}

object! {
    /// What a private server is told besides calls. With the direction `egress` only.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ServerSpec {
        /// The frame that begins every connection to the server; by default calls begin at once.
        pub login: Option<ServerLoginSpec>,
        /// The frame that asks the server for a sign of life. It is also what makes it possible to
        /// say something to a caller while the server says nothing: without it a caller that waits
        /// for HTTP/2 settings never gets them, and deadlines are told late.
        pub heartbeat: Option<ServerHeartbeatSpec>,
        /// Reaches the server by a CONNECT stream through an HTTP connection manager, to which
        /// tcp_proxy then leads. It is the doorbell in the place of the heartbeat, so that callers
        /// hear of their deadlines even if the server hangs, and their connection outlives the
        /// server's.
        pub tunnel: Option<TunnelSpec>,
        /// How long the sequence of a call that was given up is kept for its late reply. When it is
        /// over, the server is taken to have lost the call; where replies come in the order of the
        /// requests, the connection ends. 1s to 24h.
        #[cfg_attr(feature = "schema", schemars(default = "late_reply_timeout"))]
        pub late_reply_timeout: Span = late_reply_timeout(),
    }
}

fn late_reply_timeout() -> Span {
    Span::from_millis(60_000)
}

object! {
    /// A CONNECT stream through an HTTP connection manager.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TunnelSpec {
        /// What CONNECT names as `:authority`; the HTTP connection manager chooses its route by it.
        /// Such as `"private-server:7800"`.
        pub authority: String,
    }
}

object! {
    /// The frame that begins every connection to the server.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ServerLoginSpec {
        /// The command of the frame.
        pub command: CommandSpec,
        /// Its body, as text.
        pub body: Option<String>,
        /// Its body, two hexadecimal digits a byte.
        pub body_hex: Option<String>,
        /// Values of its reserved header fields, by the fields' names: numbers in decimal, bytes in
        /// hexadecimal, text as it is.
        pub fields: Option<Entries<String>>,
        /// Whether the server replies to it. Calls wait for that reply, and a status other than OK
        /// ends the connection.
        #[cfg_attr(feature = "schema", schemars(default = "replies"))]
        pub reply: bool = replies(),
    }
}

fn replies() -> bool {
    true
}

object! {
    /// The frame that asks the server for a sign of life. The server has to reply to it at once.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ServerHeartbeatSpec {
        /// The command of the frame.
        pub command: CommandSpec,
        /// Its body, as text.
        pub body: Option<String>,
        /// Its body, two hexadecimal digits a byte.
        pub body_hex: Option<String>,
        /// How long the server may say nothing before it is asked; "0s" asks only when something
        /// waits for a caller. A server that does not reply within `limits.bell_timeout` is taken
        /// for dead.
        #[cfg_attr(feature = "schema", schemars(default = "interval"))]
        pub interval: Span = interval(),
    }
}

fn interval() -> Span {
    Span::from_millis(0)
}

/// A frame that is the same each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedFrame {
    pub command: OwnedCommand,
    pub body: Box<[u8]>,
    pub fields: Box<[Given]>,
}

/// What only this direction has.
#[derive(Debug)]
pub struct EgressConfig {
    pub login: Option<FixedFrame>,
    pub login_replies: bool,
    pub heartbeat: Option<FixedFrame>,
    pub heartbeat_interval: Option<Duration>,
    pub late_reply_timeout: Duration,
    /// The authority of CONNECT streams.
    pub tunnel: Option<Box<str>>,
    /// Full method → route.
    pub methods: Texts,
}

impl Default for ServerSpec {
    fn default() -> Self {
        let late_reply_timeout = late_reply_timeout();
        Self { login: None, heartbeat: None, tunnel: None, late_reply_timeout }
    }
}

impl ServerSpec {
    /// Paths in `faults` start below `server`.
    pub fn compile(
        &self,
        shape: CommandShape,
        layout: Option<&Layout>,
        faults: &mut Faults,
    ) -> EgressConfig {
        let (second, day) = (Span::from_millis(1_000), Span::from_millis(86_400_000));
        if let Err(problem) = self.late_reply_timeout.within(second, day) {
            faults.add("late_reply_timeout", &problem);
        }
        let tunnel = self.tunnel.as_ref().map(|tunnel| tunnel.authority.as_str());
        if let Some(authority) = tunnel.filter(|authority| !is_authority(authority)) {
            let problem = format_args!("{authority:?} is not an authority, expected \"host:port\"");
            faults.add("tunnel.authority", &problem);
        }
        let login = self.login.as_ref();
        let beat = self.heartbeat.as_ref();
        if let Some(Err(problem)) = beat
            .filter(|beat| beat.interval.unless_zero().is_some())
            .map(|beat| beat.interval.within(second, day))
        {
            faults.add("heartbeat.interval", &problem);
        }
        let mut frame = |key: &str, command: &CommandSpec, text, hex, fields| {
            let written = Written { key, text, hex, fields };
            written.compile(command, shape, layout, faults)
        };
        EgressConfig {
            login: login.and_then(|login| {
                let ServerLoginSpec { command, body, body_hex, fields, .. } = login;
                frame("login", command, body.as_deref(), body_hex.as_deref(), fields.as_ref())
            }),
            login_replies: login.is_some_and(|login| login.reply),
            heartbeat: beat.and_then(|beat| {
                let ServerHeartbeatSpec { command, body, body_hex, .. } = beat;
                frame("heartbeat", command, body.as_deref(), body_hex.as_deref(), None)
            }),
            heartbeat_interval: beat.and_then(|beat| beat.interval.unless_zero()),
            late_reply_timeout: self.late_reply_timeout.get(),
            tunnel: tunnel.map(Into::into),
            methods: Texts::default(),
        }
    }
}

/// A fixed frame as it is written.
struct Written<'a> {
    key: &'a str,
    text: Option<&'a str>,
    hex: Option<&'a str>,
    fields: Option<&'a Entries<String>>,
}

impl Written<'_> {
    fn compile(
        &self,
        command: &CommandSpec,
        shape: CommandShape,
        layout: Option<&Layout>,
        faults: &mut Faults,
    ) -> Option<FixedFrame> {
        let key = self.key;
        let command = command
            .resolve(shape)
            .map_err(|problem| faults.add(&format!("{key}.command"), &problem))
            .ok();
        let body = match (self.text, self.hex) {
            (Some(_), Some(_)) => {
                faults.add(&format!("{key}.body_hex"), &"the body is there as text, keep one");
                return None;
            }
            (Some(text), None) => text.as_bytes().into(),
            (None, Some(hex)) => match bytes(hex) {
                Some(bytes) => bytes,
                None => {
                    let problem = format_args!("{hex:?} is not bytes, expected such as \"00ff\"");
                    faults.add(&format!("{key}.body_hex"), &problem);
                    return None;
                }
            },
            (None, None) => Box::default(),
        };
        let mut fields = Vec::new();
        for (name, text) in self.fields.into_iter().flat_map(|fields| &fields.0) {
            match layout?.given(name, text.as_bytes()) {
                Ok(given) => fields.push(given),
                Err(problem) => faults.add(&format!("{key}.fields.{name}"), &problem),
            }
        }
        Some(FixedFrame { command: command?, body, fields: fields.into() })
    }
}

/// Two hexadecimal digits a byte.
fn bytes(hex: &str) -> Option<Box<[u8]>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let pair = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let signed = hex.contains('+');
    pairs.iter().map(pair).collect::<Option<_>>().filter(|_| rest.is_empty() && !signed)
}

/// Full method → route. A method has one command, and every command is one of its own.
pub fn methods(routes: &Routes, faults: &mut Faults) -> Texts {
    let path = |route: &Route| (route.method.as_bytes().into(), route.index);
    let methods = Texts::new(routes.iter().map(path).collect());
    for route in routes.iter() {
        if methods.find(route.method.as_bytes()) != Some(route.index) {
            let problem =
                format_args!("the method {:?} has several commands, keep one", route.method);
            faults.add("commands", &problem);
        }
    }
    methods
}

const ELSEWHERE: &str = "it belongs to the direction \"ingress\", leave this key out";

/// Refuses what has no meaning in this direction.
pub fn refuse_keys(document: &Document, faults: &mut Faults) {
    for (key, present) in [
        ("session", document.session.is_some()),
        ("heartbeat", document.heartbeat.is_some()),
        ("companion", document.companion.is_some()),
        ("upstream", document.upstream.is_some()),
        ("otherwise", document.otherwise.is_some()),
        ("identity", document.identity.is_some()),
        ("push", document.push.is_some()),
    ] {
        if present {
            faults.add(key, &ELSEWHERE);
        }
    }
    let defaults = document.defaults.as_ref().and_then(|defaults| defaults.0.as_ref());
    if let Some(defaults) = defaults {
        refuse_options(defaults.options(), "defaults", faults);
    }
    for (index, entry) in document.commands.iter().enumerate() {
        let Some(entry) = &entry.0 else { continue };
        let path = format!("commands[{index}]");
        refuse_options(entry.options(), &path, faults);
        for (key, present) in [
            ("from", entry.from.is_some()),
            ("to", entry.to.is_some()),
            ("command_metadata", entry.command_metadata.is_some()),
        ] {
            if present {
                faults.add(&format!("{path}.{key}"), &ELSEWHERE);
            }
        }
    }
}

fn refuse_options(options: Options<'_>, path: &str, faults: &mut Faults) {
    for (key, present) in [
        ("login", options.login.is_some()),
        ("roles", options.roles.is_some()),
        ("claims", options.claims.is_some()),
        ("metadata", options.metadata.is_some()),
    ] {
        if present {
            faults.add(&format!("{path}.{key}"), &ELSEWHERE);
        }
    }
}

/// The sequences that calls, late replies and the filter's own frames take have to differ.
pub fn check_sequences(layout: &Layout, limits: &Limits, faults: &mut Faults) {
    /// A login and a heartbeat.
    const OWN: u64 = 2;
    let most = layout.max_sequence().saturating_sub(OWN) / 2;
    if u64::from(limits.max_in_flight) > most {
        let problem = format_args!(
            "{} calls at once are too many for the layout's sequence, expected at most {most}",
            limits.max_in_flight
        );
        faults.add("limits.max_in_flight", &problem);
    }
}
