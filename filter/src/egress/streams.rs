//! What a server sends without being asked for each message: the pushes of a stream, and those that
//! answer nothing. Both become messages of calls.
//!
//! Nothing waits for a slow caller beyond the HTTP/2 leg's bound: it loses its stream.

use crate::call::{Code, Kind};
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::Frame;
use crate::route::{Codec, Route};
use crate::time::Moment;
use crate::transcode::wrapped;
use crate::worker::Worker;

use super::{Egress, Terms};

impl Egress {
    /// Hands a push on: to the stream of `call`, or else to every call that hears its command. False
    /// if there is none.
    pub(super) fn push(
        &mut self,
        now: Moment,
        terms: &Terms,
        frame: &Frame<'_>,
        call: Option<u32>,
        worker: &mut Worker,
    ) -> bool {
        let tokens = call.map_or_else(|| self.calls.streams(), |token| vec![token]);
        let routes = &terms.config.routes;
        let mut heard = false;
        for token in tokens {
            let Some(call) = self.calls.get_mut(token).filter(|call| call.streams) else {
                continue;
            };
            let Some(route) = routes.route(call.route) else { continue };
            if route.push.as_ref().is_some_and(|push| push.borrow() == frame.command) {
                heard = true;
                self.message(now, terms, token, route, frame, worker);
            }
        }
        heard
    }

    /// A push becomes a message of a call.
    fn message(
        &mut self,
        now: Moment,
        terms: &Terms,
        token: u32,
        route: &Route,
        frame: &Frame<'_>,
        worker: &mut Worker,
    ) {
        let Some(stream) = self.calls.get_mut(token).map(|call| call.stream) else { return };
        let mut plain = std::mem::take(&mut worker.scratch.plain);
        let max = terms.config.limits.max_response.get();
        let opened = terms.config.layout.open_body(frame.flags, frame.body, max, &mut plain);
        let sent = match (&opened, route.codec) {
            (Ok(body), Codec::Protobuf) => Ok(self.leg.send(stream, &[body])),
            (Ok(body), Codec::Bytes) => {
                let mut prefix = Vec::with_capacity(11);
                wrapped::prefix(body.len(), &mut prefix);
                Ok(self.leg.send(stream, &[&prefix, body]))
            }
            (Err(error), _) => Err(error.reason()),
        };
        worker.scratch.plain = plain;
        match sent {
            Ok(true) => {
                worker.metrics.add(Metric::Pushes, 1);
                self.tally.pushes = self.tally.pushes.saturating_add(1);
            }
            // The leg has told the caller.
            Ok(false) => {
                worker.metrics.count(Labelled::LimitsHit, "unread_responses");
                self.give_up(now, token, Code::ResourceExhausted, worker);
            }
            Err(reason) => {
                worker.metrics.count(Labelled::UpstreamErrors, reason);
                let text = "the server's message cannot be understood";
                self.fail(now, token, Code::Internal, text, worker);
            }
        }
    }

    /// The server says that a stream is complete.
    pub(super) fn end_stream(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        self.fail(now, token, Code::Ok, "", worker);
    }

    /// Ends every stream: a caller that half-closed could not even end them itself.
    pub(super) fn end_streams(&mut self, now: Moment, worker: &mut Worker) {
        for token in self.calls.streams() {
            self.give_up_stream(now, token, worker);
        }
    }

    fn give_up_stream(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        let Some(call) = self.calls.get_mut(token) else { return };
        let (sequence, route) = (call.sequence, call.route);
        self.tell_server(now, sequence, route);
        self.fail(now, token, Code::Cancelled, "the caller closed its side", worker);
    }
}

/// Whether a call of this kind is heard from as long as its caller likes.
pub(super) const fn is_stream(kind: Kind) -> bool {
    matches!(kind, Kind::ServerStream | Kind::Subscribe)
}
