//! In which order things arrive at a client, whatever happens when: what the README promises.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::companion::push::{Push, PushCommand};

const CHAT: u64 = 1300;
const CHATTED: u64 = 1301;
const SEND: u64 = 1302;
const HEARTBEAT: u64 = 3;
/// Streams that are open from the beginning, with the sequences 10, 11, ….
const STREAMS: u32 = 3;

#[derive(Clone, Debug)]
enum Act {
    /// The service sends the next message of a stream.
    Message(u32),
    /// The client calls, and is answered with whatever comes next from the service.
    Call,
    Beat,
    Push,
    /// The client sends the next message of a stream.
    Send(u32),
    /// The bell is answered.
    Acknowledge,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..STREAMS).prop_map(Act::Message),
        2 => Just(Act::Call),
        2 => Just(Act::Beat),
        4 => Just(Act::Push),
        2 => (0..STREAMS).prop_map(Act::Send),
        2 => Just(Act::Acknowledge),
    ]
}

fn message(stream: u32, number: u32) -> Vec<u8> {
    let body = number.to_be_bytes();
    raw(Kind::Data, 0, stream, &[&[0, 0, 0, 0, 4], &body[..]].concat())
}

/// A connection with its streams open, the answers to which have begun.
fn open() -> Wire {
    let mut wire = Wire::ticket();
    wire.log_in();
    for n in 0..STREAMS {
        wire.client(&request(CHAT, 10 + u64::from(n), b""));
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        wire.service(&headers(0, 1 + 2 * n, &head));
    }
    wire.sent();
    wire
}

fn push(wire: &mut Wire, number: u32) {
    let push = Push::new(PushCommand::Number(NOTICE as i64), number.to_be_bytes().to_vec());
    wire.worker.link.begin_push(number.into(), push, 3);
    let delivery = wire.worker.link.poll_push().unwrap();
    wire.bridge.handle_push(wire.now, &delivery, &mut wire.worker);
    wire.settle();
}

/// Answers the bell if it was rung.
fn acknowledge(wire: &mut Wire) {
    if wire.bridge.bell.deadline().is_some() {
        wire.service(&acknowledged());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What the filter takes first it says first, so that each of the promises holds: messages of a
    /// stream, pushes, and a push behind what had been said.
    #[test]
    fn a_client_hears_all_in_the_order_in_which_the_filter_took_it(acts in vec(act(), 1..80)) {
        let mut wire = open();
        let mut expected = Vec::new();
        let mut said = vec![Vec::new(); STREAMS as usize];
        let mut calls = 0;
        for (number, act) in (0u32..).zip(acts) {
            let body = number.to_be_bytes().to_vec();
            match act {
                Act::Message(n) => {
                    expected.push((CHATTED, 10 + u64::from(n), body));
                    wire.service(&message(1 + 2 * n, number));
                }
                Act::Call => {
                    let sequence = 1000 + u64::from(number);
                    wire.client(&request(ECHO, sequence, &body));
                    expected.push((ECHO, sequence, body.clone()));
                    wire.service(&reply(1 + 2 * (STREAMS + calls), &body));
                    calls += 1;
                }
                Act::Beat => {
                    let sequence = 1000 + u64::from(number);
                    expected.push((HEARTBEAT, sequence, body.clone()));
                    wire.client(&request(HEARTBEAT, sequence, &body));
                }
                Act::Push => {
                    expected.push((NOTICE, 0, body));
                    push(&mut wire, number);
                }
                Act::Send(n) => {
                    said[n as usize].extend([&[0, 0, 0, 0, 4], &body[..]].concat());
                    wire.client(&request(SEND, 10 + u64::from(n), &body));
                }
                Act::Acknowledge => acknowledge(&mut wire),
            }
        }
        acknowledge(&mut wire);
        let heard = wire.heard().into_iter();
        let heard: Vec<_> =
            heard.map(|(command, sequence, _, _, body)| (command, sequence, body)).collect();
        prop_assert_eq!(heard, expected);
        let sent = wire.sent();
        for (n, said) in (0..STREAMS).zip(said) {
            let data = |frame: &&(Kind, u8, u32, Vec<u8>)| frame.0 == Kind::Data && frame.2 == 1 + 2 * n;
            let on: Vec<u8> = sent.iter().filter(data).flat_map(|frame| frame.3.clone()).collect();
            prop_assert_eq!(on, said);
        }
    }
}
