//! The tables of groups, and what one operation does to them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `groups` | group, 0x00, session id | nothing |
//! | `groups_by_session` | session id, group | nothing |
//! | `group_sizes` | group | number of its members |

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{
    Error, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition,
    TableError, WriteTransaction,
};

use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::session::SessionId;
use crate::store::checked::Checked;

const GROUPS: TableDefinition<'static, &[u8], ()> = TableDefinition::new("groups");
const BY_SESSION: TableDefinition<'static, &[u8], ()> = TableDefinition::new("groups_by_session");
const SIZES: TableDefinition<'static, &str, u32> = TableDefinition::new("group_sizes");

const FIRST: [u8; 16] = [0; 16];
const LAST: [u8; 16] = [0xff; 16];

pub fn members(
    transaction: &ReadTransaction,
    group: &GroupName,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<SessionId>, Error> {
    let Some(groups) = there(transaction.open_table(GROUPS))? else { return Ok(Vec::new()) };
    let start = key(group, after.as_ref().map_or(&FIRST, SessionId::as_bytes));
    let end = key(group, &LAST);
    let start = match after {
        Some(_) => Bound::Excluded(start.as_slice()),
        None => Bound::Included(start.as_slice()),
    };
    let range = groups.range::<&[u8]>((start, Bound::Included(end.as_slice())))?;
    range
        .take(limit)
        .filter_map(|entry| match entry {
            Ok((key, _)) => key.value().last_chunk().map(|id| Ok(SessionId::from_bytes(*id))),
            Err(error) => Some(Err(error.into())),
        })
        .collect()
}

pub fn groups_of(
    transaction: &ReadTransaction,
    session: SessionId,
) -> Result<Vec<GroupName>, Error> {
    let Some(table) = there(transaction.open_table(BY_SESSION))? else { return Ok(Vec::new()) };
    names(&table, session)
}

/// Whether the three tables fit together, and with the sessions.
pub fn check(
    transaction: &ReadTransaction,
    found: &mut Checked,
    lives: impl Fn(SessionId) -> Result<bool, Error>,
) -> Result<(), Error> {
    let groups = transaction.open_table(GROUPS)?;
    let by_session = transaction.open_table(BY_SESSION)?;
    let mut sizes = BTreeMap::<String, u32>::new();
    for entry in groups.iter()? {
        let (member, _) = entry?;
        found.memberships = found.memberships.saturating_add(1);
        let Some((name, id)) = member.value().split_last_chunk::<16>() else {
            found.problem(|| "a membership cannot be read".into());
            continue;
        };
        let name = name.strip_suffix(&[0]).and_then(|name| std::str::from_utf8(name).ok());
        let (id, name) = (SessionId::from_bytes(*id), name.unwrap_or_default());
        let Ok(group) = GroupName::new(name) else {
            found.problem(|| format!("session {id}: in a group without a name"));
            continue;
        };
        let size = sizes.entry(group.as_str().to_owned()).or_default();
        *size = size.saturating_add(1);
        if by_session.get(self::by_session(id, &group).as_slice())?.is_none() {
            found.problem(|| format!("session {id}: does not know that it is in {group}"));
        }
        if !lives(id)? {
            found.problem(|| format!("{group}: its member {id} is no session"));
        }
    }
    let known = by_session.len()?;
    if known != found.memberships {
        let memberships = found.memberships;
        found.problem(|| format!("{known} memberships by session, not {memberships}"));
    }
    for entry in transaction.open_table(SIZES)?.iter()? {
        let (group, size) = entry?;
        let members = sizes.remove(group.value()).unwrap_or_default();
        if size.value() != members {
            let (group, size) = (group.value(), size.value());
            found.problem(|| format!("{group}: counts {size} members and has {members}"));
        }
    }
    for (group, members) in sizes {
        found.problem(|| format!("{group}: does not count its {members} members"));
    }
    Ok(())
}

/// A store of an earlier companion has no such table until something is written to it.
fn there<T>(table: Result<T, TableError>) -> Result<Option<T>, Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The tables, open for one write transaction.
pub struct GroupTables<'txn> {
    groups: Table<'txn, &'static [u8], ()>,
    by_session: Table<'txn, &'static [u8], ()>,
    sizes: Table<'txn, &'static str, u32>,
}

impl<'txn> GroupTables<'txn> {
    pub fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            groups: transaction.open_table(GROUPS)?,
            by_session: transaction.open_table(BY_SESSION)?,
            sizes: transaction.open_table(SIZES)?,
        })
    }

    /// The session is known to live.
    pub fn join(
        &mut self,
        group: &GroupName,
        session: SessionId,
        limits: GroupLimits,
    ) -> Result<Joined, Error> {
        let member = key(group, session.as_bytes());
        if self.groups.get(member.as_slice())?.is_some() {
            return Ok(Joined::Already);
        }
        let size = self.size(group)?;
        if size >= limits.members {
            return Ok(Joined::Full);
        }
        let of_session = names(&self.by_session, session)?.len();
        if of_session >= usize::try_from(limits.of_session).unwrap_or(usize::MAX) {
            return Ok(Joined::TooMany);
        }
        self.groups.insert(member.as_slice(), ())?;
        self.by_session.insert(by_session(session, group).as_slice(), ())?;
        self.sizes.insert(group.as_str(), size.saturating_add(1))?;
        Ok(Joined::Yes)
    }

    pub fn leave(&mut self, group: &GroupName, session: SessionId) -> Result<bool, Error> {
        if self.groups.remove(key(group, session.as_bytes()).as_slice())?.is_none() {
            return Ok(false);
        }
        self.by_session.remove(by_session(session, group).as_slice())?;
        match self.size(group)?.saturating_sub(1) {
            0 => drop(self.sizes.remove(group.as_str())?),
            size => drop(self.sizes.insert(group.as_str(), size)?),
        }
        Ok(true)
    }

    /// The session has ended.
    pub fn forget(&mut self, session: SessionId) -> Result<(), Error> {
        for group in names(&self.by_session, session)? {
            self.leave(&group, session)?;
        }
        Ok(())
    }

    fn size(&self, group: &GroupName) -> Result<u32, Error> {
        Ok(self.sizes.get(group.as_str())?.map_or(0, |size| size.value()))
    }
}

fn names(
    table: &impl redb::ReadableTable<&'static [u8], ()>,
    session: SessionId,
) -> Result<Vec<GroupName>, Error> {
    let mut names = Vec::new();
    for entry in table.range::<&[u8]>(session.as_bytes().as_slice()..)? {
        let (key, _) = entry?;
        let Some(name) = key.value().strip_prefix(session.as_bytes()) else { break };
        let name = std::str::from_utf8(name).ok().and_then(|name| GroupName::new(name).ok());
        names.push(name.ok_or_else(|| Error::Corrupted("a group's name".into()))?);
    }
    Ok(names)
}

/// Names hold no control characters, so 0x00 ends one; ids have a fixed length.
fn key(group: &GroupName, session: &[u8; 16]) -> Vec<u8> {
    [group.as_str().as_bytes(), &[0], session].concat()
}

fn by_session(session: SessionId, group: &GroupName) -> Vec<u8> {
    [session.as_bytes(), group.as_str().as_bytes()].concat()
}
