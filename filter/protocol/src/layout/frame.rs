//! A frame as it was read, and what is given to write one.

use std::fmt;

use super::SealError;

/// What stands at the start of the input.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// Not all of a frame yet. `need` is the total number of bytes wanted, as far as is
    /// known so far; always more than there were.
    Incomplete {
        need: usize,
    },
    Frame(Frame<'a>),
}

/// One frame, borrowed from the input.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// All of it: header, body and trailer.
    pub raw: &'a [u8],
    /// The declared fields and the extension.
    pub header: &'a [u8],
    /// As on the wire: perhaps sealed, perhaps compressed.
    pub body: &'a [u8],
    pub trailer: &'a [u8],
    pub command: Command<'a>,
    /// The bits of the sequence field, zero-extended; 0 if the layout has none.
    pub sequence: u64,
    /// 0 if the layout has no status field.
    pub status: i64,
    /// The version field; 0 if the layout has none.
    pub version: u64,
    pub flags: Flags,
    /// Where the declared fields end and the extension begins, in `header`.
    pub(super) declared: usize,
}

impl<'a> Frame<'a> {
    /// What stands between the declared fields and the body.
    pub fn extension(&self) -> &'a [u8] {
        self.header.get(self.declared..).unwrap_or_default()
    }
}

/// What a frame asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command<'a> {
    /// The bits of the command field, zero-extended.
    Number(u64),
    /// Without padding.
    Text(&'a [u8]),
}

impl Command<'_> {
    /// Whether it can stand in metadata: any number, and text that is visible ASCII with inner
    /// spaces.
    pub fn can_be_metadata(self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Text(text) => is_metadata(text),
        }
    }
}

/// A command that outlives its configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnedCommand {
    Number(u64),
    Text(Box<[u8]>),
}

impl OwnedCommand {
    pub fn borrow(&self) -> Command<'_> {
        match self {
            Self::Number(number) => Command::Number(*number),
            Self::Text(text) => Command::Text(text),
        }
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", text.escape_ascii()),
        }
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a frame's flag bits and kind say, wherever the layout has them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const REPLY: Self = Self(1);
    pub const ONE_WAY: Self = Self(2);
    pub const PUSH: Self = Self(4);
    pub const ERROR: Self = Self(8);
    pub const COMPRESSED: Self = Self(16);
    pub const SEALED: Self = Self(32);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::REPLY, "reply"),
        (Self::ONE_WAY, "one_way"),
        (Self::PUSH, "push"),
        (Self::ERROR, "error"),
        (Self::COMPRESSED, "compressed"),
        (Self::SEALED, "sealed"),
    ];

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// `flags` too if `condition` holds.
    #[must_use]
    pub const fn with_if(self, condition: bool, flags: Self) -> Self {
        if condition { self.with(flags) } else { self }
    }

    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    pub const fn reply(self) -> bool {
        self.contains(Self::REPLY)
    }

    pub const fn one_way(self) -> bool {
        self.contains(Self::ONE_WAY)
    }

    pub const fn push(self) -> bool {
        self.contains(Self::PUSH)
    }

    pub const fn error(self) -> bool {
        self.contains(Self::ERROR)
    }

    pub const fn compressed(self) -> bool {
        self.contains(Self::COMPRESSED)
    }

    pub const fn sealed(self) -> bool {
        self.contains(Self::SEALED)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, n)| n))
            .finish()
    }
}

/// The value of a header field that has no meaning to MeshGate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    Unsigned(u64),
    Signed(i64),
    /// Without padding; not checked to be UTF-8 or printable.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
}

impl FieldValue<'_> {
    /// Appends the value as it may stand in metadata: integers in decimal, text as it is if
    /// it is visible ASCII with inner spaces, bytes in lower-case hexadecimal. False, and
    /// nothing appended, if the text cannot stand there.
    #[must_use]
    pub fn write_ascii(&self, out: &mut Vec<u8>) -> bool {
        use std::io::Write;
        // Writing into a Vec does not fail.
        match self {
            Self::Unsigned(value) => write!(out, "{value}").is_ok(),
            Self::Signed(value) => write!(out, "{value}").is_ok(),
            Self::Text(text) => {
                let printable = is_metadata(text);
                if printable {
                    out.extend_from_slice(text);
                }
                printable
            }
            Self::Bytes(bytes) => bytes.iter().all(|byte| write!(out, "{byte:02x}").is_ok()),
        }
    }
}

/// Visible ASCII with inner spaces.
fn is_metadata(text: &[u8]) -> bool {
    let inner = |end: Option<&u8>| end.is_none_or(|byte| *byte != b' ');
    text.iter().all(|byte| (b' '..=b'~').contains(byte))
        && inner(text.first())
        && inner(text.last())
}

/// A request to write.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub command: Command<'a>,
    /// Must fit the layout's sequence field; not written if it has none.
    pub sequence: u64,
    pub one_way: bool,
    /// The body in parts, joined on the wire.
    pub body: &'a [&'a [u8]],
    /// Compress the body if the layout can, and it is worth it.
    pub compress: bool,
    /// Values for reserved fields by name.
    pub fields: &'a [(&'a str, FieldValue<'a>)],
    /// What to put between the declared fields and the body.
    pub extension: &'a [u8],
}

impl<'a> Request<'a> {
    pub const fn new(command: Command<'a>, sequence: u64, body: &'a [&'a [u8]]) -> Self {
        Self {
            command,
            sequence,
            one_way: false,
            body,
            compress: false,
            fields: &[],
            extension: &[],
        }
    }
}

/// A reply to write.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    pub status: i64,
    /// The call failed: sets the `error` flag where the layout has one.
    pub error: bool,
    /// The body in parts, joined on the wire.
    pub body: &'a [&'a [u8]],
    /// Compress the body if the layout can, and it is worth it.
    pub compress: bool,
}

/// A message to the client that answers nothing.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub command: Command<'a>,
    /// Must fit the layout's sequence field; not written if it has none.
    pub sequence: u64,
    pub status: i64,
    pub error: bool,
    /// The body in parts, joined on the wire.
    pub body: &'a [&'a [u8]],
    /// Compress the body if the layout can, and it is worth it.
    pub compress: bool,
}

/// Seals a finished body in place. Implemented by sessions.
pub trait FrameSeal {
    /// How many bytes a sealed body is longer than its plain text.
    fn overhead(&self) -> usize;

    /// Seals `body`, whose last `overhead` bytes are room for the tag. `associated` is
    /// authenticated with it: header and trailer with the checksums' bytes zero.
    fn seal(&mut self, associated: &[&[u8]], body: &mut [u8]) -> Result<(), SealError>;
}
