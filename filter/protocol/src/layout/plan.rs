//! A compiled layout: what decoding and encoding work from.

use super::compression::Compression;
use super::crc::Crc;
use super::encode::Prepared;
use super::frame::Flags;
use super::slot::{Shape, Slot};
use super::spec::{ByteOrder, Correlation, OwnBytes};

/// A frame layout, compiled from its specification: immutable, to be shared by all
/// connections.
#[derive(Debug)]
pub struct Layout {
    pub(super) name: Box<str>,
    pub(super) correlation: Correlation,
    /// For integers outside of the header.
    pub(super) order: ByteOrder,
    pub(super) header: Box<[HeaderField]>,
    /// The same made ready to be written, where that can be.
    pub(super) prepared: Option<Prepared>,
    /// Whether every header field is of fixed width: then slots say where they stand.
    pub(super) fixed: bool,
    /// The declared header's length if it is fixed, the least that it can be otherwise.
    pub(super) header_min: usize,
    /// Header fields whose value is checked, in the order of the wire.
    pub(super) checks: Box<[Check]>,
    /// Many of them in one comparison, if the header is fixed and long enough.
    pub(super) prefix: Option<Prefix>,
    /// The checks that `prefix` leaves.
    pub(super) late_checks: Box<[Check]>,
    pub(super) command: Slot,
    pub(super) sequence: Option<Slot>,
    pub(super) status: Option<Slot>,
    pub(super) version: Option<Version>,
    pub(super) flags: Box<[FlagBits]>,
    pub(super) kind: Option<Kind>,
    /// The flags that the layout can say.
    pub(super) expresses: Flags,
    pub(super) lengths: Lengths,
    pub(super) trailer: Box<[TrailerField]>,
    pub(super) trailer_len: usize,
    /// In an order in which each can be computed when those before it are in place.
    pub(super) checksums: Box<[Checksum]>,
    pub(super) reply_command: ReplyCommand,
    /// The integer that stands before a reply's body, if that is where the status goes.
    pub(super) status_prefix: Option<Shape>,
    pub(super) echo_extension: bool,
    pub(super) answers_one_way: bool,
    pub(super) echoes: bool,
    pub(super) compression: Option<Compression>,
    /// The trailer with constants and defaults in place and zeros elsewhere.
    pub(super) trailer_template: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct HeaderField {
    pub(super) name: Box<str>,
    pub(super) slot: Slot,
    pub(super) part: Part,
    /// The bytes of a constant, a default, or the zeros that hold a checksum's place; empty
    /// for other fields.
    pub(super) fill: Box<[u8]>,
    pub(super) metadata: Option<Box<str>>,
    pub(super) echo: bool,
}

/// What fills a header field when a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Reserved,
    Constant,
    Version,
    Frame {
        adjust: i64,
    },
    After {
        adjust: i64,
    },
    Header {
        adjust: i64,
    },
    /// Only the first field of several says the count; the others say none.
    Extension {
        adjust: i64,
        first: bool,
    },
    Body {
        adjust: i64,
        first: bool,
    },
    Command,
    Sequence,
    Status,
    Flags {
        index: u8,
    },
    Kind,
    Checksum,
}

/// What the first 8 bytes of a header must be, both in the order of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) mask: u64,
    pub(super) expected: u64,
}

impl Prefix {
    pub(super) const fn matches(self, first: u64) -> bool {
        first & self.mask == self.expected
    }
}

#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) slot: Slot,
    pub(super) must_be: MustBe,
}

#[derive(Clone, Debug)]
pub(super) enum MustBe {
    Bytes(Box<[u8]>),
    OneOf(Box<[u64]>),
    Kind,
}

#[derive(Debug)]
pub(super) struct Version {
    pub(super) slot: Slot,
    pub(super) write: u64,
}

/// The flags of one integer field.
#[derive(Debug)]
pub(super) struct FlagBits {
    pub(super) slot: Slot,
    pub(super) bits: Box<[FlagBit]>,
    /// The bits that no flag uses.
    pub(super) others: u64,
    /// By the value's lowest byte, where no flag stands above it: all flags in one look-up.
    pub(super) table: Option<Box<[Flags; 256]>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FlagBit {
    pub(super) flag: Flags,
    pub(super) mask: u64,
    /// The flag holds where the bit is clear.
    pub(super) inverted: bool,
}

impl FlagBits {
    /// What a field's bits say.
    pub(super) fn read(&self, bits: u64) -> Flags {
        match &self.table {
            Some(table) => {
                let low = usize::try_from(bits & 0xff).unwrap_or_default();
                table.get(low).copied().unwrap_or_default()
            }
            None => Self::scan(&self.bits, bits),
        }
    }

    pub(super) fn scan(flags: &[FlagBit], bits: u64) -> Flags {
        flags.iter().fold(Flags::NONE, |sum, bit| {
            sum.with_if((bits & bit.mask != 0) != bit.inverted, bit.flag)
        })
    }

    /// The bits that say `flags`; `others` are kept where no flag stands.
    pub(super) fn write(&self, flags: Flags, others: u64) -> u64 {
        self.bits.iter().fold(others & self.others, |sum, bit| {
            if flags.contains(bit.flag) != bit.inverted { sum | bit.mask } else { sum }
        })
    }
}

/// A field that numbers the sorts of frames.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) slot: Slot,
    pub(super) request: u64,
    pub(super) reply: u64,
    pub(super) one_way: Option<u64>,
    pub(super) push: Option<u64>,
    pub(super) error: Option<u64>,
}

