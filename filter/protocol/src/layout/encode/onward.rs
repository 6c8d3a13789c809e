//! Frames that go on in the layout in which they came, with no more of them changed than has to be.

use super::super::error::EncodeError;
use super::super::frame::{Flags, Frame, FrameSeal};
use super::super::plan::{HeaderField, Layout, Part};
use super::super::slot::{Shape, Slot, Spans, store};
use super::super::spec::ByteOrder;
use super::header::{Sizes, Values};

/// What differs between a frame as it came and as it goes on. Everything else stays byte for byte:
/// status, version, reserved fields, bits without a meaning, extension, trailer.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// Must fit the layout's sequence field; not written if it has none.
    pub sequence: u64,
    /// Opened if the frame was sealed; compressed if the frame says so.
    pub body: &'a [u8],
    /// Nobody waits for a reply, whatever the frame says.
    pub one_way: bool,
    /// Reserved fields that are overwritten.
    pub stamps: &'a [Stamp],
}

/// A reserved header field of a layout and the bytes that are written over what a frame has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    index: u8,
    bytes: Box<[u8]>,
}

/// A frame's header, for those of its bytes that go on.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    header: &'a [u8],
    spans: &'a Spans,
    stamps: &'a [Stamp],
    /// It stays the sort of frame that it was.
    pub(super) keeps_kind: bool,
}

impl<'a> Source<'a> {
    /// The bytes of a reserved field.
    pub(super) fn reserved(&self, field: &HeaderField) -> &'a [u8] {
        let stamp = self.stamps.iter().find(|stamp| stamp.index == field.slot.index);
        stamp.map_or_else(|| self.spans.raw(&field.slot, self.header), |stamp| &stamp.bytes)
    }

    pub(super) fn number(&self, field: &HeaderField) -> u64 {
        field.slot.number(self.header, self.spans)
    }
}

impl Layout {
    /// What overwrites the reserved header field of this name: the value that `text` stands for, as
    /// [`given`](Self::given) takes it, or the field's default.
    pub fn stamp(&self, name: &str, text: Option<&[u8]>) -> Result<Stamp, EncodeError> {
        let field = self.header.iter().find(|field| &*field.name == name);
        let field = field
            .filter(|field| field.part == Part::Reserved)
            .ok_or_else(|| EncodeError::NoSuchField { name: name.to_owned() })?;
        let mut bytes = Vec::new();
        match text {
            Some(text) => self.given(name, text)?.field().1.push(&mut bytes, field.slot),
            None => bytes.extend_from_slice(&field.fill),
        }
        Ok(Stamp { index: field.slot.index, bytes: bytes.into() })
    }

