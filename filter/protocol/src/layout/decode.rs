//! Reading frames.

use super::error::FrameError;
use super::frame::{Command, Decoded, Flags, Frame};
use super::plan::{Head, Layout, Length, MustBe, Whole};
use super::seed::{Bytes, ReplySeed};
use super::slot::{Shape, Slot, Spans, Varint, load, text_prefix, varint};

/// How much of a declared header stands at the start of the input.
enum Walk {
    /// The end of what is known to be needed.
    Partial { need: usize },
    /// All of it, up to here.
    Whole { declared: usize },
}

/// The lengths of a frame's parts, each at most the limit on frames.
struct Extent {
    header: usize,
    body: usize,
    total: usize,
}

impl Layout {
    /// Reads the frame at the start of `input`. Constants and versions are refused as soon as
    /// their bytes are there, lengths above `max_frame` bytes before anything is waited for.
    /// After an error the connection cannot be read any further.
    pub fn decode<'a>(&self, input: &'a [u8], max_frame: usize) -> Result<Decoded<'a>, FrameError> {
        let mut spans = Spans::Fixed;
        let declared = if self.fixed && input.len() >= self.header_min {
            self.check_all(input)?;
            self.header_min
        } else {
            match self.walk(input, &mut spans)? {
                Walk::Whole { declared } => declared,
                Walk::Partial { need } => return self.incomplete(input, need, max_frame),
            }
        };
        let extent = self.extent(input, &spans, declared, max_frame)?;
        let Some((raw, _)) = input.split_at_checked(extent.total) else {
            return Ok(Decoded::Incomplete { need: extent.total });
        };
        let (header, rest) = raw.split_at_checked(extent.header).unwrap_or_default();
        let (body, trailer) = rest.split_at_checked(extent.body).unwrap_or_default();
        self.check_trailer(trailer)?;
        if !self.checksums.is_empty() {
            self.verify(raw, &spans, declared, extent.header, extent.body)?;
        }
        let number = |slot: Slot| slot.number(header, &spans);
        Ok(Decoded::Frame(Frame {
            raw,
            header,
            body,
            trailer,
            command: self.command(header, &spans),
            sequence: self.sequence.map_or(0, number),
            status: self.status.map_or(0, |slot| slot.shape.signed(number(slot))),
            version: self.version.as_ref().map_or(0, |version| number(version.slot)),
            flags: self.flags(header, &spans),
            declared,
        }))
    }

    /// Checks a header of fixed width that is all there.
    fn check_all(&self, input: &[u8]) -> Result<(), FrameError> {
        let late = match (&self.prefix, input.first_chunk()) {
            (Some(prefix), Some(first)) if prefix.matches(u64::from_ne_bytes(*first)) => {
                &self.late_checks
            }
            _ => &self.checks,
        };
        for check in late {
            self.check(check.slot, &check.must_be, input, &Spans::Fixed)?;
        }
        Ok(())
    }

    /// What is known of a frame whose declared header is not all there yet.
    fn incomplete<'a>(
        &self,
        input: &[u8],
        need: usize,
        max_frame: usize,
    ) -> Result<Decoded<'a>, FrameError> {
        let need = if self.fixed && input.len() >= self.lengths.end {
            self.extent(input, &Spans::Fixed, self.header_min, max_frame)?.total
        } else {
            need
        };
        if need > max_frame {
            return Err(too_large(need, max_frame));
        }
        Ok(Decoded::Incomplete { need })
    }

    /// Finds the declared fields one after the other and checks those that must have a value,
    /// as far as the input goes.
    fn walk(&self, input: &[u8], spans: &mut Spans) -> Result<Walk, FrameError> {
        *spans = Spans::walked();
        let mut checks = self.checks.iter().peekable();
        let mut at = 0_usize;
        // What the fields from the present one on need at least.
        let mut ahead = self.header_min;
        for (field, next) in self.header.iter().zip(1_usize..) {
            let slot = field.slot;
            let rest = input.get(at..).unwrap_or_default();
            let check = checks.next_if(|check| check.slot.index == slot.index);
            if let Some(MustBe::Bytes(expected)) = check.map(|check| &check.must_be) {
                self.same(slot, expected, rest)?;
            }
            let width = self.width(slot, rest)?;
            ahead = ahead.saturating_sub(slot.shape.widths().0);
            let Some(width) = width.filter(|width| *width <= rest.len()) else {
                // At least one byte more than there is.
                let own = width
                    .unwrap_or_else(|| slot.shape.widths().0.max(rest.len().saturating_add(1)));
                let need = at.saturating_add(own).saturating_add(ahead);
                return Ok(Walk::Partial { need });
            };
            at = at.saturating_add(width);
            spans.note(next, at);
            if let Some(check) = check {
                self.check(slot, &check.must_be, input, spans)?;
            }
        }
        Ok(Walk::Whole { declared: at })
    }

    /// How many bytes a field takes, if so much is known.
    fn width(&self, slot: Slot, rest: &[u8]) -> Result<Option<usize>, FrameError> {
        match slot.shape {
            Shape::Varint => match varint(rest) {
                Varint::Value { width, .. } => Ok(Some(width)),
                Varint::Partial => Ok(None),
                Varint::Overflow => Err(FrameError::BadVarint { field: self.name_of(slot) }),
            },
            Shape::SizedText(text) => match text_prefix(rest, text.length, slot.order) {
                Varint::Value { value, width } => {
                    if value > u64::from(text.max) {
                        return Err(FrameError::TextTooLong {
                            field: self.name_of(slot),
                            len: value,
                            max: u64::from(text.max),
                        });
                    }
                    Ok(usize::try_from(value).ok().map(|len| len.saturating_add(width)))
                }
                Varint::Partial => Ok(None),
                Varint::Overflow => Err(FrameError::BadVarint { field: self.name_of(slot) }),
            },
            Shape::Int { .. } | Shape::Bytes(_) | Shape::Text(_) => Ok(slot.shape.fixed_width()),
        }
    }

    /// Checks a field that is all there.
    fn check(
        &self,
        slot: Slot,
        must_be: &MustBe,
        input: &[u8],
        spans: &Spans,
    ) -> Result<(), FrameError> {
        match must_be {
            MustBe::Bytes(expected) => self.same(slot, expected, spans.raw(&slot, input)),
            MustBe::OneOf(accepted) => {
                let found = slot.number(input, spans);
                if accepted.contains(&found) {
                    return Ok(());
                }
                Err(FrameError::BadVersion { field: self.name_of(slot), found })
            }
            MustBe::Kind => {
                let found = slot.number(input, spans);
                match self.kind.as_ref().and_then(|kind| kind.read(found)) {
                    Some(_) => Ok(()),
                    None => Err(FrameError::BadKind { field: self.name_of(slot), found }),
                }
            }
        }
    }

    /// Compares as many bytes as there are of both.
    fn same(&self, slot: Slot, expected: &[u8], found: &[u8]) -> Result<(), FrameError> {
        match difference(expected, found) {
            None => Ok(()),
            Some((at, expected, found)) => {
                Err(FrameError::BadMagic { field: self.name_of(slot), at, expected, found })
            }
        }
    }

    fn check_trailer(&self, trailer: &[u8]) -> Result<(), FrameError> {
        for field in &self.trailer {
            let found = trailer.get(field.offset..).unwrap_or_default();
            if let Some((at, expected, found)) = difference(&field.constant, found) {
                return Err(FrameError::BadMagic {
                    field: field.name.clone(),
                    at,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// The lengths that a declared header says, within the limit.
    fn extent(
        &self,
        input: &[u8],
        spans: &Spans,
        declared: usize,
        max_frame: usize,
    ) -> Result<Extent, FrameError> {
        let sum = |lengths: &[Length]| {
            lengths.iter().try_fold(0_u64, |sum, length| {
                Ok(sum.saturating_add(counted(length, input, spans)?))
            })
        };
        let declared = wide(declared);
        let trailer = wide(self.trailer_len);
        let header = match &self.lengths.head {
            Head::Declared => declared,
            Head::Header(length) => {
                let header = counted(length, input, spans)?;
                if header < declared {
                    return Err(FrameError::LengthTooSmall { len: header, least: declared });
                }
                header
            }
            Head::Extension(lengths) => declared.saturating_add(sum(lengths)?),
        };
        let around = header.saturating_add(trailer);
        let total = match &self.lengths.whole {
            Whole::Frame(length) => counted(length, input, spans)?,
            Whole::After(length) => {
                wide(spans.end(&length.slot)).saturating_add(counted(length, input, spans)?)
            }
            Whole::Sum => around.saturating_add(sum(&self.lengths.body)?),
        };
        let Some(body) = total.checked_sub(around) else {
            return Err(FrameError::LengthTooSmall { len: total, least: around });
        };
        if total > wide(max_frame) {
            return Err(FrameError::TooLarge { len: total, max: wide(max_frame) });
        }
        if !matches!(self.lengths.whole, Whole::Sum) && !self.lengths.body.is_empty() {
            let parts = around.saturating_add(sum(&self.lengths.body)?);
            if parts != total {
                return Err(FrameError::LengthMismatch { whole: total, parts });
            }
        }
        // Each is at most the total, which is at most `max_frame`.
        let narrow = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        Ok(Extent { header: narrow(header), body: narrow(body), total: narrow(total) })
    }

    fn command<'a>(&self, header: &'a [u8], spans: &Spans) -> Command<'a> {
        if self.command.shape.is_text() {
            Command::Text(self.command.content(header, spans))
        } else {
            Command::Number(self.command.number(header, spans))
        }
    }

    fn flags(&self, header: &[u8], spans: &Spans) -> Flags {
        let kind = match &self.kind {
            Some(kind) => kind.read(kind.slot.number(header, spans)).unwrap_or_default(),
            None => Flags::NONE,
        };
        self.flags
            .iter()
            .fold(kind, |sum, bits| sum.with(bits.read(bits.slot.number(header, spans))))
    }

    /// Where the fields of a header that was read stand.
    pub(super) fn spans(&self, header: &[u8]) -> Spans {
        if self.fixed {
            return Spans::Fixed;
        }
        let mut spans = Spans::Fixed;
        // It was read before, so the walk goes through.
        let _ = self.walk(header, &mut spans);
        spans
    }

    /// What must be kept of a request to write its reply.
    pub fn seed(&self, frame: &Frame<'_>) -> ReplySeed {
        let mut bytes = Bytes::new();
        let (command, text) = match frame.command {
            Command::Number(number) => (number, 0),
            Command::Text(text) => {
                bytes.extend(text);
                (0, u16::try_from(text.len()).unwrap_or(u16::MAX))
            }
        };
        if self.echoes {
            let spans = self.spans(frame.header);
            for field in self.header.iter().filter(|field| field.echo) {
                bytes.extend(spans.raw(&field.slot, frame.header));
            }
        }
        if self.echo_extension {
            bytes.extend(frame.extension());
        }
        ReplySeed { command, sequence: frame.sequence, version: frame.version, text, bytes }
    }

    /// The status of a reply and what its body holds besides it. `body` is the frame's, as
    /// [`Layout::open_body`] gave it: some layouts write the status before it.
    pub fn split_status<'a>(
        &self,
        frame: &Frame<'_>,
        body: &'a [u8],
    ) -> Result<(i64, &'a [u8]), FrameError> {
        let Some(prefix) = self.status_prefix else {
            return Ok((frame.status, body));
        };
        let width = prefix.fixed_width().unwrap_or_default();
        match body.split_at_checked(width) {
            Some((status, rest)) => {
                let width = u8::try_from(width).unwrap_or_default();
                Ok((prefix.signed(load(status, 0, width, self.order)), rest))
            }
            None => Err(FrameError::NoStatus { len: body.len(), width }),
        }
    }

    pub(super) fn name_of(&self, slot: Slot) -> Box<str> {
        self.header
            .get(usize::from(slot.index))
            .map_or_else(Box::default, |field| field.name.clone())
    }
}

/// How many bytes a length field counts.
fn counted(length: &Length, input: &[u8], spans: &Spans) -> Result<u64, FrameError> {
    let said = length.slot.number(input, spans);
    if said > length.slot.shape.most() {
        return Err(FrameError::NegativeLength { len: length.slot.shape.signed(said) });
    }
    if length.adjust == 0 {
        return Ok(said);
    }
    match said.checked_add_signed(length.adjust.saturating_neg()) {
        Some(count) => Ok(count),
        None if length.adjust > 0 => {
            Err(FrameError::LengthTooSmall { len: said, least: length.adjust.unsigned_abs() })
        }
        None => Ok(u64::MAX),
    }
}

/// The first byte in which two runs differ, as far as both go.
fn difference(expected: &[u8], found: &[u8]) -> Option<(usize, u8, u8)> {
    let len = expected.len().min(found.len());
    if expected.get(..len) == found.get(..len) {
        return None;
    }
    expected
        .iter()
        .zip(found)
        .enumerate()
        .find(|(_, (expected, found))| expected != found)
        .map(|(at, (expected, found))| (at, *expected, *found))
}

fn too_large(len: usize, max: usize) -> FrameError {
    FrameError::TooLarge { len: wide(len), max: wide(max) }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
