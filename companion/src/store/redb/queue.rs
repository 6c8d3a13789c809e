//! Pushes that wait for sessions which are away.
//!
//! | table | key | value |
//! |---|---|---|
//! | `away_queue` | session id, number (u64 BE) | [`crate::store::queue`] |

use redb::{
    Error, ReadTransaction, ReadableTable, ReadableTableMetadata as _, Table, TableDefinition,
    WriteTransaction,
};

use crate::domain::push::Parcel;
use crate::domain::session::SessionId;
use crate::domain::time::UnixMillis;
use crate::store::queue::{Kept, QueueLimits, decode};

const QUEUE: TableDefinition<'static, &[u8; 24], &[u8]> = TableDefinition::new("away_queue");

/// Whether anything waits for one of them.
pub fn waits(transaction: &ReadTransaction, ids: &[SessionId]) -> Result<bool, Error> {
    let queue = transaction.open_table(QUEUE)?;
    if queue.is_empty()? {
        return Ok(false);
    }
    for id in ids {
        if queue.range::<&[u8; 24]>(&key(*id, 0)..=&key(*id, u64::MAX))?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The sessions for which something waits.
pub fn sessions(transaction: &ReadTransaction) -> Result<Vec<SessionId>, Error> {
    let mut sessions = Vec::new();
    for entry in transaction.open_table(QUEUE)?.iter()? {
        let (key, _) = entry?;
        if let Some(id) = key.value().first_chunk() {
            sessions.push(SessionId::from_bytes(*id));
        }
    }
    sessions.dedup();
    Ok(sessions)
}

/// The table, open for one write transaction.
pub struct QueueTable<'txn>(Table<'txn, &'static [u8; 24], &'static [u8]>);

impl<'txn> QueueTable<'txn> {
    pub fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self(transaction.open_table(QUEUE)?))
    }

    /// The session is known to be away.
    pub fn keep(
        &mut self,
        id: SessionId,
        entry: &[u8],
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Result<Kept, Error> {
        let (mut pushes, mut bytes, mut next) = (0_u32, entry.len(), 0_u64);
        for (number, waiting) in self.of(id)? {
            next = number.saturating_add(1);
            if is_old(&waiting, limits, now) {
                self.0.remove(&key(id, number))?;
            } else {
                pushes = pushes.saturating_add(1);
                bytes = bytes.saturating_add(waiting.len());
            }
        }
        if pushes >= limits.pushes || bytes > usize::try_from(limits.bytes).unwrap_or(usize::MAX) {
            return Ok(Kept::Full);
        }
        self.0.insert(&key(id, next), entry)?;
        Ok(Kept::Queued)
    }

    pub fn take(&mut self, id: SessionId, since: UnixMillis) -> Result<Vec<Parcel>, Error> {
        let mut taken = Vec::new();
        for (number, entry) in self.of(id)? {
            self.0.remove(&key(id, number))?;
            let (kept, parcel) = decode(&entry).map_err(Error::Corrupted)?;
            if kept >= since {
                taken.push(parcel);
            }
        }
        Ok(taken)
    }

    /// The session has ended.
    pub fn forget(&mut self, id: SessionId) -> Result<(), Error> {
        if self.0.is_empty()? {
            return Ok(());
        }
        for (number, _) in self.of(id)? {
            self.0.remove(&key(id, number))?;
        }
        Ok(())
    }

    /// At most as many as the largest limit.
    fn of(&self, id: SessionId) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let range = self.0.range::<&[u8; 24]>(&key(id, 0)..=&key(id, u64::MAX))?;
        range
            .map(|entry| {
                let (key, value) = entry?;
                let number = key.value().last_chunk().map_or(0, |n| u64::from_be_bytes(*n));
                Ok((number, value.value().to_vec()))
            })
            .collect()
    }
}

fn is_old(entry: &[u8], limits: QueueLimits, now: UnixMillis) -> bool {
    decode(entry).map_or(true, |(kept, _)| kept.after(limits.age) <= now)
}

fn key(id: SessionId, number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    let (name, tail) = key.split_at_mut(16);
    name.copy_from_slice(id.as_bytes());
    tail.copy_from_slice(&number.to_be_bytes());
    key
}
