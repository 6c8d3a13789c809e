//! Who holds which session right now: the streams of the proxies' workers, and what lives on each.
//!
//! A kick or an expiry finds its way from a session id to its streams here: mostly one, and more
//! while other connections try to resume it. Everything under
//! one short lock; nothing waits while it is held. Telling a stream something never waits
//! either: a stream that cannot take a word is cut (see [`ProxyStream::tell`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::push::Parcel;
use super::refusal::Refused;
use super::secret::TrafficKeys;
use super::session::{Farewell, Hold, HoldNumber, Session, SessionId};
use super::time::UnixMillis;
use farewells::Farewells;

mod farewells;
mod hand_out;

/// A pending session that its client does not bring to life within this time ends.
pub const PENDING_LIFETIME: Duration = Duration::from_secs(10);
/// How often one activation may be asked for while it is being recorded. Once is what a proxy
/// does, twice if it lost its stream meanwhile.
const MAX_ASKED_AGAIN: usize = 4;

/// Names a stream in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u64);

/// The stream of one worker of a proxy.
pub trait ProxyStream: Send + Sync {
    fn id(&self) -> StreamId;
    /// The name that the proxy gave itself.
    fn proxy(&self) -> &str;
    /// It reads [`Word::Push`]; one of an earlier release does not.
    fn takes_pushes(&self) -> bool {
        true
    }
    /// It hands [`Refusal::ComeBack`](super::refusal::Refusal::ComeBack) on to its clients.
    fn takes_cookies(&self) -> bool {
        true
    }
    /// It reads a push that asks clients to leave; one of an earlier release does not.
    fn asks_to_leave(&self) -> bool {
        true
    }
    /// The number that the worker gave itself; 0 if it gave none.
    fn worker(&self) -> u64;
    /// Whether it answers [`Word::Drain`].
    fn drains(&self) -> bool;
    /// Queues a word for the proxy, in order. Never waits: a stream whose queue is full is cut,
    /// and its proxy catches up when it comes back.
    fn tell(&self, word: Word);
}

/// What a proxy is told.
#[derive(Debug)]
pub enum Word {
    Accepted(Box<Accepted>),
    Refused {
        reference: u64,
        refused: Refused,
    },
    Activated {
        reference: u64,
        refused: Option<&'static str>,
    },
    Kick {
        hold: Hold,
        farewell: Farewell,
    },
    Push {
        reference: u64,
        sessions: Vec<SessionId>,
        parcel: Arc<Parcel>,
    },
    /// The companion stops.
    Drain,
}

/// A login or a resume that succeeded.
pub struct Accepted {
    pub reference: u64,
    /// With the hold of this connection.
    pub session: Session,
    /// Of a resume: the hold that has to count still when this one is activated.
    pub base: Option<HoldNumber>,
    /// The body of the login reply frame. In mode `ticket` it holds a secret.
    pub reply: Vec<u8>,
    /// After a Noise login.
    pub keys: Option<TrafficKeys>,
}

impl Accepted {
    /// Whether the client's first frame has to bring it to life.
    pub const fn pends(&self) -> bool {
        self.base.is_some() || self.keys.is_some()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reference, session, base, .. } = self;
        f.debug_struct("Accepted")
            .field("reference", reference)
            .field("session", session)
            .field("base", base)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
pub struct Presence(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// In the order of sessions, so that all holds of one are found.
    sessions: BTreeMap<Hold, Entry>,
    streams: HashMap<StreamId, Attached>,
    /// Pending sessions by deadline: all have the same time, so the order of arrival is it.
    /// Sessions that went on meanwhile are skipped.
    deadlines: VecDeque<(UnixMillis, Hold)>,
    /// The companion stops.
    draining: bool,
    /// Why sessions ended that no open stream held.
    farewells: Farewells,
}

/// A stream that is open.
struct Attached {
    stream: Arc<dyn ProxyStream>,
    holds: HashSet<Hold>,
    /// No login comes any more.
    drained: bool,
}

struct Entry {
    stream: Arc<dyn ProxyStream>,
    stage: Stage,
}

enum Stage {
    Pending(Box<Waiting>),
    /// Being recorded in the store. A kick that comes now is kept for the moment after. Its
    /// stream may be lost meanwhile: it goes live on the one that its proxy comes back with.
    Joining {
        kicked: bool,
        /// References of activations that were asked for again: they share the first one's fate.
        again: Vec<u64>,
    },
    Live,
}

/// A session that waits for its activation.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting {
    pub session: Session,
    /// As in [`Accepted`].
    pub base: Option<HoldNumber>,
}

/// What a session was when its end came; of several holds the one that counts most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    Nothing,
    Pending,
    Joining,
    Live,
}

