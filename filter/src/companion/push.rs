//! Messages of the companion for clients of this worker, and what came of them.
//!
//! ```text
//!   Push ──> one Delivery for each live session ──> bridges
//!     ^                                               │ delivered, gone, slow, refused
//!     └────────── Pushed, when all are known <────────┘
//! ```
//!
//! An answer may take as long as its slowest client. So many pushes may be open at once, and what
//! comes beyond is answered at once, as slow; the companion keeps below it by counting answers.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use meshgate_proto::edge::v1 as edge;

/// Pushes that may wait for their outcome at once; four times what a companion lets wait by
/// default. 64 bytes each.
pub const MAX_OPEN: usize = 4096;
/// The longest body of a push, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// The sessions that one push may be for.
pub const MAX_SESSIONS: usize = 16 * 1024;

/// A message for clients.
#[derive(Debug, PartialEq)]
pub struct Push {
    pub command: PushCommand,
    pub body: Vec<u8>,
    /// What the listener's configuration makes of it, once for all its clients.
    pub judged: OnceCell<Judged>,
}

/// The frame of a push, as far as it is the same for all clients of a listener.
pub type Judged = Result<Prepared, NotPushed>;

#[derive(Debug, PartialEq)]
pub struct Prepared {
    pub command: crate::protocol::layout::OwnedCommand,
    /// The whole frame, for clients whose frames are not sealed.
    pub plain: OnceCell<Result<Vec<u8>, NotPushed>>,
}

/// A command as a service writes it; the layout says what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushCommand {
    Number(i64),
    Text(String),
    /// No command: clients are asked to leave.
    Leave(Leave),
}

/// Asks clients to go, and to come back elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// Only those of this service, by its cluster's name; empty: any.
    pub service: String,
    /// Goes to the client.
    pub reason: String,
    /// Over how long clients are spread.
    pub spread: Duration,
    /// How long each is served on after its time has come.
    pub within: Duration,
    /// Where to; empty: as the listener's configuration says.
    pub address: String,
}

/// Why a push does not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPushed {
    /// The session does not live here, or its connection is at its end.
    Gone,
    /// As much waits for the client as may.
    Slow,
    /// The configuration or the layout is against it.
    Refused(String),
}

impl Push {
    pub fn new(command: PushCommand, body: Vec<u8>) -> Self {
        Self { command, body, judged: OnceCell::new() }
    }
}

/// Names a push to the connections that report on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// A push for one connection. Each is reported on once, with [`super::Link::pushed`].
#[derive(Clone, Debug)]
pub struct Delivery {
    pub connection: u32,
    pub ticket: Ticket,
    pub push: Rc<Push>,
}

/// What came of a push so far.
#[derive(Debug, Default)]
struct Open {
    answer: edge::Pushed,
    /// Sessions that are not reported on.
    left: u32,
}

/// The pushes of one worker.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    /// The ticket of the first that is open.
    first: u64,
    /// In the order in which they came; among them some that are answered.
    open: VecDeque<Open>,
    deliveries: VecDeque<Delivery>,
    answers: VecDeque<edge::Pushed>,
}

