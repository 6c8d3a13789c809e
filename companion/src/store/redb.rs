//! The embedded store: one redb file, one writer thread, many readers.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | text | u64; `version` is [`VERSION`] |
//! | `sessions` | session id, 16 bytes | [`super::record`] |
//! | `sessions_by_user` | user, 0x00, session id | nothing |
//! | `sessions_by_expiry` | when it ends (u64 BE, ms), session id | nothing |
//! | `sessions_away` | session id | nothing |
//! | `sessions_by_worker` | worker (u64 BE), session id, of live ones | nothing |
//! | `workers` | worker (u64) | when it is lost (ms, u64) unless it is attached |
//! | `used_credentials` | credential id, 24 bytes, expiry first | nothing |
//!
//! and those of groups ([`groups`]) and of pushes that wait ([`queue`]).
//!
//! Every write is durable before it is answered; many writes share one transaction and one flush
//! ([`writer`]). Reads see the last committed state and wait for nobody.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, StorageBackend,
    TableDefinition, TableError,
};
use tokio::sync::{mpsc, oneshot, watch};

use self::writer::Write;
use super::checked::Checked;
use super::groups::GroupStore;
use super::history::{Bookmark, Chronicle, Event, History, TooOld};
use super::queue::{AwayQueue, Kept, QueueLimits};
use super::relay::Relay;
use super::{
    Admission, Admitted, Answer, Count, Left, Listed, News, Page, Store, StoreError, Sweep, Swept,
    Takeover, Used,
};
use crate::domain::credential::CredentialId;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::key::hex;
use crate::domain::push::Parcel;
use crate::domain::session::{Farewell, Hold, Session, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;

mod groups;
mod queue;
mod tables;
mod writer;

/// The format of the file. A store of another version is not touched.
const VERSION: u64 = 1;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Writes that may wait for the writer; beyond, callers wait.
const WRITE_QUEUE: usize = 8192;
/// redb's page cache.
const CACHE_BYTES: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path}: another process has the store open, and one at a time can use it; stop it first, \
         or name another file"
    )]
    InUse { path: String },
    #[error(
        "{path}: the store has format version {found}, this companion reads version {VERSION}; \
         start the companion that wrote it, or another store"
    )]
    Version { path: String, found: u64 },
    #[error("{path}: this is a redb file, but no store of MeshGate")]
    Foreign { path: String },
    #[error("{path}: {problem}")]
    Broken { path: String, problem: String },
}

pub struct RedbStore {
    database: Arc<Database>,
    writes: mpsc::Sender<Write>,
    writer: Option<JoinHandle<()>>,
    health: Arc<AtomicBool>,
    chronicle: Arc<Chronicle>,
}

