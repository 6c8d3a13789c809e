//! Logins through a real companion: Noise and tickets.

use std::time::Duration;

use anyhow::Result;
use meshgate_client::{Client, Connection, Credential, Error, Frame, Login, cookie};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, GameServer, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest, WhoamiReply};
use prost::Message;

const CONNECTED: &str = "wasmcustom.meshgate.companion_connected";
/// Envoy runs the plugin on its main thread too, beside the one worker of the tests.
const BOTH: u64 = 2;

struct Scene {
    envoy: Envoy,
    companion: Companion,
    _game: GameServer,
}

impl Scene {
    fn start(bootstrap: &str, edits: &[(&str, &str)]) -> Result<Self> {
        Self::with(bootstrap, edits, Companion::start()?)
    }

    fn with(bootstrap: &str, edits: &[(&str, &str)], companion: Companion) -> Result<Self> {
        let game = GameServer::start()?;
        let backends = Backends {
            game: Some(game.address),
            companion: Some(companion.address),
            ..Backends::default()
        };
        let mut envoy = Envoy::start(bootstrap, backends, edits)?;
        envoy.wait_stat(CONNECTED, BOTH)?;
        Ok(Self { envoy, companion, _game: game })
    }

    async fn client(&self, login: &Login) -> Result<Client, Error> {
        Client::connect(self.envoy.private().expect("a listener"), login).await
    }
}

fn echo(body: &[u8]) -> Vec<u8> {
    EchoRequest { body: body.to_vec() }.encode_to_vec()
}

