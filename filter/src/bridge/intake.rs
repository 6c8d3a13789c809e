//! From the client: bytes to frames, frames to logins and requests.

use std::rc::Rc;

use crate::call::{Code, Status};
use crate::companion::LoginRequest;
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{Decoded, Frame, FrameError};
use crate::session::Refusal;
use crate::session::outcome::Opened;
use crate::time::Moment;
use crate::worker::Worker;

use super::{Bridge, Terms, Upstream};

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Dealt with: on to the next.
    Next,
    /// Not its turn yet: it stays where it is.
    Wait,
}

/// The first frame of a pending session, opened if it was sealed, to see whether it is genuine: it
/// waits for the companion's activation.
pub(super) struct Parked {
    raw: Vec<u8>,
    body: Vec<u8>,
}

/// How many of the client's bytes may be out of Envoy's buffer. They are there only from a write
/// upstream, which goes through that buffer, until the host's next callback puts them back, so
/// Envoy's own limit for the buffer (1 MiB unless the listener says otherwise) is what bounds
/// them. This one is above it: whoever gets here was read from without a limit.
const MAX_REST: usize = 4 * 1024 * 1024;

/// Bytes for the client that may wait for an answer of the bell. Above it the client is not read
/// from: refusals are longer than what they refuse.
const MAX_UNSAID: usize = 64 * 1024;

impl Bridge {
    /// Takes frames until one has to wait. Returns how many bytes of `data` were taken; of these,
    /// `rest` has to go back in their place.
    pub(super) fn take_in(&mut self, now: Moment, data: &[u8], worker: &mut Worker) -> usize {
        let taken = if self.rest.is_empty() {
            self.consume(now, data, worker)
        } else {
            let mut input = std::mem::take(&mut self.rest);
            input.extend_from_slice(data);
            let consumed = self.consume(now, &input, worker);
            if consumed < input.len() {
                input.drain(..consumed);
                self.rest = input;
            }
            data.len()
        };
        let leftover = !self.rest.is_empty() || taken < data.len();
        let partial = leftover && !self.waiting && !self.session.is_waiting();
        match (partial, self.partial_since) {
            (true, None) => self.partial_since = Some(now),
            (false, Some(_)) => self.partial_since = None,
            _ => {}
        }
        self.note_pause(worker);
        taken
    }

    /// Holds bytes that Envoy's buffer cannot hold while something goes upstream through it.
    pub(super) fn keep(&mut self, now: Moment, left: &[u8], worker: &mut Worker) {
        if self.closing.is_some() {
            return;
        }
        if self.rest.len().saturating_add(left.len()) > MAX_REST {
            worker.metrics.count(Labelled::LimitsHit, "held_bytes");
            let text = "too much was sent while the service had no room";
            self.leave(now, "held_bytes", Status::new(Code::ResourceExhausted, text), worker);
            return;
        }
        self.rest.extend_from_slice(left);
    }

    /// Counts the connections whose client is not read from, because the service has no room.
    fn note_pause(&mut self, worker: &mut Worker) {
        let paused = self.waiting && !self.has_room();
        if paused != self.paused {
            self.paused = paused;
            worker.metrics.add(Metric::ConnectionsPaused, if paused { 1 } else { -1 });
            worker.metrics.add(Metric::Pauses, i64::from(paused));
        }
    }

    /// The frames of `input`, one after another. Returns how many bytes they were.
    fn consume(&mut self, now: Moment, input: &[u8], worker: &mut Worker) -> usize {
        let terms = Rc::clone(&self.terms);
        let max_frame = terms.config.limits.max_frame.get();
        self.waiting = false;
        self.full_stream = None;
        let mut at = 0usize;
        while let Some(left) = input.get(at..).filter(|left| !left.is_empty()) {
            if self.closing.is_some() {
                // Nothing that comes now is heard; it must not pile up either.
                return input.len();
            }
            let frame = match terms.config.layout.decode(left, max_frame) {
                Ok(Decoded::Frame(frame)) => frame,
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => {
                    self.garbled(now, &error, worker);
                    return input.len();
                }
            };
            if self.frame(now, &terms, &frame, worker) == Step::Wait {
                self.waiting = true;
                break;
            }
            self.partial_since = None;
            worker.metrics.add(Metric::FramesIn, 1);
            worker.metrics.add(Metric::BytesIn, frame.raw.len() as i64);
            self.tally.frames_in = self.tally.frames_in.saturating_add(1);
            self.tally.bytes_in = self.tally.bytes_in.saturating_add(frame.raw.len() as u64);
            at = at.saturating_add(frame.raw.len());
        }
        at
    }

