//! What a caller can get wrong, by the RFC's and gRPC's rules.

use super::script::*;
use crate::call::Code;
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::server::{Limits, ServerLeg};
use crate::grpc::settings::Setting;

fn fresh() -> ServerLeg {
    leg(Limits::default())
}

#[test]
fn what_is_no_http2_is_refused_at_its_first_wrong_byte() {
    let new = || ServerLeg::new(&std::rc::Rc::new(Limits::default()));
    assert_eq!(refused(&mut new(), b"GET / HTTP/1.1\r\n"), ErrorCode::ProtocolError);
    assert_eq!(refused(&mut new(), b"PRI * HTTP/1"), ErrorCode::ProtocolError);
    let first = [&crate::grpc::frame::CLIENT_PREFACE[..], &raw(Kind::Ping, 0, 0, &[0; 8])].concat();
    assert_eq!(refused(&mut new(), &first), ErrorCode::ProtocolError);
}

#[test]
fn broken_frames_end_the_connection() {
    use ErrorCode::{
        CompressionError, FlowControlError, FrameSizeError, ProtocolError, StreamClosed,
    };
    let itself = |stream: u32| [&stream.to_be_bytes()[..], b"\x10"].concat();
    let own = [itself(1), block(&FIELDS)].concat();
    let over =
        [head(1), reset(1, ErrorCode::Cancel), head(3), reset(3, ErrorCode::Cancel)].concat();
    let cases: [(&str, Vec<u8>, ErrorCode); 31] = [
        ("DATA on stream 0", data(0, b""), ProtocolError),
        ("HEADERS on stream 0", head(0), ProtocolError),
        ("an even stream", head(2), ProtocolError),
        ("a number below one used", [head(5), head(3)].concat(), ProtocolError),
        ("DATA on an idle stream", data(1, b""), ProtocolError),
        ("RST_STREAM on an idle stream", reset(1, ErrorCode::Cancel), ProtocolError),
        ("WINDOW_UPDATE on an idle stream", window_update(1, 1), ProtocolError),
        ("CONTINUATION alone", raw(Kind::Continuation, END_HEADERS, 1, b""), ProtocolError),
        (
            "PRIORITY in a header block",
            [raw(Kind::Headers, 0, 1, b""), raw(Kind::Priority, 0, 1, &[0; 5])].concat(),
            ProtocolError,
        ),
        (
            "another stream in a header block",
            [raw(Kind::Headers, 0, 1, b""), raw(Kind::Continuation, 0, 3, b"")].concat(),
            ProtocolError,
        ),
        (
            "an extension in a header block",
            [raw(Kind::Headers, 0, 1, b""), raw(Kind::Unknown(77), 0, 0, b"")].concat(),
            ProtocolError,
        ),
        ("DATA after the end", [call(1, b""), data(1, b"")].concat(), StreamClosed),
        ("HEADERS after the end", [call(1, b""), head(1)].concat(), StreamClosed),
        ("DATA after a reset", [over.clone(), data(1, b"")].concat(), StreamClosed),
        ("HEADERS after a reset", [over, head(3)].concat(), StreamClosed),
        ("padding too long", raw(Kind::Headers, PADDED | END_HEADERS, 1, b"\x05a"), ProtocolError),
        (
            "DATA padding too long",
            [head(1), raw(Kind::Data, PADDED, 1, b"\x05a")].concat(),
            ProtocolError,
        ),
        ("a large frame", raw(Kind::Data, 0, 1, &[0; 16_385]), FrameSizeError),
        ("a short PRIORITY", raw(Kind::Priority, 0, 1, b""), FrameSizeError),
        (
            "a short RST_STREAM",
            [head(1), raw(Kind::ResetStream, 0, 1, b"")].concat(),
            FrameSizeError,
        ),
        ("a long PING", raw(Kind::Ping, 0, 0, &[0; 9]), FrameSizeError),
        ("a stream's PING", raw(Kind::Ping, 0, 1, &[0; 8]), ProtocolError),
        ("SETTINGS with half an entry", raw(Kind::Settings, 0, 0, &[0; 3]), FrameSizeError),
        ("an ACK with entries", raw(Kind::Settings, ACK, 0, &[0; 6]), FrameSizeError),
        ("an ACK of nothing", settings_ack(), ProtocolError),
        ("PUSH_PROMISE", raw(Kind::PushPromise, 0, 1, &[0; 4]), ProtocolError),
        ("WINDOW_UPDATE by 0", window_update(0, 0), ProtocolError),
        ("a window too large", window_update(0, 0x7fff_ffff), FlowControlError),
        ("a block that is none", raw(Kind::Headers, END_HEADERS, 1, b"\xff\xff"), CompressionError),
        ("a stream after itself", raw(Kind::Priority, 0, 1, &itself(1)), ProtocolError),
        (
            "a request after itself",
            raw(Kind::Headers, END_HEADERS | PRIORITY, 1, &own),
            ProtocolError,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(refused(&mut fresh(), &bytes), code, "{what}");
    }
}

#[test]
fn malformed_requests_are_reset_and_the_connection_lives_on() {
    let with = |name: &'static str, value: &'static str| fields(&[(name, value)]);
    let without = |name: &str| FIELDS.iter().filter(|(n, _)| *n != name).copied().collect();
    let cases: [(&str, Vec<(&str, &str)>); 17] = [
        ("upper case", with("X-Big", "1")),
        ("an unknown pseudo-header field", with(":unknown", "1")),
        ("one of responses", with(":status", "200")),
        ("one after others", with(":path", "/a/b")),
        ("connection", with("connection", "keep-alive")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("te", with("te", "gzip")),
        ("a line break", with("x-a", "b\nc")),
        ("a name with a colon", with("x:a", "b")),
        ("no :method", without(":method")),
        ("no :scheme", without(":scheme")),
        ("no :path", without(":path")),
        ("an empty :path", [("x", "")].map(|_| (":path", "")).into_iter().chain(FIELDS).collect()),
        ("two :method", [(":method", "POST")].into_iter().chain(FIELDS).collect()),
        ("two :scheme", [(":scheme", "http")].into_iter().chain(FIELDS).collect()),
        ("a length that is none", with("content-length", "a lot")),
        ("a negative length", with("content-length", "-1")),
    ];
    for (what, fields) in cases {
        let mut leg = fresh();
        assert_eq!(heard(&mut leg, &trailers(1, &fields)), [], "{what}");
        assert_eq!(resets(&mut leg), [(1, ErrorCode::ProtocolError)], "{what}");
        assert_eq!(heard(&mut leg, &call(3, b"")), [begun(3), requested(3, b"")]);
    }
}

#[test]
fn bodies_that_contradict_their_head_are_reset() {
    let long = headers(1, &fields(&[("content-length", "3")]));
    let over = [Said::Over(1, Code::Internal)];
    for body in [last(1, &framed(b"")), data(1, &framed(b"")), last(1, b"ab")] {
        let mut leg = fresh();
        assert_eq!(heard(&mut leg, &long), [begun(1)]);
        assert_eq!(heard(&mut leg, &body), over);
        assert_eq!(resets(&mut leg), [(1, ErrorCode::ProtocolError)]);
    }
    for end in [head(1), trailers(1, &[(":path", "/")]), headers(1, &[("a", "b")])] {
        let mut leg = fresh();
        assert_eq!(heard(&mut leg, &head(1)), [begun(1)]);
        assert_eq!(heard(&mut leg, &end), over);
        assert_eq!(resets(&mut leg), [(1, ErrorCode::ProtocolError)]);
    }
}

#[test]
fn messages_that_are_wrong_get_their_status() {
    let two = [framed(b"one"), framed(b"two")].concat();
    let large = framed(&[0; MAX_MESSAGE + 1]);
    let cases: [(&str, Vec<u8>, Code, &str); 7] = [
        ("none", last(1, b""), Code::Internal, "no%20message"),
        ("cut", last(1, b"\0\0\0\0\x05abc"), Code::Internal, "in%20the%20middle"),
        ("cut prefix", last(1, b"\0\0"), Code::Internal, "in%20the%20middle"),
        ("two", last(1, &two), Code::Unimplemented, "more%20than%20one"),
        ("compressed", last(1, b"\x01\0\0\0\0"), Code::Unimplemented, "compressed"),
        ("prefix", data(1, b"\x02\0\0\0\0"), Code::Internal, "wrong%20prefix"),
        ("large", data(1, &large[..9]), Code::ResourceExhausted, "larger"),
    ];
    for (what, body, code, text) in cases {
        let mut leg = fresh();
        heard(&mut leg, &head(1));
        assert_eq!(heard(&mut leg, &body), [Said::Over(1, code)], "{what}");
        let answer = response(&mut leg, 1);
        assert_eq!(answer.fields[2], format!("grpc-status: {}", code.number()), "{what}");
        assert!(answer.fields[3].contains(&text.replace("%20", " ")), "{what}: {answer:?}");
        assert!(answer.ended);
        let ended = body[4] & END_STREAM != 0;
        assert_eq!(answer.reset, (!ended).then_some(ErrorCode::NoError), "{what}");
    }
}

#[test]
fn heads_that_are_wrong_get_their_status() {
    for (fields, code) in [
        (fields(&[("grpc-timeout", "soon")]), Code::Internal),
        (fields(&[("x-large", LARGE)]), Code::ResourceExhausted),
    ] {
        let mut leg = leg(Limits { max_header_block: 400, ..Limits::default() });
        assert_eq!(heard(&mut leg, &headers(1, &fields)), []);
        let answer = response(&mut leg, 1);
        assert_eq!(answer.fields[2], format!("grpc-status: {}", code.number()));
    }
    let mut leg = fresh();
    assert_eq!(heard(&mut leg, &trailers(1, &FIELDS)), []);
    assert_eq!(response(&mut leg, 1).fields[2], "grpc-status: 13", "no message at all");
}

const LARGE: &str = "0123456789012345678901234567890123456789012345678901234567890123456789\
     0123456789012345678901234567890123456789012345678901234567890123456789";

#[test]
fn a_window_that_grows_too_large_resets_its_stream() {
    let mut leg = fresh();
    heard(&mut leg, &head(1));
    let grow = window_update(1, 0x7fff_ffff);
    assert_eq!(heard(&mut leg, &grow), [Said::Over(1, Code::Internal)]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::FlowControlError)]);
    heard(&mut leg, &head(3));
    assert_eq!(heard(&mut leg, &window_update(3, 0)), [Said::Over(3, Code::Internal)]);
    assert_eq!(resets(&mut leg), [(3, ErrorCode::ProtocolError)]);
    heard(&mut leg, &[head(5), window_update(5, 0x7fff_0000)].concat());
    let grow = settings(&[Setting::InitialWindowSize(0x7fff_ffff)]);
    assert_eq!(refused(&mut leg, &grow), ErrorCode::FlowControlError);
}