/// The session cannot live: kicked while it joined, or its stream is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub streams: usize,
    pub pending: usize,
    pub live: usize,
}

/// What a stream's wish to activate a session meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Activation {
    /// It was pending: record it, then [`Presence::go_live`].
    Begins(Box<Waiting>),
    /// It is being recorded: the answer comes when that is done.
    UnderWay,
    /// It lives already, on this stream: the first answer was lost with another one.
    Done,
    /// Nothing of that name waits on this stream.
    Unknown,
}

/// What a stream that comes back with a session meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Reattached {
    /// It is held by this stream from now on.
    Held,
    /// It has ended; the stream was told, with the reason if that is known.
    Ended,
}

impl Presence {
    pub fn open(&self, stream: &Arc<dyn ProxyStream>) {
        let mut held = self.lock();
        if held.draining {
            stream.tell(Word::Drain);
        }
        let (holds, drained) = (HashSet::new(), !stream.drains());
        let attached = Attached { stream: Arc::clone(stream), holds, drained };
        held.streams.insert(stream.id(), attached);
    }

    /// Asks every stream to send no more logins.
    pub fn drain(&self) {
        let mut held = self.lock();
        held.draining = true;
        held.streams.values().for_each(|attached| attached.stream.tell(Word::Drain));
    }

    pub fn drained(&self, stream: StreamId) {
        if let Some(attached) = self.lock().streams.get_mut(&stream) {
            attached.drained = true;
        }
    }

    /// Whether no login comes any more, and every session that waited lives or has ended. Streams
    /// that do not answer are not waited for.
    pub fn is_drained(&self) -> bool {
        let held = self.lock();
        let waits = |entry: &Entry| !matches!(entry.stage, Stage::Live) && entry.stream.drains();
        held.streams.values().all(|attached| attached.drained)
            && !held.deadlines.iter().any(|(_, hold)| held.sessions.get(hold).is_some_and(waits))
    }

    /// The workers that are attached, of those that name themselves.
    pub fn workers(&self) -> BTreeSet<u64> {
        let held = self.lock();
        held.streams
            .values()
            .map(|attached| attached.stream.worker())
            .filter(|worker| *worker != 0)
            .collect()
    }

    /// The stream is lost: its pending sessions end, its live ones wait in the store for it to
    /// come back, and those that are being recorded find out when that is done.
    pub fn close(&self, stream: StreamId) {
        let mut held = self.lock();
        let Some(lost) = held.streams.remove(&stream) else { return };
        for hold in lost.holds {
            let joins = held
                .sessions
                .get(&hold)
                .is_some_and(|entry| matches!(entry.stage, Stage::Joining { .. }));
            if !joins {
                held.sessions.remove(&hold);
            }
        }
    }

    /// A Noise login or a resume is accepted: the session waits for its activation. Says nothing, and keeps
    /// nothing, if the stream is lost.
    pub fn pend(&self, stream: &Arc<dyn ProxyStream>, accepted: Accepted, now: UnixMillis) {
        let waiting = Waiting { session: accepted.session.clone(), base: accepted.base };
        let hold = waiting.session.hold();
        let mut held = self.lock();
        held.deadlines.push_back((now.after(PENDING_LIFETIME), hold));
        if held.put(hold, stream, Stage::Pending(Box::new(waiting))) {
            stream.tell(Word::Accepted(Box::new(accepted)));
        }
    }

    /// The session's first sealed frame was genuine. Only the stream that holds it may say so; it
    /// may say so again, because an answer can be lost with its stream.
    pub fn start_activation(&self, hold: Hold, stream: StreamId, reference: u64) -> Activation {
        let mut held = self.lock();
        let entry = held.sessions.get_mut(&hold).filter(|entry| entry.stream.id() == stream);
        let Some(entry) = entry else { return Activation::Unknown };
        match &mut entry.stage {
            Stage::Pending(_) => {}
            Stage::Live => return Activation::Done,
            Stage::Joining { again, .. } if again.len() < MAX_ASKED_AGAIN => {
                again.push(reference);
                return Activation::UnderWay;
            }
            Stage::Joining { .. } => return Activation::Unknown,
        }
        match std::mem::replace(&mut entry.stage, Stage::joining()) {
            Stage::Pending(waiting) => Activation::Begins(waiting),
            Stage::Joining { .. } | Stage::Live => Activation::Unknown,
        }
    }

    /// A ticket login is about to be recorded.
    pub fn join(&self, hold: Hold, stream: &Arc<dyn ProxyStream>) -> Result<(), Gone> {
        let kept = self.lock().put(hold, stream, Stage::joining());
        if kept { Ok(()) } else { Err(Gone) }
    }

