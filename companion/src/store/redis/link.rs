//! The connection that all operations share, and whether it works.
//!
//! An operation that fails for whatever reason, or takes too long, closes the connection. While
//! there is none, operations fail at once; [`Link::keep`] makes the next one, and shows by a write
//! that it works, before anybody gets it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, FromRedisValue,
    IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult,
    TlsCertificates,
};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use super::VERSION;
use super::scripts::{Call, Scripts};
use crate::domain::session::{Hold, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::StoreError;

/// Between two attempts to connect: a recovery is noticed within this time.
const RETRY: Duration = Duration::from_millis(200);
/// What is to be done as soon as the store is back; beyond, sessions end with their lifetime.
const MAX_LATER: usize = 100_000;
/// As much of it as one step takes.
const LATER_STEP: usize = 256;

/// What a server answers that will answer otherwise later: it starts, is a replica that may be
/// promoted, is full, or is busy.
const PASSING: [&str; 6] = ["LOADING", "MASTERDOWN", "READONLY", "MISCONF", "OOM", "BUSY"];

#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    /// Read anew for each connection.
    pub password_file: Option<PathBuf>,
    pub database: u32,
    pub prefix: String,
    /// What takes longer has failed.
    pub timeout: Duration,
    pub tls: Option<RedisTls>,
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
            Self::Silent { .. } => true,
            Self::Server { error, .. } => {
                error.is_io_error()
                    || error.is_timeout()
                    || error.is_connection_dropped()
                    || error.code().is_some_and(|code| PASSING.contains(&code))
            }
        }
    }
}

pub struct Link {
    pub settings: RedisSettings,
    pub scripts: Arc<Scripts>,
    state: Mutex<State>,
    lost: Notify,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Counts connections.
    generation: u64,
    later: Vec<Later>,
}

/// What must not be forgotten while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// The session must not be there any more.
    End(SessionId),
    /// The connection is gone; until when its session is away.
    Leave(Hold, Option<UnixMillis>),
}

impl Link {
    pub fn new(settings: RedisSettings, scripts: Arc<Scripts>) -> Self {
        Self { settings, scripts, state: Mutex::default(), lost: Notify::new() }
    }

    pub fn healthy(&self) -> bool {
        self.lock().connection.is_some()
    }

