//! The command table as it is written: single commands, groups of a service's methods, runs and
//! ranges, each with the options that hold for it.

use super::command::CommandSpec;
use super::read::{At, Entries, Read};
use super::units::{Size, Span};

/// Defines a struct with its own keys and those that every part of the table shares.
macro_rules! with_options {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$key_meta:meta])* pub $key:ident: $type:ty,)*
        }
    ) => {
        object! {
        #[derive(Clone, Debug, PartialEq)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$key_meta])* pub $key: $type,)*
            /// What the client expects for its request; `unary` by default.
            pub kind: Option<KindSpec>,
            /// The command of the push frames that carry a stream's messages, with the sequence of
            /// its request. Needed for `server_stream` and `bidi_stream`.
            pub push: Option<CommandSpec>,
            /// The command of the frames that carry a client's further messages, with the sequence
            /// of the frame that opened the stream. Needed for `client_stream` and `bidi_stream`;
            /// several may share it.
            pub send: Option<CommandSpec>,
            /// The command of the frame that ends a client's messages, with the same sequence; its
            /// body, unless it is empty, is the last message. Needed, and shared, like `send`.
            pub close: Option<CommandSpec>,
            /// What becomes of a client's message that has to wait for the service while
            /// `limits.max_stream_unsent` of its stream, or `limits.max_unsent` of all, wait
            /// already; `end` by default.
            pub when_full: Option<WhenFull>,
            /// How long a stream may be without a message either way; then it ends with
            /// DEADLINE_EXCEEDED. 1ms to 24h; without it, for ever.
            pub stream_idle: Option<Span>,
            /// How long a call may take, from its frame to its reply; then the client gets
            /// DEADLINE_EXCEEDED and the service a reset. 1ms to 24h; `5s` by default. A stream has
            /// none unless it is written beside its `kind`. With the direction `egress` a caller may
            /// ask for less by `grpc-timeout`.
            pub deadline: Option<Span>,
            /// Whether the client must have logged in; `required` by default, if there are
            /// logins at all.
            pub login: Option<LoginRule>,
            /// Roles of which the session must have one; by default none is needed.
            pub roles: Option<Vec<String>>,
            /// Claims that the session must have, each with one of the values listed; by default
            /// none is needed.
            pub claims: Option<Entries<Vec<String>>>,
            /// The largest request message, after decompression; a larger one is answered with
            /// RESOURCE_EXHAUSTED. By default `limits.max_frame`, which it cannot exceed.
            pub max_request: Option<Size>,
            /// Metadata that every call gets, in addition to that of `defaults`.
            pub metadata: Option<Entries<String>>,
            /// How a frame's body becomes the request message, and back; `protobuf` by default.
            pub codec: Option<CodecSpec>,
            /// Whether replies (with the direction `egress`: requests) are compressed where the
            /// layout can and it is worth it; true by default if the layout has `compression`.
            pub compress_reply: Option<bool>,
            /// With the direction `egress`: whether a call does no harm if it is carried out twice,
            /// so that one whose server was lost is refused in a way that may be tried again; false
            /// by default.
            pub idempotent: Option<bool>,
        }
        }

        impl $name {
            /// The keys that every part of the table shares.
            pub fn options(&self) -> Options<'_> {
                Options {
                    kind: self.kind,
                    push: self.push.as_ref(),
                    send: self.send.as_ref(),
                    close: self.close.as_ref(),
                    when_full: self.when_full,
                    stream_idle: self.stream_idle,
                    deadline: self.deadline,
                    login: self.login,
                    roles: self.roles.as_deref(),
                    claims: self.claims.as_ref(),
                    max_request: self.max_request,
                    metadata: self.metadata.as_ref(),
                    codec: self.codec,
                    compress_reply: self.compress_reply,
                    idempotent: self.idempotent,
                }
            }
        }
    };
}

/// The keys that every part of the table shares, where they were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    pub kind: Option<KindSpec>,
    pub push: Option<&'a CommandSpec>,
    pub send: Option<&'a CommandSpec>,
    pub close: Option<&'a CommandSpec>,
    pub when_full: Option<WhenFull>,
    pub stream_idle: Option<Span>,
    pub deadline: Option<Span>,
    pub login: Option<LoginRule>,
    pub roles: Option<&'a [String]>,
    pub claims: Option<&'a Entries<Vec<String>>>,
    pub max_request: Option<Size>,
    pub metadata: Option<&'a Entries<String>>,
    pub codec: Option<CodecSpec>,
    pub compress_reply: Option<bool>,
    pub idempotent: Option<bool>,
}

with_options! {
    /// What holds for every command that does not say otherwise.
    #[derive(Default)]
    pub struct Defaults {}
}

/// The forms of an entry, for the schema: each has its keys and none of another form.
#[cfg(feature = "schema")]
fn forms() -> serde_json::Value {
    let form = |needed: &[&str], refused: &[&str]| {
        let refused: serde_json::Map<_, _> =
            refused.iter().map(|key| ((*key).to_owned(), false.into())).collect();
        serde_json::json!({ "required": needed, "properties": refused })
    };
    serde_json::json!([
        form(&["command"], &["service", "methods", "first", "from", "to"]),
        form(&["service", "methods"], &["command", "method", "from", "to", "server_command"]),
        form(&["from", "to"], &["command", "service", "methods", "first", "server_command"]),
    ])
}

