//! A client, a bridge and a service on a simulated clock. [`Wire`] does what Envoy and the host
//! do with a bridge's outputs; the service's side is written frame by frame.

mod arrivals;
mod client_streams;
mod ends;
mod leaving;
mod logins;
mod ordered;
mod pressure;
mod pushes;
mod requests;
mod sealed;
mod streams;

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::protocol::grpc::frame::flag::{ACK, END_HEADERS, END_STREAM};
use crate::protocol::grpc::frame::{CLIENT_PREFACE, Head, Kind, write_head};
use crate::protocol::grpc::hpack::encoder::encode_shortest;
use crate::protocol::layout::{Command, Decoded, Request};
use crate::session::{Accepted, SessionId};

const LOGIN: u64 = 1;
const GOODBYE: u64 = 2;
const ECHO: u64 = 1100;
const SAY: u64 = 1003;
const SLOW: u64 = 1102;
/// May be pushed.
const NOTICE: u64 = 1299;
const UNKNOWN: u64 = 9999;

/// What the client or the service saw of a frame, in short.
type Seen = (u64, u64, i64, &'static str, Vec<u8>);

struct Wire {
    now: Moment,
    worker: Worker,
    bridge: Bridge,
    /// The client's bytes in Envoy's buffer.
    held: Vec<u8>,
    /// The client half-closed, and the half-close has gone on to the service.
    ended: bool,
    finished: bool,
    clusters: Vec<String>,
    to_service: Vec<u8>,
    to_client: Vec<u8>,
}

fn terms(session: Value, upstream: Value) -> Rc<Terms> {
    compile(document(session, upstream))
}

/// Without logins, and with clients that may be silent for half a minute.
fn with_silence() -> Rc<Terms> {
    let session = json!({"mode": "none", "goodbye": {"command": GOODBYE}});
    let mut document = document(session, json!({"authority": "game"}));
    document["heartbeat"]["timeout"] = json!("30s");
    compile(document)
}

fn compile(document: Value) -> Rc<Terms> {
    Rc::new(Terms::new(Config::parse(document.to_string().as_bytes()).unwrap()))
}

fn document(session: Value, upstream: Value) -> Value {
    let mut document = json!({
        "layout": {
            "name": "game",
            "header": [
                {"name": "magic", "type": "u16", "role": {"constant": "0x4D47"}},
                {"name": "flags", "type": "u8", "role": {"flags":
                    {"reply": 0, "one_way": 1, "push": 2, "error": 3}}},
                {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
                {"name": "command", "type": "u32", "role": "command"},
                {"name": "sequence", "type": "u32", "role": "sequence"},
                {"name": "status", "type": "u16", "role": "status"}
            ]
        },
        "session": session,
        "upstream": upstream,
        "defaults": {"deadline": "2s"},
        "commands": [
            {"command": SAY, "method": "/demo.v1.Hall/Say", "kind": "one_way"},
            {"command": ECHO, "method": "/demo.v1.Echo/Echo"},
            {"command": 1200, "method": "/demo.v1.Hall/Watch", "kind": "server_stream",
             "push": 1201},
            {"command": 1300, "method": "/demo.v1.Hall/Chat", "kind": "bidi_stream", "push": 1301,
             "send": 1302, "close": 1303, "stream_idle": "30s"},
            {"command": 1310, "method": "/demo.v1.Echo/Gather", "kind": "client_stream",
             "send": 1302, "close": 1303, "codec": "bytes"},
            {"command": 1320, "method": "/demo.v1.Echo/Gather", "kind": "client_stream",
             "send": 1302, "close": 1303, "when_full": "pause", "deadline": "60s"},
            {"command": 1202, "method": "/demo.v1.Hall/Watch", "kind": "server_stream",
             "push": 1201, "codec": "bytes", "deadline": "60s"}
        ],
        "heartbeat": {"command": 3},
        "cancel": {"command": 4},
        "statuses": {"error_text": true},
        "identity": {"traceparent": "generate"}
    });
    if document["session"]["mode"] != "none" {
        document["push"] = json!({"commands": [NOTICE], "ranges": [{"from": 1300, "to": 1310}]});
        document["companion"] = json!({"cluster": "companion"});
    }
    document
}

/// A layout without sequence numbers, and with `one_way` requests answered if asked for.
fn ordered(limits: Value, one_way: bool) -> Rc<Terms> {
    let document = json!({
        "layout": {
            "name": "ordered",
            "header": [
                {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
                {"name": "flags", "type": "u8", "role": {"flags":
                    {"reply": 0, "one_way": 1, "push": 2, "error": 3}}},
                {"name": "command", "type": "u32", "role": "command"},
                {"name": "status", "type": "u16", "role": "status"}
            ],
            "correlation": "order",
            "reply": {"one_way": one_way}
        },
        "session": {"mode": "none", "goodbye": {"command": GOODBYE}},
        "upstream": {"authority": "game"},
        "commands": [
            {"command": SAY, "method": "/demo.v1.Hall/Say", "kind": "one_way"},
            {"command": ECHO, "method": "/demo.v1.Echo/Echo", "deadline": "2s"},
            {"from": SLOW, "to": SLOW, "method": "/demo.v1.Echo/Slow", "deadline": "60s"}
        ],
        "limits": limits,
        "statuses": {"error_text": true}
    });
    compile(document)
}

impl Wire {
    fn new(terms: &Rc<Terms>) -> Self {
        let mut worker = Worker::new(terms, 7, "proxy".into());
        let now = Moment::from_micros(1_000_000);
        let peer = "192.0.2.1:4000".to_owned();
        Self {
            now,
            bridge: Bridge::new(3, Rc::clone(terms), now, peer, &mut worker),
            worker,
            held: Vec::new(),
            ended: false,
            finished: false,
            clusters: Vec::new(),
            to_service: Vec::new(),
            to_client: Vec::new(),
        }
    }

    /// Without logins.
    fn direct() -> Self {
        let session = json!({"mode": "none", "goodbye": {"command": GOODBYE}});
        Self::new(&terms(session, json!({"authority": "game"})))
    }

    /// The same, with the HTTP/2 connection's opening already exchanged.
    fn warm() -> Self {
        let mut wire = Self::direct();
        wire.client(&request(ECHO, 1, b"first"));
        wire.service(&[opening(), reply(1, b"first")].concat());
        wire.to_service.clear();
        wire.to_client.clear();
        wire
    }

    fn ticket() -> Self {
        Self::ticket_with(json!({"authority": "game", "connect": "after_login",
            "cluster": "game", "refusal_cluster": "refusals"}))
    }

    fn ticket_with(upstream: Value) -> Self {
        let login = json!({"command": LOGIN});
        let session = json!({"mode": "ticket", "audience": "demo", "trusted": true,
            "login": login, "goodbye": {"command": GOODBYE}});
        Self::new(&terms(session, upstream))
    }

    fn client(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.take_in();
    }

    fn half_close(&mut self) {
        self.ended = true;
        self.take_in();
    }

    fn take_in(&mut self) {
        let end = self.ended;
        let taken = self.bridge.handle_downstream(self.now, &self.held, end, &mut self.worker);
        let resumed = self.bridge.wants_resume();
        let output = self.bridge.upstream_output();
        if output.is_empty() && !resumed {
            self.held.splice(..taken, self.bridge.take_rest());
            return;
        }
        assert_eq!(taken, self.held.len(), "what goes upstream goes through the same buffer");
        assert!(!self.finished, "nothing follows the end");
        self.held.clear();
        self.to_service.extend_from_slice(output);
        self.finished = self.ended;
        self.clusters.extend(self.bridge.take_cluster().map(String::from));
        self.bridge.upstream_output_sent(&mut self.worker);
        if self.bridge.holds_rest() {
            self.take_in();
        }
    }

    fn service(&mut self, bytes: &[u8]) {
        self.upstream(bytes, false);
    }

    fn upstream(&mut self, bytes: &[u8], end: bool) {
        self.bridge.handle_upstream(self.now, bytes, end, &mut self.worker);
        self.to_client.extend_from_slice(self.bridge.client_output());
        self.bridge.client_output_sent(self.now, &mut self.worker);
        self.settle();
    }

    fn companion(&mut self, outcome: Outcome) {
        let answer = Answer { connection: 3, outcome };
        self.bridge.handle_companion(self.now, answer, &mut self.worker);
        self.settle();
    }

    /// Lets the clock go on to the next moment that the bridge named; how long that took.
    fn sleep(&mut self) -> Duration {
        let next = self.bridge.poll_timeout().expect("a moment to wait for");
        let slept = next.since(self.now);
        self.now = next.max(self.now);
        self.bridge.handle_timeout(self.now, &mut self.worker);
        self.settle();
        slept
    }

    fn settle(&mut self) {
        let writes = !self.bridge.upstream_output().is_empty() || self.bridge.wants_resume();
        if writes || self.bridge.wants_input() {
            self.take_in();
        }
    }

    fn is_closed(&self) -> bool {
        self.bridge.poll_close(self.now)
    }

    /// What went to the service since the last look.
    fn sent(&mut self) -> Vec<(Kind, u8, u32, Vec<u8>)> {
        let bytes = std::mem::take(&mut self.to_service);
        let mut left = bytes.strip_prefix(&CLIENT_PREFACE[..]).unwrap_or(&bytes);
        let mut frames = Vec::new();
        while let Some((head, rest)) = left.split_first_chunk() {
            let head = Head::parse(head);
            let (payload, rest) = rest.split_at(head.length as usize);
            frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
            left = rest;
        }
        frames
    }

    /// The frames of a kind that went to the service since the last look, acknowledgements
    /// apart.
    fn kinds(&mut self) -> Vec<(Kind, u32)> {
        let own = |(kind, flags, ..): &(Kind, u8, u32, Vec<u8>)| {
            *kind != Kind::WindowUpdate && (*kind != Kind::Settings || flags & ACK == 0)
        };
        self.sent().into_iter().filter(own).map(|(kind, _, stream, _)| (kind, stream)).collect()
    }

    /// The frames that came to the client since the last look.
    fn heard(&mut self) -> Vec<Seen> {
        let bytes = std::mem::take(&mut self.to_client);
        let mut left = &bytes[..];
        let mut frames = Vec::new();
        while !left.is_empty() {
            let layout = &self.bridge.terms.config.layout;
            let Ok(Decoded::Frame(frame)) = layout.decode(left, 65_536) else {
                panic!("no frame: {left:?}")
            };
            let sort = match (frame.flags.reply(), frame.flags.push(), frame.flags.error()) {
                (true, false, false) => "reply",
                (true, false, true) => "error",
                (false, true, _) => "push",
                _ => "other",
            };
            let Command::Number(command) = frame.command else { panic!("a command of text") };
            frames.push((command, frame.sequence, frame.status, sort, frame.body.to_vec()));
            left = &left[frame.raw.len()..];
        }
        frames
    }

    /// The sequences, statuses and sorts of what came to the client.
    fn replies(&mut self) -> Vec<(u64, i64, &'static str)> {
        self.heard()
            .into_iter()
            .map(|(_, sequence, status, sort, _)| (sequence, status, sort))
            .collect()
    }

    /// Logs in by ticket, with the reply to the login delivered.
    fn log_in(&mut self) {
        self.client(&request(LOGIN, 1, b"ticket"));
        self.companion(Outcome::LoginAccepted(accepted()));
        self.service(&opening());
        assert_eq!(self.replies(), [(1, 0, "reply")]);
        self.to_service.clear();
    }
}

fn request(command: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
    let wire = Wire::direct();
    let mut out = Vec::new();
    let parts = [body];
    let request = Request::new(Command::Number(command), sequence, &parts);
    wire.bridge.terms.config.layout.encode_request(request, None, &mut out).unwrap();
    out
}

fn accepted() -> Accepted {
    Accepted {
        session: SessionId::from_slice(&[5; 16]).unwrap(),
        hold: 1 << 32,
        activate: false,
        reply: b"welcome".to_vec(),
        user: "ann".into(),
        claims: Default::default(),
        roles: Vec::new(),
        keys: None,
    }
}

fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_head(kind, flags, stream, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

fn acknowledged() -> Vec<u8> {
    raw(Kind::Settings, ACK, 0, b"")
}

/// The service's SETTINGS, and its word on the bridge's.
fn opening() -> Vec<u8> {
    [raw(Kind::Settings, 0, 0, b""), acknowledged()].concat()
}

fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        encode_shortest(name, value.as_bytes(), &mut block);
    }
    raw(Kind::Headers, END_HEADERS | flags, stream, &block)
}

/// A whole response with status OK, its message in two DATA frames.
fn reply(stream: u32, body: &[u8]) -> Vec<u8> {
    let message = [&[0], &(body.len() as u32).to_be_bytes()[..], body].concat();
    let (front, back) = message.split_at(message.len() / 2);
    [
        headers(0, stream, &[(":status", "200"), ("content-type", "application/grpc")]),
        raw(Kind::Data, 0, stream, front),
        raw(Kind::Data, 0, stream, back),
        headers(END_STREAM, stream, &[("grpc-status", "0")]),
    ]
    .concat()
}
