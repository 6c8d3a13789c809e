//! The login, and the server's heartbeat, which is also the doorbell.
//!
//! Bytes to the caller leave only while something arrives from the server. So when something waits
//! for the caller, the server is asked for a sign of life; at most one such question is in flight,
//! and a server that does not reply in time is taken for dead. Where there is a tunnel, its other end
//! is asked instead, and the heartbeat tells of the server alone.

use std::rc::Rc;

use crate::config::EgressConfig;
use crate::metrics::Metric;
use crate::time::Moment;
use crate::worker::Worker;

use super::Egress;
use super::pending::Who;

/// How far the frame is that begins a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Due,
    Sent { reply_by: Moment },
    Done,
}

impl Login {
    pub fn new(egress: &EgressConfig) -> Self {
        if egress.login.is_some() { Self::Due } else { Self::Done }
    }

    pub fn is_done(self) -> bool {
        self == Self::Done
    }

    pub fn deadline(self) -> Option<Moment> {
        match self {
            Self::Sent { reply_by } => Some(reply_by),
            Self::Due | Self::Done => None,
        }
    }

    pub fn is_overdue(self, now: Moment) -> bool {
        self.deadline().is_some_and(|by| by <= now)
    }
}

impl Egress {
    /// Sends the login, once.
    pub(super) fn log_in(&mut self, now: Moment, worker: &mut Worker) {
        // A server that is connected to at need is logged in to at need: one that cannot be reached
        // would otherwise be tried again and again.
        let is_needed = self.tunnel.is_none() || !self.waiting.is_empty();
        if self.login != Login::Due || !self.heard || !is_needed || self.closing.is_some() {
            return;
        }
        let terms = Rc::clone(&self.terms);
        let Some(egress) = Self::config(&terms) else { return };
        let Some(frame) = &egress.login else { return };
        let who = egress.login_replies.then_some(Who::Login);
        self.send_own(frame.command.borrow(), &frame.body, &frame.fields, who, worker);
        let reply_by = now.after(terms.config.limits.bell_timeout.get());
        self.login = if who.is_some() { Login::Sent { reply_by } } else { Login::Done };
    }

    /// Rings when something waits for the caller that cannot leave by itself.
    pub(super) fn ring(&mut self, now: Moment, worker: &mut Worker) {
        if self.leg.output().is_empty() || self.bell.is_some() {
            return;
        }
        match &mut self.tunnel {
            Some(tunnel) if self.heard && !self.server_gone => {
                if tunnel.ring() {
                    self.bell = Some(now.after(self.terms.config.limits.bell_timeout.get()));
                    worker.metrics.add(Metric::Bells, 1);
                }
            }
            Some(_) => {}
            None => self.beat(now, worker),
        }
    }

    /// Asks the server for a sign of life, unless that is under way.
    pub(super) fn beat(&mut self, now: Moment, worker: &mut Worker) {
        let can_speak = self.heard && !self.server_gone && self.login.is_done();
        let pending = if self.tunnel.is_some() { self.pulse } else { self.bell };
        if pending.is_some() || !can_speak {
            return;
        }
        let terms = Rc::clone(&self.terms);
        let Some(frame) = Self::config(&terms).and_then(|egress| egress.heartbeat.as_ref()) else {
            return;
        };
        // A server that answers in order answers behind what it has been asked before.
        let first = if self.pending.is_ordered() { self.calls.last_deadline() } else { None };
        let from = first.map_or(now, |last| last.max(now));
        let by = Some(from.after(terms.config.limits.bell_timeout.get()));
        if self.tunnel.is_some() {
            self.pulse = by;
        } else {
            self.bell = by;
            worker.metrics.add(Metric::Bells, 1);
        }
        self.send_own(frame.command.borrow(), &frame.body, &frame.fields, Some(Who::Bell), worker);
    }

    /// When the server has been silent for so long that it is asked.
    pub(super) fn next_beat(&self) -> Option<Moment> {
        let interval = Self::config(&self.terms)?.heartbeat_interval?;
        let idle = self.bell.is_none() && self.pulse.is_none();
        let idle = idle && self.closing.is_none() && self.heard;
        (idle && !self.server_gone && self.login.is_done())
            .then(|| self.server_heard.after(interval))
    }
}
