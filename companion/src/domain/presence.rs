//! Who holds which session right now: the streams of the proxies' workers, and what lives on each.
//!
//! A kick or an expiry finds its way from a session id to one stream here. Everything under
//! one short lock; nothing waits while it is held. Telling a stream something never waits
//! either: a stream that cannot take a word is cut (see [`ProxyStream::tell`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::push::Parcel;
use super::refusal::Why;
use super::secret::TrafficKeys;
use super::session::{Farewell, Session, SessionId};
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
    /// Queues a word for the proxy, in order. Never waits: a stream whose queue is full is cut,
    /// and its proxy catches up when it comes back.
    fn tell(&self, word: Word);
}

/// What a proxy is told.
#[derive(Debug)]
pub enum Word {
    Accepted(Box<Accepted>),
    Refused { reference: u64, why: Why },
    Activated { reference: u64, refused: Option<&'static str> },
    Kick { session: SessionId, farewell: Farewell },
    Push { reference: u64, sessions: Vec<SessionId>, parcel: Arc<Parcel> },
}

/// A login that succeeded.
#[derive(Debug)]
pub struct Accepted {
    pub reference: u64,
    pub session: Session,
    /// The body of the login reply frame.
    pub reply: Vec<u8>,
    /// After a Noise login.
    pub keys: Option<TrafficKeys>,
}

#[derive(Default)]
pub struct Presence(Mutex<Held>);

#[derive(Default)]
struct Held {
    sessions: HashMap<SessionId, Entry>,
    streams: HashMap<StreamId, HashSet<SessionId>>,
    /// Pending sessions by deadline: all have the same time, so the order of arrival is it.
    /// Sessions that went on meanwhile are skipped.
    deadlines: VecDeque<(UnixMillis, SessionId)>,
    /// Why sessions ended that no open stream held.
    farewells: Farewells,
}

struct Entry {
    stream: Arc<dyn ProxyStream>,
    stage: Stage,
}

enum Stage {
    Pending(Box<Session>),
    /// Being recorded in the store. A kick that comes now is kept for the moment after. Its
    /// stream may be lost meanwhile: it goes live on the one that its proxy comes back with.
    Joining {
        kicked: bool,
        /// References of activations that were asked for again: they share the first one's fate.
        again: Vec<u64>,
    },
    Live,
}

/// What a session was when its end came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Begins(Box<Session>),
    /// It is being recorded: the answer comes when that is done.
    UnderWay,
    /// It lives already, on this stream: the first answer was lost with another one.
    Done,
    /// Nothing of that name waits on this stream.
    Unknown,
}

/// What a stream that comes back with a session meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It is held by this stream from now on.
    Held,
    /// It has ended; the stream was told, with the reason if that is known.
    Ended,
}

impl Presence {
    pub fn open(&self, stream: StreamId) {
        self.lock().streams.insert(stream, HashSet::new());
    }

    /// The stream is lost: its pending sessions end, its live ones wait in the store for it to
    /// come back, and those that are being recorded find out when that is done.
    pub fn close(&self, stream: StreamId) {
        let mut held = self.lock();
        for session in held.streams.remove(&stream).unwrap_or_default() {
            let joins = held
                .sessions
                .get(&session)
                .is_some_and(|entry| matches!(entry.stage, Stage::Joining { .. }));
            if !joins {
                held.sessions.remove(&session);
            }
        }
    }

    /// A Noise login is accepted: the session waits for its activation. Says nothing, and keeps
    /// nothing, if the stream is lost.
    pub fn pend(&self, stream: &Arc<dyn ProxyStream>, accepted: Accepted, now: UnixMillis) {
        let session = accepted.session.clone();
        let mut held = self.lock();
        held.deadlines.push_back((now.after(PENDING_LIFETIME), session.id));
        let id = session.id;
        if held.put(id, stream, Stage::Pending(Box::new(session))) {
            stream.tell(Word::Accepted(Box::new(accepted)));
        }
    }

