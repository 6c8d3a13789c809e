//! Whether what the tables say fits together.

use redb::{Error, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use super::{AWAY, BY_EXPIRY, BY_USER, BY_WORKER, CREDENTIALS, SESSIONS};
use super::{decode, time_key, user_key, worker_key};
use crate::domain::session::SessionId;
use crate::store::checked::Checked;
use crate::store::redb::{groups, queue};

/// Looks at everything.
pub fn check(transaction: &ReadTransaction) -> Result<Checked, Error> {
    let sessions = transaction.open_table(SESSIONS)?;
    let by_user = transaction.open_table(BY_USER)?;
    let by_expiry = transaction.open_table(BY_EXPIRY)?;
    let away = transaction.open_table(AWAY)?;
    let by_worker = transaction.open_table(BY_WORKER)?;
    let credentials = transaction.open_table(CREDENTIALS)?.len()?;
    let mut found = Checked { credentials, ..Checked::default() };
    let mut with_worker = 0_u64;
    for entry in sessions.iter()? {
        let (key, bytes) = entry?;
        found.sessions = found.sessions.saturating_add(1);
        let id = SessionId::from_bytes(*key.value());
        let session = match decode(id, bytes.value()) {
            Ok(session) => session,
            Err(error) => {
                found.problem(|| error.to_string());
                continue;
            }
        };
        let live = session.away_until.is_none();
        found.away = found.away.saturating_add(u64::from(!live));
        let has_worker = live && session.worker != 0;
        with_worker = with_worker.saturating_add(u64::from(has_worker));
        let indexes = [
            ("user", by_user.get(user_key(&session.identity.user, id).as_slice())?.is_some()),
            ("expiry", by_expiry.get(&time_key(session.ends_at(), id))?.is_some()),
            ("away", away.get(id.as_bytes())?.is_some() != live),
            ("worker", by_worker.get(&worker_key(session.worker, id))?.is_some() == has_worker),
        ];
        for (index, _) in indexes.iter().filter(|(_, fits)| !fits) {
            found.problem(|| format!("session {id}: the index by {index} does not fit"));
        }
    }
    // Each session has its entries: what is more leads nowhere.
    let sizes = [
        ("user", by_user.len()?, found.sessions),
        ("expiry", by_expiry.len()?, found.sessions),
        ("away", away.len()?, found.away),
        ("worker", by_worker.len()?, with_worker),
    ];
    for (index, size, expected) in sizes.into_iter().filter(|(_, size, expected)| size != expected)
    {
        found.problem(|| format!("the index by {index} has {size} entries, not {expected}"));
    }
    groups::check(transaction, &mut found, |id| Ok(sessions.get(id.as_bytes())?.is_some()))?;
    for id in queue::sessions(transaction)? {
        if sessions.get(id.as_bytes())?.is_none() {
            found.problem(|| format!("session {id}: pushes wait for it, and it is gone"));
        }
    }
    Ok(found)
}
