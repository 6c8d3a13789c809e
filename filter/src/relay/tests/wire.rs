//! Both sides of a relay. [`Wire`] does what Envoy and the host do with its outputs.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{Bridge, Terms};
use crate::companion::{Answer, Outcome};
use crate::config::Config;
use crate::protocol::layout::{
    Command, Decoded, FieldValue, Flags, Frame, Layout, Push, Reply, Request,
};
use crate::session::{Accepted, SessionId};
use crate::time::Moment;
use crate::worker::Worker;

pub const LOGIN: u64 = 1;
pub const GOODBYE: u64 = 2;
pub const BEAT: u64 = 3;
pub const CANCEL: u64 = 4;
pub const SAY: u64 = 1003;
pub const ECHO: u64 = 1100;
pub const REPEAT: u64 = 1105;
pub const REPEATED: u64 = 1205;
pub const LINE: u64 = 1206;
pub const SERVER_LOGIN: u64 = 7;

pub fn layout() -> Value {
    json!({
        "name": "game",
        "header": [
            {"name": "magic", "type": "u16", "role": {"constant": "0x4D47"}},
            {"name": "flags", "type": "u8", "role": {"flags":
                {"reply": 0, "one_way": 1, "push": 2, "error": 3, "compressed": 4, "sealed": 5}}},
            {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
            {"name": "command", "type": "u32", "role": "command"},
            {"name": "sequence", "type": "u32", "role": "sequence"},
            {"name": "status", "type": "u16", "role": "status"},
            {"name": "user", "type": {"text": 8}},
            {"name": "zone", "type": "u16", "metadata": "x-zone"}
        ],
        "compression": {"algorithm": "zlib", "min_bytes": 64}
    })
}

/// Without logins.
pub fn document() -> Value {
    json!({
        "direction": "relay",
        "layout": layout(),
        "session": {"mode": "none", "goodbye": {"command": GOODBYE}},
        "heartbeat": {"command": BEAT},
        "cancel": {"command": CANCEL},
        "server": {
            "heartbeat": {"command": BEAT, "interval": "10s"},
            "pushes": {"commands": [LINE]}
        },
        "defaults": {"deadline": "2s"},
        "commands": [
            {"command": SAY, "kind": "one_way"},
            {"from": 1100, "to": 1104},
            {"command": REPEAT, "kind": "server_stream", "push": REPEATED}
        ],
        "statuses": {"error_text": true}
    })
}

/// With logins by ticket, and a server that is told who it is.
pub fn with_logins() -> Value {
    let mut document = document();
    document["session"] = json!({"mode": "ticket", "audience": "demo", "trusted": true,
        "login": {"command": LOGIN}, "goodbye": {"command": GOODBYE}});
    document["companion"] = json!({"cluster": "companion"});
    document["upstream"] = json!({"connect": "after_login", "cluster": "server",
        "refusal_cluster": "refusals"});
    document["server"]["identity"] = json!({"user": "user"});
    document["commands"][1]["login"] = json!("not_required");
    document
}

/// What one side saw of a frame, in short: command, sequence, status, flags, body.
pub type Seen = (u64, u64, i64, Flags, Vec<u8>);

pub struct Wire {
    pub now: Moment,
    pub worker: Worker,
    pub bridge: Bridge,
    pub terms: Rc<Terms>,
    /// The client's bytes in Envoy's buffer.
    pub held: Vec<u8>,
    pub clusters: Vec<String>,
    ended: bool,
    pub finished: bool,
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    sums: BTreeMap<String, i64>,
}

impl Wire {
    pub fn of(document: &Value) -> Self {
        let terms = Rc::new(Terms::new(Config::parse(document.to_string().as_bytes()).unwrap()));
        let mut worker = Worker::new(&terms, 7, "proxy".into());
        let now = Moment::from_micros(1_000_000);
        let bridge = Bridge::new(3, Rc::clone(&terms), now, "192.0.2.1:4000".into(), &mut worker);
        Self {
            now,
            worker,
            bridge,
            terms,
            held: Vec::new(),
            clusters: Vec::new(),
            ended: false,
            finished: false,
            to_server: Vec::new(),
            to_client: Vec::new(),
            sums: BTreeMap::new(),
        }
    }

    pub fn new() -> Self {
        Self::of(&document())
    }

    pub fn client(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.take_in();
    }

    pub fn half_close(&mut self) {
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
        assert!(!self.finished, "nothing follows the end");
        self.held.clear();
        self.to_server.extend_from_slice(output);
        self.finished = self.ended;
        self.clusters.extend(self.bridge.take_cluster().map(String::from));
        self.bridge.upstream_output_sent(&mut self.worker);
        if self.bridge.holds_rest() {
            self.take_in();
        }
    }

    pub fn server(&mut self, bytes: &[u8]) {
        self.upstream(bytes, false);
    }

    pub fn server_closes(&mut self) {
        self.upstream(&[], true);
    }

    fn upstream(&mut self, bytes: &[u8], end: bool) {
        self.bridge.handle_upstream(self.now, bytes, end, &mut self.worker);
        self.to_client.extend_from_slice(self.bridge.client_output());
        self.bridge.client_output_sent(self.now, &mut self.worker);
        self.settle();
    }

    pub fn companion(&mut self, outcome: Outcome) {
        let answer = Answer { connection: 3, outcome };
        self.bridge.handle_companion(self.now, answer, &mut self.worker);
        self.settle();
    }

    pub fn wait(&mut self, by: Duration) {
        self.now = self.now.after(by);
        if self.bridge.poll_timeout().is_some_and(|at| at <= self.now) {
            self.bridge.handle_timeout(self.now, &mut self.worker);
            self.settle();
        }
    }

    fn settle(&mut self) {
        let writes = !self.bridge.upstream_output().is_empty() || self.bridge.wants_resume();
        if writes || self.bridge.wants_input() {
            self.take_in();
        }
    }

    pub fn is_closed(&self) -> bool {
        self.bridge.poll_close(self.now)
    }

    /// The frames that the server got since the last look.
    pub fn asked(&mut self) -> Vec<Seen> {
        let bytes = std::mem::take(&mut self.to_server);
        seen(self.terms.config.server_layout(), &bytes)
    }

    /// The one frame that it got.
    pub fn asked_one(&mut self) -> Seen {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    /// The frames that the client got since the last look.
    pub fn heard(&mut self) -> Vec<Seen> {
        let bytes = std::mem::take(&mut self.to_client);
        seen(&self.terms.config.layout, &bytes)
    }

    /// Sequences and statuses of what the client got.
    pub fn replies(&mut self) -> Vec<(u64, i64)> {
        self.heard().into_iter().map(|(_, sequence, status, ..)| (sequence, status)).collect()
    }

    /// A request as the client writes it.
    pub fn request(&self, command: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
        self.request_with(command, sequence, body, &[])
    }

    pub fn request_with(
        &self,
        command: u64,
        sequence: u64,
        body: &[u8],
        fields: &[(&str, FieldValue<'_>)],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let parts = [body];
        let request =
            Request { fields, ..Request::new(Command::Number(command), sequence, &parts) };
        self.terms.config.layout.encode_request(request, None, &mut out).unwrap();
        out
    }

    pub fn ask(&mut self, command: u64, sequence: u64, body: &[u8]) {
        let request = self.request(command, sequence, body);
        self.client(&request);
    }

    /// A reply as the server writes it.
    pub fn reply(&self, command: u64, sequence: u64, status: i64, body: &[u8]) -> Vec<u8> {
        let layout = self.terms.config.server_layout();
        let mut request = Vec::new();
        let asked = Request::new(Command::Number(command), sequence, &[]);
        layout.encode_request(asked, None, &mut request).unwrap();
        let mut out = Vec::new();
        let parts = [body];
        let reply = Reply { status, error: status != 0, body: &parts, compress: false };
        let seed = layout.seed(&whole(layout, &request));
        layout.encode_reply(&seed, reply, None, &mut out).unwrap();
        out
    }

    pub fn answer(&mut self, command: u64, sequence: u64, body: &[u8]) {
        let reply = self.reply(command, sequence, 0, body);
        self.server(&reply);
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
        self.terms.config.server_layout().encode_push(push, None, &mut out).unwrap();
        out
    }

    /// The server answers the heartbeat that it got.
    pub fn answer_bell(&mut self) {
        let (command, sequence, ..) = self.asked_one();
        assert_eq!(command, BEAT);
        self.answer(BEAT, sequence, b"");
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

pub fn accepted() -> Accepted {
    Accepted {
        session: SessionId::from_slice(&[5; 16]).unwrap(),
        hold: 1 << 32,
        activate: false,
        reply: b"welcome".to_vec(),
        user: "ann".into(),
        claims: BTreeMap::default(),
        roles: Vec::new(),
        keys: None,
    }
}

pub fn whole<'a>(layout: &Layout, bytes: &'a [u8]) -> Frame<'a> {
    match layout.decode(bytes, 1 << 20) {
        Ok(Decoded::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

pub fn seen(layout: &Layout, bytes: &[u8]) -> Vec<Seen> {
    let mut left = bytes;
    let mut seen = Vec::new();
    while !left.is_empty() {
        let frame = whole(layout, left);
        let Command::Number(command) = frame.command else { panic!("a number") };
        seen.push((command, frame.sequence, frame.status, frame.flags, frame.body.to_vec()));
        left = &left[frame.raw.len()..];
    }
    seen
}
