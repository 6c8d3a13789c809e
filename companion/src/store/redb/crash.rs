//! Power that fails: at a random point, whatever was not flushed is gone, in part, or there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;

use super::*;
use crate::domain::session::HoldNumber;
use crate::store::behaviour::{at, id, session, uses};

/// A drive as disks have them: written pieces of 512 bytes reach it whole or not at all.
const SECTOR: usize = 512;

/// A disk with a cache that it forgets.
#[derive(Debug, Default, Clone)]
struct Drive(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a crash leaves for certain.
    flushed: Vec<u8>,
    /// What is read.
    seen: Vec<u8>,
    since: Vec<Change>,
    /// So many changes and flushes until the power fails.
    left: Option<usize>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    /// Of a write, the sectors that `reaches` says.
    fn apply(&self, bytes: &mut Vec<u8>, mut reaches: impl FnMut() -> bool) {
        match self {
            Self::Length(length) => {
                if reaches() {
                    bytes.resize(*length, 0);
                }
            }
            Self::Write(offset, data) => {
                for (number, sector) in data.chunks(SECTOR).enumerate() {
                    if reaches() {
                        let begin = offset + number * SECTOR;
                        let end = begin + sector.len();
                        bytes.resize(bytes.len().max(end), 0);
                        bytes[begin..end].copy_from_slice(sector);
                    }
                }
            }
        }
    }
}

impl Drive {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if let Some(left) = &mut state.left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        }
        Ok(state)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.powered()?;
        change.apply(&mut state.seen, || true);
        state.since.push(change);
        Ok(())
    }

    /// The same drive when the power is back; `luck` decides what reached it.
    fn after_the_crash(&self, mut luck: u64) -> Self {
        let state = self.lock();
        let mut bytes = state.flushed.clone();
        // Nothing of it, or chance.
        let all_lost = luck.is_multiple_of(4);
        for change in &state.since {
            change.apply(&mut bytes, || {
                luck ^= luck << 13;
                luck ^= luck >> 7;
                luck ^= luck << 17;
                !all_lost && !luck.is_multiple_of(3)
            });
        }
        let state = State { seen: bytes.clone(), flushed: bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl StorageBackend for Drive {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let begin = offset as usize;
        let range = begin..begin + out.len();
        let bytes = state.seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.powered()?;
        let State { flushed, since, .. } = &mut *state;
        for change in since.drain(..) {
            change.apply(flushed, || true);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset as usize, data.to_vec()))
    }
}

/// What happens to one session.
#[derive(Clone, Copy, Debug)]
enum Step {
    LogIn,
    Move,
    Leave,
    Join,
    End,
}

const STEPS: [Step; 7] =
    [Step::LogIn, Step::LogIn, Step::LogIn, Step::Move, Step::Leave, Step::Join, Step::End];

/// A session as the store has it, with its groups.
type Known = Option<(Session, usize)>;

fn user(number: u16) -> String {
    format!("user-{number}")
}

fn room() -> GroupName {
    GroupName::new("room").unwrap()
}

/// As it is after that step.
fn after(known: &Known, number: u16, step: Step, hold: u64) -> Known {
    match (known, step) {
        (None, Step::LogIn) => Some((session(number, &user(number), 1_000_000), 0)),
        (Some((session, groups)), Step::Move) => {
            let (hold, away_until) = (HoldNumber(hold), None);
            Some((Session { hold, away_until, ..session.clone() }, *groups))
        }
        (Some((session, groups)), Step::Leave) => {
            Some((Session { away_until: Some(at(500)), ..session.clone() }, *groups))
        }
        (Some((session, _)), Step::Join) => Some((session.clone(), 1)),
        (_, Step::End) => None,
        (known, _) => known.clone(),
    }
}