    fn frame(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) -> Step {
        let is_parting = self.is_parting() && !self.session.is_coming();
        if self.session.is_waiting() || is_parting || self.finds_its_stream_full(terms, frame) {
            return Step::Wait;
        }
        if self.session.expects_sealed() {
            return self.sealed(now, terms, frame, worker);
        }
        if self.is_behind() {
            return Step::Wait;
        }
        if terms.is_login(frame.command) {
            if self.order.is_some() && !self.calls.is_empty() {
                // Its reply has to come after theirs.
                return Step::Wait;
            }
            self.login(now, terms, frame, worker);
            return Step::Next;
        }
        if let Some(hold) = self.session.prove() {
            self.parked = Some(Parked { raw: frame.raw.to_vec(), body: frame.body.to_vec() });
            worker.link.activate(now, self.id, hold);
            return Step::Next;
        }
        if self.upstream == Upstream::Open && !self.leg.has_room(terms) && !self.leg.is_draining() {
            return Step::Wait;
        }
        self.request(now, terms, frame, worker);
        Step::Next
    }

    /// The client has to hear what it asked for before it asks for more: as many replies are held
    /// back as may be, by a bell or by one that is late.
    pub(super) fn is_behind(&self) -> bool {
        let order = self.order.as_ref();
        self.to_client.len() >= MAX_UNSAID || order.is_some_and(|order| order.is_full())
    }

    /// A frame whose body is sealed, and which is refused without a word if it is not.
    fn sealed(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) -> Step {
        // Opening counts a frame, so it must not be tried before there is room for the result.
        let established = self.session.is_established();
        if established && !self.leg.has_room(terms) && !self.leg.is_draining() {
            return Step::Wait;
        }
        if self.is_behind() {
            return Step::Wait;
        }
        let mut associated = std::mem::take(&mut worker.scratch.associated);
        let mut sealed = std::mem::take(&mut worker.scratch.body);
        associated.clear();
        sealed.clear();
        terms.config.layout.associated_data(frame, &mut associated);
        sealed.extend_from_slice(frame.body);
        let flagged = frame.flags.sealed() || !terms.config.layout.expresses().sealed();
        if !flagged {
            worker.metrics.count(Labelled::PeerErrors, "unsealed_frame");
            self.session_over(worker);
            self.close_silently("unsealed_frame");
        } else {
            match self.session.open(&[&associated], &mut sealed) {
                Ok(Opened { body, activate: None }) => {
                    let mut opened = *frame;
                    opened.body = body;
                    self.request(now, terms, &opened, worker);
                }
                Ok(Opened { body, activate: Some(hold) }) => {
                    self.parked = Some(Parked { raw: frame.raw.to_vec(), body: body.to_vec() });
                    worker.link.activate(now, self.id, hold);
                }
                Err(_) => {
                    worker.metrics.count(Labelled::PeerErrors, "seal_broken");
                    self.session_over(worker);
                    self.close_silently("seal_broken");
                }
            }
        }
        worker.scratch.associated = associated;
        worker.scratch.body = sealed;
        Step::Next
    }

    /// The companion activated the session: the frame that proved it may go on.
    pub(super) fn activated(&mut self, now: Moment, worker: &mut Worker) {
        if !self.session.activated() {
            return;
        }
        self.live(worker);
        let Some(Parked { raw, body }) = self.parked.take().filter(|_| !self.is_parting()) else {
            return;
        };
        let terms = Rc::clone(&self.terms);
        if let Ok(Decoded::Frame(mut frame)) = terms.config.layout.decode(&raw, raw.len()) {
            frame.body = &body;
            self.request(now, &terms, &frame, worker);
        }
        self.waiting = true;
    }

    fn login(&mut self, now: Moment, terms: &Terms, frame: &Frame<'_>, worker: &mut Worker) {
        let seed = terms.config.layout.seed(frame);
        if let Err(refusal) = self.session.login(&terms.session, frame.body) {
            if refusal == Refusal::Repeated {
                let status = refusal.status("");
                return self.refuse(now, &seed, &status, "repeated_login", worker);
            }
            self.login = Some(seed);
            return self.login_refused(now, refusal, "", worker);
        }
        self.login = Some(seed);
        let request = LoginRequest {
            mode: terms.session.mode,
            audience: terms.audience(),
            layout: terms.config.layout.name(),
            message: frame.body,
            peer: &self.peer,
        };
        if worker.link.login(now, self.id, request).is_err() {
            worker.metrics.count(Labelled::LimitsHit, "max_pending_logins");
            self.login_refused(now, Refusal::TryAgain, "", worker);
        }
    }

    /// Bytes that are no frame. Framing is lost, so the connection ends.
    fn garbled(&mut self, now: Moment, error: &FrameError, worker: &mut Worker) {
        worker.metrics.count(Labelled::PeerErrors, error.reason());
        if self.session.expects_sealed() {
            // Whoever tampers with sealed traffic learns nothing.
            self.session_over(worker);
            return self.close_silently(error.reason());
        }
        let status = Status::new(Code::InvalidArgument, error.to_string());
        self.leave(now, error.reason(), status, worker);
    }
}
