//! Request header and trailer blocks, judged by the rules of HTTP/2 and of gRPC.
//!
//! A caller's table makes most blocks short, and those of a library's calls equal: the last request
//! block is remembered with what it said, and not decoded again as long as the table is the same.

use std::time::Duration;

use super::event::{Event, Metadata};
use super::limits::Limits;
use super::streams::StreamKey;
use crate::grpc::field;
use crate::grpc::hpack::{Decoder, HpackError};

/// The caller's table, in bytes: what it may use without being told (RFC 9113 section 6.5.2).
const TABLE: usize = 4096;

/// The longest block that is worth remembering, in bytes.
const MAX_REMEMBERED: usize = 1024;

/// What a block means for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A gRPC request; its fields are in [`Headers::begin`]. The body's length, if it was said.
    Grpc { content_length: Option<u64> },
    /// A request that is not gRPC. The answer to HEAD has no body.
    Foreign { is_head: bool, content_length: Option<u64> },
    /// Not HTTP/2 (RFC 9113 section 8.1.1): the stream is reset with PROTOCOL_ERROR.
    Malformed,
    /// A gRPC request whose `grpc-timeout` is none.
    BadTimeout,
    /// More than the limit.
    TooLarge,
    /// Trailers, in which nothing matters.
    Trailers,
}

#[derive(Debug)]
pub(super) struct Headers {
    decoder: Decoder,
    max_list: usize,
    names: Box<[Box<str>]>,
    /// What the last request said.
    request: Request,
    /// Its block, its verdict, and the table's generation.
    last: Vec<u8>,
    verdict: Option<(Verdict, u64)>,
}

#[derive(Debug, Default)]
struct Request {
    path: Vec<u8>,
    timeout: Option<Duration>,
    metadata: Vec<u8>,
    seen: Seen,
}

/// The fields of a block, as far as they decide about it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    method: Option<Method>,
    path: bool,
    scheme: bool,
    authority: bool,
    grpc: bool,
    bad_timeout: bool,
    content_length: Option<u64>,
    /// A field that is no pseudo-header field was seen.
    regular: bool,
    malformed: bool,
    list_size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Post,
    Head,
    Other,
}

impl Headers {
    pub fn new(limits: &Limits) -> Self {
        Self {
            decoder: Decoder::new(TABLE),
            max_list: limits.max_header_block,
            names: limits.metadata.clone(),
            request: Request::default(),
            last: Vec::new(),
            verdict: None,
        }
    }

    /// The event of the request that was judged last.
    pub fn begin(&self, stream: StreamKey) -> Event<'_> {
        Event::Begin {
            stream,
            path: &self.request.path,
            timeout: self.request.timeout,
            metadata: Metadata::new(&self.request.metadata),
        }
    }

    /// Judges the first block of a request. Every block has to be judged, in order.
    pub fn request(&mut self, block: &[u8]) -> Result<Verdict, HpackError> {
        let generation = self.decoder.generation();
        if let Some((verdict, then)) = self.verdict
            && then == generation
            && self.last == block
        {
            return Ok(verdict);
        }
        self.verdict = None;
        self.request.path.clear();
        self.request.metadata.clear();
        self.request.timeout = None;
        self.read(block, false)?;
        let verdict = self.request.seen.verdict(self.max_list);
        if self.decoder.generation() == generation && block.len() <= MAX_REMEMBERED {
            self.last.clear();
            self.last.extend_from_slice(block);
            self.verdict = Some((verdict, generation));
        }
        Ok(verdict)
    }

    /// Judges the block after the message.
    pub fn trailers(&mut self, block: &[u8]) -> Result<Verdict, HpackError> {
        // It writes over what is remembered of the request.
        self.verdict = None;
        self.read(block, true)?;
        let seen = self.request.seen;
        Ok(if seen.malformed { Verdict::Malformed } else { Verdict::Trailers })
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&mut self) {
        self.decoder.rest();
        for buffer in [&mut self.request.path, &mut self.request.metadata] {
            if buffer.capacity() > MAX_REMEMBERED {
                *buffer = Vec::new();
                self.verdict = None;
            }
        }
    }

    fn read(&mut self, block: &[u8], trailers: bool) -> Result<(), HpackError> {
        let Self { decoder, request, names, max_list, .. } = self;
        request.seen = Seen::default();
        decoder.decode(block, |name, value| request.add(name, value, trailers, names, *max_list))
    }
}

