//! Everything that a peer could make grow, or keep waiting, has its bound here.

use super::faults::Faults;
use super::units::{Size, Span};
use crate::protocol::layout::Layout;

object! {
    default
    /// What one peer may cost at most.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Limits {
        /// The largest frame taken from a client, header included; a longer one closes the
        /// connection as soon as its length is read. 64 KiB is ample for commands of a game.
        pub max_frame: Size,
        /// The largest reply message taken from a service; a longer one fails its call with
        /// RESOURCE_EXHAUSTED. 4 MiB is gRPC's own default.
        pub max_response: Size,
        /// Calls of one connection that wait for their reply at the same time; one more is answered
        /// with RESOURCE_EXHAUSTED, or waits where replies come in the order of the requests
        /// (`layout.correlation`). 128 is more than a client that waits for answers ever needs.
        pub max_in_flight: u16,
        /// Streams of one connection that are open at the same time; one more is answered with
        /// RESOURCE_EXHAUSTED. They count as calls in flight too, and stay longer.
        pub max_streams: u16,
        /// Requests of one connection that wait for the service to allow another stream (its
        /// MAX_CONCURRENT_STREAMS); one more is answered with RESOURCE_EXHAUSTED.
        pub max_queued: u16,
        /// Bytes of one connection's requests that wait for the service's flow control window. From
        /// there on nothing more is read from the client; the rest waits in Envoy's buffers.
        pub max_unsent: Size,
        /// Bytes of a client's messages on one stream that wait for the service's flow control
        /// window; 1KiB to 16MiB. What becomes of more, `when_full` of its command says. Those of
        /// all streams of a connection may be `max_unsent` together.
        pub max_stream_unsent: Size,
        /// Bytes that may wait for a client that does not read before `push.when_full` says what
        /// becomes of one more push of the companion; 16KiB to 16MiB. Beside it Envoy's own buffer
        /// holds some (`per_connection_buffer_limit_bytes`).
        pub max_unread: Size,
        /// Frames a second that one connection may send over time; 0 turns the limit off. A frame
        /// above it is answered with RESOURCE_EXHAUSTED. Off, because only the game knows its pace.
        pub frames_per_second: u32,
        /// Frames that one connection may send at once before `frames_per_second` bites; 0 means
        /// twice `frames_per_second`.
        pub frames_burst: u32,
        /// Refusals and error replies a second that one connection may cause, with a burst of the
        /// same size; one more closes it without a word, because answering costs more than asking.
        /// 0 turns the limit off.
        pub refusals_per_second: u32,
        /// How long a frame may stay incomplete after its first byte before the connection is
        /// closed: a mobile client in a tunnel gets through, a hoarder of connections does not.
        pub partial_frame_timeout: Span,
        /// How long a connection may be silent in both directions with no call in flight before it
        /// is closed; "0s" turns the limit off. Off, because tcp_proxy has an idle timeout too.
        pub idle_timeout: Span,
        /// How long the upstream may take to answer the doorbell; then the connection is closed,
        /// because nothing can be said to its client any more.
        pub bell_timeout: Span,
        /// Logins of one worker that wait for the companion at the same time; one more is told to
        /// try again. Bounds what a flood of connections can pile up in front of a slow companion.
        pub max_pending_logins: u16,
        /// The largest header block taken from a service, before and after decoding, in bytes.
        /// 16 KiB is twice what gRPC servers send by default.
        pub max_response_headers: Size,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: Size::from_kib(64),
            max_response: Size::from_kib(4096),
            max_in_flight: 128,
            max_streams: 64,
            max_queued: 128,
            max_unsent: Size::from_kib(256),
            max_stream_unsent: Size::from_kib(64),
            max_unread: Size::from_kib(256),
            frames_per_second: 0,
            frames_burst: 0,
            refusals_per_second: 20,
            partial_frame_timeout: Span::from_millis(10_000),
            idle_timeout: Span::from_millis(0),
            bell_timeout: Span::from_millis(5_000),
            max_pending_logins: 1024,
            max_response_headers: Size::from_kib(16),
        }
    }
}

impl Limits {
    /// The burst that goes with `frames_per_second`.
    pub fn burst(&self) -> u32 {
        match self.frames_burst {
            0 => self.frames_per_second.saturating_mul(2),
            burst => burst,
        }
    }

    /// Refuses values that could not work.
    pub fn check(&self, layout: Option<&Layout>, faults: &mut Faults) {
        let mut size = |key: &str, value: Size, least: Size, most: Size| {
            if value < least || value > most {
                let problem = format_args!("{value} is out of range, expected {least} to {most}");
                faults.add(key, &problem);
            }
        };
        let byte = Size::from_bytes;
        let (kib, mib) = (Size::from_kib(1), Size::from_kib(1024));
        // A frame cannot be shorter than its header.
        let least = layout.map_or(1, |layout| u32::try_from(layout.min_frame()).unwrap_or(1));
        size("max_frame", self.max_frame, byte(least), byte(64 << 20));
        size("max_response", self.max_response, kib, byte(256 << 20));
        size("max_unsent", self.max_unsent, byte(16 << 10), byte(64 << 20));
        size("max_stream_unsent", self.max_stream_unsent, kib, byte(16 << 20));
        size("max_unread", self.max_unread, byte(16 << 10), byte(16 << 20));
        size("max_response_headers", self.max_response_headers, kib, mib);

        let mut count = |key: &str, value: u32, least: u32, most: u32| {
            if value < least || value > most {
                let problem = format_args!("{value} is out of range, expected {least} to {most}");
                faults.add(key, &problem);
            }
        };
        count("max_in_flight", self.max_in_flight.into(), 1, 10_000);
        count("max_streams", self.max_streams.into(), 1, 10_000);
        count("max_queued", self.max_queued.into(), 0, 10_000);
        count("max_pending_logins", self.max_pending_logins.into(), 1, 65_535);
        count("frames_per_second", self.frames_per_second, 0, 1_000_000);
        count("frames_burst", self.frames_burst, 0, 1_000_000);
        count("refusals_per_second", self.refusals_per_second, 0, 1_000_000);
        if self.frames_per_second == 0 && self.frames_burst > 0 {
            let problem = "a burst without a rate does nothing, set \"frames_per_second\" too";
            faults.add("frames_burst", &problem);
        }

        let (instant, day) = (Span::from_millis(0), Span::from_millis(86_400_000));
        let (short, minute) = (Span::from_millis(100), Span::from_millis(60_000));
        let mut span = |key: &str, value: Span, least: Span, most: Span| {
            if let Err(problem) = value.within(least, most) {
                faults.add(key, &problem);
            }
        };
        span("partial_frame_timeout", self.partial_frame_timeout, short, day);
        span("idle_timeout", self.idle_timeout, instant, day);
        span("bell_timeout", self.bell_timeout, short, minute);
    }
}
