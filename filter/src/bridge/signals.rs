//! Frames that end here: heartbeats, which are answered, cancels, which end a call, and goodbyes,
//! which end a session.

use crate::call::{Code, Status};
use crate::metrics::Metric;
use crate::protocol::layout::{Command, Frame, FrameError, Reply};
use crate::time::Moment;
use crate::worker::Worker;

use super::forward::Refused;
use super::{Bridge, Terms};

impl Bridge {
    /// Answers a heartbeat with its own body.
    pub(super) fn heartbeat(
        &mut self,
        terms: &Terms,
        frame: &Frame<'_>,
        answered: bool,
        worker: &mut Worker,
    ) -> Result<(), Refused> {
        self.session.pass(&terms.signals).map_err(|denied| (denied.status(), "denied"))?;
        worker.metrics.add(Metric::Heartbeats, 1);
        if !answered {
            return Ok(());
        }
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let layout = &terms.config.layout;
        let max = terms.config.limits.max_frame.get();
        let opened = layout.open_body(frame.flags, frame.body, max, &mut plain);
        let outcome = opened.map_err(|error: FrameError| {
            (Status::new(Code::InvalidArgument, error.to_string()), error.reason())
        });
        let outcome = outcome.map(|body| {
            let turn = self.next_turn();
            let reply = Reply { status: 0, error: false, body: &[body], compress: false };
            self.answer(turn, &layout.seed(frame), reply, worker);
        });
        worker.scratch.plain = plain;
        outcome
    }

    /// Whether somebody who has logged in says goodbye.
    pub(super) fn is_logout(&self, terms: &Terms, command: Command<'_>) -> bool {
        let goodbye = terms.config.session.goodbye.as_ref();
        self.tally.session.is_some() && goodbye.is_some_and(|goodbye| goodbye.borrow() == command)
    }

    /// The client goes and will not come back: its calls are given up, it gets its reply, and the
    /// session ends with the connection.
    pub(super) fn log_out(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        answered: bool,
        worker: &mut Worker,
    ) {
        self.tally.end("logout");
        for token in self.calls.all() {
            let status = Status::new(Code::Cancelled, "the client logged out");
            self.fail_call(now, token, status, worker);
        }
        if answered {
            let turn = self.next_turn();
            let reply = Reply { status: 0, error: false, body: &[], compress: false };
            self.answer(turn, &terms.config.layout.seed(frame), reply, worker);
        }
        worker.link.log_out(self.id);
        self.session_over(worker);
        self.close_after_last_word(now);
    }

    /// Gives up the call with this sequence. There may be none any more: its reply and the cancel
    /// have crossed.
    pub(super) fn cancel(&mut self, now: Moment, sequence: u64, worker: &mut Worker) {
        if let Some(token) = self.calls.find(sequence) {
            let status = Status::new(Code::Cancelled, "the client gave it up");
            self.fail_call(now, token, status, worker);
        }
    }
}
