//! What the generator speaks on one connection.

use bytes::BytesMut;
use meshgate_client::{Flags, Frame, HEADER, Seal};
use meshgate_game::private::Header;
use meshgate_game::reactor::Close;

use crate::grpc_client::GrpcClient;

/// A call that has come to its end.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// As it was given to `request`.
    pub started: u64,
    pub good: bool,
}

/// One connection's protocol, client side.
pub enum Leg {
    Frames(Frames),
    Sealed(Box<Sealed>),
    Grpc(Box<GrpcClient>),
}

impl Leg {
    /// Appends what the connection begins with.
    pub fn open(&self, output: &mut Vec<u8>) {
        if let Self::Grpc(client) = self {
            client.open(output);
        }
    }

    #[inline]
    pub fn request(&mut self, now: u64, output: &mut Vec<u8>) {
        match self {
            Self::Frames(frames) => frames.request(now, output),
            Self::Sealed(sealed) => sealed.request(now, output),
            Self::Grpc(client) => client.request(now, output),
        }
    }

    /// Takes what came; returns how much of it.
    #[inline]
    pub fn receive(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<usize, Close> {
        match self {
            Self::Frames(frames) => frames.receive(input, done),
            Self::Sealed(sealed) => sealed.receive(input, done),
            Self::Grpc(client) => client.receive(input, output, done),
        }
    }

    pub fn in_flight(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.calls.len(),
            Self::Sealed(sealed) => sealed.frames.calls.len(),
            Self::Grpc(client) => client.in_flight(),
        }
    }
}

/// Private frames of layout `game`.
pub struct Frames {
    template: Vec<u8>,
    commands: Commands,
    sequence: u32,
    /// Sequence and start time of the calls in flight.
    calls: Vec<(u32, u64)>,
}

/// Which commands are called: `count` from `first` on, in an order that leaps about, so that a
/// large table is not walked through in the order in which it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Commands {
    pub first: u32,
    pub count: u32,
}

/// Shares no factor with the counts that are used.
const LEAP: u32 = 7919;

impl Frames {
    pub fn new(commands: Commands, body: &[u8]) -> Self {
        let mut template = Vec::new();
        let header =
            Header { flags: 0, length: 0, command: commands.first, sequence: 0, status: 0 };
        header.write(body, &mut template);
        Self { template, commands, sequence: 0, calls: Vec::new() }
    }

    fn next(&mut self, now: u64) -> (u32, u32) {
        self.sequence = self.sequence.wrapping_add(1);
        self.calls.push((self.sequence, now));
        let leap = u64::from(self.sequence) * u64::from(LEAP) % u64::from(self.commands.count);
        (self.commands.first + leap as u32, self.sequence)
    }

    #[inline]
    fn request(&mut self, now: u64, output: &mut Vec<u8>) {
        let (command, sequence) = self.next(now);
        let start = output.len();
        output.extend_from_slice(&self.template);
        output[start + 8..start + 12].copy_from_slice(&command.to_be_bytes());
        output[start + 12..start + 16].copy_from_slice(&sequence.to_be_bytes());
    }

    #[inline]
    fn receive(&mut self, input: &[u8], done: &mut Vec<Done>) -> Result<usize, Close> {
        let mut taken = 0;
        while let Some(header) = Header::parse(&input[taken..]).map_err(|_| Close)? {
            let end = taken + header.length;
            if end > input.len() {
                break;
            }
            let body = &input[taken + HEADER..end];
            let good = header.flags == Flags::REPLY.0 && body == &self.template[HEADER..];
            self.answered(header.sequence, good, done);
            taken = end;
        }
        Ok(taken)
    }

    #[inline]
    fn answered(&mut self, sequence: u32, good: bool, done: &mut Vec<Done>) {
        if let Some(at) = self.calls.iter().position(|call| call.0 == sequence) {
            let (_, started) = self.calls.swap_remove(at);
            done.push(Done { started, good });
        }
    }
}

/// Private frames that a Noise login sealed.
pub struct Sealed {
    frames: Frames,
    to_server: Seal,
    to_client: Seal,
}

impl Sealed {
    pub fn new(frames: Frames, to_server: Seal, to_client: Seal) -> Self {
        Self { frames, to_server, to_client }
    }

    fn request(&mut self, now: u64, output: &mut Vec<u8>) {
        let (command, sequence) = self.frames.next(now);
        let body = &self.frames.template[HEADER..];
        let frame = Frame::request(command, sequence, body);
        output.extend_from_slice(&self.to_server.seal(&frame));
    }

    fn receive(&mut self, input: &[u8], done: &mut Vec<Done>) -> Result<usize, Close> {
        let mut rest = BytesMut::from(input);
        while let Some(frame) = Frame::decode(&mut rest).map_err(|_| Close)? {
            let frame = self.to_client.open(frame).map_err(|_| Close)?;
            let good = frame.flags == Flags::REPLY && frame.body == self.frames.template[HEADER..];
            self.frames.answered(frame.sequence, good, done);
        }
        Ok(input.len() - rest.len())
    }
}
