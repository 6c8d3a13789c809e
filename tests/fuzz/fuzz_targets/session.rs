//! The link to the companion and the sealing of frames, against whatever the other side may send.
//!
//! The input is a script. A byte says what happens next: a connection logs in, activates, goes,
//! time passes, the stream breaks, or the companion says something: raw bytes, or a message that
//! is made right so that the fuzzer does not have to find references by itself. What the script
//! leaves over is opened as a sealed frame.
//!
//! Looked for: panics, loops, a question that is answered twice or not in time, anything sent on
//! a stream that is not open, memory that nothing bounds, forged frames that open.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use meshgate_filter::companion::{
    Answer, Link, LinkConfig, LoginRequest, Outcome, Transmit,
};
use meshgate_filter::session::seal::{self, TrafficKey, TrafficKeys};
use meshgate_filter::session::{Hold, Mode};
use meshgate_filter::time::Moment;

const CONNECTIONS: u32 = 8;
const MAX_PENDING: usize = 4;

/// The host, the connections and what the companion may refer to.
struct World {
    link: Link,
    now: Moment,
    open: Option<u32>,
    next_token: u32,
    /// When the answer to a connection's question is due.
    due: BTreeMap<u32, Moment>,
    holds: BTreeMap<u32, Hold>,
    references: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let config = LinkConfig { max_pending: MAX_PENDING, ..LinkConfig::new("proxy", 1) };
        Self {
            link: Link::new(config),
            now: Moment::from_micros(0),
            open: None,
            next_token: 0,
            due: BTreeMap::new(),
            holds: BTreeMap::new(),
            references: Vec::new(),
        }
    }

    fn login(&mut self, connection: u32, mode: Mode) {
        let login = LoginRequest { mode, audience: "a", layout: "l", message: b"m", peer: "p" };
        if self.link.login(self.now, connection, login).is_ok() {
            let due = self.now.after(LinkConfig::ANSWER_WITHIN);
            assert_eq!(self.due.insert(connection, due), None);
        }
    }

    fn activate(&mut self, connection: u32) {
        let Some(hold) = self.holds.get(&connection) else { return };
        if !self.due.contains_key(&connection) {
            self.link.activate(self.now, connection, *hold);
            self.due.insert(connection, self.now.after(LinkConfig::ANSWER_WITHIN));
        }
    }

    fn forget(&mut self, connection: u32) {
        self.link.forget(connection);
        self.due.remove(&connection);
        self.holds.remove(&connection);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(due) = self.link.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.link.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn hear(&mut self, message: &[u8]) {
        if let Some(token) = self.open {
            self.link.stream_message(self.now, token, message);
        }
    }

    /// What the host does after every call into the link.
    fn settle(&mut self) {
        while let Some(transmit) = self.link.poll_transmit() {
            match transmit {
                Transmit::OpenStream => {
                    assert_eq!(self.open, None);
                    self.next_token += 1;
                    if self.next_token % 4 == 0 {
                        self.link.open_failed(self.now);
                    } else {
                        self.open = Some(self.next_token);
                        self.link.stream_opened(self.now, self.next_token);
                    }
                }
                Transmit::Send { token, message } => {
                    assert_eq!(self.open, Some(token), "sent on a stream that is not open");
                    self.references.extend(reference(&message));
                }
                Transmit::Cancel { token } => {
                    self.open = self.open.filter(|open| *open != token);
                }
            }
        }
        while let Some(Answer { connection, outcome }) = self.link.poll_answer() {
            match outcome {
                Outcome::Kick { .. } => continue,
                Outcome::LoginAccepted(accepted) => {
                    let hold = Hold { session: accepted.session, number: accepted.hold };
                    self.holds.insert(connection, hold);
                }
                Outcome::Activated => {}
                Outcome::LoginRefused { .. } | Outcome::ActivationRefused { .. } => {
                    self.holds.remove(&connection);
                }
            }
            assert!(self.due.remove(&connection).is_some(), "an answer to no question");
        }
        while self.link.poll_event().is_some() {}
        assert!(self.due.values().all(|due| *due >= self.now), "an answer is late");
        assert!(self.link.pending() <= CONNECTIONS as usize);
        assert!(self.link.sessions() <= CONNECTIONS as usize);
    }
}

