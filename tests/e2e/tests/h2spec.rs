//! The filter's HTTP/2 server leg, on a real Envoy, against the conformance test `h2spec`: its
//! suites generic, http2 and hpack, without an exception.

use std::process::Command;

use anyhow::{Context, Result};
use meshgate_e2e::process::root;
use meshgate_e2e::{Envoy, PrivateServer};

/// How many cases the three suites have.
const CASES: &str = "145 tests, 145 passed, 0 skipped, 0 failed";

#[test]
fn every_case_of_h2spec_passes() -> Result<()> {
    let script = root().join("tests/foreign/h2spec/start");
    let build = Command::new(&script).arg("--build").status()?;
    if build.code() == Some(77) && std::env::var_os("CI").is_none() {
        eprintln!("skipped: Go is not installed");
        return Ok(());
    }
    assert!(build.success(), "{} --build", script.display());
    let server = PrivateServer::start()?;
    let envoy = Envoy::egress(server.address, server.address, &[])?;
    let port = envoy.listener("direct")?.port().to_string();
    let output = Command::new(&script)
        .args(["--host", "127.0.0.1", "--port", &port, "--path", "/demo.v1.Echo/Echo"])
        // For a busy machine; a case that passes does not wait.
        .args(["--timeout", "10", "generic", "http2", "hpack"])
        .output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    let failures = report.split("Failures:").nth(1).unwrap_or_default();
    let sums = report.lines().rev().find(|line| line.contains(" tests, "));
    assert_eq!(sums.context("no report")?.trim(), CASES, "{failures}");
    Ok(())
}
