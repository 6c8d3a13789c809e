//! The server leg: HTTP/2 in, calls out, and their answers back.
//!
//! Sans-I/O. Bytes of the caller go to [`ServerLeg::poll`], which gives one event at a time until
//! it has none; bytes for the caller gather in [`ServerLeg::output`].
//!
//! ```text
//!            HEADERS                 accept            one message, END_STREAM
//!   (idle) ─────────▶ Event::Begin ─────────▶ receiving ─────────▶ Event::Request
//!                         │ finish                │                     │ respond, or
//!                         │            RST_STREAM │ or wrong            │ send…, finish
//!                         ▼                       ▼                     ▼
//!                       (over)            Event::Over (over)          (over)
//! ```
//!
//! Requests have one message each, responses any number. What is no gRPC request gets an HTTP
//! answer that says so, without an event.
//!
//! Sources: RFC 9113; gRPC's PROTOCOL-HTTP2.

mod answering;
mod data;
mod event;
mod frames;
mod headers;
mod limits;
mod reading;
mod sending;
mod streams;

use std::rc::Rc;

use data::Data;
use frames::OpenBlock;
use headers::Headers;
use reading::{Place, Step};
use sending::Sending;
use streams::Streams;

use super::frame::{self, CLIENT_PREFACE};
use super::reason::{ErrorCode, LegError};
use super::resets::Resets;
use super::settings::{self, DEFAULT_WINDOW, Setting};

pub use event::{Event, Metadata};
pub use limits::Limits;
pub use streams::StreamKey;

/// One connection of a gRPC client, or of a proxy that speaks for several.
#[derive(Debug)]
pub struct ServerLeg {
    limits: Rc<Limits>,
    output: Vec<u8>,
    streams: Streams,
    sending: Sending,
    headers: Headers,
    /// Streams that we reset, and those that came to their end.
    resets: Resets,
    finished: Resets,
    /// The highest stream number that the caller used; above it streams are idle.
    last_opened: u32,
    /// Bytes of the caller's preface that are still to come.
    preface_left: u8,
    is_closed: bool,
    /// We said GOAWAY: streams above this number are not looked at.
    going_away: Option<u32>,
    /// The caller's first SETTINGS came.
    greeted: bool,
    /// SETTINGS of ours that are not acknowledged.
    unacknowledged: u8,
    /// Our first SETTINGS are: the caller knows how many streams it may open.
    is_known: bool,
    /// Frames since the last that brought a call forward.
    idle_frames: u32,
    /// Calls that the caller gave up, less those that were answered.
    given_up: u32,

    /// A frame that has arrived in part, its head included; never a DATA frame.
    partial: Vec<u8>,
    /// The DATA frame that is being read.
    data: Option<Data>,
    /// The header block that is being read, and its bytes.
    open_block: Option<OpenBlock>,
    block: Vec<u8>,
    /// What the last event borrowed, if not the input.
    kept: Vec<u8>,
    /// Bytes of DATA that came since our last WINDOW_UPDATE of the connection.
    received: u32,
    /// Bytes in the `partial` of all streams.
    partial_messages: usize,
}

/// Commands. Those that name a stream do nothing if it is over.
impl ServerLeg {
    /// A new connection. SETTINGS and the connection's window are in the output at once: they
    /// have to be the first that a caller hears, and some callers wait for them.
    pub fn new(limits: &Rc<Limits>) -> Self {
        let mut output = Vec::with_capacity(64);
        let list_size = u32::try_from(limits.max_header_block).unwrap_or(u32::MAX);
        settings::write(
            &[
                Setting::MaxConcurrentStreams(limits.max_streams),
                Setting::InitialWindowSize(limits.stream_window),
                Setting::MaxHeaderListSize(list_size),
            ],
            &mut output,
        );
        let widening = limits.connection_window.saturating_sub(DEFAULT_WINDOW);
        if widening > 0 {
            frame::write_window_update(0, widening, &mut output);
        }
        Self {
            output,
            streams: Streams::default(),
            sending: Sending::default(),
            headers: Headers::new(limits),
            resets: Resets::default(),
            finished: Resets::default(),
            last_opened: 0,
            preface_left: CLIENT_PREFACE.len() as u8,
            is_closed: false,
            going_away: None,
            greeted: false,
            unacknowledged: 1,
            is_known: false,
            idle_frames: 0,
            given_up: 0,
            partial: Vec::new(),
            data: None,
            open_block: None,
            block: Vec::new(),
            kept: Vec::new(),
            received: 0,
            partial_messages: 0,
            limits: Rc::clone(limits),
        }
    }