async fn echoes(client: &Client) -> Result<()> {
    let reply = client.call(command::ECHO, echo(b"hello")).await?;
    assert_eq!(EchoReply::decode(&reply[..])?.body, &b"hello"[..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_noise_login_seals_what_follows_and_names_the_user() -> Result<()> {
    let scene = Scene::start("noise.yaml", &[])?;
    let login = scene.companion.noise_login("ann", &["--claim", "level=7", "--claim", "age=9"])?;
    let client = scene.client(&login).await?;
    echoes(&client).await?;
    let who = WhoamiReply::decode(&client.call(command::WHOAMI, vec![]).await?[..])?;
    assert_eq!(who.metadata["x-meshgate-user"], "ann");
    assert_eq!(who.metadata["x-meshgate-claim-level"], "7");
    assert!(!who.metadata.contains_key("x-meshgate-claim-age"), "only chosen claims are told");
    assert_eq!(who.metadata["x-meshgate-session"].len(), 32);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_listed_with_the_name_of_its_proxy() -> Result<()> {
    let scene = Scene::start("ticket.yaml", &[])?;
    let _client = scene.client(&scene.companion.ticket_login("ben", &[])?).await?;
    let list = scene.companion.operate(&["session", "list", "--json"])?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    assert_eq!(list[0]["proxy"], meshgate_e2e::envoy::NODE);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_login_lets_plain_frames_through() -> Result<()> {
    let scene = Scene::start("ticket.yaml", &[])?;
    let client = scene.client(&scene.companion.ticket_login("ben", &[])?).await?;
    echoes(&client).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_the_service_before_the_login() -> Result<()> {
    let mut scene = Scene::start("ticket.yaml", &[])?;
    let mut connection = Connection::connect(scene.envoy.private()?).await?;
    connection.send(&Frame::request(command::ECHO, 5, echo(b"let me in"))).await?;
    let reply = connection.receive().await?.expect("a refusal");
    assert_eq!((reply.sequence, reply.status), (5, 16), "UNAUTHENTICATED");
    assert_eq!(scene.envoy.stat("cluster.game.upstream_cx_total")?, Some(0));
    scene.envoy.wait_stat("wasmcustom.meshgate.peer_errors_total.kind.denied", 1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_ticket_is_refused_with_a_reason_and_no_upstream() -> Result<()> {
    let scene = Scene::start("ticket.yaml", &[])?;
    let Credential::Ticket(genuine) = scene.companion.ticket("ann", &[])? else { unreachable!() };
    let (signed, signature) = genuine.rsplit_once('.').expect("a signature");
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = Login::Ticket(Credential::Ticket(format!("{signed}.{other}{}", &signature[1..])));
    let Err(Error::Refused { status, .. }) = scene.client(&forged).await else {
        panic!("a forged ticket got in")
    };
    assert_eq!(status, 16, "UNAUTHENTICATED");
    assert_eq!(scene.envoy.stat("cluster.game.upstream_cx_total")?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_ticket_does_not_log_in_twice_by_noise() -> Result<()> {
    let scene = Scene::start("noise.yaml", &[])?;
    let login = scene.companion.noise_login("ann", &[])?;
    echoes(&scene.client(&login).await?).await?;
    assert!(matches!(scene.client(&login).await, Err(Error::Refused { .. })));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_session_hears_why_and_is_closed() -> Result<()> {
    let scene = Scene::start("noise.yaml", &[])?;
    let client = scene.client(&scene.companion.noise_login("ann", &[])?).await?;
    echoes(&client).await?;
    scene.companion.operate(&["session", "kick", "--user", "ann", "--reason", "cheating"])?;
    let closed = tokio::time::timeout(Duration::from_secs(10), client.closed()).await?;
    assert_eq!(closed.goodbye.as_deref(), Some("cheating"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_a_kick_is_the_status_of_the_goodbye() -> Result<()> {
    let scene = Scene::start("noise.yaml", &[])?;
    let mut connection = Connection::connect(scene.envoy.private()?).await?;
    connection.login(&scene.companion.noise_login("ann", &[])?).await?;
    connection.send(&Frame::request(command::ECHO, 1, echo(b"hello"))).await?;
    assert_eq!(connection.receive().await?.expect("the echo").sequence, 1);
    let kick = ["session", "kick", "--user", "ann", "--reason", "cheating", "--code", "4711"];
    scene.companion.operate(&kick)?;
    let goodbye = connection.receive().await?.expect("a goodbye");
    assert_eq!((goodbye.command, goodbye.status), (command::GOODBYE, 4711));
    assert_eq!(goodbye.body, b"cheating");
    assert_eq!(connection.receive().await?, None, "then it closes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_on_without_the_companion_and_logins_say_try_again() -> Result<()> {
    let mut scene = Scene::start("noise.yaml", &[])?;
    let client = scene.client(&scene.companion.noise_login("ann", &[])?).await?;
    echoes(&client).await?;
    let late = scene.companion.noise_login("ben", &[])?;
    scene.companion.process.kill();
    scene.envoy.wait_stat(CONNECTED, 0)?;
    echoes(&client).await?;
    let Err(Error::Refused { status, text }) = scene.client(&late).await else {
        panic!("a login without a companion")
    };
    assert_eq!(status, 14, "UNAVAILABLE: {text}");
    scene.companion.restart()?;
    scene.envoy.wait_stat(CONNECTED, BOTH)?;
    echoes(&scene.client(&late).await?).await?;
    echoes(&client).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_cookies_a_login_takes_two_connections_and_no_service_sees_the_first() -> Result<()> {
    for bootstrap in ["noise.yaml", "ticket.yaml"] {
        let companion = Companion::with(&["login.cookie=always"])?;
        let mut scene = Scene::with(bootstrap, &[], companion)?;
        let login = match bootstrap {
            "noise.yaml" => scene.companion.noise_login("ann", &[])?,
            _ => scene.companion.ticket_login("ann", &[])?,
        };
        let mut connection = Connection::connect(scene.envoy.private()?).await?;
        let Err(refused) = connection.login(&login).await else {
            panic!("no cookie was asked for")
        };
        assert!(cookie(&refused).is_some(), "{refused}");
        assert!(matches!(refused, Error::Refused { status: 10, .. }), "ABORTED");
        assert_eq!(connection.receive().await?, None, "then it closes");
        assert_eq!(scene.envoy.stat("cluster.game.upstream_cx_total")?, Some(0));
        scene.envoy.wait_stat("wasmcustom.meshgate.logins_total.result.cookie", 1)?;

        let client = scene.client(&login).await?;
        echoes(&client).await?;
        // It comes back as it came.
        let back = client.resumption(&login).expect("a token");
        drop(client);
        echoes(&scene.client(&back).await?).await?;
    }
    Ok(())
}