    /// The session's first sealed frame was genuine. Only the stream that holds it may say so; it
    /// may say so again, because an answer can be lost with its stream.
    pub fn start_activation(&self, id: SessionId, stream: StreamId, reference: u64) -> Activation {
        let mut held = self.lock();
        let entry = held.sessions.get_mut(&id).filter(|entry| entry.stream.id() == stream);
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
            Stage::Pending(session) => Activation::Begins(session),
            Stage::Joining { .. } | Stage::Live => Activation::Unknown,
        }
    }

    /// A ticket login is about to be recorded.
    pub fn join(&self, id: SessionId, stream: &Arc<dyn ProxyStream>) -> Result<(), Gone> {
        let kept = self.lock().put(id, stream, Stage::joining());
        if kept { Ok(()) } else { Err(Gone) }
    }

    /// The session is recorded: it lives, and its proxy hears `word` before anything else
    /// about it. `Err` if it must not live after all; then it is forgotten here.
    pub fn go_live(&self, id: SessionId, word: Word) -> Result<(), Gone> {
        let mut held = self.lock();
        let held = &mut *held;
        if let Some(entry) = held.sessions.get_mut(&id)
            && held.streams.contains_key(&entry.stream.id())
            && let Stage::Joining { kicked: false, again } = &mut entry.stage
        {
            let again = std::mem::take(again);
            entry.stage = Stage::Live;
            entry.stream.tell(word);
            for reference in again {
                entry.stream.tell(Word::Activated { reference, refused: None });
            }
            return Ok(());
        }
        Err(Gone)
    }

    /// The session does not live: forgets it, and refuses its activations where it is held now.
    pub fn refuse(&self, id: SessionId, reference: u64, refused: &'static str) {
        let mut held = self.lock();
        let Some(entry) = held.remove(id) else { return };
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
    pub fn resume(
        &self,
        id: SessionId,
        stream: &Arc<dyn ProxyStream>,
        lives: bool,
        otherwise: &str,
    ) -> Resumed {
        let mut held = self.lock();
        let here = held.sessions.get(&id).is_some_and(|e| e.stream.proxy() == stream.proxy());
        let stage = if here { held.remove(id).map(|entry| entry.stage) } else { None };
        let farewell = held.farewells.take(id, stream.proxy());
        if farewell.is_none() && (stage.is_some() || lives) {
            held.put(id, stream, stage.unwrap_or(Stage::Live));
            return Resumed::Held;
        }
        let farewell = farewell.unwrap_or_else(|| Farewell::new(otherwise));
        stream.tell(Word::Kick { session: id, farewell });
        Resumed::Ended
    }

    /// The session does not live, and nobody was promised that it would.
    pub fn discard(&self, id: SessionId) {
        self.lock().remove(id);
    }

    /// Forgets a session, if this stream holds it; says what it was.
    pub fn forget(&self, id: SessionId, stream: StreamId) -> Met {
        let mut held = self.lock();
        let entry = held.sessions.get(&id).filter(|entry| entry.stream.id() == stream);
        let Some(entry) = entry else { return Met::Nothing };
        let met = match entry.stage {
            Stage::Pending(_) => Met::Pending,
            Stage::Joining { .. } => Met::Joining,
            Stage::Live => Met::Live,
        };
        held.remove(id);
        met
    }

    /// Throws a session out, telling the stream that holds it, and that one alone.
    pub fn kick(&self, id: SessionId, farewell: Farewell) -> Met {
        self.lock().kick(id, &farewell)
    }

    /// Throws out a session that is in the store no more. If no stream holds it, its proxy (any
    /// one, if that is not known) hears why when it comes back.
    pub fn kick_recorded(&self, id: SessionId, proxy: Option<String>, farewell: Farewell) -> Met {
        let mut held = self.lock();
        let met = held.kick(id, &farewell);
        if met == Met::Nothing {
            held.farewells.keep(id, proxy, farewell);
        }
        met
    }

    /// Ends the pending sessions whose time is over; answers how many.
    pub fn expire_pending(&self, now: UnixMillis) -> usize {
        let mut expired = 0_usize;
        loop {
            let mut held = self.lock();
            let Some(&(deadline, id)) = held.deadlines.front() else { return expired };
            if deadline > now {
                return expired;
            }
            held.deadlines.pop_front();
            let pending = held
                .sessions
                .get(&id)
                .is_some_and(|entry| matches!(entry.stage, Stage::Pending(_)));
            drop(held);
            if pending {
                expired = expired.saturating_add(1);
                self.kick(id, Farewell::new("the login was not completed in time"));
            }
        }
    }

    /// Copies of the pending sessions that `wanted` takes.
    pub fn pending(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Session> {
        let held = self.lock();
        let entries = held.deadlines.iter().filter_map(|(_, id)| held.sessions.get(id));
        entries
            .filter_map(|entry| match &entry.stage {
                Stage::Pending(session) if wanted(session) => Some(session.as_ref().clone()),
                _ => None,
            })
            .collect()
    }

    /// The live sessions that open streams hold.
    pub fn live(&self) -> Vec<SessionId> {
        let held = self.lock();
        let live = held.sessions.iter().filter(|(_, entry)| matches!(entry.stage, Stage::Live));
        live.map(|(id, _)| *id).collect()
    }

    /// How many sessions are held by open streams.
    pub fn held(&self) -> usize {
        self.lock().sessions.len()
    }

    pub fn census(&self) -> Census {
        let held = self.lock();
        let of_deadlines = held.deadlines.iter().filter_map(|(_, id)| held.sessions.get(id));
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
    fn put(&mut self, id: SessionId, stream: &Arc<dyn ProxyStream>, stage: Stage) -> bool {
        self.remove(id);
        let Some(on_stream) = self.streams.get_mut(&stream.id()) else { return false };
        on_stream.insert(id);
        self.sessions.insert(id, Entry { stream: Arc::clone(stream), stage });
        true
    }

    fn remove(&mut self, id: SessionId) -> Option<Entry> {
        let entry = self.sessions.remove(&id)?;
        if let Some(on_stream) = self.streams.get_mut(&entry.stream.id()) {
            on_stream.remove(&id);
        }
        Some(entry)
    }

    fn kick(&mut self, id: SessionId, farewell: &Farewell) -> Met {
        let Some(entry) = self.sessions.get_mut(&id) else { return Met::Nothing };
        let met = match &mut entry.stage {
            Stage::Joining { kicked, .. } => {
                *kicked = true;
                return Met::Joining;
            }
            Stage::Pending(_) => Met::Pending,
            Stage::Live => Met::Live,
        };
        if let Some(entry) = self.remove(id) {
            entry.stream.tell(Word::Kick { session: id, farewell: farewell.clone() });
        }
        met
    }
}

impl Stage {
    const fn joining() -> Self {
        Self::Joining { kicked: false, again: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
