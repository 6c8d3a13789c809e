//! The key ring: a file of sealed keys, and the life of each.
//!
//! ```text
//!   rotate            rotate             rotate              retire
//!   ───────▶  next  ───────▶  current  ───────▶  old  ─────────────▶ gone
//!             clients learn   what tickets       for those who
//!             of it           are signed with    still use it
//! ```
//!
//! The companion accepts the keys of all three states at once, so no login is lost: make the next
//! key and let the companion load it, give it to clients or issuers, switch, and retire the old one
//! when nobody uses it any more. The file is JSON:
//!
//! ```json
//! {"version": 1, "keys": [{"id": "k2", "kind": "noise", "state": "current",
//!   "created_at": 1800000000, "master": "m1", "sealed": "<base64>"}]}
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::key::{Key, KeyError, Kind};
use super::master::{MasterError, Masters, Sealed};
use super::time::UnixMillis;

const VERSION: u32 = 1;
/// Far more than anybody rotates; each login names its key, so their number costs nothing.
const MAX_KEYS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Next,
    Current,
    Old,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Old => "old",
        }
    }
}

/// A key as it lies in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub id: String,
    pub kind: Kind,
    pub state: State,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
    /// The id of the master key that seals it.
    pub master: String,
    sealed: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    version: u32,
    keys: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    #[error("not a key ring: line {line}, column {column}")]
    NotRing { line: usize, column: usize },
    #[error("the key ring has version {0}, this program reads version {VERSION}")]
    Version(u32),
    #[error("key `{id}`: {error}")]
    Sealed { id: String, error: MasterError },
    #[error("key `{id}`: {error}")]
    Key { id: String, error: KeyError },
    #[error("key `{0}` is not base64")]
    NotBase64(String),
    #[error("there is no key `{0}`: `meshgate key list` shows them")]
    Unknown(String),
    #[error(
        "key `{0}` is current: rotate first (twice: once for a next key, once to switch), or say \
         --force and lose every login that uses it"
    )]
    Current(String),
    #[error(
        "`{0}` is there already in this state: rotate without --id to switch to it, or retire it first"
    )]
    Prepared(String),
    #[error("there is a key `{0}` already")]
    Duplicate(String),
    #[error("a ring holds at most {MAX_KEYS} keys: retire some")]
    Full,
    #[error("{0} keys are not kept in a ring: it is for noise, ticket-ed25519 and ticket-hmac")]
    Kind(&'static str),
}

/// What a rotation did.
#[derive(Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The first key of its kind: current at once.
    First(String),
    /// A next key is there; the current one stays until the next rotation.
    Prepared(String),
    /// The next key is current now, and this one old.
    Switched { current: String, old: Option<String> },
}

impl Default for Ring {
    fn default() -> Self {
        Self { version: VERSION, keys: Vec::new() }
    }
}

impl Ring {
    pub fn from_json(json: &[u8]) -> Result<Self, RingError> {
        let ring: Self = serde_json::from_slice(json)
            .map_err(|error| RingError::NotRing { line: error.line(), column: error.column() })?;
        if ring.version != VERSION {
            return Err(RingError::Version(ring.version));
        }
        for (index, record) in ring.keys.iter().enumerate() {
            let later = ring.keys.iter().skip(index.saturating_add(1));
            if later.into_iter().any(|other| other.id == record.id) {
                return Err(RingError::Duplicate(record.id.clone()));
            }
        }
        Ok(ring)
    }

    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    pub fn records(&self) -> &[Record] {
        &self.keys
    }

    /// All keys, opened.
    pub fn open(&self, masters: &Masters) -> Result<Vec<Key>, RingError> {
        self.keys.iter().map(|record| record.open(masters)).collect()
    }

    /// The current key of a kind.
    pub fn current(&self, kind: Kind) -> Option<&Record> {
        self.in_state(kind, State::Current)
    }

    pub fn find(&self, id: &str) -> Result<&Record, RingError> {
        let found = self.keys.iter().find(|record| record.id == id);
        found.ok_or_else(|| RingError::Unknown(id.to_owned()))
    }

    fn in_state(&self, kind: Kind, state: State) -> Option<&Record> {
        self.keys.iter().find(|record| record.kind == kind && record.state == state)
    }

