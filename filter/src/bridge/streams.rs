//! Server streams: messages become pushes, their end a reply.
//!
//! Nothing is buffered for a slow client: what came from the service is written at once, and a
//! client that does not read stops Envoy from reading the service, whose windows then close.

use crate::call::{Code, Status};
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{FrameSeal, Push};
use crate::route::{Codec, Route};
use crate::session::Session;
use crate::time::Moment;
use crate::transcode::wrapped;
use crate::worker::Worker;

use super::calls::{Call, Request};
use super::{Bridge, Terms};

/// Appends the push that carries `message`; what was wrong if there is none.
pub(super) fn write_message(
    terms: &Terms,
    route: &Route,
    sequence: u64,
    message: &[u8],
    session: &mut Session,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let body = match route.codec {
        Codec::Protobuf => Some(message),
        Codec::Bytes => wrapped::unwrap(message),
    };
    let (Some(body), Some(command)) = (body, &route.push) else {
        return Err("the service's message does not fit");
    };
    let push = Push {
        command: command.borrow(),
        sequence,
        status: 0,
        error: false,
        body: &[body],
        compress: route.compress_reply,
    };
    let seal = session.sealer().map(|sealer| sealer as &mut dyn FrameSeal);
    terms.config.layout.encode_push(push, seal, out).map_err(|error| {
        log::warn!("meshgate: a message of {} cannot be pushed: {error}", route.method);
        "the service's message does not fit into a frame"
    })
}

impl Bridge {
    /// Counts a push, or ends the stream whose message could not be one.
    pub(super) fn pushed(
        &mut self,
        now: Moment,
        token: u32,
        written: Result<(), &'static str>,
        worker: &mut Worker,
    ) {
        match written {
            Ok(()) => {
                self.count_push(worker);
            }
            Err(text) => {
                worker.metrics.count(Labelled::UpstreamErrors, "push_not_encodable");
                self.fail_call(now, token, Status::new(Code::Internal, text), worker);
            }
        }
    }

    pub(super) fn count_push(&mut self, worker: &mut Worker) {
        worker.metrics.add(Metric::FramesOut, 1);
        worker.metrics.add(Metric::Pushes, 1);
        self.tally.pushes = self.tally.pushes.saturating_add(1);
    }

    /// Ends every stream that goes on: a client that half-closed could not even end them itself, and
    /// what waits of one for the service's window could not go upstream any more without the end of
    /// everything behind it.
    pub(super) fn end_streams(&mut self, now: Moment, worker: &mut Worker) {
        let leg = &self.leg;
        let endless = |call: &Call| {
            call.pushes || call.request != Request::Single && !leg.is_sent(call.stream)
        };
        for token in self.calls.tokens(endless) {
            let status = Status::new(Code::Cancelled, "the client closed its side");
            self.fail_call(now, token, status, worker);
        }
    }
}
