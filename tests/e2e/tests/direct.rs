//! Private frames in, gRPC out over the direct path, without a login.

use std::time::Duration;

use anyhow::Result;
use meshgate_client::{CallError, Client, Connection, Flags, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Envoy, GameServer, command};
use meshgate_game::demo::v1::{
    EchoReply, EchoRequest, EnterReply, EnterRequest, FailRequest, LookReply, SayRequest,
    SlowRequest, WhoamiReply,
};
use prost::Message;

struct Scene {
    envoy: Envoy,
    _game: GameServer,
}

impl Scene {
    fn start(edits: &[(&str, &str)]) -> Result<Self> {
        let game = GameServer::start()?;
        let backends = Backends { game: Some(game.address), ..Backends::default() };
        Ok(Self { envoy: Envoy::start("direct.yaml", backends, edits)?, _game: game })
    }

    async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.envoy.private()?, &Login::None).await?)
    }
}

fn echo(body: &[u8]) -> Vec<u8> {
    EchoRequest { body: body.to_vec() }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_comes_back_with_its_reply() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let reply = client.call(command::ECHO, echo(b"hello")).await?;
    assert_eq!(EchoReply::decode(&reply[..])?.body, &b"hello"[..]);
    let reply = client.call(command::ECHO_BYTES, b"raw".to_vec()).await?;
    assert_eq!(reply, b"raw");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_game_reaches_the_service() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let enter = EnterRequest { name: "ann".into() }.encode_to_vec();
    let entered = EnterReply::decode(&client.call(command::ENTER, enter).await?[..])?;
    let player_id = entered.player.unwrap().id;
    let say = SayRequest { player_id, text: "hi".into() }.encode_to_vec();
    client.one_way(command::SAY, say).await?;
    // A call after it on the same connection is answered after it was heard; poll for its effect.
    for _ in 0..500 {
        let look = LookReply::decode(&client.call(command::LOOK, vec![]).await?[..])?;
        if look.lines.iter().any(|line| line.text == "hi") {
            return Ok(());
        }
    }
    panic!("the line was never heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_in_the_order_of_the_service_and_match_by_sequence() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let slow = SlowRequest { millis: 300, body: b"slow".to_vec() }.encode_to_vec();
    let slow_call = tokio::spawn({
        let client = client.clone();
        async move { client.call(command::SLOW, slow).await }
    });
    let fast = client.call(command::ECHO, echo(b"fast")).await?;
    assert_eq!(EchoReply::decode(&fast[..])?.body, &b"fast"[..]);
    assert!(!slow_call.is_finished(), "the fast one overtook the slow one");
    assert_eq!(EchoReply::decode(&slow_call.await??[..])?.body, &b"slow"[..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_many_sizes_come_back_whole() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    for size in [0, 1, 63, 1024, 16_383, 16_384, 16_385, 60_000] {
        let body: Vec<u8> = (0..size).map(|i| i as u8).collect();
        let reply = client.call(command::ECHO_BYTES, body.clone()).await?;
        assert_eq!(reply, body, "size {size}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pipelined_calls_all_answer() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..1000u32 {
        // Never more in flight than the limit of 128 allows.
        if calls.len() >= 100 {
            calls.join_next().await.unwrap()??;
        }
        let client = client.clone();
        calls.spawn(async move {
            let body = n.to_be_bytes().to_vec();
            let reply = client.call(command::ECHO_BYTES, body.clone()).await?;
            assert_eq!(reply, body);
            Ok::<_, CallError>(())
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}

/// A bell for each call would halve what the filter can do, and nobody would notice.
#[tokio::test(flavor = "multi_thread")]
async fn ordinary_calls_ring_no_bell() -> Result<()> {
    let mut scene = Scene::start(&[])?;
    let client = scene.client().await?;
    for _ in 0..250 {
        client.call(command::ECHO_BYTES, b"one by one".to_vec()).await?;
    }
    for _ in 0..10 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..25 {
            let client = client.clone();
            calls.spawn(async move { client.call(command::ECHO_BYTES, b"at once".to_vec()).await });
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
    }
    let bells = "wasmcustom.meshgate.bells_total";
    scene.envoy.wait_stat("wasmcustom.meshgate.calls_total.command.1101_Echo.code.OK", 500)?;
    assert_eq!(scene.envoy.stat(bells)?.unwrap_or(0), 0);
    // And the counter counts.
    client.call(4711, vec![]).await.unwrap_err();
    scene.envoy.wait_stat(bells, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_call_has_its_status_and_text() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let fail = FailRequest { code: 5, message: "no such player".into() }.encode_to_vec();
    let error = client.call(command::FAIL, fail).await.unwrap_err();
    let CallError::Status { text, .. } = &error else { panic!("{error}") };
    assert_eq!(text, "no such player");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_answered_in_time_while_nothing_else_comes() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let slow = SlowRequest { millis: 60_000, body: Vec::new() }.encode_to_vec();
    let call = client.call(command::SLOW, slow);
    let error = tokio::time::timeout(Duration::from_secs(10), call).await?.unwrap_err();
    let CallError::Status { text, .. } = &error else { panic!("{error}") };
    assert!(text.contains("in time"), "{text}");
    // The connection lives on.
    client.call(command::ECHO, echo(b"still here")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_learns_the_clients_address_and_nothing_forged() -> Result<()> {
    let scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let who = WhoamiReply::decode(&client.call(command::WHOAMI, vec![]).await?[..])?;
    let peer = who.metadata.get("x-meshgate-peer").expect("the peer's address");
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    assert!(who.metadata.contains_key("traceparent"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_when_a_client_half_closes_are_still_answered() -> Result<()> {
    let scene = Scene::start(&[])?;
    let mut connection = Connection::connect(scene.envoy.private()?).await?;
    let slow = SlowRequest { millis: 500, body: b"late".to_vec() }.encode_to_vec();
    connection.send(&Frame::request(command::SLOW, 7, slow)).await?;
    connection.send(&Frame::request(command::ECHO, 8, echo(b""))).await?;
    assert_eq!(connection.receive().await?.expect("the echo").sequence, 8);
    connection.sender.finish().await?;
    let reply = connection.receive().await?.expect("the reply");
    assert_eq!((reply.sequence, reply.status), (7, 0));
    assert!(reply.flags.has(Flags::REPLY));
    assert_eq!(connection.receive().await?, None, "then the connection ends");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_at_once_leaves_nothing_behind() -> Result<()> {
    let mut scene = Scene::start(&[])?;
    for _ in 0..20 {
        let mut connection = Connection::connect(scene.envoy.private()?).await?;
        connection.send(&Frame::request(command::ECHO, 1, echo(b"bye"))).await?;
        drop(connection);
    }
    scene.envoy.wait_stat("cluster.game.upstream_cx_active", 0)?;
    let opened = "wasmcustom.meshgate.connections_opened_total";
    scene.envoy.wait_stat(opened, 20)?;
    for gauge in ["connections", "calls_in_flight"] {
        // A gauge that was back at zero before it was ever published does not exist.
        let value = scene.envoy.stat(&format!("wasmcustom.meshgate.{gauge}"))?;
        assert_eq!(value.unwrap_or(0), 0, "{gauge}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_is_told_to_the_client() -> Result<()> {
    let mut scene = Scene::start(&[])?;
    let client = scene.client().await?;
    let slow = SlowRequest { millis: 60_000, body: Vec::new() }.encode_to_vec();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(command::SLOW, slow).await }
    });
    client.call(command::ECHO, echo(b"")).await?;
    scene._game.process.kill();
    assert!(call.await?.is_err());
    Ok(())
}
