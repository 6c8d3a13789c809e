//! Writing frames.

mod command;
mod fields;
mod header;
mod onward;
mod prepared;

use super::error::EncodeError;
use super::frame::{Flags, FrameSeal, Push, Reply, Request};
use super::plan::Layout;
use super::seed::ReplySeed;
use super::slot::{raw_width, store};
use header::Values;
pub use onward::{Onward, Stamp};
pub(super) use prepared::Prepared;

/// A body in parts: the status before it, if that is where it goes, and what was given.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    status: &'a [u8],
    parts: &'a [&'a [u8]],
}

impl<'a> Body<'a> {
    pub(super) fn parts(self) -> impl Iterator<Item = &'a [u8]> + Clone {
        std::iter::once(self.status).chain(self.parts.iter().copied())
    }

    fn len(self) -> Option<usize> {
        self.parts().try_fold(0_usize, |sum, part| sum.checked_add(part.len()))
    }
}

impl Layout {
    /// Appends the reply to the request that `seed` was taken from. After an error `out` is
    /// as it was.
    pub fn encode_reply(
        &self,
        seed: &ReplySeed,
        reply: Reply<'_>,
        seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let (text, echoed) = seed.parts();
        let (command, suffix) = if self.has_text_commands() {
            self.reply_to_text(text)
        } else {
            (self.reply_to_number(seed.command), &[][..])
        };
        let fields = if self.echo_extension { self.echoed_len(echoed) } else { echoed.len() };
        let (echoed, extension) = echoed.split_at_checked(fields).unwrap_or_default();
        let values = Values {
            command,
            suffix,
            sequence: seed.sequence,
            status: reply.status,
            version: seed.version,
            flags: Flags::REPLY.with_if(reply.error, Flags::ERROR),
            echoed: Some(echoed),
            fields: &[],
            source: None,
            extension,
        };
        let mut status = [0_u8; 8];
        let mut width = 0;
        if let Some(prefix) = self.status_prefix {
            let bits = prefix.unsigned(reply.status).ok_or_else(|| EncodeError::OutOfRange {
                field: "status".into(),
                value: i128::from(reply.status),
            })?;
            width = prefix.fixed_width().unwrap_or_default();
            store(status.get_mut(..width).unwrap_or_default(), bits, self.order);
        }
        let status = status.get(..width).unwrap_or_default();
        self.encode(values, Body { status, parts: reply.body }, reply.compress, seal, out)
    }

    /// Appends a message that answers nothing. After an error `out` is as it was.
    pub fn encode_push(
        &self,
        push: Push<'_>,
        seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let values = Values {
            command: push.command,
            suffix: &[],
            sequence: push.sequence,
            status: push.status,
            version: self.version.as_ref().map_or(0, |version| version.write),
            flags: Flags::PUSH.with_if(push.error, Flags::ERROR),
            echoed: None,
            fields: &[],
            source: None,
            extension: &[],
        };
        self.encode(values, Body { status: &[], parts: push.body }, push.compress, seal, out)
    }

    /// Appends a request. After an error `out` is as it was.
    pub fn encode_request(
        &self,
        request: Request<'_>,
        seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        for (name, value) in request.fields {
            self.check_value(name, value)?;
        }
        let values = Values {
            command: request.command,
            suffix: &[],
            sequence: request.sequence,
            status: 0,
            version: self.version.as_ref().map_or(0, |version| version.write),
            flags: Flags::NONE.with_if(request.one_way, Flags::ONE_WAY),
            echoed: None,
            fields: request.fields,
            source: None,
            extension: request.extension,
        };
        self.encode(values, Body { status: &[], parts: request.body }, request.compress, seal, out)
    }

    fn encode(
        &self,
        values: Values<'_>,
        body: Body<'_>,
        compress: bool,
        seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let result = self.encode_body(values, body, compress, seal, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn encode_body(
        &self,
        values: Values<'_>,
        body: Body<'_>,
        compress: bool,
        seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let len = body.len().ok_or(EncodeError::TooLarge)?;
        if compress
            && let Some(compression) = &self.compression
            && let Some(workspace) = compression.compress(body.parts(), len)
        {
            let values = Values { flags: values.flags.with(Flags::COMPRESSED), ..values };
            let bytes = workspace.compressed();
            let body = Body { status: &[], parts: &[bytes] };
            let result = self.encode_frame(values, body, bytes.len(), seal, out);
            compression.give_back(workspace);
            return result;
        }
        self.encode_frame(values, body, len, seal, out)
    }

    /// Writes the frame of a finished plain body: the header with all lengths final, the body
    /// and room for its seal, the trailer; then seals; then computes the checksums over what
    /// goes on the wire.
    fn encode_frame(
        &self,
        mut values: Values<'_>,
        body: Body<'_>,
        len: usize,
        mut seal: Option<&mut dyn FrameSeal>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let overhead = seal.as_ref().map_or(0, |seal| seal.overhead());
        let len = len.checked_add(overhead).ok_or(EncodeError::TooLarge)?;
        values.flags = values.flags.with_if(seal.is_some(), Flags::SEALED);

        let start = out.len();
        out.reserve(self.min_frame().saturating_add(len));
        self.encode_header(&values, len, out)?;
        let header = out.len().saturating_sub(start);
        let body_start = out.len();
        // A copy of nothing costs Wasm as much as a short one.
        for part in body.parts().filter(|part| !part.is_empty()) {
            out.extend_from_slice(part);
        }
        if seal.is_some() {
            out.resize(body_start.saturating_add(len), 0);
        }
        if !self.trailer_template.is_empty() {
            out.extend_from_slice(&self.trailer_template);
        }

        let frame = out.get_mut(start..).unwrap_or_default();
        if let Some(seal) = &mut seal {
            let (header, rest) = frame.split_at_mut_checked(header).unwrap_or_default();
            let (body, trailer) = rest.split_at_mut_checked(len).unwrap_or_default();
            seal.seal(&[header, trailer], body).map_err(EncodeError::Seal)?;
        }
        self.fill_checksums(frame, header, len);
        Ok(())
    }

    /// How many of a seed's bytes are echoed fields; the rest is the extension.
    fn echoed_len(&self, bytes: &[u8]) -> usize {
        self.header.iter().filter(|field| field.echo).fold(0, |sum, field| {
            let rest = bytes.get(sum..).unwrap_or_default();
            sum.saturating_add(raw_width(field.slot, rest))
        })
    }
}
