//! A store as text: one JSON object a line, the same for every kind of store.
//!
//! ```text
//! {"meshgate_store":1}
//! {"session":"0197c1…","user":"ada",…}       each session, oldest first
//! {"credential":"0000019…"}                  each used one
//! {"end":{"sessions":1,"credentials":1}}     without it, the text is cut off
//! ```
//!
//! Nothing in it is secret: a store has neither keys nor tokens, only what they are made from with
//! a key that is elsewhere. Users, addresses and claims are in it.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Admission, Admitted, Count, Page, Store, StoreError};
use crate::domain::credential::{CredentialId, Identity};
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::key::{from_hex, hex};
use crate::domain::resume::Seed;
use crate::domain::session::{HoldNumber, Mode, Session, SessionId};
use crate::domain::time::UnixMillis;

/// Of the text.
pub const VERSION: u32 = 1;
const PAGE: usize = 500;
/// Sessions that are written at once.
const TOGETHER: usize = 256;
/// The longest line: a session with as many claims and groups as it may have.
const MAX_LINE: usize = 1 << 20;
/// How long the proxies of imported sessions have to come back.
const FOUND_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("line {line}: {problem}")]
    Line { line: usize, problem: String },
    #[error("the text is of version {0}, this companion reads version {VERSION}")]
    Version(u32),
    #[error("the text ends before its last line: it was cut off")]
    CutOff,
    #[error("the store has {0} sessions already: import into an empty one")]
    NotEmpty(u64),
}

/// How much went over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub sessions: u64,
    pub credentials: u64,
    /// Of the text, what had expired.
    #[serde(skip)]
    pub expired: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Begin { meshgate_store: u32 },
    Session(Box<SessionLine>),
    Credential { credential: String },
    End { end: Carried },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionLine {
    session: SessionId,
    user: String,
    roles: Vec<String>,
    claims: BTreeMap<String, String>,
    mode: String,
    audience: String,
    layout: String,
    proxy: String,
    peer: String,
    client: String,
    created_at_ms: u64,
    expires_at_ms: u64,
    /// 16 hexadecimal digits, like the worker: JSON's numbers are not exact everywhere.
    hold: String,
    worker: String,
    away_until_ms: Option<u64>,
    /// Key id and salt; in mode `ticket` the credential's hash.
    seed: Option<(String, String, Option<String>)>,
    groups: Vec<String>,
}

