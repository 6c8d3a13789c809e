//! Server streams as pushes, heartbeats and cancels, through a real Envoy.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use meshgate_client::{CallError, Client, Connection, Flags, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Envoy, GameServer, command};
use meshgate_game::demo::v1::{
    EchoReply, EchoRequest, EnterReply, EnterRequest, Line, RepeatRequest, SayRequest,
};
use prost::Message;

/// How long a message may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    envoy: Envoy,
    _game: GameServer,
}

impl Scene {
    fn start(bootstrap: &str, edits: &[(&str, &str)]) -> Result<Self> {
        let game = GameServer::start()?;
        let address = Some(game.address);
        let backends = Backends { game: address, second: address, ..Backends::default() };
        Ok(Self { envoy: Envoy::start(bootstrap, backends, edits)?, _game: game })
    }

    async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.envoy.private()?, &Login::None).await?)
    }

    async fn connection(&self) -> Result<Connection> {
        let mut connection = Connection::connect(self.envoy.private()?).await?;
        connection.login(&Login::None).await?;
        Ok(connection)
    }
}

fn repeat(body: &[u8], times: u32, millis: u32, code: u32) -> Vec<u8> {
    RepeatRequest { body: body.to_vec(), times, millis, code }.encode_to_vec()
}

/// Bytes that compression cannot make small.
fn noise(length: usize) -> Vec<u8> {
    let mut random = 1_u64;
    std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

async fn next_push(client: &Client) -> Result<Frame> {
    let push = tokio::time::timeout(PATIENCE, client.next_push()).await;
    push.context("no push came in time")?.context("the connection ended")
}

async fn next_frame(connection: &mut Connection) -> Result<Frame> {
    let frame = tokio::time::timeout(PATIENCE, connection.receive()).await;
    frame.context("no frame came in time")??.context("the connection ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_messages_are_pushes_and_its_end_the_reply() -> Result<()> {
    for bootstrap in ["direct.yaml", "routed.yaml"] {
        let scene = Scene::start(bootstrap, &[])?;
        let mut connection = scene.connection().await?;
        connection.send(&Frame::request(command::REPEAT, 7, repeat(b"tick", 3, 1, 0))).await?;
        for _ in 0..3 {
            let push = next_frame(&mut connection).await?;
            assert!(push.flags.has(Flags::PUSH), "{push:?}");
            assert_eq!((push.command, push.sequence, push.status), (command::REPEATED, 7, 0));
            let body = push.into_body().context("a body")?;
            assert_eq!(EchoReply::decode(&body[..])?.body, b"tick");
        }
        let end = next_frame(&mut connection).await?;
        assert!(end.flags.has(Flags::REPLY), "{end:?}");
        assert_eq!((end.command, end.sequence, end.status), (command::REPEAT, 7, 0));
        assert!(end.body.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_says_why_after_its_messages() -> Result<()> {
    let scene = Scene::start("direct.yaml", &[])?;
    let mut connection = scene.connection().await?;
    connection.send(&Frame::request(command::REPEAT, 7, repeat(b"tick", 1, 0, 5))).await?;
    assert!(next_frame(&mut connection).await?.flags.has(Flags::PUSH));
    let end = next_frame(&mut connection).await?;
    assert_eq!((end.command, end.sequence, end.status), (command::REPEAT, 7, 5));
    assert!(end.flags.has(Flags::ERROR));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_player_says_is_pushed_to_those_who_listen() -> Result<()> {
    let scene = Scene::start("direct.yaml", &[])?;
    let (speaker, listener) = (scene.client().await?, scene.client().await?);
    listener.send(&Frame::request(command::LISTEN, 500, Vec::new())).await?;
    let enter = EnterRequest { name: "ann".into() }.encode_to_vec();
    let entered = EnterReply::decode(&speaker.call(command::ENTER, enter).await?[..])?;
    let player_id = entered.player.context("a player")?.id;
    // Until the first line that was said after the service began to listen.
    let (line, said) = loop {
        let said = SayRequest { player_id, text: "hi".into() };
        speaker.one_way(command::SAY, said.encode_to_vec()).await?;
        let push = tokio::time::timeout(Duration::from_millis(200), listener.next_push()).await;
        if let Ok(push) = push {
            break (push.context("the connection ended")?, said);
        }
    };
    assert_eq!((line.command, line.sequence), (command::LINE, 500));
    let heard = Line::decode(&line.into_body().context("a body")?[..])?;
    assert_eq!((heard.player_id, heard.text), (player_id, said.text));
    // Ordinary calls go on beside it.
    let echo = EchoRequest { body: b"x".to_vec() }.encode_to_vec();
    listener.call(command::ECHO, echo).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_a_stream_and_a_call() -> Result<()> {
    let mut scene = Scene::start("direct.yaml", &[])?;
    let mut connection = scene.connection().await?;
    connection.send(&Frame::request(command::LISTEN, 7, Vec::new())).await?;
    // Its reply proves that the stream before it has begun.
    let echo = EchoRequest { body: b"x".to_vec() }.encode_to_vec();
    connection.send(&Frame::request(command::ECHO, 8, echo)).await?;
    assert_eq!(next_frame(&mut connection).await?.sequence, 8);
    connection.send(&Frame::request(command::CANCEL, 7, Vec::new())).await?;
    let end = next_frame(&mut connection).await?;
    assert_eq!((end.command, end.sequence, end.status), (command::LISTEN, 7, 1));
    let name = "wasmcustom.meshgate.calls_total.command.1006_Listen.code.CANCELLED";
    scene.envoy.wait_stat(name, 1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_slows_its_stream_and_loses_nothing_of_it() -> Result<()> {
    let scene = Scene::start("direct.yaml", &[])?;
    let mut connection = scene.connection().await?;
    let body = noise(16 * 1024);
    let times = 2_000;
    connection.send(&Frame::request(command::REPEAT, 7, repeat(&body, times, 0, 0))).await?;
    // 32 MiB would come if nothing held them back.
    let mut held = 0;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
        held = scene.envoy.stat("wasmcustom.meshgate.pushes_total")?.unwrap_or_default();
    }
    assert!(held < u64::from(times) * 3 / 4, "{held} of {times} pushes were made for nobody");
    for _ in 0..times {
        let push = next_frame(&mut connection).await?;
        assert_eq!(EchoReply::decode(&push.into_body().context("a body")?[..])?.body, body);
    }
    assert_eq!(next_frame(&mut connection).await?.status, 0);
    Ok(())
}

/// What stands in front of a reply is what was on its way when it was asked for, not the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_clients_calls_do_not_wait_for_the_whole_of_its_streams() -> Result<()> {
    const STREAMS: u32 = 8;
    let slow = (r#""deadline": "2s""#, r#""deadline": "60s""#);
    let scene = Scene::start("direct.yaml", &[slow])?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(32 << 10)?;
    let (reader, writer) = socket.connect(scene.envoy.private()?).await?.into_split();
    let mut connection = Connection::over(reader, writer);
    let body = noise(16 * 1024);
    for sequence in 1..=STREAMS {
        let request = Frame::request(command::REPEAT, sequence, repeat(&body, 2_000, 0, 0));
        connection.send(&request).await?;
    }
    // It reads nothing until nothing moves.
    let pushes = || scene.envoy.stat("wasmcustom.meshgate.pushes_total");
    let (mut made, mut still) = (0, 0);
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = pushes()?.unwrap_or_default();
        still = if now == made && now > 0 { still + 1 } else { 0 };
        made = now;
    }
    let echo = EchoRequest { body: b"x".to_vec() }.encode_to_vec();
    connection.send(&Frame::request(command::ECHO, 100, echo)).await?;
    let mut before = 0;
    while next_frame(&mut connection).await?.sequence != 100 {
        before += 1;
    }
    // With a window of 64 KiB for each stream: four messages of each, beside what the sockets and
    // Envoy's buffers hold.
    let on_the_way = made + u64::from(STREAMS) * 5 + 10;
    assert!(before <= on_the_way, "{before} messages came first, {on_the_way} were on their way");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_answered_without_the_service() -> Result<()> {
    let mut scene = Scene::start("direct.yaml", &[])?;
    let mut connection = scene.connection().await?;
    for sequence in 1..4 {
        connection.send(&Frame::request(command::HEARTBEAT, sequence, *b"now")).await?;
        let answer = next_frame(&mut connection).await?;
        let got = (answer.command, answer.sequence, answer.status, &answer.body[..]);
        assert_eq!(got, (command::HEARTBEAT, sequence, 0, &b"now"[..]));
    }
    scene.envoy.wait_stat("wasmcustom.meshgate.heartbeats_total", 3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_is_closed_and_one_that_beats_is_not() -> Result<()> {
    let edits =
        [(r#""heartbeat": { "command": 3 }"#, r#""heartbeat": { "command": 3, "timeout": "1s" }"#)];
    let scene = Scene::start("direct.yaml", &edits)?;
    let (beating, silent) = (scene.client().await?, scene.client().await?);
    silent.send(&Frame::request(command::LISTEN, 500, Vec::new())).await?;
    let beats = async {
        for _ in 0..10 {
            beating.call_frame(Frame::request(command::HEARTBEAT, 0, *b"x")).await?;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok::<_, CallError>(())
    };
    let (beats, closed) = tokio::join!(beats, tokio::time::timeout(PATIENCE, silent.closed()));
    beats?;
    let closed = closed.context("it was not closed")?;
    assert_eq!(closed.goodbye.as_deref(), Some("nothing came for too long"));
    // Its stream was answered before.
    let end = next_push(&silent).await?;
    assert_eq!((end.command, end.status), (command::LISTEN, 4));
    Ok(())
}
