//! What a real control plane made of the examples of `istio/`, in a real Envoy, with traffic.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::{Client, Connection, Credential, Error, Frame, Login};
use meshgate_e2e::{Companion, GameServer, Replay, Stage, command};
use meshgate_game::demo::v1::{
    EchoReply, EchoRequest, EnterReply, EnterRequest, LookReply, WhoamiReply,
};
use prost::Message;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};

const PATIENCE: Duration = Duration::from_secs(20);

/// The companion's pod, and those of the game's two versions.
const COMPANION: &str = "10.1.0.9:9443";
const GAME_V1: &str = "10.1.0.11:50051";
const GAME_V2: &str = "10.1.0.12:50051";

const DEAD_END: &str = "outbound|7000||dead-end.meshgate.svc.cluster.local";
const GAME: &str = "outbound|50051||game.game.svc.cluster.local";

/// A gateway with everything behind it.
struct Scene {
    replay: Replay,
    companion: Companion,
    _games: [GameServer; 2],
}

impl Scene {
    fn start(scenario: &str, certificate: Option<(String, String)>) -> Result<Self> {
        let games = [GameServer::start()?, GameServer::start()?];
        let companion = Companion::start()?;
        let pods = vec![
            (COMPANION, companion.address),
            (GAME_V1, games[0].address),
            (GAME_V2, games[1].address),
        ];
        let mut replay = Replay::start(scenario, &Stage { pods, certificate })?;
        // The worker's and the main thread's.
        replay.envoy.wait_stat("wasmcustom.meshgate.companion_connected", 2)?;
        Ok(Self { replay, companion, _games: games })
    }

    async fn client(&self, user: &str) -> Result<Client> {
        let login = self.companion.noise_login(user, &["--claim", "level=7"])?;
        Ok(Client::connect(self.replay.envoy.listener("0.0.0.0_7000")?, &login).await?)
    }

    /// Why a login was refused.
    async fn refusal(&self, login: &Login) -> Result<u16> {
        let refused = Client::connect(self.replay.envoy.listener("0.0.0.0_7000")?, login).await;
        let Err(Error::Refused { status, .. }) = refused else { panic!("a forger got in") };
        Ok(status)
    }

    /// A login by Noise with a ticket that somebody has written over.
    fn forged(&self) -> Result<Login> {
        let Credential::Ticket(genuine) = self.companion.ticket("ann", &[])? else {
            unreachable!()
        };
        let (signed, signature) = genuine.rsplit_once('.').context("a signature")?;
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        let credential = Credential::Ticket(format!("{signed}.{other}{}", &signature[1..]));
        Ok(Login::Noise { server: self.companion.noise_server(), credential })
    }
}

async fn echoes(client: &Client) -> Result<()> {
    let echo = EchoRequest { body: b"hello".to_vec() }.encode_to_vec();
    let reply = client.call(command::ECHO, echo).await?;
    assert_eq!(EchoReply::decode(&reply[..])?.body, b"hello");
    Ok(())
}

