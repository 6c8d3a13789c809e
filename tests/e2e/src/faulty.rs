//! A private server (layout `game`) that does wrong what it is asked to: the body of an echo names
//! the fault.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use meshgate_client::{Flags, Frame};
use meshgate_game::demo::v1::{EchoRequest, Line};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::command;

/// What an echo's body can ask for. Any other body comes back.
pub mod fault {
    /// Bytes that are no frame.
    pub const GARBAGE: &str = "garbage";
    /// A length that no frame has.
    pub const WRONG_LENGTH: &str = "wrong length";
    /// A reply to nothing, and none to the call.
    pub const WRONG_SEQUENCE: &str = "wrong sequence";
    /// A reply with another command.
    pub const WRONG_COMMAND: &str = "wrong command";
    /// Half of the reply, and then silence.
    pub const HALF: &str = "half";
    /// Half of the reply, and then the end of the connection.
    pub const CUT: &str = "cut";
    /// The end of the connection in the place of a reply.
    pub const CLOSE: &str = "close";
    /// The same, by RST.
    pub const ABORT: &str = "abort";
    /// No reply; everything else is answered.
    pub const SILENCE: &str = "silence";
    /// No reply to anything from here on.
    pub const HANG: &str = "hang";
    /// A push before the reply.
    pub const PUSH: &str = "push";
    /// A reply whose body says that it is compressed, and is not.
    pub const BAD_BODY: &str = "bad body";
    /// The reply twice.
    pub const TWICE: &str = "twice";
    /// A request of the server's own before the reply.
    pub const REQUEST: &str = "request";
    /// 24 MB of pushes before the reply.
    pub const FLOOD: &str = "flood";
}

/// A server that is stopped with its owner.
#[derive(Debug)]
pub struct Faulty {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    serving: tokio::task::JoinHandle<()>,
}

/// What came, on all connections.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    echoes: AtomicUsize,
    cancels: AtomicUsize,
    realm: AtomicUsize,
}

impl Faulty {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let counted = seen.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, counted.clone()));
            }
        });
        Ok(Self { address, seen, serving })
    }

    /// Takes no further connection; those that there are go on.
    pub async fn stop_listening(&mut self) {
        self.serving.abort();
        // It ends by being aborted, which is what an error says here.
        let _ = (&mut self.serving).await;
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Echoes that were asked for.
    pub fn echoes(&self) -> usize {
        self.seen.echoes.load(Ordering::Relaxed)
    }

    pub fn cancels(&self) -> usize {
        self.seen.cancels.load(Ordering::Relaxed)
    }

    /// The last header field of the last echo.
    pub fn realm(&self) -> usize {
        self.seen.realm.load(Ordering::Relaxed)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut header = [0; HEADER];
    let mut hangs = false;
    while stream.read_exact(&mut header).await.is_ok() {
        let number =
            |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let (length, command, sequence) = (number(4) as usize, number(8), number(12));
        let mut body = vec![0; length - HEADER];
        stream.read_exact(&mut body).await?;
        let reply = |command, sequence, flags, body: &[u8]| {
            Frame { flags, ..Frame::request(command, sequence, body.to_vec()) }.encode()
        };
        let good = reply(command, sequence, Flags::REPLY, &body);
        if command == command::CANCEL {
            seen.cancels.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if hangs {
            continue;
        }
        if command == command::LOGIN && (body == b"stranger" || body == b"unwelcome") {
            let refused = Frame { status: 16, ..Frame::request(command, sequence, body.clone()) };
            let flags = Flags::REPLY.with(Flags::ERROR);
            stream.write_all(&Frame { flags, ..refused }.encode()).await?;
            if body == b"unwelcome" {
                // About when the other side closes, sooner or later each time.
                let after = seen.connections.load(Ordering::Relaxed) % 12;
                tokio::time::sleep(Duration::from_millis(after as u64)).await;
                return close(stream).await;
            }
            continue;
        }
        let mut wanted = String::new();
        if command == command::ECHO {
            seen.echoes.fetch_add(1, Ordering::Relaxed);
            let realm = u16::from_be_bytes([header[18], header[19]]);
            seen.realm.store(realm.into(), Ordering::Relaxed);
            let asked = EchoRequest::decode(&body[..])?.body;
            wanted = String::from_utf8_lossy(&asked).into_owned();
        }
        let answer = match wanted.as_str() {
            fault::GARBAGE => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            fault::WRONG_LENGTH => {
                let mut wrong = good;
                wrong[4..8].copy_from_slice(&7u32.to_be_bytes());
                wrong
            }
            fault::WRONG_SEQUENCE => reply(command, sequence + 1000, Flags::REPLY, &body),
            fault::WRONG_COMMAND => reply(command::FAIL, sequence, Flags::REPLY, &body),
            fault::HALF => {
                hangs = true;
                good[..HEADER + 3].to_vec()
            }
            fault::CUT => {
                stream.write_all(&good[..HEADER + 3]).await?;
                return close(stream).await;
            }
            fault::CLOSE => return close(stream).await,
            fault::ABORT => {
                stream.set_zero_linger()?;
                return Ok(());
            }
            fault::SILENCE => continue,
            fault::HANG => {
                hangs = true;
                continue;
            }
            fault::PUSH => {
                let line = Line { player_id: 0, text: "news".into() }.encode_to_vec();
                let push = reply(command::LINE, 0, Flags::PUSH, &line);
                [push, good].concat()
            }
            fault::BAD_BODY => {
                reply(command, sequence, Flags::REPLY.with(Flags::COMPRESSED), b"not zlib")
            }
            fault::TWICE => [&good[..], &good].concat(),
            fault::REQUEST => [reply(command, sequence, Flags::NONE, &body), good].concat(),
            fault::FLOOD => {
                let line = Line { player_id: 0, text: "x".repeat(60_000) }.encode_to_vec();
                let push = reply(command::LINE, 0, Flags::PUSH, &line);
                for _ in 0..400 {
                    stream.write_all(&push).await?;
                }
                good
            }
            _ => good,
        };
        stream.write_all(&answer).await?;
    }
    Ok(())
}

/// Closes as a server does that has read everything: with a FIN, not a RST.
async fn close(mut stream: TcpStream) -> Result<()> {
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

/// The header of layout `game`, in bytes.
const HEADER: usize = 20;
