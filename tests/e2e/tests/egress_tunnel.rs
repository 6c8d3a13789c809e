//! gRPC in, private frames out through a CONNECT stream: the bell needs no heartbeat, and a caller's
//! connection outlives the server's.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use meshgate_e2e::egress::{Caller, DEADLINE_SLACK, Outcome, framed};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::faulty::{Faulty, fault};
use meshgate_e2e::process::root;
use meshgate_e2e::{Envoy, PrivateServer};
use meshgate_game::demo::v1::EchoRequest;
use prost::Message;

const ECHO: &str = "/demo.v1.Echo/Echo";

/// Echoes are not to be carried out twice, so that what becomes of a lost one is seen.
const ONCE: (&str, &str) =
    (r#""service": "demo.v1.Echo", "idempotent": true,"#, r#""service": "demo.v1.Echo","#);

fn start(server: std::net::SocketAddr) -> Result<Envoy> {
    let port = format!("port_value: {}", server.port());
    let edits = [("port_value: 7800", port.as_str()), ONCE];
    Envoy::start("egress-tunnel.yaml", Backends::default(), &edits)
}

fn asking(body: &str) -> Vec<u8> {
    framed(&EchoRequest { body: body.into() }.encode_to_vec())
}

fn ok(body: &str) -> Outcome {
    Outcome::Status(0, String::new(), asking(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_sizes_come_back_through_the_tunnel() -> Result<()> {
    let server = PrivateServer::start()?;
    let envoy = start(server.address)?;
    let caller = Caller::connect(envoy.listener("callers")?).await?;
    for size in [0, 1, 1000, 16_384, 60_000] {
        let body = "x".repeat(size);
        assert!(caller.call(ECHO, &[], &asking(&body)).await? == ok(&body), "size {size}");
    }
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 {
        let caller = caller.clone();
        calls.spawn(async move { (n, caller.call(ECHO, &[], &asking(&n.to_string())).await) });
    }
    while let Some(done) = calls.join_next().await {
        let (n, found) = done?;
        assert_eq!(found?, ok(&n.to_string()));
    }
    assert_eq!(envoy.stat("cluster.private-server.upstream_cx_total")?, Some(1));
    Ok(())
}

/// It begins no call before it has heard SETTINGS, which no heartbeat brings here.
#[test]
fn a_library_that_waits_for_settings_is_served_without_a_heartbeat() -> Result<()> {
    let script = root().join("tests/foreign/go/start");
    let build = Command::new(&script).arg("--build").status()?;
    if build.code() == Some(77) && std::env::var_os("CI").is_none() {
        eprintln!("skipped: Go is not installed");
        return Ok(());
    }
    let server = PrivateServer::start()?;
    let envoy = start(server.address)?;
    let address = envoy.listener("callers")?.to_string();
    assert!(Command::new(&script).args(["--call", &address]).status()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_told_though_the_server_hangs() -> Result<()> {
    let server = Faulty::start().await?;
    let envoy = start(server.address)?;
    let caller = Caller::connect(envoy.listener("callers")?).await?;
    for fault in [fault::HANG, "and never says anything again"] {
        let began = Instant::now();
        let found = caller.call(ECHO, &[("grpc-timeout", "500m")], &asking(fault)).await?;
        let late = "the server did not answer in time";
        assert_eq!(found, Outcome::Status(4, late.into(), vec![]), "{fault}");
        assert!(began.elapsed() < Duration::from_millis(500) + DEADLINE_SLACK);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_connection_outlives_the_servers() -> Result<()> {
    let mut server = Faulty::start().await?;
    let mut envoy = start(server.address)?;
    let caller = Caller::connect(envoy.listener("callers")?).await?;
    assert_eq!(caller.call(ECHO, &[], &asking("first")).await?, ok("first"));
    let mut connections = 1;
    for fault in [fault::CLOSE, fault::CUT, fault::ABORT, fault::GARBAGE] {
        let found = caller.call(ECHO, &[], &asking(fault)).await?;
        assert_eq!(found.status(), Some(14), "{fault}: {found:?}");
        assert_eq!(caller.call(ECHO, &[], &asking("next")).await?, ok("next"), "{fault}");
        connections += 1;
        assert_eq!(server.connections(), connections, "{fault}");
    }
    // Nobody listens any more, and then the connection that there is ends as well.
    server.stop_listening().await;
    let found = caller.call(ECHO, &[], &asking(fault::CLOSE)).await?;
    assert_eq!(found.status(), Some(14), "{found:?}");
    let found = caller.call(ECHO, &[], &asking("nobody there")).await?;
    let Outcome::Broken(text) = &found else { panic!("{found:?}") };
    assert!(text.contains("refused"), "{text}");
    envoy.wait_stat("wasmcustom.meshgate.upstream_errors_total.kind.server_unreachable", 1)?;
    envoy.wait_stat("wasmcustom.meshgate.connections_opened_total", 1)
}
