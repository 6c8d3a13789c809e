//! Callers that want the connection, or its memory, for nothing.

use super::script::*;
use crate::call::Code;
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::server::{Limits, ServerLeg};

/// Sends `flood` until the connection ends; how often.
fn floods(leg: &mut ServerLeg, mut flood: impl FnMut(u32) -> Vec<u8>) -> (u32, ErrorCode) {
    for n in 0..100_000 {
        if let (_, Some(error)) = hear(leg, &flood(n)) {
            return (n, error.code);
        }
    }
    panic!("the flood goes on");
}

#[test]
fn floods_of_frames_that_bring_nothing_forward_end_the_connection() {
    type Flood = fn(u32) -> Vec<u8>;
    let cases: [(&str, Flood, u32); 6] = [
        ("PING", |_| raw(Kind::Ping, 0, 0, &[0; 8]), 100),
        ("SETTINGS", |_| settings(&[]), 6),
        ("PRIORITY", |_| raw(Kind::Priority, 0, 1, &[0; 5]), 100),
        ("WINDOW_UPDATE", |_| window_update(0, 1), 100),
        ("unknown", |_| raw(Kind::Unknown(200), 0, 0, b"x"), 100),
        ("empty DATA", |n| if n == 0 { head(1) } else { data(1, b"") }, 101),
    ];
    for (what, flood, times) in cases {
        let mut leg = leg(Limits { max_idle_frames: 100, ..Limits::default() });
        let (sent, code) = floods(&mut leg, flood);
        assert_eq!((sent, code), (times, ErrorCode::EnhanceYourCalm), "{what}");
        // Each was answered by no more than itself.
        assert!(leg.output().len() < 100 * 20, "{what}");
    }
}

#[test]
fn keep_alives_of_a_caller_that_reads_never_add_up() {
    let mut leg = leg(Limits { max_idle_frames: 100, ..Limits::default() });
    let mut asked = 0;
    for _ in 0..10_000 {
        heard(&mut leg, &raw(Kind::Ping, 0, 0, &[0; 8]));
        for (head, _) in written(&mut leg) {
            if head.kind == Kind::Settings {
                asked += 1;
                heard(&mut leg, &settings_ack());
            }
        }
    }
    assert!((150..250).contains(&asked), "{asked}");
}

#[test]
fn calls_that_are_opened_and_given_up_without_end_end_the_connection() {
    let mut leg = leg(Limits { max_given_up: 50, ..Limits::default() });
    let (sent, code) =
        floods(&mut leg, |n| [head(2 * n + 1), reset(2 * n + 1, ErrorCode::Cancel)].concat());
    assert_eq!((sent, code), (50, ErrorCode::EnhanceYourCalm));
}

#[test]
fn a_caller_that_hedges_its_calls_may_give_every_other_one_up() {
    let mut leg = leg(Limits { max_given_up: 50, ..Limits::default() });
    for n in 0..1000 {
        let (kept, hedge) = (4 * n + 1, 4 * n + 3);
        heard(&mut leg, &[call(kept, b""), call(hedge, b"")].concat());
        heard(&mut leg, &reset(hedge, ErrorCode::Cancel));
        let stream = key(&leg, kept);
        leg.respond(stream, &[]);
        leg.output().clear();
    }
}

#[test]
fn malformed_requests_without_end_end_the_connection() {
    let mut leg = leg(Limits { max_given_up: 50, ..Limits::default() });
    let (sent, code) = floods(&mut leg, |n| headers(2 * n + 1, &[("X", "y")]));
    assert_eq!((sent, code), (50, ErrorCode::EnhanceYourCalm));
}

#[test]
fn header_blocks_without_end_end_the_connection() {
    let mut leg = leg(Limits { max_continuations: 8, ..Limits::default() });
    let first = raw(Kind::Headers, 0, 1, b"");
    let more = |_| raw(Kind::Continuation, 0, 1, b"");
    heard(&mut leg, &first);
    assert_eq!(floods(&mut leg, more), (8, ErrorCode::EnhanceYourCalm));

    let mut leg = super::script::leg(Limits { max_header_block: 500, ..Limits::default() });
    heard(&mut leg, &first);
    let more = |_| raw(Kind::Continuation, 0, 1, &[0x82; 300]);
    assert_eq!(floods(&mut leg, more), (6, ErrorCode::EnhanceYourCalm));
}

#[test]
fn one_byte_that_stands_for_a_large_field_does_not_grow_what_is_kept() {
    let mut leg = ServerLeg::new(&std::rc::Rc::new(Limits {
        metadata: ["x-large".into()].into(),
        max_header_block: 8000,
        ..Limits::default()
    }));
    let value = "v".repeat(3000);
    let mut bomb = block(&FIELDS);
    bomb.extend(b"\x40\x07x-large\x7f\xb9\x16");
    bomb.extend(value.as_bytes());
    bomb.extend([0xbe; 5000]);
    let bytes = [
        &crate::grpc::frame::CLIENT_PREFACE[..],
        &settings(&[]),
        &raw(Kind::Headers, END_HEADERS, 1, &bomb),
    ]
    .concat();
    assert_eq!(heard(&mut leg, &bytes), []);
    assert!(leg.output().len() < 1000);
    let frames = written(&mut leg);
    assert_eq!(Ear::new().response(&frames, 1).fields[2], "grpc-status: 8");
}

#[test]
fn more_streams_than_were_announced_are_refused_once_the_caller_knows() {
    let limits = Limits { max_streams: 3, max_early_streams: 5, ..Limits::default() };
    let mut leg = ServerLeg::new(&std::rc::Rc::new(limits.clone().valid()));
    let mut bytes = [&crate::grpc::frame::CLIENT_PREFACE[..], &settings(&[])].concat();
    for stream in [1, 3, 5, 7, 9, 11] {
        bytes.extend(head(stream));
    }
    assert_eq!(heard(&mut leg, &bytes).len(), 5, "more than it will know, up to a bound");
    assert_eq!(resets(&mut leg), [(11, ErrorCode::RefusedStream)]);
    let bytes = [settings_ack(), head(13)].concat();
    assert_eq!(heard(&mut leg, &bytes), []);
    assert_eq!(resets(&mut leg), [(13, ErrorCode::RefusedStream)]);
    for stream in [1, 3, 5] {
        let key = key(&leg, stream);
        leg.finish(key, Code::Internal, "");
    }
    assert_eq!(heard(&mut leg, &head(15)), [begun(15)]);
}

#[test]
fn half_sent_messages_do_not_add_up() {
    let mut leg = leg(Limits { max_partial: 2000, ..Limits::default() });
    let mut bytes = Vec::new();
    for stream in [1, 3, 5] {
        bytes.extend([head(stream), data(stream, &framed(&[0; 900])[..800])].concat());
    }
    let said = heard(&mut leg, &bytes);
    assert_eq!(said.last(), Some(&Said::Over(5, Code::ResourceExhausted)));
    let stream = key(&leg, 1);
    leg.finish(stream, Code::Internal, "");
    audit(&mut leg);
}
