//! Private clients of a private server: sessions, the table of commands and pushes in front of a
//! server that knows nothing of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use meshgate_client::{CallError, Client, Flags, Frame, Login};
use meshgate_e2e::faulty::{Faulty, fault};
use meshgate_e2e::{Companion, Envoy, PrivateServer, command};
use meshgate_game::demo::v1::{
    EchoReply, EchoRequest, EnterReply, EnterRequest, FailRequest, LookReply, SayRequest,
    SlowRequest,
};
use prost::Message;

struct Scene {
    envoy: Envoy,
    companion: Companion,
    _server: PrivateServer,
}

impl Scene {
    fn start() -> Result<Self> {
        let (server, companion) = (PrivateServer::start()?, Companion::start()?);
        let envoy = Envoy::relay(server.address, Some(&companion), &[])?;
        Ok(Self { envoy, companion, _server: server })
    }

    async fn player(&self, name: &str) -> Result<Client> {
        let login = self.companion.noise_login(name, &["--claim", "level=7"])?;
        Ok(Client::connect(self.envoy.private()?, &login).await?)
    }

    /// Clients of both listeners.
    async fn clients(&self) -> Result<[(&'static str, Client); 2]> {
        Ok([("noise", self.player("ann").await?), ("trusted", self.envoy.trusted().await?)])
    }
}

fn echo(body: &[u8]) -> Vec<u8> {
    EchoRequest { body: body.to_vec() }.encode_to_vec()
}

fn status(outcome: Result<Vec<u8>, CallError>) -> (u16, String) {
    match outcome {
        Err(CallError::Status { status, text }) => (status, text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_reaches_the_private_server_and_comes_back() -> Result<()> {
    let scene = Scene::start()?;
    for (way, client) in scene.clients().await? {
        for size in [0, 1, 1000, 16_384, 60_000] {
            let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let reply = client.call(command::ECHO, echo(&body)).await?;
            assert!(EchoReply::decode(&reply[..])?.body == body, "{way}: size {size}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_game_is_played() -> Result<()> {
    let mut scene = Scene::start()?;
    for (_, client) in scene.clients().await? {
        let enter = EnterRequest { name: "ann".into() }.encode_to_vec();
        let reply = EnterReply::decode(&client.call(command::ENTER, enter).await?[..])?;
        let player_id = reply.player.expect("a player").id;
        let say = SayRequest { player_id, text: "hi".into() }.encode_to_vec();
        client.one_way(command::SAY, say).await?;
        let look = LookReply::decode(&client.call(command::LOOK, vec![]).await?[..])?;
        assert_eq!(look.lines.last().map(|line| line.text.as_str()), Some("hi"));
        let heartbeat = Frame::request(command::HEARTBEAT, 0, *b"alive");
        assert_eq!(client.call_frame(heartbeat).await?.body, b"alive");
    }
    for name in ["1001_1002.code.OK", "1003_Say.code.OK", "1004_1005.code.OK"] {
        let name = format!("wasmcustom.meshgate.calls_total.command.{name}");
        scene.envoy.wait_stat(&name, 2)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_failure_is_told_in_its_own_words() -> Result<()> {
    let scene = Scene::start()?;
    for (way, client) in scene.clients().await? {
        let fail = FailRequest { code: 5, message: "no such player: 50 % ü".into() };
        let found = status(client.call(command::FAIL, fail.encode_to_vec()).await);
        assert_eq!(found, (5, "no such player: 50 % ü".into()), "{way}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_table_does_not_name_never_reaches_the_server() -> Result<()> {
    let server = Faulty::start().await?;
    let mut envoy = Envoy::relay(server.address, None, &[])?;
    let client = envoy.trusted().await?;
    let unknown = status(client.call(9999, vec![]).await);
    assert_eq!(unknown, (12, "unknown command 9999".into()));
    // The frame that begins a connection is the filter's.
    assert_eq!(status(client.call(command::LOGIN, b"stranger".to_vec()).await).0, 12);
    assert_eq!(server.connections(), 0);
    client.call(command::ECHO, echo(b"known")).await?;
    assert_eq!((server.connections(), server.echoes()), (1, 1));
    envoy.wait_stat("wasmcustom.meshgate.peer_errors_total.kind.unknown_command", 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_are_overtaken_and_deadlines_told_in_time() -> Result<()> {
    let scene = Scene::start()?;
    for (way, client) in scene.clients().await? {
        let slow = |millis| SlowRequest { millis, body: b"slow".to_vec() }.encode_to_vec();
        let late = client.call(command::SLOW, slow(500));
        let fast = async {
            client.call(command::ECHO, echo(b"fast")).await?;
            Ok::<_, CallError>(Instant::now())
        };
        let late = async { Ok::<_, CallError>((late.await?, Instant::now())) };
        let ((reply, slow_at), fast_at) = tokio::try_join!(late, fast)?;
        assert_eq!(EchoReply::decode(&reply[..])?.body, b"slow");
        assert!(fast_at < slow_at, "{way}");

        let began = Instant::now();
        let missed = status(client.call(command::SLOW, slow(2600)).await);
        assert_eq!(missed.0, 4, "{way}: {missed:?}");
        assert!(began.elapsed() > Duration::from_millis(1990), "{way}");
        // The reply comes nevertheless, and is nobody's.
        client.call(command::SLOW, slow(1000)).await?;
        client.call(command::ECHO, echo(b"still there")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_told_who_it_is_whatever_the_client_says() -> Result<()> {
    let (server, companion) = (Faulty::start().await?, Companion::start()?);
    let envoy = Envoy::relay(server.address, Some(&companion), &[])?;
    let login = companion.noise_login("ann", &["--claim", "level=7"])?;
    let client = Client::connect(envoy.private()?, &login).await?;
    client.call(command::ECHO, echo(b"who")).await?;
    assert_eq!(server.realm(), 7);
    // A claim that fits no field of 16 bits.
    let login = companion.noise_login("ben", &["--claim", "level=high"])?;
    let client = Client::connect(envoy.private()?, &login).await?;
    let found = status(client.call(command::ECHO, echo(b"who")).await);
    assert_eq!(found, (9, "the server cannot be told who you are".into()));
    assert_eq!(server.echoes(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_field_is_overwritten() -> Result<()> {
    let (server, companion) = (Faulty::start().await?, Companion::start()?);
    let plain = [
        (r#""mode": "noise","#, r#""mode": "ticket", "trusted": true,"#),
        (
            r#"{ "service": "demo.v1.Echo","#,
            r#"{ "service": "demo.v1.Echo", "login": "not_required","#,
        ),
    ];
    let envoy = Envoy::relay(server.address, Some(&companion), &plain)?;
    for (login, expected) in
        [(Login::None, 0), (companion.ticket_login("ann", &["--claim", "level=9"])?, 9)]
    {
        let client = Client::connect(envoy.private()?, &login).await?;
        let mut forged = Frame::request(command::ECHO, 77, echo(b"forged")).encode();
        forged[18..20].copy_from_slice(&[0x7f, 0xff]);
        client.send_raw(&forged).await?;
        let reply = client.next_push().await.expect("a reply");
        assert_eq!((reply.sequence, reply.flags, reply.status), (77, Flags::REPLY, 0));
        assert_eq!(server.realm(), expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_the_server_without_a_login() -> Result<()> {
    let (server, companion) = (Faulty::start().await?, Companion::start()?);
    let mut envoy = Envoy::relay(server.address, Some(&companion), &[])?;
    let stranger = Client::connect(envoy.private()?, &Login::None).await?;
    let found = status(stranger.call(command::ECHO, echo(b"let me in")).await);
    assert_eq!(found.0, 16, "{found:?}");
    stranger.closed().await;
    let other = Companion::start()?;
    let forged = other.noise_login("eve", &[])?;
    assert!(Client::connect(envoy.private()?, &forged).await.is_err());
    assert_eq!(server.connections(), 0);
    envoy.wait_stat("cluster.private-server.upstream_cx_total", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_reach_the_client_by_the_table_and_others_are_dropped() -> Result<()> {
    let (server, companion) = (Faulty::start().await?, Companion::start()?);
    let mut envoy = Envoy::relay(server.address, Some(&companion), &[])?;
    let login = companion.noise_login("ann", &[])?;
    for client in [Client::connect(envoy.private()?, &login).await?, envoy.trusted().await?] {
        client.call(command::ECHO, echo(fault::PUSH.as_bytes())).await?;
        let push = client.next_push().await.expect("a push");
        assert_eq!((push.command, push.flags, push.sequence), (command::LINE, Flags::PUSH, 0));
    }
    envoy.wait_stat("wasmcustom.meshgate.pushes_total", 2)?;
    let none = (r#""pushes": { "commands": [1206] }"#, r#""pushes": { "commands": [1207] }"#);
    let mut envoy = Envoy::relay(server.address, None, &[none])?;
    let client = envoy.trusted().await?;
    client.call(command::ECHO, echo(fault::PUSH.as_bytes())).await?;
    envoy.wait_stat("wasmcustom.meshgate.upstream_errors_total.kind.unsolicited", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_and_a_push_of_the_companion_arrive_while_the_server_is_silent() -> Result<()> {
    let scene = Scene::start()?;
    let client = scene.player("ann").await?;
    client.call(command::ECHO, echo(b"")).await?;
    scene.companion.operate(&["session", "kick", "--user", "ann", "--reason", "good night"])?;
    assert_eq!(client.closed().await.goodbye.as_deref(), Some("good night"));
    Ok(())
}
