//! Checksums: computing, verifying, and what stands in their place while a frame is sealed.

use super::crc::Crc;
use super::error::FrameError;
use super::frame::Frame;
use super::plan::{Checksum, ChecksumPlace, Edge, Layout};
use super::slot::{Spans, load, store};
use super::spec::OwnBytes;

/// The bytes of every checksum that a layout can ask for.
const WIDTH: usize = 4;

/// Where the parts of one frame stand.
struct Parts<'a> {
    spans: &'a Spans,
    declared: usize,
    header: usize,
    body: usize,
}

impl Parts<'_> {
    fn trailer(&self) -> usize {
        self.header.saturating_add(self.body)
    }

    fn place(&self, checksum: &Checksum) -> usize {
        match checksum.place {
            ChecksumPlace::Header(slot) => self.spans.start(&slot),
            ChecksumPlace::Trailer(offset) => self.trailer().saturating_add(offset),
        }
    }

    fn edge(&self, edge: Edge, layout: &Layout) -> usize {
        match edge {
            Edge::Field(index) => layout
                .header
                .get(usize::from(index))
                .map_or(self.declared, |field| self.spans.start(&field.slot)),
            Edge::Declared => self.declared,
            Edge::Body => self.header,
            Edge::Trailer(offset) => self.trailer().saturating_add(offset),
        }
    }
}

impl Layout {
    pub(super) fn verify(
        &self,
        raw: &[u8],
        spans: &Spans,
        declared: usize,
        header: usize,
        body: usize,
    ) -> Result<(), FrameError> {
        let parts = Parts { spans, declared, header, body };
        for checksum in &self.checksums {
            let found = load(raw, parts.place(checksum), 4, checksum.order);
            let expected = self.compute(checksum, raw, &parts);
            if found != u64::from(expected) {
                return Err(FrameError::Checksum {
                    field: checksum.name.clone(),
                    expected,
                    found: u32::try_from(found).unwrap_or(u32::MAX),
                });
            }
        }
        Ok(())
    }

    /// Fills in the checksums of a frame that is otherwise finished.
    pub(super) fn fill_checksums(&self, raw: &mut [u8], header: usize, body: usize) {
        if self.checksums.is_empty() {
            return;
        }
        let spans = self.spans(raw.get(..header).unwrap_or_default());
        let declared = self.declared_len(&spans);
        let parts = Parts { spans: &spans, declared, header, body };
        for checksum in &self.checksums {
            let value = self.compute(checksum, raw, &parts);
            if let Some(place) = room(raw, parts.place(checksum)) {
                store(place, u64::from(value), checksum.order);
            }
        }
    }

    /// Makes the bytes of checksums zero, as a seal authenticates them.
    pub(super) fn clear_checksums(&self, raw: &mut [u8], header: usize, body: usize) {
        if self.checksums.is_empty() {
            return;
        }
        let spans = self.spans(raw.get(..header).unwrap_or_default());
        let declared = self.declared_len(&spans);
        let parts = Parts { spans: &spans, declared, header, body };
        for checksum in &self.checksums {
            if let Some(place) = room(raw, parts.place(checksum)) {
                place.fill(0);
            }
        }
    }

    fn declared_len(&self, spans: &Spans) -> usize {
        self.header.last().map_or(0, |field| spans.end(&field.slot))
    }

    fn compute(&self, checksum: &Checksum, raw: &[u8], parts: &Parts<'_>) -> u32 {
        let from = parts.edge(checksum.from, self);
        let to = parts.edge(checksum.to, self);
        let own = parts.place(checksum);
        let own_end = own.saturating_add(WIDTH);
        let mut digest = Digest::new(checksum.crc.as_ref());
        let mut add = |from: usize, to: usize| digest.add(raw.get(from..to).unwrap_or_default());
        if own >= from && own_end <= to {
            add(from, own);
            if checksum.own_bytes == OwnBytes::Zero {
                digest.add(&[0; WIDTH]);
            }
            digest.add(raw.get(own_end..to).unwrap_or_default());
        } else {
            add(from, to);
        }
        digest.value()
    }

    /// Appends what a sealed frame authenticates besides its body: the header and the
    /// trailer, the bytes of checksums zero.
    pub fn associated_data(&self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(frame.header);
        out.extend_from_slice(frame.trailer);
        if self.checksums.is_empty() {
            return;
        }
        let spans = self.spans(frame.header);
        let header = frame.header.len();
        let parts = Parts { spans: &spans, declared: frame.declared, header, body: 0 };
        let joined = out.get_mut(start..).unwrap_or_default();
        for checksum in &self.checksums {
            if let Some(place) = room(joined, parts.place(checksum)) {
                place.fill(0);
            }
        }
    }
}

/// The bytes of a checksum.
fn room(bytes: &mut [u8], at: usize) -> Option<&mut [u8]> {
    bytes.get_mut(at..)?.get_mut(..WIDTH)
}

enum Digest<'a> {
    Crc(&'a Crc, u32),
    Adler32(simd_adler32::Adler32),
}

impl<'a> Digest<'a> {
    fn new(crc: Option<&'a Crc>) -> Self {
        crc.map_or_else(
            || Self::Adler32(simd_adler32::Adler32::new()),
            |crc| Self::Crc(crc, Crc::START),
        )
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(crc, register) => *register = crc.add(*register, bytes),
            Self::Adler32(adler) => adler.write(bytes),
        }
    }

    fn value(self) -> u32 {
        match self {
            Self::Crc(_, register) => Crc::value(register),
            Self::Adler32(adler) => adler.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::ChecksumAlgorithm;
    use super::*;

    #[test]
    fn the_algorithms_give_their_published_check_values() {
        // The check value of each catalogue entry: the checksum of the digits 1 to 9.
        let known = [
            (ChecksumAlgorithm::Crc32, 0xcbf4_3926),
            (ChecksumAlgorithm::Crc32c, 0xe306_9283),
            (ChecksumAlgorithm::Adler32, 0x091e_01de),
        ];
        for (algorithm, value) in known {
            let crc = Crc::of(algorithm);
            let mut digest = Digest::new(crc.as_ref());
            digest.add(b"1234");
            digest.add(b"");
            digest.add(b"56789");
            assert_eq!(digest.value(), value, "{algorithm:?}");
        }
    }
}
