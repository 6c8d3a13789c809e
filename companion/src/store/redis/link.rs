//! The connection that all operations share, and whether it works.
//!
//! An operation that fails for whatever reason, or takes too long, closes the connection. While
//! there is none, operations fail at once; [`Link::keep`] makes the next one, and shows by a write
//! that it works, before anybody gets it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

use super::VERSION;
use super::confirm::{self, Confirmations, Confirmer};
use super::dial::{Dialer, OpenError, RedisSettings};
use super::place::{Address, Finder, Place};
use super::scripts::{Call, Scripts};
use crate::domain::session::{Hold, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::StoreError;

/// Between two attempts to connect: a recovery is noticed within this time.
const RETRY: Duration = Duration::from_millis(200);
/// How often sentinels are asked whether the master is the same still: one that was given up may
/// be reachable, and not know.
const LOOK: Duration = Duration::from_secs(2);
/// What is to be done as soon as the store is back; beyond, sessions end with their lifetime.
const MAX_LATER: usize = 100_000;
/// As much of it as one step takes.
const LATER_STEP: usize = 256;

pub struct Link {
    pub timeout: Duration,
    pub scripts: Arc<Scripts>,
    dialer: Dialer,
    finder: Finder,
    /// Where the store was found last.
    server: watch::Sender<Option<Address>>,
    state: Mutex<State>,
    lost: Notify,
    /// How many replicas; 0: none is waited for.
    confirm: usize,
    confirmations: Confirmations,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    confirmer: Option<Confirmer>,
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
        let dialer = Dialer::new(&settings);
        let RedisSettings { place, timeout, confirm, .. } = settings;
        Self {
            timeout,
            finder: Finder::new(place, scripts.key("revision"), timeout),
            scripts,
            dialer,
            server: watch::Sender::new(None),
            state: Mutex::default(),
            lost: Notify::new(),
            confirm,
            confirmations: Confirmations::default(),
        }
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
        self.numbered(operation).await.map(|(answer, _)| answer)
    }

    /// Finds out whether the connection leads to the store still, and it can be written.
    pub async fn probe(&self) {
        if let Ok(hello) = self.scripts.hello(0) {
            // If it does not, that is known now.
            let _: Result<Vec<String>, _> = self.call(hello).await;
        }
    }

    /// And the number of the connection that it used.
    async fn numbered<T, F>(
        &self,
        operation: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<(T, u64), StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (connection, generation) = {
            let state = self.lock();
            let connection = state.connection.clone();
            (connection.ok_or_else(|| StoreError("it is away".into()))?, state.generation)
        };
        let problem = match tokio::time::timeout(self.timeout, operation(connection)).await {
            Ok(Ok(answer)) => return Ok((answer, generation)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        self.lose(generation, &problem);
        Err(StoreError(problem))
    }

    pub async fn call<T: FromRedisValue>(&self, call: Call) -> Result<T, StoreError> {
        self.run(|mut connection| async move { call.invoke(&mut connection).await }).await
    }

    /// The same, and replicas have what it wrote.
    pub async fn confirmed<T: FromRedisValue>(&self, call: Call) -> Result<T, StoreError> {
        let invoke = |mut connection| async move { call.invoke(&mut connection).await };
        let (answer, generation) = self.numbered(invoke).await?;
        if self.confirm > 0 {
            self.confirmations.wait(generation).await.map_err(StoreError)?;
        }
        Ok(answer)
    }

    /// Confirms what waits for it, for ever.
    pub async fn confirm(self: Arc<Self>) {
        loop {
            let waiting = self.confirmations.next().await;
            let (confirmer, generation) = {
                let state = self.lock();
                (state.confirmer.clone(), state.generation)
            };
            let result = match confirmer {
                Some(mut confirmer) => {
                    let result = confirm::problem(confirmer.round().await);
                    self.confirmed_by(generation, confirmer, &result);
                    result
                }
                None => Err("it is away".into()),
            };
            for one in waiting {
                // Over another connection, it may have been to another server.
                let same = one.generation == generation;
                let result = if same { result.clone() } else { Err("it changed hands".into()) };
                // Nobody may be waiting any more.
                let _ = one.told.send(result);
            }
        }
    }

    fn confirmed_by(&self, generation: u64, confirmer: Confirmer, result: &Result<(), String>) {
        match result {
            Ok(()) => {
                let mut state = self.lock();
                if state.generation == generation && state.confirmer.is_some() {
                    state.confirmer = Some(confirmer);
                }
            }
            Err(problem) => self.lose(generation, problem),
        }
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
            tokio::select! {
                () = self.lost.notified() => {}
                () = tokio::time::sleep(LOOK), if self.asks_sentinels() => self.look().await,
            }
        }
    }

    fn asks_sentinels(&self) -> bool {
        matches!(self.finder.place, Place::Sentinel { .. })
    }

    /// Lets go of a master that is none any more.
    async fn look(&self) {
        let generation = self.lock().generation;
        let Ok(found) = self.finder.find(&self.dialer).await else { return };
        if self.server().is_ok_and(|server| server != found) {
            self.lose(generation, "the sentinels name another master");
        }
    }

    /// Makes the connection that [`Link::run`] uses. What waits for its end ends first.
    pub async fn connect(&self) -> Result<(), OpenError> {
        let server = self.finder.find(&self.dialer).await?;
        let mut connection = self.dialer.connect(&server, self.timeout).await?;
        let failed = |error| OpenError::Server { server: server.to_string(), error };
        let hello = self
            .scripts
            .hello(0)
            .map_err(|StoreError(problem)| OpenError::Settings { name: "randomness", problem })?;
        let answer: Vec<String> = hello.invoke(&mut connection).await.map_err(failed)?;
        match answer.first() {
            Some(version) if version == VERSION => {}
            found => {
                let found = found.cloned().unwrap_or_default();
                return Err(OpenError::Version { server: server.to_string(), found });
            }
        }
        let step = self.step();
        for call in self.calls(&step) {
            let _: Vec<Vec<u8>> = call.invoke(&mut connection).await.map_err(failed)?;
        }
        let confirmer = self.confirmer(&server).await?;
        let mut state = self.lock();
        state.later.drain(..step.len());
        state.generation = state.generation.wrapping_add(1);
        state.connection = Some(connection);
        state.confirmer = confirmer;
        drop(state);
        self.server.send_if_modified(|known| known.replace(server.clone()) != Some(server));
        Ok(())
    }

    async fn confirmer(&self, server: &Address) -> Result<Option<Confirmer>, OpenError> {
        if self.confirm == 0 {
            return Ok(None);
        }
        let connection = self.dialer.connect(server, self.timeout).await?;
        let key = self.scripts.key("confirmed");
        let mut confirmer = Confirmer::new(connection, key, self.confirm, self.timeout);
        let failed = |error| OpenError::Server { server: server.to_string(), error };
        if !confirmer.round().await.map_err(failed)? {
            return Err(OpenError::Unconfirmed { server: server.to_string() });
        }
        Ok(Some(confirmer))
    }

    async fn catch_up(&self) {
        let step = self.step();
        for call in self.calls(&step) {
            let done: Result<Vec<Vec<u8>>, _> = self.confirmed(call).await;
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

    /// A connection of one's own to the server that was found last.
    pub async fn connection(&self, timeout: Duration) -> Result<MultiplexedConnection, OpenError> {
        self.dialer.connect(&self.server()?, timeout).await
    }

    /// A connection that hears what is published there.
    pub async fn subscriber(&self) -> Result<redis::aio::PubSub, OpenError> {
        self.dialer.subscribe(&self.server()?).await
    }

    /// Changes when the store is found at another server.
    pub fn moves(&self) -> watch::Receiver<Option<Address>> {
        self.server.subscribe()
    }

    fn server(&self) -> Result<Address, OpenError> {
        self.server.borrow().clone().ok_or(OpenError::Unserved)
    }

    fn lose(&self, generation: u64, problem: &str) {
        let mut state = self.lock();
        if state.generation == generation && state.connection.take().is_some() {
            state.confirmer = None;
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
