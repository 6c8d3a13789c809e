//! The one thread that writes: it takes all the writes that wait, puts them into one transaction,
//! flushes once, and answers them all.
//!
//! A transaction costs much the same for one write as for dozens. So while many writes come, one
//! begins at most every [`COMMIT_INTERVAL`], and gathers what comes meanwhile; while few come,
//! none is held back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, Durability, Error};
use tokio::sync::{mpsc, oneshot};

use super::tables::WriteTables;
use super::{META, VERSION};
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::push::Parcel;
use crate::domain::session::{Farewell, Hold, Session, SessionId};
use crate::domain::time::{Clock as _, SystemClock, UnixMillis};
use crate::store::history::{Chronicle, Happened};
use crate::store::queue::{Kept, QueueLimits};
use crate::store::{Admission, Admitted, Left, StoreError, Sweep, Swept, Takeover};

/// Bounds the time that one transaction takes, and so what its writes wait.
const MAX_BATCH: usize = 2048;
/// Small beside a login's own round trips.
const COMMIT_INTERVAL: Duration = Duration::from_millis(5);
/// Many writes: so many within so long. Below, even a transaction for each is cheap.
const MANY: usize = 32;
const WITHIN: Duration = Duration::from_millis(100);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write and whom to answer.
pub enum Write {
    Admit(Box<Admission>, Reply<Admitted>),
    End(Vec<SessionId>, Option<Farewell>, Reply<Vec<Session>>),
    TakeOver(Box<Takeover>, Reply<bool>),
    Depart(Vec<Hold>, Option<UnixMillis>, Reply<Vec<(SessionId, Left)>>),
    Back(Vec<Hold>, u64, Reply<Vec<bool>>),
    Attached(Vec<u64>, UnixMillis, Reply<Vec<u64>>),
    Sweep(Sweep, Reply<Swept>),
    Keep(Vec<SessionId>, Arc<Parcel>, QueueLimits, UnixMillis, Reply<Vec<Kept>>),
    TakeKept(Vec<SessionId>, UnixMillis, Reply<Vec<Vec<Parcel>>>),
    Join(GroupName, SessionId, GroupLimits, Reply<Joined>),
    LeaveGroup(GroupName, SessionId, Reply<bool>),
    Stop,
}

/// A write that is done but not yet durable: tells whoever asked what came of it, or that the
/// transaction failed. Nobody may be waiting any more: that is no error.
type Done = Box<dyn FnOnce(Result<(), StoreError>)>;

fn done<T: 'static>(answer: T, reply: Reply<T>) -> Done {
    Box::new(move |committed| drop(reply.send(committed.map(|()| answer))))
}

impl Write {
    fn apply(self, tables: &mut WriteTables<'_>) -> Result<Option<Done>, Error> {
        Ok(Some(match self {
            // Whoever asked may have gone; a used credential stays used all the same.
            Self::Admit(admission, reply) => done(tables.admit(*admission)?, reply),
            Self::End(ids, farewell, reply) => {
                done(tables.end(&ids, &Happened::end(farewell))?, reply)
            }
            Self::TakeOver(takeover, reply) => done(tables.take_over(*takeover)?, reply),
            Self::Depart(holds, until, reply) => done(tables.depart(&holds, until)?, reply),
            Self::Back(holds, worker, reply) => done(tables.back(&holds, worker)?, reply),
            Self::Attached(workers, until, reply) => done(tables.attached(&workers, until)?, reply),
            Self::Sweep(sweep, reply) => done(tables.sweep(sweep)?, reply),
            Self::Keep(ids, parcel, limits, now, reply) => {
                done(tables.keep(&ids, &parcel, limits, now)?, reply)
            }
            Self::TakeKept(ids, since, reply) => done(tables.take_kept(&ids, since)?, reply),
            Self::Join(group, session, limits, reply) => {
                done(tables.join(&group, session, limits)?, reply)
            }
            Self::LeaveGroup(group, session, reply) => {
                done(tables.leave_group(&group, session)?, reply)
            }
            Self::Stop => return Ok(None),
        }))
    }

