//! Response header and trailer blocks, judged by gRPC's rules.
//!
//! Servers send the same two blocks over and over (`:status 200` with the content type, and
//! `grpc-status 0`). Our dynamic table is off, so equal bytes are equal fields: the last block of
//! each kind is remembered with what it said, and not decoded again.

use std::fmt::Write;

use super::status;
use crate::call::Code;
use crate::grpc::field;
use crate::grpc::hpack::{Decoder, HpackError};

/// The longest block that is worth remembering, in bytes.
const MAX_REMEMBERED: usize = 256;

/// What a block means for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A 1xx response: the real one follows.
    Informational,
    /// A response that messages and trailers follow, of so many bytes if it has a content-length.
    Answering(Option<u64>),
    /// The call is over.
    End(Code, Text),
    /// Not HTTP/2 (RFC 9113 section 8.1.1): the stream is reset with PROTOCOL_ERROR.
    Malformed(&'static str),
    /// More than the limit.
    TooLarge,
}

/// The message of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Static(&'static str),
    /// In [`Answers::text`].
    Decoded,
}

#[derive(Debug)]
pub(super) struct Answers {
    decoder: Decoder,
    max_list: usize,
    head: Remembered,
    trailers: Remembered,
    text: String,
}

/// The last block of a kind, if its verdict needs no decoded text.
#[derive(Debug, Default)]
struct Remembered {
    block: Vec<u8>,
    verdict: Option<Verdict>,
}

impl Remembered {
    fn verdict(&self, block: &[u8]) -> Option<Verdict> {
        self.verdict.filter(|_| equal(&self.block, block))
    }

    fn remember(&mut self, block: &[u8], verdict: Verdict) {
        if block.len() <= MAX_REMEMBERED && !matches!(verdict, Verdict::End(_, Text::Decoded)) {
            self.block.clear();
            self.block.extend_from_slice(block);
            self.verdict = Some(verdict);
        }
    }
}

/// What is wrong with a response that has less DATA than its content-length, and what with one that
/// has more (RFC 9113 section 8.1.1).
pub(super) const SHORTER: &str = "response shorter than its content-length";
pub(super) const LONGER: &str = "response longer than its content-length";

/// What matters of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    http_status: Option<u16>,
    grpc_status: Option<GrpcStatus>,
    /// There is a content type and it is not gRPC's.
    foreign: bool,
    /// There is a `grpc-message`; it is in `Answers::text`.
    message: bool,
    flaw: Option<&'static str>,
    content_length: Option<u64>,
    /// As SETTINGS_MAX_HEADER_LIST_SIZE counts.
    list_size: usize,
    /// A field that is no pseudo-header field was seen.
    regular: bool,
}

#[derive(Clone, Copy, Debug)]
enum GrpcStatus {
    Code(Code),
    NotANumber,
}

impl Answers {
    pub fn new(max_list: usize) -> Self {
        Self {
            decoder: Decoder::new(0),
            max_list,
            head: Remembered::default(),
            trailers: Remembered::default(),
            text: String::new(),
        }
    }

    /// The decoded message of the last verdict.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.text.capacity() > MAX_REMEMBERED {
            self.text = String::new();
        }
        self.decoder.rest();
    }

    /// Judges the first block of a response, or a later one after 1xx; `end` if END_STREAM came
    /// with it (gRPC's "Trailers-Only").
    pub fn head(&mut self, block: &[u8], end: bool) -> Result<Verdict, HpackError> {
        if end {
            return self.judge_head(block, end);
        }
        if let Some(verdict) = self.head.verdict(block) {
            return Ok(verdict);
        }
        let verdict = self.judge_head(block, end)?;
        self.head.remember(block, verdict);
        Ok(verdict)
    }

    /// Judges the block after the messages. It has come with END_STREAM.
    pub fn trailers(&mut self, block: &[u8]) -> Result<Verdict, HpackError> {
        if let Some(verdict) = self.trailers.verdict(block) {
            return Ok(verdict);
        }
        let verdict = self.judge_trailers(block)?;
        self.trailers.remember(block, verdict);
        Ok(verdict)
    }

    fn judge_head(&mut self, block: &[u8], end: bool) -> Result<Verdict, HpackError> {
        let fields = self.fields(block, false)?;
        if let Some(flawed) = self.flawed(&fields) {
            return Ok(flawed);
        }
        let Some(http_status) = fields.http_status else {
            return Ok(Verdict::Malformed("response without :status"));
        };
        if http_status < 200 {
            return Ok(if end || http_status == 101 {
                Verdict::Malformed("response that ends with a 1xx status")
            } else {
                Verdict::Informational
            });
        }
        if end && http_status == 200 && fields.content_length.is_some_and(|length| length > 0) {
            return Ok(Verdict::Malformed(SHORTER));
        }
        if fields.foreign && http_status == 200 {
            let text = Text::Static("response with a content-type that is not gRPC's");
            return Ok(Verdict::End(Code::Unknown, text));
        }
        let said = fields.grpc_status.filter(|_| !fields.foreign);
        Ok(match said {
            Some(said) if end || http_status != 200 => ended(said, &fields),
            None if end && http_status == 200 => missing(),
            _ if http_status == 200 => Verdict::Answering(fields.content_length),
            _ => {
                self.text.clear();
                // Writing to a String does not fail.
                let _ = write!(self.text, "response with HTTP status {http_status}");
                Verdict::End(status::of_http(http_status), Text::Decoded)
            }
        })
    }

    fn judge_trailers(&mut self, block: &[u8]) -> Result<Verdict, HpackError> {
        let fields = self.fields(block, true)?;
        Ok(match (self.flawed(&fields), fields.grpc_status) {
            (Some(flawed), _) => flawed,
            (None, Some(said)) => ended(said, &fields),
            (None, None) => missing(),
        })
    }

    fn flawed(&self, fields: &Fields) -> Option<Verdict> {
        if fields.list_size > self.max_list {
            return Some(Verdict::TooLarge);
        }
        fields.flaw.map(Verdict::Malformed)
    }

    fn fields(&mut self, block: &[u8], trailers: bool) -> Result<Fields, HpackError> {
        let mut fields = Fields::default();
        let text = &mut self.text;
        self.decoder.decode(block, |name, value| fields.add(name, value, trailers, text))?;
        Ok(fields)
    }
}

