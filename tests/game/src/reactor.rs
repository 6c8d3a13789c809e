//! Many TCP connections on one thread, with as few system calls as there can be.
//!
//! One `read` for all that has arrived, one `write` for all that was produced: at tens of
//! thousands of calls a second on a shared core that is most of what a server costs. The
//! protocol on top is sans-I/O ([`Protocol`]).

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
/// One read takes at most this much.
const READ: usize = 256 * 1024;
/// A peer that does not read its replies is not read from either beyond this many bytes.
const MAX_UNSENT: usize = 4 * 1024 * 1024;

/// Ends a connection; what was produced so far is still sent, as far as the socket takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close;

/// What happens on connections. Ids are small numbers and are used again after `closed`.
pub trait Protocol {
    /// The state of one connection.
    type Connection;

    /// A connection was accepted.
    fn accepted(&mut self, id: usize) -> Self::Connection;

    /// Takes bytes and appends to `output` what to send. Returns how many bytes of `input` it
    /// is done with; the rest comes again with what follows.
    fn receive(
        &mut self,
        id: usize,
        connection: &mut Self::Connection,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize, Close>;

    /// The connection ended, by whomever.
    fn closed(&mut self, _id: usize, _connection: Self::Connection) {}
}

struct Socket<C> {
    stream: TcpStream,
    connection: C,
    /// Received, and not yet a whole frame.
    partial: Vec<u8>,
    unsent: Vec<u8>,
}

/// The event loop; `C` is the protocol's state of one connection.
pub struct Reactor<C> {
    poll: Poll,
    events: Events,
    listener: Option<TcpListener>,
    sockets: Vec<Option<Socket<C>>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    ready: Vec<usize>,
}

impl<C> Reactor<C> {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            listener: None,
            sockets: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; READ],
            ready: Vec::new(),
        })
    }

    /// Accepts connections from now on, and says where.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let mut listener = TcpListener::bind(address)?;
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let address = listener.local_addr()?;
        self.listener = Some(listener);
        Ok(address)
    }

    /// Adds an open connection to a server, set to non-blocking.
    pub fn add(&mut self, stream: std::net::TcpStream, connection: C) -> io::Result<usize> {
        stream.set_nonblocking(true)?;
        let id = self.vacant();
        self.register(id, TcpStream::from_std(stream), connection)?;
        Ok(id)
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.sockets.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The protocol's state of all open connections.
    pub fn connections(&self) -> impl Iterator<Item = &C> {
        self.sockets.iter().flatten().map(|socket| &socket.connection)
    }

    /// Sends what `produce` appends, if the connection is still there.
    pub fn send<P: Protocol<Connection = C>>(
        &mut self,
        protocol: &mut P,
        id: usize,
        produce: impl FnOnce(&mut P, &mut C, &mut Vec<u8>),
    ) {
        let Some(Some(socket)) = self.sockets.get_mut(id) else { return };
        produce(protocol, &mut socket.connection, &mut socket.unsent);
        if socket.flush().is_err() {
            self.close(protocol, id);
        }
    }

    /// Closes one connection.
    pub fn close<P: Protocol<Connection = C>>(&mut self, protocol: &mut P, id: usize) {
        let Some(socket) = self.sockets.get_mut(id).and_then(Option::take) else { return };
        self.free.push(id);
        protocol.closed(id, socket.connection);
    }

    /// Waits at most `timeout` for something to happen, and deals with all that did.
    pub fn turn<P: Protocol<Connection = C>>(
        &mut self,
        protocol: &mut P,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let mut ready = std::mem::take(&mut self.ready);
        let mut acceptable = false;
        for event in &self.events {
            match event.token() {
                LISTENER => acceptable = true,
                Token(id) => ready.push(id),
            }
        }
        for id in ready.drain(..) {
            if let Some(Some(socket)) = self.sockets.get_mut(id)
                && socket.serve(protocol, id, &mut self.scratch).is_err()
            {
                self.close(protocol, id);
            }
        }
        self.ready = ready;
        if acceptable {
            self.accept(protocol)?;
        }
        Ok(())
    }

    fn accept<P: Protocol<Connection = C>>(&mut self, protocol: &mut P) -> io::Result<()> {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    let id = self.vacant();
                    let connection = protocol.accepted(id);
                    self.register(id, stream, connection)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The peer gave up while it waited in the queue.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn vacant(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        })
    }

    fn register(&mut self, id: usize, mut stream: TcpStream, connection: C) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(id), interest)?;
        let socket = Socket { stream, connection, partial: Vec::new(), unsent: Vec::new() };
        self.sockets[id] = Some(socket);
        Ok(())
    }
}

impl<C> Socket<C> {
    /// Readiness is reported on changes only, so this goes on until the socket has no more to
    /// give, or the peer has too much left to read.
    fn serve<P: Protocol<Connection = C>>(
        &mut self,
        protocol: &mut P,
        id: usize,
        scratch: &mut [u8],
    ) -> Result<(), Close> {
        self.flush()?;
        while self.unsent.len() < MAX_UNSENT {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err(Close),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Close),
            };
            let taken = self.take(protocol, id, &scratch[..count]);
            self.flush()?;
            taken?;
            // A short read emptied the socket (epoll(7)); the next byte makes a new event.
            if count < scratch.len() {
                break;
            }
        }
        Ok(())
    }

    fn take<P: Protocol<Connection = C>>(
        &mut self,
        protocol: &mut P,
        id: usize,
        bytes: &[u8],
    ) -> Result<(), Close> {
        if self.partial.is_empty() {
            let done = protocol.receive(id, &mut self.connection, bytes, &mut self.unsent)?;
            self.partial.extend_from_slice(&bytes[done..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let (connection, unsent) = (&mut self.connection, &mut self.unsent);
            let done = protocol.receive(id, connection, &self.partial, unsent)?;
            self.partial.drain(..done);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Close> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Close),
            }
        }
        if sent == self.unsent.len() {
            self.unsent.clear();
        } else {
            self.unsent.drain(..sent);
        }
        Ok(())
    }
}