    /// Appends a frame that came in this layout, with what differs. After an error `out` is as it
    /// was.
    pub fn encode_onward(
        &self,
        frame: &Frame<'_>,
        onward: Onward<'_>,
        seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let written = self.write_onward(frame, onward, seal, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write_onward(
        &self,
        frame: &Frame<'_>,
        onward: Onward<'_>,
        mut seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let overhead = seal.as_ref().map_or(0, |seal| seal.overhead());
        let len = onward.body.len().checked_add(overhead).ok_or(EncodeError::TooLarge)?;
        let flags = frame.flags.without(Flags::SEALED).with_if(seal.is_some(), Flags::SEALED);
        let flags = flags.with_if(onward.one_way, Flags::ONE_WAY);
        out.reserve(self.min_frame().saturating_add(frame.extension().len()).saturating_add(len));
        if self.fixed {
            out.extend_from_slice(frame.header);
            let header = out.get_mut(start..).unwrap_or_default();
            self.patch(frame, onward, flags, len, header)?;
        } else {
            let spans = self.spans(frame.header);
            let values = Values {
                command: frame.command,
                suffix: &[],
                sequence: onward.sequence,
                status: frame.status,
                version: frame.version,
                flags,
                echoed: None,
                fields: &[],
                source: Some(Source {
                    header: frame.header,
                    spans: &spans,
                    stamps: onward.stamps,
                    keeps_kind: flags.one_way() == frame.flags.one_way(),
                }),
                extension: frame.extension(),
            };
            self.encode_header(&values, len, out)?;
        }
        let header = out.len().saturating_sub(start);
        let body_start = out.len();
        out.extend_from_slice(onward.body);
        if seal.is_some() {
            out.resize(body_start.saturating_add(len), 0);
        }
        if !frame.trailer.is_empty() {
            out.extend_from_slice(frame.trailer);
        }
        let whole = out.get_mut(start..).unwrap_or_default();
        if let Some(seal) = &mut seal {
            self.clear_checksums(whole, header, len);
            let (header, rest) = whole.split_at_mut_checked(header).unwrap_or_default();
            let (body, trailer) = rest.split_at_mut_checked(len).unwrap_or_default();
            seal.seal(&[header, trailer], body).map_err(EncodeError::Seal)?;
        }
        self.fill_checksums(whole, header, len);
        Ok(())
    }

    /// Sets what differs in the copy of a header whose fields all are of fixed width.
    fn patch(
        &self,
        frame: &Frame<'_>,
        onward: Onward<'_>,
        flags: Flags,
        body: usize,
        header: &mut [u8],
    ) -> Result<(), EncodeError> {
        if let Some(slot) = self.sequence {
            if onward.sequence > slot.shape.mask() {
                return Err(EncodeError::OutOfRange {
                    field: self.name_of(slot),
                    value: i128::from(onward.sequence),
                });
            }
            set(header, slot, onward.sequence);
        }
        for stamp in onward.stamps {
            let field = self.header.get(usize::from(stamp.index));
            let at = field.map_or(0, |field| usize::from(field.slot.offset));
            let end = at.saturating_add(stamp.bytes.len());
            if let Some(place) = header.get_mut(at..end) {
                place.copy_from_slice(&stamp.bytes);
            }
        }
        if flags != frame.flags {
            if let Some(kind) = &self.kind
                && flags.one_way() != frame.flags.one_way()
            {
                set(header, kind.slot, kind.write(flags));
            }
            for bits in &self.flags {
                let slot = bits.slot;
                let now = slot.number(frame.header, &Spans::Fixed);
                set(header, slot, bits.write(flags, now));
            }
        }
        // The body may have been opened since it came.
        let around = frame.header.len().saturating_add(frame.trailer.len());
        if body != frame.raw.len().saturating_sub(around) {
            let total = header.len().checked_add(body);
            let total = total.and_then(|total| total.checked_add(frame.trailer.len()));
            let sizes = Sizes {
                header: header.len(),
                extension: frame.extension().len(),
                body,
                total: total.ok_or(EncodeError::TooLarge)?,
            };
            self.patch_lengths(sizes, header)?;
        }
        Ok(())
    }

    fn patch_lengths(&self, sizes: Sizes, header: &mut [u8]) -> Result<(), EncodeError> {
        for field in &self.header {
            let slot = field.slot;
            let width = slot.shape.fixed_width().unwrap_or_default();
            let end = usize::from(slot.offset).saturating_add(width);
            let Some((length, adjust)) = sizes.said(field.part, end) else { continue };
            let said = i64::try_from(length).unwrap_or(i64::MAX).saturating_add(adjust);
            let bits = u64::try_from(said).ok().filter(|said| *said <= slot.shape.most());
            let bits = bits.ok_or_else(|| EncodeError::OutOfRange {
                field: field.name.clone(),
                value: i128::from(said),
            })?;
            set(header, slot, bits);
        }
        Ok(())
    }
}

/// Writes an integer field in its place.
fn set(header: &mut [u8], slot: Slot, bits: u64) {
    let at = usize::from(slot.offset);
    let end = at.saturating_add(slot.shape.fixed_width().unwrap_or_default());
    let Some(place) = header.get_mut(at..end) else { return };
    match (slot.shape, slot.order) {
        // A copy of a known length is a single store.
        (Shape::Int { width: 4, .. }, ByteOrder::Big) => {
            if let Some(four) = place.first_chunk_mut() {
                *four = (bits as u32).to_be_bytes();
            }
        }
        _ => store(place, bits, slot.order),
    }
}

#[cfg(test)]
mod tests {
    use crate::layout::tests::{hex, shipped, whole};
    use crate::layout::{Command, Onward, Request};

    #[test]
    fn only_what_differs_is_written_over_whatever_a_frame_carries() {
        let layout = shipped("game");
        // Flag bits without a meaning, a reserved field that is not zero.
        let came = hex("4d47 01 80 00000016 000003e9 00000007 0000 beef 6869");
        let frame = whole(&layout, &came);
        let stamps = [layout.stamp("reserved", Some(b"513")).unwrap()];
        for (stamps, reserved) in [(&[][..], "beef"), (&stamps[..], "0201")] {
            let mut out = Vec::new();
            let onward = Onward { sequence: 0x01020304, body: frame.body, one_way: false, stamps };
            layout.encode_onward(&frame, onward, None, &mut out).unwrap();
            let expected = format!("4d47 01 80 00000016 000003e9 01020304 0000 {reserved} 6869");
            assert_eq!(out, hex(&expected));
        }
    }

    #[test]
    fn checksums_cover_what_goes_on() {
        let layout = shipped("battle");
        let body: [&[u8]; 1] = [b"hit"];
        let request = Request::new(Command::Number(7), 1, &body);
        let mut came = Vec::new();
        layout.encode_request(request, None, &mut came).unwrap();
        let onward = Onward { sequence: 2, body: b"hit", one_way: false, stamps: &[] };
        let mut out = Vec::new();
        layout.encode_onward(&whole(&layout, &came), onward, None, &mut out).unwrap();
        let mut expected = Vec::new();
        let request = Request { sequence: 2, ..request };
        layout.encode_request(request, None, &mut expected).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let layout = shipped("tcaplus");
        let mut came = Vec::new();
        layout.encode_request(Request::new(Command::Number(7), 1, &[]), None, &mut came).unwrap();
        let too_large = layout.max_sequence().wrapping_add(1);
        let onward = Onward { sequence: too_large, body: &[], one_way: false, stamps: &[] };
        let mut out = vec![1];
        assert!(layout.encode_onward(&whole(&layout, &came), onward, None, &mut out).is_err());
        assert_eq!(out, [1]);
        assert!(layout.stamp("command", None).is_err());
    }
}
