//! A real Envoy with a bootstrap of `envoy-config/`, on free ports.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http;
use crate::process::{PATIENCE, Process, prepared, root};

/// What each of them calls itself.
pub const NODE: &str = "gate";

pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

/// What the ports of the bootstraps stand for; `Envoy::start` puts others in their place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backends {
    /// 7700: the game.
    pub game: Option<SocketAddr>,
    /// 7710: a second gRPC service.
    pub second: Option<SocketAddr>,
    /// 7600: the companion.
    pub companion: Option<SocketAddr>,
    /// What it calls itself, if not [`NODE`].
    pub node: Option<&'static str>,
}

impl Envoy {
    /// Runs `envoy-config/direct.yaml` with another configuration of the filter, and with edits.
    pub fn direct_with(
        configuration: &Value,
        backends: Backends,
        edits: &[(&str, &str)],
    ) -> Result<Self> {
        let text = fs::read_to_string(root().join("envoy-config/direct.yaml"))?;
        let (before, rest) = text.split_once("value: |\n").context("no configuration")?;
        let (_, after) = rest.split_once("\n            - name:").context("no next filter")?;
        // JSON is YAML, once its quotes are doubled.
        let json = configuration.to_string().replace('\'', "''");
        let text = format!("{before}value: '{json}'\n            - name:{after}");
        Self::start_text(&text, backends, edits)
    }

    /// Runs `envoy-config/NAME`. `edits` replace text in it, in order, after the ports.
    pub fn start(name: &str, backends: Backends, edits: &[(&str, &str)]) -> Result<Self> {
        let path = root().join("envoy-config").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::start_text(&text, backends, edits)
    }

    /// The same with an Envoy of another release, one that `scripts/envoy --all` installs.
    pub fn start_release(
        version: &str,
        name: &str,
        backends: Backends,
        edits: &[(&str, &str)],
    ) -> Result<Self> {
        let binary = root().join(format!(".meshgate/envoy/{version}/envoy"));
        if !binary.exists() {
            bail!("{} is missing: run scripts/envoy --all", binary.display());
        }
        let path = root().join("envoy-config").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::start_binary(&binary, &text, backends, edits, 1)
    }

    pub fn start_text(text: &str, backends: Backends, edits: &[(&str, &str)]) -> Result<Self> {
        let binary = prepared("MESHGATE_ENVOY", ".meshgate/envoy/1.40.0/envoy")?;
        Self::start_binary(&binary, text, backends, edits, 1)
    }

    /// The same, with several workers.
    pub fn start_with_workers(
        name: &str,
        backends: Backends,
        edits: &[(&str, &str)],
        workers: u64,
    ) -> Result<Self> {
        let binary = prepared("MESHGATE_ENVOY", ".meshgate/envoy/1.40.0/envoy")?;
        let path = root().join("envoy-config").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::start_binary(&binary, &text, backends, edits, workers)
    }