    /// Takes the call that [`Event::Begin`] told of. `token` comes back in its events;
    /// `max_message` is the most bytes that its request may have. Neither this nor
    /// [`finish`](Self::finish): its message is dropped, and it is never answered.
    pub fn accept(&mut self, stream: StreamKey, token: u32, max_message: usize) {
        if let Some(stream) = self.streams.get(stream) {
            stream.accept(token, max_message);
        }
    }

    /// Says that this connection ends: streams that the caller has opened go on, later ones are
    /// refused.
    pub fn go_away(&mut self, code: ErrorCode, debug: &str) {
        if !self.is_closed && self.going_away.is_none() {
            self.going_away = Some(self.last_opened);
            frame::write_go_away(self.last_opened, code, debug, &mut self.output);
        }
    }

    /// Bytes for the caller. Whoever takes them clears the vector.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }
}

/// Getters.
impl ServerLeg {
    /// Streams that are not over.
    pub fn open_streams(&self) -> usize {
        self.streams.live()
    }

    /// Nothing is read any more.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// Poll.
impl ServerLeg {
    /// Reads `input` up to the next event and moves it forward by what was read. `None` means
    /// that all of it was read and nothing is left to tell; what arrived in part is kept.
    ///
    /// An error comes once. After it no stream lives, no event comes, and input is dropped. The
    /// GOAWAY that tells the caller is in the output.
    pub fn poll<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'a>>, LegError> {
        self.kept.clear();
        let step = loop {
            match self.step(input) {
                Ok(Step::Again) => {}
                Ok(step) => break step,
                Err(error) => {
                    *input = &[];
                    let last = self.last_opened;
                    frame::write_go_away(last, error.code, error.reason, &mut self.output);
                    self.close();
                    return Err(error);
                }
            }
        };
        Ok(match step {
            Step::Again | Step::Starved => {
                self.rest();
                None
            }
            Step::Begin { stream } => Some(self.headers.begin(stream)),
            Step::Request { stream, token, place } => {
                let message = match place {
                    Place::Input(bytes) => bytes,
                    Place::Kept => self.kept.get(data::PREFIX..).unwrap_or_default(),
                };
                Some(Event::Request { stream, token, message })
            }
            Step::Over { stream, token, code } => Some(Event::Over { stream, token, code }),
        })
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.streams = Streams::default();
        self.sending = Sending::default();
        self.data = None;
        self.open_block = None;
        self.partial = Vec::new();
        self.partial_messages = 0;
    }
}

/// What several frames have in common.
impl ServerLeg {
    /// Counts frames that bring no call forward; see [`Limits::max_idle_frames`].
    fn idle(&mut self, weight: u32) -> Result<(), LegError> {
        self.idle_frames = self.idle_frames.saturating_add(weight);
        if self.idle_frames > self.limits.max_idle_frames {
            return Err(LegError::new(
                ErrorCode::EnhanceYourCalm,
                "too many frames that bring no call forward",
            ));
        }
        if self.idle_frames > self.limits.max_idle_frames / 2 && self.unacknowledged == 0 {
            self.unacknowledged = 1;
            settings::write(&[], &mut self.output);
        }
        Ok(())
    }

    /// Gives memory back when no call needs it: most connections are idle most of the time.
    fn rest(&mut self) {
        /// What the buffers for what came in pieces may keep, in bytes.
        const PIECES: usize = 1024;
        if self.streams.live() > 0 {
            return;
        }
        for buffer in [&mut self.kept, &mut self.block, &mut self.partial] {
            if buffer.capacity() > PIECES {
                buffer.shrink_to(PIECES);
            }
        }
        self.streams.rest();
        self.headers.rest();
    }
}

#[cfg(test)]
mod tests;
