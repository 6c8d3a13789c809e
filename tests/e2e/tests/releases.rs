//! The same filter in every Envoy from 1.36 on: calls without a login, and a login by Noise.

use anyhow::{Result, ensure};
use meshgate_client::{Client, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, GameServer, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest, WhoamiReply};
use prost::Message;

/// tcp_proxy of Envoy 1.36 connects as soon as a client does, and cannot be told otherwise.
const CONNECTS_AT_ONCE: [(&str, &str); 5] = [
    ("upstream_connect_mode: ON_DOWNSTREAM_DATA", ""),
    ("max_early_data_bytes: 65536", ""),
    (r#""connect": "after_login","#, ""),
    // Nobody is refused by way of a cluster: the client has its upstream already.
    (r#""cluster": "game","#, r#""cluster": "game""#),
    (r#""refusal_cluster": "refusals""#, ""),
];

async fn a_call_comes_back(version: &str) -> Result<()> {
    let game = GameServer::start()?;
    let backends = Backends { game: Some(game.address), ..Backends::default() };
    let envoy = Envoy::start_release(version, "direct.yaml", backends, &[])?;

    let client = Client::connect(envoy.private()?, &Login::None).await?;

    echoes(&client).await
}

async fn a_login_seals_what_follows(version: &str, edits: &[(&str, &str)]) -> Result<()> {
    let game = GameServer::start()?;
    let companion = Companion::start()?;
    let backends = Backends {
        game: Some(game.address),
        companion: Some(companion.address),
        ..Backends::default()
    };
    let mut envoy = Envoy::start_release(version, "noise.yaml", backends, edits)?;
    // The worker's and the main thread's.
    envoy.wait_stat("wasmcustom.meshgate.companion_connected", 2)?;

    let client = Client::connect(envoy.private()?, &companion.noise_login("ann", &[])?).await?;

    echoes(&client).await?;
    let who = WhoamiReply::decode(&client.call(command::WHOAMI, vec![]).await?[..])?;
    ensure!(who.metadata["x-meshgate-user"] == "ann", "{:?}", who.metadata);
    Ok(())
}

async fn echoes(client: &Client) -> Result<()> {
    let echo = EchoRequest { body: b"hello".to_vec() }.encode_to_vec();
    let reply = client.call(command::ECHO, echo).await?;
    ensure!(EchoReply::decode(&reply[..])?.body == b"hello");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_36_runs_it_if_it_may_connect_before_the_login() -> Result<()> {
    a_call_comes_back("1.36.4").await?;
    a_login_seals_what_follows("1.36.4", &CONNECTS_AT_ONCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_37_runs_it() -> Result<()> {
    a_call_comes_back("1.37.0").await?;
    a_login_seals_what_follows("1.37.0", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_38_runs_it() -> Result<()> {
    a_call_comes_back("1.38.2").await?;
    a_login_seals_what_follows("1.38.2", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_39_runs_it() -> Result<()> {
    a_call_comes_back("1.39.3").await?;
    a_login_seals_what_follows("1.39.3", &[]).await
}
