//! Random upstreams and random callers: nothing panics, memory stays within its limits, and each
//! call that is not cancelled ends exactly once.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::script::*;
use crate::grpc::client::{ClientLeg, Limits, SendError, StreamId};
use crate::grpc::frame::{Kind, MAX_STREAM};
use crate::grpc::reason::ErrorCode;
use crate::grpc::settings::Setting;

#[derive(Clone, Debug)]
enum Act {
    Hear(Vec<u8>),
    Start(usize),
    Open,
    Send(u32, usize),
    HalfClose(u32),
    Cancel(u32),
    Ring,
    Drain,
}

fn limits() -> Limits {
    Limits {
        max_message: 1000,
        max_partial: 3000,
        max_header_block: 300,
        max_continuations: 4,
        max_streams: 6,
        max_queued_calls: 4,
        max_queued_bytes: 2000,
        max_open_bytes: 500,
        max_all_open_bytes: 1200,
        stream_window: 600,
        connection_window: 70_000,
        max_idle_frames: 300,
    }
}

/// Streams that the caller may have opened, mostly.
fn stream() -> impl Strategy<Value = u32> {
    prop_oneof![20 => (0u32..20).prop_map(|n| 2 * n + 1), 1 => 0u32..60, 1 => Just(MAX_STREAM)]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => Just(END_HEADERS),
        4 => Just(END_HEADERS | END_STREAM),
        2 => Just(0),
        2 => Just(END_STREAM),
        1 => any::<u8>(),
    ]
}

fn fields() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(block(&[(":status", "200"), ("content-type", "application/grpc")])),
        4 => Just(block(&[("grpc-status", "0")])),
        1 => Just(block(&[("grpc-status", "3"), ("grpc-message", "%41%ff%")])),
        1 => Just(block(&[(":status", "503")])),
        1 => (0u32..300).prop_map(|n| block(&[(":status", "200"), ("content-length", &n.to_string())])),
        1 => Just(block(&[(":status", "100")])),
        1 => Just(vec![0x88; 200]),
        1 => vec(any::<u8>(), 0..400),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..60).prop_map(|bytes| message(&bytes)),
        1 => (0usize..1200).prop_map(|length| message(&vec![1; length])),
        2 => (0usize..1000, 0usize..900).prop_map(|(length, cut)| {
            let mut bytes = message(&vec![2; length]);
            bytes.truncate(cut);
            bytes
        }),
        1 => vec(any::<u8>(), 0..30),
        1 => Just(Vec::new()),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    prop_oneof![
        (0u32..8).prop_map(Setting::MaxConcurrentStreams),
        (0u32..3000).prop_map(Setting::InitialWindowSize),
        (16_384u32..20_000).prop_map(Setting::MaxFrameSize),
        Just(Setting::HeaderTableSize(0)),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (stream(), flags(), fields())
            .prop_map(|(stream, flags, block)| raw(Kind::Headers, flags, stream, &block)),
        6 => (stream(), payload()).prop_map(|(stream, payload)| data(stream, &payload)),
        2 => (stream(), flags(), payload())
            .prop_map(|(stream, flags, payload)| raw(Kind::Data, flags, stream, &payload)),
        1 => (stream(), flags(), fields())
            .prop_map(|(stream, flags, block)| raw(Kind::Continuation, flags, stream, &block)),
        1 => vec(setting(), 0..3).prop_map(|entries| settings(&entries)),
        1 => Just(settings_ack()),
        1 => Just(ping(0)),
        1 => (stream(), 0u32..20)
            .prop_map(|(stream, code)| reset(stream, ErrorCode::from_number(code))),
        2 => (prop_oneof![Just(0), stream()], 0u32..5000)
            .prop_map(|(stream, increment)| window_update(stream, increment)),
        1 => (stream(), any::<u32>())
            .prop_map(|(stream, increment)| window_update(stream, increment)),
        1 => stream().prop_map(|last| go_away(last, ErrorCode::NoError, "x")),
        1 => (any::<u8>(), any::<u8>(), stream(), vec(any::<u8>(), 0..20)).prop_map(
            |(kind, flags, stream, payload)| raw(Kind::from_number(kind), flags, stream, &payload)
        ),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => frame().prop_map(Act::Hear),
        1 => vec(frame(), 1..6).prop_map(|frames| Act::Hear(frames.concat())),
        1 => (frame(), any::<prop::sample::Index>())
            .prop_map(|(frame, cut)| Act::Hear(frame[..cut.index(frame.len())].to_vec())),
        6 => prop_oneof![4 => 0usize..100, 1 => 0usize..3000].prop_map(Act::Start),
        2 => Just(Act::Open),
        5 => (0u32..12, prop_oneof![4 => 0usize..100, 1 => 0usize..3000])
            .prop_map(|(n, length)| Act::Send(2 * n + 1, length)),
        1 => (0u32..12).prop_map(|n| Act::HalfClose(2 * n + 1)),
        1 => (0u32..30).prop_map(|n| Act::Cancel(2 * n + 1)),
        1 => Just(Act::Ring),
        2 => Just(Act::Drain),
    ]
}

