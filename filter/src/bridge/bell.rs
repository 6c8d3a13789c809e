//! The doorbell: how the filter gets to speak to a client while nothing arrives from upstream.
//!
//! Bytes to the client can leave only while something arrives from upstream, so the filter
//! sends an empty SETTINGS frame there, whose ACK comes straight back. At most one is in
//! flight; whatever is to be said meanwhile goes with the same ACK. A lost one would silence
//! the connection for good, so it is closed then.

use std::time::Duration;

use crate::protocol::grpc::client::ClientLeg;
use crate::time::Moment;

#[derive(Debug, Default)]
pub struct Bell {
    answer_by: Option<Moment>,
}

impl Bell {
    /// Rings unless the last ring is still unanswered. True if it rang.
    pub fn ring(&mut self, leg: &mut ClientLeg, now: Moment, timeout: Duration) -> bool {
        let rang = self.answer_by.is_none() && leg.ring();
        if rang {
            self.answer_by = Some(now.after(timeout));
        }
        rang
    }

    pub fn answered(&mut self) {
        self.answer_by = None;
    }

    /// When the answer is due.
    pub fn deadline(&self) -> Option<Moment> {
        self.answer_by
    }

    pub fn is_overdue(&self, now: Moment) -> bool {
        self.answer_by.is_some_and(|by| by <= now)
    }
}
