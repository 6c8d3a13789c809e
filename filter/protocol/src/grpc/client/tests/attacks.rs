//! What a broken or hostile upstream can try.

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, Limits, StreamId};
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::settings::{MAX_WINDOW, Setting};

/// A leg with one call on stream 1.
fn called() -> ClientLeg {
    let mut leg = leg(&Limits::default());
    start(&mut leg, 0, b"request");
    leg.output().clear();
    leg
}

#[test]
fn frames_on_streams_that_cannot_be_are_refused() {
    let frames: [fn(u32) -> Vec<u8>; 5] = [
        answer,
        |stream| data(stream, b"x"),
        |stream| reset(stream, ErrorCode::Cancel),
        |stream| window_update(stream, 1),
        |stream| raw(Kind::Headers, 0, stream, b""),
    ];
    for frame in frames {
        for stream in [2, 3, 4, 99, MAX_WINDOW] {
            assert_eq!(refused(&mut called(), &frame(stream)), ErrorCode::ProtocolError);
        }
    }
}

#[test]
fn a_call_that_waits_has_no_stream_yet() {
    let mut leg = leg_with(&Limits::default(), &[Setting::MaxConcurrentStreams(1)]);
    start(&mut leg, 0, b"");
    start(&mut leg, 1, b"");
    assert_eq!(refused(&mut leg, &[answer(3), done(3)].concat()), ErrorCode::ProtocolError);
}

#[test]
fn frames_of_a_stream_that_the_upstream_ended_are_refused() {
    for late in [data(1, b"x"), answer(1), done(1)] {
        for end in [done(1), reset(1, ErrorCode::Cancel)] {
            let bytes = [answer(1), end, late.clone()].concat();
            assert_eq!(refused(&mut called(), &bytes), ErrorCode::StreamClosed);
        }
    }
    // These two may cross the end.
    for late in [reset(1, ErrorCode::NoError), window_update(1, 5)] {
        let said = heard(&mut called(), &[answer(1), done(1), late].concat());
        assert_eq!(said, [end(0, Code::Ok, "")]);
    }
}

#[test]
fn wrong_lengths_and_places_are_refused_by_the_head_alone() {
    let wrong = [
        (Kind::Data, 0, 0, 5, ErrorCode::ProtocolError),
        (Kind::Headers, 0, 0, 5, ErrorCode::ProtocolError),
        (Kind::ResetStream, 0, 0, 4, ErrorCode::ProtocolError),
        (Kind::ResetStream, 0, 1, 3, ErrorCode::FrameSizeError),
        (Kind::Priority, 0, 1, 4, ErrorCode::FrameSizeError),
        (Kind::Ping, 0, 0, 9, ErrorCode::FrameSizeError),
        (Kind::Ping, 0, 1, 8, ErrorCode::ProtocolError),
        (Kind::GoAway, 0, 0, 7, ErrorCode::FrameSizeError),
        (Kind::GoAway, 0, 1, 8, ErrorCode::ProtocolError),
        (Kind::WindowUpdate, 0, 1, 5, ErrorCode::FrameSizeError),
        (Kind::Continuation, END_HEADERS, 1, 1, ErrorCode::ProtocolError),
        (Kind::PushPromise, END_HEADERS, 1, 10, ErrorCode::ProtocolError),
        (Kind::Data, 0, 1, 16_385, ErrorCode::FrameSizeError),
        (Kind::Unknown(77), 0, 0, 16_385, ErrorCode::FrameSizeError),
    ];
    for (kind, flags, stream, length, code) in wrong {
        let whole = raw(kind, flags, stream, &vec![0; length]);
        assert_eq!(refused(&mut called(), &whole[..9]), code, "{kind:?} {length}");
    }
}

#[test]
fn padding_longer_than_its_frame_is_refused() {
    let wrong = [
        raw(Kind::Data, PADDED, 1, b""),
        raw(Kind::Data, PADDED, 1, b"\x01"),
        raw(Kind::Data, PADDED, 1, b"\xffabc"),
        raw(Kind::Headers, PADDED | END_HEADERS, 1, b"\x05abc"),
        raw(Kind::Headers, PADDED | END_HEADERS, 1, b""),
        raw(Kind::Headers, PRIORITY | END_HEADERS, 1, b"abc"),
    ];
    for bytes in wrong {
        let bytes = [&answer(1), &bytes[..]].concat();
        assert_eq!(refused(&mut called(), &bytes), ErrorCode::ProtocolError);
    }
}

