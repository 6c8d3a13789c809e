//! Calls in any order over one connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use tokio::net::ToSocketAddrs;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::connection::{Connection, Receiver, Sender};
use crate::error::{CallError, Error};
use crate::frame::{Flags, Frame, command};
use crate::goodbye::{Goodbye, Return};
use crate::login::{Login, LoginReply};

/// Pushes that nobody fetched; beyond them the connection is no longer read.
const MAX_PUSHES: usize = 1024;

/// A logged-in client. Clones share the connection, which closes with the last of them.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// An open stream. Its messages have to be taken: too many that are not stop the reading of the
/// connection.
pub struct Stream {
    client: Client,
    sequence: u32,
    /// Of a message, and of the end.
    commands: (u32, u32),
    coming: mpsc::Receiver<Frame>,
}

impl Stream {
    pub async fn send(&self, body: impl Into<Vec<u8>>) -> Result<(), CallError> {
        self.client.send(&Frame::request(self.commands.0, self.sequence, body)).await
    }

    /// Ends this side, after one more message if `body` is not empty.
    pub async fn close(&self, body: impl Into<Vec<u8>>) -> Result<(), CallError> {
        self.client.send(&Frame::request(self.commands.1, self.sequence, body)).await
    }

    /// The next message, which is a push, or the reply that ends the stream.
    pub async fn next(&mut self) -> Result<Frame, CallError> {
        self.coming.recv().await.ok_or_else(|| self.client.shared.closed_error())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.client.shared.waiting.remove(self.sequence);
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The text of the goodbye frame, if there was one.
    pub goodbye: Option<String>,
    /// What was wrong, unless the server closed in good order.
    pub error: Option<String>,
    /// What the goodbye says of coming back.
    pub back: Option<Return>,
}

struct Shared {
    sender: Mutex<Sender>,
    session: Option<LoginReply>,
    sequence: AtomicU32,
    waiting: Arc<Waiting>,
    pushes: Mutex<mpsc::Receiver<Frame>>,
    closed: watch::Receiver<Option<Closed>>,
    asked: watch::Receiver<Option<Return>>,
    reading: tokio::task::JoinHandle<()>,
}

/// Who waits for which sequence; `None` once no answer can come any more.
struct Waiting(SyncMutex<Option<HashMap<u32, Waiter>>>);

enum Waiter {
    /// For a reply.
    Call(oneshot::Sender<Frame>),
    /// For messages, and then a reply.
    Stream(mpsc::Sender<Frame>),
}

impl Client {
    /// Connects and logs in, with a cookie if it takes one.
    pub async fn connect(server: impl ToSocketAddrs, login: &Login) -> Result<Self, Error> {
        let (connection, session) = Connection::enter(server, login).await?;
        Ok(Self::with(connection, session))
    }

    /// Logs in over a connection that is open already.
    pub async fn over(mut connection: Connection, login: &Login) -> Result<Self, Error> {
        let session = connection.login(login).await?;
        Ok(Self::with(connection, session))
    }