/// Eight bytes at a time: Wasm's library compares one by one.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let (ones, one_rest) = one.as_chunks::<8>();
    let (others, other_rest) = other.as_chunks::<8>();
    one.len() == other.len()
        && ones.iter().zip(others).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && one_rest.iter().zip(other_rest).all(|(a, b)| a == b)
}

fn ended(said: GrpcStatus, fields: &Fields) -> Verdict {
    match said {
        GrpcStatus::Code(code) if fields.message => Verdict::End(code, Text::Decoded),
        GrpcStatus::Code(code) => Verdict::End(code, Text::Static("")),
        GrpcStatus::NotANumber => {
            Verdict::End(Code::Unknown, Text::Static("response whose grpc-status is no number"))
        }
    }
}

const fn missing() -> Verdict {
    Verdict::End(Code::Unknown, Text::Static("response without grpc-status"))
}

impl Fields {
    fn add(&mut self, name: &[u8], value: &[u8], trailers: bool, text: &mut String) {
        self.list_size = self.list_size.saturating_add(field::size(name, value));
        if let Some(flaw) = self.flaw(name, value, trailers) {
            self.flaw = self.flaw.or(Some(flaw));
            return;
        }
        match name {
            b":status" => self.http_status = http_status(value),
            b"content-type" => self.foreign = !field::is_grpc(value),
            b"content-length" => match (field::decimal(value, 18), self.content_length) {
                (Some(length), before) if before.is_none_or(|before| before == length) => {
                    self.content_length = Some(length);
                }
                _ => self.flaw = Some("wrong content-length"),
            },
            b"grpc-status" if self.grpc_status.is_none() => {
                self.grpc_status = Some(grpc_status(value));
            }
            b"grpc-message" if !self.message => {
                self.message = true;
                percent_decode(value, text);
            }
            _ => {}
        }
    }

    /// What makes a response malformed (RFC 9113 sections 8.2 and 8.3).
    fn flaw(&mut self, name: &[u8], value: &[u8], trailers: bool) -> Option<&'static str> {
        let Some((&first, rest)) = name.split_first() else {
            return Some("header field without a name");
        };
        if first == b':' {
            return match rest {
                _ if trailers => Some("pseudo-header field in trailers"),
                _ if self.regular => Some("pseudo-header field after a regular one"),
                b"status" if self.http_status.is_some() => Some("two :status fields"),
                b"status" if http_status(value).is_none() => Some("wrong :status"),
                b"status" => None,
                _ => Some("pseudo-header field that no response has"),
            };
        }
        self.regular = true;
        field::flaw(name, value)
    }
}

fn http_status(value: &[u8]) -> Option<u16> {
    let [first @ b'1'..=b'9', second @ b'0'..=b'9', third @ b'0'..=b'9'] = value else {
        return None;
    };
    let number = [first, second, third].into_iter().fold(0u16, |number, digit| {
        number.saturating_mul(10).saturating_add(u16::from(digit.saturating_sub(b'0')))
    });
    Some(number)
}

fn grpc_status(value: &[u8]) -> GrpcStatus {
    field::decimal(value, 10)
        .map_or(GrpcStatus::NotANumber, |number| GrpcStatus::Code(Code::from_number(number)))
}

/// Decodes `grpc-message`: `%` and two hexadecimal digits are a byte, a `%` without them is
/// itself ("Status-Message" in gRPC's PROTOCOL-HTTP2 forbids throwing such a message away).
fn percent_decode(value: &[u8], text: &mut String) {
    text.clear();
    let mut bytes = Vec::with_capacity(value.len());
    let mut left = value;
    while let Some((&byte, rest)) = left.split_first() {
        let coded = rest.split_first_chunk::<2>().and_then(|([high, low], rest)| {
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            Some((u8::try_from(high << 4 | low).ok()?, rest))
        });
        let (byte, rest) = coded.filter(|_| byte == b'%').unwrap_or((byte, rest));
        bytes.push(byte);
        left = rest;
    }
    text.push_str(&String::from_utf8_lossy(&bytes));
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
