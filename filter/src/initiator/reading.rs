//! What comes from the server.

use std::borrow::Cow;
use std::rc::Rc;

use crate::call::Code;
use crate::metrics::Labelled;
use crate::protocol::grpc::tunnel::TunnelEvent;
use crate::protocol::layout::{Decoded, Frame};
use crate::time::Moment;
use crate::worker::Worker;

use super::{Event, Initiator, Who};

/// What came from upstream.
#[derive(Debug)]
pub enum Arrived<'i> {
    /// The server's bytes, from the start of a frame on.
    Bytes(Cow<'i, [u8]>),
    /// The tunnel's connection to the server ended, or there never was one; whether it was
    /// `connected`, so that the server may have got what was sent. Another one can be opened.
    Ended { connected: bool },
    /// There is no way to the server any more.
    Gone { reason: &'static str },
}

impl Initiator {
    /// Takes what came from upstream, until there is nothing more.
    pub fn arrive<'i>(
        &mut self,
        now: Moment,
        upstream: &mut &'i [u8],
        worker: &mut Worker,
    ) -> Option<Arrived<'i>> {
        self.heard_at = now;
        let Some(tunnel) = &mut self.tunnel else {
            let bytes = std::mem::take(upstream);
            return (!bytes.is_empty()).then(|| Arrived::Bytes(self.join(bytes)));
        };
        loop {
            match tunnel.poll(upstream) {
                Ok(None) => break,
                Ok(Some(TunnelEvent::Data(bytes))) => {
                    return Some(Arrived::Bytes(self.join(bytes)));
                }
                Ok(Some(TunnelEvent::BellAnswered)) => self.bell = None,
                Ok(Some(TunnelEvent::Ended { connected })) => {
                    let kind = if connected { "server_closed" } else { "server_unreachable" };
                    worker.metrics.count(Labelled::UpstreamErrors, kind);
                    self.forget_server();
                    return Some(Arrived::Ended { connected });
                }
                Err(error) => {
                    worker.metrics.count(Labelled::UpstreamErrors, "http2");
                    log::warn!("meshgate: the tunnel broke HTTP/2: {error}");
                    *upstream = &[];
                    self.gone = true;
                    return Some(Arrived::Gone { reason: "tunnel_protocol_error" });
                }
            }
        }
        if tunnel.is_gone() && !self.gone {
            self.gone = true;
            return Some(Arrived::Gone { reason: "tunnel_gone" });
        }
        None
    }

    /// Puts the beginning of a frame that came before in front.
    fn join<'i>(&mut self, bytes: &'i [u8]) -> Cow<'i, [u8]> {
        if self.partial.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        Cow::Owned(joined)
    }

    /// The next thing that the server's bytes say. Moves `input` forward; what is left when there is
    /// nothing more is the beginning of a frame, and kept.
    pub fn poll<'i>(
        &mut self,
        now: Moment,
        input: &mut &'i [u8],
        worker: &mut Worker,
    ) -> Option<Event<'i>> {
        let terms = Rc::clone(&self.terms);
        let layout = Self::layout(&terms);
        let max_frame = terms.config.limits.max_response.get();
        while !input.is_empty() {
            if self.drops_server {
                *input = &[];
                break;
            }
            match layout.decode(input, max_frame) {
                Ok(Decoded::Frame(frame)) => {
                    *input = input.get(frame.raw.len()..).unwrap_or_default();
                    self.counts.frames_in = self.counts.frames_in.saturating_add(1);
                    let length = frame.raw.len() as u64;
                    self.counts.bytes_in = self.counts.bytes_in.saturating_add(length);
                    self.partial_since = None;
                    if let Some(event) = self.frame(frame, worker) {
                        return Some(event);
                    }
                }
                Ok(Decoded::Incomplete { .. }) => {
                    self.partial.extend_from_slice(input);
                    self.partial_since.get_or_insert(now);
                    *input = &[];
                }
                Err(error) => {
                    worker.metrics.count(Labelled::UpstreamErrors, error.reason());
                    log::warn!("meshgate: the private server cannot be understood: {error}");
                    *input = &[];
                    self.partial_since = None;
                    return Some(Event::Broken { reason: error.reason() });
                }
            }
        }
        None
    }

    /// What a frame is to whoever asked; `None` if it was for the filter alone.
    fn frame<'i>(&mut self, frame: Frame<'i>, worker: &mut Worker) -> Option<Event<'i>> {
        let terms = Rc::clone(&self.terms);
        let layout = Self::layout(&terms);
        if frame.flags.push() {
            let call = match self.pending.find(frame.sequence).map(|asked| asked.who) {
                Some(Who::Call(token)) => Some(token),
                // Its stream was given up.
                Some(Who::Nobody { .. }) => return None,
                _ => None,
            };
            return Some(Event::Unasked { frame, call, kind: "unsolicited" });
        }
        let is_reply =
            (frame.flags.reply() || !layout.expresses().reply()) && !frame.flags.sealed();
        if !is_reply {
            return Some(Event::Unasked { frame, call: None, kind: "unsolicited" });
        }
        let sequence =
            if self.pending.is_ordered() { self.pending.oldest() } else { Some(frame.sequence) };
        let Some(asked) = sequence.and_then(|sequence| self.pending.find(sequence)) else {
            return Some(Event::Unasked { frame, call: None, kind: "unknown_sequence" });
        };
        let fits = layout.command_key(frame.command) == asked.reply;
        if self.pending.is_ordered() && !fits && !matches!(asked.who, Who::Nobody { .. }) {
            // Without a sequence it cannot be the reply to anything else.
            return Some(Event::Unasked { frame, call: None, kind: "unsolicited" });
        }
        self.pending.remove(asked.sequence);
        match asked.who {
            Who::Call(token) => return Some(Event::Reply { token, frame, fits }),
            Who::Nobody { .. } => worker.metrics.count(Labelled::UpstreamErrors, "late_reply"),
            Who::Bell => self.beat_answered(worker),
            Who::Login => return Some(self.login_answered(&frame, worker)),
        }
        None
    }

    fn login_answered<'i>(&mut self, frame: &Frame<'_>, worker: &mut Worker) -> Event<'i> {
        let terms = Rc::clone(&self.terms);
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let layout = Self::layout(&terms);
        let max = terms.config.limits.max_response.get();
        let opened = layout.open_body(frame.flags, frame.body, max, &mut plain);
        let status = opened.and_then(|body| layout.split_status(frame, body));
        let status = status.map(|(status, _)| status);
        worker.scratch.plain = plain;
        let accepted = status.as_ref().is_ok_and(|status| {
            terms.config.statuses.code(*status) == Code::Ok && !frame.flags.error()
        });
        if accepted {
            self.logged_in();
            return Event::LoggedIn;
        }
        self.login_refused();
        worker.metrics.count(Labelled::Logins, "server_refused");
        log::warn!("meshgate: the private server refused the login: {status:?}");
        Event::LoginRefused
    }
}
