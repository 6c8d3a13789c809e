//! `meshgate doctor` before a real Envoy, healthy and with faults that a bootstrap can have.

use std::process::Command;

use anyhow::{Context, Result};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::process::program;
use meshgate_e2e::{Companion, Envoy, GameServer};
use serde_json::Value;

const CONNECTED: &str = "wasmcustom.meshgate.companion_connected";
/// Room for more clients than Envoy's default.
const ROOM: (&str, &str) = (
    "    - name: game\n      type: STATIC\n",
    "    - name: game\n      type: STATIC\n      \
     circuit_breakers: { thresholds: [{ max_connections: 50000 }] }\n",
);

struct Scene {
    envoy: Envoy,
    companion: Companion,
    _game: GameServer,
}

impl Scene {
    fn start(edits: &[(&str, &str)]) -> Result<Self> {
        let (game, companion) = (GameServer::start()?, Companion::start()?);
        let backends = Backends {
            game: Some(game.address),
            companion: Some(companion.address),
            ..Backends::default()
        };
        let mut envoy = Envoy::start("noise.yaml", backends, edits)?;
        envoy.wait_stat(CONNECTED, 2)?;
        Ok(Self { envoy, companion, _game: game })
    }

    /// Its exit code, and its findings as `level check: what`.
    fn doctor(&self, more: &[&str]) -> Result<(Option<i32>, Vec<String>)> {
        let url = format!("http://{}", self.envoy.admin());
        let mut command = Command::new(program("meshgate")?);
        let output = command.args(["doctor", "--json", "--envoy", &url]).args(more).output()?;
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let text =
            |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let line = |it: &Value| {
            format!("{} {}: {}", text(it, "level"), text(it, "check"), text(it, "what"))
        };
        Ok((output.status.code(), findings.iter().map(line).collect()))
    }
}

#[track_caller]
fn finds(findings: &[String], expected: &str) {
    assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:#?}");
}

#[test]
fn a_healthy_proxy_is_well_until_its_companion_goes() -> Result<()> {
    let mut scene = Scene::start(&[ROOM])?;
    let (code, findings) = scene.doctor(&["--listener", "private"])?;
    assert_eq!(code, Some(0), "{findings:#?}");
    finds(&findings, "ok companion: 2 streams");
    scene.companion.process.kill();
    scene.envoy.wait_stat(CONNECTED, 0)?;
    let (code, findings) = scene.doctor(&[])?;
    assert_eq!(code, Some(2), "{findings:#?}");
    finds(&findings, "error companion: no thread has a stream");
    Ok(())
}

#[test]
fn faults_of_a_bootstrap_are_found() -> Result<()> {
    let scene = Scene::start(&[
        ("failure_policy: FAIL_RELOAD", "failure_policy: FAIL_OPEN"),
        ("upstream_connect_mode: ON_DOWNSTREAM_DATA", "upstream_connect_mode: IMMEDIATE"),
        ("per_connection_buffer_limit_bytes: 65536", "per_connection_buffer_limit_bytes: 4096"),
    ])?;
    let (code, findings) = scene.doctor(&["--listener", "7999"])?;
    assert_eq!(code, Some(2), "{findings:#?}");
    for expected in [
        "error failure: fails open",
        "error connect: tcp_proxy does not wait for the login",
        "error buffer: the listener buffers 4096 bytes",
        "warn upstream: the circuit breaker lets 1024 clients in",
        "error plugin: there is no such listener",
    ] {
        finds(&findings, expected);
    }
    Ok(())
}

#[test]
fn an_envoy_that_cannot_be_asked_is_an_error() -> Result<()> {
    let mut command = Command::new(program("meshgate")?);
    let output = command.args(["doctor", "--envoy", "http://127.0.0.1:1"]).output()?;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("cannot be asked") && said.contains("->"), "{said}");
    Ok(())
}
