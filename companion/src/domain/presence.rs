//! Who holds which session right now: the streams of the proxies' workers, and what lives on each.
//!
//! A kick or an expiry finds its way from a session id to one stream here. Everything under
//! one short lock; nothing waits while it is held. Telling a stream something never waits
//! either: a stream that cannot take a word is cut (see [`ProxyStream::tell`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::refusal::Why;
use super::secret::TrafficKeys;
use super::session::{Farewell, Session, SessionId};
use super::time::UnixMillis;

/// A pending session that its client does not bring to life within this time ends.
pub const PENDING_LIFETIME: Duration = Duration::from_secs(10);

/// Names a stream in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u64);

/// The stream of one worker of a proxy.
pub trait ProxyStream: Send + Sync {
    fn id(&self) -> StreamId;
    /// The name that the proxy gave itself.
    fn proxy(&self) -> &str;
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
}

struct Entry {
    stream: Arc<dyn ProxyStream>,
    stage: Stage,
}

enum Stage {
    Pending(Box<Session>),
    /// Being recorded in the store. A kick that comes now is kept for the moment after.
    Joining {
        kicked: bool,
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

impl Presence {
    pub fn open(&self, stream: StreamId) {
        self.lock().streams.insert(stream, HashSet::new());
    }

    /// The stream is lost: its pending sessions end, its live ones wait in the store for it to
    /// come back.
    pub fn close(&self, stream: StreamId) {
        let mut held = self.lock();
        for session in held.streams.remove(&stream).unwrap_or_default() {
            held.sessions.remove(&session);
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

    /// The session's first sealed frame was genuine. Only the stream that logged it in may say so.
    pub fn start_activation(&self, id: SessionId, stream: StreamId) -> Option<Session> {
        let mut held = self.lock();
        let entry = held.sessions.get_mut(&id).filter(|entry| entry.stream.id() == stream)?;
        if !matches!(entry.stage, Stage::Pending(_)) {
            return None;
        }
        match std::mem::replace(&mut entry.stage, Stage::Joining { kicked: false }) {
            Stage::Pending(session) => Some(*session),
            Stage::Joining { .. } | Stage::Live => None,
        }
    }

    /// A ticket login is about to be recorded.
    pub fn join(&self, id: SessionId, stream: &Arc<dyn ProxyStream>) -> Result<(), Gone> {
        let kept = self.lock().put(id, stream, Stage::Joining { kicked: false });
        if kept { Ok(()) } else { Err(Gone) }
    }

    /// The session is recorded: it lives, and its proxy hears `word` before anything else
    /// about it. `Err` if it must not live after all; then it is forgotten here.
    pub fn go_live(&self, id: SessionId, word: Word) -> Result<(), Gone> {
        let mut held = self.lock();
        match held.sessions.get_mut(&id) {
            Some(entry) if matches!(entry.stage, Stage::Joining { kicked: false }) => {
                entry.stage = Stage::Live;
                entry.stream.tell(word);
                Ok(())
            }
            _ => {
                held.remove(id);
                Err(Gone)
            }
        }
    }

    /// A live session is found again on a stream that came back.
    pub fn reattach(&self, id: SessionId, stream: &Arc<dyn ProxyStream>) {
        self.lock().put(id, stream, Stage::Live);
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
        let mut held = self.lock();
        let Some(entry) = held.sessions.get_mut(&id) else { return Met::Nothing };
        let met = match &mut entry.stage {
            Stage::Joining { kicked } => {
                *kicked = true;
                return Met::Joining;
            }
            Stage::Pending(_) => Met::Pending,
            Stage::Live => Met::Live,
        };
        let stream = Arc::clone(&entry.stream);
        held.remove(id);
        stream.tell(Word::Kick { session: id, farewell });
        met
    }

    /// Ends the pending sessions whose time is over.
    pub fn expire_pending(&self, now: UnixMillis) {
        loop {
            let mut held = self.lock();
            let Some(&(deadline, id)) = held.deadlines.front() else { return };
            if deadline > now {
                return;
            }
            held.deadlines.pop_front();
            let pending = held
                .sessions
                .get(&id)
                .is_some_and(|entry| matches!(entry.stage, Stage::Pending(_)));
            drop(held);
            if pending {
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

    /// How many sessions are held by open streams.
    pub fn held(&self) -> usize {
        self.lock().sessions.len()
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

    fn remove(&mut self, id: SessionId) {
        if let Some(entry) = self.sessions.remove(&id)
            && let Some(on_stream) = self.streams.get_mut(&entry.stream.id())
        {
            on_stream.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
