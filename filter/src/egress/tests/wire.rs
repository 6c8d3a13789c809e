//! Both sides of a connection.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::Terms;
use crate::config::Config;
use crate::egress::Egress;
use crate::protocol::grpc::frame::flag::{ACK, END_HEADERS, END_STREAM};
use crate::protocol::grpc::frame::{CLIENT_PREFACE, Head, Kind, write_head};
use crate::protocol::grpc::hpack::Decoder;
use crate::protocol::grpc::hpack::encoder::encode_shortest;
use crate::protocol::layout::{Command, Decoded, Flags, Push, Reply, Request};
use crate::time::Moment;
use crate::worker::Worker;

pub const ECHO: u64 = 1100;
pub const RAW: u64 = 1101;
pub const SAY: u64 = 1003;
pub const LOOK: u64 = 1004;
pub const REPEAT: u64 = 1105;
pub const REPEATED: u64 = 1205;
pub const LINE: u64 = 1206;
pub const LOGIN: u64 = 1;
pub const BEAT: u64 = 3;
pub const CANCEL: u64 = 4;

pub fn document() -> Value {
    json!({
        "direction": "egress",
        "layout": {
            "name": "game",
            "header": [
                {"name": "magic", "type": "u16", "role": {"constant": "0x4D47"}},
                {"name": "flags", "type": "u8", "role": {"flags":
                    {"reply": 0, "one_way": 1, "push": 2, "error": 3}}},
                {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
                {"name": "command", "type": "u32", "role": "command"},
                {"name": "sequence", "type": "u32", "role": "sequence"},
                {"name": "status", "type": "u16", "role": "status"},
                {"name": "zone", "type": "u16", "metadata": "x-zone"}
            ]
        },
        "server": {"heartbeat": {"command": BEAT, "interval": "10s"}},
        "defaults": {"deadline": "2s"},
        "commands": [
            {"command": SAY, "method": "/demo.v1.Hall/Say", "kind": "one_way"},
            {"command": LOOK, "method": "/demo.v1.Hall/Look", "idempotent": true},
            {"command": ECHO, "method": "/demo.v1.Echo/Echo"},
            {"command": RAW, "method": "/demo.v1.Echo/Raw", "codec": "bytes"},
            {"command": REPEAT, "method": "/demo.v1.Echo/Repeat", "kind": "server_stream",
             "push": REPEATED},
            {"command": LINE, "method": "/demo.v1.Hall/Listen", "kind": "subscribe"}
        ],
        "cancel": {"command": CANCEL},
        "statuses": {"error_text": true, "codes": {"NOT_FOUND": 404}}
    })
}

/// A frame of the server's side in short: command, sequence, flags, body.
pub type Seen = (u64, u64, Flags, Vec<u8>);

/// What a caller heard of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub messages: Vec<Vec<u8>>,
    /// `grpc-status` and `grpc-message`.
    pub status: Option<(u8, String)>,
    /// The code of an RST_STREAM.
    pub reset: Option<u32>,
}

pub struct Wire {
    pub now: Moment,
    pub worker: Worker,
    pub egress: Egress,
    pub terms: Rc<Terms>,
    to_server: Vec<u8>,
    to_caller: Vec<u8>,
    /// The frames that the caller heard.
    frames: Vec<(Head, Vec<u8>)>,
    decoder: Decoder,
    answers: BTreeMap<u32, Answer>,
    sums: BTreeMap<String, i64>,
    pub finished: bool,
}

impl Wire {
    pub fn of(document: &Value) -> Self {
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        let terms = Rc::new(Terms::new(config));
        let mut worker = Worker::new(&terms, 7, "proxy".into());
        let now = Moment::from_micros(1_000_000);
        let egress = Egress::new(&terms, now, "192.0.2.1:4000", &mut worker).unwrap();
        Self {
            now,
            worker,
            egress,
            terms,
            to_server: Vec::new(),
            to_caller: Vec::new(),
            frames: Vec::new(),
            decoder: Decoder::new(4096),
            answers: BTreeMap::new(),
            sums: BTreeMap::new(),
            finished: false,
        }
    }