impl Kind {
    pub(super) fn read(&self, value: u64) -> Option<Flags> {
        if value == self.request {
            Some(Flags::NONE)
        } else if value == self.reply {
            Some(Flags::REPLY)
        } else if self.one_way == Some(value) {
            Some(Flags::ONE_WAY)
        } else if self.push == Some(value) {
            Some(Flags::PUSH)
        } else if self.error == Some(value) {
            Some(Flags::REPLY.with(Flags::ERROR))
        } else {
            None
        }
    }

    pub(super) fn write(&self, flags: Flags) -> u64 {
        if flags.push() {
            self.push.unwrap_or(self.reply)
        } else if flags.reply() && flags.error() {
            self.error.unwrap_or(self.reply)
        } else if flags.reply() {
            self.reply
        } else if flags.one_way() {
            self.one_way.unwrap_or(self.request)
        } else {
            self.request
        }
    }
}

/// A length field and what it says more than the bytes it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) slot: Slot,
    pub(super) adjust: i64,
}

#[derive(Debug)]
pub(super) struct Lengths {
    pub(super) whole: Whole,
    pub(super) head: Head,
    /// The fields whose sum is the body's length; may be empty if the whole is said.
    pub(super) body: Box<[Length]>,
    /// Where the last length field ends, if the header is fixed.
    pub(super) end: usize,
}

/// How the whole frame's length is said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whole {
    Frame(Length),
    After(Length),
    /// By its parts.
    Sum,
}

/// How the header's length is said.
#[derive(Debug)]
pub(super) enum Head {
    /// By its declared fields: there is no extension.
    Declared,
    Header(Length),
    Extension(Box<[Length]>),
}

#[derive(Debug)]
pub(super) struct TrailerField {
    pub(super) name: Box<str>,
    /// From the start of the trailer.
    pub(super) offset: usize,
    /// What a constant must be; empty for other roles.
    pub(super) constant: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Checksum {
    pub(super) name: Box<str>,
    pub(super) place: ChecksumPlace,
    pub(super) order: ByteOrder,
    /// `None` is Adler-32, which needs no table.
    pub(super) crc: Option<Crc>,
    pub(super) from: Edge,
    pub(super) to: Edge,
    pub(super) own_bytes: OwnBytes,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ChecksumPlace {
    Header(Slot),
    /// The offset from the start of the trailer.
    Trailer(usize),
}

/// A boundary between parts of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// The start of a header field.
    Field(u8),
    /// Where the declared fields end and the extension begins.
    Declared,
    /// Where the header ends and the body begins.
    Body,
    /// So many bytes after the body.
    Trailer(usize),
}

#[derive(Debug)]
pub(super) enum ReplyCommand {
    Same,
    Set(u64),
    Add(i64),
    Append(Box<[u8]>),
    /// Sorted by the request's.
    Numbers(Box<[(u64, u64)]>),
    Texts(Box<[(Text, Text)]>),
}

/// A text command, without padding.
pub(super) type Text = Box<[u8]>;

impl Layout {
    /// The layout's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How replies find their requests.
    pub const fn correlation(&self) -> Correlation {
        self.correlation
    }

    /// Whether one-way requests get a reply too.
    pub const fn answers_one_way(&self) -> bool {
        self.answers_one_way
    }

    /// Whether commands are text rather than integers.
    pub const fn has_text_commands(&self) -> bool {
        self.command.shape.is_text()
    }

    /// The flags that a frame of this layout can carry.
    pub const fn expresses(&self) -> Flags {
        self.expresses
    }

    /// The least bytes of a frame.
    pub const fn min_frame(&self) -> usize {
        self.header_min.saturating_add(self.trailer_len)
    }

    /// The longest body on the wire (sealed, if it is) that the length fields can say in a
    /// frame without extension.
    pub fn max_body(&self) -> u64 {
        let wide = |len: usize| i128::try_from(len).unwrap_or(i128::MAX);
        let trailer = wide(self.trailer_len);
        let header = self
            .header
            .iter()
            .fold(0_usize, |sum, field| sum.saturating_add(field.slot.shape.widths().1));
        let most = self.header.iter().filter_map(|field| {
            let slot = field.slot;
            // What the field counts besides the body, at most.
            let (adjust, besides) = match field.part {
                Part::Frame { adjust } => (adjust, wide(header).saturating_add(trailer)),
                Part::After { adjust } => {
                    let before = usize::from(slot.offset).saturating_add(slot.shape.widths().1);
                    (adjust, wide(header.saturating_sub(before)).saturating_add(trailer))
                }
                Part::Body { adjust, first: true } => (adjust, 0),
                _ => return None,
            };
            let most = i128::from(slot.shape.most()).saturating_sub(i128::from(adjust));
            Some(most.saturating_sub(besides).max(0))
        });
        most.min().and_then(|most| u64::try_from(most).ok()).unwrap_or(u64::MAX)
    }

    /// Whether a reply with this status can be written. Where the layout has no place for a
    /// status, any can.
    pub fn fits_status(&self, status: i64) -> bool {
        self.status_prefix
            .or(self.status.map(|slot| slot.shape))
            .is_none_or(|shape| shape.unsigned(status).is_some())
    }

    /// Whether a frame can carry this sequence number. Any where the layout has none.
    pub fn fits_sequence(&self, sequence: u64) -> bool {
        self.sequence.is_none_or(|slot| sequence <= slot.shape.mask())
    }
}
