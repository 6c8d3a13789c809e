//! To the client: replies of the service, refusals, and what the companion decided.

use std::rc::Rc;

use crate::call::{Code, Status};
use crate::metrics::{Labelled, Metric};
use crate::protocol::grpc::client::Event;
use crate::protocol::layout::{FrameSeal, Reply, ReplySeed};
use crate::route::Codec;
use crate::session::{Accepted, Refusal};
use crate::time::Moment;
use crate::transcode::wrapped;
use crate::worker::Worker;

use super::calls::Call;
use super::closing::LastWord;
use super::order::Held;
use super::streams::write_message;
use super::{Bridge, Upstream};

impl Bridge {
    /// Turns what the service sent into replies.
    pub(super) fn read_events(&mut self, now: Moment, data: &[u8], worker: &mut Worker) {
        if self.leg.relay().is_some() {
            return self.read_relayed(now, data, worker);
        }
        let terms = Rc::clone(&self.terms);
        let mut input = data;
        loop {
            let is_parting = self.is_parting();
            match self.leg.poll(&mut input) {
                Ok(Some(Event::Message { token, message, .. })) => {
                    let Some(call) = self.calls.get_mut(token) else { continue };
                    if call.pushes {
                        call.touched = now;
                        let Some(route) = terms.config.routes.route(call.route) else { continue };
                        let (sequence, out) = (call.sequence, &mut self.to_client);
                        let session = &mut self.session;
                        let written = write_message(&terms, route, sequence, message, session, out);
                        self.pushed(now, token, written, worker);
                    } else if call.message.is_some() {
                        let status =
                            Status::new(Code::Internal, "the service sent two replies to one call");
                        worker.metrics.count(Labelled::UpstreamErrors, "second_message");
                        self.fail_call(now, token, status, worker);
                    } else {
                        call.message = Some(worker.scratch.message(message));
                    }
                }
                Ok(Some(Event::End { token, code: Code::Ok, .. })) => {
                    self.succeed_call(now, token, worker)
                }
                Ok(Some(Event::End { token, processed: false, .. })) if is_parting => {
                    self.forgo_call(now, token, worker);
                }
                Ok(Some(Event::End { token, code, message, .. })) => {
                    let status = Status::new(code, message);
                    self.end_call(now, token, status, worker);
                }
                Ok(Some(Event::BellAnswered)) => self.bell.answered(),
                Ok(Some(Event::GoingAway)) => {
                    worker.metrics.count(Labelled::UpstreamErrors, "goaway");
                    self.service_leaves(now, worker);
                }
                Ok(None) => break,
                Err(error) => {
                    worker.metrics.count(Labelled::UpstreamErrors, "http2");
                    log::warn!("meshgate: the service broke HTTP/2: {error}");
                    let status = Status::new(Code::Unavailable, "the service cannot be understood");
                    self.leave(now, "upstream_protocol_error", status, worker);
                    break;
                }
            }
        }
    }

    fn succeed_call(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        let Some(mut call) = self.calls.remove(token) else { return };
        let terms = Rc::clone(&self.terms);
        let message = call.message.take();
        let codec = terms.config.routes.route(call.route).map(|route| route.codec);
        let body = match (&message, codec) {
            (Some(message), Some(Codec::Bytes)) => wrapped::unwrap(message),
            (Some(message), _) => Some(&message[..]),
            (None, _) if call.pushes => Some(&[][..]),
            (None, _) => None,
        };
        let code = match body {
            Some(body) => {
                self.reply(&call, 0, false, body, worker);
                Code::Ok
            }
            None => {
                worker.metrics.count(Labelled::UpstreamErrors, "no_message");
                let status =
                    Status::new(Code::Internal, "the service's reply has no message that fits");
                self.reply_status(&call, &status, worker);
                Code::Internal
            }
        };
        if let Some(message) = message {
            worker.scratch.recycle(message);
        }
        self.account(now, &call, code, worker);
    }

    pub(super) fn end_call(
        &mut self,
        now: Moment,
        token: u32,
        status: Status,
        worker: &mut Worker,
    ) {
        let Some(call) = self.calls.remove(token) else { return };
        let status = if status.code == Code::Cancelled
            && call.deadline.is_some_and(|deadline| deadline <= now)
        {
            // Some servers keep `grpc-timeout` themselves and call what is late cancelled.
            too_late()
        } else {
            status
        };
        self.reply_status(&call, &status, worker);
        self.account(now, &call, status.code, worker);
    }

    /// Ends a call that the service has not ended.
    pub(super) fn fail_call(
        &mut self,
        now: Moment,
        token: u32,
        status: Status,
        worker: &mut Worker,
    ) {
        if let Some(call) = self.calls.get_mut(token) {
            self.leg.cancel(call.stream, now);
            self.end_call(now, token, status, worker);
        }
    }

