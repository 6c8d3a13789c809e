//! From the server's frames to answers.

use std::rc::Rc;

use crate::call::Code;
use crate::initiator::{Arrived, Event};
use crate::metrics::Labelled;
use crate::protocol::layout::{Frame, FrameError};
use crate::route::{Codec, Route};
use crate::time::Moment;
use crate::transcode::wrapped;
use crate::worker::Worker;

use super::{Egress, Terms};

impl Egress {
    /// Reads what came from upstream.
    pub(super) fn read_upstream(&mut self, now: Moment, data: &[u8], worker: &mut Worker) {
        let mut upstream = data;
        while let Some(arrived) = self.server.arrive(now, &mut upstream, worker) {
            match arrived {
                Arrived::Bytes(bytes) => self.read_server(now, &bytes, worker),
                Arrived::Ended { connected } => {
                    self.fail_all(now, connected, "the server closed the connection", worker);
                }
                Arrived::Gone { reason } => {
                    self.leave(now, reason, "the way to the server is closed", worker);
                }
            }
        }
    }

    fn read_server(&mut self, now: Moment, bytes: &[u8], worker: &mut Worker) {
        let terms = Rc::clone(&self.terms);
        let mut input = bytes;
        while self.closing.is_none()
            && let Some(event) = self.server.poll(now, &mut input, worker)
        {
            match event {
                Event::Reply { token, frame, fits } => {
                    self.reply(now, &terms, token, &frame, fits, worker);
                }
                Event::Unasked { frame, call, kind } => {
                    let push = frame.flags.push();
                    if !push || !self.push(now, &terms, &frame, call, worker) {
                        worker.metrics.count(Labelled::UpstreamErrors, kind);
                    }
                }
                Event::LoggedIn => {}
                Event::LoginRefused => {
                    let text = "the server refused the login";
                    self.leave(now, "server_refused_login", text, worker);
                }
                Event::Broken { reason } => {
                    let text = "the server's answer cannot be understood";
                    self.leave(now, reason, text, worker);
                }
            }
        }
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
            self.server.abandon(now, sequence);
        }
        self.account(now, &call, Code::Ok, worker);
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
