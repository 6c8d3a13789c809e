//! Random layouts and frames for property tests, made from a run of bytes: the bytes shrink,
//! and so does what is made from them.

use crate::layout::spec::*;

/// Choices taken from bytes; the first of each once they run out.
pub(super) struct Choices<'a>(std::slice::Iter<'a, u8>);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    /// A number below `end`, which is at most 65536.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let mut next = || usize::from(self.0.next().copied().unwrap_or_default());
        if end > 256 { (next() << 8 | next()) % end } else { next() % end }
    }

    pub(super) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == of - 1
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub(super) fn bits(&mut self) -> u64 {
        // Small numbers and the ends of ranges are where errors live.
        match self.below(4) {
            0 => self.below(300) as u64,
            1 => u64::MAX - self.below(300) as u64,
            2 => 1 << self.below(64),
            _ => (0..8).fold(0, |sum, _| sum << 8 | self.below(256) as u64),
        }
    }

    pub(super) fn text(&mut self, max: usize) -> String {
        (0..self.below(max + 1)).map(|_| self.pick(&['a', 'b', '.', 'z'])).collect()
    }
}

const UNSIGNED: [FieldType; 5] =
    [FieldType::U32, FieldType::U16, FieldType::U24, FieldType::U64, FieldType::Varint];
const SIGNED: [FieldType; 4] = [FieldType::I8, FieldType::I16, FieldType::I32, FieldType::I64];

fn any_integer(choices: &mut Choices<'_>) -> FieldType {
    match choices.below(3) {
        0 => choices.pick(&UNSIGNED),
        1 => FieldType::U8,
        _ => choices.pick(&SIGNED),
    }
}

fn any_text(choices: &mut Choices<'_>) -> FieldType {
    let len = 1 + choices.below(24) as u16;
    if choices.chance(2) {
        let length = choices.pick(&[TextLength::U8, TextLength::U16, TextLength::Varint]);
        return FieldType::SizedText(SizedText { length, max: len });
    }
    FieldType::Text(len)
}

fn any_type(choices: &mut Choices<'_>) -> FieldType {
    match choices.below(4) {
        0 | 1 => any_integer(choices),
        2 => any_text(choices),
        _ => FieldType::Bytes(1 + choices.below(9) as u16),
    }
}

fn field(choices: &mut Choices<'_>, kind: FieldType, role: Role) -> FieldSpec {
    FieldSpec {
        name: String::new(),
        kind,
        role,
        byte_order: choices.pick(&[None, None, Some(ByteOrder::Big), Some(ByteOrder::Little)]),
        default: None,
        metadata: None,
        echo: false,
        description: None,
    }
}

/// A value of a type, as a constant or default.
fn value(choices: &mut Choices<'_>, kind: FieldType) -> Value {
    match kind {
        FieldType::Bytes(len) => {
            let digits = (0..len).map(|_| format!("{:02x}", choices.below(256)));
            Value::Text(format!("0x{}", digits.collect::<String>()))
        }
        FieldType::Text(max) => Value::Text(choices.text(usize::from(max))),
        FieldType::SizedText(text) => Value::Text(choices.text(usize::from(text.max))),
        FieldType::I8 | FieldType::I16 | FieldType::I32 | FieldType::I64 => {
            match choices.below(256) as i64 - 128 {
                number if number < 0 => Value::Signed(number),
                number => Value::Unsigned(number as u64),
            }
        }
        _ => Value::Unsigned(choices.below(256) as u64),
    }
}

fn lengths(choices: &mut Choices<'_>) -> Vec<(Counts, i32)> {
    let up = |choices: &mut Choices<'_>| choices.pick(&[0, 0, 1, 20]);
    let around = |choices: &mut Choices<'_>| choices.pick(&[0, 0, -2, 4]);
    let mut all = match choices.below(5) {
        0 => vec![(Counts::Frame, around(choices))],
        1 => vec![(Counts::After, up(choices))],
        2 => vec![(Counts::Body, up(choices))],
        3 => vec![(Counts::Body, up(choices)), (Counts::Body, up(choices))],
        _ => vec![(Counts::Frame, around(choices)), (Counts::Body, up(choices))],
    };
    match choices.below(4) {
        0 => all.push((Counts::Header, around(choices))),
        1 => all.push((Counts::Extension, up(choices))),
        2 => all.extend([(Counts::Extension, 0), (Counts::Extension, up(choices))]),
        _ => {}
    }
    all
}

fn kind_spec(choices: &mut Choices<'_>) -> KindSpec {
    let some = |choices: &mut Choices<'_>, value| choices.chance(2).then_some(value);
    KindSpec {
        request: 7,
        reply: 0,
        one_way: some(choices, 1),
        push: some(choices, 2),
        error: some(choices, 3),
    }
}

/// Flags that `kind` does not say already, on distinct bits of a byte or more.
fn flags_spec(choices: &mut Choices<'_>, kind: Option<KindSpec>, bits: usize) -> FlagsSpec {
    let mut free: Vec<u8> = (0..bits as u8).collect();
    let mut bit = |taken: bool| {
        if taken || choices.chance(4) {
            return None;
        }
        let number = free.remove(choices.below(free.len()));
        Some(if choices.chance(3) {
            Bit::Clear(ClearBit { clear: number })
        } else {
            Bit::Set(number)
        })
    };
    FlagsSpec {
        reply: bit(kind.is_some()),
        one_way: bit(kind.is_some_and(|kind| kind.one_way.is_some())),
        push: bit(kind.is_some_and(|kind| kind.push.is_some())),
        error: bit(kind.is_some_and(|kind| kind.error.is_some())),
        compressed: bit(false),
        sealed: bit(false),
    }
}

