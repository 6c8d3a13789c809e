//! Raw bytes to a TCP server through an HTTP connection manager: one CONNECT stream at a time.
//!
//! ```text
//!             open              2xx             END_STREAM, RST_STREAM, GOAWAY, no 2xx
//!   (closed) ──────▶ opening ──────▶ open ────────────────────────▶ Event::Ended (closed)
//! ```
//!
//! Sans-I/O, as the legs: bytes of the upstream go to [`Tunnel::poll`], bytes for it gather in
//! [`Tunnel::output`]. What it is worth having for: the HTTP connection manager answers the bell, an
//! empty SETTINGS frame, whatever the server behind it does, and a server that died does not take
//! the connection with it.
//!
//! Source: RFC 9113 section 8.5.

use super::frame::{
    self, CLIENT_PREFACE, DEFAULT_MAX_FRAME_SIZE, HEAD_LENGTH, Head, Kind, MAX_STREAM, flag,
};
use super::hpack::{Decoder, encoder};
use super::reason::{ErrorCode, LegError};
use super::settings::{self, DEFAULT_WINDOW, MAX_WINDOW, Setting};

/// Bytes of DATA that the upstream may send before we make room again. 1 MiB: a connection inside
/// one Envoy is never slowed down by it.
const WINDOW: u32 = 1 << 20;

/// The longest header block that is read, in bytes: HTTP connection managers answer a CONNECT with a
/// few fields.
const MAX_BLOCK: usize = 16 << 10;

/// Frames in a row that bring nothing, before the upstream is taken to be mad.
const MAX_IDLE_FRAMES: u32 = 10_000;

/// What [`Tunnel::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEvent<'i> {
    /// Bytes of the server.
    Data(&'i [u8]),
    /// The upstream answered the bell.
    BellAnswered,
    /// There is no connection to the server, or none any more; whether there was one, so that it may
    /// have got what was sent.
    Ended { connected: bool },
}

/// A connection to an HTTP connection manager that terminates CONNECT.
#[derive(Debug)]
pub struct Tunnel {
    output: Vec<u8>,
    /// The header block of a CONNECT request.
    request: Box<[u8]>,
    state: State,
    /// The number of the stream, or of the last one.
    stream: u32,
    /// What waits for a 2xx or for windows.
    unsent: Vec<u8>,
    window: i64,
    stream_window: i64,
    initial_window: i64,
    max_frame: usize,
    decoder: Decoder,
    /// A frame that has arrived in part, its head included; never a DATA frame.
    partial: Vec<u8>,
    /// The DATA frame that is being read: bytes of it, padding, and whether it ends the stream.
    data: Option<(usize, usize, bool)>,
    /// The header block that is being read, and its END_STREAM.
    block: Option<(Vec<u8>, bool)>,
    received: u32,
    settings_in_flight: bool,
    rung: bool,
    idle_frames: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    Open,
    /// The upstream takes no streams any more.
    Gone,
}

impl Tunnel {
    /// A new connection; the preface is in the output at once. `authority` is what CONNECT names.
    pub fn new(authority: &str) -> Self {
        let mut output = Vec::with_capacity(128);
        output.extend_from_slice(CLIENT_PREFACE);
        settings::write(
            &[
                Setting::HeaderTableSize(0),
                Setting::EnablePush(false),
                Setting::InitialWindowSize(WINDOW),
            ],
            &mut output,
        );
        frame::write_window_update(0, WINDOW.saturating_sub(DEFAULT_WINDOW), &mut output);
        let mut request = Vec::new();
        encoder::encode_shortest(":method", b"CONNECT", &mut request);
        encoder::encode_shortest(":authority", authority.as_bytes(), &mut request);
        Self {
            output,
            request: request.into(),
            state: State::Closed,
            stream: 0,
            unsent: Vec::new(),
            window: i64::from(DEFAULT_WINDOW),
            stream_window: 0,
            initial_window: i64::from(DEFAULT_WINDOW),
            max_frame: DEFAULT_MAX_FRAME_SIZE as usize,
            decoder: Decoder::new(0),
            partial: Vec::new(),
            data: None,
            block: None,
            received: 0,
            settings_in_flight: true,
            rung: false,
            idle_frames: 0,
        }
    }

    /// Connects to the server, unless that is done. False if it cannot be any more.
    pub fn open(&mut self) -> bool {
        if self.state != State::Closed {
            return self.state != State::Gone;
        }
        let next = if self.stream == 0 { 1 } else { self.stream.saturating_add(2) };
        if next > MAX_STREAM {
            self.state = State::Gone;
            return false;
        }
        (self.stream, self.state) = (next, State::Opening);
        self.stream_window = self.initial_window;
        let length = self.request.len();
        frame::write_head(Kind::Headers, flag::END_HEADERS, next, length, &mut self.output);
        self.output.extend_from_slice(&self.request);
        true
    }

