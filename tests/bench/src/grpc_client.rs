//! One gRPC connection of the generator: unary calls of one method.
//!
//! Header fields are put into the peer's dynamic table by the first request and then named by
//! their index, as any good client does, so that the proxies measured get the cheapest blocks
//! there are. Response blocks are not decoded: a call succeeded if its whole message came and
//! the stream ended in good order; an error's response has no message.

use std::collections::VecDeque;

use meshgate_game::reactor::Close;

use crate::http2::{
    DEFAULT_TABLE, DEFAULT_WINDOW, FRAME_HEADER, Frame, MAX_PAYLOAD, MAX_WINDOW, PREFACE,
    SETTINGS_HEADER_TABLE_SIZE, TOP_UP, acknowledge, flag, frame_header, kind, literal,
    open_windows, window_update,
};
use crate::leg::Done;

/// The length prefix of a gRPC message.
const PREFIX: usize = 5;

/// The client's side of one connection.
pub struct GrpcClient {
    first: Vec<u8>,
    later: Vec<u8>,
    /// Bytes of a message with its prefix, in both directions.
    message: usize,
    next_stream: u32,
    calls: Vec<Call>,
    /// Start times of calls that wait for the connection's window.
    held: VecDeque<u64>,
    window: i64,
    consumed: u32,
}

struct Call {
    stream: u32,
    started: u64,
    received: usize,
}

impl GrpcClient {
    /// `path` is the full method; `message` goes out with each call and is expected back. It has
    /// to fit one DATA frame.
    pub fn new(authority: &str, path: &str, message: &[u8]) -> Self {
        assert!(PREFIX + message.len() <= MAX_PAYLOAD, "{} bytes are too many", message.len());
        let mut fields = vec![0x83, 0x86]; // :method POST, :scheme http
        literal(0x41, "", authority, &mut fields);
        literal(0x44, "", path, &mut fields);
        literal(0x5f, "", "application/grpc", &mut fields);
        literal(0x40, "te", "trailers", &mut fields);
        literal(0x7a, "", "meshgate-bench", &mut fields);
        // The newest entry of the dynamic table has index 62.
        let indexes = [0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
        Self {
            first: request(&fields, message),
            later: request(&indexes, message),
            message: PREFIX + message.len(),
            next_stream: 1,
            calls: Vec::new(),
            held: VecDeque::new(),
            window: DEFAULT_WINDOW,
            consumed: 0,
        }
    }

    /// Appends what a connection begins with.
    pub fn open(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(PREFACE);
        open_windows(output);
    }

    /// Appends a request, or keeps it for when the peer has room.
    #[inline]
    pub fn request(&mut self, now: u64, output: &mut Vec<u8>) {
        if self.window < self.message as i64 {
            self.held.push_back(now);
            return;
        }
        self.window -= self.message as i64;
        let stream = self.next_stream;
        self.next_stream += 2;
        let template = if stream == 1 { &self.first } else { &self.later };
        let headers = output.len();
        output.extend_from_slice(template);
        let data = output.len() - FRAME_HEADER - self.message;
        output[headers + 5..headers + 9].copy_from_slice(&stream.to_be_bytes());
        output[data + 5..data + 9].copy_from_slice(&stream.to_be_bytes());
        self.calls.push(Call { stream, started: now, received: 0 });
    }

    /// Takes what came; returns how much of it.
    pub fn receive(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<usize, Close> {
        let mut taken = 0;
        while let Some(frame) = Frame::parse(&input[taken..]) {
            taken += frame.size;
            match frame.kind {
                kind::DATA => self.on_data(&frame, output, done),
                kind::HEADERS if frame.has(flag::END_STREAM) => self.end(frame.stream, done),
                kind::RST_STREAM => self.fail(frame.stream, done),
                kind::WINDOW_UPDATE if frame.stream == 0 => {
                    self.window += frame.increment();
                    for _ in 0..self.held.len() {
                        if let Some(started) = self.held.pop_front() {
                            self.request(started, output);
                        }
                    }
                }
                kind::GOAWAY => return Err(Close),
                kind::SETTINGS if shrinks_table(&frame) => return Err(Close),
                _ => drop(acknowledge(&frame, output)),
            }
        }
        Ok(taken)
    }

    pub fn in_flight(&self) -> usize {
        self.calls.len() + self.held.len()
    }

    #[inline]
    fn on_data(&mut self, frame: &Frame<'_>, output: &mut Vec<u8>, done: &mut Vec<Done>) {
        self.consumed += (frame.size - FRAME_HEADER) as u32;
        if self.consumed > TOP_UP {
            window_update(self.consumed.min(MAX_WINDOW), output);
            self.consumed = 0;
        }
        if let Some(call) = self.calls.iter_mut().find(|call| call.stream == frame.stream) {
            call.received += frame.payload.len();
        }
        if frame.has(flag::END_STREAM) {
            self.end(frame.stream, done);
        }
    }

    #[inline]
    fn end(&mut self, stream: u32, done: &mut Vec<Done>) {
        if let Some(at) = self.calls.iter().position(|call| call.stream == stream) {
            let call = self.calls.swap_remove(at);
            done.push(Done { started: call.started, good: call.received == self.message });
        }
    }

    fn fail(&mut self, stream: u32, done: &mut Vec<Done>) {
        if let Some(at) = self.calls.iter().position(|call| call.stream == stream) {
            let call = self.calls.swap_remove(at);
            done.push(Done { started: call.started, good: false });
        }
    }
}

/// The indexes above are for the default table.
fn shrinks_table(frame: &Frame<'_>) -> bool {
    frame.setting(SETTINGS_HEADER_TABLE_SIZE).is_some_and(|size| size < DEFAULT_TABLE)
}

/// HEADERS and DATA of a call on stream 0, to be patched.
fn request(block: &[u8], message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame_header(kind::HEADERS, flag::END_HEADERS, 0, block.len(), &mut bytes);
    bytes.extend_from_slice(block);
    frame_header(kind::DATA, flag::END_STREAM, 0, PREFIX + message.len(), &mut bytes);
    bytes.push(0);
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}
