//! Writing headers.

use super::super::error::EncodeError;
use super::super::frame::{Command, FieldValue, Flags};
use super::super::plan::{Head, HeaderField, Layout, Part};
use super::super::slot::{
    MAX_HEADER_FIELDS, MAX_VARINT, Shape, Slot, Spans, push_int, push_padded_varint, push_text,
    raw_width, varint_width,
};
use super::onward::Source;

/// More often than this no header grows: each trial makes a LEB128 length longer, by at least
/// a byte of its ten.
const MAX_TRIALS: usize = MAX_HEADER_FIELDS * MAX_VARINT;

/// Everything that a header is made from.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) command: Command<'a>,
    /// Appended to a text command.
    pub(super) suffix: &'a [u8],
    pub(super) sequence: u64,
    pub(super) status: i64,
    pub(super) version: u64,
    pub(super) flags: Flags,
    /// The bytes of the request's echoed fields, in the order of the wire; none where there
    /// is no request.
    pub(super) echoed: Option<&'a [u8]>,
    pub(super) fields: &'a [(&'a str, FieldValue<'a>)],
    /// The frame that goes on, where it is one that came: its bytes stand wherever nothing above
    /// says otherwise.
    pub(super) source: Option<Source<'a>>,
    pub(super) extension: &'a [u8],
}

/// The lengths that a header speaks of.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) header: usize,
    pub(super) extension: usize,
    pub(super) body: usize,
    pub(super) total: usize,
}

impl Sizes {
    /// The length that a field speaks of, and what is added to it; `None` if it is no length.
    /// `end` is where the field ends in the header.
    pub(super) fn said(self, part: Part, end: usize) -> Option<(usize, i64)> {
        Some(match part {
            Part::Frame { adjust } => (self.total, adjust),
            Part::After { adjust } => (self.total.saturating_sub(end), adjust),
            Part::Header { adjust } => (self.header, adjust),
            Part::Extension { adjust, first } => (if first { self.extension } else { 0 }, adjust),
            Part::Body { adjust, first } => (if first { self.body } else { 0 }, adjust),
            _ => return None,
        })
    }
}

impl Layout {
    /// Appends a header for a body of so many bytes on the wire.
    pub(super) fn encode_header(
        &self,
        values: &Values<'_>,
        body: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if !values.extension.is_empty() && matches!(self.lengths.head, Head::Declared) {
            return Err(EncodeError::NoExtension);
        }
        let start = out.len();
        // LEB128 lengths may make the header longer, and with it the lengths that they say:
        // growing from the least until nothing changes ends with the shortest header.
        let mut declared = self.header_min;
        for _ in 0..MAX_TRIALS {
            let header = declared.checked_add(values.extension.len());
            let around = header.and_then(|header| header.checked_add(self.trailer_len));
            let total = around.and_then(|around| around.checked_add(body));
            let (Some(header), Some(total)) = (header, total) else {
                return Err(EncodeError::TooLarge);
            };
            let sizes = Sizes { header, extension: values.extension.len(), body, total };
            if self.write_prepared(values, sizes, out).is_some() {
                return Ok(());
            }
            out.truncate(start);
            self.write_fields(values, sizes, out)?;
            let written = out.len().saturating_sub(start);
            if written == declared {
                out.extend_from_slice(values.extension);
                return Ok(());
            }
            declared = written;
            out.truncate(start);
        }
        Err(EncodeError::TooLarge)
    }

