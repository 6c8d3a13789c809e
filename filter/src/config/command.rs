//! Commands as configuration writes them, read by the shape that the layout gives them.

use super::read::{At, Read};
use crate::protocol::layout::spec::{FieldType, LayoutSpec, Role};
use crate::protocol::layout::{Command, FieldValue, OwnedCommand};

/// A command: a number (`1001`, `"0x03e9"`) or a name (`"enter"`), as the layout has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandSpec {
    Number(i128),
    Text(String),
}

impl Read for CommandSpec {
    fn read(at: &At<'_>) -> Option<Self> {
        if let Some(number) = at.whole() {
            return Some(Self::Number(number));
        }
        match at.text() {
            Some(text) if !text.is_empty() => Some(Self::Text(text.into())),
            _ => at.mismatch(r#"a command such as 1001, "0x03e9" or "enter""#),
        }
    }
}

/// What the layout's command field can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandShape {
    /// So many bits.
    Unsigned(u8),
    /// So many bits, two's complement.
    Signed(u8),
    /// At most so many bytes.
    Text(u16),
}

impl CommandShape {
    /// `None` if the layout has no command field that a command can stand in; compiling the
    /// layout says so.
    pub fn of(layout: &LayoutSpec) -> Option<Self> {
        let field = layout.header.iter().find(|field| matches!(field.role, Role::Command))?;
        Some(match field.kind {
            FieldType::U8 => Self::Unsigned(8),
            FieldType::U16 => Self::Unsigned(16),
            FieldType::U24 => Self::Unsigned(24),
            FieldType::U32 => Self::Unsigned(32),
            FieldType::U64 | FieldType::Varint => Self::Unsigned(64),
            FieldType::I8 => Self::Signed(8),
            FieldType::I16 => Self::Signed(16),
            FieldType::I32 => Self::Signed(32),
            FieldType::I64 => Self::Signed(64),
            FieldType::Text(width) => Self::Text(width),
            FieldType::SizedText(text) => Self::Text(text.max),
            FieldType::Bytes(_) => return None,
        })
    }

    /// The least and the greatest number that fit; `None` for names.
    pub fn range(self) -> Option<(i128, i128)> {
        // At most 2^64, far from the limits of i128.
        let power = |bits: u8| 1_i128.wrapping_shl(bits.into());
        match self {
            Self::Unsigned(bits) => Some((0, power(bits).saturating_sub(1))),
            Self::Signed(bits) => {
                let half = power(bits.saturating_sub(1));
                Some((half.saturating_neg(), half.saturating_sub(1)))
            }
            Self::Text(_) => None,
        }
    }

    /// The number that the bits of a field stand for.
    pub fn number(self, bits: u64) -> i128 {
        let (_, most) = self.range().unwrap_or((0, i128::from(u64::MAX)));
        let number = i128::from(bits);
        match self {
            // A set sign bit counts for twice its negative.
            Self::Signed(width) if number > most => {
                number.saturating_sub(1_i128.wrapping_shl(width.into()))
            }
            _ => number,
        }
    }

    /// Appends a command as it may stand in metadata: numbers in decimal, text as it is if it is
    /// printable. False, and nothing appended, if it cannot stand there: a client chose its bytes.
    #[must_use]
    pub fn write_ascii(self, command: Command<'_>, out: &mut Vec<u8>) -> bool {
        match (command, self) {
            // Only the sign needs the shape.
            (Command::Number(bits), Self::Signed(_)) => {
                let number = i64::try_from(self.number(bits)).unwrap_or(i64::MAX);
                FieldValue::Signed(number).write_ascii(out)
            }
            (Command::Number(bits), _) => FieldValue::Unsigned(bits).write_ascii(out),
            (Command::Text(text), _) => FieldValue::Text(text).write_ascii(out),
        }
    }

    /// The bits of the field for `number`, zero-extended, as [`Command::Number`] has them.
    pub fn bits(self, number: i128) -> u64 {
        let width = match self {
            Self::Unsigned(bits) | Self::Signed(bits) => u32::from(bits),
            Self::Text(_) => 64,
        };
        let mask = u64::MAX.wrapping_shr(64_u32.saturating_sub(width));
        // Two's complement: the low bits are the field's.
        (number as u64) & mask
    }
}

