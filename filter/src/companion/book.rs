//! Which connection waits for what, and which session lives on which connection.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::session::login::{Hold, Mode, SessionId};
use crate::time::Moment;

/// A connection that the companion has to do with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Of the last thing asked.
    pub reference: u64,
    /// Meant only while an answer is due.
    pub deadline: Moment,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// An answer is due.
    Login {
        mode: Mode,
        sent: bool,
    },
    /// Accepted; nothing asked.
    Pending {
        hold: Hold,
    },
    /// An answer is due.
    Activation {
        hold: Hold,
        sent: bool,
    },
    Live {
        hold: Hold,
    },
}

impl Stage {
    pub const fn hold(&self) -> Option<Hold> {
        match self {
            Self::Login { .. } => None,
            Self::Pending { hold } | Self::Activation { hold, .. } | Self::Live { hold } => {
                Some(*hold)
            }
        }
    }

    const fn waits(&self) -> bool {
        matches!(self, Self::Login { .. } | Self::Activation { .. })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<u32, Entry, Spread>,
    /// The connection of each hold in `entries`.
    holds: HashMap<Hold, u32, Spread>,
    /// The connection that each session lives on.
    live: HashMap<SessionId, u32, Spread>,
    /// Of the references that wait, in their order. The first one waits; among the others are
    /// some that were answered, but never more than wait and [`STALE`].
    deadlines: VecDeque<(Moment, u64)>,
    waiting: usize,
}

/// How many answered references may be left among the deadlines.
const STALE: usize = 64;

impl Book {
    /// Deadlines are given in their order: all have the same time to go.
    pub fn insert(&mut self, connection: u32, entry: Entry) {
        self.remove(connection);
        if let Some(hold) = entry.stage.hold() {
            self.holds.insert(hold, connection);
        }
        if let Stage::Live { hold } = entry.stage {
            self.live.insert(hold.session, connection);
        }
        if entry.stage.waits() {
            self.waiting = self.waiting.saturating_add(1);
            let last = self.deadlines.back().map_or(entry.deadline, |(last, _)| *last);
            self.deadlines.push_back((entry.deadline.max(last), entry.reference));
        }
        self.entries.insert(connection, entry);
    }

    pub fn remove(&mut self, connection: u32) -> Option<Entry> {
        let entry = self.entries.remove(&connection)?;
        if let Some(hold) = entry.stage.hold() {
            self.holds.remove(&hold);
            if self.live.get(&hold.session) == Some(&connection) {
                self.live.remove(&hold.session);
            }
        }
        if entry.stage.waits() {
            self.waiting = self.waiting.saturating_sub(1);
            self.tidy();
        }
        Some(entry)
    }

    fn tidy(&mut self) {
        let entries = &self.entries;
        let waits = |reference: u64| asked(entries, reference).is_some();
        while self.deadlines.front().is_some_and(|(_, reference)| !waits(*reference)) {
            self.deadlines.pop_front();
        }
        // Seldom enough that what it costs is spread over as many removals.
        if self.deadlines.len() > self.waiting.saturating_mul(2).saturating_add(STALE) {
            self.deadlines.retain(|(_, reference)| waits(*reference));
        }
    }

    /// The question of this reference is on the stream.
    pub fn mark_sent(&mut self, reference: u64) {
        if let Some(Entry {
            stage: Stage::Login { sent, .. } | Stage::Activation { sent, .. },
            ..
        }) = self.entries.get_mut(&connection_of(reference))
        {
            *sent = true;
        }
    }

    /// The connection that asked under `reference` and what for, if it still waits for it.
    pub fn asked(&self, reference: u64) -> Option<(u32, Stage)> {
        asked(&self.entries, reference)
    }

    pub fn knows(&self, connection: u32) -> bool {
        self.entries.contains_key(&connection)
    }

    pub fn connection(&self, hold: Hold) -> Option<u32> {
        self.holds.get(&hold).copied()
    }

    /// The connection that a session lives on; the newest one where it moved from one to another.
    pub fn live_connection(&self, session: SessionId) -> Option<u32> {
        self.live.get(&session).copied()
    }