/// What the caller believes, kept beside the leg.
#[derive(Default)]
struct Books {
    alive: BTreeSet<u32>,
    /// Of those alive, whose requests are open.
    open: BTreeSet<u32>,
    started: u32,
    ringing: bool,
    going_away: bool,
}

impl Books {
    fn note(&mut self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Message(token, message) => {
                    assert!(self.alive.contains(&token), "message of a call that is over");
                    assert!(message.len() <= 1000);
                }
                Said::End(token, ..) => assert!(self.alive.remove(&token), "ended twice"),
                Said::Bell => assert!(std::mem::take(&mut self.ringing), "a bell nobody rang"),
                Said::GoingAway => assert!(!std::mem::replace(&mut self.going_away, true)),
            }
        }
    }

    fn act(&mut self, leg: &mut ClientLeg, act: Act) {
        match act {
            Act::Hear(bytes) => {
                let (said, _) = hear(leg, &bytes);
                self.note(said);
            }
            Act::Start(length) => {
                let room = leg.has_room();
                let token = self.started;
                let started = leg.start(token, &[], b"\x83", &[&vec![0; length]]);
                assert_eq!(started.is_ok(), room, "has_room tells the truth");
                if let Ok(id) = started {
                    assert_eq!(id.number(), 2 * token + 1);
                    self.alive.insert(token);
                    self.started += 1;
                }
            }
            Act::Open => {
                let room = leg.has_room();
                let opened = leg.open(self.started, &[], b"\x83");
                assert_eq!(opened.is_ok(), room, "has_room tells the truth");
                if let Ok(id) = opened {
                    assert_eq!(id.number(), 2 * self.started + 1);
                    self.alive.insert(self.started);
                    self.open.insert(self.started);
                    self.started += 1;
                }
            }
            Act::Send(id, length) => {
                let full = leg.is_full(StreamId(id));
                let sent = leg.send(StreamId(id), &[&vec![0; length]]);
                let is_open = self.open.contains(&(id / 2)) && self.alive.contains(&(id / 2));
                assert_eq!(sent.is_ok(), is_open && !full);
                if full && is_open {
                    assert_eq!(sent, Err(SendError::Full), "is_full tells the truth");
                }
            }
            Act::HalfClose(id) => {
                leg.half_close(StreamId(id));
                self.open.remove(&(id / 2));
            }
            Act::Cancel(id) => {
                leg.cancel(StreamId(id));
                self.alive.remove(&(id / 2));
            }
            Act::Ring => {
                let rung = leg.ring();
                assert_eq!(rung, !self.ringing && !leg.is_closed());
                self.ringing |= rung;
            }
            Act::Drain => leg.output().clear(),
        }
        if leg.is_closed() {
            self.ringing = false;
        }
        assert_eq!(leg.in_flight(), self.alive.len());
        audit(leg);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_random_upstream_cannot_break_the_leg(acts in vec(act(), 0..120)) {
        let mut leg = ClientLeg::new(&limits());
        let mut books = Books::default();
        let opening = [settings(&[Setting::MaxConcurrentStreams(4)]), settings_ack()].concat();
        books.act(&mut leg, Act::Hear(opening));
        for act in acts {
            books.act(&mut leg, act);
        }
        leg.upstream_closed();
        let (said, _) = hear(&mut leg, b"");
        books.note(said);
        prop_assert!(books.alive.is_empty());
        prop_assert_eq!(leg.in_flight(), 0);
    }

    #[test]
    fn a_random_stream_of_frames_is_the_same_cut_anywhere(
        frames in vec(frame(), 1..40),
        cuts in vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let bytes = [settings(&[]), settings_ack()].into_iter().chain(frames).collect::<Vec<_>>();
        let bytes = bytes.concat();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        places.sort_unstable();
        let caller = || {
            let mut leg = ClientLeg::new(&limits());
            for token in 0..8 {
                start(&mut leg, token, b"request");
            }
            leg
        };
        let mut whole = caller();
        let expected = hear(&mut whole, &bytes);
        let mut cut = caller();
        let mut said = Vec::new();
        let mut error = None;
        let mut from = 0;
        for place in places.into_iter().chain([bytes.len()]) {
            let (more, wrong) = hear(&mut cut, &bytes[from..place]);
            said.extend(more);
            error = error.or(wrong);
            from = place;
        }
        prop_assert_eq!((said, error), expected);
        prop_assert_eq!(cut.output(), whole.output());
    }
}
