//! What a frame layout says in configuration, before it is compiled.
//!
//! These types are the reference of the layout language: their doc comments become the
//! descriptions in the JSON Schema. Unknown keys are refused everywhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A private frame layout: header fields in the order of the wire, then the body, then an
/// optional trailer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LayoutSpec {
    /// Where the JSON Schema lies, for editors; not used by MeshGate.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Names the layout in logs and metrics, and is bound into session handshakes: lower-case
    /// letters, digits, `-`, `_` and `.`, at most 64.
    pub name: String,
    /// For people; not used by MeshGate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The byte order of every integer whose field does not say otherwise.
    #[serde(default)]
    pub byte_order: ByteOrder,
    /// The fields of the header in the order of the wire.
    pub header: Vec<FieldSpec>,
    /// Fields after the body, of fixed width: checksums, constants, reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailer: Vec<FieldSpec>,
    /// How a reply finds its request.
    #[serde(default)]
    pub correlation: Correlation,
    /// How a reply's header comes from its request's.
    #[serde(default)]
    pub reply: ReplySpec,
    /// How bodies with the `compressed` flag are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionSpec>,
}

/// The order of an integer's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ByteOrder {
    /// The most significant byte first ("network order").
    #[default]
    Big,
    /// The least significant byte first.
    Little,
}

/// One field of a header or trailer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FieldSpec {
    /// Names the field in errors and for the command line; unique in the layout.
    pub name: String,
    /// How the field is written on the wire.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// What the field means to MeshGate.
    #[serde(default)]
    pub role: Role,
    /// The byte order of this field alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_order: Option<ByteOrder>,
    /// Reserved fields: what to write where nothing is echoed or given; zeros by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Hands the field's value to the service under this gRPC metadata name. Integers go as
    /// decimal, text as it is (up to the first NUL), bytes as lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Reserved fields: the reply repeats the request's bytes. Flags: it repeats the bits
    /// that the layout gives no meaning.
    #[serde(default, skip_serializing_if = "is_false")]
    pub echo: bool,
    /// For people; not used by MeshGate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

// The signature is serde's: `skip_serializing_if` hands out a reference.
fn is_false(value: &bool) -> bool {
    !*value
}

/// How a field is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// Unsigned, 1 byte.
    U8,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned, 3 bytes.
    U24,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 8 bytes.
    U64,
    /// Two's complement, 1 byte.
    I8,
    /// Two's complement, 2 bytes.
    I16,
    /// Two's complement, 4 bytes.
    I32,
    /// Two's complement, 8 bytes.
    I64,
    /// Unsigned LEB128, 1 to 10 bytes, 7 bits a byte, the least significant first.
    Varint,
    /// So many bytes, 1 to 1024.
    Bytes(u16),
    /// Text padded with NULs to so many bytes, 1 to 1024.
    Text(u16),
    /// Text after its own length.
    SizedText(SizedText),
}

/// Text that follows its own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SizedText {
    /// How the length, in bytes, is written.
    pub length: TextLength,
    /// The most bytes of text that are accepted, 1 to 1024.
    pub max: u16,
}

/// How the length of a sized text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TextLength {
    U8,
    U16,
    Varint,
}

/// What a field means to MeshGate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nothing: ignored on reading unless `metadata` or `echo` says otherwise.
    #[default]
    Reserved,
    /// Always this value (a magic number, an end mark); a frame with another is refused.
    Constant(Value),
    /// The protocol version; a frame with another than the accepted ones is refused. A reply
    /// carries its request's version.
    Version(VersionSpec),
    /// A length, in bytes.
    Length(LengthSpec),
    /// What the frame asks for: an integer or text.
    Command,
    /// What ties a reply to its request: an integer, repeated in the reply.
    Sequence,
    /// How a call ended: an integer.
    Status,
    /// Single bits.
    Flags(FlagsSpec),
    /// A number that says what sort of frame it is.
    Kind(KindSpec),
    /// A checksum, 4 bytes wide.
    Checksum(ChecksumSpec),
}

/// A constant or default: an integer, or a string. For an integer field the string is
/// hexadecimal (`"0x4D47"`); for bytes it is hexadecimal with two digits a byte
/// (`"0x50525043"`); for text it is the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected an integer, or a string such as \"0x4D47\"")]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// Which versions are spoken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VersionSpec {
    /// The accepted versions, at least one.
    pub accept: Vec<Value>,
    /// The version of frames that answer nothing; the first accepted one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Value>,
}

/// What a length field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LengthSpec {
    /// Which bytes are counted.
    pub counts: Counts,
    /// Added to the count on the wire: 4 if the field says 4 more than the bytes it counts,
    /// -12 if it says 12 less. From -65536 to 65536.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub adjust: i32,
}

