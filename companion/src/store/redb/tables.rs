//! The tables, and what one operation does to them.

use std::ops::Bound;

use redb::{
    Error, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition,
    WriteTransaction,
};

use super::groups::GroupTables;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::same_user::{Bound as UserBound, Over};
use crate::domain::session::{Farewell, Session, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::history::{Cause, Happened};
use crate::store::{Admission, Admitted, EXPIRED, Page, Swept, record};

type SessionTable = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;
type Index<K> = TableDefinition<'static, K, ()>;

const SESSIONS: SessionTable = TableDefinition::new("sessions");
const BY_USER: Index<&[u8]> = TableDefinition::new("sessions_by_user");
const BY_EXPIRY: Index<&[u8; 24]> = TableDefinition::new("sessions_by_expiry");
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

pub fn count(transaction: &ReadTransaction) -> Result<u64, Error> {
    Ok(transaction.open_table(SESSIONS)?.len()?)
}

/// Whether a sweep would find anything.
pub fn due(transaction: &ReadTransaction, now: UnixMillis) -> Result<bool, Error> {
    let until = expiry_key(now, SessionId::from_bytes([0xff; 16]));
    for index in [BY_EXPIRY, CREDENTIALS] {
        if transaction.open_table(index)?.range::<&[u8; 24]>(..=&until)?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All tables, open for one write transaction.
pub struct WriteTables<'txn> {
    sessions: Table<'txn, &'static [u8; 16], &'static [u8]>,
    by_user: Table<'txn, &'static [u8], ()>,
    by_expiry: Table<'txn, &'static [u8; 24], ()>,
    credentials: Table<'txn, &'static [u8; 24], ()>,
    groups: GroupTables<'txn>,
    happened: Vec<(Happened, Session)>,
}

impl<'txn> WriteTables<'txn> {
    pub fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            by_user: transaction.open_table(BY_USER)?,
            by_expiry: transaction.open_table(BY_EXPIRY)?,
            credentials: transaction.open_table(CREDENTIALS)?,
            groups: GroupTables::open(transaction)?,
            happened: Vec::new(),
        })
    }

    pub fn admit(&mut self, admission: Admission) -> Result<Admitted, Error> {
        let Admission { credential, bound, session } = admission;
        if let Some(credential) = &credential
            && self.credentials.get(credential.as_bytes())?.is_some()
        {
            return Ok(Admitted::CredentialUsed);
        }
        let mut in_the_way = Vec::new();
        if let Some(bound) = &bound {
            let others = self.live_of(bound)?;
            match bound.over {
                Over::Refuse { limit } if others.len() >= limit.get() as usize => {
                    return Ok(Admitted::TooManySessions);
                }
                Over::End { .. } if session.is_some() => in_the_way = others,
                Over::Refuse { .. } | Over::End { .. } => {}
            }
        }
        if let Some(credential) = &credential {
            self.credentials.insert(credential.as_bytes(), ())?;
        }
        let farewell = bound.as_ref().and_then(UserBound::farewell).cloned();
        let farewell = farewell.unwrap_or_else(|| Farewell::new(""));
        let end = Happened::End { cause: Cause::Replaced, farewell };
        let replaced = self.end(&in_the_way, &end)?;
        if let Some(session) = session {
            let id = session.id;
            self.by_user.insert(user_key(&session.identity.user, id).as_slice(), ())?;
            self.by_expiry.insert(&expiry_key(session.expires_at, id), ())?;
            self.happened.push((Happened::Login, session.clone()));
            self.sessions.insert(id.as_bytes(), record::encode(session).as_slice())?;
        }
        Ok(Admitted::Yes { replaced })
    }

    /// The user's sessions that have not expired; no more of them than decide the matter.
    fn live_of(&self, bound: &UserBound) -> Result<Vec<SessionId>, Error> {
        let enough = match bound.over {
            Over::Refuse { limit } => limit.get() as usize,
            Over::End { .. } => usize::MAX,
        };
        let first = user_key(&bound.user, SessionId::from_bytes([0; 16]));
        let last = user_key(&bound.user, SessionId::from_bytes([0xff; 16]));
        let mut live = Vec::new();
        for entry in self.by_user.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
            let (key, _) = entry?;
            let Some(id) = key.value().last_chunk() else { continue };
            let Some(bytes) = self.sessions.get(id)? else { continue };
            let id = SessionId::from_bytes(*id);
            if decode(id, bytes.value())?.expires_at > bound.now {
                live.push(id);
            }
            if live.len() >= enough {
                break;
            }
        }
        Ok(live)
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
            self.by_user.remove(user_key(&session.identity.user, *id).as_slice())?;
            self.by_expiry.remove(&expiry_key(session.expires_at, *id))?;
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

    pub fn sweep(&mut self, now: UnixMillis) -> Result<Swept, Error> {
        let until = expiry_key(now, SessionId::from_bytes([0xff; 16]));
        let sessions = first_of(&self.by_expiry, &until, SWEEP_SESSIONS)?;
        let mut swept = Swept::default();
        for key in &sessions {
            if let Some(id) = key.last_chunk() {
                swept.sessions.push(SessionId::from_bytes(*id));
            }
            // Also when its session is gone: an entry that leads nowhere must not come up again.
            self.by_expiry.remove(key)?;
        }
        let end = Happened::End { cause: Cause::Expired, farewell: Farewell::new(EXPIRED) };
        self.end(&swept.sessions.clone(), &end)?;

        let credentials = first_of(&self.credentials, &until, SWEEP_CREDENTIALS)?;
        for key in &credentials {
            self.credentials.remove(key)?;
        }
        swept.credentials = credentials.len();
        swept.more = sessions.len() == SWEEP_SESSIONS || credentials.len() == SWEEP_CREDENTIALS;
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

fn expiry_key(expires: UnixMillis, id: SessionId) -> [u8; 24] {
    let mut key = [0; 24];
    let (time, name) = key.split_at_mut(8);
    time.copy_from_slice(&expires.0.to_be_bytes());
    name.copy_from_slice(id.as_bytes());
    key
}