    /// Ends a call whose client is gone.
    pub(super) fn drop_call(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        if let Some(call) = self.calls.remove(token) {
            self.account(now, &call, Code::Cancelled, worker);
        }
    }

    pub(super) fn fail_overdue(&mut self, now: Moment, worker: &mut Worker) {
        for token in self.calls.overdue(now) {
            self.fail_call(now, token, too_late(), worker);
        }
        self.call_deadline = self.calls.next_deadline();
    }

    pub(super) fn account(&mut self, now: Moment, call: &Call, code: Code, worker: &mut Worker) {
        if self.calls.is_empty() {
            self.call_deadline = None;
        }
        if code != Code::Ok {
            self.tally.errors = self.tally.errors.saturating_add(1);
        }
        worker.metrics.add(Metric::CallsInFlight, -1);
        let Some(route) = self.terms.config.routes.route(call.route) else { return };
        let took = now.micros_since(call.started);
        worker.metrics.call_ended(route.index, &route.name, code, took);
        if self.terms.config.log.calls {
            log::info!(
                "meshgate: call command={} method={} sequence={} code={code} duration_us={} peer={}",
                route.name,
                route.method,
                call.sequence,
                took,
                self.peer
            );
        }
    }

    pub(super) fn reply_status(&mut self, call: &Call, status: &Status, worker: &mut Worker) {
        let private = self.terms.config.statuses.private(status.code);
        let text =
            if self.terms.config.statuses.error_text { status.message.as_bytes() } else { &[] };
        self.reply(call, private, true, text, worker);
    }

    pub(super) fn reply(
        &mut self,
        call: &Call,
        status: i64,
        error: bool,
        body: &[u8],
        worker: &mut Worker,
    ) {
        let Some(seed) = &call.seed else { return };
        let compress =
            self.terms.config.routes.route(call.route).is_some_and(|route| route.compress_reply);
        self.answer(call.sequence, seed, Reply { status, error, body: &[body], compress }, worker);
    }

    /// Where the reply to the next request stands, for those without sequences.
    pub(super) fn next_turn(&mut self) -> u64 {
        self.order.as_mut().map_or(0, |order| order.take())
    }

    /// Writes a reply, or keeps it until those of earlier requests have left if that is what the
    /// client tells them apart by.
    pub(super) fn answer(
        &mut self,
        turn: u64,
        seed: &ReplySeed,
        reply: Reply<'_>,
        worker: &mut Worker,
    ) {
        let Some(order) = &mut self.order else { return self.write_reply(seed, reply, worker) };
        if !order.is_next(turn) {
            if !order.hold(turn, seed, reply) {
                worker.metrics.count(Labelled::LimitsHit, "held_replies");
                let status = self.terms.config.statuses.private(Code::ResourceExhausted);
                let instead = Reply { status, error: true, body: &[], compress: false };
                let _ = order.hold(turn, seed, instead);
            }
            return;
        }
        self.write_reply(seed, reply, worker);
        self.turn_over(worker);
    }

    /// The oldest turn's reply is written: those behind it may be there already.
    pub(super) fn turn_over(&mut self, worker: &mut Worker) {
        if let Some(order) = &mut self.order {
            order.advance();
        }
        while let Some(held) = self.order.as_mut().and_then(|order| order.release()) {
            let Held { seed, status, error, body, compress } = held;
            self.write_reply(&seed, Reply { status, error, body: &[&body], compress }, worker);
        }
    }

    fn write_reply(&mut self, seed: &ReplySeed, reply: Reply<'_>, worker: &mut Worker) {
        self.write_pushes(worker);
        let layout = &self.terms.config.layout;
        let seal = self.session.sealer().map(|sealer| sealer as &mut dyn FrameSeal);
        let mut written = layout.encode_reply(seed, reply, seal, &mut self.to_client);
        if let Err(error) = &written {
            log::warn!("meshgate: a reply cannot be written: {error}");
            worker.metrics.count(Labelled::UpstreamErrors, "reply_not_encodable");
            let status = self.terms.config.statuses.private(Code::Internal);
            let instead = Reply { status, error: true, body: &[], compress: false };
            let seal = self.session.sealer().map(|sealer| sealer as &mut dyn FrameSeal);
            written = layout.encode_reply(seed, instead, seal, &mut self.to_client);
        }
        if written.is_ok() {
            worker.metrics.add(Metric::FramesOut, 1);
        }
    }

    /// Answers a frame that will not be forwarded.
    pub(super) fn refuse(
        &mut self,
        now: Moment,
        seed: &ReplySeed,
        status: &Status,
        kind: &'static str,
        worker: &mut Worker,
    ) {
        if !self.refuse_quietly(now, status.code, kind, worker) {
            return;
        }
        let private = self.terms.config.statuses.private(status.code);
        let text =
            if self.terms.config.statuses.error_text { status.message.as_bytes() } else { &[] };
        let turn = self.next_turn();
        let reply = Reply { status: private, error: true, body: &[text], compress: false };
        self.answer(turn, seed, reply, worker);
        if self.upstream == Upstream::Unopened {
            // To be heard it needs an upstream, which cannot be the service's; and tcp_proxy
            // chooses only once, so that a login could not lead to the service any more.
            self.tally.end(kind);
            self.session_over(worker);
            self.close_after_last_word(now);
        }
    }

