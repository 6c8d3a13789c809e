//! An upstream's frames as bytes, and what a leg says and writes in plain values.

use super::super::*;
pub use crate::grpc::frame::flag::*;
use crate::grpc::frame::{Head, Kind, write_head};
use crate::grpc::hpack::encoder;

/// An event with its own copy of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Message(u32, Vec<u8>),
    End(u32, Code, String, bool),
    Bell,
    GoingAway,
}

/// Reads all of `bytes`; what was said, and the error if there was one.
pub fn hear(leg: &mut ClientLeg, bytes: &[u8]) -> (Vec<Said>, Option<LegError>) {
    let mut input = bytes;
    let mut said = Vec::new();
    let mut error = None;
    loop {
        match leg.poll(&mut input) {
            Ok(None) => break,
            Ok(Some(event)) => said.push(copied(&event)),
            Err(wrong) => assert!(error.replace(wrong).is_none(), "one error is the last"),
        }
    }
    assert!(input.is_empty());
    audit(leg);
    (said, error)
}

/// The same where no error is expected.
pub fn heard(leg: &mut ClientLeg, bytes: &[u8]) -> Vec<Said> {
    let (said, error) = hear(leg, bytes);
    assert_eq!(error, None);
    said
}

/// The code of the error that `bytes` end the connection with.
pub fn refused(leg: &mut ClientLeg, bytes: &[u8]) -> ErrorCode {
    let (_, error) = hear(leg, bytes);
    let error = error.expect("the connection goes on");
    let written = written(leg);
    let goodbye = written.last().expect("a GOAWAY");
    assert_eq!(goodbye.0.kind, Kind::GoAway);
    let expected = [&[0; 4], &error.code.number().to_be_bytes()[..], error.reason.as_bytes()];
    assert_eq!(goodbye.1, expected.concat());
    assert!(leg.is_closed() && leg.is_draining());
    assert_eq!(leg.in_flight(), 0);
    error.code
}

fn copied(event: &Event<'_>) -> Said {
    match event {
        Event::Message { token, message, .. } => Said::Message(*token, message.to_vec()),
        Event::End { token, code, message, processed, .. } => {
            Said::End(*token, *code, (*message).into(), *processed)
        }
        Event::BellAnswered => Said::Bell,
        Event::GoingAway => Said::GoingAway,
    }
}

pub fn end(token: u32, code: Code, text: &str) -> Said {
    Said::End(token, code, text.into(), true)
}

pub fn unprocessed(token: u32, text: &str) -> Said {
    Said::End(token, Code::Unavailable, text.into(), false)
}

/// A leg whose opening was exchanged: SETTINGS both ways, acknowledged.
pub fn leg(limits: &Limits) -> ClientLeg {
    leg_with(limits, &[])
}

/// The same, with settings of the upstream's.
pub fn leg_with(limits: &Limits, upstream: &[Setting]) -> ClientLeg {
    let mut leg = ClientLeg::new(limits);
    let opening = [settings(upstream), settings_ack()].concat();
    assert_eq!(heard(&mut leg, &opening), []);
    leg.output().clear();
    leg
}

/// Starts a call with the smallest of header blocks.
pub fn start(leg: &mut ClientLeg, token: u32, message: &[u8]) -> u32 {
    leg.start(token, &[], b"\x83", &[message]).expect("room for a call").number()
}

/// The frames in the output, which is emptied; the preface is left out.
pub fn written(leg: &mut ClientLeg) -> Vec<(Head, Vec<u8>)> {
    let output = std::mem::take(leg.output());
    let mut left = output.strip_prefix(&frame::CLIENT_PREFACE[..]).unwrap_or(&output);
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
pub fn summary(leg: &mut ClientLeg) -> Vec<(Kind, u32, usize)> {
    written(leg).into_iter().map(|(head, load)| (head.kind, head.stream, load.len())).collect()
}

/// The streams that were reset, with the codes.
pub fn resets(leg: &mut ClientLeg) -> Vec<(u32, ErrorCode)> {
    let frames = written(leg).into_iter().filter(|(head, _)| head.kind == Kind::ResetStream);
    frames
        .map(|(head, load)| {
            let number = u32::from_be_bytes(load.try_into().unwrap());
            (head.stream, ErrorCode::from_number(number))
        })
        .collect()
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

pub fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    raw(Kind::Headers, END_HEADERS, stream, &block(fields))
}

/// The usual beginning of a response.
pub fn answer(stream: u32) -> Vec<u8> {
    headers(stream, &[(":status", "200"), ("content-type", "application/grpc")])
}

pub fn trailers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    raw(Kind::Headers, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// The usual end of a response.
pub fn done(stream: u32) -> Vec<u8> {
    trailers(stream, &[("grpc-status", "0")])
}

pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    raw(Kind::Data, 0, stream, payload)
}

/// A message with gRPC's prefix.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

pub fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    raw(Kind::ResetStream, 0, stream, &code.number().to_be_bytes())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    raw(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes())
}

pub fn go_away(last: u32, code: ErrorCode, debug: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_go_away(last, code, debug, &mut out);
    out
}

pub fn ping(flags: u8) -> Vec<u8> {
    raw(Kind::Ping, flags, 0, b"opaque!!")
}

/// What must hold between any two calls of the leg.
pub fn audit(leg: &mut ClientLeg) {
    let mut partial = 0;
    let mut rests = Vec::new();
    let mut left = [0, 0];
    let mut open = 0;
    let mut queued = Vec::new();
    let ids = leg.streams.above(0);
    assert_eq!(ids.len(), leg.streams.live());
    for id in ids {
        let stream = leg.streams.get(id).expect("a listed stream");
        partial += stream.partial.len();
        match stream.phase {
            Phase::Queued => queued.push(id),
            Phase::Waiting | Phase::Answering => open += 1,
        }
        if let Some(rest) = &stream.rest {
            assert!(rest.open || rest.left() > 0);
            if rest.left() > 0 {
                rests.push(id);
            }
            left[usize::from(rest.streamed)] += rest.left();
        }
    }
    assert_eq!(leg.partial_messages, partial);
    assert!(partial <= leg.limits.max_partial + frame::DEFAULT_MAX_FRAME_SIZE as usize);
    assert!(leg.partial.len() <= frame::HEAD_LENGTH + frame::DEFAULT_MAX_FRAME_SIZE as usize);
    assert!(leg.block.len() <= leg.limits.max_header_block);
    leg.sending.audit(open, left, &rests, &queued);
}
