//! What the leg lets a caller take.

use crate::grpc::settings::{DEFAULT_WINDOW, MAX_WINDOW};

/// Every bound of a server leg. All are per connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams that a caller may have open at once, announced as SETTINGS_MAX_CONCURRENT_STREAMS.
    /// One more is refused with REFUSED_STREAM.
    pub max_streams: u32,
    /// The same until the caller has acknowledged our SETTINGS: it may use what HTTP/2 sets no
    /// limit to. 1024 is what Envoy opens at most.
    pub max_early_streams: u32,
    /// Bytes of all request messages that have arrived in part, or that wait for their END_STREAM.
    /// The call that exceeds it ends with RESOURCE_EXHAUSTED.
    pub max_partial: usize,
    /// Bytes of one request's header list, with 32 for each field, as SETTINGS_MAX_HEADER_LIST_SIZE
    /// announces it. A larger one ends its call with RESOURCE_EXHAUSTED; a block that has four
    /// times as many coded bytes ends the connection.
    pub max_header_block: usize,
    /// CONTINUATION frames of one header block. More end the connection: a stream of CONTINUATION
    /// frames without end is an attack (CVE-2024-27316 and its kin).
    pub max_continuations: u32,
    /// Bytes of responses that wait for the caller's windows. A response that does not fit ends
    /// its call with RESOURCE_EXHAUSTED.
    pub max_unsent: usize,
    /// Bytes of DATA that the caller may send on one stream before we make room again.
    pub stream_window: u32,
    /// The same for the connection as a whole; not below 65,535, where HTTP/2 begins.
    pub connection_window: u32,
    /// Frames in a row that bring no call forward: PING, WINDOW_UPDATE, PRIORITY, empty DATA,
    /// frames of streams that are over, unknown ones; SETTINGS count sixteen times (CVE-2019-9512,
    /// 9513, 9515, 9517, 9518). At half of it the leg asks for a sign of life (an empty SETTINGS
    /// frame) and starts over when the answer comes.
    pub max_idle_frames: u32,
    /// Calls that the caller may give up beyond those that were answered: a caller that opens and
    /// resets streams without end ends its connection (CVE-2023-44487).
    pub max_given_up: u32,
    /// The names of request metadata that [`Event::Begin`](super::Event::Begin) hands over; at
    /// most 255.
    pub metadata: Box<[Box<str>]>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams: 128,
            max_early_streams: 1024,
            max_partial: 4 << 20,
            max_header_block: 16 << 10,
            max_continuations: 32,
            max_unsent: 16 << 20,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            max_idle_frames: 10_000,
            max_given_up: 1_000,
            metadata: Box::default(),
        }
    }
}

impl Limits {
    /// The same with values that HTTP/2 can express, and that let a call through at all.
    #[must_use]
    pub fn valid(mut self) -> Self {
        self.stream_window = self.stream_window.clamp(1, MAX_WINDOW);
        self.connection_window = self.connection_window.clamp(DEFAULT_WINDOW, MAX_WINDOW);
        self.max_streams = self.max_streams.max(1);
        self.max_early_streams = self.max_early_streams.max(self.max_streams);
        self
    }
}