impl RedbStore {
    /// Opens the store, or makes a new one.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        // Users' names and addresses are nobody else's business. An empty file is a new store.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| {
            OpenError::Broken { path: name.clone(), problem: error.to_string() }
        })?;
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        Self::start(database, name)
    }

    /// A store on any backend: in memory, or one that loses writes, for tests.
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, OpenError> {
        Self::start(Database::builder().create_with_backend(backend), "(backend)".into())
    }

    /// Reads the whole file, mends what a crash left (as opening does), and says what it has.
    /// Does not make one.
    pub fn check(path: &Path) -> Result<Checked, OpenError> {
        let name = path.display().to_string();
        let broken = |problem: String| OpenError::Broken { path: name.clone(), problem };
        std::fs::metadata(path).map_err(|error| broken(error.to_string()))?;
        let mut database = opened(Database::open(path), &name)?;
        check_version(&database, &name)?;
        let whole = database.check_integrity().map_err(|error| broken(error.to_string()))?;
        let transaction = database.begin_read().map_err(|error| broken(error.to_string()))?;
        let mut checked = tables::check(&transaction).map_err(|error| broken(error.to_string()))?;
        if !whole {
            checked.problem(|| "pages of the file were damaged; it is mended".into());
        }
        Ok(checked)
    }

    fn start(database: Result<Database, DatabaseError>, path: String) -> Result<Self, OpenError> {
        let database = opened(database, &path)?;
        check_version(&database, &path)?;
        let database = Arc::new(database);
        let health = Arc::new(AtomicBool::new(true));
        let (writes, queue) = mpsc::channel(WRITE_QUEUE);
        let broken = |problem: String| OpenError::Broken { path: path.clone(), problem };
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch).map_err(|error| broken(error.to_string()))?;
        let chronicle = Arc::new(Chronicle::new(u64::from_be_bytes(epoch)));
        let told = Arc::clone(&chronicle);
        let writer = writer::start(Arc::clone(&database), queue, Arc::clone(&health), told)
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self { database, writes, writer: Some(writer), health, chronicle })
    }

    fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Write,
    ) -> Answer<T> {
        let (answer, answered) = oneshot::channel();
        let write = write(answer);
        let writes = self.writes.clone();
        Box::pin(async move {
            let stopped = || StoreError("the store's writer has stopped".into());
            writes.send(write).await.map_err(|_| stopped())?;
            answered.await.map_err(|_| stopped())?
        })
    }

    /// Reads on a thread where waiting for the disk holds nobody up.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Answer<T> {
        let database = Arc::clone(&self.database);
        let health = Arc::clone(&self.health);
        Box::pin(async move {
            let answer = tokio::task::spawn_blocking(move || read(&database.begin_read()?))
                .await
                .map_err(|error| StoreError(error.to_string()))?;
            answer.map_err(|error| {
                health.store(false, Ordering::Relaxed);
                StoreError(error.to_string())
            })
        })
    }
}

fn opened(database: Result<Database, DatabaseError>, path: &str) -> Result<Database, OpenError> {
    database.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        other => OpenError::Broken { path: path.to_owned(), problem: other.to_string() },
    })
}