    pub fn new() -> Self {
        Self::of(&document())
    }

    /// The HTTP/2 connection's opening and the first bell are exchanged.
    pub fn warm() -> Self {
        let mut wire = Self::new();
        wire.caller(&opening());
        wire.answer_bell();
        wire.caller(&raw(Kind::Settings, ACK, 0, b""));
        assert_eq!(wire.asked(), []);
        wire
    }

    pub fn caller(&mut self, bytes: &[u8]) {
        self.caller_sends(bytes, false);
    }

    pub fn half_close(&mut self) {
        self.caller_sends(&[], true);
    }

    fn caller_sends(&mut self, bytes: &[u8], end: bool) {
        self.egress.handle_downstream(self.now, bytes, end, &mut self.worker);
        self.settle();
    }

    pub fn server(&mut self, bytes: &[u8]) {
        self.server_sends(bytes, false);
    }

    pub fn server_closes(&mut self) {
        self.server_sends(&[], true);
    }

    fn server_sends(&mut self, bytes: &[u8], end: bool) {
        self.egress.handle_upstream(self.now, bytes, end, &mut self.worker);
        self.to_caller.extend_from_slice(self.egress.client_output());
        self.egress.client_output_sent(self.now, &mut self.worker);
        self.settle();
    }

    pub fn wait(&mut self, by: Duration) {
        self.now = self.now.after(by);
        if self.egress.poll_timeout().is_some_and(|at| at <= self.now) {
            self.egress.handle_timeout(self.now, &mut self.worker);
            self.settle();
        }
    }

    fn settle(&mut self) {
        let resumes = self.egress.wants_resume();
        let output = self.egress.upstream_output();
        if output.is_empty() && !resumes {
            return;
        }
        assert!(!self.finished, "nothing follows the end");
        self.to_server.extend_from_slice(output);
        self.finished = resumes;
        self.egress.upstream_output_sent(&mut self.worker);
    }

    pub fn is_closed(&self) -> bool {
        self.egress.poll_close(self.now)
    }