impl Request {
    fn add(
        &mut self,
        name: &[u8],
        value: &[u8],
        trailers: bool,
        names: &[Box<str>],
        max_list: usize,
    ) {
        let seen = &mut self.seen;
        seen.list_size = seen.list_size.saturating_add(field::size(name, value));
        if let Some(pseudo) = name.strip_prefix(b":") {
            let twice = match pseudo {
                b"method" => seen.method.replace(method(value)).is_some(),
                b"path" => std::mem::replace(&mut seen.path, true),
                b"scheme" => std::mem::replace(&mut seen.scheme, true),
                b"authority" => std::mem::replace(&mut seen.authority, true),
                _ => true,
            };
            let is_empty_path = pseudo == b"path" && value.is_empty();
            seen.malformed |= twice || is_empty_path || trailers || seen.regular;
            if pseudo == b"path" && value.len() <= max_list {
                self.path.clear();
                self.path.extend_from_slice(value);
            }
            return;
        }
        seen.regular = true;
        seen.malformed |= name.is_empty() || field::flaw(name, value).is_some();
        if trailers || seen.list_size > max_list {
            return;
        }
        match name {
            b"te" => seen.malformed |= value != b"trailers",
            b"content-type" => seen.grpc = field::is_grpc(value),
            b"content-length" => {
                let length = field::decimal(value, 18);
                seen.malformed |= length.is_none();
                seen.content_length = length;
            }
            b"grpc-timeout" => {
                self.timeout = timeout(value);
                seen.bad_timeout = self.timeout.is_none();
            }
            _ => {
                let place = names.iter().position(|wanted| wanted.as_bytes() == name);
                if let Some(place) = place.and_then(|place| u8::try_from(place).ok()) {
                    Metadata::push(place, value, &mut self.metadata);
                }
            }
        }
    }
}

impl Seen {
    fn verdict(&self, max_list: usize) -> Verdict {
        let (Some(method), true, true, false) =
            (self.method, self.path, self.scheme, self.malformed)
        else {
            return Verdict::Malformed;
        };
        let content_length = self.content_length;
        if self.list_size > max_list {
            Verdict::TooLarge
        } else if method != Method::Post || !self.grpc {
            Verdict::Foreign { is_head: method == Method::Head, content_length }
        } else if self.bad_timeout {
            Verdict::BadTimeout
        } else {
            Verdict::Grpc { content_length }
        }
    }
}

fn method(value: &[u8]) -> Method {
    match value {
        b"POST" => Method::Post,
        b"HEAD" => Method::Head,
        _ => Method::Other,
    }
}

/// `grpc-timeout`: at most eight digits and a unit ("Requests" in gRPC's PROTOCOL-HTTP2).
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let count = field::decimal(digits, 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(count.saturating_mul(3600)),
        b'M' => Duration::from_secs(count.saturating_mul(60)),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_at_most_eight_digits_and_a_unit() {
        assert_eq!(timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout(b"1m"), Some(Duration::from_millis(1)));
        assert_eq!(timeout(b"250000u"), Some(Duration::from_millis(250)));
        assert_eq!(timeout(b"7n"), Some(Duration::from_nanos(7)));
        assert_eq!(timeout(b"2M"), Some(Duration::from_secs(120)));
        for wrong in [&b""[..], b"S", b"5", b"5s", b"-5S", b"123456789S", b"1.5S", b"5 S"] {
            assert_eq!(timeout(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