impl Pushes {
    /// A push came. `live` are its connections, `gone` how many of its sessions do not live here.
    pub fn begin(&mut self, reference: u64, push: Push, live: &[u32], gone: u32) {
        let left = u32::try_from(live.len()).unwrap_or(u32::MAX);
        let mut answer = edge::Pushed { r#ref: reference, gone, ..edge::Pushed::default() };
        if left == 0 || self.open.len() >= MAX_OPEN {
            answer.slow = left;
            self.answers.push_back(answer);
            return;
        }
        let ticket = Ticket(self.first.wrapping_add(self.open.len() as u64));
        self.open.push_back(Open { answer, left });
        let push = Rc::new(push);
        self.deliveries.extend(live.iter().map(|&connection| Delivery {
            connection,
            ticket,
            push: Rc::clone(&push),
        }));
    }

    pub fn next_delivery(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    pub fn next_answer(&mut self) -> Option<edge::Pushed> {
        self.answers.pop_front()
    }

    /// What came of a push at one connection.
    pub fn report(&mut self, ticket: Ticket, outcome: Result<(), NotPushed>) {
        // A ticket of a stream that was lost: nobody asks any more.
        let place = usize::try_from(ticket.0.wrapping_sub(self.first)).ok();
        let Some(open) = place.and_then(|place| self.open.get_mut(place)) else { return };
        let answer = &mut open.answer;
        let count = match outcome {
            Ok(()) => &mut answer.delivered,
            Err(NotPushed::Gone) => &mut answer.gone,
            Err(NotPushed::Slow) => &mut answer.slow,
            Err(NotPushed::Refused(reason)) => {
                if answer.refused == 0 {
                    answer.reason = reason;
                }
                &mut answer.refused
            }
        };
        *count = count.saturating_add(1);
        open.left = open.left.saturating_sub(1);
        if open.left == 0 {
            self.answers.push_back(std::mem::take(&mut open.answer));
        }
        while self.open.front().is_some_and(|open| open.left == 0) {
            self.open.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// The stream is lost: nobody waits for what came of its pushes. They reach their clients all
    /// the same.
    pub fn forget_answers(&mut self) {
        self.first = self.first.wrapping_add(self.open.len() as u64);
        self.open.clear();
        self.answers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> Push {
        Push::new(PushCommand::Number(7), vec![1])
    }

    fn answers(pushes: &mut Pushes) -> Vec<(u64, [u32; 4])> {
        std::iter::from_fn(|| pushes.next_answer())
            .map(|a| (a.r#ref, [a.delivered, a.gone, a.slow, a.refused]))
            .collect()
    }

    #[test]
    fn a_push_is_answered_when_all_its_sessions_are_known() {
        let mut pushes = Pushes::default();
        pushes.begin(1, push(), &[5, 6, 7], 2);
        pushes.begin(2, push(), &[5], 0);
        let all: Vec<_> = std::iter::from_fn(|| pushes.next_delivery()).collect();
        let order: Vec<_> = all.iter().map(|delivery| delivery.connection).collect();
        assert_eq!(order, [5, 6, 7, 5]);
        let (first, second) = (all[0].ticket, all[3].ticket);
        pushes.report(first, Ok(()));
        pushes.report(first, Err(NotPushed::Refused("no".into())));
        // The second does not wait for the first.
        pushes.report(second, Err(NotPushed::Slow));
        assert_eq!(answers(&mut pushes), [(2, [0, 0, 1, 0])]);
        pushes.report(first, Err(NotPushed::Gone));
        assert_eq!(answers(&mut pushes), [(1, [1, 3, 0, 1])]);
        assert!(pushes.open.is_empty());
    }

    #[test]
    fn a_push_for_nobody_here_is_answered_at_once() {
        let mut pushes = Pushes::default();
        pushes.begin(1, push(), &[], 3);
        assert_eq!(answers(&mut pushes), [(1, [0, 3, 0, 0])]);
        assert!(pushes.next_delivery().is_none());
    }

    #[test]
    fn only_so_many_wait_for_their_outcome() {
        let mut pushes = Pushes::default();
        for number in 0..MAX_OPEN as u64 {
            pushes.begin(number, push(), &[5], 0);
        }
        pushes.begin(9999, push(), &[5, 6], 1);
        assert_eq!(answers(&mut pushes), [(9999, [0, 1, 2, 0])]);
        assert_eq!(std::iter::from_fn(|| pushes.next_delivery()).count(), MAX_OPEN);
    }

    #[test]
    fn reports_on_pushes_of_a_lost_stream_are_nobodys() {
        let mut pushes = Pushes::default();
        pushes.begin(1, push(), &[5], 0);
        let old = pushes.next_delivery().unwrap().ticket;
        pushes.forget_answers();
        pushes.begin(2, push(), &[5], 0);
        let new = pushes.next_delivery().unwrap().ticket;
        pushes.report(old, Ok(()));
        assert_eq!(answers(&mut pushes), []);
        pushes.report(new, Ok(()));
        assert_eq!(answers(&mut pushes), [(2, [1, 0, 0, 0])]);
    }
}