    /// Sends bytes to the server as soon as there is a connection and the windows admit it.
    pub fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.flush();
    }

    /// Gives up the connection to the server; nothing more comes of it.
    pub fn close(&mut self) {
        if matches!(self.state, State::Opening | State::Open) {
            frame::write_reset(self.stream, ErrorCode::Cancel, &mut self.output);
            self.state = State::Closed;
        }
        self.unsent.clear();
    }

    /// The upstream takes no further connection.
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Bytes that wait.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Rings the doorbell: [`TunnelEvent::BellAnswered`] comes. False if that is under way.
    pub fn ring(&mut self) -> bool {
        if std::mem::replace(&mut self.rung, true) {
            return false;
        }
        if !std::mem::replace(&mut self.settings_in_flight, true) {
            settings::write(&[], &mut self.output);
        }
        true
    }

    /// Bytes for the upstream. Whoever takes them clears the vector.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Reads `input` up to the next event and moves it forward by what was read. After an error
    /// nothing can come of the connection any more.
    pub fn poll<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<TunnelEvent<'i>>, LegError> {
        loop {
            if let Some(event) = self.read_data(input) {
                return Ok(Some(event));
            }
            if self.data.is_some() {
                return Ok(None);
            }
            let missing = HEAD_LENGTH.saturating_sub(self.partial.len());
            if !self.gather(missing, input) {
                return Ok(None);
            }
            let Some(head) = self.partial.first_chunk().map(Head::parse) else { return Ok(None) };
            self.admit(&head)?;
            if head.kind == Kind::Data {
                self.partial.clear();
                self.begin_data(&head)?;
                continue;
            }
            let whole = HEAD_LENGTH.saturating_add(head.length as usize);
            let missing = whole.saturating_sub(self.partial.len());
            if !self.gather(missing, input) {
                return Ok(None);
            }
            let gathered = std::mem::take(&mut self.partial);
            let event = self.frame(&head, gathered.get(HEAD_LENGTH..).unwrap_or_default())?;
            self.partial = gathered;
            self.partial.clear();
            if event.is_some() {
                return Ok(event);
            }
        }
    }
}

/// Reading.
impl Tunnel {
    fn gather(&mut self, missing: usize, input: &mut &[u8]) -> bool {
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
        taken.len() == missing
    }

    fn admit(&self, head: &Head) -> Result<(), LegError> {
        if head.length > DEFAULT_MAX_FRAME_SIZE || !head.has_right_length() {
            return Err(LegError::new(ErrorCode::FrameSizeError, "frame of a wrong length"));
        }
        let in_block = self.block.is_some();
        if in_block != (head.kind == Kind::Continuation) || head.kind == Kind::PushPromise {
            return Err(LegError::protocol("frame that has no place here"));
        }
        Ok(())
    }

    fn begin_data(&mut self, head: &Head) -> Result<(), LegError> {
        self.idle(u32::from(head.length == 0))?;
        self.received = self.received.saturating_add(head.length);
        if self.received >= WINDOW / 2 {
            frame::write_window_update(0, self.received, &mut self.output);
            if self.is_live(head.stream) {
                frame::write_window_update(head.stream, self.received, &mut self.output);
            }
            self.received = 0;
        }
        if head.has(flag::PADDED) {
            // HTTP connection managers pad nothing, and raw bytes have no use for it.
            return Err(LegError::protocol("padding in a tunnel"));
        }
        let length = head.length as usize;
        let live = self.is_live(head.stream);
        let (data, dropped) = if live { (length, 0) } else { (0, length) };
        self.data = Some((data, dropped, live && head.has(flag::END_STREAM)));
        Ok(())
    }

