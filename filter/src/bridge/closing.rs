//! How a connection is ended from this side.

use std::rc::Rc;
use std::time::Duration;

use crate::call::Status;
use crate::metrics::Labelled;
use crate::protocol::layout::{FrameSeal, Push};
use crate::time::Moment;
use crate::worker::Worker;

use super::leaving::Return;
use super::{Bridge, Upstream};

/// On the way to the end.
#[derive(Debug)]
pub enum Closing {
    /// Something is still to be said, until then.
    Speaking {
        until: Moment,
    },
    /// The last word is with Envoy. A close in the same callback would overtake it, so the
    /// connection closes a moment later.
    Said {
        close_at: Moment,
    },
    Now,
}

/// Long enough for Envoy to take the last word from the callback that gave it.
const AFTER_LAST_WORD: Duration = Duration::from_millis(5);

impl Closing {
    pub fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Speaking { until } => Some(*until),
            Self::Said { close_at } => Some(*close_at),
            Self::Now => Some(Moment::from_micros(0)),
        }
    }

    pub fn is_due(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Everything that was to be said has been handed to Envoy.
    pub fn said(&mut self, now: Moment) {
        if matches!(self, Self::Speaking { .. }) {
            *self = Self::Said { close_at: now.after(AFTER_LAST_WORD) };
        }
    }
}

/// What a goodbye says besides its text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastWord<'a> {
    /// A number of the game's own, in the place of the status.
    pub number: Option<i64>,
    /// The client shall come back.
    pub back: Option<Return<'a>>,
}

impl Bridge {
    /// Ends the connection: calls in flight fail, the client is told why if the configuration
    /// has a goodbye command, and then the connection closes. `reason` is for log and metrics.
    pub(super) fn leave(
        &mut self,
        now: Moment,
        reason: &'static str,
        status: Status,
        worker: &mut Worker,
    ) {
        self.leave_with(now, reason, status, LastWord::default(), worker);
    }

    /// The same, with a goodbye that says more.
    pub(super) fn leave_with(
        &mut self,
        now: Moment,
        reason: &'static str,
        status: Status,
        word: LastWord<'_>,
        worker: &mut Worker,
    ) {
        if self.closing.is_some() {
            return;
        }
        self.tally.end(reason);
        self.write_pushes(worker);
        for token in self.calls.all() {
            self.fail_call(now, token, status.clone(), worker);
        }
        self.session_over(worker);
        self.say_goodbye(&status, word, worker);
        self.close_after_last_word(now);
    }

    /// Ends the connection after what already waits for the client.
    pub(super) fn close_after_last_word(&mut self, now: Moment) {
        let terms = Rc::clone(&self.terms);
        if let Some(cluster) = terms.config.upstream.refusal_cluster.as_deref()
            && self.heard
            && !self.to_client.is_empty()
        {
            if let Some(relay) = self.leg.relay().filter(|_| self.upstream == Upstream::Unopened) {
                // It is not the server that is asked for a sign of life.
                relay.server.login_refused();
            }
            self.open_upstream(Some(cluster));
        }
        // Without a byte from the client, or without an upstream, nothing can ring. The last word
        // to a closed upstream leaves with the callback that told of its end.
        let can_speak =
            self.heard && !self.to_client.is_empty() && self.upstream != Upstream::Unopened;
        self.closing = Some(if can_speak {
            Closing::Speaking { until: now.after(terms.config.limits.bell_timeout.get()) }
        } else {
            self.to_client.clear();
            Closing::Now
        });
    }

    /// Ends the connection without a word: for those who would gain from one.
    pub(super) fn close_silently(&mut self, reason: &'static str) {
        self.tally.end(reason);
        self.to_client.clear();
        self.closing = Some(Closing::Now);
    }

    pub(super) fn say_goodbye(&mut self, status: &Status, word: LastWord<'_>, worker: &mut Worker) {
        let terms = Rc::clone(&self.terms);
        let config = &terms.config;
        let Some(command) = &config.session.goodbye else { return };
        let head = word.back.map(|back| back.head());
        let head = head.as_ref().map_or(&[][..], |head| head);
        let address = word.back.map_or("", |back| back.address);
        let push = Push {
            command: command.borrow(),
            sequence: 0,
            status: word.number.unwrap_or_else(|| config.statuses.private(status.code)),
            error: true,
            body: &[status.message.as_bytes(), head, address.as_bytes()],
            compress: false,
        };
        let seal = self.session.sealer().map(|sealer| sealer as &mut dyn FrameSeal);
        if config.layout.encode_push(push, seal, &mut self.to_client).is_err() {
            worker.metrics.count(Labelled::UpstreamErrors, "goodbye_not_encodable");
        }
    }
}
