//! The client leg: calls in, HTTP/2 out, and back.
//!
//! Sans-I/O. Bytes of the upstream go to [`ClientLeg::poll`], which gives one event at a time
//! until it has none; bytes for the upstream gather in [`ClientLeg::output`].
//!
//! ```text
//!             start                    response HEADERS            trailers, RST_STREAM, GOAWAY
//!   (queued) ───────▶ waiting for answer ───────▶ answering ──┐            │
//!        │                    │                    ▲ message ──┘            ▼
//!        └──── cancel ────────┴──────────────────────────────────▶ over: Event::End, or silence
//! ```
//!
//! Sources: RFC 9113; gRPC's PROTOCOL-HTTP2.

mod answer;
mod data;
mod ending;
mod event;
mod frames;
mod limits;
mod reading;
mod request_stream;
mod sending;
mod status;
mod streams;

use std::collections::VecDeque;

use answer::{Answers, Text};
use data::Data;
use frames::OpenBlock;
use reading::{Place, Step};
use sending::Sending;
use streams::{Phase, Stream, Streams};

use super::frame;
use super::hpack::Part;
use super::reason::{ErrorCode, LegError};
use super::resets::Resets;
use super::settings::{self, DEFAULT_WINDOW, Setting};
use crate::call::Code;

pub use event::{Event, SendError, StartError, StreamId, Trailers};
pub use limits::Limits;

/// One connection to a gRPC server, or to a proxy that speaks for several.
#[derive(Debug)]
pub struct ClientLeg {
    limits: Limits,
    state: State,
    output: Vec<u8>,
    streams: Streams,
    sending: Sending,
    answers: Answers,
    resets: Resets,
    /// Calls that are over and whose end is still to be told.
    ended: VecDeque<Ended>,
    /// `Event::GoingAway` is still to be told.
    going_away_untold: bool,
    go_away: Option<GoAway>,

    /// A SETTINGS frame of ours is not acknowledged. There is never more than one.
    settings_in_flight: bool,
    /// Its acknowledgement is to be told as `Event::BellAnswered`.
    rung: bool,
    /// The upstream's first SETTINGS came.
    greeted: bool,
    /// Frames since the last that brought a call forward.
    idle_frames: u32,

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Takes no new calls.
    GoingAway,
    /// Nothing is read any more.
    Closed,
}

/// What the upstream said when it went away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// Calls with higher numbers were not processed.
    pub last_stream: u32,
    pub code: ErrorCode,
    /// The beginning of the debug data, for a log line; for instance `too_many_pings`.
    pub debug: String,
}

/// A call that is over.
#[derive(Clone, Copy, Debug)]
struct Ended {
    token: u32,
    stream: StreamId,
    code: Code,
    text: Text,
    processed: bool,
}