/// The reference in a login or an activation: field 1 of field 2 or 3.
fn reference(message: &[u8]) -> Option<u64> {
    let (&kind, rest) = message.split_first()?;
    let rest = skip_varint(rest);
    let (&field, mut rest) = rest.split_first()?;
    if !matches!(kind, 0x12 | 0x1a) || field != 0x08 {
        return None;
    }
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        rest = left;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn skip_varint(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    bytes.get(len..).unwrap_or_default()
}

// Protobuf, as much of it as the companion's messages need.

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    varint(value, &mut out);
    out
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

fn message(kind: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    bytes(kind, &fields.concat())
}

fn converse(world: &mut World, left: &mut &[u8]) {
    while let Some((&what, rest)) = left.split_first() {
        *left = rest;
        let connection = u32::from(what) % CONNECTIONS;
        let pick = usize::from(what) % 16;
        let reference = world.references.iter().rev().nth(pick).copied().unwrap_or(pick as u64);
        let session = [what % 8; 16];
        match what {
            0..=15 => world.login(connection, if what < 8 { Mode::Ticket } else { Mode::Noise }),
            16..=31 => world.activate(connection),
            32..=47 => world.forget(connection),
            48..=63 => world.pass(Duration::from_millis(1 << pick)),
            64..=71 => {
                if let Some(token) = world.open.take() {
                    world.link.stream_closed(world.now, token, u32::from(what) % 17);
                }
            }
            // Late news of a stream that is gone.
            72..=79 => world.link.stream_closed(world.now, u32::from(what) - 70, 14),
            80..=95 => world.hear(&message(1, &[number(1, 1 + u64::from(what == 95))])),
            96..=127 => {
                let mut fields = vec![number(1, reference), bytes(2, &session), bytes(4, b"u")];
                if what >= 112 {
                    fields.extend([bytes(8, &[1; 32]), bytes(9, &[2; 32])]);
                }
                world.hear(&message(2, &fields));
            }
            128..=143 => world.hear(&message(3, &[number(1, reference), number(2, what.into())])),
            144..=159 => world.hear(&message(4, &[number(1, reference)])),
            160..=175 => world.hear(&message(4, &[number(1, reference), bytes(2, b"no")])),
            176..=191 => world.hear(&message(5, &[bytes(1, &session), bytes(2, b"bye")])),
            // Raw bytes.
            192..=254 => {
                let (raw, rest) = left.split_at(usize::from(what - 192).min(left.len()));
                *left = rest;
                world.hear(raw);
            }
            255 => return,
        }
        world.settle();
    }
}

/// Nobody without the key makes a frame that opens.
fn open(frame: &[u8]) {
    let key = |byte| TrafficKey::from_slice(&[byte; 32]).unwrap();
    let keys = TrafficKeys { client_to_server: key(1), server_to_client: key(2) };
    let (_, mut opener) = seal::server_side(&keys);
    let (header, body) = frame.split_at(frame.len().min(8));
    let mut body = body.to_vec();
    assert!(opener.open(&[header], &mut body).is_err());
    assert_eq!(body, frame[header.len()..], "left as it was");
}

fuzz_target!(|script: &[u8]| {
    let mut world = World::new();
    let mut left = script;
    converse(&mut world, &mut left);
    open(left);
    world.pass(LinkConfig::ANSWER_WITHIN);
    world.link.handle_timeout(world.now);
    world.settle();
    assert!(world.due.is_empty(), "a question without an answer");
    assert_eq!(world.link.pending(), 0);
});