    /// One step of a kind's rotation: makes a next key, or switches to the one there is.
    pub fn rotate(
        &mut self,
        masters: &Masters,
        kind: Kind,
        id: Option<String>,
        now: UnixMillis,
    ) -> Result<Rotated, RingError> {
        if let Some(next) = self.in_state(kind, State::Next).map(|record| record.id.clone()) {
            if let Some(id) = id {
                // It would be silently another one than was asked for.
                return if id == next {
                    Ok(self.switch(kind))
                } else {
                    Err(RingError::Prepared(next))
                };
            }
            return Ok(self.switch(kind));
        }
        let id_of_error = id.clone().unwrap_or_default();
        let key =
            Key::generate(kind, id).map_err(|error| RingError::Key { id: id_of_error, error })?;
        let first = self.current(kind).is_none();
        let state = if first { State::Current } else { State::Next };
        self.add(masters, &key, state, now)?;
        let id = key.id().to_owned();
        Ok(if first { Rotated::First(id) } else { Rotated::Prepared(id) })
    }

    fn switch(&mut self, kind: Kind) -> Rotated {
        let (mut current, mut old) = (String::new(), None);
        for record in self.keys.iter_mut().filter(|record| record.kind == kind) {
            match record.state {
                State::Next => {
                    record.state = State::Current;
                    current.clone_from(&record.id);
                }
                State::Current => {
                    record.state = State::Old;
                    old = Some(record.id.clone());
                }
                State::Old => {}
            }
        }
        Rotated::Switched { current, old }
    }

    /// Takes in a key that was made elsewhere.
    pub fn add(
        &mut self,
        masters: &Masters,
        key: &Key,
        state: State,
        now: UnixMillis,
    ) -> Result<(), RingError> {
        if !matches!(key.kind(), Kind::Noise | Kind::TicketEd25519 | Kind::TicketHmac) {
            return Err(RingError::Kind(key.kind().name()));
        }
        if self.keys.iter().any(|record| record.id == key.id()) {
            return Err(RingError::Duplicate(key.id().to_owned()));
        }
        if state != State::Old
            && let Some(taken) = self.in_state(key.kind(), state)
        {
            return Err(RingError::Prepared(taken.id.clone()));
        }
        if self.keys.len() >= MAX_KEYS {
            return Err(RingError::Full);
        }
        self.keys.push(Record::seal(masters, key, state, now.seconds())?);
        Ok(())
    }

    /// Removes a key: whoever uses it is refused from the companion's next reload on.
    pub fn retire(&mut self, id: &str, force: bool) -> Result<(), RingError> {
        if self.find(id)?.state == State::Current && !force {
            return Err(RingError::Current(id.to_owned()));
        }
        self.keys.retain(|record| record.id != id);
        Ok(())
    }

    /// Seals every key by the first master key; answers how many were sealed by another one.
    pub fn rewrap(&mut self, masters: &Masters) -> Result<usize, RingError> {
        let mut moved = 0_usize;
        for record in &mut self.keys {
            if record.master != masters.sealing() {
                let key = record.open(masters)?;
                *record = Record::seal(masters, &key, record.state, record.created_at)?;
                moved = moved.saturating_add(1);
            }
        }
        Ok(moved)
    }
}

impl Record {
    fn seal(
        masters: &Masters,
        key: &Key,
        state: State,
        created_at: u64,
    ) -> Result<Self, RingError> {
        let id = key.id().to_owned();
        let sealed = masters
            .seal(key.bytes(), &purpose(&id, key.kind()))
            .map_err(|error| RingError::Sealed { id: id.clone(), error })?;
        let (master, sealed) = (sealed.master, STANDARD.encode(sealed.bytes));
        Ok(Self { id, kind: key.kind(), state, created_at, master, sealed })
    }

    pub fn open(&self, masters: &Masters) -> Result<Key, RingError> {
        let id = || self.id.clone();
        let bytes = STANDARD.decode(&self.sealed).map_err(|_| RingError::NotBase64(id()))?;
        let sealed = Sealed { master: self.master.clone(), bytes };
        let bytes = masters
            .open(&sealed, &purpose(&self.id, self.kind))
            .map_err(|error| RingError::Sealed { id: id(), error })?;
        Key::new(id(), self.kind, bytes).map_err(|error| RingError::Key { id: id(), error })
    }
}

