//! What a private server says, on its way to the client; and when it does not.

use std::rc::Rc;

use crate::call::{Code, Status};
use crate::initiator::{Arrived, Event, Overdue};
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{Frame, FrameError, FrameSeal, Onward, Push};
use crate::relay;
use crate::time::Moment;
use crate::worker::Worker;

use super::calls::Call;
use super::{Bridge, Terms, Upstream};

impl Bridge {
    /// Reads what came from upstream.
    pub(super) fn read_relayed(&mut self, now: Moment, data: &[u8], worker: &mut Worker) {
        let mut upstream = data;
        while self.closing.is_none()
            && let Some(relay) = self.leg.relay()
            && let Some(arrived) = relay.server.arrive(now, &mut upstream, worker)
        {
            match arrived {
                Arrived::Bytes(bytes) => self.read_server(now, &bytes, worker),
                Arrived::Ended { .. } => {
                    self.end_all(now, "the server closed the connection", worker);
                }
                Arrived::Gone { reason } => {
                    let text = "the way to the server is closed";
                    self.leave(now, reason, Status::new(Code::Unavailable, text), worker);
                }
            }
        }
    }

    fn read_server(&mut self, now: Moment, bytes: &[u8], worker: &mut Worker) {
        let terms = Rc::clone(&self.terms);
        let mut input = bytes;
        while self.closing.is_none()
            && let Some(relay) = self.leg.relay()
            && let Some(event) = relay.server.poll(now, &mut input, worker)
        {
            match event {
                Event::Reply { token, frame, fits: true } => {
                    self.relay_reply(now, &terms, token, &frame, worker);
                }
                Event::Reply { token, fits: false, .. } => {
                    worker.metrics.count(Labelled::UpstreamErrors, "wrong_command");
                    let text = "the server answered another command";
                    self.end_call(now, token, Status::new(Code::Internal, text), worker);
                }
                Event::Unasked { frame, call, kind } => {
                    if !self.relay_push(now, &terms, &frame, call, worker) {
                        worker.metrics.count(Labelled::UpstreamErrors, kind);
                    }
                }
                Event::LoggedIn => {}
                Event::LoginRefused => {
                    self.lose_server(now, "server_refused_login", "the server refused", worker);
                }
                Event::Broken { reason } => {
                    let text = "the server's answer cannot be understood";
                    self.lose_server(now, reason, text, worker);
                }
            }
        }
    }

    fn relay_reply(
        &mut self,
        now: Moment,
        terms: &Terms,
        token: u32,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) {
        let Some(call) = self.calls.remove(token) else { return };
        let in_turn = self.order.as_ref().is_none_or(|order| order.is_next(call.sequence));
        let code = if relay::is_verbatim(terms) && in_turn {
            self.pass_reply(terms, &call, frame, worker)
        } else {
            self.translate_reply(terms, &call, frame, worker)
        };
        self.account(now, &call, code, worker);
    }

    /// The reply goes on as it is, but for its sequence.
    fn pass_reply(
        &mut self,
        terms: &Terms,
        call: &Call,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) -> Code {
        let layout = &terms.config.layout;
        // Compressed with the body it is not looked for.
        let status = if frame.flags.compressed() {
            frame.status
        } else {
            layout.split_status(frame, frame.body).map_or(0, |(status, _)| status)
        };
        let Some(seed) = &call.seed else { return code(terms, status, frame) };
        let onward = Onward {
            sequence: seed.sequence(),
            body: frame.body,
            one_way: false,
            stamps: relay::blank(terms),
        };
        let seal = self.session.sealer().map(|sealer| sealer as &mut dyn FrameSeal);
        match layout.encode_onward(frame, onward, seal, &mut self.to_client) {
            Ok(()) => {
                worker.metrics.add(Metric::FramesOut, 1);
                self.turn_over(worker);
                code(terms, status, frame)
            }
            Err(error) => {
                log::warn!("meshgate: a reply cannot be passed on: {error}");
                self.unreadable(call, "reply_not_encodable", worker)
            }
        }
    }

    fn translate_reply(
        &mut self,
        terms: &Terms,
        call: &Call,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) -> Code {
        let layout = terms.config.server_layout();
        let max = terms.config.limits.max_response.get();
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let opened = layout.open_body(frame.flags, frame.body, max, &mut plain);
        let opened = opened.and_then(|body| layout.split_status(frame, body));
        let code = match opened {
            Ok((status, body)) => {
                self.reply(call, status, frame.flags.error(), body, worker);
                code(terms, status, frame)
            }
            Err(error) => self.unreadable(call, error.reason(), worker),
        };
        worker.scratch.plain = plain;
        code
    }

    fn unreadable(&mut self, call: &Call, kind: &'static str, worker: &mut Worker) -> Code {
        worker.metrics.count(Labelled::UpstreamErrors, kind);
        let text = "the server's answer cannot be understood";
        self.reply_status(call, &Status::new(Code::Internal, text), worker);
        Code::Internal
    }

