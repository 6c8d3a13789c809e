//! All directions in one Envoy: every caller reaches every server.

use anyhow::Result;
use meshgate_client::{Client, Login};
use meshgate_e2e::egress::connect;
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Envoy, GameServer, PrivateServer, command};
use meshgate_game::demo::v1::hall_client::HallClient;
use meshgate_game::demo::v1::{EnterReply, EnterRequest, Player};
use prost::Message;
use tonic::Request;

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_reaches_every_server() -> Result<()> {
    let (game, legacy) = (GameServer::start()?, PrivateServer::start()?);
    let port = format!("port_value: {}", legacy.address.port());
    let edits = [
        ("port_value: 7001", "port_value: 0"),
        ("port_value: 7002", "port_value: 0"),
        ("port_value: 7800", port.as_str()),
    ];
    let backends = Backends { game: Some(game.address), ..Backends::default() };
    let mut envoy = Envoy::start("both.yaml", backends, &edits)?;
    let entered = |reply: EnterReply, name: &str| {
        // Each server has had one guest before, or none.
        assert_eq!(reply.player.map(|Player { name, .. }| name).as_deref(), Some(name));
        reply.players
    };

    let mut guests = Vec::new();
    for (listener, name) in [("private", "ann"), ("private-to-private", "ben")] {
        let client = Client::connect(envoy.listener(listener)?, &Login::None).await?;
        let enter = EnterRequest { name: name.into() }.encode_to_vec();
        let reply = client.call(command::ENTER, enter).await?;
        guests.push(entered(EnterReply::decode(&reply[..])?, name));
    }
    let mut hall = HallClient::new(connect(envoy.listener("web")?).await?);
    for (server, name) in [("grpc", "cleo"), ("private", "dora")] {
        let mut enter = Request::new(EnterRequest { name: name.into() });
        enter.metadata_mut().insert("x-server", server.parse()?);
        guests.push(entered(hall.enter(enter).await?.into_inner(), name));
    }
    assert_eq!(guests, [1, 1, 2, 2]);
    // One by each of the filter's directions; Envoy's transcoder does the fourth.
    for (command, calls) in [("1001_Enter", 2), ("1001_1002", 1)] {
        let name = format!("wasmcustom.meshgate.calls_total.command.{command}.code.OK");
        envoy.wait_stat(&name, calls)?;
    }
    Ok(())
}
