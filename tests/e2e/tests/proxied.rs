//! Behind a load balancer that speaks the PROXY protocol, as the README's section "Operate" says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::{Connection, Frame};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Envoy, GameServer, command};
use meshgate_game::demo::v1::WhoamiReply;
use prost::Message;
use tokio::net::TcpSocket;

const PATIENCE: Duration = Duration::from_secs(20);

/// The listener reads the PROXY protocol, of 127.0.0.1 alone.
fn envoy(game: &GameServer) -> Result<Envoy> {
    let backends = Backends { game: Some(game.address), ..Backends::default() };
    let filters = concat!(
        "      listener_filters:\n",
        "        - name: envoy.filters.listener.proxy_protocol\n",
        "          typed_config:\n",
        "            \"@type\": type.googleapis.com/envoy.extensions.filters.listener",
        ".proxy_protocol.v3.ProxyProtocol\n",
        "      filter_chains:\n",
        "        - filter_chain_match:\n",
        "            direct_source_prefix_ranges:\n",
        "              - { address_prefix: 127.0.0.1, prefix_len: 32 }\n",
        "          filters:\n",
    );
    let edits = [("      filter_chains:\n        - filters:\n", filters)];
    Envoy::start("direct.yaml", backends, &edits)
}

/// A connection from one of this machine's addresses that begins with `header`.
async fn connect(envoy: &Envoy, from: &str, header: &str) -> Result<Connection> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse()?, 0))?;
    let (reader, writer) = socket.connect(envoy.private()?).await?.into_split();
    let mut connection = Connection::over(reader, writer);
    connection.send_raw(header.as_bytes()).await?;
    Ok(connection)
}

async fn whoami(connection: &mut Connection) -> Result<Option<WhoamiReply>> {
    connection.send(&Frame::request(command::WHOAMI, 1, vec![])).await?;
    let received = tokio::time::timeout(PATIENCE, connection.receive()).await?;
    // A reset is an end as good as any.
    let Some(reply) = received.ok().flatten() else { return Ok(None) };
    assert_eq!(reply.status, 0, "{reply:?}");
    Ok(Some(WhoamiReply::decode(&reply.into_body().context("a body")?[..])?))
}

const STATED: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 7000\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_stated_address_is_the_peer_that_services_learn_of() -> Result<()> {
    let game = GameServer::start()?;
    let envoy = envoy(&game)?;
    let mut connection = connect(&envoy, "127.0.0.1", STATED).await?;
    let who = whoami(&mut connection).await?.context("closed")?;
    assert_eq!(who.metadata["x-meshgate-peer"], "203.0.113.7:4711");
    // The log names the same.
    drop(connection);
    let mut envoy = envoy;
    envoy.wait_for("the line of the connection", |envoy| {
        Ok(envoy.log().contains("peer=203.0.113.7:4711"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_may_not_state_addresses_reaches_nothing() -> Result<()> {
    let game = GameServer::start()?;
    let envoy = envoy(&game)?;
    let mut stranger = connect(&envoy, "127.0.0.2", STATED).await?;
    assert!(whoami(&mut stranger).await?.is_none());
    assert_eq!(envoy.stat("cluster.game.upstream_cx_total")?, Some(0));
    // Nor does who states none at all.
    let mut silent = connect(&envoy, "127.0.0.1", "").await?;
    assert!(whoami(&mut silent).await?.is_none());
    assert_eq!(envoy.stat("cluster.game.upstream_cx_total")?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_lets_clients_set_reserved_metadata_is_refused() -> Result<()> {
    let game = GameServer::start()?;
    for name in [
        "x-meshgate-user",
        "x-envoy-upstream-rq-timeout-ms",
        "x-forwarded-for",
        "grpc-timeout",
        "authorization",
    ] {
        let field = format!(r#"{{"name": "reserved", "type": "u16", "metadata": "{name}"}}"#);
        let backends = Backends { game: Some(game.address), ..Backends::default() };
        let edits = [(r#"{"name": "reserved", "type": "u16"}"#, field.as_str())];
        let refused = Envoy::start("direct.yaml", backends, &edits);
        let Err(error) = refused else { panic!("{name} was taken") };
        let error = format!("{error:#}");
        assert!(error.contains("configuration refused") && error.contains(name), "{error}");
    }
    Ok(())
}
