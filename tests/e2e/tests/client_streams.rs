//! Streams of a client's messages, through a real Envoy to real gRPC servers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::{Client, Connection, Flags, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::reluctant::Sleep;
use meshgate_e2e::{Companion, Envoy, GameServer, Reluctant, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest, EnterReply, EnterRequest, Line, SayRequest};
use prost::Message;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const CONVERSE: &str = "/demo.v1.Echo/Converse";

fn start(bootstrap: &str, service: SocketAddr, edits: &[(&str, &str)]) -> Result<Envoy> {
    let backends = Backends { game: Some(service), second: Some(service), ..Backends::default() };
    Envoy::start(bootstrap, backends, edits)
}

async fn connect(envoy: &Envoy) -> Result<Connection> {
    let mut connection = Connection::connect(envoy.private()?).await?;
    connection.login(&Login::None).await?;
    Ok(connection)
}

fn echo(body: &[u8]) -> Vec<u8> {
    EchoRequest { body: body.to_vec() }.encode_to_vec()
}

async fn send(connection: &mut Connection, command: u32, sequence: u32, body: &[u8]) -> Result<()> {
    let body = if body.is_empty() { Vec::new() } else { echo(body) };
    Ok(connection.send(&Frame::request(command, sequence, body)).await?)
}

async fn next(connection: &mut Connection) -> Result<Frame> {
    let frame = tokio::time::timeout(PATIENCE, connection.receive()).await;
    frame.context("no frame came in time")??.context("the connection ended")
}

/// The next frame is a message of this stream.
async fn hears(connection: &mut Connection, sequence: u32, body: &[u8]) -> Result<()> {
    let push = next(connection).await?;
    assert!(push.flags.has(Flags::PUSH), "{push:?}");
    assert_eq!((push.command, push.sequence), (command::CONVERSED, sequence));
    let heard = EchoReply::decode(&push.into_body().context("a body")?[..])?;
    assert!(heard.body == body, "not what was said");
    Ok(())
}

