//! The command table: which method a command calls, and on what terms.
//!
//! A table is a value of its own. It can be replaced while connections live; calls in flight
//! keep what they began with.

pub(crate) mod index;

use std::rc::Rc;
use std::time::Duration;

use self::index::{Numbers, Texts};
use crate::call::Kind;
use crate::protocol::grpc::request::Head;
use crate::protocol::layout::{Command, OwnedCommand};
use crate::session::Access;

/// The most routes that a table can hold: they are numbered by 16 bits.
pub const ROUTES_MAX: usize = 60_000;

/// The most ranges of command numbers in a table: each is held against every other command when
/// the table is made, and a look-up halves its way through them.
pub const RANGES_MAX: usize = 1_000;

/// Which method a command calls, and on what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its place in the table.
    pub index: u16,
    /// For logs and metrics: the command and the method's last name, `1001_Enter`. Unique.
    pub name: Box<str>,
    /// `/package.Service/Method`
    pub method: Box<str>,
    /// The start of the request's header block: all that does not differ from call to call,
    /// `grpc-timeout` included.
    pub head: Head,
    pub kind: Kind,
    /// The command that a call of the method is for a private server; none where private clients
    /// call.
    pub command: Option<OwnedCommand>,
    /// Carries a stream's messages; there is one if, and only if, this is a stream.
    pub push: Option<OwnedCommand>,
    /// What only streams have.
    pub stream: Option<Rc<StreamTerms>>,
    /// From the frame to its reply; streams may have none.
    pub deadline: Option<Duration>,
    pub access: Rc<Access>,
    /// The largest request message, in bytes, after decompression.
    pub max_request: usize,
    pub codec: Codec,
    /// Compress replies, or requests to a private server, where the layout can and it is worth it.
    pub compress_reply: bool,
    /// A call may be carried out twice.
    pub idempotent: bool,
    /// Add the command under this metadata name.
    pub command_metadata: Option<Box<str>>,
}

/// On what terms a stream goes on once it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTerms {
    /// The commands of a client's further messages, and of their end: for clients.
    pub send: Option<OwnedCommand>,
    pub close: Option<OwnedCommand>,
    /// A client's stream that is full stops the reading of its connection; otherwise it ends.
    pub pauses: bool,
    /// How long it may be without a message.
    pub idle: Option<Duration>,
}

/// The most commands that frames of open streams can have: a table is held against each.
pub const STREAM_COMMANDS_MAX: usize = 100;

/// A frame of a stream that is open already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Carries a message.
    Message,
    /// Ends the client's messages.
    Close,
}

impl Part {
    /// Stands in the place of a route's: above [`ROUTES_MAX`].
    pub const fn index(self) -> u16 {
        match self {
            Self::Message => u16::MAX - 1,
            Self::Close => u16::MAX - 2,
        }
    }

    fn at(index: u16) -> Option<Self> {
        [Self::Message, Self::Close].into_iter().find(|part| part.index() == index)
    }
}

/// What a command stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    Call(&'a Route),
    Part(Part),
}

/// How a frame's body becomes the request message, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The body is the message.
    Protobuf,
    /// The body is field 1 of the message, of the type `bytes`.
    Bytes,
}

/// A range of command numbers, or a single text command, and the route that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// From the first to the last, inclusive.
    Numbers(u64, u64),
    Text(Box<[u8]>),
}

impl Span {
    pub fn of(command: &OwnedCommand) -> Self {
        match command {
            OwnedCommand::Number(number) => Self::Numbers(*number, *number),
            OwnedCommand::Text(text) => Self::Text(text.clone()),
        }
    }
}

/// The whole table.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Box<[Route]>,
    numbers: Numbers,
    texts: Texts,
    otherwise: Option<u16>,
}

impl Routes {
    /// A table of `routes` (at most [`ROUTES_MAX`], in the order of their `index`) for commands
    /// that do not overlap.
    pub fn new(routes: Vec<Route>, commands: Vec<(Span, u16)>, otherwise: Option<u16>) -> Self {
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        for (span, route) in commands {
            match span {
                Span::Numbers(first, last) => numbers.push((first, last, route)),
                Span::Text(text) => texts.push((text, route)),
            }
        }
        Self {
            routes: routes.into(),
            numbers: Numbers::new(numbers),
            texts: Texts::new(texts),
            otherwise,
        }
    }

    /// What a command stands for, in a time that does not depend on the number of commands.
    pub fn find(&self, command: Command<'_>) -> Option<Meaning<'_>> {
        let index = match command {
            Command::Number(number) => self.numbers.find(number),
            Command::Text(text) => self.texts.find(text),
        };
        let index = index.or(self.otherwise)?;
        match self.route(index) {
            Some(route) => Some(Meaning::Call(route)),
            None => Part::at(index).map(Meaning::Part),
        }
    }

    /// The route of a command that begins a call.
    pub fn lookup(&self, command: Command<'_>) -> Option<&Route> {
        match self.find(command)? {
            Meaning::Call(route) => Some(route),
            Meaning::Part(_) => None,
        }
    }

    /// The route at this place.
    pub fn route(&self, index: u16) -> Option<&Route> {
        self.routes.get(usize::from(index))
    }

    /// All routes in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.routes.iter()
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

#[cfg(test)]
mod tests;
