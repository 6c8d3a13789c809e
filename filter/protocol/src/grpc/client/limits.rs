//! What the leg lets an upstream, and its own caller, take.

use crate::grpc::settings::{DEFAULT_WINDOW, MAX_WINDOW};

/// Every bound of a client leg. All are per connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one response message. Longer ones end their call with RESOURCE_EXHAUSTED.
    /// The default, 4 MiB, is what gRPC implementations accept.
    pub max_message: usize,
    /// Bytes of all response messages that have arrived in part. The call that exceeds it ends
    /// with RESOURCE_EXHAUSTED. It holds two of the largest messages at once, and keeps a
    /// thousand half-sent ones from adding up to gigabytes.
    pub max_partial: usize,
    /// Bytes of one response header or trailer block, coded and, separately, decoded (with 32
    /// bytes for each field, as SETTINGS_MAX_HEADER_LIST_SIZE counts, which announces it). 16 KiB
    /// is twice what gRPC servers send at most by default. A call whose block is longer ends with
    /// RESOURCE_EXHAUSTED; a block four times as long ends the connection.
    pub max_header_block: usize,
    /// CONTINUATION frames of one header block. A block of four times 16 KiB in full frames has
    /// four; the rest is for those that cut smaller. More end the connection: a stream of
    /// CONTINUATION frames without end is an attack (CVE-2024-27316 and its kin).
    pub max_continuations: u32,
    /// Streams open at once, whatever more the upstream would allow: a bound for our own tables.
    pub max_streams: u32,
    /// Calls that wait for one of the upstream's concurrent streams to end.
    pub max_queued_calls: usize,
    /// Request bytes that wait for a stream or for the upstream's windows. The call that reaches
    /// it is still taken whole, so the most that is held is this plus one request.
    pub max_queued_bytes: usize,
    /// Bytes of one request that stays open which wait for the upstream's windows. A message
    /// beyond them is refused. They are no part of `max_queued_bytes`, so that a stream whose
    /// server does not read holds up no call; and the message that reaches the limit is still
    /// taken whole.
    pub max_open_bytes: usize,
    /// The same for all requests of the connection that stay open. A request whose window admits
    /// something is let through all the same.
    pub max_all_open_bytes: usize,
    /// Bytes of DATA that the upstream may send on one stream before we make room again, up to
    /// 2^31-1; room for a longer message is made as soon as its length is known. 64 KiB: as much of
    /// each server stream may be on its way to a client that reads slowly, and whatever else it asks
    /// for comes behind that.
    pub stream_window: u32,
    /// The same for the connection as a whole; not below 65,535, where HTTP/2 begins.
    pub connection_window: u32,
    /// Frames in a row that bring no call forward: PING, WINDOW_UPDATE, empty DATA, 1xx responses,
    /// frames of streams that are over, unknown ones; SETTINGS and GOAWAY count sixteen times (CVE-2019-9512, 9515, 9517, 9518). At half
    /// of it the leg asks for a sign of life (an empty SETTINGS frame) and starts over when the
    /// answer comes, so that keep-alives of a quiet connection never add up; an upstream that
    /// floods without reading ends the connection. 10,000 are at most 170 KB of answers.
    pub max_idle_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: 4 << 20,
            max_partial: 8 << 20,
            max_header_block: 16 << 10,
            max_continuations: 32,
            max_streams: 1024,
            max_queued_calls: 1024,
            max_queued_bytes: 1 << 20,
            max_open_bytes: 64 << 10,
            max_all_open_bytes: 256 << 10,
            stream_window: 64 << 10,
            connection_window: 16 << 20,
            max_idle_frames: 10_000,
        }
    }
}

impl Limits {
    /// The same with values that HTTP/2 can express, and that let a call through at all.
    pub(super) fn valid(&self) -> Self {
        let mut limits = self.clone();
        limits.stream_window = limits.stream_window.clamp(1, MAX_WINDOW);
        limits.connection_window = limits.connection_window.clamp(DEFAULT_WINDOW, MAX_WINDOW);
        limits.max_streams = limits.max_streams.max(1);
        limits
    }
}
