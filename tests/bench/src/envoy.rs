//! An Envoy with one of the bootstraps in `envoy/`, on free ports.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::{PATIENCE, Process};

/// A running Envoy.
pub struct Envoy {
    pub process: Process,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Envoy {
    /// `template` is a bootstrap in which each `{{name}}` is replaced by its value.
    pub fn start(
        binary: &Path,
        template: &str,
        values: &[(&str, String)],
        workers: usize,
    ) -> Result<Self> {
        let mut bootstrap = template.to_owned();
        for (name, value) in values {
            bootstrap = bootstrap.replace(&format!("{{{{{name}}}}}"), value);
        }
        if let Some((_, rest)) = bootstrap.split_once("{{") {
            bail!("no value for {{{{{}", rest.lines().next().unwrap_or_default());
        }
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("envoy.yaml"), bootstrap)?;
        let process = Process::spawn(
            Command::new(binary)
                .arg("-c")
                .arg(at("envoy.yaml"))
                .arg("--admin-address-path")
                .arg(at("admin"))
                .arg("--concurrency")
                .arg(workers.to_string())
                .args(["--use-dynamic-base-id", "--log-level", "warning"])
                .stdout(Stdio::null())
                .stderr(File::create(at("log"))?),
        )?;
        let mut envoy = Self { process, admin: SocketAddr::from(([127, 0, 0, 1], 0)), folder };
        envoy.wait_ready()?;
        Ok(envoy)
    }

    /// Where the listener `private` listens.
    pub fn address(&self) -> Result<SocketAddr> {
        let listeners: Value = serde_json::from_str(&self.get("/listeners?format=json")?)?;
        let statuses = listeners["listener_statuses"].as_array().context("no listeners")?;
        let found = statuses.iter().find(|status| status["name"] == "private");
        let port = found.context("no listener \"private\"")?["local_address"]["socket_address"]
            ["port_value"]
            .as_u64()
            .context("no port")?;
        Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            ensure!(self.process.is_running(), "Envoy ended:\n{}", self.log());
            if let Ok(address) = fs::read_to_string(self.folder.path().join("admin"))
                && let Ok(address) = address.trim().parse()
            {
                self.admin = address;
                if self.get("/ready").is_ok_and(|body| body.contains("LIVE")) {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < until, "Envoy does not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// GET of the admin interface.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").context("no HTTP response")?;
        match head.contains("transfer-encoding: chunked") {
            true => unchunk(body),
            false => Ok(body.to_owned()),
        }
    }
}

/// RFC 9112, section 7.1.
fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).context("a chunk is cut short")?);
        body = rest[size..].strip_prefix("\r\n").context("a chunk without an end")?;
    }
}