/// Writes all of it.
pub async fn export(store: &dyn Store, out: &mut impl Write) -> Result<Carried, LinesError> {
    let mut carried = Carried::default();
    put(out, &Line::Begin { meshgate_store: VERSION })?;
    let mut after = None;
    loop {
        let page = store.list(Page { user: None, after, limit: PAGE }).await?;
        for session in page.sessions {
            let groups = store.groups_of(session.id).await?;
            put(out, &Line::Session(Box::new(line(session, &groups))))?;
            carried.sessions = carried.sessions.saturating_add(1);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let page = store.used(after, PAGE).await?;
        for credential in page.credentials {
            put(out, &Line::Credential { credential: hex(credential.as_bytes()) })?;
            carried.credentials = carried.credentials.saturating_add(1);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    put(out, &Line::End { end: carried })?;
    out.flush()?;
    Ok(carried)
}

/// Reads all of it into an empty store. What has expired is left out.
pub async fn import(
    store: &dyn Store,
    text: impl BufRead,
    now: UnixMillis,
) -> Result<Carried, LinesError> {
    let Count { live, away } = store.count().await?;
    if live > 0 || away > 0 {
        return Err(LinesError::NotEmpty(live.saturating_add(away)));
    }
    let (mut carried, mut said) = (Carried::default(), None);
    let mut together = Vec::new();
    for (index, text) in text.split(b'\n').enumerate() {
        let wrong = |problem: String| LinesError::Line { line: index.saturating_add(1), problem };
        let text = text?;
        if text.len() > MAX_LINE {
            return Err(wrong("too long".into()));
        }
        let line: Line =
            serde_json::from_slice(&text).map_err(|_| wrong("no line of a store".into()))?;
        match (index, line) {
            (0, Line::Begin { meshgate_store: VERSION }) => {}
            (0, Line::Begin { meshgate_store }) => return Err(LinesError::Version(meshgate_store)),
            (0, _) | (_, Line::Begin { .. }) => {
                return Err(wrong("a store's text begins with {\"meshgate_store\":1}".into()));
            }
            (_, Line::Session(line)) => {
                carried.sessions = carried.sessions.saturating_add(1);
                let (session, groups) = session(*line).map_err(|problem| wrong(problem.into()))?;
                if session.ends_at() <= now {
                    carried.expired = carried.expired.saturating_add(1);
                } else {
                    together.push(Admission {
                        session: Some(Session { away_until: None, ..session.clone() }),
                        lost_at: Some(now.after(FOUND_AGAIN)),
                        ..Admission::default()
                    });
                    if !groups.is_empty() || session.away_until.is_some() {
                        // The rest needs the session to be there.
                        admit(store, &mut together).await?;
                        settle(store, &session, groups).await?;
                    }
                }
            }
            (_, Line::Credential { credential }) => {
                carried.credentials = carried.credentials.saturating_add(1);
                let credential = CredentialId::from_hex(&credential);
                let credential = credential.ok_or_else(|| wrong("no credential's id".into()))?;
                if credential.expires() > now {
                    let credential = Some(credential);
                    together.push(Admission { credential, ..Admission::default() });
                } else {
                    carried.expired = carried.expired.saturating_add(1);
                }
            }
            (_, Line::End { end }) => {
                said = Some(end);
                break;
            }
        }
        if together.len() >= TOGETHER {
            admit(store, &mut together).await?;
        }
    }
    admit(store, &mut together).await?;
    let Carried { sessions, credentials, .. } = carried;
    if said != Some(Carried { sessions, credentials, expired: 0 }) {
        return Err(LinesError::CutOff);
    }
    Ok(carried)
}

/// All at the same time: they share a flush.
async fn admit(store: &dyn Store, together: &mut Vec<Admission>) -> Result<(), LinesError> {
    let mut answers = tokio::task::JoinSet::new();
    for admission in together.drain(..) {
        answers.spawn(store.admit(admission));
    }
    while let Some(answer) = answers.join_next().await {
        match answer.map_err(|error| StoreError(error.to_string()))?? {
            // A credential may be told twice.
            Admitted::Yes { .. } | Admitted::CredentialUsed => {}
            Admitted::TooManySessions => {
                return Err(StoreError("the store refuses a session".into()).into());
            }
        }
    }
    Ok(())
}

async fn settle(
    store: &dyn Store,
    session: &Session,
    groups: Vec<GroupName>,
) -> Result<(), LinesError> {
    // They were bounded when they were joined.
    let limits = GroupLimits { members: u32::MAX, of_session: u32::MAX };
    for group in groups {
        let joined = store.join(group.clone(), session.id, limits).await?;
        if joined != Joined::Yes && joined != Joined::Already {
            return Err(StoreError(format!("{} does not join {group}", session.id)).into());
        }
    }
    if session.away_until.is_some() {
        store.depart(vec![session.hold()], session.away_until).await?;
    }
    Ok(())
}

fn put(out: &mut impl Write, line: &Line) -> Result<(), LinesError> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

fn line(session: Session, groups: &[GroupName]) -> SessionLine {
    SessionLine {
        session: session.id,
        user: session.identity.user,
        roles: session.identity.roles,
        claims: session.identity.claims,
        mode: match session.mode {
            Mode::Ticket => "ticket".into(),
            Mode::Noise => "noise".into(),
        },
        audience: session.audience,
        layout: session.layout,
        proxy: session.proxy,
        peer: session.peer,
        client: session.client,
        created_at_ms: session.created_at.0,
        expires_at_ms: session.expires_at.0,
        hold: format!("{:016x}", session.hold.0),
        worker: format!("{:016x}", session.worker),
        away_until_ms: session.away_until.map(|until| until.0),
        seed: session.seed.map(|seed| {
            let credential = seed.credential.map(|hash| hex(&hash));
            (hex(&seed.key), hex(&seed.salt), credential)
        }),
        groups: groups.iter().map(ToString::to_string).collect(),
    }
}

fn session(line: SessionLine) -> Result<(Session, Vec<GroupName>), &'static str> {
    let SessionLine { user, roles, claims, .. } = line;
    let identity = Identity { user, roles, claims };
    let identity = identity.checked().map_err(|_| "no user, or roles or claims that cannot be")?;
    let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| "no hold or worker");
    let seed = match line.seed {
        Some((key, salt, credential)) => Some(Seed {
            key: from_hex(&key).ok_or("no key's id")?,
            salt: from_hex(&salt).ok_or("no salt")?,
            credential: match credential {
                Some(hash) => Some(from_hex(&hash).ok_or("no credential's hash")?),
                None => None,
            },
        }),
        None => None,
    };
    let session = Session {
        id: line.session,
        identity,
        mode: match line.mode.as_str() {
            "ticket" => Mode::Ticket,
            "noise" => Mode::Noise,
            _ => return Err("unknown mode"),
        },
        audience: line.audience,
        layout: line.layout,
        proxy: line.proxy,
        peer: line.peer,
        client: line.client,
        created_at: UnixMillis(line.created_at_ms),
        expires_at: UnixMillis(line.expires_at_ms),
        hold: HoldNumber(number(&line.hold)?),
        worker: number(&line.worker)?,
        away_until: line.away_until_ms.map(UnixMillis),
        seed,
    };
    let groups = line.groups.into_iter().map(GroupName::new).collect::<Result<_, _>>()?;
    Ok((session, groups))
}
