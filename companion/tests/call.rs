//! `meshgate call` and `meshgate check` as people use them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use meshgate_companion::domain::key::{Key, Kind};
use meshgate_filter::protocol::layout::{Command, Decoded, FrameSeal, Layout, Push, Reply};
use meshgate_filter::session::seal::{TrafficKey, TrafficKeys, server_side};
use meshgate_filter::session::{Opener, Sealer};
use meshgate_proto::edge::v1::{Mode, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use support::{AUDIENCE, Proxy, Server};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LOGIN: u64 = 1;
const ECHO: u64 = 10;
const REVERSED: u64 = 11;
const FAIL: u64 = 12;
const SILENT: u64 = 13;
const STREAM: u64 = 14;
/// A stream of the client's: each message comes back as a push.
const OPEN: u64 = 20;
const SEND: u64 = 21;
const CLOSE: u64 = 22;

fn layout_file() -> PathBuf {
    Path::new(ROOT).join("envoy-config/layouts/game.json")
}

/// What the filter is to a client: logs in at a companion, and answers a few commands itself.
struct Gate {
    address: String,
}

impl Gate {
    async fn open(companion: Option<(&Server, Mode)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let login = match companion {
            Some((server, mode)) => Some((server.proxy("gate").await, mode)),
            None => None,
        };
        tokio::spawn(async move {
            let mut login = login;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, &mut login).await;
            }
        });
        Self { address }
    }

    async fn call(&self, args: &[&str]) -> Output {
        let mut all = vec!["call", "--connect", &self.address];
        all.extend(args);
        meshgate(&all).await
    }
}

/// One connection, until the client has enough.
async fn serve(mut stream: TcpStream, login: &mut Option<(Proxy, Mode)>) {
    let layout = Layout::from_json(&fs::read_to_string(layout_file()).unwrap()).unwrap();
    let mut seals: Option<(Sealer, Opener)> = None;
    let mut input = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => input.extend_from_slice(&chunk[..length]),
        }
        while let Decoded::Frame(frame) = layout.decode(&input, 1 << 20).unwrap() {
            let mut body = Vec::new();
            match &mut seals {
                Some((_, opener)) => {
                    let mut associated = Vec::new();
                    layout.associated_data(&frame, &mut associated);
                    let mut sealed = frame.body.to_vec();
                    body.extend_from_slice(opener.open(&[&associated], &mut sealed).unwrap());
                }
                None => body.extend_from_slice(frame.body),
            }
            let Command::Number(command) = frame.command else { panic!("a text command") };
            let mut keys = None;
            let (status, answer) = match command {
                LOGIN => {
                    let (proxy, mode) = login.as_mut().unwrap();
                    match proxy.login_with(*mode, body, |login| login.layout = "game".into()).await
                    {
                        Ok(accepted) => {
                            let key = |bytes| TrafficKey::from_slice(bytes);
                            keys = key(&accepted.client_to_server_key)
                                .zip(key(&accepted.server_to_client_key));
                            (0, accepted.reply)
                        }
                        Err(refused) => {
                            assert_ne!(refused.refusal(), Refusal::Malformed);
                            (16, refused.text.into_bytes())
                        }
                    }
                }
                ECHO => (0, body),
                REVERSED => (0, body.into_iter().rev().collect()),
                FAIL => (5, b"no such thing".to_vec()),
                SILENT => return,
                STREAM | CLOSE => (0, Vec::new()),
                OPEN | SEND => (0, body),
                other => panic!("command {other}"),
            };
            let seed = layout.seed(&frame);
            let mut output = Vec::new();
            let mut seal = seals.as_mut().map(|(sealer, _)| sealer);
            // In between a push of nobody's, or a stream's messages.
            let pushes: &[(u64, &[u8])] = match command {
                ECHO => &[(0, b"news")],
                OPEN | SEND => &[(frame.sequence, &answer)],
                STREAM => &[(frame.sequence, b"one"), (0, b"news"), (frame.sequence, b"two")],
                _ => &[],
            };
            for &(sequence, body) in pushes {
                let seal = seal.as_mut().map(|sealer| &mut **sealer as &mut dyn FrameSeal);
                let push = Push {
                    command: Command::Number(99),
                    sequence,
                    status: 0,
                    error: false,
                    body: &[body],
                    compress: false,
                };
                layout.encode_push(push, seal, &mut output).unwrap();
            }
            let parts = [answer.as_slice()];
            let reply = Reply { status, error: status != 0, body: &parts, compress: false };
            let seal = seal.map(|sealer| sealer as &mut dyn FrameSeal);
            if !matches!(command, OPEN | SEND) {
                layout.encode_reply(&seed, reply, seal, &mut output).unwrap();
            }
            stream.write_all(&output).await.unwrap();
            if let Some((client_to_server, server_to_client)) = keys {
                seals = Some(server_side(&TrafficKeys { client_to_server, server_to_client }));
            }
            let length = frame.raw.len();
            input.drain(..length);
        }
    }
}

