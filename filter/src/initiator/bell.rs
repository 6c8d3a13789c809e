//! The login, and the server's heartbeat, which is also the doorbell.
//!
//! Bytes to the caller leave only while something arrives from the server. So when something waits
//! for the caller, the server is asked for a sign of life; at most one such question is in flight,
//! and a server that does not reply in time is taken for dead. Where there is a tunnel, its other end
//! is asked instead, and the heartbeat tells of the server alone.

use std::rc::Rc;

use crate::config::ServerConfig;
use crate::metrics::Metric;
use crate::time::Moment;
use crate::worker::Worker;

use super::{Initiator, Who};

/// How far the frame is that begins a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Due,
    Sent { reply_by: Moment },
    Done,
}

impl Login {
    pub fn new(server: &ServerConfig) -> Self {
        if server.login.is_some() { Self::Due } else { Self::Done }
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
}

impl Initiator {
    /// Sends the login, once. `needed` says whether somebody waits for the server.
    pub fn log_in(&mut self, now: Moment, needed: bool) {
        // A server that is connected to at need is logged in to at need: one that cannot be reached
        // would otherwise be tried again and again.
        let needed = needed || self.tunnel.is_none() || !self.held.is_empty();
        if self.login != Login::Due || !self.reachable || !needed || self.gone {
            return;
        }
        let terms = Rc::clone(&self.terms);
        let Some(server) = Self::config(&terms) else { return };
        let Some(frame) = &server.login else { return };
        let who = server.login_replies.then_some(Who::Login);
        self.send_own(frame, who);
        let reply_by = now.after(terms.config.limits.bell_timeout.get());
        if who.is_some() {
            self.login = Login::Sent { reply_by };
        } else {
            self.logged_in();
        }
    }

    /// Calls may be asked, and those that wait are.
    pub(super) fn logged_in(&mut self) {
        self.login = Login::Done;
        self.output.append(&mut self.held);
        self.held = Vec::new();
    }

    /// No login is sent any more, and no calls: the server does not want them, or there is none.
    pub fn login_refused(&mut self) {
        self.login = Login::Done;
        self.held.clear();
    }

    /// Rings, because something waits for the caller that cannot leave by itself. `last` is the last
    /// deadline of the calls in flight.
    pub fn ring(&mut self, now: Moment, last: Option<Moment>, worker: &mut Worker) {
        if self.bell.is_some() {
            return;
        }
        match &mut self.tunnel {
            Some(tunnel) if self.reachable && !self.gone => {
                if tunnel.ring() {
                    self.bell = Some(now.after(self.terms.config.limits.bell_timeout.get()));
                    worker.metrics.add(Metric::Bells, 1);
                }
            }
            Some(_) => {}
            None => self.beat(now, last, worker),
        }
    }

    /// Asks a server that has been silent for so long for a sign of life.
    pub fn beat_when_due(&mut self, now: Moment, last: Option<Moment>, worker: &mut Worker) {
        if self.next_beat().is_some_and(|at| at <= now) {
            self.beat(now, last, worker);
        }
    }

    /// Asks the server for a sign of life, unless that is under way.
    fn beat(&mut self, now: Moment, last: Option<Moment>, worker: &mut Worker) {
        let can_speak = self.reachable && !self.gone && self.login.is_done();
        let pending = if self.tunnel.is_some() { self.pulse } else { self.bell };
        if pending.is_some() || !can_speak {
            return;
        }
        let terms = Rc::clone(&self.terms);
        let Some(frame) = Self::config(&terms).and_then(|server| server.heartbeat.as_ref()) else {
            return;
        };
        // A server that answers in order answers behind what it has been asked before.
        let first = if self.pending.is_ordered() { last } else { None };
        let from = first.map_or(now, |last| last.max(now));
        let by = Some(from.after(terms.config.limits.bell_timeout.get()));
        if self.tunnel.is_some() {
            self.pulse = by;
        } else {
            self.bell = by;
            worker.metrics.add(Metric::Bells, 1);
        }
        self.send_own(frame, Some(Who::Bell));
    }

    /// The bell, or what tells of the server alone, was answered.
    pub(super) fn beat_answered(&mut self, worker: &mut Worker) {
        if self.tunnel.is_some() {
            self.pulse = None;
        } else {
            self.bell = None;
        }
        worker.metrics.add(Metric::Heartbeats, 1);
    }

    /// When the server has been silent for so long that it is asked.
    pub(super) fn next_beat(&self) -> Option<Moment> {
        let interval = Self::config(&self.terms)?.heartbeat_interval?;
        let idle = self.bell.is_none() && self.pulse.is_none() && self.reachable;
        (idle && !self.gone && self.login.is_done()).then(|| self.heard_at.after(interval))
    }
}