impl CommandSpec {
    /// The command that stands for this in frames of `shape`; else what is wrong with it.
    pub fn resolve(&self, shape: CommandShape) -> Result<OwnedCommand, String> {
        match self {
            Self::Number(number) => match shape.range() {
                Some((least, most)) if (least..=most).contains(number) => {
                    Ok(OwnedCommand::Number(shape.bits(*number)))
                }
                Some((least, most)) => Err(format!(
                    "{number} does not fit the layout's command field, expected {least} to {most}"
                )),
                None => Err(format!(
                    "the layout's commands are names, expected one in quotes instead of {number}"
                )),
            },
            Self::Text(text) => resolve_text(text, shape),
        }
    }
}

/// The command that a key or a text stands for.
pub fn resolve_text(text: &str, shape: CommandShape) -> Result<OwnedCommand, String> {
    let CommandShape::Text(width) = shape else {
        return match parse_number(text) {
            Some(number) => CommandSpec::Number(number).resolve(shape),
            None => Err(format!(
                "the layout's commands are numbers, expected one such as \"1001\" or \"0x03e9\" \
                 instead of {text:?}"
            )),
        };
    };
    if text.is_empty() || text.len() > width.into() || text.contains('\0') {
        return Err(format!(
            "{text:?} does not fit the layout's command field, expected 1 to {width} bytes of text"
        ));
    }
    Ok(OwnedCommand::Text(text.as_bytes().into()))
}

/// Decimal, or hexadecimal after `0x`. One way to write a number: no plus sign, no leading zeros.
fn parse_number(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        return plain.then(|| u64::from_str_radix(digits, 16).ok().map(i128::from)).flatten();
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    let padded = digits.len() > 1 && digits.starts_with('0');
    if !plain || padded || digits.len() > 20 {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_fit_the_command_field() {
        let shape = CommandShape::Unsigned(16);
        assert_eq!(CommandSpec::Number(65_535).resolve(shape), Ok(OwnedCommand::Number(65_535)));
        assert!(CommandSpec::Number(65_536).resolve(shape).is_err());
        assert!(CommandSpec::Number(-1).resolve(shape).is_err());
        let widest = CommandShape::Unsigned(64);
        let most = i128::from(u64::MAX);
        assert_eq!(CommandSpec::Number(most).resolve(widest), Ok(OwnedCommand::Number(u64::MAX)));
    }

    #[test]
    fn numbers_below_zero_become_the_bits_of_the_field() {
        let shape = CommandShape::Signed(32);
        assert_eq!(CommandSpec::Number(-5).resolve(shape), Ok(OwnedCommand::Number(0xffff_fffb)));
        let widest = CommandShape::Signed(64);
        assert_eq!(CommandSpec::Number(-1).resolve(widest), Ok(OwnedCommand::Number(u64::MAX)));
    }

    #[test]
    fn commands_stand_in_metadata_as_a_person_writes_them() {
        let written = |shape: CommandShape, command| {
            let mut out = Vec::new();
            shape.write_ascii(command, &mut out).then(|| String::from_utf8(out).unwrap())
        };
        let text = CommandShape::Text(8);
        assert_eq!(written(CommandShape::Unsigned(16), Command::Number(65_535)).unwrap(), "65535");
        assert_eq!(written(CommandShape::Signed(16), Command::Number(65_535)).unwrap(), "-1");
        assert_eq!(
            written(CommandShape::Signed(64), Command::Number(1 << 63)).unwrap(),
            i64::MIN.to_string()
        );
        assert_eq!(written(text, Command::Text(b"enter")).unwrap(), "enter");
        for smuggled in [&b"a\r\nx: y"[..], b"\0", b" a", b"\xff"] {
            assert_eq!(written(text, Command::Text(smuggled)), None);
        }
    }

    #[test]
    fn keys_are_numbers_or_names_by_the_layout() {
        let number = CommandShape::Unsigned(16);
        assert_eq!(resolve_text("0x0a", number), Ok(OwnedCommand::Number(10)));
        for wrong in ["", "0x", "+1", "007", "1.0", "enter", "0x+1", "99999999999999999999999"] {
            assert!(resolve_text(wrong, number).is_err(), "{wrong}");
        }
        let name = CommandShape::Text(5);
        assert_eq!(resolve_text("1001", name), Ok(OwnedCommand::Text(b"1001"[..].into())));
        for wrong in ["", "longer", "a\0"] {
            assert!(resolve_text(wrong, name).is_err(), "{wrong}");
        }
    }
}