    fn fail(self, error: StoreError) {
        match self {
            Self::Admit(_, reply) => drop(reply.send(Err(error))),
            Self::End(.., reply) => drop(reply.send(Err(error))),
            Self::TakeOver(_, reply) => drop(reply.send(Err(error))),
            Self::Depart(.., reply) => drop(reply.send(Err(error))),
            Self::Back(_, _, reply) => drop(reply.send(Err(error))),
            Self::Attached(_, _, reply) => drop(reply.send(Err(error))),
            Self::Sweep(_, reply) => drop(reply.send(Err(error))),
            Self::Keep(.., reply) => drop(reply.send(Err(error))),
            Self::TakeKept(_, _, reply) => drop(reply.send(Err(error))),
            Self::Join(.., reply) => drop(reply.send(Err(error))),
            Self::LeaveGroup(.., reply) => drop(reply.send(Err(error))),
            Self::Stop => {}
        }
    }
}

pub fn start(
    database: Arc<Database>,
    queue: mpsc::Receiver<Write>,
    health: Arc<AtomicBool>,
    chronicle: Arc<Chronicle>,
) -> std::io::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name("store-writer".into());
    builder.spawn(move || run(&database, queue, &health, &chronicle))
}

/// Makes the tables of a new store.
pub fn create(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("version", VERSION)?;
    drop(WriteTables::open(&transaction)?);
    Ok(transaction.commit()?)
}

fn run(
    database: &Database,
    mut queue: mpsc::Receiver<Write>,
    health: &AtomicBool,
    chronicle: &Chronicle,
) {
    let mut pace = Pace::new(Instant::now());
    let mut stopping = false;
    while !stopping {
        let Some(first) = queue.blocking_recv() else { return };
        thread::sleep(pace.hold_back(Instant::now()));
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        pace.begin(Instant::now(), batch.len());
        stopping = batch.iter().any(|write| matches!(write, Write::Stop));
        let well = commit(database, batch, chronicle);
        if health.swap(well, Ordering::Relaxed) != well {
            if well {
                tracing::info!("the store works again");
            } else {
                tracing::error!("the store fails: logins are refused until it works again");
            }
        }
    }
}

/// Decides how long a transaction waits for company.
struct Pace {
    last_begin: Instant,
    window_begin: Instant,
    writes: usize,
    many: bool,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { last_begin: now, window_begin: now, writes: 0, many: false }
    }

    /// How long to gather writes, now that the first one is there.
    fn hold_back(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.last_begin);
        if self.many { COMMIT_INTERVAL.saturating_sub(since) } else { Duration::ZERO }
    }

    /// A transaction of so many writes begins.
    fn begin(&mut self, now: Instant, writes: usize) {
        self.last_begin = now;
        self.writes = self.writes.saturating_add(writes);
        let window = now.saturating_duration_since(self.window_begin);
        if self.writes >= MANY {
            self.many = true;
        }
        if window >= WITHIN {
            self.many = self.writes >= MANY && window < WITHIN.saturating_mul(2);
            self.window_begin = now;
            self.writes = 0;
        }
    }
}

/// Answers every write of the batch; `false` if the store failed.
fn commit(database: &Database, batch: Vec<Write>, chronicle: &Chronicle) -> bool {
    let mut done = Vec::with_capacity(batch.len());
    let mut left = batch.into_iter();
    match apply(database, &mut left, &mut done) {
        Ok(happened) => {
            chronicle.record(SystemClock.now(), happened);
            done.into_iter().for_each(|answer| answer(Ok(())));
            true
        }
        Err(error) => {
            tracing::error!(%error, "a store transaction failed");
            let error = StoreError(error.to_string());
            done.into_iter().for_each(|answer| answer(Err(error.clone())));
            left.for_each(|write| write.fail(error.clone()));
            false
        }
    }
}

fn apply(
    database: &Database,
    batch: &mut impl Iterator<Item = Write>,
    done: &mut Vec<Done>,
) -> Result<Vec<(Happened, Session)>, Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut tables = WriteTables::open(&transaction)?;
    for write in batch {
        done.extend(write.apply(&mut tables)?);
    }
    let happened = tables.happened();
    transaction.commit()?;
    Ok(happened)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(1);

    #[test]
    fn few_writes_are_not_held_back() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            now += STEP * 5;
            assert_eq!(pace.hold_back(now), Duration::ZERO);
            pace.begin(now, 1);
        }
    }

    #[test]
    fn while_many_come_transactions_keep_their_distance() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.begin(now, MANY);
        for _ in 0..200 {
            now += STEP;
            assert_eq!(pace.hold_back(now), COMMIT_INTERVAL - STEP);
            now += pace.hold_back(now);
            pace.begin(now, 8);
        }
        // The rush is over.
        now += WITHIN * 3;
        pace.begin(now, 1);
        assert_eq!(pace.hold_back(now + STEP), Duration::ZERO);
    }
}
