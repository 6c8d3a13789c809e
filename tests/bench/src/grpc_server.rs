//! A gRPC server that echoes, and does nothing else: one thread, no allocation per call.
//!
//! It serves one method, so it never looks at a request's header block. It answers each stream
//! with the message that came, which is right for `demo.v1.Echo/Echo`: `EchoRequest` and
//! `EchoReply` have the same bytes. Response fields go into the peer's dynamic table first and
//! are named by index then, where the peer keeps a table. Of the windows it minds the connection's
//! only: a reply has to fit into what the peer opens a stream with.

use std::collections::VecDeque;

use meshgate_game::reactor::{Close, Protocol};

use crate::http2::{
    DEFAULT_TABLE, DEFAULT_WINDOW, Frame, MAX_PAYLOAD, MAX_WINDOW, PREFACE,
    SETTINGS_HEADER_TABLE_SIZE, TOP_UP, acknowledge, flag, frame_header, kind, open_windows,
    window_update,
};

/// The protocol of all connections.
#[derive(Default)]
pub struct GrpcServer;

/// One connection.
pub struct Connection {
    greeted: bool,
    blocks: Blocks,
    /// Requests that came in more than one DATA frame, by stream.
    partial: Vec<(u32, Vec<u8>)>,
    /// Replies that wait for the connection's window.
    held: VecDeque<(u32, Vec<u8>)>,
    window: i64,
    consumed: u32,
}

/// How response fields are written.
enum Blocks {
    /// The peer has a dynamic table that nothing was put into yet.
    Insert,
    /// The peer knows the fields by index.
    Indexed,
    /// The peer wants no table. `told`: it was answered so (RFC 7541, 4.2).
    Literal { told: bool },
}

impl Protocol for GrpcServer {
    type Connection = Connection;

    fn accepted(&mut self, _id: usize) -> Connection {
        Connection {
            greeted: false,
            blocks: Blocks::Insert,
            partial: Vec::new(),
            held: VecDeque::new(),
            window: DEFAULT_WINDOW,
            consumed: 0,
        }
    }

    fn receive(
        &mut self,
        _id: usize,
        connection: &mut Connection,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize, Close> {
        let mut taken = 0;
        if !connection.greeted {
            let Some(preface) = input.get(..PREFACE.len()) else { return Ok(0) };
            if preface != PREFACE {
                return Err(Close);
            }
            taken = PREFACE.len();
            connection.greeted = true;
            open_windows(output);
        }
        while let Some(frame) = Frame::parse(&input[taken..]) {
            taken += frame.size;
            connection.on_frame(&frame, output)?;
        }
        Ok(taken)
    }
}

impl Connection {
    #[inline]
    fn on_frame(&mut self, frame: &Frame<'_>, output: &mut Vec<u8>) -> Result<(), Close> {
        match frame.kind {
            kind::DATA => self.on_data(frame, output),
            kind::HEADERS | kind::CONTINUATION => {}
            kind::RST_STREAM => self.partial.retain(|(stream, _)| *stream != frame.stream),
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                self.window += frame.increment();
                for _ in 0..self.held.len() {
                    if let Some((stream, message)) = self.held.pop_front() {
                        self.reply(stream, &message, output);
                    }
                }
            }
            kind::GOAWAY => return Err(Close),
            kind::SETTINGS => {
                if let Some(size) = frame.setting(SETTINGS_HEADER_TABLE_SIZE)
                    && size < DEFAULT_TABLE
                {
                    self.blocks = Blocks::Literal { told: false };
                }
                acknowledge(frame, output);
            }
            _ => drop(acknowledge(frame, output)),
        }
        Ok(())
    }

    #[inline]
    fn on_data(&mut self, frame: &Frame<'_>, output: &mut Vec<u8>) {
        self.consumed += frame.payload.len() as u32;
        if self.consumed > TOP_UP {
            window_update(self.consumed.min(MAX_WINDOW), output);
            self.consumed = 0;
        }
        let before = self.partial.iter().position(|(stream, _)| *stream == frame.stream);
        match (before, frame.has(flag::END_STREAM)) {
            (None, true) => self.reply(frame.stream, frame.payload, output),
            (None, false) => self.partial.push((frame.stream, frame.payload.to_vec())),
            (Some(at), false) => self.partial[at].1.extend_from_slice(frame.payload),
            (Some(at), true) => {
                let (stream, mut message) = self.partial.swap_remove(at);
                message.extend_from_slice(frame.payload);
                self.reply(stream, &message, output);
            }
        }
    }

    fn reply(&mut self, stream: u32, message: &[u8], output: &mut Vec<u8>) {
        if self.window < message.len() as i64 {
            self.held.push_back((stream, message.to_vec()));
            return;
        }
        self.window -= message.len() as i64;
        let (headers, trailers) = self.blocks.next();
        frame_header(kind::HEADERS, flag::END_HEADERS, stream, headers.len(), output);
        output.extend_from_slice(headers);
        for part in message.chunks(MAX_PAYLOAD) {
            frame_header(kind::DATA, 0, stream, part.len(), output);
            output.extend_from_slice(part);
        }
        let end = flag::END_HEADERS | flag::END_STREAM;
        frame_header(kind::HEADERS, end, stream, trailers.len(), output);
        output.extend_from_slice(trailers);
    }
}

impl Blocks {
    /// Header and trailer block of the next response: `:status: 200`,
    /// `content-type: application/grpc`; `grpc-status: 0`.
    #[inline]
    fn next(&mut self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Insert => {
                *self = Self::Indexed;
                (b"\x88\x5f\x10application/grpc", b"\x40\x0bgrpc-status\x010")
            }
            Self::Indexed => (b"\x88\xbf", b"\xbe"),
            Self::Literal { told: told @ false } => {
                *told = true;
                (b"\x20\x88\x0f\x10\x10application/grpc", b"\x00\x0bgrpc-status\x010")
            }
            Self::Literal { told: true } => {
                (b"\x88\x0f\x10\x10application/grpc", b"\x00\x0bgrpc-status\x010")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::literal;

    #[test]
    fn blocks_say_what_they_shall() {
        let mut block = vec![0x88];
        literal(0x5f, "", "application/grpc", &mut block);
        let mut trailers = Vec::new();
        literal(0x40, "grpc-status", "0", &mut trailers);
        assert_eq!(Blocks::Insert.next(), (&block[..], &trailers[..]));
        // content-type was inserted first, so it is the older entry.
        assert_eq!(Blocks::Indexed.next(), (&[0x88, 0xbf][..], &[0xbe][..]));
    }
}
