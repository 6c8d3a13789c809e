//! The tables, and what one operation does to them.

use std::ops::Bound;

use redb::{
    Error, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition,
    WriteTransaction,
};

use super::groups::GroupTables;
use super::queue::QueueTable;
use crate::domain::credential::CredentialId;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::push::Parcel;
use crate::domain::same_user::{Bound as UserBound, Over};
use crate::domain::session::{Farewell, Session, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::history::{Cause, Happened};
use crate::store::queue::{self, Kept, QueueLimits};
use crate::store::{Admission, Admitted, Count, EXPIRED, GIVEN_UP, Page, Sweep, Swept, record};

mod check;
mod moves;

pub use check::check;

type SessionTable = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;
type Index<K> = TableDefinition<'static, K, ()>;

const SESSIONS: SessionTable = TableDefinition::new("sessions");
const BY_USER: Index<&[u8]> = TableDefinition::new("sessions_by_user");
const BY_EXPIRY: Index<&[u8; 24]> = TableDefinition::new("sessions_by_expiry");
const AWAY: Index<&[u8; 16]> = TableDefinition::new("sessions_away");
const BY_WORKER: Index<&[u8; 24]> = TableDefinition::new("sessions_by_worker");
const WORKERS: TableDefinition<'static, u64, u64> = TableDefinition::new("workers");
const CREDENTIALS: Index<&[u8; 24]> = TableDefinition::new("used_credentials");

/// A sweep is one part of a shared transaction: it must not keep the logins in it waiting.
const SWEEP_SESSIONS: usize = 256;
const SWEEP_CREDENTIALS: usize = 1024;

pub fn find(
    transaction: &ReadTransaction,
    ids: &[SessionId],
) -> Result<Vec<Option<Session>>, Error> {
    let sessions = transaction.open_table(SESSIONS)?;
    ids.iter()
        .map(|id| match sessions.get(id.as_bytes())? {
            Some(bytes) => decode(*id, bytes.value()).map(Some),
            None => Ok(None),
        })
        .collect()
}

pub fn list(transaction: &ReadTransaction, page: &Page) -> Result<Vec<Session>, Error> {
    let sessions = transaction.open_table(SESSIONS)?;
    let Some(user) = &page.user else {
        let start =
            page.after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes()));
        return sessions
            .range::<&[u8; 16]>((start, Bound::Unbounded))?
            .take(page.limit)
            .map(|entry| {
                let (id, bytes) = entry?;
                decode(SessionId::from_bytes(*id.value()), bytes.value())
            })
            .collect();
    };
    let by_user = transaction.open_table(BY_USER)?;
    let first = user_key(user, page.after.unwrap_or(SessionId::from_bytes([0; 16])));
    let last = user_key(user, SessionId::from_bytes([0xff; 16]));
    let start = if page.after.is_some() { Bound::Excluded } else { Bound::Included };
    by_user
        .range::<&[u8]>((start(first.as_slice()), Bound::Included(last.as_slice())))?
        .take(page.limit)
        .filter_map(|entry| {
            let found = entry.map_err(Error::from).and_then(|(key, _)| {
                let Some(id) = key.value().last_chunk() else { return Ok(None) };
                let bytes = sessions.get(id)?;
                bytes.map(|bytes| decode(SessionId::from_bytes(*id), bytes.value())).transpose()
            });
            found.transpose()
        })
        .collect()
}

pub fn count(transaction: &ReadTransaction) -> Result<Count, Error> {
    let away = transaction.open_table(AWAY)?.len()?;
    let all = transaction.open_table(SESSIONS)?.len()?;
    Ok(Count { live: all.saturating_sub(away), away })
}

/// Used credentials after this one.
pub fn used(
    transaction: &ReadTransaction,
    after: Option<CredentialId>,
    limit: usize,
) -> Result<Vec<CredentialId>, Error> {
    let start = match &after {
        Some(after) => Bound::Excluded(after.as_bytes()),
        None => Bound::Unbounded,
    };
    let credentials = transaction.open_table(CREDENTIALS)?;
    let range = credentials.range::<&[u8; 24]>((start, Bound::Unbounded))?;
    range.take(limit).map(|entry| Ok(CredentialId::from_bytes(*entry?.0.value()))).collect()
}

