//! The server leg against whatever a caller may send, whatever it is answered meanwhile.
//!
//! The input is a script. A byte says what happens next: a call is answered, the output is drained,
//! or the caller sends. It sends raw bytes, or a frame whose head is made right so that the fuzzer
//! does not have to find lengths and stream numbers by itself, or the head of a good request. What
//! was sent arrives when the script says so, in pieces as long as it says.
//!
//! Looked for: panics, loops, a call that ends twice or is asked after its end, output and memory
//! beyond what the input can explain.
#![no_main]

use std::collections::BTreeMap;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use meshgate_filter::call::Code;
use meshgate_filter::protocol::grpc::frame::{self, Head, Kind};
use meshgate_filter::protocol::grpc::server::{Event, Limits, ServerLeg, StreamKey};

/// The longest request that is accepted, and the longest answer.
const LONGEST: usize = 4096;

/// `:method POST`, `:scheme http`, `:path /`, `content-type application/grpc`.
const REQUEST: &[u8] = b"\x83\x86\x84\x0f\x10\x10application/grpc";

/// The server's side of a connection, with its own idea of which calls are alive.
struct Server {
    leg: ServerLeg,
    /// By token; true once the request is complete.
    calls: BTreeMap<u32, (StreamKey, bool)>,
    tokens: u32,
    /// Sent by the caller and not arrived yet.
    wire: Vec<u8>,
    failed: bool,
}

impl Server {
    fn new() -> Self {
        let limits = Limits {
            max_streams: 8,
            max_early_streams: 12,
            max_partial: 10_000,
            max_header_block: 512,
            max_continuations: 4,
            max_unsent: 10_000,
            stream_window: 4096,
            connection_window: 65_535,
            max_idle_frames: 100,
            max_given_up: 20,
            metadata: ["x-zone".into()].into(),
        };
        let mut wire = frame::CLIENT_PREFACE.to_vec();
        wire.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let leg = ServerLeg::new(&Rc::new(limits.valid()));
        Self { leg, calls: BTreeMap::new(), tokens: 0, wire, failed: false }
    }

    /// Lets up to `length` bytes of the wire arrive.
    fn hear(&mut self, length: usize) {
        let bytes: Vec<u8> = self.wire.drain(..length.min(self.wire.len())).collect();
        let mut input = &bytes[..];
        loop {
            let begun = match self.leg.poll(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Begin { stream, path, metadata, .. })) => {
                    assert!(path.len() <= 512 && metadata.bytes().len() <= 1024);
                    stream
                }
                Ok(Some(Event::Request { token, message, .. })) => {
                    let call = self.calls.get_mut(&token).expect("a call that lives");
                    assert!(!std::mem::replace(&mut call.1, true), "a request came twice");
                    assert!(message.len() <= LONGEST);
                    continue;
                }
                Ok(Some(Event::Over { token, .. })) => {
                    assert!(self.calls.remove(&token).is_some(), "a call ended twice");
                    continue;
                }
                Err(_) => {
                    assert!(!std::mem::replace(&mut self.failed, true), "two errors");
                    self.calls.clear();
                    continue;
                }
            };
            // Most calls are accepted, some are answered at once, some are forgotten.
            match begun.number() % 16 {
                1 => self.leg.finish(begun, Code::Unimplemented, "no such method"),
                3 => {}
                _ => {
                    self.leg.accept(begun, self.tokens, LONGEST);
                    self.calls.insert(self.tokens, (begun, false));
                    self.tokens += 1;
                }
            }
        }
        assert!(input.is_empty());
        assert!(self.leg.open_streams() <= 12);
    }

    /// Answers one of the calls, in one of the ways.
    fn answer(&mut self, which: u8, size: usize) {
        let Some(token) = self.calls.keys().nth(usize::from(which) % 8).copied() else { return };
        let Some((stream, _)) = self.calls.get(&token).copied() else { return };
        let message = vec![0; size.min(LONGEST)];
        let over = match which / 8 {
            0 => {
                self.leg.respond(stream, &[&message]);
                true
            }
            1 => !self.leg.send(stream, &[&message]),
            2 => {
                self.leg.finish(stream, Code::Aborted, "fuzzed");
                true
            }
            _ => {
                self.leg.refuse_stream(stream);
                true
            }
        };
        if over {
            self.calls.remove(&token);
        }
    }
}

fuzz_target!(|script: &[u8]| {
    let mut server = Server::new();
    let mut left = script;
    let mut drained = 0usize;
    while let Some((&what, rest)) = left.split_first() {
        left = rest;
        match what {
            0..=31 => {
                let size = left.first().copied().unwrap_or_default();
                server.answer(what, usize::from(size) * 20);
            }
            32 => {
                drained += server.leg.output().len();
                server.leg.output().clear();
            }
            33 => server.wire.extend([0, 0, 0, 4, 1, 0, 0, 0, 0]),
            // What was sent arrives: all of it, or a piece.
            34 => server.hear(usize::MAX),
            35..=66 => server.hear(usize::from(what - 34)),
            // The head of a request.
            67..=82 => {
                let stream = u32::from(what - 67) * 2 + 1;
                let length = REQUEST.len() as u32;
                let head = Head { length, kind: Kind::Headers, flags: 4, stream };
                server.wire.extend(head.bytes());
                server.wire.extend(REQUEST);
            }
            // Raw bytes, up to 15.
            83..=98 => {
                let (bytes, rest) = left.split_at(usize::from(what - 83).min(left.len()));
                left = rest;
                server.wire.extend(bytes);
            }
            // A frame: kind, flags, stream, payload length; the payload cut where the script ends.
            _ => {
                let Some((&[flags, stream, length], rest)) = left.split_first_chunk() else {
                    break;
                };
                let kind = Kind::from_number(what % 12);
                let on_connection = matches!(kind, Kind::Settings | Kind::Ping | Kind::GoAway);
                let stream = if on_connection { 0 } else { u32::from(stream & 31) };
                let length = usize::from(length).min(rest.len());
                let (payload, rest) = rest.split_at(length);
                left = rest;
                let head = Head { length: length as u32, kind, flags, stream };
                server.wire.extend(head.bytes());
                server.wire.extend(payload);
            }
        }
    }
    server.hear(usize::MAX);
    drained += server.leg.output().len();
    // Each byte of script can have a call answered, or a frame.
    assert!(drained <= 2000 + script.len() * (LONGEST + 20 * frame::HEAD_LENGTH));
});