/// Commands.
impl ClientLeg {
    /// A new connection. Preface, SETTINGS and the connection's window are in the output at once,
    /// because an upstream may speak, and be answered, before the first call.
    pub fn new(limits: &Limits) -> Self {
        let limits = limits.valid();
        let mut output = Vec::with_capacity(256);
        output.extend_from_slice(frame::CLIENT_PREFACE);
        let list_size = u32::try_from(limits.max_header_block).unwrap_or(u32::MAX);
        settings::write(
            &[
                Setting::HeaderTableSize(0),
                Setting::EnablePush(false),
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
            state: State::Open,
            output,
            streams: Streams::new(),
            sending: Sending::new(&limits),
            answers: Answers::new(limits.max_header_block),
            resets: Resets::default(),
            ended: VecDeque::new(),
            going_away_untold: false,
            go_away: None,
            settings_in_flight: true,
            rung: false,
            greeted: false,
            idle_frames: 0,
            partial: Vec::new(),
            data: None,
            open_block: None,
            block: Vec::new(),
            kept: Vec::new(),
            received: 0,
            partial_messages: 0,
            limits,
        }
    }

    /// Starts a call with one request message.
    ///
    /// `token` comes back in the call's events. The header block consists of `parts`, which the
    /// upstream may be had to remember, and the call's `own` fields as literals (see
    /// [`request`](super::request)). `message` is the message in pieces, without gRPC's prefix.
    /// The call is taken whole or not at all. It waits, within the limits, where the upstream's
    /// concurrent streams or windows demand it.
    pub fn start(
        &mut self,
        token: u32,
        parts: &[Part<'_>],
        own: &[u8],
        message: &[&[u8]],
    ) -> Result<StreamId, StartError> {
        if u32::try_from(sending::size(message)).is_err() {
            return Err(StartError::TooLarge);
        }
        let (id, at_once) = self.number(token)?;
        if at_once {
            self.sending.open(id.0, (parts, own), message, &mut self.streams, &mut self.output);
        } else {
            self.sending.enqueue(id.0, (parts, own), message);
        }
        Ok(id)
    }

    /// Gives a call up: the upstream is told, no further event of the call comes. Does nothing if
    /// the call is over.
    pub fn cancel(&mut self, stream: StreamId) {
        self.ended.retain(|ended| ended.stream != stream);
        match self.streams.get(stream.0).map(|call| call.phase) {
            Some(Phase::Queued) => {
                self.sending.dequeue(stream.0);
                self.streams.remove(stream.0);
            }
            Some(Phase::Waiting | Phase::Answering) => {
                self.finish(stream.0, Some(ErrorCode::Cancel));
            }
            None => {}
        }
    }

    /// Rings the doorbell: makes the upstream send something, which comes as
    /// [`Event::BellAnswered`]. False if that is under way already, or can no longer happen.
    ///
    /// The bell is an empty SETTINGS frame. If SETTINGS of ours are still unanswered, their
    /// acknowledgement serves.
    pub fn ring(&mut self) -> bool {
        if self.rung || self.state == State::Closed {
            return false;
        }
        self.rung = true;
        self.ask_for_acknowledgement();
        true
    }

    /// Tells the leg that the upstream will send nothing more. Every call ends with UNAVAILABLE;
    /// `poll` tells.
    pub fn upstream_closed(&mut self) {
        self.close("upstream closed the connection");
    }

    /// Bytes for the upstream. The caller takes them and clears the vector.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }
}

/// Getters.
impl ClientLeg {
    /// Calls that are not over, those that wait included.
    pub fn in_flight(&self) -> usize {
        self.streams.live()
    }

    /// Whether [`start`](Self::start) would take a call now, whatever its size.
    pub fn has_room(&self) -> bool {
        self.state == State::Open && self.sending.has_room()
    }

    /// No new calls on this connection: the upstream went away or is gone, or the stream numbers
    /// are used up.
    pub fn is_draining(&self) -> bool {
        self.state != State::Open
    }

    /// Nothing can come of this connection any more, except the events that are still to be told.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a bell is not answered yet.
    pub fn is_ringing(&self) -> bool {
        self.rung
    }

    /// What the upstream said in its last GOAWAY.
    pub fn go_away(&self) -> Option<&GoAway> {
        self.go_away.as_ref()
    }
}

/// Poll.
impl ClientLeg {
    /// Reads `input` up to the next event and moves it forward by what was read. `None` means
    /// that all of it was read and nothing is left to tell; what arrived in part is kept.
    ///
    /// An error comes once. After it every call ends, by events as usual; then nothing comes, and
    /// input is dropped. The GOAWAY that tells the upstream is in the output.
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
                    let last_stream = 0;
                    frame::write_go_away(last_stream, error.code, error.reason, &mut self.output);
                    self.close(error.reason);
                    return Err(error);
                }
            }
        };
        Ok(match step {
            Step::Again | Step::Starved => {
                self.rest();
                None
            }
            Step::Message { token, stream, place } => {
                Some(Event::Message { token, stream, message: self.at(place) })
            }
            Step::End { ended, trailers } => Some(Event::End {
                token: ended.token,
                stream: ended.stream,
                code: ended.code,
                message: match ended.text {
                    Text::Static(text) => text,
                    Text::Decoded => self.answers.text(),
                },
                processed: ended.processed,
                trailers: Trailers::new(self.at(trailers)),
            }),
            Step::BellAnswered => Some(Event::BellAnswered),
            Step::GoingAway => Some(Event::GoingAway),
        })
    }

    fn at<'a>(&'a self, place: Place<'a>) -> &'a [u8] {
        match place {
            Place::Input(bytes) => bytes,
            Place::Kept(range) => self.kept.get(range).unwrap_or_default(),
            Place::Payload(_) | Place::Nowhere => &[],
        }
    }
}

/// What several frames have in common.
impl ClientLeg {
    /// A number for a new call, and whether it can have its stream at once.
    fn number(&mut self, token: u32) -> Result<(StreamId, bool), StartError> {
        if self.state != State::Open {
            return Err(StartError::GoingAway);
        }
        if !self.sending.has_room() {
            return Err(StartError::Full);
        }
        let at_once = self.sending.stream_is_free();
        let phase = if at_once { Phase::Waiting } else { Phase::Queued };
        let id = self.streams.push(Stream::new(token, phase)).ok_or(StartError::GoingAway)?;
        if self.streams.next().is_none() {
            // The numbers are used up; for the caller that is the same as a GOAWAY.
            self.state = State::GoingAway;
            self.going_away_untold = true;
        }
        Ok((id, at_once))
    }

    /// Keeps a buffer that the event may borrow, and gives an empty one for it.
    fn keep(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        let mut before = std::mem::replace(&mut self.kept, buffer);
        before.clear();
        before
    }

    fn ask_for_acknowledgement(&mut self) {
        if !self.settings_in_flight {
            self.settings_in_flight = true;
            settings::write(&[], &mut self.output);
        }
    }

    /// Counts frames that bring no call forward; see [`Limits::max_idle_frames`].
    fn idle(&mut self, weight: u32) -> Result<(), LegError> {
        self.idle_frames = self.idle_frames.saturating_add(weight);
        if self.idle_frames > self.limits.max_idle_frames {
            return Err(LegError::new(
                ErrorCode::EnhanceYourCalm,
                "too many frames that bring no call forward",
            ));
        }
        if self.idle_frames > self.limits.max_idle_frames / 2 {
            self.ask_for_acknowledgement();
        }
        Ok(())
    }

    /// Gives memory back when no call needs it: most connections are idle most of the time.
    fn rest(&mut self) {
        /// What the buffers for what came in pieces may keep, in bytes.
        const PIECES: usize = 1024;
        /// What the output may keep: with one call at a time it is filled and emptied for each.
        const OUTPUT: usize = 4096;
        if self.streams.live() > 0 {
            return;
        }
        for buffer in [&mut self.kept, &mut self.block, &mut self.partial] {
            if buffer.capacity() > PIECES {
                buffer.shrink_to(PIECES);
            }
        }
        if self.output.capacity() > OUTPUT {
            self.output.shrink_to(OUTPUT);
        }
        if self.ended.capacity() > 0 {
            self.ended = VecDeque::new();
        }
        self.streams.rest();
        self.sending.shrink();
        self.answers.rest();
    }
}

#[cfg(test)]
mod tests;
