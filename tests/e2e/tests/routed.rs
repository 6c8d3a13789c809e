//! The routed path: every call goes through Envoy's own HTTP connection manager, by its method.

use anyhow::Result;
use meshgate_client::{CallError, Client, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Envoy, GameServer, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest, EnterRequest, SlowRequest};
use prost::Message;

struct Scene {
    envoy: Envoy,
    hall: GameServer,
    _echo: GameServer,
}

impl Scene {
    fn start() -> Result<Self> {
        let (hall, echo) = (GameServer::start()?, GameServer::start()?);
        let backends = Backends {
            game: Some(hall.address),
            second: Some(echo.address),
            ..Backends::default()
        };
        Ok(Self { envoy: Envoy::start("routed.yaml", backends, &[])?, hall, _echo: echo })
    }

    async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.envoy.private()?, &Login::None).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_reaches_two_services_by_method() -> Result<()> {
    let mut scene = Scene::start()?;
    let client = scene.client().await?;
    let enter = EnterRequest { name: "ann".into() }.encode_to_vec();
    client.call(command::ENTER, enter).await?;
    let echo = EchoRequest { body: b"hi".to_vec() }.encode_to_vec();
    let reply = client.call(command::ECHO, echo).await?;
    assert_eq!(EchoReply::decode(&reply[..])?.body, b"hi");
    scene.envoy.wait_stat("cluster.hall.upstream_rq_total", 1)?;
    scene.envoy.wait_stat("cluster.echo.upstream_rq_total", 1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bell_is_answered_by_the_connection_manager() -> Result<()> {
    let scene = Scene::start()?;
    let client = scene.client().await?;
    let error = client.call(9999, vec![]).await.unwrap_err();
    assert_eq!(error.status(), Some(12), "UNIMPLEMENTED, though no service was asked: {error}");
    let slow = SlowRequest { millis: 60_000, body: Vec::new() }.encode_to_vec();
    let error = client.call(command::SLOW, slow).await.unwrap_err();
    assert_eq!(error.status(), Some(4), "DEADLINE_EXCEEDED: {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_gone_fails_its_own_calls_only() -> Result<()> {
    let mut scene = Scene::start()?;
    let client = scene.client().await?;
    scene.hall.process.kill();
    let enter = EnterRequest { name: "ann".into() }.encode_to_vec();
    let error = client.call(command::ENTER, enter).await.unwrap_err();
    assert!(matches!(error, CallError::Status { status: 14, .. }), "UNAVAILABLE: {error}");
    client.call(command::ECHO_BYTES, b"still here".to_vec()).await?;
    Ok(())
}
