//! What can be wrong with a frame, and whose fault it is.

use std::fmt;

/// A frame that a peer sent is wrong: always the peer's fault. After an error of `decode` the
/// connection's framing is lost, so nothing after it can be read; an error of `open_body` is
/// about one body, and the next frame is where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A constant has another value: its first byte that differs.
    BadMagic { field: Box<str>, at: usize, expected: u8, found: u8 },
    /// A version that the layout does not accept.
    BadVersion { field: Box<str>, found: u64 },
    /// A number that names no sort of frame.
    BadKind { field: Box<str>, found: u64 },
    /// The lengths say less than the header and trailer need.
    LengthTooSmall { len: u64, least: u64 },
    /// A length of a signed type is below zero.
    NegativeLength { len: i64 },
    /// The whole length is not the sum of its parts.
    LengthMismatch { whole: u64, parts: u64 },
    /// The lengths say more than the limit.
    TooLarge { len: u64, max: u64 },
    /// A LEB128 integer longer than 10 bytes or above 64 bits.
    BadVarint { field: Box<str> },
    /// A sized text above its limit.
    TextTooLong { field: Box<str>, len: u64, max: u64 },
    /// A checksum that does not match the bytes.
    Checksum { field: Box<str>, expected: u32, found: u32 },
    /// A body that says it is compressed and does not decompress.
    Compression { problem: &'static str },
    /// A body that decompresses to more than the limit.
    BodyTooLarge { max: u64 },
    /// A reply's body is shorter than the status that should stand before it.
    NoStatus { len: usize, width: usize },
}

impl FrameError {
    /// A stable word for metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadMagic { .. } => "bad_magic",
            Self::BadVersion { .. } => "bad_version",
            Self::BadKind { .. } => "bad_kind",
            Self::LengthTooSmall { .. } | Self::NegativeLength { .. } => "length_too_small",
            Self::LengthMismatch { .. } => "length_mismatch",
            Self::TooLarge { .. } => "frame_too_large",
            Self::BadVarint { .. } => "bad_varint",
            Self::TextTooLong { .. } => "text_too_long",
            Self::Checksum { .. } => "bad_checksum",
            Self::Compression { .. } => "bad_compression",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::NoStatus { .. } => "no_status",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic { field, at, expected, found } => {
                write!(f, "byte {at} of \"{field}\" is 0x{found:02x}, expected 0x{expected:02x}")
            }
            Self::BadVersion { field, found } => {
                write!(f, "\"{field}\" {found} is not an accepted version")
            }
            Self::BadKind { field, found } => {
                write!(f, "\"{field}\" {found} is no sort of frame")
            }
            Self::LengthTooSmall { len, least } => {
                write!(f, "a length of {len} bytes is below the least of {least}")
            }
            Self::NegativeLength { len } => write!(f, "a length of {len} bytes is below zero"),
            Self::LengthMismatch { whole, parts } => {
                write!(f, "the frame's length is {whole} bytes, its parts add up to {parts}")
            }
            Self::TooLarge { len, max } => {
                write!(f, "a frame of {len} bytes is above the limit of {max}")
            }
            Self::BadVarint { field } => write!(f, "\"{field}\" is not a 64-bit LEB128 integer"),
            Self::TextTooLong { field, len, max } => {
                write!(f, "\"{field}\" of {len} bytes is above its limit of {max}")
            }
            Self::Checksum { field, expected, found } => {
                write!(f, "\"{field}\" is 0x{found:08x}, the bytes give 0x{expected:08x}")
            }
            Self::Compression { problem } => write!(f, "the body does not decompress: {problem}"),
            Self::BodyTooLarge { max } => {
                write!(f, "the body decompresses to more than the limit of {max} bytes")
            }
            Self::NoStatus { len, width } => {
                write!(f, "a reply body of {len} bytes has no room for a status of {width}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// A frame cannot be written as asked: ours or the configuration's fault, never the peer's.
/// The output is left as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A value does not fit its field.
    OutOfRange { field: Box<str>, value: i128 },
    /// Text longer than its field.
    TextTooLong { field: Box<str>, len: usize, max: usize },
    /// A text command where the layout has integers, or the reverse.
    CommandType { expected: &'static str },
    /// A field that the layout does not have, or that its role fills.
    NoSuchField { name: String },
    /// A value of another type or width than its field.
    ValueType { field: Box<str> },
    /// A frame without room for a header extension was given one.
    NoExtension,
    /// The frame would be longer than this machine can address.
    TooLarge,
    /// The session could not seal the frame.
    Seal(SealError),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { field, value } => write!(f, "{value} does not fit \"{field}\""),
            Self::TextTooLong { field, len, max } => {
                write!(f, "text of {len} bytes does not fit \"{field}\" of {max}")
            }
            Self::CommandType { expected } => write!(f, "the layout's commands are {expected}"),
            Self::NoSuchField { name } => write!(f, "no field \"{name}\" can be set"),
            Self::ValueType { field } => write!(f, "the value is not of the type of \"{field}\""),
            Self::NoExtension => f.write_str("the layout's header has no room for an extension"),
            Self::TooLarge => f.write_str("the frame is too large"),
            Self::Seal(error) => write!(f, "the frame could not be sealed: {error}"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// A session cannot seal any further frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The counter of frames has come to its end.
    CounterExhausted,
    /// The cipher refused (for instance a body above its limit).
    Cipher,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CounterExhausted => "the counter of frames is exhausted",
            Self::Cipher => "the cipher refused",
        })
    }
}

impl std::error::Error for SealError {}
