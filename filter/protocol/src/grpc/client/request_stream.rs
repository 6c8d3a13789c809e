//! Requests that stay open: client streams and streams both ways.
//!
//! ```text
//!   open ───▶ HEADERS ── send ───▶ DATA … ── half_close ───▶ END_STREAM
//! ```
//!
//! Messages go out as the upstream's windows admit; what they do not admit waits, for each stream
//! apart, within [`Limits::max_open_bytes`](super::Limits::max_open_bytes). The response is that
//! of any other call, and may end before the request does: then the stream is reset.

use super::sending;
use super::{ClientLeg, Part, Phase, SendError, StartError, StreamId};

impl ClientLeg {
    /// Starts a call whose messages are sent one by one; arguments as for
    /// [`start`](Self::start).
    pub fn open(
        &mut self,
        token: u32,
        parts: &[Part<'_>],
        own: &[u8],
    ) -> Result<StreamId, StartError> {
        let (id, at_once) = self.number(token)?;
        if at_once {
            self.sending.begin(id.0, (parts, own), &mut self.streams, &mut self.output);
        } else {
            self.sending.enqueue_open(id.0, (parts, own));
        }
        Ok(id)
    }

    /// Sends one message of an open request: in pieces, without gRPC's prefix. It is taken whole or
    /// not at all.
    pub fn send(&mut self, stream: StreamId, message: &[&[u8]]) -> Result<(), SendError> {
        if u32::try_from(sending::size(message)).is_err() {
            return Err(SendError::TooLarge);
        }
        self.sending.send(stream.0, message, &mut self.streams, &mut self.output)
    }

    /// Ends an open request after what was sent. Does nothing if it has ended.
    pub fn half_close(&mut self, stream: StreamId) {
        self.sending.end(stream.0, &mut self.streams, &mut self.output);
    }

    /// Whether all of a call's request has gone out, its end included, or the call is over.
    pub fn is_sent(&self, stream: StreamId) -> bool {
        let call = self.streams.peek(stream.0);
        call.is_none_or(|call| call.phase != Phase::Queued && call.rest.is_none())
    }

    /// Whether [`send`](Self::send) would refuse any message on this stream for want of room.
    pub fn is_full(&self, stream: StreamId) -> bool {
        self.sending.is_full(stream.0, &self.streams)
    }
}
