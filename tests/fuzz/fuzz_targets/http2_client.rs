//! The client leg against whatever an upstream may send, whatever the caller does meanwhile.
//!
//! The input is a script. A byte says what happens next: a call starts, is cancelled, a stream opens,
//! a message goes out on it, its client ends it, the bell rings, the output is drained, or the upstream sends. It sends raw bytes, or a frame whose head is
//! made right so that the fuzzer does not have to find lengths and stream numbers by itself. What
//! was sent arrives when the script says so, in pieces as long as it says.
//!
//! Looked for: panics, loops, a call that ends twice or never, output and memory beyond what the
//! input can explain.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshgate_filter::protocol::grpc::client::{ClientLeg, Event, Limits, StreamId};
use meshgate_filter::protocol::grpc::frame::{self, Head, Kind};
use meshgate_filter::protocol::grpc::hpack::{Part, PartKey};

/// The caller's side of a connection, with its own idea of which calls are alive.
struct Caller {
    leg: ClientLeg,
    calls: Vec<(StreamId, bool)>,
    /// Sent by the upstream and not arrived yet.
    wire: Vec<u8>,
    failed: bool,
}

impl Caller {
    fn new() -> Self {
        let limits = Limits {
            max_message: 4096,
            max_partial: 10_000,
            max_header_block: 512,
            max_continuations: 4,
            max_streams: 8,
            max_queued_calls: 4,
            max_queued_bytes: 4096,
            max_open_bytes: 1000,
            max_all_open_bytes: 2000,
            stream_window: 4096,
            connection_window: 65_535,
            max_idle_frames: 100,
        };
        Self { leg: ClientLeg::new(&limits), calls: Vec::new(), wire: Vec::new(), failed: false }
    }

    fn start(&mut self, length: usize) {
        let room = self.leg.has_room();
        let token = self.calls.len() as u32;
        let fields = [0x00, 1, b'n', 1, b'0' + (length / 300) as u8];
        let part = Part { key: PartKey((length / 300) as u32), fields: &fields };
        let started = self.leg.start(token, &[part], b"\x83\x86", &[&vec![0; length]]);
        assert_eq!(started.is_ok(), room);
        if let Ok(stream) = started {
            self.calls.push((stream, true));
        }
    }

    fn open(&mut self) {
        let room = self.leg.has_room();
        let token = self.calls.len() as u32;
        let opened = self.leg.open(token, &[], b"\x83\x86");
        assert_eq!(opened.is_ok(), room);
        if let Ok(stream) = opened {
            self.calls.push((stream, true));
        }
    }

    fn send(&mut self, which: usize, length: usize) {
        if let Some((stream, alive)) = self.calls.get(which) {
            let full = self.leg.is_full(*stream);
            let sent = self.leg.send(*stream, &[&vec![0; length]]);
            assert!(sent.is_err() || *alive && !full);
        }
    }

    fn half_close(&mut self, which: usize) {
        if let Some((stream, _)) = self.calls.get(which) {
            self.leg.half_close(*stream);
            assert!(self.leg.send(*stream, &[b"late"]).is_err());
        }
    }

    fn cancel(&mut self, which: usize) {
        if let Some((stream, alive)) = self.calls.get_mut(which) {
            self.leg.cancel(*stream);
            *alive = false;
        }
    }

    /// Lets up to `length` bytes of the wire arrive.
    fn hear(&mut self, length: usize) {
        let bytes: Vec<u8> = self.wire.drain(..length.min(self.wire.len())).collect();
        let mut input = &bytes[..];
        loop {
            match self.leg.poll(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Message { token, message, .. })) => {
                    assert!(self.calls[token as usize].1);
                    assert!(message.len() <= 4096);
                }
                Ok(Some(Event::End { token, trailers, .. })) => {
                    let alive = &mut self.calls[token as usize].1;
                    assert!(std::mem::replace(alive, false), "a call ended twice");
                    trailers.visit(|_, _| {}).expect("a block that was checked before");
                }
                Ok(Some(Event::BellAnswered | Event::GoingAway)) => {}
                Err(_) => assert!(!std::mem::replace(&mut self.failed, true), "two errors"),
            }
        }
        assert!(input.is_empty());
        let alive = self.calls.iter().filter(|(_, alive)| *alive).count();
        assert_eq!(self.leg.in_flight(), alive);
    }
}

fuzz_target!(|script: &[u8]| {
    let mut caller = Caller::new();
    let mut left = script;
    let mut drained = 0usize;
    while let Some((&what, rest)) = left.split_first() {
        left = rest;
        match what {
            0..=15 => caller.start(usize::from(what) * 300),
            16..=31 => caller.cancel(usize::from(what - 16)),
            32 => _ = caller.leg.ring(),
            33 => {
                drained += caller.leg.output().len();
                caller.leg.output().clear();
            }
            // SETTINGS, without which nothing else is heard, and an acknowledgement.
            34 => caller.wire.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]),
            35 => caller.wire.extend([0, 0, 0, 4, 1, 0, 0, 0, 0]),
            // What was sent arrives: all of it, or a piece.
            36 => caller.hear(usize::MAX),
            37..=67 => caller.hear(usize::from(what - 36)),
            68 => caller.open(),
            69..=71 => {
                let Some((&which, rest)) = left.split_first() else { break };
                left = rest;
                match what {
                    69 => caller.half_close(usize::from(which % 16)),
                    _ => caller.send(usize::from(which % 16), usize::from(which) * 10),
                }
            }
            // Raw bytes, up to 27.
            72..=99 => {
                let (bytes, rest) = left.split_at(usize::from(what - 72).min(left.len()));
                left = rest;
                caller.wire.extend(bytes);
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
                caller.wire.extend(head.bytes());
                caller.wire.extend(payload);
            }
        }
    }
    caller.hear(usize::MAX);
    caller.leg.upstream_closed();
    caller.hear(0);
    assert_eq!(caller.leg.in_flight(), 0);
    drained += caller.leg.output().len();
    // Each byte of script can start a call of at most 4500 bytes, or have a frame answered.
    assert!(drained <= 1000 + script.len() * (4500 + 4 * frame::HEAD_LENGTH));
});