with_options! {
    /// One part of the command table, in one of four forms: `command` + `method` for a single
    /// command; `service` + `methods` as an object from commands to method names; `service` +
    /// `first` + `methods` as a list, for commands that count up from `first`; `from` + `to` +
    /// `method` for a range of numbers that share a method.
    #[cfg_attr(feature = "schema", schemars(extend("oneOf" = forms())))]
    pub struct Entry {
        /// A single command.
        pub command: Option<CommandSpec>,
        /// The full method that the command calls, `/package.Service/Method`. With the direction
        /// `relay` it is not needed: it names the command in logs and metrics.
        pub method: Option<String>,
        /// With the direction `relay`: what a single command is to a server with a layout of its
        /// own; by default the same.
        pub server_command: Option<CommandSpec>,
        /// The service whose methods are listed, `package.Service`.
        pub service: Option<String>,
        /// The service's methods, by command or in the order of their commands.
        pub methods: Option<Methods>,
        /// The command of the first method in the list; the next method's is one more.
        pub first: Option<CommandSpec>,
        /// The first command of a range.
        pub from: Option<CommandSpec>,
        /// The last command of a range.
        pub to: Option<CommandSpec>,
        /// Hands the command on to the service under this metadata name, in decimal or as text; a
        /// text that is not printable ASCII is answered with INVALID_ARGUMENT.
        pub command_metadata: Option<String>,
    }
}

/// The forms of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Single,
    Group,
    Range,
}

impl Form {
    /// The form that an entry's keys point to; `None` if it names no command.
    pub fn of(entry: &Entry) -> Option<Self> {
        if entry.command.is_some() {
            Some(Self::Single)
        } else if entry.methods.is_some() || entry.service.is_some() || entry.first.is_some() {
            Some(Self::Group)
        } else if entry.from.is_some() || entry.to.is_some() {
            Some(Self::Range)
        } else {
            None
        }
    }

    /// The keys that an entry of this form needs.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Single => &["command", "method"],
            Self::Group => &["service", "methods"],
            Self::Range => &["from", "to", "method"],
        }
    }

    /// The same, for an error.
    pub fn named(self) -> &'static str {
        match self {
            Self::Single => "a single command has \"command\" and \"method\"",
            Self::Group => "a group has \"service\" and \"methods\"",
            Self::Range => "a range has \"from\", \"to\" and \"method\"",
        }
    }
}

with_options! {
    /// Where commands go that the table does not name. Without it they are answered with
    /// UNIMPLEMENTED.
    pub struct Otherwise {
        /// The full method that they call, `/package.Service/Method`. Needed with the direction
        /// `ingress`.
        pub method: Option<String>,
        /// Hands the command on to the service under this metadata name, in decimal or as text; a
        /// text that is not printable ASCII is answered with INVALID_ARGUMENT. Needed with the
        /// direction `ingress`.
        pub command_metadata: Option<String>,
    }
}

choice! {
    /// What the client expects for its request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum KindSpec {
        /// One request, one reply.
        Unary = "unary",
        /// One request that gets no reply, whatever becomes of it, unless the layout says
        /// otherwise (`reply.one_way`).
        OneWay = "one_way",
        /// One request, any number of pushes with the service's messages, and a reply with the
        /// status, without a body, when the stream ends.
        ServerStream = "server_stream",
        /// The frame opens a stream of messages to the service: its own body, unless it is empty,
        /// is the first; frames with the command of `send` carry more, and one with that of `close`
        /// ends them. One reply, which may come before that.
        ClientStream = "client_stream",
        /// The client's messages are those of a `client_stream`, the service's those of a
        /// `server_stream`.
        BidiStream = "bidi_stream",
        /// With the direction `egress`: every push with this command is a message, for each caller
        /// that is there; the server is asked nothing. The codec and the deadline are a stream's.
        Subscribe = "subscribe",
    }
}

choice! {
    /// What becomes of a client's message that its stream has no room for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WhenFull {
        /// The stream ends with RESOURCE_EXHAUSTED; whatever else the client does goes on.
        End = "end",
        /// Nothing more is read from the client, on no matter what, until there is room: for
        /// uploads, which are faster than their service.
        Pause = "pause",
    }
}

choice! {
    /// Whether the client must have logged in.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LoginRule {
        /// Only after its login.
        Required = "required",
        /// Before its login too.
        NotRequired = "not_required",
    }
}

choice! {
    /// How a frame's body becomes the request message, and back.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CodecSpec {
        /// The body is the message.
        Protobuf = "protobuf",
        /// The body is field 1 of the message, of the type `bytes`; so is the reply's.
        Bytes = "bytes",
    }
}

/// A service's methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// `{"1001": "Enter", "1002": "Leave"}`
    ByCommand(Vec<(String, String)>),
    /// `["Enter", "Leave"]`
    InOrder(Vec<String>),
}

impl Read for Methods {
    fn read(at: &At<'_>) -> Option<Self> {
        if at.is_object() {
            return Entries::read(at).map(|methods| Self::ByCommand(methods.0));
        }
        if at.is_list() {
            return Vec::read(at).map(Self::InOrder);
        }
        at.mismatch(r#"methods such as {"1001": "Enter"} or ["Enter", "Leave"]"#)
    }
}
