//! How the parts of a frame layout are read. They are defined beside the layout itself; a test
//! holds the names here against the schema made from there.

use super::{At, Read};
use crate::protocol::layout::spec::{
    Bit, ByteOrder, ChecksumAlgorithm, ChecksumSpec, ClearBit, CompressionAlgorithm,
    CompressionSpec, Correlation, Counts, FieldSpec, FieldType, FlagsSpec, KindSpec, LayoutSpec,
    LengthSpec, Over, OwnBytes, ReplyCommand, ReplySpec, ReplyStatus, Role, SizedText, SpanSpec,
    TextLength, Value, VersionSpec, default_min_bytes,
};

read_object!(LayoutSpec {
    schema as "$schema",
    name,
    description,
    byte_order = ByteOrder::default(),
    header,
    trailer = Vec::new(),
    correlation = Correlation::default(),
    reply = ReplySpec::default(),
    compression,
});

read_choice!(ByteOrder { "big" => Big, "little" => Little });

read_object!(FieldSpec {
    name,
    kind as "type",
    role = Role::Reserved,
    byte_order,
    default,
    metadata,
    echo = false,
    description,
});

read_choice!(
    FieldType {
        "u8" => U8,
        "u16" => U16,
        "u24" => U24,
        "u32" => U32,
        "u64" => U64,
        "i8" => I8,
        "i16" => I16,
        "i32" => I32,
        "i64" => I64,
        "varint" => Varint,
    }
    { "bytes" => Bytes, "text" => Text, "sized_text" => SizedText }
);

read_object!(SizedText { length, max });

read_choice!(TextLength { "u8" => U8, "u16" => U16, "varint" => Varint });

read_choice!(
    Role { "reserved" => Reserved, "command" => Command, "sequence" => Sequence, "status" => Status }
    {
        "constant" => Constant,
        "version" => Version,
        "length" => Length,
        "flags" => Flags,
        "kind" => Kind,
        "checksum" => Checksum,
    }
);

read_object!(VersionSpec { accept, write });

read_object!(LengthSpec { counts, adjust = 0 });

read_choice!(Counts {
    "frame" => Frame,
    "after" => After,
    "header" => Header,
    "extension" => Extension,
    "body" => Body,
});

read_object!(FlagsSpec { reply, one_way, push, error, compressed, sealed });

read_object!(ClearBit { clear });

read_object!(KindSpec { request, reply, one_way, push, error });

read_object!(ChecksumSpec { algorithm, over, own_bytes = OwnBytes::default() });

read_choice!(ChecksumAlgorithm { "crc32" => Crc32, "crc32c" => Crc32c, "adler32" => Adler32 });

read_choice!(
    Over {
        "frame" => Frame,
        "header" => Header,
        "body" => Body,
        "before" => Before,
        "after" => After,
    }
    { "span" => Span }
);

read_object!(SpanSpec { from, through });

read_choice!(OwnBytes { "zero" => Zero, "skip" => Skip });

read_choice!(Correlation { "sequence" => Sequence, "order" => Order });

read_object!(ReplySpec {
    command = ReplyCommand::Same,
    status,
    echo_extension = false,
    one_way = false,
});

read_choice!(
    ReplyCommand { "same" => Same }
    { "set_bit" => SetBit, "add" => Add, "append" => Append, "table" => Table }
);

read_choice!(
    ReplyStatus { "field" => Field, "nowhere" => Nowhere }
    { "body_prefix" => BodyPrefix }
);

read_object!(CompressionSpec { algorithm, min_bytes = default_min_bytes() });

read_choice!(CompressionAlgorithm { "zlib" => Zlib, "lz4" => Lz4 });

impl Read for Value {
    fn read(at: &At<'_>) -> Option<Self> {
        if let Some(text) = at.text() {
            return Some(Self::Text(text.into()));
        }
        let number = at.whole().and_then(|number| {
            let unsigned = u64::try_from(number).map(Self::Unsigned);
            unsigned.or_else(|_| i64::try_from(number).map(Self::Signed)).ok()
        });
        number.or_else(|| at.mismatch("a whole number, or text such as \"0x4D47\""))
    }
}

impl Read for (Value, Value) {
    fn read(at: &At<'_>) -> Option<Self> {
        if let Some(mut items) = at.items()
            && let (Some(first), Some(second), None) = (items.next(), items.next(), items.next())
        {
            return Value::read(&first).zip(Value::read(&second));
        }
        at.mismatch("a list of two commands, the request's and the reply's")
    }
}

impl Read for Bit {
    fn read(at: &At<'_>) -> Option<Self> {
        match at.whole().map(u8::try_from) {
            Some(Ok(bit)) => Some(Self::Set(bit)),
            Some(Err(_)) => at.mismatch("a bit's number such as 3, or {\"clear\": 3}"),
            None => ClearBit::read(at).map(Self::Clear),
        }
    }
}

#[cfg(all(test, feature = "schema"))]
mod tests;
