//! Responses: messages and how they end.

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, Event, Limits};
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;

/// A leg with one call, token 9 on stream 1, whose frames are out.
fn called(limits: &Limits) -> ClientLeg {
    let mut leg = leg(limits);
    assert_eq!(start(&mut leg, 9, b"request"), 1);
    leg.output().clear();
    leg
}

/// What an upstream says after the usual beginning of a response, and what comes of it.
fn after_answer(bytes: &[u8]) -> (Vec<Said>, Vec<(u32, ErrorCode)>) {
    let mut leg = called(&Limits::default());
    let said = heard(&mut leg, &[&answer(1), bytes].concat());
    (said, resets(&mut leg))
}

#[test]
fn a_message_and_an_end() {
    let (said, resets) = after_answer(&[data(1, &message(b"hello")), done(1)].concat());
    assert_eq!(said, [Said::Message(9, b"hello".into()), end(9, Code::Ok, "")]);
    assert_eq!(resets, []);
}

#[test]
fn a_whole_message_is_borrowed_from_the_input() {
    let mut leg = called(&Limits::default());
    let bytes = [answer(1), data(1, &message(b"hello"))].concat();
    let mut input = &bytes[..];
    let Some(Event::Message { message, .. }) = leg.poll(&mut input).unwrap() else {
        panic!("no message");
    };
    assert!(bytes.as_ptr_range().contains(&message.as_ptr()));
}

#[test]
fn messages_and_frames_need_not_align() {
    let all = [message(b"one"), message(b""), message(b"three")].concat();
    let expected = [
        Said::Message(9, b"one".into()),
        Said::Message(9, b"".into()),
        Said::Message(9, b"three".into()),
        end(9, Code::Ok, ""),
    ];
    let (said, _) = after_answer(&[data(1, &all), done(1)].concat());
    assert_eq!(said, expected);
    for size in 1..all.len() {
        let frames: Vec<u8> = all.chunks(size).flat_map(|piece| data(1, piece)).collect();
        let (said, resets) = after_answer(&[frames, done(1)].concat());
        assert_eq!(said, expected, "in pieces of {size}");
        assert_eq!(resets, []);
    }
}

#[test]
fn padding_is_taken_off_and_padding_alone_is_nothing() {
    let padded = |text: &[u8], padding: usize| {
        let payload = [&[padding as u8], text, &vec![0; padding]].concat();
        raw(Kind::Data, PADDED, 1, &payload)
    };
    let all = message(b"hello");
    let (said, _) = after_answer(
        &[padded(&all[..3], 255), padded(b"", 7), padded(&all[3..], 0), done(1)].concat(),
    );
    assert_eq!(said, [Said::Message(9, b"hello".into()), end(9, Code::Ok, "")]);
}

#[test]
fn header_blocks_may_be_padded_prioritised_and_continued() {
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    let padded = [&[3, 0, 0, 0, 0, 9], &head[..], &[0; 3]].concat();
    let tail = block(&[("grpc-status", "0"), ("x-more", "yes")]);
    let mut leg = called(&Limits::default());
    let mut bytes = raw(Kind::Headers, END_HEADERS | PADDED | PRIORITY, 1, &padded);
    bytes.extend(raw(Kind::Headers, END_STREAM, 1, &tail[..1]));
    bytes.extend(raw(Kind::Continuation, 0, 1, &tail[1..5]));
    bytes.extend(raw(Kind::Continuation, 0, 1, b""));
    bytes.extend(raw(Kind::Continuation, END_HEADERS, 1, &tail[5..]));
    assert_eq!(heard(&mut leg, &bytes), [end(9, Code::Ok, "")]);
}