/// `"meshgate-key-ring" 0x00 | kind | 0x00 | id`: neither kind nor id holds a 0x00.
fn purpose(id: &str, kind: Kind) -> Vec<u8> {
    [b"meshgate-key-ring\0", kind.name().as_bytes(), b"\0", id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn masters(ids: &[&str]) -> Masters {
        let key = |id: &&str| Key::generate(Kind::Master, Some((*id).to_owned())).unwrap();
        Masters::new(ids.iter().map(key).collect()).unwrap()
    }

    fn states(ring: &Ring) -> Vec<(&str, &str)> {
        ring.records().iter().map(|record| (record.id.as_str(), record.state.name())).collect()
    }

    #[test]
    fn a_rotation_prepares_then_switches_and_the_old_key_is_retired() {
        let (masters, mut ring) = (masters(&["m"]), Ring::default());
        let rotate = |ring: &mut Ring, id: Option<&str>| {
            ring.rotate(&masters, Kind::Noise, id.map(Into::into), NOW).unwrap()
        };
        assert_eq!(rotate(&mut ring, Some("a")), Rotated::First("a".into()));
        assert_eq!(rotate(&mut ring, Some("b")), Rotated::Prepared("b".into()));
        assert_eq!(states(&ring), [("a", "current"), ("b", "next")]);
        let other = ring.rotate(&masters, Kind::Noise, Some("c".into()), NOW);
        assert_eq!(other, Err(RingError::Prepared("b".into())));
        let switched = Rotated::Switched { current: "b".into(), old: Some("a".into()) };
        assert_eq!(rotate(&mut ring, None), switched);
        assert_eq!(states(&ring), [("a", "old"), ("b", "current")]);
        assert_eq!(ring.retire("b", false), Err(RingError::Current("b".into())));
        assert_eq!(ring.retire("a", false), Ok(()));
        assert_eq!(ring.retire("a", false), Err(RingError::Unknown("a".into())));
        assert_eq!(states(&ring), [("b", "current")]);
        // Kinds rotate by themselves.
        let hmac = ring.rotate(&masters, Kind::TicketHmac, Some("t".into()), NOW).unwrap();
        assert_eq!(hmac, Rotated::First("t".into()));
        assert_eq!(ring.current(Kind::Noise).unwrap().id, "b");
    }

    #[test]
    fn a_ring_survives_its_file_and_shows_no_key() {
        let (masters, mut ring) = (masters(&["m"]), Ring::default());
        ring.rotate(&masters, Kind::Noise, None, NOW).unwrap();
        ring.rotate(&masters, Kind::TicketEd25519, None, NOW).unwrap();
        let keys = ring.open(&masters).unwrap();
        let json = ring.to_json();
        for key in &keys {
            assert!(!json.contains(STANDARD.encode(key.bytes().expose()).trim_end_matches('=')));
        }
        let again = Ring::from_json(json.as_bytes()).unwrap().open(&masters).unwrap();
        for (key, again) in keys.iter().zip(&again) {
            assert_eq!((key.id(), key.bytes().expose()), (again.id(), again.bytes().expose()));
        }
    }

    #[test]
    fn a_record_cannot_take_the_place_of_another() {
        let (masters, mut ring) = (masters(&["m"]), Ring::default());
        ring.rotate(&masters, Kind::Noise, Some("a".into()), NOW).unwrap();
        let changed = |from: &str, to: &str| {
            let json = ring.to_json().replace(from, to);
            Ring::from_json(json.as_bytes()).unwrap().open(&masters).map(drop)
        };
        assert!(changed("", "").is_ok());
        assert!(changed("\"id\": \"a\"", "\"id\": \"b\"").is_err());
        assert!(changed("\"kind\": \"noise\"", "\"kind\": \"ticket-hmac\"").is_err());
    }

    #[test]
    fn keys_move_to_a_new_master_key() {
        let old = Key::generate(Kind::Master, Some("old".into())).unwrap();
        let new = Key::generate(Kind::Master, Some("new".into())).unwrap();
        let only = |key: &Key| Masters::new(vec![key.clone()]).unwrap();
        let mut ring = Ring::default();
        ring.rotate(&only(&old), Kind::Noise, Some("a".into()), NOW).unwrap();
        let before = ring.open(&only(&old)).unwrap();
        let missing =
            RingError::Sealed { id: "a".into(), error: MasterError::Missing("old".into()) };
        assert_eq!(ring.rewrap(&only(&new)), Err(missing));
        let both = Masters::new(vec![new.clone(), old]).unwrap();
        assert_eq!(ring.rewrap(&both), Ok(1));
        assert_eq!(ring.rewrap(&both), Ok(0));
        let after = ring.open(&only(&new)).unwrap();
        assert_eq!(before[0].bytes().expose(), after[0].bytes().expose());
    }
}