async fn take(
    store: &RedbStore,
    known: &Known,
    number: u16,
    step: Step,
    hold: u64,
) -> Result<(), StoreError> {
    match (known, step) {
        (None, Step::LogIn) => {
            let mut admission = uses(1_000_000, &user(number));
            admission.session = Some(session(number, &user(number), 1_000_000));
            admission.lost_at = Some(at(900));
            // Used before: it logged in, and ended.
            if store.admit(admission.clone()).await? == Admitted::CredentialUsed {
                store.admit(Admission { credential: None, ..admission }).await?;
            }
        }
        (Some((session, _)), Step::Move) => {
            let new = Session { hold: HoldNumber(hold), ..session.clone() };
            let base = session.hold;
            let takeover = Takeover { session: new, base, now: at(0), lost_at: None };
            assert!(store.take_over(takeover).await?);
        }
        (Some((session, _)), Step::Leave) => {
            store.depart(vec![session.hold()], Some(at(500))).await?;
        }
        (Some(_), Step::Join) => {
            store.join(room(), id(number), GroupLimits::default()).await?;
        }
        (_, Step::End) => drop(store.end(vec![id(number)], None).await?),
        _ => {}
    }
    Ok(())
}

async fn look(store: &RedbStore, number: u16) -> Known {
    let found = store.find(vec![id(number)]).await.unwrap().remove(0);
    let groups = store.groups_of(id(number)).await.unwrap().len();
    found.map(|session| (session, groups))
}

/// Each round's steps happen at the same time, to sessions of their own.
async fn crash(rounds: Vec<Vec<usize>>, power: usize, luck: u64) {
    let drive = Drive::default();
    let Ok(store) = RedbStore::with_backend(drive.clone()) else { panic!("a new store opens") };
    let store = Arc::new(store);
    drive.lock().left = Some(power);
    let mut known = BTreeMap::<u16, Known>::new();
    let mut doubtful = BTreeMap::<u16, Known>::new();
    let mut used = BTreeSet::new();
    for (round, steps) in rounds.into_iter().enumerate() {
        let hold = (round as u64 + 2) << 32;
        let tasks: Vec<_> = (0..)
            .zip(steps)
            .map(|(number, step)| {
                let (store, step) = (Arc::clone(&store), STEPS[step]);
                let before = known.get(&number).cloned().unwrap_or_default();
                tokio::spawn(async move {
                    let done = take(&store, &before, number, step, hold).await.is_ok();
                    (number, step, after(&before, number, step, hold), done)
                })
            })
            .collect();
        for task in tasks {
            let (number, step, after, done) = task.await.unwrap();
            if done {
                if matches!(step, Step::LogIn) {
                    used.insert(number);
                }
                known.insert(number, after);
            } else {
                doubtful.insert(number, after);
            }
        }
        if !doubtful.is_empty() {
            break;
        }
    }
    // The process ends with the power: it cannot close the store.
    let crashed = drive.after_the_crash(luck);
    drive.lock().left = Some(0);
    drop(store);

    let mut database = Database::builder().create_with_backend(crashed.clone()).unwrap();
    check_version(&database, "crashed").unwrap();
    assert!(database.check_integrity().unwrap(), "opening mends it");
    let checked = tables::check(&database.begin_read().unwrap()).unwrap();
    assert_eq!(checked.problems, Vec::<String>::new());
    drop(database);
    let store = RedbStore::with_backend(crashed).unwrap();
    for number in 0..8 {
        let found = look(&store, number).await;
        let before = known.get(&number).cloned().unwrap_or_default();
        let fits = found == before || doubtful.get(&number) == Some(&found);
        assert!(fits, "{number}: {found:?}, not {before:?} or {:?}", doubtful.get(&number));
    }
    for number in used {
        let admitted = store.admit(uses(1_000_000, &user(number))).await;
        assert_eq!(admitted, Ok(Admitted::CredentialUsed), "{number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_a_failing_power_and_nothing_is_half_done(
        rounds in prop::collection::vec(prop::collection::vec(0..STEPS.len(), 0..8), 1..12),
        power in 0..120_usize,
        luck in 1..u64::MAX,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(crash(rounds, power, luck));
    }
}
