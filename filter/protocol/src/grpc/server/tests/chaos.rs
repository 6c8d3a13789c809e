//! Whatever a caller sends, and whenever it is answered: no panic, and the books stay right.

use proptest::prelude::*;

use super::script::*;
use crate::call::Code;
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::server::{Limits, ServerLeg};

#[derive(Clone, Debug)]
enum Deed {
    Bytes(Vec<u8>),
    Frame(u8, u8, u8, Vec<u8>),
    Head(u8),
    Call(u8, Vec<u8>),
    Widen(u8, u32),
    Respond(u8, u16),
    Send(u8, u16),
    Finish(u8),
    Refuse(u8),
    Drain,
}

fn deed() -> impl Strategy<Value = Deed> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let stream = || 0u8..40;
    prop_oneof![
        1 => bytes().prop_map(Deed::Bytes),
        6 => (0u8..12, any::<u8>(), stream(), bytes()).prop_map(|(k, f, s, b)| Deed::Frame(k, f, s, b)),
        6 => stream().prop_map(Deed::Head),
        6 => (stream(), bytes()).prop_map(|(s, b)| Deed::Call(s, b)),
        3 => (stream(), 0u32..5000).prop_map(|(s, n)| Deed::Widen(s, n)),
        5 => (stream(), 0u16..3000).prop_map(|(s, n)| Deed::Respond(s, n)),
        3 => (stream(), 0u16..3000).prop_map(|(s, n)| Deed::Send(s, n)),
        2 => stream().prop_map(Deed::Finish),
        1 => stream().prop_map(Deed::Refuse),
        1 => Just(Deed::Drain),
    ]
}

fn act(leg: &mut ServerLeg, deed: &Deed) {
    let find = |leg: &ServerLeg, stream: u8| leg.streams.find(stream.into());
    match deed {
        Deed::Bytes(bytes) => drop(hear(leg, bytes)),
        Deed::Frame(kind, flags, stream, load) => {
            let frame = raw(Kind::from_number(*kind), *flags, (*stream).into(), load);
            drop(hear(leg, &frame));
        }
        Deed::Head(stream) => drop(hear(leg, &head((*stream | 1).into()))),
        Deed::Call(stream, message) => drop(hear(leg, &call((*stream | 1).into(), message))),
        Deed::Widen(stream, by) => drop(hear(leg, &window_update((*stream).into(), *by))),
        Deed::Respond(stream, size) => {
            let Some(key) = find(leg, *stream) else { return };
            leg.respond(key, &[&vec![1; (*size).into()]]);
        }
        Deed::Send(stream, size) => {
            let Some(key) = find(leg, *stream) else { return };
            leg.send(key, &[&vec![2; (*size).into()]]);
        }
        Deed::Finish(stream) => {
            let Some(key) = find(leg, *stream) else { return };
            leg.finish(key, Code::Aborted, "chaos");
        }
        Deed::Refuse(stream) => {
            let Some(key) = find(leg, *stream) else { return };
            leg.refuse_stream(key);
        }
        Deed::Drain => leg.output().clear(),
    }
    audit(leg);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_books_stay_right(deeds in prop::collection::vec(deed(), 1..60)) {
        let limits = Limits {
            max_partial: 2000,
            max_unsent: 4000,
            max_header_block: 300,
            stream_window: 500,
            max_streams: 8,
            max_given_up: 20,
            max_idle_frames: 60,
            ..Limits::default()
        };
        let mut leg = leg(limits);
        for deed in &deeds {
            act(&mut leg, deed);
        }
        // What can be written is bounded by what was asked and answered.
        let most = deeds.len() * (3000 + 4 * 100) + 4000;
        prop_assert!(leg.output().len() <= most);
        let _ = hear(&mut leg, &raw(Kind::GoAway, 0, 0, &ErrorCode::NoError.number().to_be_bytes()));
        prop_assert!(leg.is_closed(), "a GOAWAY too short for one ends it all");
    }
}