async fn meshgate(args: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_meshgate")).args(args).output().await.unwrap()
}

/// The same, with something on its standard input.
async fn meshgate_given(args: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_meshgate"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_call_prints_the_reply_in_the_form_that_is_asked_for() {
    let gate = Gate::open(None).await;
    let layout = layout_file();
    let layout = ["--layout", layout.to_str().unwrap()];
    let call = async |args: &[&str]| gate.call(&[&layout[..], args].concat()).await;

    assert_eq!(ok(call(&["--command", "11", "--text", "hello"]).await), "olleh\n");
    assert_eq!(ok(call(&["--command", "0x0b", "--hex", "00 ff"]).await), "ff00\n");
    assert_eq!(
        ok(call(&["--command", "11", "--text", "hello", "--output", "hex"]).await),
        "6f6c6c6568\n"
    );
    assert_eq!(ok(call(&["--command", "11", "--text", "ab", "--output", "raw"]).await), "ba");

    let echoed = call(&["--command", "10", "--text", "x", "--verbose"]).await;
    let shown = errors(&echoed);
    assert_eq!(ok(echoed), "x\n");
    assert!(shown.contains("> magic=") && shown.contains("command=10"), "{shown}");
    assert!(shown.contains("push") && shown.contains("news"), "{shown}");

    let streamed = call(&["--command", "14", "--sequence", "9"]).await;
    assert!(errors(&streamed).contains("news"), "{}", errors(&streamed));
    assert_eq!(ok(streamed), "one\ntwo\n");

    let failed = call(&["--command", "12"]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(errors(&failed).contains("status 5: no such thing"), "{}", errors(&failed));
    let silent = call(&["--command", "13"]).await;
    assert_eq!(silent.status.code(), Some(1));
    assert!(errors(&silent).contains("closed without a reply"), "{}", errors(&silent));
    assert!(call(&["--command", "10", "--one-way"]).await.status.success());
    assert!(errors(&call(&["--command", "enter"]).await).contains("--command"));
    assert_eq!(
        call(&["--command", "10", "--text", "a", "--hex", "00"]).await.status.code(),
        Some(2)
    );
}

#[tokio::test]
async fn json_goes_through_the_messages_of_a_proto_file() {
    let gate = Gate::open(None).await;
    let folder = tempfile::tempdir().unwrap();
    let proto = folder.path().join("demo.proto");
    let text = "syntax = \"proto3\"; package demo; message Line { string text = 1; int32 n = 2; }
        service Talk { rpc Say(Line) returns (Line); }";
    fs::write(&proto, text).unwrap();
    let layout = layout_file();
    let args = [
        "--layout",
        layout.to_str().unwrap(),
        "--proto",
        proto.to_str().unwrap(),
        "--method",
        "/demo.Talk/Say",
        "--command",
        "10",
        "--json",
        r#"{"text": "hi", "n": 3}"#,
    ];
    let json: serde_json::Value = serde_json::from_str(&ok(gate.call(&args).await)).unwrap();
    assert_eq!(json, serde_json::json!({"text": "hi", "n": 3}));
}

#[tokio::test]
async fn a_ticket_logs_in_first() {
    let server = Server::start().await;
    let gate = Gate::open(Some((&server, Mode::Ticket))).await;
    let layout = layout_file();
    let ticket = server.keys.ticket("ada", |_| ());
    let common = ["--layout", layout.to_str().unwrap(), "--login-command", "1", "--command", "11"];
    let call = async |ticket: &str| {
        gate.call(&[&common[..], &["--text", "hello", "--ticket", ticket, "-v"]].concat()).await
    };
    let output = call(&ticket).await;
    assert!(errors(&output).contains("logged in as ada"), "{}", errors(&output));
    assert_eq!(ok(output), "olleh\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ticket");
    fs::write(&file, format!("{ticket}\n")).unwrap();
    assert_eq!(ok(call(&format!("@{}", file.display())).await), "olleh\n");
    let refused = call(&ticket[..ticket.len() - 2]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("the login was refused"), "{}", errors(&refused));
}

#[tokio::test]
async fn a_noise_login_seals_the_call() {
    let server = Server::start().await;
    let gate = Gate::open(Some((&server, Mode::Noise))).await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("noise.pub.json");
    fs::write(&key, server.keys.noise.public().unwrap().to_json().as_str()).unwrap();
    let layout = layout_file();
    let common = ["--layout", layout.to_str().unwrap(), "--login-command", "1", "--command", "10"];
    let call = async |key: &Path, audience: &str| {
        let ticket = server.keys.ticket("ada", |_| ());
        let noise = ["--noise-key", key.to_str().unwrap(), "--audience", audience];
        let rest = ["--text", "hello", "--ticket", &ticket, "--verbose"];
        gate.call(&[&common[..], &noise, &rest].concat()).await
    };
    let output = call(&key, AUDIENCE).await;
    let shown = errors(&output);
    assert_eq!(ok(output), "hello\n");
    assert!(shown.contains("sealed") && shown.contains("logged in as ada"), "{shown}");
    // The bytes that went over the wire show nothing of the text.
    assert!(!shown.contains("hello"), "{shown}");

    // The same with everything from the filter's configuration.
    let config = folder.path().join("config.json");
    let layout: serde_json::Value = serde_json::from_slice(&fs::read(&layout).unwrap()).unwrap();
    let document = serde_json::json!({
        "layout": layout,
        "session": {"mode": "noise", "audience": AUDIENCE, "login": {"command": 1}},
        "companion": {"cluster": "companion"},
        "upstream": {"authority": "game"},
        "commands": [{"command": 10, "method": "/demo.Talk/Say"}]
    });
    fs::write(&config, document.to_string()).unwrap();
    let proto = folder.path().join("demo.proto");
    let text = "syntax = \"proto3\"; package demo; message Line { string text = 1; }
        service Talk { rpc Say(Line) returns (Line); }";
    fs::write(&proto, text).unwrap();
    let ticket = server.keys.ticket("ada", |_| ());
    let files = [&config, &proto, &key].map(|file| file.to_str().unwrap());
    let args = ["--config", files[0], "--proto", files[1], "--noise-key", files[2]];
    let rest = ["--command", "10", "--json", r#"{"text": "hi"}"#, "--ticket", &ticket];
    let json = ok(gate.call(&[&args[..], &rest].concat()).await);
    assert_eq!(json.replace(char::is_whitespace, ""), r#"{"text":"hi"}"#);
    // Without the key there is nothing to try.
    let args = ["--config", files[0], "--command", "10", "--ticket", &ticket];
    let refused = gate.call(&args).await;
    assert!(errors(&refused).contains("--noise-key"), "{}", errors(&refused));

    let refused = call(&key, "shop").await;
    assert!(errors(&refused).contains("login refused"), "{}", errors(&refused));
    let other = folder.path().join("other.json");
    let impostor = Key::generate(Kind::Noise, Some("n1".into())).unwrap().public().unwrap();
    fs::write(&other, impostor.to_json().as_str()).unwrap();
    let refused = call(&other, AUDIENCE).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("login refused"), "{}", errors(&refused));
}

#[tokio::test]
async fn check_says_what_the_filter_would_say() {
    let folder = tempfile::tempdir().unwrap();
    let layout: serde_json::Value =
        serde_json::from_slice(&fs::read(layout_file()).unwrap()).unwrap();
    let mut config = serde_json::json!({
        "layout": layout,
        "session": {"mode": "none"},
        "upstream": {"authority": "game"},
        "commands": [{"command": 10, "method": "/demo.v1.Echo/Echo"}]
    });
    let file = folder.path().join("config.json");
    let check = async |config: &serde_json::Value| {
        fs::write(&file, config.to_string()).unwrap();
        meshgate(&["check", file.to_str().unwrap()]).await
    };
    let summary = ok(check(&config).await);
    assert!(summary.contains("layout `game`, 1 call, no logins"), "{summary}");

    config["commands"][0]["method"] = "demo.Echo".into();
    config["nonsense"] = 1.into();
    let output = check(&config).await;
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(text.contains("commands[0].method") && text.contains("nonsense"), "{text}");

    assert!(
        ok(meshgate(&["check", "--layout", layout_file().to_str().unwrap()]).await).contains("ok")
    );
    let schema: serde_json::Value =
        serde_json::from_str(&ok(meshgate(&["check", "--schema"]).await)).unwrap();
    assert!(schema["properties"]["commands"].is_object());
    assert_eq!(meshgate(&["check"]).await.status.code(), Some(2));
    assert_eq!(meshgate(&["check", "/no/such/file"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn lines_of_standard_input_are_the_messages_of_a_stream() {
    let gate = Gate::open(None).await;
    let layout = layout_file();
    let mut call = vec!["call", "--connect", &gate.address, "--layout", layout.to_str().unwrap()];
    call.extend(["--command", "20", "--send", "21", "--close", "22", "--text", "first"]);
    assert_eq!(ok(meshgate_given(&call, "second\nthird\n").await), "first\nsecond\nthird\n");

    let folder = tempfile::tempdir().unwrap();
    let proto = folder.path().join("a.proto");
    let text = "syntax = \"proto3\"; package a; message M { string name = 1; }
        service S { rpc Do(stream M) returns (stream M); }";
    fs::write(&proto, text).unwrap();
    call.truncate(call.len() - 2);
    call.extend(["--proto", proto.to_str().unwrap(), "--method", "/a.S/Do", "--json", "{}"]);
    let heard = ok(meshgate_given(&call, "{\"name\": \"ann\"}\n\n{\"name\": \"bob\"}\n").await);
    let named = |name: &str| format!("{{\n  \"name\": \"{name}\"\n}}\n");
    assert_eq!(heard, [named(""), named("ann"), named("bob")].concat());

    let wrong = meshgate_given(&call, "{\"nam\": 1}\n").await;
    assert!(!wrong.status.success());
    assert!(errors(&wrong).contains("the JSON is no a.M"), "{}", errors(&wrong));
}