#[test]
fn trailing_metadata_can_be_read_wherever_the_block_came_from() {
    let fields = [("grpc-status", "8"), ("x-retry", "5")];
    let whole = trailers(1, &fields);
    let coded = block(&fields);
    let continued = [
        raw(Kind::Headers, END_STREAM, 1, &coded[..4]),
        raw(Kind::Continuation, END_HEADERS, 1, &coded[4..]),
    ]
    .concat();
    for bytes in [whole, continued] {
        for cut in 0..bytes.len() {
            let mut leg = called(&Limits::default());
            heard(&mut leg, &answer(1));
            let mut first = &bytes[..cut];
            assert_eq!(leg.poll(&mut first), Ok(None));
            let mut rest = &bytes[cut..];
            let Some(Event::End { trailers, code, .. }) = leg.poll(&mut rest).unwrap() else {
                panic!("no end after a cut at {cut}");
            };
            let mut seen = Vec::new();
            trailers
                .visit(|name, value| {
                    seen.push((
                        String::from_utf8_lossy(name).into_owned(),
                        String::from_utf8_lossy(value).into_owned(),
                    ));
                })
                .unwrap();
            assert_eq!(seen, fields.map(|(name, value)| (name.into(), value.into())));
            assert_eq!(code, Code::ResourceExhausted);
        }
    }
}

#[test]
fn informational_responses_are_passed_over() {
    let mut leg = called(&Limits::default());
    let early = headers(1, &[(":status", "103"), ("link", "x")]);
    let bytes = [early.clone(), early, answer(1), data(1, &message(b"m")), done(1)].concat();
    assert_eq!(heard(&mut leg, &bytes), [Said::Message(9, b"m".into()), end(9, Code::Ok, "")]);
}

#[test]
fn trailers_only_and_refusals_in_http_end_the_call() {
    let mut leg = called(&Limits::default());
    let bytes = trailers(1, &[(":status", "200"), ("grpc-status", "12"), ("grpc-message", "no")]);
    assert_eq!(heard(&mut leg, &bytes), [end(9, Code::Unimplemented, "no")]);
    assert_eq!(resets(&mut leg), []);

    let mut leg = called(&Limits::default());
    let bytes = [headers(1, &[(":status", "502")]), data(1, b"<html>")].concat();
    let text = "response with HTTP status 502";
    assert_eq!(heard(&mut leg, &bytes), [end(9, Code::Unavailable, text)]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::Cancel)]);
}

#[test]
fn a_response_cut_short_is_internal_unless_the_service_says_otherwise() {
    let partial = &message(b"hello")[..7];
    let (said, _) = after_answer(&[data(1, partial), done(1)].concat());
    assert_eq!(said, [end(9, Code::Internal, "response ended in the middle of a message")]);

    let failed = trailers(1, &[("grpc-status", "10")]);
    let (said, _) = after_answer(&[data(1, partial), failed].concat());
    assert_eq!(said, [end(9, Code::Aborted, "")]);

    let (said, _) = after_answer(&raw(Kind::Data, END_STREAM, 1, partial));
    assert_eq!(said, [end(9, Code::Internal, "response ended in the middle of a message")]);

    let (said, _) = after_answer(&raw(Kind::Data, END_STREAM, 1, &message(b"m")));
    let end = end(9, Code::Internal, "response ended without trailers");
    assert_eq!(said, [Said::Message(9, b"m".into()), end]);
}

#[test]
fn messages_that_cannot_be_read_end_the_call_and_reset_the_stream() {
    let compressed = "compressed response message though no encoding was offered";
    for (prefix, text) in [(1, compressed), (2, "response message with a wrong prefix")] {
        let (said, resets) =
            after_answer(&[data(1, &[prefix, 0, 0, 0, 1, b'x']), done(1)].concat());
        assert_eq!(said, [end(9, Code::Internal, text)]);
        assert_eq!(resets, [(1, ErrorCode::Cancel)]);
    }
}

#[test]
fn a_message_above_the_limit_is_refused_by_its_prefix_alone() {
    let limits = Limits { max_message: 10, ..Limits::default() };
    for cut in 0..6 {
        let mut leg = called(&limits);
        let large = [0, 0, 0, 0, 11, b'x'];
        let pieces = [data(1, &large[..cut]), data(1, &large[cut..])].concat();
        let said = heard(&mut leg, &[answer(1), pieces].concat());
        let text = "response message larger than the limit";
        assert_eq!(said, [end(9, Code::ResourceExhausted, text)]);
        assert_eq!(resets(&mut leg), [(1, ErrorCode::Cancel)]);
    }
    let mut leg = called(&limits);
    let said = heard(&mut leg, &[answer(1), data(1, &message(&[7; 10]))].concat());
    assert_eq!(said, [Said::Message(9, vec![7; 10])]);
}

