//! Values that are given to reserved fields by name.

use super::super::error::EncodeError;
use super::super::frame::FieldValue;
use super::super::plan::{Layout, Part};
use super::super::slot::{Shape, Slot, push_int, push_text, push_varint};

impl Layout {
    /// Whether a value can be given to the field of this name.
    pub(in super::super) fn check_value(
        &self,
        name: &str,
        value: &FieldValue<'_>,
    ) -> Result<(), EncodeError> {
        let field = self
            .header
            .iter()
            .find(|field| &*field.name == name && field.part == Part::Reserved)
            .ok_or_else(|| EncodeError::NoSuchField { name: name.to_owned() })?;
        let wrong = || EncodeError::ValueType { field: field.name.clone() };
        let shape = field.slot.shape;
        let out_of_range = |value| EncodeError::OutOfRange { field: field.name.clone(), value };
        match *value {
            FieldValue::Unsigned(bits) if shape.is_integer() => {
                (bits <= shape.mask()).then_some(()).ok_or_else(|| out_of_range(i128::from(bits)))
            }
            FieldValue::Signed(number) if shape.is_integer() => {
                shape.unsigned(number).map(|_| ()).ok_or_else(|| out_of_range(i128::from(number)))
            }
            FieldValue::Bytes(bytes) if matches!(shape, Shape::Bytes(_)) => {
                (Some(bytes.len()) == shape.fixed_width()).then_some(()).ok_or_else(wrong)
            }
            FieldValue::Text(text) => match shape.text_room() {
                Some(max) if text.len() > max => Err(EncodeError::TextTooLong {
                    field: field.name.clone(),
                    len: text.len(),
                    max,
                }),
                Some(_) if matches!(shape, Shape::Text(_)) && text.contains(&0) => Err(wrong()),
                Some(_) => Ok(()),
                None => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl FieldValue<'_> {
    /// Appends a value that [`Layout::check_value`] has found to fit.
    pub(super) fn push(self, out: &mut Vec<u8>, slot: Slot) {
        let bits = match self {
            Self::Unsigned(bits) => bits,
            Self::Signed(number) => number.cast_unsigned(),
            Self::Text(text) => return push_text(out, slot, text, &[]),
            Self::Bytes(bytes) => return out.extend_from_slice(bytes),
        };
        match slot.shape {
            Shape::Int { width, .. } => push_int(out, width, bits, slot.order),
            _ => push_varint(out, bits),
        }
    }
}
