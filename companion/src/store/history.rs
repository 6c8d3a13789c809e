//! What happened to sessions, in the order in which the store did it.
//!
//! Each event has a revision, one more than that of the event before. Some thousand are kept;
//! whoever wants to go on from an older one begins with a snapshot instead. Revisions begin anew
//! with a new epoch: an embedded store has one for each run, a shared one for as long as it lasts.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Answer;
use crate::domain::session::{Farewell, Session};
use crate::domain::time::UnixMillis;

/// Events that are kept: some minutes of logins at full speed. Of the embedded store in memory, a
/// few hundred bytes each.
pub const KEPT: usize = 16_384;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    pub at: UnixMillis,
    pub happened: Happened,
    pub session: Session,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Login,
    /// Its client's connection is gone, or its proxy.
    Away,
    /// It was away, and lives again.
    Back,
    End {
        cause: Cause,
        farewell: Farewell,
    },
}

impl Happened {
    /// An end: by somebody's word, or because the client's connection closed.
    pub fn end(farewell: Option<Farewell>) -> Self {
        let cause = if farewell.is_some() { Cause::Kicked } else { Cause::Closed };
        Self::End { cause, farewell: farewell.unwrap_or_else(|| Farewell::new("")) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Closed,
    Kicked,
    Replaced,
    Expired,
    /// It was away for too long.
    GivenUp,
}

impl Cause {
    const ALL: [(&'static str, Self); 5] = [
        ("closed", Self::Closed),
        ("kicked", Self::Kicked),
        ("replaced", Self::Replaced),
        ("expired", Self::Expired),
        ("given_up", Self::GivenUp),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, cause)| *cause == self).map_or("?", |(name, _)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, cause)| *cause)
    }
}

/// A place in the history: after the event of this revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bookmark {
    pub epoch: u64,
    pub revision: u64,
}

impl Bookmark {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, revision) = text.split_once('-')?;
        let epoch = u64::from_str_radix(epoch, 16).ok().filter(|_| epoch.len() == 16)?;
        Some(Self { epoch, revision: revision.parse().ok()? })
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.revision)
    }
}

/// The events after that place are not there any more, or it is of another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld;

pub trait History {
    /// The place after the newest event.
    fn newest(&self) -> Answer<Bookmark>;

    /// The next events after this place, at most so many; none if it is the newest.
    fn since(&self, place: Bookmark, limit: usize) -> Answer<Result<Vec<Event>, TooOld>>;

    /// Changes whenever there may be more.
    fn pulse(&self) -> watch::Receiver<u64>;
}

/// A history in memory.
#[derive(Debug)]
pub struct Chronicle {
    epoch: u64,
    kept: Mutex<Kept>,
    pulse: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    newest: u64,
    events: VecDeque<Event>,
}

impl Chronicle {
    /// `epoch`: a number that no other run has.
    pub fn new(epoch: u64) -> Self {
        Self { epoch, kept: Mutex::default(), pulse: watch::Sender::new(0) }
    }

    /// These happened, in this order.
    pub fn record(&self, at: UnixMillis, happened: Vec<(Happened, Session)>) {
        if happened.is_empty() {
            return;
        }
        let mut kept = self.lock();
        for (happened, session) in happened {
            kept.newest = kept.newest.saturating_add(1);
            let revision = kept.newest;
            if kept.events.len() >= KEPT {
                kept.events.pop_front();
            }
            kept.events.push_back(Event { revision, at, happened, session });
        }
        let newest = kept.newest;
        drop(kept);
        self.pulse.send_replace(newest);
    }

    pub fn newest(&self) -> Bookmark {
        Bookmark { epoch: self.epoch, revision: self.lock().newest }
    }

    pub fn since(&self, place: Bookmark, limit: usize) -> Result<Vec<Event>, TooOld> {
        let kept = self.lock();
        let Some(new) = kept.newest.checked_sub(place.revision) else { return Err(TooOld) };
        let new = usize::try_from(new).map_err(|_| TooOld)?;
        if place.epoch != self.epoch || new > kept.events.len() {
            return Err(TooOld);
        }
        let first = kept.events.len().saturating_sub(new);
        Ok(kept.events.range(first..).take(limit).cloned().collect())
    }

    pub fn pulse(&self) -> watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while the lock is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::behaviour::{at, session};

    fn login(number: u16) -> (Happened, Session) {
        (Happened::Login, session(number, "ada", 100))
    }

    #[test]
    fn a_place_is_found_again_by_its_text() {
        let place = Bookmark { epoch: 0x1f, revision: 12 };
        assert_eq!(place.to_string(), "000000000000001f-12");
        assert_eq!(Bookmark::parse(&place.to_string()), Some(place));
        for bad in ["", "1f-12", "000000000000001f", "000000000000001f-", "x-1"] {
            assert_eq!(Bookmark::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_too_old_or_of_another_run_is_not_gone_on_from() {
        let chronicle = Chronicle::new(7);
        let begin = chronicle.newest();
        for number in 0..10 {
            chronicle.record(at(0), vec![login(number)]);
        }
        let events = chronicle.since(begin, 3).unwrap();
        assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [1, 2, 3]);
        let place = Bookmark { epoch: 7, revision: 3 };
        assert_eq!(chronicle.since(place, 100).unwrap().len(), 7);
        assert_eq!(chronicle.since(chronicle.newest(), 9), Ok(Vec::new()));
        assert_eq!(chronicle.since(Bookmark { epoch: 8, ..place }, 9), Err(TooOld));
        assert_eq!(chronicle.since(Bookmark { revision: 11, ..place }, 9), Err(TooOld));
        chronicle.record(at(0), (0..KEPT as u16).map(login).collect());
        assert_eq!(chronicle.since(place, 9), Err(TooOld));
        assert_eq!(chronicle.since(Bookmark { revision: 10, ..place }, 9).unwrap().len(), 9);
    }
}
