//! gRPC in, private frames out: callers behind the HTTP connection manager and direct ones.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use meshgate_e2e::egress::connect;
use meshgate_e2e::process::root;
use meshgate_e2e::{Envoy, PrivateServer};
use meshgate_game::demo::v1::echo_client::EchoClient;
use meshgate_game::demo::v1::hall_client::HallClient;
use meshgate_game::demo::v1::{
    EchoRequest, Empty, EnterRequest, FailRequest, MoveRequest, RepeatRequest, SayRequest,
    SlowRequest,
};
use tonic::Code;
use tonic::transport::Channel;

struct Scene {
    envoy: Envoy,
    servers: Vec<PrivateServer>,
}

impl Scene {
    /// Two private servers behind `egress.yaml`.
    fn start() -> Result<Self> {
        let servers = vec![PrivateServer::start()?, PrivateServer::start()?];
        let envoy = Envoy::egress(servers[0].address, servers[1].address, &[])?;
        Ok(Self { envoy, servers })
    }

    async fn mesh(&self) -> Result<Channel> {
        connect(self.envoy.listener("callers")?).await
    }

    async fn direct(&self) -> Result<Channel> {
        connect(self.envoy.listener("direct")?).await
    }

    /// Both ways in.
    async fn ways(&self) -> Result<[(&'static str, Channel); 2]> {
        Ok([("mesh", self.mesh().await?), ("direct", self.direct().await?)])
    }
}

fn echo(body: &[u8]) -> EchoRequest {
    EchoRequest { body: body.to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_reaches_the_private_server_and_comes_back() -> Result<()> {
    let scene = Scene::start()?;
    for (way, channel) in scene.ways().await? {
        let mut client = EchoClient::new(channel);
        for size in [0, 1, 1000, 16_384, 60_000] {
            let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let reply = client.echo(echo(&body)).await?.into_inner();
            assert!(reply.body == body, "{way}: size {size}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_game_is_played_by_a_grpc_caller() -> Result<()> {
    let scene = Scene::start()?;
    let mut hall = HallClient::new(scene.direct().await?);
    let player = hall.enter(EnterRequest { name: "ann".into() }).await?.into_inner().player;
    let player_id = player.expect("a player").id;
    let moved = hall.r#move(MoveRequest { player_id, dx: 3, dy: -2 }).await?.into_inner();
    assert!(moved.position.is_some());
    // One-way to the server, and answered to the caller.
    hall.say(SayRequest { player_id, text: "hi".into() }).await?;
    let look = hall.look(Empty {}).await?.into_inner();
    assert_eq!(look.lines[0].text, "hi");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_call_has_its_status_and_text() -> Result<()> {
    let scene = Scene::start()?;
    for (way, channel) in scene.ways().await? {
        let fail = FailRequest { code: 5, message: "no such player: 50 % ü".into() };
        let status = EchoClient::new(channel.clone()).fail(fail).await.unwrap_err();
        let expected = (Code::NotFound, "no such player: 50 % ü");
        assert_eq!((status.code(), status.message()), expected, "{way}");
        let unknown = RepeatRequest::default();
        let status = EchoClient::new(channel).repeat(unknown).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{way}: {status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_share_one_private_connection() -> Result<()> {
    let mut scene = Scene::start()?;
    let channel = scene.direct().await?;
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..100u32 {
        let mut client = EchoClient::new(channel.clone());
        callers.spawn(async move {
            for round in 0..10u32 {
                let body = [n.to_be_bytes(), round.to_be_bytes()].concat();
                assert_eq!(client.echo(echo(&body)).await?.into_inner().body, body);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    assert_eq!(scene.envoy.stat("cluster.first-server.upstream_cx_total")?, Some(1));
    scene.envoy.wait_stat("wasmcustom.meshgate.calls_total.command.1100_Echo.code.OK", 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_are_overtaken_by_fast_ones() -> Result<()> {
    let scene = Scene::start()?;
    for (way, channel) in scene.ways().await? {
        let mut client = EchoClient::new(channel.clone());
        let slow = tokio::spawn(async move {
            client.slow(SlowRequest { millis: 500, body: b"slow".to_vec() }).await
        });
        EchoClient::new(channel).echo(echo(b"fast")).await?;
        assert!(!slow.is_finished(), "{way}");
        assert_eq!(slow.await??.into_inner().body, b"slow");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_told_in_time_by_the_filter() -> Result<()> {
    let scene = Scene::start()?;
    for (way, channel) in scene.ways().await? {
        let mut client = EchoClient::new(channel);
        // The command's own deadline: what a caller sets itself, its library holds too.
        let began = Instant::now();
        let slow = SlowRequest { millis: 30_000, body: vec![] };
        let status = client.slow(slow).await.unwrap_err();
        let took = began.elapsed().as_millis();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{way}: {status}");
        assert!((1900..4000).contains(&took), "{way}: {took} ms");
        client.echo(echo(b"still there")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_balanced_over_the_private_servers() -> Result<()> {
    let mut scene = Scene::start()?;
    let mut client = EchoClient::new(scene.mesh().await?);
    for _ in 0..20 {
        client.echo(echo(b"around")).await?;
    }
    assert_eq!(scene.envoy.stat("cluster.chosen-server.upstream_cx_total")?, Some(2));
    let text = scene.envoy.get("/clusters")?;
    let totals: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("private-servers::") && line.contains("::rq_total::"))
        .collect();
    assert_eq!(totals.len(), 2, "{text}");
    assert!(totals.iter().all(|line| line.ends_with("::10")), "{totals:?}");
    // One of them goes: calls that may be carried out twice do not notice, the others fail until it
    // is left out.
    scene.servers[1].process.kill();
    for _ in 0..20 {
        client.echo(echo(b"still")).await?;
    }
    let mut hall = HallClient::new(scene.mesh().await?);
    let until = Instant::now() + Duration::from_secs(10);
    while hall.enter(EnterRequest { name: "ben".into() }).await.is_err() {
        assert!(Instant::now() < until);
    }
    for n in 0..10 {
        hall.enter(EnterRequest { name: format!("player {n}") }).await?;
    }
    Ok(())
}

/// A gRPC library that begins no call before it has heard the server's SETTINGS. Skipped where its
/// language is not installed, except in CI.
fn is_called_from(language: &str) -> Result<()> {
    let script = root().join("tests/foreign").join(language).join("start");
    let build = Command::new(&script).arg("--build").status()?;
    if build.code() == Some(77) && std::env::var_os("CI").is_none() {
        eprintln!("skipped: {language} is not installed");
        return Ok(());
    }
    assert!(build.success(), "{} --build", script.display());
    let scene = Scene::start()?;
    for listener in ["direct", "callers"] {
        let address = scene.envoy.listener(listener)?.to_string();
        let called = Command::new(&script).args(["--call", &address]).status()?;
        assert!(called.success(), "{language} by {listener}");
    }
    Ok(())
}

#[test]
fn grpc_go_calls_a_private_server() -> Result<()> {
    is_called_from("go")
}

#[test]
fn grpcio_calls_a_private_server() -> Result<()> {
    is_called_from("python")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_logged_in_to_and_kept_alive() -> Result<()> {
    let mut scene = Scene::start()?;
    let mut client = EchoClient::new(scene.direct().await?);
    client.echo(echo(b"")).await?;
    // The first bytes of a caller that waits for SETTINGS ring.
    let heartbeats = "wasmcustom.meshgate.heartbeats_total";
    scene.envoy.wait_for(heartbeats, |envoy| Ok(envoy.stat(heartbeats)?.unwrap_or(0) >= 1))
}