    /// The session is recorded: it lives, and its proxy hears `word` before anything else
    /// about it. `Err` if it must not live after all; then it is forgotten here.
    pub fn go_live(&self, hold: Hold, word: Word) -> Result<(), Gone> {
        self.go_live_with(hold, word, |_| ())
    }

    /// The same; `then` tells the stream what comes next, before anybody else can reach the session.
    pub fn go_live_with(
        &self,
        hold: Hold,
        word: Word,
        then: impl FnOnce(&Arc<dyn ProxyStream>),
    ) -> Result<(), Gone> {
        let mut held = self.lock();
        let held = &mut *held;
        if let Some(entry) = held.sessions.get_mut(&hold)
            && held.streams.contains_key(&entry.stream.id())
            && let Stage::Joining { kicked: false, again } = &mut entry.stage
        {
            let again = std::mem::take(again);
            entry.stage = Stage::Live;
            entry.stream.tell(word);
            for reference in again {
                entry.stream.tell(Word::Activated { reference, refused: None });
            }
            then(&entry.stream);
            return Ok(());
        }
        Err(Gone)
    }

    /// The session does not live: forgets it, and refuses its activations where it is held now.
    pub fn refuse(&self, hold: Hold, reference: u64, refused: &'static str) {
        let mut held = self.lock();
        let Some(entry) = held.remove(hold) else { return };
        let again = match entry.stage {
            Stage::Joining { again, .. } => again,
            Stage::Pending(_) | Stage::Live => Vec::new(),
        };
        for reference in std::iter::once(reference).chain(again) {
            entry.stream.tell(Word::Activated { reference, refused: Some(refused) });
        }
    }

    /// A stream has come back with a session, of which the store says whether it lives. Decided
    /// here and not by the store's word alone: it may have ended since.
    pub fn reattach(
        &self,
        hold: Hold,
        stream: &Arc<dyn ProxyStream>,
        lives: bool,
        otherwise: &str,
    ) -> Reattached {
        let mut held = self.lock();
        let here = held.sessions.get(&hold).is_some_and(|e| e.stream.proxy() == stream.proxy());
        let stage = if here { held.remove(hold).map(|entry| entry.stage) } else { None };
        let farewell = held.farewells.take(hold.session, stream.proxy());
        if farewell.is_none() && (stage.is_some() || lives) {
            held.put(hold, stream, stage.unwrap_or(Stage::Live));
            return Reattached::Held;
        }
        let farewell = farewell.unwrap_or_else(|| Farewell::new(otherwise));
        stream.tell(Word::Kick { hold, farewell });
        Reattached::Ended
    }

    /// The session does not live, and nobody was promised that it would.
    pub fn discard(&self, hold: Hold) {
        self.lock().remove(hold);
    }

    /// Forgets a session, if this stream holds it; says what it was.
    pub fn forget(&self, hold: Hold, stream: StreamId) -> Met {
        let mut held = self.lock();
        let entry = held.sessions.get(&hold).filter(|entry| entry.stream.id() == stream);
        let Some(entry) = entry else { return Met::Nothing };
        let met = match entry.stage {
            Stage::Pending(_) => Met::Pending,
            Stage::Joining { .. } => Met::Joining,
            Stage::Live => Met::Live,
        };
        held.remove(hold);
        met
    }

    /// Throws a session out, telling the streams that hold it, and those alone.
    pub fn kick(&self, id: SessionId, farewell: &Farewell) -> Met {
        self.lock().kick_all(id, farewell)
    }

    /// Throws one connection of a session out.
    pub fn kick_hold(&self, hold: Hold, farewell: &Farewell) -> Met {
        self.lock().kick(hold, farewell)
    }

    /// Throws out a session that is in the store no more. If no stream holds it, its proxy (any
    /// one, if that is not known) hears why when it comes back.
    pub fn kick_recorded(&self, id: SessionId, proxy: Option<String>, farewell: Farewell) -> Met {
        let mut held = self.lock();
        let met = held.kick_all(id, &farewell);
        if met == Met::Nothing {
            held.farewells.keep(id, proxy, farewell);
        }
        met
    }

    /// The session lives on another connection now: those of earlier generations that lived are
    /// told goodbye. Those that wait hear it when they would go live.
    pub fn fence(&self, now: Hold, farewell: &Farewell) {
        let mut held = self.lock();
        for hold in held.holds(now.session) {
            let earlier = hold.number.generation() < now.number.generation();
            let live = |entry: &Entry| matches!(entry.stage, Stage::Live);
            if earlier && held.sessions.get(&hold).is_some_and(live) {
                held.kick(hold, farewell);
            }
        }
    }

