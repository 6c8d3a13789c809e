//! A relay between a client and a private server that both send what they like.
//!
//! The input is a script of steps: a byte says who does what, the next how many of the following
//! bytes it sends. A step can also be a good frame with a few bytes of it damaged, so that the
//! fuzzer gets past the framing.
//!
//! Looked for: panics, loops, timeouts that do not go on, memory that nothing bounds, anything sent
//! to a server after the end of it, anything that a stranger makes reach the server.
#![no_main]

use std::rc::Rc;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meshgate_filter::bridge::{Bridge, Terms};
use meshgate_filter::config::Config;
use meshgate_filter::protocol::layout::{Command, Decoded, Flags, Layout, Push, Reply, Request};
use meshgate_filter::time::Moment;
use meshgate_filter::worker::Worker;

const HEAD: &str = r#""direction": "relay",
    "layout": {"name": "game", "header": [
        {"name": "magic", "type": "u8", "role": {"constant": 71}},
        {"name": "flags", "type": "u8", "role": {"flags":
            {"reply": 0, "one_way": 1, "push": 2, "error": 3, "compressed": 4}}},
        {"name": "length", "type": "u16", "role": {"length": {"counts": "frame"}}},
        {"name": "command", "type": "u8", "role": "command"},
        {"name": "sequence", "type": "u16", "role": "sequence"},
        {"name": "status", "type": "u8", "role": "status"},
        {"name": "user", "type": {"text": 4}},
        {"name": "zone", "type": "u16", "metadata": "x-zone"}],
        "compression": {"algorithm": "lz4", "min_bytes": 16}},
    "heartbeat": {"command": 3},
    "cancel": {"command": 4},
    "defaults": {"deadline": "1s"},
    "limits": {"max_in_flight": 8, "max_response": "64KiB"},"#;

const COMMANDS: &str = r#"[{"from": 10, "to": 19}, {"command": 20, "kind": "one_way"},
    {"command": 21, "kind": "server_stream", "push": 22}]"#;

static CONFIGURATIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let open = r#""session": {"mode": "none", "goodbye": {"command": 2}},"#;
    let closed = r#""session": {"mode": "ticket", "audience": "a", "trusted": true,
        "login": {"command": 1}, "goodbye": {"command": 2}}, "companion": {"cluster": "c"},"#;
    let old = r#""layout": {"name": "old", "byte_order": "little", "header": [
        {"name": "length", "type": "varint", "role": {"length": {"counts": "after"}}},
        {"name": "kind", "type": "u8", "role": {"kind": {"request": 1, "reply": 2, "push": 3}}},
        {"name": "sequence", "type": "u8", "role": "sequence"},
        {"name": "command", "type": "u8", "role": "command"},
        {"name": "zone", "type": "varint", "metadata": "x-zone"}],
        "reply": {"status": {"body_prefix": "i16"}, "command": {"set_bit": 7}}},"#;
    let pushes = r#""pushes": {"ranges": [{"from": 30, "to": 39}]}"#;
    let heartbeat = r#""heartbeat": {"command": 3, "interval": "2s"},"#;
    let servers = [
        (open, format!(r#"{{"login": {{"command": 5}}, {heartbeat} {pushes}}}"#)),
        (open, format!(r#"{{"tunnel": {{"authority": "s:1"}}, {pushes}}}"#)),
        (open, format!(r#"{{{old} {heartbeat} {pushes}}}"#)),
        (closed, format!(r#"{{{heartbeat} "identity": {{"user": "user"}}}}"#)),
    ];
    let document = |(session, server): &(&str, String)| {
        format!(r#"{{{HEAD} {session} "server": {server}, "commands": {COMMANDS}}}"#)
    };
    servers.iter().map(document).collect()
});

/// The host, and both sides.
struct World {
    bridge: Bridge,
    worker: Worker,
    now: Moment,
    held: Vec<u8>,
    ended: bool,
    finished: bool,
    to_server: Vec<u8>,
}

impl World {
    fn client(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.take_in();
    }

    fn take_in(&mut self) {
        // A rest that is put back is taken up again; each time there is less of it.
        for _ in 0..100_000 {
            let (now, end) = (self.now, self.ended);
            let taken = self.bridge.handle_downstream(now, &self.held, end, &mut self.worker);
            assert!(taken <= self.held.len());
            let resumes = self.bridge.wants_resume();
            let output = self.bridge.upstream_output();
            if output.is_empty() && !resumes {
                self.held.splice(..taken, self.bridge.take_rest());
                return;
            }
            assert!(!self.finished, "nothing follows the end");
            self.to_server.extend_from_slice(output);
            self.held.clear();
            self.finished = self.ended;
            self.bridge.upstream_output_sent(&mut self.worker);
            if !self.bridge.holds_rest() {
                return;
            }
        }
        panic!("it does not end");
    }

    fn server(&mut self, bytes: &[u8], end: bool) {
        self.bridge.handle_upstream(self.now, bytes, end, &mut self.worker);
        assert!(self.bridge.client_output().len() < 16 << 20);
        self.bridge.client_output_sent(self.now, &mut self.worker);
        self.settle();
    }

    fn pass(&mut self, micros: u64) {
        let end = Moment::from_micros(self.now.micros() + micros);
        for _ in 0..1000 {
            let Some(due) = self.bridge.poll_timeout().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            if self.bridge.poll_close(self.now) {
                return;
            }
            self.bridge.handle_timeout(self.now, &mut self.worker);
            self.settle();
        }
        panic!("time does not go on");
    }

    fn settle(&mut self) {
        let writes = !self.bridge.upstream_output().is_empty() || self.bridge.wants_resume();
        if !self.finished && (writes || self.bridge.wants_input()) {
            self.take_in();
        }
    }
}

/// A good frame of either side, made of a few bytes.
fn frame(client: &Layout, server: &Layout, from_server: bool, of: &[u8]) -> Vec<u8> {
    let [command, sequence, sort, body @ ..] = of else { return Vec::new() };
    let (command, sequence) = (Command::Number((*command).into()), u64::from(*sequence));
    let mut out = Vec::new();
    let parts = [body];
    let compress = sort & 4 != 0;
    let request = Request { compress, ..Request::new(command, sequence, &parts) };
    let layout = if from_server { server } else { client };
    let _ = layout.encode_request(request, None, &mut out);
    if !from_server {
        return out;
    }
    let Ok(Decoded::Frame(asked)) = layout.decode(&out, 1 << 16) else { return out };
    assert!(!asked.flags.contains(Flags::REPLY));
    let mut answer = Vec::new();
    if sort & 1 == 0 {
        let status = i64::from(sort >> 4);
        let reply = Reply { status, error: status != 0, body: &parts, compress };
        let _ = layout.encode_reply(&layout.seed(&asked), reply, None, &mut answer);
    } else {
        let (status, error) = (0, false);
        let push = Push { command, sequence, status, error, body: &parts, compress };
        let _ = layout.encode_push(push, None, &mut answer);
    }
    answer
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, mut script)) = input.split_first() else { return };
    let number = usize::from(*choice) % CONFIGURATIONS.len();
    let config = Config::parse(CONFIGURATIONS[number].as_bytes()).expect("a configuration");
    let terms = Rc::new(Terms::new(config));
    let mut worker = Worker::new(&terms, 7, "proxy".into());
    let now = Moment::from_micros(1_000_000);
    let bridge = Bridge::new(1, Rc::clone(&terms), now, "192.0.2.1:1".into(), &mut worker);
    let (held, ended, finished) = (Vec::new(), false, false);
    let to_server = Vec::new();
    let mut world = World { bridge, worker, now, held, ended, finished, to_server };
    let (client, server) = (&terms.config.layout, terms.config.server_layout());
    while let [step, length, rest @ ..] = script {
        if world.bridge.poll_close(world.now) {
            break;
        }
        let (bytes, rest) = rest.split_at(rest.len().min((*length).into()));
        script = rest;
        match step % 8 {
            0 if !world.ended => world.client(bytes),
            1 | 2 if !world.ended => world.client(&frame(client, server, false, bytes)),
            3 => world.server(bytes, false),
            4 | 5 => world.server(&frame(client, server, true, bytes), false),
            6 => world.pass(u64::from(*length) * 20_000),
            7 if step & 8 != 0 => world.server(&[], true),
            7 if !world.ended => {
                world.ended = true;
                world.take_in();
            }
            _ => {}
        }
    }
    if terms.config.session.login.is_some() {
        // Nobody logs in here: the server hears heartbeats alone.
        let mut left = &world.to_server[..];
        while let Ok(Decoded::Frame(frame)) = server.decode(left, 1 << 16) {
            assert_eq!(frame.command, Command::Number(3));
            left = &left[frame.raw.len()..];
        }
        assert!(left.is_empty());
    }
    world.bridge.handle_closed(world.now, &mut world.worker);
});
