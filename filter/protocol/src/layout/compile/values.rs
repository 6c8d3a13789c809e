//! Constants and defaults as the bytes of fields.

use super::super::slot::{Shape, Slot, push_int, push_text, push_varint};
use super::super::spec::{ByteOrder, Value};
use crate::error::ConfigError;

/// A value as the bytes of a field.
pub(super) fn bytes_of(
    value: &Value,
    shape: Shape,
    order: ByteOrder,
) -> Result<Vec<u8>, ConfigError> {
    match shape {
        Shape::Int { width, .. } => {
            let mut bytes = Vec::new();
            push_int(&mut bytes, width, integer(value, shape)?, order);
            Ok(bytes)
        }
        Shape::Varint => {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, integer(value, shape)?);
            Ok(bytes)
        }
        Shape::Bytes(len) => {
            let bytes = hexadecimal(value)?;
            if bytes.len() != usize::from(len) {
                return Err(ConfigError::new(
                    "",
                    format!("{value} is {} bytes, the field has {len}", bytes.len()),
                ));
            }
            Ok(bytes)
        }
        Shape::Text(_) | Shape::SizedText(_) => {
            let text = text(value, shape)?;
            let mut bytes = Vec::new();
            push_text(&mut bytes, Slot { index: 0, offset: 0, shape, order }, text, &[]);
            Ok(bytes)
        }
    }
}

/// A value as the bits of an integer field.
pub(super) fn integer(value: &Value, shape: Shape) -> Result<u64, ConfigError> {
    let misfit = || ConfigError::new("", format!("{value} does not fit {} bits", shape.bits()));
    let bits = match value {
        Value::Unsigned(value) if *value > shape.most() => return Err(misfit()),
        Value::Unsigned(value) => Some(*value),
        Value::Signed(value) => Some(shape.unsigned(*value).ok_or_else(misfit)?),
        // Hexadecimal is a bit pattern: 0xFFFF is the i16 of -1.
        Value::Text(text) => text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok()),
    };
    let Some(bits) = bits else {
        return Err(ConfigError::new(
            "",
            format!("{value} is no integer, expected for instance 19783 or \"0x4D47\""),
        ));
    };
    if bits > shape.mask() {
        return Err(misfit());
    }
    Ok(bits)
}

fn hexadecimal(value: &Value) -> Result<Vec<u8>, ConfigError> {
    let digits = match value {
        Value::Text(text) => text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")),
        Value::Unsigned(_) | Value::Signed(_) => None,
    };
    digits
        .filter(|digits| digits.is_ascii() && digits.len().is_multiple_of(2))
        .and_then(|digits| {
            digits
                .as_bytes()
                .chunks_exact(2)
                .map(|pair| {
                    let pair = std::str::from_utf8(pair).ok()?;
                    // `from_str_radix` accepts a sign, hexadecimal has none.
                    pair.bytes()
                        .all(|byte| byte.is_ascii_hexdigit())
                        .then(|| u8::from_str_radix(pair, 16).ok())?
                })
                .collect()
        })
        .ok_or_else(|| {
            ConfigError::new(
                "",
                format!("{value} is not hexadecimal, expected for instance \"0x50525043\""),
            )
        })
}

/// A value as text without NULs that fits its field.
pub(super) fn text(value: &Value, shape: Shape) -> Result<&[u8], ConfigError> {
    let Value::Text(text) = value else {
        return Err(ConfigError::new("", format!("{value} is no text, write it in quotes")));
    };
    let room = shape.text_room().unwrap_or_default();
    if text.len() > room {
        return Err(ConfigError::new(
            "",
            format!("{value} is {} bytes, the field has room for {room}", text.len()),
        ));
    }
    if text.bytes().any(|byte| byte == 0) {
        return Err(ConfigError::new("", format!("{value} has a NUL inside, which ends text")));
    }
    Ok(text.as_bytes())
}
