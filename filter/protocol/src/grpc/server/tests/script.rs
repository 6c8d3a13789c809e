//! A caller's frames as bytes, and what a leg says and writes in plain values.

use super::super::*;
use crate::call::Code;
pub use crate::grpc::frame::flag::*;
use crate::grpc::frame::{Head, Kind, write_head};
use crate::grpc::hpack::{Decoder, encoder};

/// An event with its own copy of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Begin(u32, String),
    Request(u32, Vec<u8>),
    Over(u32, Code),
}

/// Reads all of `bytes` and accepts every call under its stream's number; what was said, and the
/// error if there was one.
pub fn hear(leg: &mut ServerLeg, bytes: &[u8]) -> (Vec<Said>, Option<LegError>) {
    let mut input = bytes;
    let mut said = Vec::new();
    let mut error = None;
    loop {
        let accepted = match leg.poll(&mut input) {
            Ok(None) => break,
            Err(wrong) => {
                assert!(error.replace(wrong).is_none(), "one error is the last");
                None
            }
            Ok(Some(Event::Begin { stream, path, .. })) => {
                said.push(Said::Begin(stream.number(), String::from_utf8_lossy(path).into()));
                Some(stream)
            }
            Ok(Some(Event::Request { stream, token, message })) => {
                assert_eq!(token, stream.number());
                said.push(Said::Request(token, message.to_vec()));
                None
            }
            Ok(Some(Event::Over { stream, token, code })) => {
                assert_eq!(token, stream.number());
                said.push(Said::Over(token, code));
                None
            }
        };
        if let Some(stream) = accepted {
            leg.accept(stream, stream.number(), MAX_MESSAGE);
        }
    }
    assert!(input.is_empty());
    audit(leg);
    (said, error)
}

pub const MAX_MESSAGE: usize = 1000;

/// The same where no error is expected.
pub fn heard(leg: &mut ServerLeg, bytes: &[u8]) -> Vec<Said> {
    let (said, error) = hear(leg, bytes);
    assert_eq!(error, None);
    said
}

/// The code of the error that `bytes` end the connection with.
pub fn refused(leg: &mut ServerLeg, bytes: &[u8]) -> ErrorCode {
    let (_, error) = hear(leg, bytes);
    let error = error.expect("the connection goes on");
    let written = written(leg);
    let goodbye = written.last().expect("a GOAWAY");
    assert_eq!(goodbye.0.kind, Kind::GoAway);
    assert_eq!(goodbye.1[4..8], error.code.number().to_be_bytes());
    assert_eq!(&goodbye.1[8..], error.reason.as_bytes());
    assert!(leg.is_closed());
    assert_eq!(leg.open_streams(), 0);
    error.code
}

/// The call of this stream, which lives.
pub fn key(leg: &ServerLeg, stream: u32) -> StreamKey {
    leg.streams.find(stream).expect("a live stream")
}

pub fn begun(stream: u32) -> Said {
    Said::Begin(stream, "/demo.v1.Echo/Echo".into())
}

pub fn requested(stream: u32, message: &[u8]) -> Said {
    Said::Request(stream, message.to_vec())
}

/// A leg whose opening was exchanged: preface, SETTINGS both ways, acknowledged.
pub fn leg(limits: Limits) -> ServerLeg {
    leg_with(limits, &[])
}

/// The same, with settings of the caller's.
pub fn leg_with(limits: Limits, caller: &[Setting]) -> ServerLeg {
    let mut leg = ServerLeg::new(&Rc::new(limits.valid()));
    assert_eq!(heard(&mut leg, &opening(caller)), []);
    leg.output().clear();
    leg
}

/// What a caller begins with, its acknowledgement of our SETTINGS included.
pub fn opening(caller: &[Setting]) -> Vec<u8> {
    [&CLIENT_PREFACE[..], &settings(caller), &settings_ack()].concat()
}

/// The frames in the output, which is emptied.
pub fn written(leg: &mut ServerLeg) -> Vec<(Head, Vec<u8>)> {
    let output = std::mem::take(leg.output());
    let mut left = &output[..];
    let mut frames = Vec::new();
    while let Some((head, rest)) = left.split_first_chunk() {
        let head = Head::parse(head);
        let (payload, rest) = rest.split_at(head.length as usize);
        frames.push((head, payload.to_vec()));
        left = rest;
    }
    assert!(left.is_empty());
    frames
}

/// Kind, stream and payload length of the frames in the output.
pub fn summary(leg: &mut ServerLeg) -> Vec<(Kind, u32, usize)> {
    written(leg).into_iter().map(|(head, load)| (head.kind, head.stream, load.len())).collect()
}

