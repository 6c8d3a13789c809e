//! A private server, for the directions that end at one: what it is told besides calls.

use std::time::Duration;

use super::command::{CommandShape, CommandSpec};
use super::faults::Faults;
use super::push::PushRange;
use super::read::{Attempt, Entries};
use super::relay::IdentityField;
use super::signals::CancelSpec;
use super::units::Span;
use super::upstream::is_authority;
use crate::protocol::layout::{Given, Layout, LayoutSpec, OwnedCommand};
use crate::route::index::Texts;

choice! {
    /// Who calls whom.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Direction {
        /// Private clients call gRPC services.
        #[default]
        Ingress = "ingress",
        /// gRPC callers call a server that speaks private frames.
        Egress = "egress",
        /// Private clients call a server that speaks private frames.
        Relay = "relay",
    }
}

object! {
    /// What a private server is told besides calls. With the directions `egress` and
    /// `relay`.
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
        /// With the direction `relay`: the frames that the server speaks, if they are not those of
        /// the clients. Frames are then translated: what the layouts hand on under the same
        /// `metadata` name is handed on, and the rest of a header is made anew.
        pub layout: Option<Attempt<LayoutSpec>>,
        /// With a `layout` of its own: the frame that tells the server that a call is given up.
        pub cancel: Option<CancelSpec>,
        /// With the direction `relay`: which of the server's reserved header fields say who the
        /// client is. They are always overwritten, with their defaults before the login.
        pub identity: Option<Entries<IdentityField>>,
        /// With the direction `relay`: what the server may send to clients without being asked.
        /// Anything else is dropped and counted.
        pub pushes: Option<ServerPushSpec>,
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

/// How a private server is spoken to.
#[derive(Debug)]
pub struct ServerConfig {
    pub login: Option<FixedFrame>,
    pub login_replies: bool,
    pub heartbeat: Option<FixedFrame>,
    pub heartbeat_interval: Option<Duration>,
    pub late_reply_timeout: Duration,
    /// The command that tells the server that a call is given up.
    pub cancel: Option<OwnedCommand>,
    /// The authority of CONNECT streams.
    pub tunnel: Option<Box<str>>,
    /// Full method → route, with the direction `egress`.
    pub methods: Texts,
}

object! {
    /// What a private server may send to clients without being asked.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ServerPushSpec {
        /// The commands of such frames; at most 1000.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub commands: Vec<CommandSpec> = Vec::new(),
        /// Ranges of such commands, for layouts with numbers; at most 100.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub ranges: Vec<PushRange> = Vec::new(),
    }
}

impl Default for ServerSpec {
    fn default() -> Self {
        let late_reply_timeout = late_reply_timeout();
        Self {
            login: None,
            heartbeat: None,
            tunnel: None,
            late_reply_timeout,
            layout: None,
            cancel: None,
            identity: None,
            pushes: None,
        }
    }
}

impl ServerSpec {
    /// Paths in `faults` start below `server`.
    pub fn compile(
        &self,
        shape: CommandShape,
        layout: Option<&Layout>,
        faults: &mut Faults,
    ) -> ServerConfig {
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
        ServerConfig {
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
            cancel: None,
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
