//! What a private server and its callers can do wrong, row by row of the README's table, on a real
//! Envoy. After each, a well-behaved caller is served as before.

use std::time::{Duration, Instant};

use anyhow::Result;
use meshgate_e2e::egress::{Caller, DEADLINE_SLACK, Outcome, connect, framed, outcome};
use meshgate_e2e::faulty::{Faulty, fault};
use meshgate_e2e::{Envoy, PrivateServer};
use meshgate_game::demo::v1::echo_client::EchoClient;
use meshgate_game::demo::v1::hall_client::HallClient;
use meshgate_game::demo::v1::{EchoRequest, Empty, FailRequest};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

struct Scene {
    envoy: Envoy,
    server: Faulty,
    _other: PrivateServer,
}

/// Echoes are not to be carried out twice, so that what becomes of a lost one is seen.
const ONCE: (&str, &str) =
    (r#""service": "demo.v1.Echo", "idempotent": true,"#, r#""service": "demo.v1.Echo","#);

/// Small limits, so that a test reaches them.
const LIMITS: (&str, &str) = (
    r#""cancel": { "command": 4 },"#,
    concat!(
        r#""cancel": { "command": 4 }, "limits": { "max_frame": "16KiB", "max_in_flight": 4, "#,
        r#""bell_timeout": "1s", "partial_frame_timeout": "1s" },"#
    ),
);

impl Scene {
    async fn start(edits: &[(&str, &str)]) -> Result<Self> {
        let (server, other) = (Faulty::start().await?, PrivateServer::start()?);
        let envoy = Envoy::egress(server.address, other.address, edits)?;
        Ok(Self { envoy, server, _other: other })
    }

    /// A caller of the faulty server.
    async fn caller(&self) -> Result<Caller> {
        Caller::connect(self.envoy.listener("direct")?).await
    }

    /// What an echo that asks for a fault comes to, and the counter that tells of it.
    async fn suffers(&mut self, fault: &str, counter: &str) -> Result<Outcome> {
        let caller = self.caller().await?;
        let outcome = caller.call(ECHO, &[], &asking(fault)).await?;
        self.seen(counter).await?;
        Ok(outcome)
    }

    /// The counter, and a well-behaved caller, who notices nothing.
    async fn seen(&mut self, counter: &str) -> Result<()> {
        let name = format!("wasmcustom.meshgate.{counter}");
        self.envoy.wait_for(&name, |envoy| Ok(envoy.stat(&name)?.unwrap_or(0) > 0))?;
        self.serves().await
    }

    async fn serves(&self) -> Result<()> {
        let outcome = self.caller().await?.call(ECHO, &[], &asking("well")).await?;
        assert_eq!(outcome, Outcome::Status(0, String::new(), asking("well")));
        Ok(())
    }
}

const ECHO: &str = "/demo.v1.Echo/Echo";

fn asking(body: &str) -> Vec<u8> {
    framed(&EchoRequest { body: body.into() }.encode_to_vec())
}

fn status(status: u16, text: &str) -> Outcome {
    Outcome::Status(status, text.into(), vec![])
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frame_end_the_connection_and_its_calls() -> Result<()> {
    let mut scene = Scene::start(&[ONCE]).await?;
    let not_understood = status(14, "the server's answer cannot be understood");
    let found = scene.suffers(fault::GARBAGE, "upstream_errors_total.kind.bad_magic").await?;
    assert_eq!(found, not_understood);
    let counter = "upstream_errors_total.kind.length_too_small";
    assert_eq!(scene.suffers(fault::WRONG_LENGTH, counter).await?, not_understood);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_wrong_fail_their_call_alone() -> Result<()> {
    let mut scene = Scene::start(&[ONCE]).await?;
    let counter = "upstream_errors_total.kind.wrong_command";
    let found = scene.suffers(fault::WRONG_COMMAND, counter).await?;
    assert_eq!(found, status(13, "the server answered another command"));
    let counter = "upstream_errors_total.kind.unsolicited";
    // Nobody listens.
    let found = scene.suffers(fault::PUSH, counter).await?;
    assert_eq!(found, Outcome::Status(0, String::new(), asking(fault::PUSH)));
    let counter = "upstream_errors_total.kind.unknown_sequence";
    let began = Instant::now();
    let found = scene.suffers(fault::WRONG_SEQUENCE, counter).await?;
    assert_eq!(found, status(4, "the server did not answer in time"));
    assert!(began.elapsed() < Duration::from_secs(2) + DEADLINE_SLACK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_cannot_be_read_fail_and_what_nobody_waits_for_is_dropped() -> Result<()> {
    let compression = [
        (r#""error": 3}}}"#, r#""error": 3, "compressed": 4}}}"#),
        (
            r#""byte_order": "big","#,
            r#""byte_order": "big", "compression": { "algorithm": "zlib" },"#,
        ),
    ];
    let mut scene = Scene::start(&[&[ONCE], &compression[..]].concat()).await?;
    let counter = "upstream_errors_total.kind.bad_compression";
    assert_eq!(scene.suffers(fault::BAD_BODY, counter).await?.status(), Some(13));
    for (fault, counter) in [
        (fault::TWICE, "upstream_errors_total.kind.unknown_sequence"),
        (fault::REQUEST, "upstream_errors_total.kind.unsolicited"),
    ] {
        let found = scene.suffers(fault, counter).await?;
        assert_eq!(found, Outcome::Status(0, String::new(), asking(fault)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_its_messages_loses_its_stream_alone() -> Result<()> {
    let mut scene = Scene::start(&[ONCE]).await?;
    let caller = scene.caller().await?;
    let (listening, mut request) = caller.begin("/demo.v1.Hall/Listen", &[]).await?;
    request.send_data(framed(&Empty {}.encode_to_vec()).into(), true)?;
    // Its window is full, and 16 MiB wait, before the last of these.
    let flood = caller.call(ECHO, &[], &asking(fault::FLOOD)).await?;
    assert_eq!(flood, Outcome::Status(0, String::new(), asking(fault::FLOOD)));
    match outcome(listening).await {
        // In the middle of a message it can only be told by a reset.
        Outcome::Broken(text) => assert!(text.contains("excessive load"), "{text}"),
        found => assert_eq!(found.status(), Some(8), "RESOURCE_EXHAUSTED"),
    }
    scene.seen("limits_hit_total.limit.unread_responses").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_reply_ends_at_its_deadline_and_the_server_is_told() -> Result<()> {
    let scene = Scene::start(&[ONCE]).await?;
    let caller = scene.caller().await?;
    for (timeout, least) in [("400m", 390), ("1S", 990)] {
        let began = Instant::now();
        let fields = [("grpc-timeout", timeout)];
        let found = caller.call(ECHO, &fields, &asking(fault::SILENCE)).await?;
        assert_eq!(found, status(4, "the server did not answer in time"));
        let took = began.elapsed();
        let least = Duration::from_millis(least);
        assert!((least..least + DEADLINE_SLACK).contains(&took), "{took:?}");
    }
    assert_eq!(scene.server.cancels(), 2);
    scene.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_loses_calls_once() -> Result<()> {
    let mut scene = Scene::start(&[ONCE]).await?;
    let closed = status(14, "the server closed the connection");
    for fault in [fault::CLOSE, fault::CUT] {
        let counter = "connections_closed_total.reason.server_closed";
        assert_eq!(scene.suffers(fault, counter).await?, closed, "{fault}");
    }
    // A reset shows as nothing at all: the connection is gone.
    let caller = scene.caller().await?;
    let found = caller.call(ECHO, &[], &asking(fault::ABORT)).await?;
    assert!(matches!(found, Outcome::Broken(_)), "{found:?}");
    scene.serves().await
}

/// The caller behind the HTTP connection manager, whose routes try again what was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_have_been_carried_out_is_not_tried_again() -> Result<()> {
    // Both endpoints are the faulty server.
    let server = Faulty::start().await?;
    let envoy = Envoy::egress(server.address, server.address, &[])?;
    let mut client = EchoClient::new(connect(envoy.listener("callers")?).await?);
    for fault in [fault::CLOSE, fault::ABORT] {
        // An echo does no harm if it is carried out twice: the first try and three more.
        let before = server.echoes();
        let echo = EchoRequest { body: fault.into() };
        assert_eq!(client.echo(echo).await.unwrap_err().code(), Code::Unavailable, "{fault}");
        assert_eq!(server.echoes() - before, 4, "{fault}");
    }
    drop(envoy);
    let server = Faulty::start().await?;
    let once = (r#"prefix: /demo.v1.Echo/"#, r#"prefix: /demo.v1.Nothing/"#);
    let envoy = Envoy::egress(server.address, server.address, &[ONCE, once])?;
    let mut client = EchoClient::new(connect(envoy.listener("callers")?).await?);
    for fault in [fault::CLOSE, fault::ABORT] {
        let before = server.echoes();
        let echo = EchoRequest { body: fault.into() };
        assert_eq!(client.echo(echo).await.unwrap_err().code(), Code::Unavailable, "{fault}");
        assert_eq!(server.echoes() - before, 1, "{fault}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_is_not_waited_for_for_ever() -> Result<()> {
    let slow = (r#""defaults": { "deadline": "2s" }"#, r#""defaults": { "deadline": "20s" }"#);
    // The heartbeat is not answered either, which closes the connection; but the frame comes first.
    let patient = (r#""bell_timeout": "1s""#, r#""bell_timeout": "4s""#);
    let mut scene = Scene::start(&[ONCE, LIMITS, slow, patient]).await?;
    let began = Instant::now();
    let counter = "upstream_errors_total.kind.partial_frame_timeout";
    let found = scene.suffers(fault::HALF, counter).await?;
    assert!(found.status().is_none_or(|status| status == 14), "{found:?}");
    assert!(began.elapsed() < Duration::from_secs(6) + DEADLINE_SLACK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_left_and_callers_of_the_mesh_have_their_deadline() -> Result<()> {
    let mut scene = Scene::start(&[ONCE, LIMITS]).await?;
    let counter = "upstream_errors_total.kind.bell_unanswered";
    let found = scene.suffers(fault::HANG, counter).await?;
    assert!(matches!(found, Outcome::Broken(_)), "{found:?}");

    let hanging = Faulty::start().await?;
    let envoy = Envoy::egress(hanging.address, hanging.address, &[ONCE, LIMITS])?;
    let caller = Caller::connect(envoy.listener("callers")?).await?;
    let began = Instant::now();
    let hang = caller.call(ECHO, &[("grpc-timeout", "700m")], &asking(fault::HANG)).await?;
    assert_eq!(hang.status(), Some(4), "{hang:?}");
    assert!(began.elapsed() < Duration::from_millis(700) + DEADLINE_SLACK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_get_their_status_and_the_server_hears_nothing() -> Result<()> {
    let mut scene = Scene::start(&[ONCE, LIMITS]).await?;
    let caller = scene.caller().await?;
    let two = [asking("one"), asking("two")].concat();
    let large = framed(&vec![0; 17 * 1024]);
    type Fields<'a> = &'a [(&'static str, &'a str)];
    let cases: [(&str, &str, Fields<'_>, &[u8], u16); 9] = [
        ("an unknown method", "/demo.v1.Echo/Sing", &[], b"\0\0\0\0\0", 12),
        ("compressed", ECHO, &[("grpc-encoding", "gzip")], b"\x01\0\0\0\x01x", 12),
        ("two messages", ECHO, &[], &two, 12),
        ("no message", ECHO, &[], b"", 13),
        ("half a message", ECHO, &[], b"\0\0\0\0\x05abc", 13),
        ("no prefix", ECHO, &[], b"\x07\0\0\0\0", 13),
        ("too large", ECHO, &[], &large, 8),
        ("no timeout", ECHO, &[("grpc-timeout", "soon")], b"\0\0\0\0\0", 13),
        ("metadata that does not fit", ECHO, &[("x-realm", "70000")], b"\0\0\0\0\0", 3),
    ];
    for (what, path, fields, body, code) in cases {
        let found = caller.call(path, fields, body).await?;
        assert_eq!(found.status(), Some(code), "{what}: {found:?}");
    }
    assert_eq!(scene.server.echoes(), 0);
    let realm = caller.call(ECHO, &[("x-realm", "513")], &asking("realm")).await?;
    assert_eq!(realm.status(), Some(0));
    assert_eq!(scene.server.realm(), 513);
    scene.seen("peer_errors_total.kind.bad_request").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_the_login_gets_no_calls() -> Result<()> {
    let stranger = (r#""body": "egress""#, r#""body": "stranger""#);
    let mut scene = Scene::start(&[stranger]).await?;
    let caller = scene.caller().await?;
    let found = caller.call(ECHO, &[], &asking("hello")).await?;
    let Outcome::Broken(text) = &found else { panic!("{found:?}") };
    assert!(text.contains("refused"), "{text}");
    assert_eq!(scene.server.echoes(), 0);
    let counter = "wasmcustom.meshgate.logins_total.result.server_refused";
    scene.envoy.wait_stat(counter, 1)
}

/// Envoy tells of the server's end in two callbacks, between which nothing may go away.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_while_it_is_left_harms_nobody() -> Result<()> {
    let unwelcome = (r#""body": "egress""#, r#""body": "unwelcome""#);
    let scene = Scene::start(&[unwelcome]).await?;
    for _ in 0..60 {
        // The connection may be gone before the call is made.
        let found = scene.caller().await?.call(ECHO, &[], &asking("hello")).await;
        assert!(!matches!(found, Ok(Outcome::Status(..))), "{found:?}");
    }
    let log = scene.envoy.log();
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_sends_unasked_reaches_who_listens() -> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    let channel = connect(scene.envoy.listener("direct")?).await?;
    let mut lines = HallClient::new(channel.clone());
    // The head of its response comes with its first message.
    let listening = tokio::spawn(async move { lines.listen(Empty {}).await });
    let mut client = EchoClient::new(channel);
    let pushes = "wasmcustom.meshgate.pushes_total";
    let until = Instant::now() + Duration::from_secs(20);
    while scene.envoy.stat(pushes)?.unwrap_or(0) == 0 {
        assert!(Instant::now() < until);
        client.echo(EchoRequest { body: fault::PUSH.into() }).await?;
    }
    let mut stream = listening.await??.into_inner();
    let line = stream.message().await?.expect("a line");
    assert_eq!(line.text, "news");
    drop(stream);
    scene.envoy.wait_stat("wasmcustom.meshgate.calls_in_flight", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn header_fields_above_the_limit_are_refused_and_endless_ones_end_the_connection()
-> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    let caller = scene.caller().await?;
    let large = "x".repeat(17 * 1024);
    let found = caller.call(ECHO, &[("x-large", &large)], &asking("")).await?;
    assert_eq!(found.status(), Some(8), "{found:?}");

    let mut stream = TcpStream::connect(scene.envoy.listener("direct")?).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.write_all(b"\0\0\0\x01\0\0\0\0\x01").await?;
    for _ in 0..40 {
        stream.write_all(b"\0\0\0\x09\0\0\0\0\x01").await?;
    }
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await?;
    let text = String::from_utf8_lossy(&heard);
    assert!(text.contains("too many CONTINUATION frames"), "{text}");
    scene.seen("peer_errors_total.kind.http2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_in_grpc_is_told_so() -> Result<()> {
    let scene = Scene::start(&[]).await?;
    let mut stream = TcpStream::connect(scene.envoy.listener("direct")?).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: game\r\n\r\n").await?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await?;
    let text = String::from_utf8_lossy(&heard);
    assert!(text.contains("does not speak HTTP/2"), "{text}");

    let stream = TcpStream::connect(scene.envoy.listener("direct")?).await?;
    let (mut send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let request = http::Request::get("http://game/").body(())?;
    let (response, _) = send.send_request(request, true)?;
    assert_eq!(response.await?.status(), 415);
    scene.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_told_to_the_server_and_its_reply_dropped() -> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    let caller = scene.caller().await?;
    let (response, mut stream) = caller.begin(ECHO, &[]).await?;
    stream.send_data(asking(fault::SILENCE).into(), true)?;
    let server = &scene.server;
    let until = Instant::now() + Duration::from_secs(20);
    while server.echoes() == 0 {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    while server.cancels() == 0 {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
    let found = caller.call(ECHO, &[], &asking("next")).await?;
    assert_eq!(found.status(), Some(0));
    scene.seen("peer_errors_total.kind.cancelled").await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_opened_and_given_up_without_end_end_the_connection() -> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    let caller = scene.caller().await?;
    let mut sent = 0;
    // Some more are on their way when the connection ends.
    while let Ok((response, mut stream)) = caller.begin(ECHO, &[]).await {
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        sent += 1;
        assert!(sent < 100_000, "the flood goes on");
    }
    scene.seen("peer_errors_total.kind.http2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_the_server_may_have_wait_for_their_turn() -> Result<()> {
    let scene = Scene::start(&[LIMITS]).await?;
    let caller = scene.caller().await?;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..64 {
        let caller = caller.clone();
        calls.spawn(async move { (n, caller.call(ECHO, &[], &asking(&n.to_string())).await) });
    }
    while let Some(done) = calls.join_next().await {
        let (n, found) = done?;
        assert_eq!(found?, Outcome::Status(0, String::new(), asking(&n.to_string())));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_the_first_window_gets_through() -> Result<()> {
    let large = (
        r#""cancel": { "command": 4 },"#,
        r#""cancel": { "command": 4 }, "limits": { "max_frame": "1MiB" },"#,
    );
    let scene = Scene::start(&[large]).await?;
    let body = "x".repeat(900_000);
    let caller = scene.caller().await?;
    let (response, mut stream) = caller.begin(ECHO, &[]).await?;
    let mut left = bytes::Bytes::from(asking(&body));
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let room = room.expect("a live stream")?;
        let piece = left.split_to(room.min(left.len()));
        stream.send_data(piece, left.is_empty())?;
    }
    let found = outcome(response).await;
    assert!(found == Outcome::Status(0, String::new(), asking(&body)), "not what was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_server_is_told_in_its_words() -> Result<()> {
    let other = PrivateServer::start()?;
    let envoy = Envoy::egress(other.address, other.address, &[])?;
    let caller = Caller::connect(envoy.listener("direct")?).await?;
    let fail = FailRequest { code: 7, message: "not yours".into() }.encode_to_vec();
    let found = caller.call("/demo.v1.Echo/Fail", &[], &framed(&fail)).await?;
    assert_eq!(found, status(7, "not yours"));
    Ok(())
}
