//! How a connection is ended from this side.

use std::rc::Rc;

use crate::bridge::Closing;
use crate::call::Code;
use crate::protocol::grpc::reason::ErrorCode;
use crate::time::Moment;
use crate::worker::Worker;

use super::Egress;

impl Egress {
    /// Ends the connection because of the server. Calls that it certainly did not carry out, and
    /// those that may be carried out twice, are refused so that they may be tried elsewhere; the
    /// others fail with UNAVAILABLE.
    pub(super) fn leave(
        &mut self,
        now: Moment,
        reason: &'static str,
        text: &str,
        worker: &mut Worker,
    ) {
        if self.closing.is_some() {
            return;
        }
        if self.server.is_tunnelled() && !self.server.is_gone() {
            self.fail_all(now, true, text, worker);
            return self.server.drop_server();
        }
        self.tally.end(reason);
        self.fail_all(now, true, text, worker);
        self.leg.go_away(ErrorCode::NoError, text);
        self.close_after_last_word(now);
    }

    /// Ends every call because of the server, which may have carried out what it was `asked`.
    pub(super) fn fail_all(&mut self, now: Moment, asked: bool, text: &str, worker: &mut Worker) {
        let terms = Rc::clone(&self.terms);
        for token in self.calls.all() {
            let Some(call) = self.calls.get_mut(token) else { continue };
            let route = terms.config.routes.route(call.route);
            let unasked = call.sequence.is_none() || !asked;
            let again = unasked || route.is_some_and(|route| route.idempotent);
            let again = again && !call.streams;
            if again {
                self.refuse(now, token, worker);
            } else {
                self.fail(now, token, Code::Unavailable, text, worker);
            }
        }
        self.waiting.clear();
    }

    /// Ends the connection after what already waits for the caller.
    pub(super) fn close_after_last_word(&mut self, now: Moment) {
        let until = now.after(self.terms.config.limits.bell_timeout.get());
        self.closing = Some(if self.leg.output().is_empty() {
            Closing::Now
        } else {
            Closing::Speaking { until }
        });
    }

    /// Ends the connection without a word, because nothing can be said any more.
    pub(super) fn close_silently(&mut self, reason: &'static str) {
        self.tally.end(reason);
        self.leg.output().clear();
        self.closing = Some(Closing::Now);
    }
}
