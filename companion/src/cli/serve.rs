//! `meshgate serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tracing::info;

use super::logs::Logs;
use super::{duration, files};
use crate::domain::handshake::NoiseKeys;
use crate::domain::jwt::JwtKeys;
use crate::domain::login::{Keys, Logins, Policy, SingleUse};
use crate::domain::sessions::Sessions;
use crate::domain::ticket::TicketKeys;
use crate::domain::time::SystemClock;
use crate::service::exposure::{self, Protection};
use crate::service::server::{self, Companion};
use crate::store::redb::RedbStore;

#[derive(Args)]
pub struct Serve {
    /// Where to listen. Other than a loopback address only with mTLS, or behind the mesh's
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7600",
        env = "MESHGATE_LISTEN"
    )]
    listen: SocketAddr,
    /// The file that holds sessions and used credentials; made if it is not there
    #[arg(long, value_name = "FILE", default_value = "meshgate.redb", env = "MESHGATE_STORE")]
    store: PathBuf,

    /// A static key of Noise logins; several are valid at once
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "MESHGATE_NOISE_KEY",
        help_heading = "Credentials"
    )]
    noise_key: Vec<PathBuf>,
    /// A key that tickets are checked with; several are valid at once
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "MESHGATE_TICKET_KEY",
        help_heading = "Credentials"
    )]
    ticket_key: Vec<PathBuf>,
    /// A JWK or JWK set that JSON Web Tokens are checked with; each key must say its `alg`
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "MESHGATE_JWT_KEY",
        help_heading = "Credentials"
    )]
    jwt_key: Vec<PathBuf>,
    /// An `iss` that JSON Web Tokens may have [default: any whose key signed]
    #[arg(
        long,
        value_name = "ISSUER",
        value_delimiter = ',',
        env = "MESHGATE_JWT_ISSUER",
        help_heading = "Credentials"
    )]
    jwt_issuer: Vec<String>,
    /// An audience that is served here [default: whichever the credential is for]
    #[arg(long, value_delimiter = ',', env = "MESHGATE_AUDIENCE", help_heading = "Credentials")]
    audience: Vec<String>,
    /// When a credential works a single time
    #[arg(
        long,
        value_enum,
        default_value = "noise",
        env = "MESHGATE_SINGLE_USE",
        help_heading = "Credentials"
    )]
    single_use: SingleUseArg,

    /// How long a session lives at most
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration::parse,
        default_value = "12h",
        env = "MESHGATE_SESSION_LIFETIME"
    )]
    session_lifetime: Duration,
    /// Logins under way at once; more are told to try again
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=65_536),
        default_value_t = 4096,
        env = "MESHGATE_MAX_LOGINS"
    )]
    max_logins: u32,
    /// Names this replica to proxies and in logs [default: the host's name]
    #[arg(long, env = "MESHGATE_NAME")]
    name: Option<String>,

    /// The companion's certificate chain
    #[arg(
        long,
        value_name = "PEM",
        requires_all = ["tls_key", "client_ca"],
        env = "MESHGATE_TLS_CERT",
        help_heading = "Protection"
    )]
    tls_cert: Option<PathBuf>,
    /// The key of the companion's certificate
    #[arg(
        long,
        value_name = "PEM",
        requires = "tls_cert",
        env = "MESHGATE_TLS_KEY",
        help_heading = "Protection"
    )]
    tls_key: Option<PathBuf>,
    /// The authority that signs the certificates of proxies and operators
    #[arg(
        long,
        value_name = "PEM",
        requires = "tls_cert",
        env = "MESHGATE_CLIENT_CA",
        help_heading = "Protection"
    )]
    client_ca: Option<PathBuf>,
    /// Only workloads that the mesh has authenticated reach this port (Istio: PeerAuthentication
    /// STRICT and an AuthorizationPolicy). Nothing here can check that
    #[arg(
        long,
        conflicts_with = "tls_cert",
        env = "MESHGATE_BEHIND_MESH_MTLS",
        help_heading = "Protection"
    )]
    behind_mesh_mtls: bool,

    #[command(flatten)]
    logs: Logs,
}

