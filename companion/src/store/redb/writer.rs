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
use crate::domain::session::{Farewell, Session, SessionId};
use crate::domain::time::{Clock as _, SystemClock, UnixMillis};
use crate::store::history::{Chronicle, Happened};
use crate::store::{Admission, Admitted, StoreError, Swept};

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
    Sweep(UnixMillis, Reply<Swept>),
    Join(GroupName, SessionId, GroupLimits, Reply<Joined>),
    LeaveGroup(GroupName, SessionId, Reply<bool>),
    Stop,
}

/// A write that is done but not yet durable. Nobody may be waiting any more: that is no error.
enum Done {
    Admit(Admitted, Reply<Admitted>),
    End(Vec<Session>, Reply<Vec<Session>>),
    Sweep(Swept, Reply<Swept>),
    Join(Joined, Reply<Joined>),
    LeaveGroup(bool, Reply<bool>),
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
            for write in done {
                match write {
                    Done::Admit(admitted, reply) => drop(reply.send(Ok(admitted))),
                    Done::End(ended, reply) => drop(reply.send(Ok(ended))),
                    Done::Sweep(swept, reply) => drop(reply.send(Ok(swept))),
                    Done::Join(joined, reply) => drop(reply.send(Ok(joined))),
                    Done::LeaveGroup(left, reply) => drop(reply.send(Ok(left))),
                }
            }
            true
        }
        Err(error) => {
            tracing::error!(%error, "a store transaction failed");
            let error = StoreError(error.to_string());
            for write in done {
                match write {
                    Done::Admit(_, reply) => drop(reply.send(Err(error.clone()))),
                    Done::End(_, reply) => drop(reply.send(Err(error.clone()))),
                    Done::Sweep(_, reply) => drop(reply.send(Err(error.clone()))),
                    Done::Join(_, reply) => drop(reply.send(Err(error.clone()))),
                    Done::LeaveGroup(_, reply) => drop(reply.send(Err(error.clone()))),
                }
            }
            for write in left {
                match write {
                    Write::Admit(_, reply) => drop(reply.send(Err(error.clone()))),
                    Write::End(.., reply) => drop(reply.send(Err(error.clone()))),
                    Write::Sweep(_, reply) => drop(reply.send(Err(error.clone()))),
                    Write::Join(.., reply) => drop(reply.send(Err(error.clone()))),
                    Write::LeaveGroup(.., reply) => drop(reply.send(Err(error.clone()))),
                    Write::Stop => {}
                }
            }
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
        match write {
            Write::Admit(admission, reply) => {
                // Whoever asked may have gone; a used credential stays used all the same.
                let admitted = tables.admit(*admission)?;
                done.push(Done::Admit(admitted, reply));
            }
            Write::End(ids, farewell, reply) => {
                let ended = tables.end(&ids, &Happened::end(farewell))?;
                done.push(Done::End(ended, reply));
            }
            Write::Sweep(now, reply) => done.push(Done::Sweep(tables.sweep(now)?, reply)),
            Write::Join(group, session, limits, reply) => {
                done.push(Done::Join(tables.join(&group, session, limits)?, reply));
            }
            Write::LeaveGroup(group, session, reply) => {
                done.push(Done::LeaveGroup(tables.leave_group(&group, session)?, reply));
            }
            Write::Stop => {}
        }
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
