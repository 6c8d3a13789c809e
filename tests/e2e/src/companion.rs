//! A real companion, with keys and a store of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use meshgate_client::{Credential, Login, NoiseServer};
use serde_json::Value;

use crate::process::{Process, program};

/// The audience of the bootstraps in `envoy-config/`.
pub const AUDIENCE: &str = "demo";
const LAYOUT: &str = "game";

pub struct Companion {
    pub process: Process,
    pub address: SocketAddr,
    /// Where operators call.
    admin: String,
    /// Where services call.
    pub app: String,
    /// Where Prometheus reads.
    pub metrics: SocketAddr,
    /// Keys, and the store if it is a file.
    folder: Arc<tempfile::TempDir>,
    public_key: [u8; 32],
    /// Names it among those that share a folder.
    number: u32,
    settings: Vec<String>,
}

impl Companion {
    pub fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// Starts one with settings such as `session.grace=5s`.
    pub fn with(settings: &[&str]) -> Result<Self> {
        let settings: Vec<_> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let public =
            meshgate(&["keygen", "noise", "--id", "k1", "--out", &text(path("noise.json"))])?;
        meshgate(&["keygen", "ticket-ed25519", "--id", "t1", "--out", &text(path("ticket.json"))])?;
        let public: Value = serde_json::from_str(&public[public.find('{').context("no key")?..])?;
        let public_key = STANDARD.decode(public["key"].as_str().context("no key")?)?;
        let public_key = public_key.try_into().ok().context("a key has 32 bytes")?;
        Self::serving(Arc::new(folder), public_key, 1, settings)
    }

    /// Starts another one with the same keys and settings, which name a store that they share.
    pub fn another(&self) -> Result<Self> {
        let (folder, settings) = (Arc::clone(&self.folder), self.settings.clone());
        Self::serving(folder, self.public_key, self.number + 1, settings)
    }

    fn serving(
        folder: Arc<tempfile::TempDir>,
        public_key: [u8; 32],
        number: u32,
        settings: Vec<String>,
    ) -> Result<Self> {
        let Served { process, address, admin, app, metrics } =
            serve(&folder, number, "127.0.0.1:0", &settings)?;
        Ok(Self { process, address, admin, app, metrics, folder, public_key, number, settings })
    }

    /// Starts it again at the same address, with the same keys and store, after it ended.
    pub fn restart(&mut self) -> Result<()> {
        let listen = self.address.to_string();
        let Served { process, address, admin, app, metrics } =
            serve(&self.folder, self.number, &listen, &self.settings)?;
        self.process = process;
        self.address = address;
        self.admin = admin;
        self.app = app;
        self.metrics = metrics;
        Ok(())
    }

    /// A ticket for `user`, with more of `meshgate ticket issue`'s arguments.
    pub fn ticket(&self, user: &str, more: &[&str]) -> Result<Credential> {
        let key = text(self.folder.path().join("ticket.json"));
        let mut arguments = vec!["ticket", "issue", "--key", &key, "--user", user];
        arguments.extend(["--audience", AUDIENCE]);
        arguments.extend(more);
        Ok(Credential::Ticket(meshgate(&arguments)?.trim().to_owned()))
    }

    pub fn noise_server(&self) -> NoiseServer {
        NoiseServer {
            public_key: self.public_key,
            key_id: b"k1".to_vec(),
            audience: AUDIENCE.into(),
            layout: LAYOUT.into(),
        }
    }

    pub fn noise_login(&self, user: &str, more: &[&str]) -> Result<Login> {
        Ok(Login::Noise { server: self.noise_server(), credential: self.ticket(user, more)? })
    }

    pub fn ticket_login(&self, user: &str, more: &[&str]) -> Result<Login> {
        Ok(Login::Ticket(self.ticket(user, more)?))
    }

    /// Runs an operator's command, such as `["session", "list", "--json"]`.
    pub fn operate(&self, arguments: &[&str]) -> Result<String> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--server", &self.admin]);
        meshgate(&arguments)
    }

    /// Runs a service's command, such as `["push", "--user", "ann", "--command", "1206"]`.
    pub fn serve_app(&self, arguments: &[&str]) -> Result<String> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--server", &self.app]);
        meshgate(&arguments)
    }
}

/// A companion that serves, and where.
struct Served {
    process: Process,
    address: SocketAddr,
    admin: String,
    app: String,
    metrics: SocketAddr,
}

fn serve(
    folder: &tempfile::TempDir,
    number: u32,
    listen: &str,
    settings: &[String],
) -> Result<Served> {
    let mut command = Command::new(program("meshgate")?);
    command
        .args(["serve", "--listen", listen, "--admin-listen", "127.0.0.1:0"])
        .args(["--app-listen", "127.0.0.1:0", "--log", "debug"])
        .args(["--metrics-listen", "127.0.0.1:0"])
        .arg("--store")
        .arg(folder.path().join("store.redb"))
        .arg("--noise-key")
        .arg(folder.path().join("noise.json"))
        .arg("--ticket-key")
        .arg(folder.path().join("ticket.json"))
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .stderr(File::create(log_path(folder, number))?);
    let (process, address, before) = Process::listening_and_more("meshgate", &mut command)?;
    let at = |name: &str| {
        let found = before.iter().find_map(|line| line.strip_prefix(name));
        Ok::<_, anyhow::Error>(found.with_context(|| format!("no line {name:?}"))?.to_owned())
    };
    let (admin, app) = (at("admin on ")?, at("app on ")?);
    let metrics = at("metrics on ")?.parse()?;
    Ok(Served { process, address, admin, app, metrics })
}

fn meshgate(arguments: &[&str]) -> Result<String> {
    let output = Command::new(program("meshgate")?).args(arguments).output()?;
    if !output.status.success() {
        bail!("meshgate {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

impl Companion {
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(&self.folder, self.number)).unwrap_or_default()
    }
}

fn log_path(folder: &tempfile::TempDir, number: u32) -> PathBuf {
    folder.path().join(format!("companion-{number}.log"))
}