fn checksum(choices: &mut Choices<'_>) -> Role {
    let over = match choices.below(6) {
        0 => Over::Before,
        1 => Over::Frame,
        2 => Over::Header,
        3 => Over::Body,
        4 => Over::After,
        _ => Over::Span(SpanSpec {
            from: choices.pick(&["f0", "f1"]).into(),
            through: "body".into(),
        }),
    };
    Role::Checksum(ChecksumSpec {
        algorithm: choices.pick(&[
            ChecksumAlgorithm::Crc32c,
            ChecksumAlgorithm::Crc32,
            ChecksumAlgorithm::Adler32,
        ]),
        over,
        own_bytes: choices.pick(&[OwnBytes::Zero, OwnBytes::Skip]),
    })
}

fn reply(choices: &mut Choices<'_>, text: bool, has_status: bool, extension: bool) -> ReplySpec {
    let command = match (text, choices.below(4)) {
        (_, 0) => ReplyCommand::Same,
        (false, 1) => ReplyCommand::SetBit(choices.below(8) as u8),
        (false, 2) => ReplyCommand::Add(choices.below(512) as i64 - 256),
        (false, _) => ReplyCommand::Table(
            (0..choices.below(20))
                .map(|n| (n as u64, choices.below(100) as u64))
                .map(pair)
                .collect(),
        ),
        (true, _) => ReplyCommand::Append(choices.text(1)),
    };
    let status = match (has_status, choices.below(3)) {
        (true, _) | (false, 0) => None,
        (false, 1) => Some(ReplyStatus::Nowhere),
        (false, _) => Some(ReplyStatus::BodyPrefix(choices.pick(&SIGNED))),
    };
    ReplySpec {
        command,
        status,
        echo_extension: extension && choices.chance(2),
        one_way: choices.chance(2),
    }
}

fn pair((from, to): (u64, u64)) -> (Value, Value) {
    (Value::Unsigned(from), Value::Unsigned(to))
}

/// A random layout; nearly all compile (checksums that cover each other do not).
pub(super) fn layout(choices: &mut Choices<'_>) -> LayoutSpec {
    let text = choices.chance(3);
    let command = if text { any_text(choices) } else { any_integer(choices) };
    let mut header = vec![field(choices, command, Role::Command)];
    let sequence = !choices.chance(4);
    if sequence {
        let kind = any_integer(choices);
        header.push(field(choices, kind, Role::Sequence));
    }
    let status = choices.chance(2);
    if status {
        let kind = choices.pick(&SIGNED);
        header.push(field(choices, kind, Role::Status));
    }
    if choices.chance(2) {
        let kind = any_integer(choices);
        let accept = [2, 1, 9].map(Value::Unsigned).to_vec();
        let write = choices.pick(&[None, Some(Value::Unsigned(9))]);
        header.push(field(choices, kind, Role::Version(VersionSpec { accept, write })));
    }
    let kind = choices.chance(3).then(|| kind_spec(choices));
    if let Some(kind) = kind {
        let shape = any_integer(choices);
        header.push(field(choices, shape, Role::Kind(kind)));
    }
    let mut compression = None;
    if choices.chance(2) {
        let (shape, bits) = choices.pick(&[(FieldType::U8, 8), (FieldType::Varint, 40)]);
        let flags = flags_spec(choices, kind, bits);
        let mut flags_field = field(choices, shape, Role::Flags(flags));
        flags_field.echo = choices.chance(2);
        header.push(flags_field);
        if flags.compressed.is_some() {
            let algorithm = choices.pick(&[CompressionAlgorithm::Zlib, CompressionAlgorithm::Lz4]);
            compression = Some(CompressionSpec { algorithm, min_bytes: 32 });
        }
    }
    let lengths = lengths(choices);
    let extension =
        lengths.iter().any(|(counts, _)| matches!(counts, Counts::Header | Counts::Extension));
    for (counts, adjust) in lengths {
        let kind = choices.pick(&UNSIGNED);
        header.push(field(choices, kind, Role::Length(LengthSpec { counts, adjust })));
    }
    for number in 0..choices.below(5) {
        let kind = any_type(choices);
        let mut reserved = field(choices, kind, Role::Reserved);
        reserved.echo = choices.chance(2);
        reserved.metadata = choices.chance(2).then(|| format!("x-field-{number}"));
        reserved.default = choices.chance(2).then(|| value(choices, kind));
        header.push(reserved);
    }
    for _ in 0..choices.below(3) {
        let kind = any_type(choices);
        if !matches!(kind, FieldType::Varint | FieldType::SizedText(_)) {
            let constant = value(choices, kind);
            header.push(field(choices, kind, Role::Constant(constant)));
        }
    }
    if choices.chance(4) {
        let role = checksum(choices);
        header.push(field(choices, FieldType::U32, role));
    }
    for last in (1..header.len()).rev() {
        header.swap(last, choices.below(last + 1));
    }
    let mut trailer = Vec::new();
    for _ in 0..choices.below(3) {
        let (kind, role) = match choices.below(3) {
            0 => (FieldType::U32, checksum(choices)),
            1 => (FieldType::U16, Role::Reserved),
            _ => (FieldType::Bytes(2), Role::Constant(Value::Text("0x0d0a".into()))),
        };
        trailer.push(field(choices, kind, role));
    }
    for (number, field) in header.iter_mut().chain(&mut trailer).enumerate() {
        field.name = format!("f{number}");
    }
    LayoutSpec {
        schema: None,
        name: "random".into(),
        description: None,
        byte_order: choices.pick(&[ByteOrder::Big, ByteOrder::Little]),
        header,
        trailer,
        correlation: if sequence { Correlation::Sequence } else { Correlation::Order },
        reply: reply(choices, text, status, extension),
        compression,
    }
}