    /// One operation, if the server is there.
    pub async fn run<T, F>(
        &self,
        operation: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (connection, generation) = {
            let state = self.lock();
            let connection = state.connection.clone();
            (connection.ok_or_else(|| StoreError("it is away".into()))?, state.generation)
        };
        let problem = match tokio::time::timeout(self.settings.timeout, operation(connection)).await
        {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.settings.timeout),
        };
        self.lose(generation, &problem);
        Err(StoreError(problem))
    }

    pub async fn call<T: FromRedisValue>(&self, call: Call) -> Result<T, StoreError> {
        self.run(|mut connection| async move { call.invoke(&mut connection).await }).await
    }

    /// To be done when the store is back, or now if it is not known whether it was done.
    pub fn later(&self, what: impl IntoIterator<Item = Later>) {
        let mut state = self.lock();
        let room = MAX_LATER.saturating_sub(state.later.len());
        let mut what = what.into_iter();
        state.later.extend(what.by_ref().take(room));
        if what.next().is_some() {
            warn!("too many sessions ended while the store is away: some stay until they expire");
        }
        drop(state);
        self.lost.notify_one();
    }

    /// Connects again whenever the connection is lost, and ends what was to end.
    pub async fn keep(self: Arc<Self>) {
        let mut said = false;
        loop {
            if !self.healthy() {
                match self.connect().await {
                    Ok(()) => {
                        info!("the store works");
                        said = false;
                    }
                    Err(problem) => {
                        if !said {
                            error!(%problem, "the store is away: logins are refused until it works");
                        }
                        said = true;
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            let waiting = self.lock().later.len();
            if waiting > 0 {
                self.catch_up().await;
                continue;
            }
            self.lost.notified().await;
        }
    }

    /// Makes the connection that [`Link::run`] uses. What waits for its end ends first.
    pub async fn connect(&self) -> Result<(), OpenError> {
        let mut connection = self.connection(self.settings.timeout).await?;
        let server = || self.server();
        let failed = |error| OpenError::Server { server: server(), error };
        let hello = self
            .scripts
            .hello(0)
            .map_err(|StoreError(problem)| OpenError::Settings { name: "randomness", problem })?;
        let answer: Vec<String> = hello.invoke(&mut connection).await.map_err(failed)?;
        match answer.first() {
            Some(version) if version == VERSION => {}
            found => {
                let found = found.cloned().unwrap_or_default();
                return Err(OpenError::Version { server: server(), found });
            }
        }
        let step = self.step();
        for call in self.calls(&step) {
            let _: Vec<Vec<u8>> = call.invoke(&mut connection).await.map_err(failed)?;
        }
        let mut state = self.lock();
        state.later.drain(..step.len());
        state.generation = state.generation.wrapping_add(1);
        state.connection = Some(connection);
        Ok(())
    }

    async fn catch_up(&self) {
        let step = self.step();
        for call in self.calls(&step) {
            let done: Result<Vec<Vec<u8>>, _> = self.call(call).await;
            if done.is_err() {
                return;
            }
        }
        // Others are only added at the end.
        self.lock().later.drain(..step.len());
    }

    fn step(&self) -> Vec<Later> {
        self.lock().later.iter().take(LATER_STEP).copied().collect()
    }

    fn calls(&self, step: &[Later]) -> Vec<Call> {
        let end: Vec<_> = step
            .iter()
            .filter_map(|what| if let Later::End(id) = what { Some(*id) } else { None })
            .collect();
        let leaves = step.iter().filter_map(|what| match what {
            Later::Leave(hold, until) => Some(self.scripts.depart(&[*hold], *until)),
            Later::End(_) => None,
        });
        std::iter::once(self.scripts.end(&end, None)).chain(leaves).filter_map(Result::ok).collect()
    }

    /// A connection of one's own.
    pub async fn connection(&self, timeout: Duration) -> Result<MultiplexedConnection, OpenError> {
        let client = self.client()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.timeout))
            .set_response_timeout(Some(timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(self.settings.timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(OpenError::Server { server: self.server(), error }),
            Err(_) => {
                let (server, timeout) = (self.server(), self.settings.timeout);
                Err(OpenError::Silent { server, timeout })
            }
        }
    }

    /// A connection that hears what is published.
    pub async fn subscriber(&self) -> Result<redis::aio::PubSub, OpenError> {
        let client = self.client()?;
        match tokio::time::timeout(self.settings.timeout, client.get_async_pubsub()).await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            Ok(Err(error)) => Err(OpenError::Server { server: self.server(), error }),
            Err(_) => {
                let (server, timeout) = (self.server(), self.settings.timeout);
                Err(OpenError::Silent { server, timeout })
            }
        }
    }

    fn client(&self) -> Result<Client, OpenError> {
        let RedisSettings { host, port, username, password_file, database, tls, .. } =
            &self.settings;
        let mut redis = RedisConnectionInfo::default()
            .set_db(i64::from(*database))
            .set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = username {
            redis = redis.set_username(username);
        }
        if let Some(path) = password_file {
            let password = Zeroizing::new(read("password_file", path)?);
            let text = std::str::from_utf8(&password).map_err(|_| OpenError::Settings {
                name: "password_file",
                problem: format!("{}: not UTF-8", path.display()),
            })?;
            redis = redis.set_password(text.trim_end_matches(['\r', '\n']));
        }
        let (host, port) = (host.clone(), *port);
        let failed = |error| OpenError::Server { server: self.server(), error };
        let Some(tls) = tls else {
            let info = ConnectionAddr::Tcp(host, port).into_connection_info().map_err(failed)?;
            return Client::open(info.set_redis_settings(redis)).map_err(failed);
        };
        let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        let info = address.into_connection_info().map_err(failed)?.set_redis_settings(redis);
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

    fn server(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }

    fn lose(&self, generation: u64, problem: &str) {
        let mut state = self.lock();
        if state.generation == generation && state.connection.take().is_some() {
            debug!(problem, "the store failed");
            drop(state);
            self.lost.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    fs::read(path).map_err(|error| OpenError::Settings {
        name,
        problem: format!("{}: {error}", path.display()),
    })
}