    fn start_binary(
        binary: &Path,
        text: &str,
        backends: Backends,
        edits: &[(&str, &str)],
        workers: u64,
    ) -> Result<Self> {
        let wasm = prepared("MESHGATE_WASM", ".meshgate/meshgate.wasm")?;
        let mut text = text.replace(".meshgate/meshgate.wasm", &wasm.display().to_string());
        let mut ports = vec![(9901, Some(0)), (7000, Some(0))];
        ports.push((7700, backends.game.map(|address| address.port())));
        ports.push((7710, backends.second.map(|address| address.port())));
        ports.push((7600, backends.companion.map(|address| address.port())));
        for (from, to) in ports {
            if let Some(to) = to {
                text = text.replace(&format!("port_value: {from}"), &format!("port_value: {to}"));
            }
        }
        for (from, to) in edits {
            if !text.contains(from) {
                bail!("the bootstrap does not contain {from:?}");
            }
            text = text.replace(from, to);
        }
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("envoy.yaml"), text)?;
        let log = File::create(folder.path().join("envoy.log"))?;
        let mut command = Command::new(binary);
        command
            .current_dir(root())
            .arg("-c")
            .arg(folder.path().join("envoy.yaml"))
            .arg("--admin-address-path")
            .arg(folder.path().join("admin"))
            .args(["--concurrency", &workers.to_string()])
            .args(["--use-dynamic-base-id", "-l", "warning"])
            .args(["--service-node", backends.node.unwrap_or(NODE)])
            .args(["--component-log-level", "wasm:debug"])
            .stdout(Stdio::null())
            .stderr(log);
        let process = Process::spawn("envoy", &mut command)?;
        let mut envoy = Self { process, admin: SocketAddr::from(([127, 0, 0, 1], 0)), folder };
        envoy.wait_ready()?;
        Ok(envoy)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let admin = self.folder.path().join("admin");
        self.wait_for("Envoy to be ready", |envoy| {
            let Ok(address) = fs::read_to_string(&admin) else { return Ok(false) };
            let Ok(address) = address.trim().parse() else { return Ok(false) };
            envoy.admin = address;
            Ok(envoy.get("/ready").is_ok_and(|body| body.starts_with("LIVE")))
        })
    }

    /// Polls until `condition` holds.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !condition(self)? {
            if !self.process.is_running() || Instant::now() > until {
                bail!("waited in vain for {what}; Envoy's log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where the listener of this name listens.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        let listeners: Value = serde_json::from_str(&self.get("/listeners?format=json")?)?;
        let statuses = listeners["listener_statuses"].as_array().context("no listeners")?;
        let found = statuses.iter().find(|status| status["name"] == name);
        let socket = &found.with_context(|| format!("no listener {name}"))?["local_address"]["socket_address"];
        let port = socket["port_value"].as_u64().context("no port")?;
        Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
    }

    /// The listener for private clients.
    pub fn private(&self) -> Result<SocketAddr> {
        self.listener("private")
    }

    /// A counter or gauge by its full name; `None` if Envoy does not have it (yet). The labels of
    /// the filter's metrics follow as `.label.value`:
    /// `wasmcustom.meshgate.peer_errors_total.kind.bad_magic`.
    pub fn stat(&self, name: &str) -> Result<Option<u64>> {
        let name = &with_labels(name);
        let pattern = name.replace('.', "\\.").replace(';', "%3B").replace('=', "%3D");
        let text = self.get(&format!("/stats?filter=^{pattern}$"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(value.and_then(|value| value.trim().parse().ok()))
    }

    /// Waits until a stat has this value.
    pub fn wait_stat(&mut self, name: &str, value: u64) -> Result<()> {
        self.wait_for(&format!("{name} = {value}"), |envoy| Ok(envoy.stat(name)? == Some(value)))
    }

    /// Where its admin interface is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// GET of the admin interface.
    pub fn get(&self, path: &str) -> Result<String> {
        self.request("GET", path)
    }

    pub fn post(&self, path: &str) -> Result<String> {
        self.request("POST", path)
    }

    fn request(&self, method: &str, path: &str) -> Result<String> {
        http::request(self.admin, method, path)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("envoy.log")
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Puts labels where the filter puts them: `LABEL=.=VALUE;.;` in front of the metric.
fn with_labels(name: &str) -> String {
    const SCOPE: &str = "wasmcustom.meshgate.";
    let Some((metric, labels)) = name.strip_prefix(SCOPE).and_then(|name| name.split_once('.'))
    else {
        return name.to_owned();
    };
    let mut whole = SCOPE.to_owned();
    for pair in labels.split('.').collect::<Vec<_>>().chunks(2) {
        whole.extend([pair[0], "=.=", pair.get(1).copied().unwrap_or_default(), ";.;"]);
    }
    whole + metric
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // A test that panicked shows what Envoy saw.
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            for line in tail.iter().rev() {
                eprintln!("envoy: {line}");
            }
        }
    }
}