    fn read_data<'i>(&mut self, input: &mut &'i [u8]) -> Option<TunnelEvent<'i>> {
        let (data, dropped, ends) = self.data?;
        if data > 0 {
            let (chunk, rest) = input.split_at(data.min(input.len()));
            *input = rest;
            self.data = Some((data.saturating_sub(chunk.len()), dropped, ends));
            self.idle_frames = 0;
            return (!chunk.is_empty()).then_some(TunnelEvent::Data(chunk));
        }
        let skipped = dropped.min(input.len());
        *input = input.get(skipped..).unwrap_or_default();
        let dropped = dropped.saturating_sub(skipped);
        self.data = (dropped > 0).then_some((0, dropped, ends));
        (self.data.is_none() && ends).then(|| self.ended()).flatten()
    }

    fn is_live(&self, stream: u32) -> bool {
        stream == self.stream && matches!(self.state, State::Opening | State::Open)
    }

    fn frame(
        &mut self,
        head: &Head,
        payload: &[u8],
    ) -> Result<Option<TunnelEvent<'static>>, LegError> {
        match head.kind {
            Kind::Headers => {
                let range = frame::header_block(head, payload)
                    .ok_or(LegError::protocol("padding longer than the frame"))?;
                let block = payload.get(range).unwrap_or_default().to_vec();
                self.block = Some((block, head.has(flag::END_STREAM)));
                return self.end_block(head);
            }
            Kind::Continuation => {
                self.idle(1)?;
                if let Some((block, _)) = &mut self.block {
                    block.extend_from_slice(payload);
                    if block.len() > MAX_BLOCK {
                        let text = "header block too large";
                        return Err(LegError::new(ErrorCode::EnhanceYourCalm, text));
                    }
                }
                return self.end_block(head);
            }
            Kind::Settings if head.has(flag::ACK) => {
                if !std::mem::take(&mut self.settings_in_flight) {
                    return Err(LegError::protocol("acknowledgement of nothing"));
                }
                self.idle_frames = 0;
                let rung = std::mem::take(&mut self.rung);
                return Ok(rung.then_some(TunnelEvent::BellAnswered));
            }
            Kind::Settings => self.settings(payload)?,
            Kind::Ping if !head.has(flag::ACK) => {
                self.idle(1)?;
                frame::write_ping_ack(payload, &mut self.output);
            }
            Kind::WindowUpdate => self.widen(head, payload)?,
            Kind::ResetStream if self.is_live(head.stream) => return Ok(self.ended()),
            Kind::GoAway => {
                let live = matches!(self.state, State::Opening | State::Open);
                let connected = self.state == State::Open;
                self.state = State::Gone;
                self.unsent.clear();
                return Ok(live.then_some(TunnelEvent::Ended { connected }));
            }
            _ => self.idle(1)?,
        }
        Ok(None)
    }

    fn end_block(&mut self, head: &Head) -> Result<Option<TunnelEvent<'static>>, LegError> {
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        let Some((block, ends)) = self.block.take() else { return Ok(None) };
        let mut first = 0u8;
        let status = |name: &[u8], value: &[u8]| {
            if name == b":status" {
                first = value.first().copied().unwrap_or_default();
            }
        };
        let read = self.decoder.decode(&block, status);
        read.map_err(|error| LegError::new(ErrorCode::CompressionError, error.reason()))?;
        if !self.is_live(head.stream) {
            return Ok(None);
        }
        match first {
            _ if ends => return Ok(self.ended()),
            b'1' => {}
            b'2' if self.state == State::Opening => {
                self.state = State::Open;
                self.flush();
            }
            _ => {
                frame::write_reset(self.stream, ErrorCode::Cancel, &mut self.output);
                return Ok(self.ended());
            }
        }
        Ok(None)
    }

    /// The stream is over; another may be opened.
    fn ended(&mut self) -> Option<TunnelEvent<'static>> {
        let connected = self.state == State::Open;
        if connected {
            // Both directions end together: half of a connection is of no use to the protocols
            // that go through here.
            frame::write_head(Kind::Data, flag::END_STREAM, self.stream, 0, &mut self.output);
        }
        self.state = State::Closed;
        self.unsent.clear();
        Some(TunnelEvent::Ended { connected })
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), LegError> {
        self.idle(16)?;
        for setting in settings::parse(payload) {
            match setting? {
                Setting::InitialWindowSize(size) => {
                    let change = i64::from(size).saturating_sub(self.initial_window);
                    self.initial_window = i64::from(size);
                    self.stream_window = self.stream_window.saturating_add(change);
                }
                Setting::MaxFrameSize(size) => self.max_frame = size as usize,
                _ => {}
            }
        }
        frame::write_settings_ack(&mut self.output);
        self.flush();
        Ok(())
    }

    fn widen(&mut self, head: &Head, payload: &[u8]) -> Result<(), LegError> {
        self.idle(1)?;
        let by = frame::leading_u32(payload).map_or(0, |(number, _)| number) & MAX_WINDOW;
        let window = match head.stream {
            0 => &mut self.window,
            id if id == self.stream => &mut self.stream_window,
            _ => return Ok(()),
        };
        *window = window.saturating_add(i64::from(by));
        if *window > i64::from(MAX_WINDOW) {
            return Err(LegError::new(ErrorCode::FlowControlError, "a window too large"));
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        if self.state != State::Open {
            return;
        }
        let mut sent = 0usize;
        loop {
            let admitted = usize::try_from(self.window.min(self.stream_window)).unwrap_or(0);
            let left = self.unsent.len().saturating_sub(sent);
            let length = left.min(admitted).min(self.max_frame);
            let end = sent.saturating_add(length);
            let Some(bytes) = self.unsent.get(sent..end).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            frame::write_head(Kind::Data, 0, self.stream, length, &mut self.output);
            self.output.extend_from_slice(bytes);
            self.window = self.window.saturating_sub_unsigned(length as u64);
            self.stream_window = self.stream_window.saturating_sub_unsigned(length as u64);
            sent = end;
        }
        self.unsent.drain(..sent.min(self.unsent.len()));
    }

    fn idle(&mut self, weight: u32) -> Result<(), LegError> {
        self.idle_frames = self.idle_frames.saturating_add(weight);
        if self.idle_frames > MAX_IDLE_FRAMES {
            let text = "too many frames that bring nothing";
            return Err(LegError::new(ErrorCode::EnhanceYourCalm, text));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
