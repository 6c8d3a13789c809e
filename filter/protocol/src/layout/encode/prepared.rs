//! A header whose every byte has its place: copied as a whole, then the few values set that
//! differ from frame to frame. What it cannot do, `header` does field by field.

use super::super::frame::Command;
use super::super::plan::{HeaderField, Layout, Part};
use super::super::slot::{Shape, store};
use super::super::spec::ByteOrder;
use super::header::{Sizes, Values};

/// The header of a layout with fields of fixed width alone.
#[derive(Debug)]
pub(in super::super) struct Prepared {
    /// Constants and defaults in place, zeros elsewhere.
    bytes: Box<[u8]>,
    values: Box<[Value]>,
}

/// An integer to be set.
#[derive(Clone, Copy, Debug)]
struct Value {
    at: u16,
    width: u8,
    shape: Shape,
    order: ByteOrder,
    part: Part,
}

impl Prepared {
    /// `None` if a field is of variable width, text, or echoed.
    pub(in super::super) fn of(header: &[HeaderField]) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut values = Vec::new();
        for field in header {
            let width = field.slot.shape.fixed_width()?;
            let at = bytes.len();
            bytes.resize(at.checked_add(width)?, 0);
            if field.echo {
                return None;
            }
            match (field.part, field.slot.shape) {
                (Part::Constant | Part::Checksum | Part::Reserved, _) => {
                    let place = bytes.get_mut(at..).filter(|at| at.len() == field.fill.len())?;
                    place.copy_from_slice(&field.fill);
                }
                (part, shape @ Shape::Int { width, .. }) => {
                    let at = u16::try_from(at).ok()?;
                    values.push(Value { at, width, shape, order: field.slot.order, part });
                }
                _ => return None,
            }
        }
        Some(Self { bytes: bytes.into(), values: values.into() })
    }
}

impl Layout {
    /// Appends the header; `None` if it is not prepared, or a value does not fit its field. Then
    /// `out` may have the beginning of one.
    pub(super) fn write_prepared(
        &self,
        values: &Values<'_>,
        sizes: Sizes,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let prepared = self.prepared.as_ref()?;
        if prepared.bytes.len() != sizes.header || !values.fields.is_empty() {
            return None;
        }
        let start = out.len();
        out.extend_from_slice(&prepared.bytes);
        let header = out.get_mut(start..)?;
        for value in &prepared.values {
            let end = usize::from(value.at).saturating_add(usize::from(value.width));
            let bits = match value.part {
                Part::Command => match values.command {
                    Command::Number(number) => number,
                    Command::Text(_) => return None,
                },
                Part::Sequence => values.sequence,
                Part::Version => values.version,
                Part::Status => value.shape.unsigned(values.status)?,
                Part::Flags { index } => {
                    let flags = self.flags.get(usize::from(index));
                    flags.map_or(0, |flags| flags.write(values.flags, 0))
                }
                Part::Kind => self.kind.as_ref().map_or(0, |kind| kind.write(values.flags)),
                part => {
                    let (length, adjust) = sizes.said(part, end)?;
                    let said = i64::try_from(length).ok()?.checked_add(adjust)?;
                    u64::try_from(said).ok().filter(|said| *said <= value.shape.most())?
                }
            };
            if bits > value.shape.mask() {
                return None;
            }
            let place = header.get_mut(usize::from(value.at)..end)?;
            // Copies of a known length are a single store.
            match (value.order, place.len()) {
                (ByteOrder::Big, 4) => {
                    *place.first_chunk_mut()? = (bits as u32).to_be_bytes();
                }
                (ByteOrder::Little, 4) => {
                    *place.first_chunk_mut()? = (bits as u32).to_le_bytes();
                }
                (_, 1) => *place.first_mut()? = bits as u8,
                (order, _) => store(place, bits, order),
            }
        }
        Some(())
    }
}