    /// Counts a refusal; false if there were too many, and the connection ends without a word.
    /// UNAVAILABLE is the service's fault: a client that tries again at once may have to hear it
    /// often before the calls in flight are through and the connection can end.
    pub(super) fn refuse_quietly(
        &mut self,
        now: Moment,
        code: Code,
        kind: &'static str,
        worker: &mut Worker,
    ) -> bool {
        self.tally.errors = self.tally.errors.saturating_add(1);
        if code == Code::Unavailable {
            worker.metrics.count(Labelled::UpstreamErrors, kind);
            return true;
        }
        worker.metrics.count(Labelled::PeerErrors, kind);
        let rate = self.terms.refusal_rate;
        if rate.is_some_and(|rate| !self.refusals.take(rate, now)) {
            worker.metrics.count(Labelled::LimitsHit, "refusals_per_second");
            self.session_over(worker);
            self.close_silently("too_many_refusals");
            return false;
        }
        true
    }
}

/// # Logins
impl Bridge {
    pub(super) fn login_accepted(&mut self, now: Moment, accepted: Accepted, worker: &mut Worker) {
        let terms = Rc::clone(&self.terms);
        let placed = terms.config.upstream.placed(&accepted.claims);
        let reply = match self.session.accepted(now, &terms.session, &self.peer, accepted) {
            Ok(reply) => reply,
            Err(error) => {
                log::warn!("meshgate: an accepted login cannot be used: {error}");
                return self.login_refused(now, Refusal::TryAgain, "", worker);
            }
        };
        worker.metrics.count(Labelled::Logins, "accepted");
        if let Some(seed) = self.login.take() {
            // The reply itself goes out as it is; the frames after it are sealed.
            let reply = Reply { status: 0, error: false, body: &[&reply], compress: false };
            if terms.config.layout.encode_reply(&seed, reply, None, &mut self.to_client).is_err() {
                worker.metrics.count(Labelled::UpstreamErrors, "reply_not_encodable");
            }
        }
        if self.session.is_established() {
            self.live(worker);
        }
        self.waiting = true;
        self.place = placed.and_then(|placed| {
            let counted = |_| worker.metrics.count(Labelled::UpstreamErrors, "place_not_a_name");
            placed.map_err(counted).ok()
        });
        let placed = self.place.clone();
        self.open_upstream(placed.as_deref().or(terms.config.upstream.cluster.as_deref()));
    }

    pub(super) fn login_refused(
        &mut self,
        now: Moment,
        refusal: Refusal,
        text: &str,
        worker: &mut Worker,
    ) {
        let (result, status) = (refusal.word(), refusal.status(text));
        worker.metrics.count(Labelled::Logins, result);
        if self.closing.is_some() {
            return;
        }
        self.tally.end(result);
        if let Some(seed) = self.login.take() {
            let private = self.terms.config.statuses.private(status.code);
            let text = status.message.as_bytes();
            self.write_reply(
                &seed,
                Reply { status: private, error: true, body: &[text], compress: false },
                worker,
            );
        }
        self.session_over(worker);
        self.close_after_last_word(now);
    }

    pub(super) fn kicked(&mut self, now: Moment, reason: String, code: u32, worker: &mut Worker) {
        log::debug!("meshgate: kicked peer={} code={code}", self.peer);
        // 0 is for none; and who cannot be told a number is told that of ABORTED.
        let number = Some(i64::from(code))
            .filter(|code| *code != 0 && self.terms.config.layout.fits_status(*code));
        let word = LastWord { number, ..LastWord::default() };
        self.leave_with(now, "kicked", Status::new(Code::Aborted, reason), word, worker);
    }

    /// The session is live: remembered for its end.
    pub(super) fn live(&mut self, worker: &mut Worker) {
        let identity = self.session.identity();
        if let Some(session) = identity.and_then(|identity| identity.session()) {
            self.tally.session = Some(session);
            self.tally.user = identity.and_then(|identity| identity.user()).map(str::to_owned);
            worker.metrics.add(Metric::Sessions, 1);
        }
    }

    /// The session has ended on this connection: nothing of the client's is heard any more.
    pub(super) fn session_over(&mut self, worker: &mut Worker) {
        self.session.end();
        self.parked = None;
        if self.tally.session.is_some() && !std::mem::replace(&mut self.tally.session_ended, true) {
            worker.metrics.add(Metric::Sessions, -1);
            worker.link.forget(self.id);
        }
    }
}

fn too_late() -> Status {
    Status::new(Code::DeadlineExceeded, "the service did not answer in time")
}