#[test]
fn nothing_may_come_between_the_frames_of_a_block() {
    let begun = raw(Kind::Headers, 0, 1, b"\x88");
    let between = [
        ping(0),
        settings(&[]),
        data(1, b""),
        answer(1),
        raw(Kind::Unknown(99), 0, 0, b""),
        raw(Kind::Continuation, END_HEADERS, 3, b""),
    ];
    for frame in between {
        let bytes = [&begun[..], &frame].concat();
        assert_eq!(refused(&mut called(), &bytes), ErrorCode::ProtocolError);
    }
}

#[test]
fn a_block_that_cannot_be_decoded_ends_the_connection() {
    for wrong in
        [&b"\xbe"[..], b"\x88\x20", b"\x3f\xe1\x1f", b"\x00\x85\xff\xff\xff\xff\xff", b"\x40"]
    {
        let bytes = raw(Kind::Headers, END_HEADERS, 1, wrong);
        assert_eq!(refused(&mut called(), &bytes), ErrorCode::CompressionError, "{wrong:?}");
    }
}

#[test]
fn a_flood_of_continuations_is_cut_off() {
    for piece in [&b""[..], b"\x88", &[0x88; 5000]] {
        let mut leg = called();
        let mut bytes = raw(Kind::Headers, 0, 1, b"");
        for _ in 0..100 {
            bytes.extend(raw(Kind::Continuation, 0, 1, piece));
        }
        assert_eq!(refused(&mut leg, &bytes), ErrorCode::EnhanceYourCalm);
        assert!(leg.block.capacity() <= 2 * Limits::default().max_header_block);
    }
}

#[test]
fn a_block_far_above_the_limit_ends_the_connection() {
    let limits = Limits { max_header_block: 100, max_continuations: u32::MAX, ..Limits::default() };
    let mut leg = leg(&limits);
    start(&mut leg, 0, b"");
    leg.output().clear();
    let piece = raw(Kind::Continuation, 0, 1, &[0x88; 10]);
    let block = [raw(Kind::Headers, 0, 1, b""), piece.repeat(40)].concat();
    assert_eq!(heard(&mut leg, &block), []);
    assert_eq!(refused(&mut leg, &piece), ErrorCode::EnhanceYourCalm);
}

#[test]
fn floods_that_bring_nothing_forward_are_cut_off() {
    let cancelled = || {
        let mut leg = called();
        leg.cancel(StreamId(1));
        leg
    };
    let answered = || {
        let mut leg = called();
        heard(&mut leg, &answer(1));
        leg
    };
    let floods: [(Vec<u8>, &dyn Fn() -> ClientLeg); 13] = [
        (go_away(MAX_WINDOW, ErrorCode::NoError, "bye"), &called),
        (ping(0), &called),
        (ping(ACK), &called),
        (settings(&[]), &called),
        (settings(&[Setting::InitialWindowSize(5); 2000]), &called),
        (window_update(1, 1), &called),
        (window_update(0, 1), &called),
        (raw(Kind::Priority, 0, 1, b"\0\0\0\0\0"), &called),
        (raw(Kind::Unknown(200), 9, 7, b""), &called),
        (headers(1, &[(":status", "100")]), &called),
        (data(1, b""), &answered),
        (raw(Kind::Data, PADDED, 1, b"\x01\0"), &answered),
        (data(1, b"late"), &cancelled),
    ];
    for (frame, leg) in floods {
        let mut leg = leg();
        let flood = frame.repeat(10_001);
        assert_eq!(refused(&mut leg, &flood), ErrorCode::EnhanceYourCalm, "{:?}", &frame[..9]);
    }
}

#[test]
fn what_a_flood_makes_us_write_is_bounded() {
    let mut leg = called();
    hear(&mut leg, &ping(0).repeat(1_000_000));
    assert!(leg.output().len() < 200_000);
}

