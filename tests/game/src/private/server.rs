//! The server: frames in, frames out, the same rules as the gRPC game.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message;

use super::frame::{Flags, HEADER, Header, command};
use crate::demo::v1::{
    EchoReply, Empty, EnterReply, EnterRequest, FailRequest, LeaveRequest, LookReply, MoveReply,
    MoveRequest, SayRequest, SlowRequest, WhoamiReply,
};
use crate::hall::{Hall, HallError};
use crate::reactor::{Close, Protocol, Reactor};

/// How soon `run` notices that it shall stop.
const STOP_CHECK: Duration = Duration::from_millis(100);

const INVALID_ARGUMENT: u16 = 3;
const UNIMPLEMENTED: u16 = 12;

/// A listening server. `run` serves on the calling thread.
pub struct Server {
    reactor: Reactor<Peer>,
    game: Game,
    address: SocketAddr,
}

/// Which opening of an id a late answer belongs to: ids are used again.
struct Peer {
    opened: u64,
}

#[derive(Default)]
struct Game {
    hall: Hall,
    opened: u64,
    late: BinaryHeap<Reverse<Late>>,
}

/// An answer of `Slow`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    id: usize,
    opened: u64,
    frame: Vec<u8>,
}

/// What a command answers: the reply's body, or status and text.
type Answer = Result<Vec<u8>, (u16, String)>;

impl Server {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut reactor = Reactor::new()?;
        let address = reactor.listen(address)?;
        Ok(Self { reactor, game: Game::default(), address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is set; open connections are then closed.
    pub fn run(mut self, stop: &Arc<AtomicBool>) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let wait = match self.game.late.peek() {
                Some(Reverse(late)) => late.due.saturating_duration_since(Instant::now()),
                None => STOP_CHECK,
            };
            self.reactor.turn(&mut self.game, Some(wait.min(STOP_CHECK)))?;
            self.send_late();
        }
        Ok(())
    }

    fn send_late(&mut self) {
        if self.game.late.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(Reverse(late)) = self.game.late.peek()
            && late.due <= now
        {
            let Some(Reverse(late)) = self.game.late.pop() else { break };
            self.reactor.send(&mut self.game, late.id, |_, peer, output| {
                if peer.opened == late.opened {
                    output.extend_from_slice(&late.frame);
                }
            });
        }
    }
}

impl Protocol for Game {
    type Connection = Peer;

    fn accepted(&mut self, _id: usize) -> Peer {
        self.opened += 1;
        Peer { opened: self.opened }
    }

    fn receive(
        &mut self,
        id: usize,
        peer: &mut Peer,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize, Close> {
        let mut done = 0;
        while let Some(header) = Header::parse(&input[done..]).map_err(|_| Close)? {
            let Some(frame) = input.get(done..done + header.length) else { break };
            self.serve((id, peer.opened), &header, frame, output);
            done += header.length;
        }
        Ok(done)
    }
}

impl Game {
    fn serve(&mut self, from: (usize, u64), header: &Header, frame: &[u8], output: &mut Vec<u8>) {
        let one_way = header.flags & Flags::ONE_WAY != 0;
        if header.command == command::CANCEL {
            // It finishes what it has begun.
            return;
        }
        // EchoRequest and EchoReply have the same bytes, so an echo is a copy with one bit set.
        if matches!(header.command, command::ECHO | command::ECHO_BYTES | command::HEARTBEAT) {
            if !one_way {
                let start = output.len();
                output.extend_from_slice(frame);
                output[start + 3] |= Flags::REPLY;
            }
            return;
        }
        let body = &frame[HEADER..];
        if header.command == command::SLOW && !one_way {
            match decode::<SlowRequest>(body) {
                Ok(request) => self.answer_later(from, header, request),
                Err(error) => write_answer(header, Err(error), output),
            }
            return;
        }
        let answer = self.answer(header.command, body);
        if !one_way {
            write_answer(header, answer, output);
        }
    }

    fn answer_later(&mut self, from: (usize, u64), header: &Header, request: SlowRequest) {
        let mut frame = Vec::new();
        let body = EchoReply { body: request.body }.encode_to_vec();
        write_answer(header, Ok(body), &mut frame);
        let due = Instant::now() + Duration::from_millis(request.millis.into());
        let (id, opened) = from;
        self.late.push(Reverse(Late { due, id, opened, frame }));
    }

    fn answer(&mut self, command: u32, body: &[u8]) -> Answer {
        match command {
            // This old server trusts its network: whoever connects is in.
            command::LOGIN => Ok(Vec::new()),
            command::HALL_ENTER => {
                let player = self.hall.enter(&decode::<EnterRequest>(body)?.name)?;
                let players = u32::try_from(self.hall.players().len()).unwrap_or(u32::MAX);
                Ok(EnterReply { player: Some(player), players }.encode_to_vec())
            }
            command::HALL_MOVE => {
                let MoveRequest { player_id, dx, dy } = decode(body)?;
                let position = self.hall.walk(player_id, dx, dy)?;
                Ok(MoveReply { position: Some(position) }.encode_to_vec())
            }
            command::HALL_SAY => {
                let SayRequest { player_id, text } = decode(body)?;
                self.hall.say(player_id, &text)?;
                Ok(Vec::new())
            }
            command::HALL_LOOK => {
                let players = self.hall.players().cloned().collect();
                let lines = self.hall.lines().cloned().collect();
                Ok(LookReply { players, lines }.encode_to_vec())
            }
            command::HALL_LEAVE => {
                self.hall.leave(decode::<LeaveRequest>(body)?.player_id)?;
                Ok(Vec::new())
            }
            command::FAIL => match decode(body)? {
                FailRequest { code: 0, .. } => Ok(Vec::new()),
                FailRequest { code: code @ 1..=16, message } => Err((code as u16, message)),
                _ => Err((INVALID_ARGUMENT, "a status code is a number from 0 to 16".into())),
            },
            // Frames carry no metadata.
            command::WHOAMI => {
                decode::<Empty>(body)?;
                Ok(WhoamiReply::default().encode_to_vec())
            }
            _ => Err((UNIMPLEMENTED, format!("no command {command}"))),
        }
    }
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, (u16, String)> {
    M::decode(body).map_err(|error| (INVALID_ARGUMENT, error.to_string()))
}

impl From<HallError> for (u16, String) {
    fn from(error: HallError) -> Self {
        (error.code() as u16, error.to_string())
    }
}

/// An error's body is its text.
fn write_answer(request: &Header, answer: Answer, output: &mut Vec<u8>) {
    match answer {
        Ok(body) => {
            Header { flags: Flags::REPLY, status: 0, ..*request }.write(&body, output);
        }
        Err((status, text)) => {
            let flags = Flags::REPLY | Flags::ERROR;
            Header { flags, status, ..*request }.write(text.as_bytes(), output);
        }
    }
}