    fn with(connection: Connection, session: Option<LoginReply>) -> Self {
        let Connection { sender, receiver } = connection;
        let waiting = Arc::new(Waiting(SyncMutex::new(Some(HashMap::new()))));
        let (push, pushes) = mpsc::channel(MAX_PUSHES);
        let (report, closed) = watch::channel(None);
        let (ask, asked) = watch::channel(None);
        let reading = tokio::spawn(read(receiver, waiting.clone(), push, report, ask));
        let shared = Shared {
            sender: Mutex::new(sender),
            session,
            sequence: AtomicU32::new(1),
            waiting,
            pushes: Mutex::new(pushes),
            closed,
            asked,
            reading,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the server said to the login; `None` for [`Login::None`].
    pub fn session(&self) -> Option<&LoginReply> {
        self.shared.session.as_ref()
    }

    /// How to go on with this session over another connection; `login` is how it began.
    pub fn resumption(&self, login: &Login) -> Option<Login> {
        let token = self.session()?.resume.clone()?;
        match login.clone() {
            Login::None => None,
            Login::Ticket(credential) | Login::ResumeTicket { credential, .. } => {
                Some(Login::ResumeTicket { credential, token })
            }
            Login::Noise { server, .. } | Login::ResumeNoise { server, .. } => {
                Some(Login::ResumeNoise { server, token })
            }
        }
    }

    /// Calls and waits for the reply's body, however long it takes.
    pub async fn call(&self, command: u32, body: impl Into<Vec<u8>>) -> Result<Vec<u8>, CallError> {
        let reply = self.call_frame(Frame::request(command, 0, body)).await?;
        if reply.status != 0 || reply.flags.has(Flags::ERROR) {
            let status = reply.status;
            let text = reply.into_body().ok_or(CallError::Compression)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            return Err(CallError::Status { status, text });
        }
        reply.into_body().ok_or(CallError::Compression)
    }

    /// Ends the session, not the connection alone, and waits until the proxy knows.
    pub async fn log_out(&self) -> Result<(), CallError> {
        self.call(command::GOODBYE, vec![]).await.map(drop)
    }

    /// Sends `frame` with a sequence of its own and waits for the reply as it is.
    pub async fn call_frame(&self, frame: Frame) -> Result<Frame, CallError> {
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        if !self.shared.waiting.add(sequence, Waiter::Call(answer)) {
            return Err(self.shared.closed_error());
        }
        // Taken back if the caller gives up: a late reply is then nobody's.
        let _place = Place { waiting: &self.shared.waiting, sequence };
        self.send(&Frame { sequence, ..frame }).await?;
        answered.await.map_err(|_| self.shared.closed_error())
    }

    /// Opens a stream of messages both ways: `body`, unless it is empty, is its first, further ones
    /// go out with the command `send`, and `close` ends them.
    pub async fn open(
        &self,
        command: u32,
        send: u32,
        close: u32,
        body: impl Into<Vec<u8>>,
    ) -> Result<Stream, CallError> {
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        let (messages, coming) = mpsc::channel(MAX_PUSHES);
        if !self.shared.waiting.add(sequence, Waiter::Stream(messages)) {
            return Err(self.shared.closed_error());
        }
        let stream = Stream { client: self.clone(), sequence, commands: (send, close), coming };
        self.send(&Frame::request(command, sequence, body)).await?;
        Ok(stream)
    }

    /// Sends a request that wants no answer.
    pub async fn one_way(&self, command: u32, body: impl Into<Vec<u8>>) -> Result<(), CallError> {
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        let frame = Frame::request(command, sequence, body);
        self.send(&Frame { flags: Flags::ONE_WAY, ..frame }).await
    }

    /// Sends a frame as it is, sealed if the login agreed on keys; its answer, if its sequence
    /// is nobody's, comes as a push.
    pub async fn send(&self, frame: &Frame) -> Result<(), CallError> {
        let sent = self.shared.sender.lock().await.send(frame).await;
        match sent {
            Ok(()) => Ok(()),
            Err(Error::TooLong) => Err(CallError::TooLong),
            // Why, the server may have said: what it sent last is read before this is told.
            Err(_) => Err(CallError::Closed { goodbye: self.closed().await.goodbye }),
        }
    }

    /// Sends any bytes as they are.
    pub async fn send_raw(&self, bytes: &[u8]) -> Result<(), CallError> {
        let sent = self.shared.sender.lock().await.send_raw(bytes).await;
        sent.map_err(|_| self.shared.closed_error())
    }

    /// The next frame that answers no call of this client; `None` when the connection ended.
    pub async fn next_push(&self) -> Option<Frame> {
        self.shared.pushes.lock().await.recv().await
    }

    /// Waits until the server asks this client to leave, while it still serves it; for ever if the
    /// connection ends before.
    pub async fn asked_to_leave(&self) -> Return {
        let mut asked = self.shared.asked.clone();
        match asked.wait_for(Option::is_some).await.ok().and_then(|back| back.clone()) {
            Some(back) => back,
            None => std::future::pending().await,
        }
    }

    /// Closes this side: calls in flight are answered, then the connection ends.
    pub async fn finish(&self) -> Result<(), Error> {
        self.shared.sender.lock().await.finish().await
    }

    /// Waits for the connection's end.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.shared.closed.clone();
        let end = closed.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(Closed { goodbye: None, error: None, back: None })
    }
}

impl Shared {
    fn closed_error(&self) -> CallError {
        let goodbye = self.closed.borrow().as_ref().and_then(|closed| closed.goodbye.clone());
        CallError::Closed { goodbye }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Waiting {
    fn with<T>(&self, f: impl FnOnce(&mut Option<HashMap<u32, Waiter>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `false`: the connection has ended.
    fn add(&self, sequence: u32, waiter: Waiter) -> bool {
        self.with(|open| open.as_mut().map(|open| open.insert(sequence, waiter)).is_some())
    }

    fn remove(&self, sequence: u32) -> Option<Waiter> {
        self.with(|open| open.as_mut()?.remove(&sequence))
    }

    /// The stream that this push is a message of.
    fn stream(&self, sequence: u32) -> Option<mpsc::Sender<Frame>> {
        self.with(|open| match open.as_ref()?.get(&sequence)? {
            Waiter::Stream(messages) => Some(messages.clone()),
            Waiter::Call(_) => None,
        })
    }
}

/// A place among those who wait.
struct Place<'a> {
    waiting: &'a Waiting,
    sequence: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.remove(self.sequence);
    }
}

async fn read(
    mut receiver: Receiver,
    waiting: Arc<Waiting>,
    push: mpsc::Sender<Frame>,
    report: watch::Sender<Option<Closed>>,
    ask: watch::Sender<Option<Return>>,
) {
    let error = loop {
        match receiver.receive().await {
            Ok(Some(frame))
                if frame.command == command::GOODBYE && !frame.flags.has(Flags::REPLY) =>
            {
                let back = Goodbye::read(&frame).back.filter(|back| back.served);
                if back.is_some() {
                    ask.send_replace(back);
                }
            }
            Ok(Some(frame)) => {
                let waiter = match frame.flags.has(Flags::PUSH) {
                    true => waiting.stream(frame.sequence).map(Waiter::Stream),
                    false => waiting.remove(frame.sequence),
                };
                match waiter {
                    Some(Waiter::Call(answer)) => drop(answer.send(frame)),
                    Some(Waiter::Stream(messages)) => drop(messages.send(frame).await),
                    None => drop(push.send(frame).await),
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    // One that was no goodbye to this connection's service says nothing of its end.
    let last = receiver.last_word().filter(|last| !last.back.as_ref().is_some_and(|b| b.served));
    let goodbye = last.map(|last| last.text.clone());
    let back = last.and_then(|last| last.back.clone());
    report.send_replace(Some(Closed { goodbye, error, back }));
    // Whoever waits is told now, and nobody comes after them.
    waiting.with(|open| drop(open.take()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client and the server's end of its connection.
    async fn pair() -> (Client, Connection) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let ((from_server, to_server), (from_client, to_client)) =
            (tokio::io::split(client), tokio::io::split(server));
        let client = Client::over(Connection::over(from_server, to_server), &Login::None).await;
        (client.unwrap(), Connection::over(from_client, to_client))
    }

    fn reply(request: Frame) -> Frame {
        Frame { flags: Flags::REPLY, ..request }
    }

    #[tokio::test]
    async fn replies_find_their_calls_in_any_order() {
        let (client, mut server) = pair().await;
        let serve = async {
            let first = server.receiver.expect().await.unwrap();
            let second = server.receiver.expect().await.unwrap();
            server.send(&reply(second)).await.unwrap();
            server.send(&reply(first)).await.unwrap();
        };
        let (one, two, ()) =
            tokio::join!(client.call(1101, *b"one"), client.call(1102, *b"two"), serve);
        assert_eq!((one.unwrap(), two.unwrap()), (b"one".to_vec(), b"two".to_vec()));
    }

    #[tokio::test]
    async fn an_error_frame_is_an_error() {
        let (client, mut server) = pair().await;
        let serve = async {
            let request = server.receiver.expect().await.unwrap();
            let flags = Flags::REPLY.with(Flags::ERROR);
            let body = b"no".to_vec();
            server.send(&Frame { flags, status: 5, body, ..request }).await.unwrap();
        };
        let (result, ()) = tokio::join!(client.call(1101, *b""), serve);
        assert_eq!(result.unwrap_err().to_string(), "status 5: no");
    }

    #[tokio::test]
    async fn a_compressed_reply_is_read() {
        let (client, mut server) = pair().await;
        let serve = async {
            let request = server.receiver.expect().await.unwrap();
            server.send(&reply(request).compress()).await.unwrap();
        };
        let (result, ()) = tokio::join!(client.call(1101, vec![b'x'; 1000]), serve);
        assert_eq!(result.unwrap(), vec![b'x'; 1000]);
    }

    #[tokio::test]
    async fn one_way_frames_and_pushes_stand_for_themselves() {
        let (client, mut server) = pair().await;
        client.one_way(1003, *b"hi").await.unwrap();
        let frame = server.receiver.expect().await.unwrap();
        assert_eq!((frame.flags, frame.command), (Flags::ONE_WAY, 1003));
        // A push may carry any sequence, also one that a call waits for.
        let serve = async {
            let request = server.receiver.expect().await.unwrap();
            let push = Frame { flags: Flags::PUSH, command: 9, ..request.clone() };
            server.send(&push).await.unwrap();
            server.send(&reply(request)).await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.call(1101, *b"call"), serve);
        assert_eq!(answer.unwrap(), b"call");
        assert_eq!(client.next_push().await.unwrap().command, 9);
    }

    #[tokio::test]
    async fn a_stream_has_its_messages_to_itself_and_its_reply_ends_it() {
        let (client, mut server) = pair().await;
        let mut stream = client.open(1300, 1301, 1302, *b"hello").await.unwrap();
        stream.send(*b"more").await.unwrap();
        stream.close(vec![]).await.unwrap();
        let mut commands = Vec::new();
        for _ in 0..3 {
            let frame = server.receiver.expect().await.unwrap();
            commands.push((frame.command, frame.sequence, frame.body));
        }
        let sequence = commands[0].1;
        let expected = [(1300, b"hello".to_vec()), (1301, b"more".to_vec()), (1302, vec![])];
        assert_eq!(commands, expected.map(|(command, body)| (command, sequence, body)));
        let message = Frame::request(1303, sequence, *b"heard");
        let push = |frame: Frame| Frame { flags: Flags::PUSH, ..frame };
        server.send(&push(message)).await.unwrap();
        server.send(&push(Frame::request(9, sequence + 1, *b"for nobody"))).await.unwrap();
        server.send(&reply(Frame::request(1300, sequence, vec![]))).await.unwrap();
        assert_eq!(stream.next().await.unwrap().body, b"heard");
        assert!(stream.next().await.unwrap().flags.has(Flags::REPLY));
        assert_eq!(client.next_push().await.unwrap().command, 9);
        drop(server);
        assert!(stream.next().await.is_err());
    }

    #[tokio::test]
    async fn a_goodbye_reaches_every_call_in_flight() {
        let (client, mut server) = pair().await;
        let serve = async {
            server.receiver.expect().await.unwrap();
            server.receiver.expect().await.unwrap();
            let goodbye = Frame::request(command::GOODBYE, 0, *b"kicked");
            server.send(&Frame { flags: Flags::PUSH, ..goodbye }).await.unwrap();
            drop(server);
        };
        let (one, two, ()) = tokio::join!(client.call(1101, *b""), client.call(1101, *b""), serve);
        for result in [one, two, client.call(1101, *b"").await] {
            let goodbye = Some("kicked".to_owned());
            assert!(matches!(result, Err(CallError::Closed { goodbye: text }) if text == goodbye));
        }
        let goodbye = Some("kicked".to_owned());
        assert_eq!(client.closed().await, Closed { goodbye, error: None, back: None });
        assert_eq!(client.next_push().await, None);
    }

    #[tokio::test]
    async fn the_last_clone_closes_the_connection() {
        let (client, mut server) = pair().await;
        drop(client.clone());
        drop(client);
        assert!(server.receive().await.unwrap().is_none());
    }
}