// The signature is serde's: `skip_serializing_if` hands out a reference.
fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// Which bytes a length field counts. The frame's length is either said as a whole (`frame`
/// or `after`) or is the sum of its parts (`body`, with `header` or `extension` where the
/// header may be longer than its declared fields).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// The whole frame: header, body and trailer.
    Frame,
    /// Everything after this field, to the end of the frame.
    After,
    /// The header: the declared fields and what follows them before the body (the
    /// extension). Its bytes are kept.
    Header,
    /// What follows the declared fields before the body. Several such fields add up;
    /// encoding writes all of it into the first and zero into the others.
    Extension,
    /// The body. Several such fields add up; encoding writes all of it into the first and
    /// zero into the others.
    Body,
}

/// Which bit of an integer is which flag: 0 is the least significant. Bits that are not
/// named are ignored on reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FlagsSpec {
    /// The frame answers a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Bit>,
    /// The frame wants no reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<Bit>,
    /// The frame is a message to the client that answers nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Bit>,
    /// The call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Bit>,
    /// The body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<Bit>,
    /// The body is sealed by the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Bit>,
}

/// A flag's bit: its number where set means yes, or `{"clear": n}` where clear means yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a bit number such as 3, or {\"clear\": 3}")]
pub enum Bit {
    Set(u8),
    Clear(ClearBit),
}

/// A flag that holds where its bit is clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClearBit {
    pub clear: u8,
}

/// The numbers of a field that says what sort of frame it is; a frame with another number
/// is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KindSpec {
    pub request: u64,
    pub reply: u64,
    /// A request that wants no reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<u64>,
    /// A message to the client that answers nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<u64>,
    /// A reply to a call that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<u64>,
}

/// A checksum and what it covers. It is taken over the bytes as they are on the wire
/// (compressed, sealed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChecksumSpec {
    pub algorithm: ChecksumAlgorithm,
    /// The bytes that it covers.
    pub over: Over,
    /// What stands for the checksum's own bytes where it covers them.
    #[serde(default)]
    pub own_bytes: OwnBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChecksumAlgorithm {
    /// CRC-32 of Ethernet, zlib and gzip (polynomial 0x04C11DB7, reflected).
    Crc32,
    /// CRC-32C of iSCSI and SCTP (polynomial 0x1EDC6F41, reflected).
    Crc32c,
    /// Adler-32 of zlib (RFC 1950).
    Adler32,
}

/// The bytes that a checksum covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Header, body and trailer.
    Frame,
    /// The header with its extension.
    Header,
    /// The body.
    Body,
    /// Everything before the checksum.
    Before,
    /// Everything after the checksum.
    After,
    /// From the first byte of one part through the last of another.
    Span(SpanSpec),
}

/// A range of bytes by the names of its ends: a field, or `extension` or `body`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SpanSpec {
    /// The part whose first byte is the first that counts.
    pub from: String,
    /// The part whose last byte is the last that counts.
    pub through: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OwnBytes {
    /// They count as zeros.
    #[default]
    Zero,
    /// They are left out.
    Skip,
}

/// How a reply finds its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Correlation {
    /// By its sequence number, in any order. The header needs a field of the role `sequence`.
    #[default]
    Sequence,
    /// By its place: replies come in the order of the requests. For layouts without a
    /// sequence number.
    Order,
}

/// How a reply's header comes from its request's. Sequence and version are always repeated,
/// reserved fields where they say `echo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplySpec {
    /// The reply's command.
    #[serde(default)]
    pub command: ReplyCommand,
    /// Where the status goes; by default into the field of the role `status`, or nowhere if
    /// there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ReplyStatus>,
    /// The reply repeats the request's header extension.
    #[serde(default, skip_serializing_if = "is_false")]
    pub echo_extension: bool,
    /// One-way requests get a reply too, as any other: for clients that want to know that theirs
    /// arrived. Without it they get none, whatever becomes of them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_way: bool,
}

/// How a reply's command comes from its request's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReplyCommand {
    /// The same.
    #[default]
    Same,
    /// The same with this bit set; 0 is the least significant.
    SetBit(u8),
    /// The request's and this number.
    Add(i64),
    /// The request's text with this text after it.
    Append(String),
    /// By pairs of request and reply; a command without a pair stays the same.
    Table(Vec<(Value, Value)>),
}

/// Where a reply's status goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReplyStatus {
    /// Into the header field of the role `status`.
    Field,
    /// Before the body's own bytes (compressed and sealed with them), as an integer of this
    /// type: u8 to i64, in the layout's byte order.
    BodyPrefix(FieldType),
    /// Nowhere: the client cannot see it.
    Nowhere,
}

/// How bodies with the `compressed` flag are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CompressionSpec {
    pub algorithm: CompressionAlgorithm,
    /// Bodies below so many bytes are sent as they are; 512 by default.
    #[serde(default = "default_min_bytes")]
    pub min_bytes: u32,
}

/// Where a layout does not say.
pub fn default_min_bytes() -> u32 {
    512
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CompressionAlgorithm {
    /// A zlib stream (RFC 1950).
    Zlib,
    /// One LZ4 block after the body's own size as a little-endian u32.
    Lz4,
}