/// Reads the version record of an old store, writes that of a new one.
fn check_version(database: &Database, path: &str) -> Result<(), OpenError> {
    let broken = |error: redb::Error| OpenError::Broken {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let transaction = database.begin_read().map_err(|error| broken(error.into()))?;
    match transaction.open_table(META) {
        Ok(meta) => {
            let version = meta.get("version").map_err(|error| broken(error.into()))?;
            match version.map(|version| version.value()) {
                // Earlier companions made fewer tables.
                Some(VERSION) => writer::create(database).map_err(broken),
                Some(found) => Err(OpenError::Version { path: path.to_owned(), found }),
                None => Err(OpenError::Foreign { path: path.to_owned() }),
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {
            let tables = transaction.list_tables().map_err(|error| broken(error.into()))?;
            if tables.count() > 0 {
                return Err(OpenError::Foreign { path: path.to_owned() });
            }
            writer::create(database).map_err(broken)
        }
        Err(TableError::TableTypeMismatch { .. }) => {
            Err(OpenError::Foreign { path: path.to_owned() })
        }
        Err(error) => Err(broken(error.into())),
    }
}

impl GroupStore for RedbStore {
    fn join(&self, group: GroupName, session: SessionId, limits: GroupLimits) -> Answer<Joined> {
        self.write(|answer| Write::Join(group, session, limits, answer))
    }

    fn leave(&self, group: GroupName, session: SessionId) -> Answer<bool> {
        self.write(|answer| Write::LeaveGroup(group, session, answer))
    }

    fn members(
        &self,
        group: GroupName,
        after: Option<SessionId>,
        limit: usize,
    ) -> Answer<Vec<SessionId>> {
        self.read(move |transaction| groups::members(transaction, &group, after, limit))
    }

    fn groups_of(&self, session: SessionId) -> Answer<Vec<GroupName>> {
        self.read(move |transaction| groups::groups_of(transaction, session))
    }
}

impl AwayQueue for RedbStore {
    fn keep(
        &self,
        ids: Vec<SessionId>,
        parcel: Arc<Parcel>,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Answer<Vec<Kept>> {
        self.write(|answer| Write::Keep(ids, parcel, limits, now, answer))
    }

    fn take_kept(&self, ids: Vec<SessionId>, since: UnixMillis) -> Answer<Vec<Vec<Parcel>>> {
        let none = vec![Vec::new(); ids.len()];
        let asked = ids.clone();
        let waits = self.read(move |transaction| queue::waits(transaction, &asked));
        let take = self.write(|answer| Write::TakeKept(ids, since, answer));
        // The usual case costs no transaction.
        Box::pin(async move { if waits.await? { take.await } else { Ok(none) } })
    }
}

impl History for RedbStore {
    fn newest(&self) -> Answer<Bookmark> {
        let newest = self.chronicle.newest();
        Box::pin(async move { Ok(newest) })
    }

    fn since(&self, place: Bookmark, limit: usize) -> Answer<Result<Vec<Event>, TooOld>> {
        let events = self.chronicle.since(place, limit);
        Box::pin(async move { Ok(events) })
    }

    fn pulse(&self) -> watch::Receiver<u64> {
        self.chronicle.pulse()
    }
}

impl Store for RedbStore {
    fn admit(&self, admission: Admission) -> Answer<Admitted> {
        self.write(|answer| Write::Admit(Box::new(admission), answer))
    }

    /// There is no other replica that could hear the farewell; who watches hears it.
    fn end(&self, ids: Vec<SessionId>, farewell: Option<Farewell>) -> Answer<Vec<Session>> {
        self.write(|answer| Write::End(ids, farewell, answer))
    }

    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>> {
        self.read(move |transaction| tables::find(transaction, &ids))
    }

    fn list(&self, page: Page) -> Answer<Listed> {
        self.read(move |transaction| {
            let sessions = tables::list(transaction, &page)?;
            let next = sessions.last().filter(|_| sessions.len() >= page.limit);
            Ok(Listed { next: next.map(|session| session.id), sessions })
        })
    }

    fn count(&self) -> Answer<Count> {
        self.read(tables::count)
    }

    fn used(&self, after: Option<String>, limit: usize) -> Answer<Used> {
        self.read(move |transaction| {
            let after = after.as_deref().and_then(CredentialId::from_hex);
            let credentials = tables::used(transaction, after, limit)?;
            let next = credentials.last().filter(|_| credentials.len() >= limit);
            Ok(Used { next: next.map(|last| hex(last.as_bytes())), credentials })
        })
    }

    fn take_over(&self, takeover: Takeover) -> Answer<bool> {
        self.write(|answer| Write::TakeOver(Box::new(takeover), answer))
    }

    fn depart(
        &self,
        holds: Vec<Hold>,
        until: Option<UnixMillis>,
    ) -> Answer<Vec<(SessionId, Left)>> {
        self.write(|answer| Write::Depart(holds, until, answer))
    }

    fn back(&self, holds: Vec<Hold>, worker: u64) -> Answer<Vec<bool>> {
        self.write(|answer| Write::Back(holds, worker, answer))
    }

    fn attached(&self, workers: Vec<u64>, until: UnixMillis) -> Answer<Vec<u64>> {
        self.write(|answer| Write::Attached(workers, until, answer))
    }

    fn sweep(&self, sweep: Sweep) -> Answer<Swept> {
        let due = self.read(move |transaction| tables::due(transaction, sweep));
        let sweep = self.write(|answer| Write::Sweep(sweep, answer));
        let health = Arc::clone(&self.health);
        Box::pin(async move {
            // Nothing due costs no transaction; but a store that failed is tried again.
            if due.await? || !health.load(Ordering::Relaxed) {
                sweep.await
            } else {
                Ok(Swept::default())
            }
        })
    }

    fn announce(&self, _: &Whom, _: &Farewell) -> Answer<()> {
        Box::pin(async { Ok(()) })
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        None
    }

    fn relay(&self) -> Option<Arc<dyn Relay>> {
        None
    }

    fn healthy(&self) -> bool {
        self.health.load(Ordering::Relaxed) && !self.writes.is_closed()
    }
}

impl Drop for RedbStore {
    /// What was queued is written and the file is closed before this returns.
    fn drop(&mut self) {
        if self.writes.try_send(Write::Stop).is_ok()
            && let Some(writer) = self.writer.take()
        {
            // A writer that panicked has nothing left to close.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