#[test]
fn a_malformed_response_resets_its_stream_and_spares_the_others() {
    let malformed = [
        headers(1, &[("content-type", "application/grpc")]),
        data(1, &message(b"m")),
        [answer(1), answer(1)].concat(),
        [answer(1), trailers(1, &[(":status", "200"), ("grpc-status", "0")])].concat(),
        headers(1, &[(":status", "200"), ("connection", "close")]),
        trailers(1, &[(":status", "100")]),
    ];
    for bytes in malformed {
        let mut leg = called(&Limits::default());
        start(&mut leg, 10, b"");
        let bytes = [bytes, answer(3), done(3)].concat();
        let said = heard(&mut leg, &bytes);
        assert!(matches!(said[0], Said::End(9, Code::Internal, _, true)), "{said:?}");
        assert_eq!(said[1..], [end(10, Code::Ok, "")]);
        assert_eq!(resets(&mut leg), [(1, ErrorCode::ProtocolError)]);
    }
}

#[test]
fn a_block_above_the_limit_ends_its_call_alone() {
    let limits = Limits { max_header_block: 1000, ..Limits::default() };
    let text = "response header block larger than the limit";
    let long = "x".repeat(1200);
    let coded = block(&[("grpc-status", "0"), ("x-long", &long)]);
    let whole = raw(Kind::Headers, END_HEADERS | END_STREAM, 1, &coded);
    let continued = [
        raw(Kind::Headers, END_STREAM, 1, &coded[..600]),
        raw(Kind::Continuation, END_HEADERS, 1, &coded[600..]),
    ]
    .concat();
    for bytes in [whole, continued] {
        let mut leg = called(&limits);
        start(&mut leg, 10, b"");
        let bytes = [answer(1), bytes, answer(3), done(3)].concat();
        let said = heard(&mut leg, &bytes);
        assert_eq!(said, [end(9, Code::ResourceExhausted, text), end(10, Code::Ok, "")]);
    }
}

/// A response of one message that announces so many bytes of DATA.
fn announced(length: &str, end: &[u8]) -> (Vec<Said>, Vec<(u32, ErrorCode)>) {
    let fields =
        [(":status", "200"), ("content-type", "application/grpc"), ("content-length", length)];
    let mut leg = called(&Limits::default());
    let padded = raw(Kind::Data, PADDED, 1, &[&[3], &message(b"hello")[..], &[0; 3]].concat());
    let said = heard(&mut leg, &[headers(1, &fields), padded, end.to_vec()].concat());
    (said, resets(&mut leg))
}

#[test]
fn data_that_contradicts_the_content_length_ends_the_call() {
    let whole = Said::Message(9, b"hello".into());
    assert_eq!(announced("10", &done(1)), (vec![whole.clone(), end(9, Code::Ok, "")], vec![]));
    let reset = vec![(1, ErrorCode::ProtocolError)];
    let longer = end(9, Code::Internal, "response longer than its content-length");
    assert_eq!(announced("9", &done(1)), (vec![longer.clone()], reset.clone()));
    let more = [data(1, &message(b"")), done(1)].concat();
    assert_eq!(announced("12", &more), (vec![whole.clone(), longer], reset.clone()));
    let shorter = end(9, Code::Internal, "response shorter than its content-length");
    assert_eq!(announced("11", &done(1)), (vec![whole.clone(), shorter.clone()], reset));
    let without_trailers = raw(Kind::Data, END_STREAM, 1, b"");
    assert_eq!(announced("11", &without_trailers), (vec![whole, shorter], vec![]));
}

#[test]
fn a_content_length_that_is_none_or_two_is_malformed() {
    for lengths in [&["ten"][..], &["-1"], &[""], &["1", "2"], &["9999999999999999999"]] {
        let mut fields = vec![(":status", "200"), ("content-type", "application/grpc")];
        fields.extend(lengths.iter().map(|length| ("content-length", *length)));
        let mut leg = called(&Limits::default());
        let said = heard(&mut leg, &headers(1, &fields));
        assert_eq!(said, [end(9, Code::Internal, "wrong content-length")], "{lengths:?}");
        assert_eq!(resets(&mut leg), [(1, ErrorCode::ProtocolError)]);
    }
    let twice = [(":status", "200"), ("content-length", "5"), ("content-length", "5")];
    assert_eq!(heard(&mut called(&Limits::default()), &headers(1, &twice)), []);
}