    /// Passes on what the server sends unasked, if the table or the configuration lets it. False
    /// if not.
    fn relay_push(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        call: Option<u32>,
        worker: &mut Worker,
    ) -> bool {
        let config = &terms.config;
        if let Some(token) = call
            && let Some(call) = self.calls.get_mut(token).filter(|call| call.pushes)
            && let Some(route) = config.routes.route(call.route)
            && route.push.as_ref().is_some_and(|push| push.borrow() == frame.command)
        {
            call.touched = now;
            let sequence = call.sequence;
            let written = self.pass_push(terms, frame, sequence, route.compress_reply, worker);
            self.pushed(now, token, written, worker);
            return true;
        }
        let pushes = relay::config(terms).and_then(|relay| relay.pushes.as_ref());
        let expressed = config.server_layout().expresses().push();
        let allowed = pushes.is_some_and(|pushes| pushes.allows(frame.command));
        if !allowed || expressed != frame.flags.push() || !self.session.is_established() {
            return false;
        }
        let compress = pushes.is_some_and(|pushes| pushes.compress);
        match self.pass_push(terms, frame, frame.sequence, compress, worker) {
            Ok(()) => self.count_push(worker),
            Err(_) => worker.metrics.count(Labelled::UpstreamErrors, "push_not_encodable"),
        }
        true
    }

    fn pass_push(
        &mut self,
        terms: &Terms,
        frame: &Frame<'_>,
        sequence: u64,
        compress: bool,
        worker: &mut Worker,
    ) -> Result<(), &'static str> {
        let config = &terms.config;
        let seal = self.session.sealer().map(|sealer| sealer as &mut dyn FrameSeal);
        if relay::is_verbatim(terms) {
            let stamps = relay::blank(terms);
            let onward = Onward { sequence, body: frame.body, one_way: false, stamps };
            let written = config.layout.encode_onward(frame, onward, seal, &mut self.to_client);
            return written.map_err(|_| "the server's message does not fit into a frame");
        }
        let max = config.limits.max_response.get();
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let layout = config.server_layout();
        let opened = layout.open_body(frame.flags, frame.body, max, &mut plain);
        let written = opened.map_err(|_: FrameError| "the server's message cannot be read");
        let written = written.and_then(|body| {
            let push = Push {
                command: frame.command,
                sequence,
                status: frame.status,
                error: frame.flags.error(),
                body: &[body],
                compress,
            };
            let written = config.layout.encode_push(push, seal, &mut self.to_client);
            written.map_err(|_| "the server's message does not fit into a frame")
        });
        worker.scratch.plain = plain;
        written
    }

    /// A request that the server does not reply to is done when it is sent.
    pub(super) fn sent_one_way(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        if let Some(call) = self.calls.remove(token) {
            self.account(now, &call, Code::Ok, worker);
        }
    }

    /// Ends every call because of the server, which may have carried them out.
    fn end_all(&mut self, now: Moment, text: &'static str, worker: &mut Worker) {
        for token in self.calls.all() {
            self.end_call(now, token, Status::new(Code::Unavailable, text), worker);
        }
    }

    /// The server is not what it should be. Where there is a tunnel, another connection may do
    /// better; without one it is the client's connection that ends.
    fn lose_server(
        &mut self,
        now: Moment,
        reason: &'static str,
        text: &'static str,
        worker: &mut Worker,
    ) {
        match self.leg.relay() {
            Some(relay) if relay.server.is_tunnelled() && !relay.server.is_gone() => {
                relay.server.drop_server();
                self.end_all(now, text, worker);
            }
            _ => self.leave(now, reason, Status::new(Code::Unavailable, text), worker),
        }
    }

    /// What has to go to the server, or come from it, by now.
    pub(super) fn look_after_server(&mut self, now: Moment, worker: &mut Worker) {
        let last = self.calls.last_deadline();
        let Some(relay) = self.leg.relay() else { return };
        match relay.server.overdue(now, worker) {
            Some(Overdue::Bell(reason)) => self.close_silently(reason),
            Some(Overdue::Server(reason, text)) => self.lose_server(now, reason, text, worker),
            None if self.closing.is_none() => relay.server.beat_when_due(now, last, worker),
            None => {}
        }
    }

    /// The server can be reached, and is logged in to if anybody needs it.
    pub(super) fn reach_server(&mut self, now: Moment) {
        let (open, stays) = (self.upstream == Upstream::Open, self.closing.is_none());
        if let Some(relay) = self.leg.relay().filter(|_| open && self.heard) {
            relay.server.reached();
            if stays {
                relay.server.log_in(now, false);
            }
        }
    }
}

/// What the server's status is called.
fn code(terms: &Terms, status: i64, frame: &Frame<'_>) -> Code {
    match terms.config.statuses.code(status) {
        Code::Ok if frame.flags.error() => Code::Unknown,
        code => code,
    }
}
