//! From the server's frames to answers.

use std::rc::Rc;

use crate::call::Code;
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{Decoded, Frame, FrameError};
use crate::route::{Codec, Route};
use crate::time::Moment;
use crate::transcode::wrapped;
use crate::worker::Worker;

use super::bell::Login;
use super::pending::Who;
use super::{Egress, Terms};

impl Egress {
    /// Reads what the server sent.
    pub(super) fn read_server(&mut self, now: Moment, data: &[u8], worker: &mut Worker) {
        if self.closing.is_some() || self.drops_server {
            return;
        }
        if self.partial.is_empty() {
            let taken = self.read_frames(now, data, worker);
            self.partial.extend_from_slice(data.get(taken..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut self.partial);
            input.extend_from_slice(data);
            let taken = self.read_frames(now, &input, worker);
            input.drain(..taken.min(input.len()));
            self.partial = input;
        }
        if self.closing.is_some() || self.drops_server || self.partial.is_empty() {
            self.partial = Vec::new();
            self.partial_since = None;
        } else {
            self.partial_since.get_or_insert(now);
        }
    }

    /// The frames of `input`, one after another. Returns how many bytes they were.
    fn read_frames(&mut self, now: Moment, input: &[u8], worker: &mut Worker) -> usize {
        let terms = Rc::clone(&self.terms);
        let max_frame = terms.config.limits.max_response.get();
        let mut at = 0usize;
        while let Some(left) = input.get(at..).filter(|left| !left.is_empty()) {
            if self.closing.is_some() || self.drops_server {
                return input.len();
            }
            match terms.config.layout.decode(left, max_frame) {
                Ok(Decoded::Frame(frame)) => {
                    worker.metrics.add(Metric::FramesIn, 1);
                    worker.metrics.add(Metric::BytesIn, frame.raw.len() as i64);
                    self.tally.frames_in = self.tally.frames_in.saturating_add(1);
                    self.tally.bytes_in =
                        self.tally.bytes_in.saturating_add(frame.raw.len() as u64);
                    self.partial_since = None;
                    self.frame(now, &terms, &frame, worker);
                    at = at.saturating_add(frame.raw.len());
                }
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => {
                    worker.metrics.count(Labelled::UpstreamErrors, error.reason());
                    log::warn!("meshgate: the private server cannot be understood: {error}");
                    let text = "the server's answer cannot be understood";
                    self.leave(now, error.reason(), text, worker);
                    return input.len();
                }
            }
        }
        at
    }

    fn frame(&mut self, now: Moment, terms: &Terms, frame: &Frame<'_>, worker: &mut Worker) {
        let layout = &terms.config.layout;
        let is_reply = !frame.flags.push()
            && (frame.flags.reply() || !layout.expresses().reply())
            && !frame.flags.sealed();
        let sequence =
            if self.pending.is_ordered() { self.pending.oldest() } else { Some(frame.sequence) };
        let found = sequence.and_then(|sequence| Some((sequence, self.pending.find(sequence)?)));
        if frame.flags.push() && self.push(now, terms, frame, worker) {
            return;
        }
        let Some((sequence, who)) = found.filter(|_| is_reply) else {
            let kind = if is_reply { "unknown_sequence" } else { "unsolicited" };
            worker.metrics.count(Labelled::UpstreamErrors, kind);
            return;
        };
        if self.pending.is_ordered() && !self.is_answer(terms, who, frame) {
            // Without a sequence it cannot be the reply to anything else.
            worker.metrics.count(Labelled::UpstreamErrors, "unsolicited");
            return;
        }
        match who {
            Who::Call(token) => {
                let matches = self.is_answer(terms, who, frame);
                self.pending.remove(sequence);
                self.reply(now, terms, token, frame, matches, worker);
            }
            Who::Nobody { .. } => {
                self.pending.remove(sequence);
                worker.metrics.count(Labelled::UpstreamErrors, "late_reply");
            }
            Who::Bell => {
                self.pending.remove(sequence);
                if self.tunnelled() {
                    self.pulse = None;
                } else {
                    self.bell = None;
                }
                worker.metrics.add(Metric::Heartbeats, 1);
            }
            Who::Login => {
                self.pending.remove(sequence);
                self.logged_in(now, terms, frame, worker);
            }
        }
    }

    /// Whether the frame has the command of a reply to what was asked. A late reply's is not
    /// looked at.
    fn is_answer(&mut self, terms: &Terms, who: Who, frame: &Frame<'_>) -> bool {
        let egress = Self::config(terms);
        let request = match who {
            Who::Call(token) => {
                let route = self.calls.get_mut(token).map(|call| call.route);
                let route = route.and_then(|route| terms.config.routes.route(route));
                route.and_then(|route| route.command.as_ref())
            }
            Who::Bell => egress.and_then(|egress| Some(&egress.heartbeat.as_ref()?.command)),
            Who::Login => egress.and_then(|egress| Some(&egress.login.as_ref()?.command)),
            Who::Nobody { .. } => return true,
        };
        request.is_some_and(|command| terms.config.layout.answers(frame.command, command.borrow()))
    }

    /// The reply to a call.
    fn reply(
        &mut self,
        now: Moment,
        terms: &Terms,
        token: u32,
        frame: &Frame<'_>,
        matches: bool,
        worker: &mut Worker,
    ) {
        let Some(call) = self.calls.get_mut(token) else { return };
        let call_streams = call.streams;
        let Some(route) = terms.config.routes.route(call.route) else { return };
        if !matches {
            worker.metrics.count(Labelled::UpstreamErrors, "wrong_command");
            let text = "the server answered another command";
            return self.fail(now, token, Code::Internal, text, worker);
        }
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        match open(terms, frame, &mut plain) {
            Ok((0, false, _)) if call_streams => self.end_stream(now, token, worker),
            Ok((0, false, body)) => self.succeed_with(now, token, route, body, worker),
            Ok((status, _, body)) => {
                let code = match terms.config.statuses.code(status) {
                    Code::Ok => Code::Unknown,
                    code => code,
                };
                let text = if terms.config.statuses.error_text && !body.is_empty() {
                    String::from_utf8_lossy(body).into_owned()
                } else {
                    format!("the server answered with status {status}")
                };
                self.fail(now, token, code, &text, worker);
            }
            Err(error) => {
                worker.metrics.count(Labelled::UpstreamErrors, error.reason());
                let text = "the server's answer cannot be understood";
                self.fail(now, token, Code::Internal, text, worker);
            }
        }
        worker.scratch.plain = plain;
    }

    fn succeed_with(
        &mut self,
        now: Moment,
        token: u32,
        route: &Route,
        body: &[u8],
        worker: &mut Worker,
    ) {
        match route.codec {
            Codec::Protobuf => self.succeed(now, token, &[body], worker),
            Codec::Bytes => {
                let mut prefix = Vec::with_capacity(11);
                wrapped::prefix(body.len(), &mut prefix);
                self.succeed(now, token, &[&prefix, body], worker);
            }
        }
    }

    /// Answers a call with its message.
    pub(super) fn succeed(
        &mut self,
        now: Moment,
        token: u32,
        message: &[&[u8]],
        worker: &mut Worker,
    ) {
        let Some(call) = self.calls.remove(token) else { return };
        self.leg.respond(call.stream, message);
        if let Some(sequence) = call.sequence {
            // A one-way call whose reply nobody waits for.
            let late = Self::config(&self.terms).map(|egress| egress.late_reply_timeout);
            self.pending.abandon(sequence, now.after(late.unwrap_or_default()));
        }
        self.account(now, &call, Code::Ok, worker);
    }

    fn logged_in(&mut self, now: Moment, terms: &Terms, frame: &Frame<'_>, worker: &mut Worker) {
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let status = open(terms, frame, &mut plain).map(|(status, error, _)| (status, error));
        worker.scratch.plain = plain;
        self.login = Login::Done;
        if !matches!(status, Ok((0, false))) {
            worker.metrics.count(Labelled::Logins, "server_refused");
            log::warn!("meshgate: the private server refused the login: {status:?}");
            let text = "the server refused the login";
            self.leave(now, "server_refused_login", text, worker);
        }
    }
}

/// Status, error flag and body of a reply.
fn open<'a>(
    terms: &Terms,
    frame: &Frame<'a>,
    plain: &'a mut Vec<u8>,
) -> Result<(i64, bool, &'a [u8]), FrameError> {
    let layout = &terms.config.layout;
    let max = terms.config.limits.max_response.get();
    let body = layout.open_body(frame.flags, frame.body, max, plain)?;
    let (status, body) = layout.split_status(frame, body)?;
    // The number for OK is the table's.
    let status = if terms.config.statuses.code(status) == Code::Ok { 0 } else { status };
    Ok((status, frame.flags.error(), body))
}