async fn whoami(client: &Client) -> Result<WhoamiReply> {
    Ok(WhoamiReply::decode(&client.call(command::WHOAMI, vec![]).await?[..])?)
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_direct_takes_a_login_and_calls_to_the_service() -> Result<()> {
    let scene = Scene::start("gateway-direct", None)?;
    let client = scene.client("ann").await?;
    echoes(&client).await?;
    let who = whoami(&client).await?;
    assert_eq!(who.metadata["x-meshgate-user"], "ann");
    assert_eq!(who.metadata["x-meshgate-claim-level"], "7");
    assert_eq!(scene.replay.connections(GAME)?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_direct_tells_a_refused_login_why_and_connects_it_to_no_service() -> Result<()> {
    let scene = Scene::start("gateway-direct", None)?;
    assert_eq!(scene.refusal(&scene.forged()?).await?, 16, "UNAUTHENTICATED");
    assert_eq!(scene.replay.connections(GAME)?, 0);
    assert_eq!(scene.replay.connections("outbound|7100||refusals.meshgate.internal")?, 1);
    Ok(())
}

async fn enter(client: &Client, name: &str) -> Result<u32> {
    let request = EnterRequest { name: name.into() }.encode_to_vec();
    Ok(EnterReply::decode(&client.call(command::ENTER, request).await?[..])?.players)
}

async fn players(client: &Client) -> Result<Vec<String>> {
    let look = LookReply::decode(&client.call(command::LOOK, vec![]).await?[..])?;
    Ok(look.players.into_iter().map(|player| player.name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_routed_sends_each_call_to_the_version_that_its_rule_names() -> Result<()> {
    let scene = Scene::start("gateway-routed", None)?;
    let (ann, ben) = (scene.client("ann").await?, scene.client("ben").await?);
    let tester = scene.client("tester").await?;
    assert_eq!(enter(&ann, "ann").await?, 1);
    assert_eq!(enter(&ben, "ben").await?, 2, "in one hall with ann");
    assert_eq!(enter(&tester, "tester").await?, 1, "the first in the new version's hall");
    assert_eq!(players(&ann).await?, ["ann", "ben"]);
    assert_eq!(players(&tester).await?, ["tester"]);
    echoes(&ann).await?;
    for version in ["v1", "v2"] {
        let subset = format!("outbound|50051|{version}|game.game.svc.cluster.local");
        assert_eq!(scene.replay.connections(&subset)?, 1, "{version}");
    }
    assert_eq!(scene.replay.connections(DEAD_END)?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_routed_tells_a_refused_login_why() -> Result<()> {
    let scene = Scene::start("gateway-routed", None)?;
    assert_eq!(scene.refusal(&scene.forged()?).await?, 16, "UNAUTHENTICATED");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_tls_ends_tls_before_the_filter() -> Result<()> {
    let issued = rcgen::generate_simple_self_signed(["games.example".to_owned()])?;
    let pem = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let scene = Scene::start("gateway-tls", Some(pem))?;
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone())?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let listener = scene.replay.envoy.listener("0.0.0.0_7443")?;
    let stream = TcpStream::connect(listener).await?;
    let name = ServerName::try_from("games.example")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (reader, writer) = tokio::io::split(stream);
    let login = scene.companion.ticket_login("ann", &[])?;

    let client = Client::over(Connection::over(reader, writer), &login).await?;

    echoes(&client).await?;
    assert_eq!(whoami(&client).await?.metadata["x-meshgate-user"], "ann");

    // Without TLS nobody is heard.
    let mut plain = Connection::connect(listener).await?;
    plain.send(&Frame::request(command::ECHO, 1, vec![])).await?;
    let answer = tokio::time::timeout(PATIENCE, plain.receive()).await?;
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    Ok(())
}

/// A sidecar takes what the kernel turned over to it; the golden's own rules choose its filter chain by
/// where the connection was going, and let it in by where it came from.
async fn through_sidecar(replay: &Replay, from: &str, to_port: u16) -> Result<Option<Frame>> {
    let mut connection = Connection::connect(replay.envoy.listener("virtualInbound")?).await?;
    let header = format!("PROXY TCP4 {from} 10.1.0.11 40000 {to_port}\r\n");
    connection.send_raw(header.as_bytes()).await?;
    let echo = EchoRequest { body: b"hello".to_vec() }.encode_to_vec();
    connection.send(&Frame::request(command::ECHO, 7, echo)).await?;
    let received = tokio::time::timeout(PATIENCE, connection.receive()).await?;
    // A reset is an end as good as any.
    Ok(received.ok().flatten())
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_inbound_serves_who_may_come_to_the_private_port() -> Result<()> {
    let game = GameServer::start()?;
    let issued = rcgen::generate_simple_self_signed(["game".to_owned()])?;
    let certificate = Some((issued.cert.pem(), issued.signing_key.serialize_pem()));
    let stage = Stage { pods: vec![("127.0.0.1:50051", game.address)], certificate };
    let mut replay = Replay::start("sidecar-inbound", &stage)?;

    let reply = through_sidecar(&replay, "10.9.8.7", 7000).await?.context("no reply")?;
    assert_eq!((reply.sequence, reply.status), (7, 0));
    assert_eq!(EchoReply::decode(&reply.body[..])?.body, b"hello");
    assert_eq!(replay.connections("meshgate-local")?, 1);

    // A network that the AuthorizationPolicy does not name.
    assert_eq!(through_sidecar(&replay, "192.0.2.1", 7000).await?, None);
    replay.envoy.wait_stat("tcp.rbac.denied", 1)?;
    assert_eq!(replay.connections("meshgate-local")?, 1, "the stranger's is not among them");
    // Another port of the pod: no private frames there, and no way in without mTLS.
    assert_eq!(through_sidecar(&replay, "10.9.8.7", 50051).await?, None);
    let calls = "wasmcustom.meshgate.calls_total.command.1100_Echo.code.OK";
    replay.envoy.wait_stat(calls, 1)
}