    /// The hold of a connection that may be activated.
    pub fn pending_hold(&self, connection: u32) -> Option<Hold> {
        match self.entries.get(&connection)?.stage {
            Stage::Pending { hold } => Some(hold),
            _ => None,
        }
    }

    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn sessions(&self) -> usize {
        self.holds.len()
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// A connection whose time is up.
    pub fn next_expired(&self, now: Moment) -> Option<u32> {
        let (deadline, reference) = self.deadlines.front()?;
        (*deadline <= now).then_some(connection_of(*reference))
    }

    /// What is on a stream that was lost: the connections whose logins are, and the references
    /// of all activations, which from now on count as not sent.
    pub fn lost(&mut self) -> (Vec<u32>, Vec<u64>) {
        let (mut logins, mut activations) = (Vec::new(), Vec::new());
        for (connection, entry) in &mut self.entries {
            match &mut entry.stage {
                Stage::Login { sent: true, .. } => logins.push(*connection),
                Stage::Activation { sent, .. } => {
                    *sent = false;
                    activations.push(entry.reference);
                }
                _ => {}
            }
        }
        (logins, activations)
    }

    pub fn all_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.keys()
    }
}

fn asked(entries: &HashMap<u32, Entry, Spread>, reference: u64) -> Option<(u32, Stage)> {
    let connection = connection_of(reference);
    let entry = entries.get(&connection)?;
    (entry.reference == reference && entry.stage.waits()).then_some((connection, entry.stage))
}

/// The lower half of a reference.
const fn connection_of(reference: u64) -> u32 {
    (reference & 0xffff_ffff) as u32
}

type Spread = BuildHasherDefault<SpreadHasher>;

/// FNV-1a. The keys come from the companion and from Envoy, not from clients, so nobody can
/// choose them to collide; and nothing random is needed, which not every target has.
#[derive(Debug)]
struct SpreadHasher(u64);

impl Default for SpreadHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for SpreadHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // Maps use the upper bits as well as the lower ones.
        self.0 ^ self.0.rotate_right(25)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(connection: u32, count: u64) -> Entry {
        let stage = Stage::Login { mode: Mode::Ticket, sent: false };
        Entry {
            reference: count << 32 | u64::from(connection),
            deadline: Moment::from_micros(count),
            stage,
        }
    }

    #[test]
    fn answered_questions_leave_no_deadlines_behind() {
        let mut book = Book::default();
        book.insert(0, waiting(0, 1));
        for count in 2..100_000 {
            let connection = u32::try_from(count).unwrap();
            book.insert(connection, waiting(connection, count));
            book.remove(connection);
            assert!(book.deadlines.len() <= 3 + STALE);
        }
        assert_eq!(book.waiting(), 1);
        assert_eq!(book.next_deadline(), Some(Moment::from_micros(1)));
        book.remove(0);
        assert_eq!((book.next_deadline(), book.waiting()), (None, 0));
    }

    #[test]
    fn deadlines_expire_in_their_order_and_only_of_those_who_still_wait() {
        let mut book = Book::default();
        for connection in 0..10_u32 {
            book.insert(connection, waiting(connection, u64::from(connection) + 1));
        }
        for connection in [0, 3, 4, 9] {
            book.remove(connection);
        }
        let mut expired = Vec::new();
        while let Some(connection) = book.next_expired(Moment::from_micros(8)) {
            book.remove(connection);
            expired.push(connection);
        }
        assert_eq!(expired, [1, 2, 5, 6, 7]);
        assert_eq!(book.next_deadline(), Some(Moment::from_micros(9)));
    }

    #[test]
    fn a_connection_that_asks_anew_waits_for_the_new_answer_alone() {
        let mut book = Book::default();
        book.insert(7, waiting(7, 1));
        book.insert(7, waiting(7, 2));
        assert_eq!(book.waiting(), 1);
        assert!(book.asked(1 << 32 | 7).is_none());
        assert!(book.asked(2 << 32 | 7).is_some());
        assert_eq!(book.next_expired(Moment::from_micros(1)), None);
    }

    #[test]
    fn keys_that_differ_little_are_spread() {
        let low = |number: u32| {
            let mut hasher = SpreadHasher::default();
            hasher.write(&number.to_le_bytes());
            hasher.finish() & 0xff
        };
        let buckets: std::collections::BTreeSet<_> = (0..256).map(low).collect();
        assert!(buckets.len() > 128, "{} of 256", buckets.len());
    }
}