#[test]
fn a_quiet_connection_may_be_pinged_for_ever() {
    let mut leg = leg(&Limits::default());
    let mut bells = 0;
    for _ in 0..100_000 {
        assert_eq!(heard(&mut leg, &ping(0)), []);
        for (head, _) in written(&mut leg) {
            if head.kind == Kind::Settings {
                bells += 1;
                // The upstream reads, and answers as it must; nobody rang, so nobody is told.
                assert_eq!(heard(&mut leg, &settings_ack()), []);
            }
        }
    }
    assert!((10..=100).contains(&bells), "{bells}");
}

#[test]
fn a_bell_is_shared_with_our_own_question_for_a_sign_of_life() {
    let mut leg = leg(&Limits::default());
    heard(&mut leg, &ping(0).repeat(6_000));
    let settings: Vec<_> =
        summary(&mut leg).into_iter().filter(|(kind, ..)| *kind == Kind::Settings).collect();
    assert_eq!(settings.len(), 1);
    assert!(leg.ring());
    assert!(leg.output().is_empty());
    assert_eq!(heard(&mut leg, &settings_ack()), [Said::Bell]);
}

#[test]
fn calls_that_go_forward_keep_a_busy_connection_alive() {
    let forward: [fn(u32) -> Vec<u8>; 4] = [
        |id| [answer(id), data(id, &message(b"m")[..3]), data(id, &message(b"m")[3..])].concat(),
        |id| [answer(id), done(id)].concat(),
        |id| reset(id, ErrorCode::Cancel),
        |id| [answer(id), data(id, &message(b"m"))].concat(),
    ];
    for forward in forward {
        // Few idle frames between two steps, many in all, and no acknowledgement ever.
        let limits = Limits { max_idle_frames: 20, max_streams: 1000, ..Limits::default() };
        let mut leg = leg(&limits);
        for token in 0..100 {
            let id = start(&mut leg, token, b"x");
            let idle = [ping(0), window_update(0, 5), window_update(id, 5)].concat().repeat(6);
            assert_eq!(heard(&mut leg, &[idle, forward(id)].concat()).len(), 1);
        }
    }
}

#[test]
fn half_sent_messages_of_many_calls_are_bounded_together() {
    let limits = Limits { max_partial: 100_000, ..Limits::default() };
    let mut leg = leg(&limits);
    let mut ended = 0;
    for token in 0..50 {
        let id = start(&mut leg, token, b"");
        let large = [&[0, 0, 0x10, 0, 0], &[0; 9_995][..]].concat();
        for said in heard(&mut leg, &[answer(id), data(id, &large)].concat()) {
            let text = "too many response messages at once";
            assert_eq!(said, end(token, Code::ResourceExhausted, text));
            ended += 1;
        }
    }
    assert_eq!(ended, 40);
    assert_eq!(leg.in_flight(), 10);
}

#[test]
fn streams_keep_no_large_buffers_between_messages() {
    let mut leg = leg(&Limits::default());
    for token in 0..20 {
        let id = start(&mut leg, token, b"");
        let large = message(&vec![0; 200_000]);
        let frames: Vec<u8> = large.chunks(16_384).flat_map(|piece| data(id, piece)).collect();
        assert_eq!(heard(&mut leg, &[answer(id), frames].concat()).len(), 1);
    }
    let kept: usize = leg
        .streams
        .above(0)
        .iter()
        .map(|id| leg.streams.get(*id).unwrap().partial.capacity())
        .sum();
    assert!(kept <= 20 * 4096, "{kept}");
}

#[test]
fn an_idle_connection_gives_its_buffers_back() {
    let mut leg = leg(&Limits::default());
    for token in 0..200 {
        start(&mut leg, token, &vec![0; 1000]);
    }
    leg.output().clear();
    for id in (1..400).step_by(2) {
        let large = message(&vec![0; 60_000]);
        let frames: Vec<u8> = large.chunks(16_384).flat_map(|piece| data(id, piece)).collect();
        heard(&mut leg, &[answer(id), frames, done(id)].concat());
    }
    leg.output().clear();
    heard(&mut leg, b"");
    assert_eq!(leg.in_flight(), 0);
    let bytes = leg.output.capacity()
        + leg.kept.capacity()
        + leg.partial.capacity()
        + leg.block.capacity()
        + leg.ended.capacity();
    assert!(bytes <= 3 * 1024 + 4096, "{bytes}");
}