#[derive(Clone, Copy, ValueEnum)]
enum SingleUseArg {
    /// In Noise logins; in ticket logins the ticket is good until it expires
    Noise,
    /// In every login
    Always,
    /// Never, but for tickets that say `once`
    Never,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        self.logs.start()?;
        exposure::check(self.listen, self.protection())?;
        let keys = self.keys()?;
        let tls = self.tls()?;
        let store = Arc::new(RedbStore::open(&self.store)?);
        let sessions = Arc::new(Sessions::new(store, Arc::new(SystemClock)));
        let logins = Arc::new(Logins::new(Arc::clone(&sessions), keys, self.policy()));
        let name = self.name.clone().unwrap_or_else(host_name);
        let companion = Companion { sessions, logins, name };

        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(self.listen)
                .await
                .with_context(|| format!("cannot listen on {}", self.listen))?;
            let address = listener.local_addr()?;
            let shutdown = shutdown_signal()?;
            info!(%address, protection = ?self.protection(), store = %self.store.display(), "ready");
            println!("listening on {address}");
            server::serve(companion, listener, tls, shutdown).await?;
            Ok(())
        })
        // The store closes, whole, when the last user of it is dropped: with the runtime.
    }

    fn protection(&self) -> Protection {
        match (&self.tls_cert, self.behind_mesh_mtls) {
            (Some(_), _) => Protection::MutualTls,
            (None, true) => Protection::MeshMutualTls,
            (None, false) => Protection::None,
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            lifetime: self.session_lifetime,
            single_use: match self.single_use {
                SingleUseArg::Noise => SingleUse::Noise,
                SingleUseArg::Always => SingleUse::Always,
                SingleUseArg::Never => SingleUse::Never,
            },
            audiences: self.audience.clone(),
            max_under_way: usize::try_from(self.max_logins).unwrap_or(usize::MAX),
        }
    }

    fn keys(&self) -> anyhow::Result<Keys> {
        if self.ticket_key.is_empty() && self.jwt_key.is_empty() {
            bail!(
                "no login could ever succeed: give --ticket-key (make one with `meshgate keygen \
                 ticket-ed25519 --out FILE`) or --jwt-key"
            );
        }
        let read = |paths: &[PathBuf]| -> anyhow::Result<Vec<_>> {
            paths.iter().map(|path| files::read_key(path)).collect()
        };
        let noise = read(&self.noise_key)?;
        let tickets = read(&self.ticket_key)?;
        for key in noise.iter().chain(&tickets) {
            info!(id = key.id(), kind = key.kind().name(), "key loaded");
        }
        let documents: Vec<_> =
            self.jwt_key.iter().map(|path| files::read(path)).collect::<Result<_, _>>()?;
        let documents = documents.iter().map(|document| document.as_slice());
        Ok(Keys {
            noise: if noise.is_empty() { None } else { Some(NoiseKeys::new(&noise)?) },
            tickets: TicketKeys::new(&tickets)?,
            jwt: JwtKeys::new(documents, self.jwt_issuer.clone()).context("--jwt-key")?,
        })
    }

    fn tls(&self) -> anyhow::Result<Option<ServerTlsConfig>> {
        let (Some(cert), Some(key), Some(ca)) = (&self.tls_cert, &self.tls_key, &self.client_ca)
        else {
            return Ok(None);
        };
        let identity = Identity::from_pem(files::read(cert)?, files::read(key)?);
        let ca = Certificate::from_pem(files::read(ca)?);
        Ok(Some(ServerTlsConfig::new().identity(identity).client_ca_root(ca)))
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "companion".to_owned())
}

/// Ready at SIGTERM or SIGINT. A second one ends the process at once.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    })
}