/// The next frame is the reply to this sequence; its status.
async fn ends(connection: &mut Connection, sequence: u32) -> Result<u16> {
    let end = next(connection).await?;
    assert!(end.flags.has(Flags::REPLY) && end.sequence == sequence, "{end:?}");
    Ok(end.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_until_the_client_ends_them() -> Result<()> {
    let game = GameServer::start()?;
    for bootstrap in ["direct.yaml", "routed.yaml"] {
        let mut envoy = start(bootstrap, game.address, &[])?;
        let mut connection = connect(&envoy).await?;
        send(&mut connection, command::CONVERSE, 7, b"").await?;
        send(&mut connection, command::CONVERSE, 8, b"first").await?;
        hears(&mut connection, 8, b"first").await?;
        for n in 0..50_u8 {
            send(&mut connection, command::SEND, 7, &[n; 100]).await?;
            hears(&mut connection, 7, &[n; 100]).await?;
        }
        send(&mut connection, command::CLOSE, 7, b"").await?;
        assert_eq!(ends(&mut connection, 7).await?, 0);
        // What belongs to no stream is dropped, and the other goes on.
        send(&mut connection, command::SEND, 7, b"late").await?;
        send(&mut connection, command::CLOSE, 8, b"last").await?;
        hears(&mut connection, 8, b"last").await?;
        assert_eq!(ends(&mut connection, 8).await?, 0);
        envoy.wait_stat("wasmcustom.meshgate.peer_errors_total.kind.no_such_stream", 1)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_upload_arrives_whole_and_calls_go_on_beside_it() -> Result<()> {
    let game = GameServer::start()?;
    // No call may end for another reason than its answer.
    let edits = [
        (r#""deadline": "2s""#, r#""deadline": "60s""#),
        (r#""statuses":"#, r#""limits": { "max_in_flight": 1000 }, "statuses":"#),
    ];
    let envoy = start("direct.yaml", game.address, &edits)?;
    let connection = connect(&envoy).await?;
    let Connection { mut sender, mut receiver } = connection;
    // Of its reply no more than 4 MiB would be taken.
    let parts = 100_u32;
    let sending = tokio::spawn(async move {
        let frame = |command, sequence, body| Frame::request(command, sequence, body);
        sender.send(&frame(command::GATHER, 7, vec![])).await?;
        for part in 0..parts {
            let body = echo(&vec![part as u8; 40_000]);
            sender.send(&frame(command::SEND, 7, body)).await?;
            sender.send(&frame(command::ECHO, 1000 + part, echo(b"beside"))).await?;
        }
        sender.send(&frame(command::CLOSE, 7, vec![])).await?;
        anyhow::Ok(sender)
    });
    let mut calls = 0;
    let gathered = loop {
        let frame = tokio::time::timeout(PATIENCE, receiver.receive()).await??;
        let frame = frame.context("the connection ended")?;
        assert_eq!(frame.status, 0, "{}", frame.sequence);
        if frame.sequence == 7 {
            break frame.into_body().context("a body")?;
        }
        calls += 1;
    };
    sending.await??;
    let expected: Vec<u8> = (0..parts).flat_map(|part| vec![part as u8; 40_000]).collect();
    assert!(EchoReply::decode(&gathered[..])?.body == expected, "not what was sent");
    assert_eq!(calls, parts);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn players_chat_in_a_stream_of_sealed_frames() -> Result<()> {
    let (game, companion) = (GameServer::start()?, Companion::start()?);
    let backends = Backends {
        game: Some(game.address),
        companion: Some(companion.address),
        ..Backends::default()
    };
    let mut envoy = Envoy::start("noise.yaml", backends, &[])?;
    envoy.wait_stat("wasmcustom.meshgate.companion_connected", 2)?;
    let mut players = Vec::new();
    for name in ["ann", "bob"] {
        let login = companion.noise_login(name, &[])?;
        let client = Client::connect(envoy.private()?, &login).await?;
        let enter = EnterRequest { name: name.into() }.encode_to_vec();
        let entered = EnterReply::decode(&client.call(command::ENTER, enter).await?[..])?;
        let id = entered.player.context("a player")?.id;
        let chat = client.open(command::CHAT, command::SEND, command::CLOSE, vec![]).await?;
        players.push((client, id, chat));
    }
    let say = |id, text: &str| SayRequest { player_id: id, text: text.into() }.encode_to_vec();
    let [(_, ann, to_ann), (_, bob, to_bob)] = &mut players[..] else { unreachable!() };
    // Each hears itself first, so that it listens when the other speaks.
    for (id, chat) in [(*ann, &mut *to_ann), (*bob, &mut *to_bob)] {
        chat.send(say(id, "hello")).await?;
        let heard = loop {
            let frame = chat.next().await?;
            let line = Line::decode(&frame.into_body().context("a body")?[..])?;
            if line.player_id == id {
                break line;
            }
        };
        assert_eq!(heard.text, "hello");
    }
    to_bob.send(say(*bob, "hi, ann")).await?;
    let line = loop {
        let line = Line::decode(&to_ann.next().await?.into_body().context("a body")?[..])?;
        if line.text != "hello" {
            break line;
        }
    };
    assert_eq!((line.player_id, &*line.text), (*bob, "hi, ann"));
    to_ann.close(vec![]).await?;
    let end = loop {
        let frame = to_ann.next().await?;
        if frame.flags.has(Flags::REPLY) {
            break frame;
        }
    };
    assert_eq!(end.status, 0);
    // What a stream is refused, its service says in its words.
    to_bob.send(say(99, "who am I")).await?;
    let end = loop {
        let frame = to_bob.next().await?;
        if frame.flags.has(Flags::REPLY) {
            break frame;
        }
    };
    assert_eq!(end.status, 5, "NOT_FOUND");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_service_does_not_read_ends_and_calls_go_on() -> Result<()> {
    let service = Reluctant::asleep(Sleep::In(CONVERSE)).await?;
    let mut envoy = start("direct.yaml", service.address, &[])?;
    let mut connection = connect(&envoy).await?;
    send(&mut connection, command::CONVERSE, 7, b"").await?;
    // 64 KiB are in its window, and as many wait.
    for sequence in 100..112 {
        send(&mut connection, command::SEND, 7, &[1; 16_000]).await?;
        send(&mut connection, command::ECHO_BYTES, sequence, b"x").await?;
    }
    let (mut replies, mut end) = (0, None);
    while replies < 12 || end.is_none() {
        let frame = next(&mut connection).await?;
        match frame.sequence {
            7 => assert!(end.replace(frame.status).is_none(), "it ends once"),
            _ => {
                assert_eq!(frame.status, 0);
                replies += 1;
            }
        }
    }
    assert_eq!(end, Some(8), "RESOURCE_EXHAUSTED");
    envoy.wait_stat("wasmcustom.meshgate.limits_hit_total.limit.max_stream_unsent", 1)?;
    assert_eq!(envoy.stat("wasmcustom.meshgate.pauses_total")?.unwrap_or(0), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_to_wait_for_a_full_stream_loses_nothing_of_it() -> Result<()> {
    let service = Reluctant::asleep(Sleep::In(CONVERSE)).await?;
    let pause = (r#""stream_idle": "60s""#, r#""stream_idle": "60s", "when_full": "pause""#);
    let mut envoy = start("direct.yaml", service.address, &[pause])?;
    let Connection { mut sender, receiver } = connect(&envoy).await?;
    let parts = 200_u32;
    let sending = tokio::spawn(async move {
        sender.send(&Frame::request(command::CONVERSE, 7, vec![])).await?;
        for part in 0..parts {
            let body = echo(&vec![part as u8; 16_000]);
            sender.send(&Frame::request(command::SEND, 7, body)).await?;
        }
        sender.send(&Frame::request(command::CLOSE, 7, vec![])).await?;
        anyhow::Ok(sender)
    });
    envoy.wait_stat("wasmcustom.meshgate.connections_paused", 1)?;
    service.wake();
    let sender = sending.await??;
    let mut connection = Connection { sender, receiver };
    for part in 0..parts {
        hears(&mut connection, 7, &vec![part as u8; 16_000]).await?;
    }
    assert_eq!(ends(&mut connection, 7).await?, 0);
    envoy.wait_stat("wasmcustom.meshgate.connections_paused", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_in_time_and_number_and_end_when_misused() -> Result<()> {
    let game = GameServer::start()?;
    let edits = [
        (r#""stream_idle": "60s""#, r#""stream_idle": "1s""#),
        (r#""statuses":"#, r#""limits": { "max_streams": 2 }, "statuses":"#),
    ];
    let envoy = start("direct.yaml", game.address, &edits)?;
    let mut connection = connect(&envoy).await?;
    send(&mut connection, command::CONVERSE, 7, b"").await?;
    assert_eq!(ends(&mut connection, 7).await?, 4, "DEADLINE_EXCEEDED");

    for sequence in [8, 9, 10] {
        send(&mut connection, command::GATHER, sequence, b"").await?;
    }
    assert_eq!(ends(&mut connection, 10).await?, 8, "RESOURCE_EXHAUSTED");

    send(&mut connection, command::CLOSE, 8, b"").await?;
    assert_eq!(ends(&mut connection, 8).await?, 0);
    send(&mut connection, command::CANCEL, 9, b"").await?;
    assert_eq!(ends(&mut connection, 9).await?, 1, "CANCELLED");

    // A body that says that it is compressed, and is not.
    send(&mut connection, command::GATHER, 11, b"").await?;
    let bad = Frame { flags: Flags::COMPRESSED, ..Frame::request(command::SEND, 11, *b"not zlib") };
    connection.send_raw(&bad.encode()).await?;
    assert_eq!(ends(&mut connection, 11).await?, 3, "INVALID_ARGUMENT");

    let service = Reluctant::asleep(Sleep::In("/demo.v1.Echo/Gather")).await?;
    let envoy = start("direct.yaml", service.address, &[])?;
    let mut connection = connect(&envoy).await?;
    send(&mut connection, command::GATHER, 7, b"").await?;
    send(&mut connection, command::CLOSE, 7, b"").await?;
    send(&mut connection, command::SEND, 7, b"after the end").await?;
    assert_eq!(ends(&mut connection, 7).await?, 9, "FAILED_PRECONDITION");
    Ok(())
}