    /// What went upstream since it was asked last, as it is.
    pub fn upstream(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to_server)
    }

    /// The frames that the server got since it was asked last.
    pub fn asked(&mut self) -> Vec<Seen> {
        let bytes = self.upstream();
        self.frames_in(&bytes)
    }

    /// Frames in the layout.
    pub fn frames_in(&self, bytes: &[u8]) -> Vec<Seen> {
        let layout = &self.terms.config.layout;
        let mut left = bytes;
        let mut seen = Vec::new();
        while !left.is_empty() {
            let Decoded::Frame(frame) = layout.decode(left, 1 << 20).unwrap() else {
                panic!("half a frame")
            };
            let Command::Number(command) = frame.command else { panic!("a number") };
            seen.push((command, frame.sequence, frame.flags, frame.body.to_vec()));
            left = &left[frame.raw.len()..];
        }
        seen
    }

    /// The one frame that the server got, and its sequence.
    pub fn asked_one(&mut self) -> Seen {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    /// The server replies to the heartbeat that it got.
    pub fn answer_bell(&mut self) {
        let (command, sequence, ..) = self.asked_one();
        assert_eq!(command, BEAT);
        let reply = self.reply(BEAT, sequence, 0, b"");
        self.server(&reply);
    }

    /// A reply in the layout.
    pub fn reply(&self, command: u64, sequence: u64, status: i64, body: &[u8]) -> Vec<u8> {
        let layout = &self.terms.config.layout;
        let mut request = Vec::new();
        let asked = Request::new(Command::Number(command), sequence, &[]);
        layout.encode_request(asked, None, &mut request).unwrap();
        let Decoded::Frame(frame) = layout.decode(&request, 1 << 20).unwrap() else { panic!() };
        let mut out = Vec::new();
        let parts = [body];
        let reply = Reply { status, error: status != 0, body: &parts, compress: false };
        layout.encode_reply(&layout.seed(&frame), reply, None, &mut out).unwrap();
        out
    }

    pub fn push(&self, command: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
        let parts = [body];
        let push = Push {
            command: Command::Number(command),
            sequence,
            status: 0,
            error: false,
            body: &parts,
            compress: false,
        };
        let mut out = Vec::new();
        self.terms.config.layout.encode_push(push, None, &mut out).unwrap();
        out
    }

    /// What the caller heard of a stream.
    pub fn answer(&mut self, stream: u32) -> Answer {
        self.hear();
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    /// The kinds of connection frames that the caller heard.
    pub fn heard(&mut self, kind: Kind) -> usize {
        self.hear();
        self.frames.iter().filter(|(head, _)| head.kind == kind).count()
    }

    fn hear(&mut self) {
        let bytes = std::mem::take(&mut self.to_caller);
        let mut left = &bytes[..];
        while let Some((head, rest)) = left.split_first_chunk() {
            let head = Head::parse(head);
            let (load, rest) = rest.split_at(head.length as usize);
            left = rest;
            let answer = self.answers.entry(head.stream).or_default();
            match head.kind {
                Kind::Headers => {
                    let (mut code, mut text) = (None, String::new());
                    let field = |name: &[u8], value: &[u8]| {
                        let value = String::from_utf8_lossy(value).into_owned();
                        match name {
                            b"grpc-status" => code = value.parse().ok(),
                            b"grpc-message" => text = value,
                            _ => {}
                        }
                    };
                    self.decoder.decode(load, field).unwrap();
                    answer.status = code.map(|code| (code, text)).or(answer.status.take());
                }
                Kind::Data => answer.messages.push(load[5..].to_vec()),
                Kind::ResetStream => {
                    answer.reset = Some(u32::from_be_bytes(load.try_into().unwrap()));
                }
                _ => {}
            }
            self.frames.push((head, load.to_vec()));
        }
        assert!(left.is_empty());
    }

    /// The calls that the books say are in flight.
    pub fn in_flight(&mut self) -> i64 {
        self.counted("calls_in_flight")
    }

    /// What was counted under this name, with its labels behind it: `metric.label.value`.
    pub fn counted(&mut self, name: &str) -> i64 {
        let sums = &mut self.sums;
        self.worker.metrics.drain(&mut |name, _, delta, _| {
            let name = name();
            let mut parts: Vec<&str> = name.split(";.;").collect();
            let last = parts.pop().unwrap_or_default();
            let labels = parts.iter().map(|part| part.trim_start_matches("meshgate."));
            let labels: String =
                labels.map(|part| format!(".{}", part.replace("=.=", "."))).collect();
            let metric = last.trim_start_matches("meshgate.");
            *sums.entry(format!("{metric}{labels}")).or_default() += delta;
        });
        self.sums.get(name).copied().unwrap_or_default()
    }
}

pub fn ok(message: &[u8]) -> Answer {
    Answer { messages: vec![message.to_vec()], status: Some((0, String::new())), reset: None }
}

pub fn failed(code: u8, text: &str) -> Answer {
    Answer { messages: vec![], status: Some((code, text.into())), reset: None }
}

pub fn refused() -> Answer {
    Answer { messages: vec![], status: None, reset: Some(7) }
}

pub fn opening() -> Vec<u8> {
    [&CLIENT_PREFACE[..], &raw(Kind::Settings, 0, 0, b"")].concat()
}

pub fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_head(kind, flags, stream, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

pub fn head(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        ("content-type", "application/grpc"),
    ];
    for (name, value) in fields.iter().chain(more) {
        encode_shortest(name, value.as_bytes(), &mut block);
    }
    raw(Kind::Headers, END_HEADERS, stream, &block)
}

pub fn body(stream: u32, message: &[u8]) -> Vec<u8> {
    let prefixed = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
    raw(Kind::Data, END_STREAM, stream, &prefixed)
}

pub fn call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    [head(stream, path, &[]), body(stream, message)].concat()
}

pub fn echo(stream: u32, message: &[u8]) -> Vec<u8> {
    call(stream, "/demo.v1.Echo/Echo", message)
}

pub fn reset(stream: u32) -> Vec<u8> {
    raw(Kind::ResetStream, 0, stream, &8u32.to_be_bytes())
}
