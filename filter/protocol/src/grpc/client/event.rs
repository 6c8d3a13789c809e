//! What a client leg has to say.

use crate::call::Code;
use crate::grpc::hpack::{Decoder, HpackError};

/// A call of this connection. The number is the HTTP/2 stream's, given at once even to a call
/// that has to wait, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What [`poll`](super::ClientLeg::poll) found. It borrows the input where it can, the leg's own
/// buffers otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// One response message, without gRPC's five-byte prefix.
    Message { token: u32, stream: StreamId, message: &'a [u8] },
    /// The call is over; nothing more comes of it. A call that the caller cancelled has no end.
    End {
        token: u32,
        stream: StreamId,
        code: Code,
        /// The service's `grpc-message`, percent-decoded, with U+FFFD for what is not UTF-8;
        /// or in the leg's words what went wrong. Often empty.
        message: &'a str,
        /// False if the service has certainly not seen the call, so that it may be tried again
        /// elsewhere whatever it does.
        processed: bool,
        /// The service's trailing metadata; empty if the call ended otherwise.
        trailers: Trailers<'a>,
    },
    /// The upstream answered the bell: whatever was to be said to the client can be said now.
    BellAnswered,
    /// The upstream takes no more calls on this connection. Those that it covers go on; the
    /// others end right after this, not processed. Comes at most once.
    GoingAway,
}

/// Trailing metadata, decoded when asked for: most callers never look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trailers<'a> {
    block: &'a [u8],
}

impl<'a> Trailers<'a> {
    pub(super) const fn new(block: &'a [u8]) -> Self {
        Self { block }
    }

    pub const fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Hands each field to `visit`, pseudo-header fields and `grpc-status` included. The block
    /// was checked before, so an error does not occur.
    pub fn visit(&self, visit: impl FnMut(&[u8], &[u8])) -> Result<(), HpackError> {
        Decoder::new(0).decode(self.block, visit)
    }
}

/// Why a call was not taken. None of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The queues are full; a call may be taken once others have ended.
    Full,
    /// This connection takes no more calls: the upstream said so, or is gone, or the connection
    /// has no stream numbers left.
    GoingAway,
    /// The message's length does not fit gRPC's four bytes.
    TooLarge,
}

/// Why a message of a request that stays open was not taken. None of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// As much of the stream waits for the upstream as may; a message may be taken later.
    Full,
    /// The call is over, or its request has ended.
    Over,
    /// The message's length does not fit gRPC's four bytes.
    TooLarge,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the service does not keep up with the stream",
            Self::Over => "the stream has ended",
            Self::TooLarge => "the message is too large for gRPC",
        })
    }
}

impl std::error::Error for SendError {}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "too many calls wait for the upstream",
            Self::GoingAway => "the upstream takes no more calls on this connection",
            Self::TooLarge => "the request is too large for gRPC",
        })
    }
}

impl std::error::Error for StartError {}