    /// Ends the pending sessions whose time is over; answers how many.
    pub fn expire_pending(&self, now: UnixMillis) -> usize {
        let mut expired = 0_usize;
        loop {
            let mut held = self.lock();
            let Some(&(deadline, hold)) = held.deadlines.front() else { return expired };
            if deadline > now {
                return expired;
            }
            held.deadlines.pop_front();
            let pending = held
                .sessions
                .get(&hold)
                .is_some_and(|entry| matches!(entry.stage, Stage::Pending(_)));
            if pending {
                expired = expired.saturating_add(1);
                held.kick(hold, &Farewell::new("the login was not completed in time"));
            }
        }
    }

    /// Copies of the pending sessions that `wanted` takes. One that is being resumed is none: it is
    /// in the store.
    pub fn pending(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Session> {
        let held = self.lock();
        let entries = held.deadlines.iter().filter_map(|(_, hold)| held.sessions.get(hold));
        entries
            .filter_map(|entry| match &entry.stage {
                Stage::Pending(waiting) if waiting.base.is_none() && wanted(&waiting.session) => {
                    Some(waiting.session.clone())
                }
                _ => None,
            })
            .collect()
    }

    /// The live sessions that open streams hold.
    pub fn live(&self) -> Vec<Hold> {
        let held = self.lock();
        let live = held.sessions.iter().filter(|(_, entry)| matches!(entry.stage, Stage::Live));
        live.map(|(hold, _)| *hold).collect()
    }

    /// The live sessions of one worker, wherever it is attached here.
    pub fn live_of(&self, worker: u64) -> Vec<Hold> {
        let held = self.lock();
        let of_worker = held.sessions.iter().filter(|(_, entry)| {
            matches!(entry.stage, Stage::Live) && entry.stream.worker() == worker
        });
        of_worker.map(|(hold, _)| *hold).collect()
    }

    #[cfg(test)]
    pub fn is_joining(&self, hold: Hold) -> bool {
        let held = self.lock();
        held.sessions.get(&hold).is_some_and(|entry| matches!(entry.stage, Stage::Joining { .. }))
    }

    /// How many sessions are held by open streams.
    pub fn held(&self) -> usize {
        self.lock().sessions.len()
    }

    pub fn census(&self) -> Census {
        let held = self.lock();
        let of_deadlines = held.deadlines.iter().filter_map(|(_, hold)| held.sessions.get(hold));
        let pending = of_deadlines.filter(|entry| matches!(entry.stage, Stage::Pending(_))).count();
        let live = held.sessions.len().saturating_sub(pending);
        Census { streams: held.streams.len(), pending, live }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while the lock is held; if it did, the maps are still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// `false`, and nothing kept, if the stream is not open.
    fn put(&mut self, hold: Hold, stream: &Arc<dyn ProxyStream>, stage: Stage) -> bool {
        self.remove(hold);
        let Some(on_stream) = self.streams.get_mut(&stream.id()) else { return false };
        on_stream.holds.insert(hold);
        self.sessions.insert(hold, Entry { stream: Arc::clone(stream), stage });
        true
    }

    fn remove(&mut self, hold: Hold) -> Option<Entry> {
        let entry = self.sessions.remove(&hold)?;
        if let Some(on_stream) = self.streams.get_mut(&entry.stream.id()) {
            on_stream.holds.remove(&hold);
        }
        Some(entry)
    }

    fn holds(&self, session: SessionId) -> Vec<Hold> {
        self.sessions.range(span(session)).map(|(hold, _)| *hold).collect()
    }

    fn kick_all(&mut self, session: SessionId, farewell: &Farewell) -> Met {
        let holds = self.holds(session);
        holds.into_iter().map(|hold| self.kick(hold, farewell)).max().unwrap_or(Met::Nothing)
    }

    fn kick(&mut self, hold: Hold, farewell: &Farewell) -> Met {
        let Some(entry) = self.sessions.get_mut(&hold) else { return Met::Nothing };
        let met = match &mut entry.stage {
            Stage::Joining { kicked, .. } => {
                *kicked = true;
                return Met::Joining;
            }
            Stage::Pending(_) => Met::Pending,
            Stage::Live => Met::Live,
        };
        if let Some(entry) = self.remove(hold) {
            entry.stream.tell(Word::Kick { hold, farewell: farewell.clone() });
        }
        met
    }
}

/// All holds that a session can have.
fn span(session: SessionId) -> RangeInclusive<Hold> {
    let [first, last] = [0, u64::MAX].map(|number| Hold { session, number: HoldNumber(number) });
    first..=last
}

impl Stage {
    const fn joining() -> Self {
        Self::Joining { kicked: false, again: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