    /// Writes the declared header field by field, as it is if it has the length that `sizes`
    /// say.
    fn write_fields(
        &self,
        values: &Values<'_>,
        sizes: Sizes,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let mut echoed = values.echoed;
        for field in &self.header {
            let Slot { shape, order, .. } = field.slot;
            match field.part {
                Part::Constant | Part::Checksum => out.extend_from_slice(&field.fill),
                Part::Reserved => {
                    if let Some(bytes) = take_echo(field, &mut echoed) {
                        out.extend_from_slice(bytes);
                    } else if let Some(value) = given(field, values) {
                        value.push(out, field.slot);
                    } else if let Some(source) = &values.source {
                        out.extend_from_slice(source.reserved(field));
                    } else {
                        out.extend_from_slice(&field.fill);
                    }
                }
                Part::Command if shape.is_text() => {
                    self.check_command(values.command, values.suffix.len())?;
                    if let Command::Text(text) = values.command {
                        push_text(out, field.slot, text, values.suffix);
                    }
                }
                _ => {
                    let at = out.len().saturating_sub(start);
                    match shape {
                        Shape::Int { width, .. } => {
                            let end = at.saturating_add(usize::from(width));
                            let bits = self.bits(field, values, sizes, end, &mut echoed)?;
                            push_int(out, width, bits, order);
                        }
                        _ => self.push_varint_field(field, values, sizes, at, &mut echoed, out)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends a LEB128 integer whose value may depend on its own width.
    fn push_varint_field(
        &self,
        field: &HeaderField,
        values: &Values<'_>,
        sizes: Sizes,
        at: usize,
        echoed: &mut Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        for width in 1..=MAX_VARINT {
            // A trial that is too narrow must not use up what is echoed.
            let mut rest = *echoed;
            let bits = self.bits(field, values, sizes, at.saturating_add(width), &mut rest)?;
            if varint_width(bits) <= width {
                // Shorter than the width only in a trial whose header is still too short.
                push_padded_varint(out, bits, width);
                *echoed = rest;
                break;
            }
        }
        Ok(())
    }

    /// The bits of an integer field. `end` is where the field ends in the header.
    fn bits(
        &self,
        field: &HeaderField,
        values: &Values<'_>,
        sizes: Sizes,
        end: usize,
        echoed: &mut Option<&[u8]>,
    ) -> Result<u64, EncodeError> {
        let shape = field.slot.shape;
        let fits = |bits: u64| {
            if bits <= shape.mask() {
                return Ok(bits);
            }
            Err(EncodeError::OutOfRange { field: field.name.clone(), value: i128::from(bits) })
        };
        if let Some((length, adjust)) = sizes.said(field.part, end) {
            let said = i64::try_from(length).unwrap_or(i64::MAX).saturating_add(adjust);
            return u64::try_from(said).ok().filter(|said| *said <= shape.most()).ok_or_else(
                || EncodeError::OutOfRange { field: field.name.clone(), value: i128::from(said) },
            );
        }
        match field.part {
            Part::Command => match values.command {
                Command::Number(number) => fits(number),
                Command::Text(_) => Err(EncodeError::CommandType { expected: "integers" }),
            },
            Part::Sequence => fits(values.sequence),
            Part::Version => fits(values.version),
            Part::Status => shape.unsigned(values.status).ok_or_else(|| EncodeError::OutOfRange {
                field: field.name.clone(),
                value: i128::from(values.status),
            }),
            Part::Kind => Ok(match &values.source {
                Some(source) if source.keeps_kind => source.number(field),
                _ => self.kind.as_ref().map_or(0, |kind| kind.write(values.flags)),
            }),
            Part::Flags { index } => {
                let others = match take_echo(field, echoed) {
                    Some(bytes) => {
                        let slot = Slot { index: 0, offset: 0, ..field.slot };
                        slot.number(bytes, &Spans::Fixed)
                    }
                    None => values.source.as_ref().map_or(0, |source| source.number(field)),
                };
                let bits = self.flags.get(usize::from(index));
                Ok(bits.map_or(0, |bits| bits.write(values.flags, others)))
            }
            _ => Ok(0),
        }
    }
}

/// The next of the echoed bytes, if this field is echoed and there is a request.
fn take_echo<'a>(field: &HeaderField, echoed: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    if !field.echo {
        return None;
    }
    let bytes = (*echoed)?;
    let (own, rest) = bytes.split_at_checked(raw_width(field.slot, bytes))?;
    *echoed = Some(rest);
    Some(own)
}

fn given<'a>(field: &HeaderField, values: &Values<'a>) -> Option<FieldValue<'a>> {
    values.fields.iter().find(|(name, _)| *name == &*field.name).map(|(_, value)| *value)
}
