//! How a server is connected to: who we are, TLS, and what is said when it does not work.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates,
};
use zeroize::Zeroizing;

use super::VERSION;
use super::place::{Address, Place};

/// What a server answers that will answer otherwise later: it starts, is a replica that may be
/// promoted, is full or busy, lacks replicas, or its cluster is changing hands.
const PASSING: [&str; 13] = [
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "MISCONF",
    "OOM",
    "BUSY",
    "NOREPLICAS",
    "UNBLOCKED",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CROSSSLOT",
];

#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub place: Place,
    pub username: Option<String>,
    /// Read anew for each connection.
    pub password_file: Option<PathBuf>,
    pub database: u32,
    pub prefix: String,
    /// What takes longer has failed.
    pub timeout: Duration,
    pub tls: Option<RedisTls>,
    /// So many replicas have what is answered, as far as so many are attached.
    pub confirm: usize,
}

/// The server proves itself by a certificate of `ca`, or of an authority that the system trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisTls {
    pub ca: Option<PathBuf>,
    /// Certificate and key that the companion shows.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store.redis: {name}: {problem}")]
    Settings { name: &'static str, problem: String },
    #[error("store.redis: {server}: {error}")]
    Server { server: String, error: RedisError },
    #[error("store.redis: {server} does not answer within {timeout:?}")]
    Silent { server: String, timeout: Duration },
    #[error("store.redis: no node of the cluster knows who serves the slot of this prefix")]
    Unserved,
    #[error("store.redis: {server} has too few replicas that keep up")]
    Unconfirmed { server: String },
    #[error(
        "store.redis: {server} has a store of format version {found} under this prefix, this \
         companion reads version {VERSION}; take another `store.redis.prefix`"
    )]
    Version { server: String, found: String },
}

impl OpenError {
    /// Whether waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Settings { .. } | Self::Version { .. } => false,
            Self::Silent { .. } | Self::Unserved | Self::Unconfirmed { .. } => true,
            Self::Server { error, .. } => {
                error.is_io_error()
                    || error.is_timeout()
                    || error.is_connection_dropped()
                    || error.code().is_some_and(|code| PASSING.contains(&code))
            }
        }
    }
}

/// Makes clients of servers and sentinels.
#[derive(Debug)]
pub struct Dialer {
    username: Option<String>,
    password_file: Option<PathBuf>,
    database: u32,
    tls: Option<RedisTls>,
    timeout: Duration,
}

impl Dialer {
    pub fn new(settings: &RedisSettings) -> Self {
        Self {
            username: settings.username.clone(),
            password_file: settings.password_file.clone(),
            database: settings.database,
            tls: settings.tls.clone(),
            timeout: settings.timeout,
        }
    }

    /// A connection whose answers come within this time.
    pub async fn connect(
        &self,
        server: &Address,
        timeout: Duration,
    ) -> Result<MultiplexedConnection, OpenError> {
        let client = self.server(server)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        self.in_time(server, connecting).await
    }

    /// A connection that hears what is published.
    pub async fn subscribe(&self, server: &Address) -> Result<redis::aio::PubSub, OpenError> {
        let client = self.server(server)?;
        self.in_time(server, client.get_async_pubsub()).await
    }

    async fn in_time<T>(
        &self,
        server: &Address,
        connecting: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, OpenError> {
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(OpenError::Server { server: server.to_string(), error }),
            Err(_) => Err(OpenError::Silent { server: server.to_string(), timeout: self.timeout }),
        }
    }

    pub fn server(&self, server: &Address) -> Result<Client, OpenError> {
        let login = login("password_file", self.username.as_ref(), self.password_file.as_deref())?;
        self.client(server, login.set_db(i64::from(self.database)))
    }

    /// Sentinels have users of their own.
    pub fn sentinel(&self, sentinel: &Address, place: &Place) -> Result<Client, OpenError> {
        let (username, password_file) = match place {
            Place::Sentinel { username, password_file, .. } => {
                (username.as_ref(), password_file.as_deref())
            }
            Place::Server(_) | Place::Cluster(_) => (None, None),
        };
        self.client(sentinel, login("sentinel_password_file", username, password_file)?)
    }

    fn client(&self, server: &Address, login: RedisConnectionInfo) -> Result<Client, OpenError> {
        let Address { host, port } = server.clone();
        let failed = |error| OpenError::Server { server: server.to_string(), error };
        let Some(tls) = &self.tls else {
            let info = ConnectionAddr::Tcp(host, port).into_connection_info().map_err(failed)?;
            return Client::open(info.set_redis_settings(login)).map_err(failed);
        };
        let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        let info = address.into_connection_info().map_err(failed)?.set_redis_settings(login);
        let client_tls = match &tls.identity {
            Some((cert, key)) => Some(ClientTlsConfig {
                client_cert: read("tls_cert", cert)?,
                client_key: read("tls_key", key)?,
            }),
            None => None,
        };
        let root_cert = tls.ca.as_ref().map(|path| read("tls_ca", path)).transpose()?;
        Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(failed)
    }
}

fn login(
    name: &'static str,
    username: Option<&String>,
    password_file: Option<&Path>,
) -> Result<RedisConnectionInfo, OpenError> {
    let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = username {
        login = login.set_username(username);
    }
    if let Some(path) = password_file {
        let password = Zeroizing::new(read(name, path)?);
        let text = std::str::from_utf8(&password).map_err(|_| OpenError::Settings {
            name,
            problem: format!("{}: not UTF-8", path.display()),
        })?;
        login = login.set_password(text.trim_end_matches(['\r', '\n']));
    }
    Ok(login)
}

fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    fs::read(path).map_err(|error| OpenError::Settings {
        name,
        problem: format!("{}: {error}", path.display()),
    })
}