/// Whether a sweep would find anything.
pub fn due(transaction: &ReadTransaction, sweep: Sweep) -> Result<bool, Error> {
    let until = time_key(sweep.now, SessionId::from_bytes([0xff; 16]));
    for index in [BY_EXPIRY, CREDENTIALS] {
        if transaction.open_table(index)?.range::<&[u8; 24]>(..=&until)?.next().is_some() {
            return Ok(true);
        }
    }
    if sweep.lost_until.is_some() {
        for worker in transaction.open_table(WORKERS)?.iter()? {
            if worker?.1.value() <= sweep.now.0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// All tables, open for one write transaction.
pub struct WriteTables<'txn> {
    sessions: Table<'txn, &'static [u8; 16], &'static [u8]>,
    by_user: Table<'txn, &'static [u8], ()>,
    by_expiry: Table<'txn, &'static [u8; 24], ()>,
    away: Table<'txn, &'static [u8; 16], ()>,
    by_worker: Table<'txn, &'static [u8; 24], ()>,
    workers: Table<'txn, u64, u64>,
    credentials: Table<'txn, &'static [u8; 24], ()>,
    groups: GroupTables<'txn>,
    queue: QueueTable<'txn>,
    happened: Vec<(Happened, Session)>,
}

impl<'txn> WriteTables<'txn> {
    pub fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            by_user: transaction.open_table(BY_USER)?,
            by_expiry: transaction.open_table(BY_EXPIRY)?,
            away: transaction.open_table(AWAY)?,
            by_worker: transaction.open_table(BY_WORKER)?,
            workers: transaction.open_table(WORKERS)?,
            credentials: transaction.open_table(CREDENTIALS)?,
            groups: GroupTables::open(transaction)?,
            queue: QueueTable::open(transaction)?,
            happened: Vec::new(),
        })
    }

    pub fn admit(&mut self, admission: Admission) -> Result<Admitted, Error> {
        let Admission { credential, bound, session, lost_at } = admission;
        if let Some(credential) = &credential
            && self.credentials.get(credential.as_bytes())?.is_some()
        {
            return Ok(Admitted::CredentialUsed);
        }
        let mut in_the_way = Vec::new();
        if let Some(bound) = &bound {
            let others = self.others_of(bound)?;
            match bound.over {
                Over::Refuse { limit, away_counts } => {
                    let limit = limit.get() as usize;
                    let counts = |(_, away): &&(_, bool)| away_counts || !away;
                    if others.iter().filter(counts).count() >= limit {
                        return Ok(Admitted::TooManySessions);
                    }
                    let too_many = others.len().saturating_add(1).saturating_sub(limit);
                    let away = others.iter().filter(|(_, away)| *away).map(|(id, _)| *id);
                    in_the_way = away.take(too_many).collect();
                }
                Over::End => in_the_way = others.into_iter().map(|(id, _)| id).collect(),
            }
        }
        if let Some(credential) = &credential {
            self.credentials.insert(credential.as_bytes(), ())?;
        }
        let Some(session) = session else { return Ok(Admitted::Yes { replaced: Vec::new() }) };
        let farewell = bound.map_or_else(|| Farewell::new(""), |bound| bound.farewell);
        let end = Happened::End { cause: Cause::Replaced, farewell };
        let replaced = self.end(&in_the_way, &end)?;
        self.by_user.insert(user_key(&session.identity.user, session.id).as_slice(), ())?;
        self.place(&session)?;
        self.mind(session.worker, lost_at)?;
        self.happened.push((Happened::Login, session.clone()));
        let id = session.id;
        self.sessions.insert(id.as_bytes(), record::encode(session).as_slice())?;
        Ok(Admitted::Yes { replaced })
    }

    /// The user's sessions that have not ended, and which of them are away, in the order in which
    /// they began; no more of them than decide the matter.
    fn others_of(&self, bound: &UserBound) -> Result<Vec<(SessionId, bool)>, Error> {
        let enough = match bound.over {
            Over::Refuse { limit, .. } => limit.get() as usize,
            Over::End => usize::MAX,
        };
        let first = user_key(&bound.user, SessionId::from_bytes([0; 16]));
        let last = user_key(&bound.user, SessionId::from_bytes([0xff; 16]));
        let (mut others, mut live) = (Vec::new(), 0_usize);
        for entry in self.by_user.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
            let (key, _) = entry?;
            let Some(id) = key.value().last_chunk() else { continue };
            let Some(bytes) = self.sessions.get(id)? else { continue };
            let session = decode(SessionId::from_bytes(*id), bytes.value())?;
            if session.ends_at() > bound.now {
                let away = session.away_until.is_some();
                others.push((session.id, away));
                live = live.saturating_add(usize::from(!away));
            }
            if live >= enough {
                break;
            }
        }
        Ok(others)
    }

    /// What happened in this transaction.
    pub fn happened(self) -> Vec<(Happened, Session)> {
        self.happened
    }

    pub fn end(&mut self, ids: &[SessionId], end: &Happened) -> Result<Vec<Session>, Error> {
        let mut ended = Vec::new();
        for id in ids {
            let Some(bytes) = self.sessions.remove(id.as_bytes())? else { continue };
            let session = decode(*id, bytes.value())?;
            drop(bytes);
            self.groups.forget(*id)?;
            self.queue.forget(*id)?;
            self.by_user.remove(user_key(&session.identity.user, *id).as_slice())?;
            self.displace(&session)?;
            self.happened.push((end.clone(), session.clone()));
            ended.push(session);
        }
        Ok(ended)
    }

    pub fn join(
        &mut self,
        group: &GroupName,
        session: SessionId,
        limits: GroupLimits,
    ) -> Result<Joined, Error> {
        if self.sessions.get(session.as_bytes())?.is_none() {
            return Ok(Joined::NoSession);
        }
        self.groups.join(group, session, limits)
    }

    pub fn leave_group(&mut self, group: &GroupName, session: SessionId) -> Result<bool, Error> {
        self.groups.leave(group, session)
    }

    /// For those of them that are away.
    pub fn keep(
        &mut self,
        ids: &[SessionId],
        parcel: &Parcel,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Result<Vec<Kept>, Error> {
        let Some(entry) = queue::encode(parcel, now) else {
            return Ok(ids.iter().map(|_| Kept::Elsewhere).collect());
        };
        ids.iter()
            .map(|id| {
                let away = self
                    .get(*id)?
                    .is_some_and(|session| session.away_until.is_some() && session.ends_at() > now);
                if !away {
                    return Ok(Kept::Elsewhere);
                }
                self.queue.keep(*id, &entry, limits, now)
            })
            .collect()
    }

    pub fn take_kept(
        &mut self,
        ids: &[SessionId],
        since: UnixMillis,
    ) -> Result<Vec<Vec<Parcel>>, Error> {
        ids.iter().map(|id| self.queue.take(*id, since)).collect()
    }

    /// It was away for too long.
    fn give_up(&mut self, id: SessionId) -> Result<(), Error> {
        let end = Happened::End { cause: Cause::GivenUp, farewell: Farewell::new(GIVEN_UP) };
        self.end(&[id], &end).map(drop)
    }

    /// Into the indexes of what changes while a session lives.
    fn place(&mut self, session: &Session) -> Result<(), Error> {
        self.by_expiry.insert(&time_key(session.ends_at(), session.id), ())?;
        if session.away_until.is_some() {
            self.away.insert(session.id.as_bytes(), ())?;
        } else if session.worker != 0 {
            self.by_worker.insert(&worker_key(session.worker, session.id), ())?;
        }
        Ok(())
    }

    /// A worker whose time is not known is lost at this one.
    fn mind(&mut self, worker: u64, lost_at: Option<UnixMillis>) -> Result<(), Error> {
        if let Some(lost_at) = lost_at
            && worker != 0
            && self.workers.get(worker)?.is_none()
        {
            self.workers.insert(worker, lost_at.0)?;
        }
        Ok(())
    }

    /// The reverse of [`Self::place`].
    fn displace(&mut self, session: &Session) -> Result<(), Error> {
        self.by_expiry.remove(&time_key(session.ends_at(), session.id))?;
        self.away.remove(session.id.as_bytes())?;
        self.by_worker.remove(&worker_key(session.worker, session.id))?;
        Ok(())
    }

    pub fn sweep(&mut self, sweep: Sweep) -> Result<Swept, Error> {
        let now = sweep.now;
        let until = time_key(now, SessionId::from_bytes([0xff; 16]));
        let due = first_of(&self.by_expiry, &until, SWEEP_SESSIONS)?;
        let expired = Happened::End { cause: Cause::Expired, farewell: Farewell::new(EXPIRED) };
        let mut swept = Swept::default();
        for key in &due {
            if let Some(id) = key.last_chunk() {
                let id = SessionId::from_bytes(*id);
                match self.get(id)? {
                    Some(session) if session.expires_at > now => {
                        self.give_up(id)?;
                        swept.given_up.push(id);
                    }
                    _ => {
                        self.end(&[id], &expired)?;
                        swept.sessions.push(id);
                    }
                }
            }
            // Also when its session is gone: an entry that leads nowhere must not come up again.
            self.by_expiry.remove(key)?;
        }
        let more_lost = match sweep.lost_until {
            Some(until) => self.sweep_lost(now, until, &mut swept)?,
            None => false,
        };

        let credentials = first_of(&self.credentials, &until, SWEEP_CREDENTIALS)?;
        for key in &credentials {
            self.credentials.remove(key)?;
        }
        swept.credentials = credentials.len();
        swept.more =
            more_lost || due.len() == SWEEP_SESSIONS || credentials.len() == SWEEP_CREDENTIALS;
        Ok(swept)
    }
}

fn decode(id: SessionId, bytes: &[u8]) -> Result<Session, Error> {
    record::decode(id, bytes).map_err(Error::Corrupted)
}

fn first_of(
    table: &Table<'_, &'static [u8; 24], ()>,
    until: &[u8; 24],
    limit: usize,
) -> Result<Vec<[u8; 24]>, Error> {
    table.range::<&[u8; 24]>(..=until)?.take(limit).map(|entry| Ok(*entry?.0.value())).collect()
}

/// User names hold no control characters, so 0x00 ends one; ids have a fixed length.
fn user_key(user: &str, id: SessionId) -> Vec<u8> {
    [user.as_bytes(), &[0], id.as_bytes()].concat()
}

fn time_key(time: UnixMillis, id: SessionId) -> [u8; 24] {
    number_key(time.0, id)
}

fn worker_key(worker: u64, id: SessionId) -> [u8; 24] {
    number_key(worker, id)
}

fn number_key(number: u64, id: SessionId) -> [u8; 24] {
    let mut key = [0; 24];
    let (head, name) = key.split_at_mut(8);
    head.copy_from_slice(&number.to_be_bytes());
    name.copy_from_slice(id.as_bytes());
    key
}