/// The streams that were reset, with the codes.
pub fn resets(leg: &mut ServerLeg) -> Vec<(u32, ErrorCode)> {
    let frames = written(leg).into_iter().filter(|(head, _)| head.kind == Kind::ResetStream);
    frames
        .map(|(head, load)| {
            let number = u32::from_be_bytes(load.try_into().unwrap());
            (head.stream, ErrorCode::from_number(number))
        })
        .collect()
}

/// What the caller hears of a response, header fields as `name: value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub fields: Vec<String>,
    pub body: Vec<u8>,
    pub ended: bool,
    pub reset: Option<ErrorCode>,
}

/// The caller's side of the header tables; one for a connection.
pub struct Ear(pub Decoder);

impl Ear {
    pub fn new() -> Self {
        Self(Decoder::new(4096))
    }

    /// The part of a stream's response that is in `frames`.
    pub fn response(&mut self, frames: &[(Head, Vec<u8>)], stream: u32) -> Response {
        let mut response = Response::default();
        for (head, load) in frames {
            let of_it = head.stream == stream;
            match head.kind {
                Kind::Headers => {
                    let fields = &mut response.fields;
                    let add = |name: &[u8], value: &[u8]| {
                        if of_it {
                            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                            fields.push(format!("{}: {}", text(name), text(value)));
                        }
                    };
                    self.0.decode(load, add).expect("a block that can be read");
                }
                Kind::Data if of_it => response.body.extend(load),
                Kind::ResetStream if of_it => {
                    let number = u32::from_be_bytes(load[..].try_into().unwrap());
                    response.reset = Some(ErrorCode::from_number(number));
                }
                _ => {}
            }
            let ends = matches!(head.kind, Kind::Headers | Kind::Data) && head.has(END_STREAM);
            response.ended |= of_it && ends;
        }
        response
    }
}

/// The response to a stream on a connection that has not remembered anything.
pub fn response(leg: &mut ServerLeg, stream: u32) -> Response {
    Ear::new().response(&written(leg), stream)
}

pub fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_head(kind, flags, stream, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

pub fn settings(settings: &[Setting]) -> Vec<u8> {
    let mut out = Vec::new();
    super::super::settings::write(settings, &mut out);
    out
}

pub fn settings_ack() -> Vec<u8> {
    raw(Kind::Settings, ACK, 0, b"")
}

pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        encoder::encode_shortest(name, value.as_bytes(), &mut out);
    }
    out
}

/// The fields of a gRPC request.
pub const FIELDS: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/demo.v1.Echo/Echo"),
    (":authority", "echo"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
];

/// `FIELDS` and more.
pub fn fields(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    FIELDS.iter().chain(more).copied().collect()
}

pub fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    raw(Kind::Headers, END_HEADERS, stream, &block(fields))
}

pub fn trailers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    raw(Kind::Headers, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// The head of a call.
pub fn head(stream: u32) -> Vec<u8> {
    headers(stream, &FIELDS)
}

/// A whole call.
pub fn call(stream: u32, message: &[u8]) -> Vec<u8> {
    [head(stream), last(stream, &framed(message))].concat()
}

pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    raw(Kind::Data, 0, stream, payload)
}

/// DATA with END_STREAM.
pub fn last(stream: u32, payload: &[u8]) -> Vec<u8> {
    raw(Kind::Data, END_STREAM, stream, payload)
}

/// A message with gRPC's prefix.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

pub fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    raw(Kind::ResetStream, 0, stream, &code.number().to_be_bytes())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    raw(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes())
}

/// What must hold between any two calls of the leg.
pub fn audit(leg: &mut ServerLeg) {
    let (mut partial, mut left, mut blocked) = (0, 0, 0);
    let mut seen = 0;
    for stream in leg.streams.iter_mut() {
        seen += 1;
        partial += stream.partial.len();
        if let Some(rest) = &stream.rest {
            assert!(rest.left() > 0);
            left += rest.left();
            blocked += 1;
        }
    }
    assert_eq!(seen, leg.streams.live());
    assert_eq!(leg.partial_messages, partial);
    assert!(partial <= leg.limits.max_partial + frame::DEFAULT_MAX_FRAME_SIZE as usize);
    assert!(leg.partial.len() <= frame::HEAD_LENGTH + frame::DEFAULT_MAX_FRAME_SIZE as usize);
    assert!(leg.block.len() <= leg.limits.max_header_block * 4);
    leg.sending.audit(left, blocked);
}
