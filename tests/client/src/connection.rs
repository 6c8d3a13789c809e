//! One connection, frame by frame.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};

use crate::attempt::{Attempt, cookie, with_cookie};
use crate::error::Error;
use crate::frame::{Flags, Frame, MAX_FRAME, command};
use crate::goodbye::Goodbye;
use crate::login::{Login, LoginReply};
use crate::seal::Seal;

/// Room for one read.
const READ: usize = 16 * 1024;

/// Both directions of a connection. Frames are sealed and opened by themselves after a Noise
/// login.
pub struct Connection {
    pub sender: Sender,
    pub receiver: Receiver,
}

/// The direction to the server.
pub struct Sender {
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    seal: Option<Seal>,
}

/// The direction from the server.
pub struct Receiver {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    seal: Option<Seal>,
    goodbye: Option<Goodbye>,
}

impl Connection {
    pub async fn connect(server: impl ToSocketAddrs) -> Result<Self, Error> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self::over(reader, writer))
    }

    /// Over any two streams of bytes: TLS, or the two ends of a pipe.
    pub fn over(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let buffer = BytesMut::with_capacity(READ);
        Self {
            sender: Sender { writer: Box::new(writer), seal: None },
            receiver: Receiver { reader: Box::new(reader), buffer, seal: None, goodbye: None },
        }
    }

    /// Connects and logs in, over a second connection with a cookie if the server asks for one.
    /// `None`: there was nothing to do.
    pub async fn enter(
        server: impl ToSocketAddrs,
        login: &Login,
    ) -> Result<(Self, Option<LoginReply>), Error> {
        let addresses: Vec<_> = lookup_host(server).await?.collect();
        let mut connection = Self::connect(&addresses[..]).await?;
        let Some(attempt) = Attempt::new(login)? else { return Ok((connection, None)) };
        let mut answer = connection.exchange(attempt.message.clone()).await;
        if let Some(cookie) = answer.as_ref().err().and_then(cookie) {
            let message = with_cookie(cookie, &attempt.message)?;
            connection = Self::connect(&addresses[..]).await?;
            answer = connection.exchange(message).await;
        }
        let reply = connection.finish(attempt, &answer?)?;
        Ok((connection, Some(reply)))
    }

    /// Logs in with sequence 0. `None`: there was nothing to do.
    pub async fn login(&mut self, login: &Login) -> Result<Option<LoginReply>, Error> {
        let Some(attempt) = Attempt::new(login)? else { return Ok(None) };
        let body = self.exchange(attempt.message.clone()).await?;
        self.finish(attempt, &body).map(Some)
    }

    fn finish(&mut self, attempt: Attempt, body: &[u8]) -> Result<LoginReply, Error> {
        let (reply, seals) = attempt.finish(body)?;
        if let Some((outgoing, incoming)) = seals {
            self.sender.seal = Some(outgoing);
            self.receiver.seal = Some(incoming);
        }
        Ok(reply)
    }

    /// Sends a login frame and waits for the body of its reply.
    pub async fn exchange(&mut self, body: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.send(&Frame::request(command::LOGIN, 0, body)).await?;
        let Frame { command, status, body, .. } = self.receiver.expect().await?;
        if command != command::LOGIN {
            return Err(Error::Handshake(format!("command {command} in place of a login reply")));
        }
        if status != 0 {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(Error::Refused { status, text });
        }
        Ok(body)
    }

    /// See [`Sender::send`].
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        self.sender.send(frame).await
    }

    /// See [`Sender::send_raw`].
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sender.send_raw(bytes).await
    }

    /// See [`Receiver::receive`].
    pub async fn receive(&mut self) -> Result<Option<Frame>, Error> {
        self.receiver.receive().await
    }
}

impl Sender {
    /// Sends one frame, sealed if the login agreed on keys.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        if frame.body.len() > MAX_FRAME - 64 {
            return Err(Error::TooLong);
        }
        let bytes = self.encode(frame);
        self.send_raw(&bytes).await
    }

    /// The bytes that `send` would send now. They count as sent: the next frame gets the next
    /// number.
    pub fn encode(&mut self, frame: &Frame) -> Vec<u8> {
        match &mut self.seal {
            Some(seal) => seal.seal(frame),
            None => frame.encode(),
        }
    }

    /// Sends any bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await?;
        Ok(())
    }

    /// Closes this direction: the server sees the end, and can still answer.
    pub async fn finish(&mut self) -> Result<(), Error> {
        Ok(self.writer.shutdown().await?)
    }
}

impl Receiver {
    /// The next frame; `None` when the server closed the connection between two frames.
    ///
    /// After a Noise login nothing but sealed frames is good, so everything else is an error.
    pub async fn receive(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer).map_err(Error::NotAFrame)? {
                let frame = match &mut self.seal {
                    Some(seal) => seal.open(frame).map_err(Error::Seal)?,
                    None => frame,
                };
                if frame.command == command::GOODBYE && !frame.flags.has(Flags::REPLY) {
                    self.goodbye = Some(Goodbye::read(&frame));
                }
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Error::NotAFrame("the connection ended within it")),
                };
            }
        }
    }

    /// The next frame; the end of the connection is an error.
    pub async fn expect(&mut self) -> Result<Frame, Error> {
        self.receive()
            .await?
            .ok_or_else(|| Error::Closed { goodbye: self.goodbye().map(str::to_owned) })
    }

    /// The text of the goodbye frame, once one was received.
    pub fn goodbye(&self) -> Option<&str> {
        self.goodbye.as_ref().map(|goodbye| &*goodbye.text)
    }

    /// The goodbye frame that came last.
    pub fn last_word(&self) -> Option<&Goodbye> {
        self.goodbye.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Flags;
    use crate::login::Credential;
    use crate::login::tests::Server;

    /// A client's end and a server's end.
    fn pair() -> (Connection, Connection) {
        let (client, server) = tokio::io::duplex(1024);
        let ((from_server, to_server), (from_client, to_client)) =
            (tokio::io::split(client), tokio::io::split(server));
        (Connection::over(from_server, to_server), Connection::over(from_client, to_client))
    }

    #[tokio::test]
    async fn frames_are_sealed_after_a_noise_login() {
        let (mut client, mut server) = pair();
        let keys = Server::new();
        let login = Login::Noise {
            server: keys.known_as.clone(),
            credential: Credential::Ticket("t".into()),
        };
        let serve = async {
            let request = server.receiver.expect().await.unwrap();
            let (_, body, incoming, outgoing) = keys.answer(&request.body).unwrap();
            server.send(&Frame { flags: Flags::REPLY, body, ..request }).await.unwrap();
            server.receiver.seal = Some(incoming);
            server.sender.seal = Some(outgoing);
            let request = server.receiver.expect().await.unwrap();
            assert_eq!(request.body, b"hello");
            server.send(&Frame { flags: Flags::REPLY, ..request }).await.unwrap();
            // A frame without a seal must not be believed.
            server.sender.seal = None;
            server.send(&Frame::request(7, 7, *b"plain")).await.unwrap();
        };
        let ask = async {
            assert_eq!(client.login(&login).await.unwrap().unwrap().user, "ada");
            client.send(&Frame::request(1100, 1, *b"hello")).await.unwrap();
            let reply = client.receiver.expect().await.unwrap();
            assert_eq!((reply.flags, reply.body), (Flags::REPLY, b"hello".to_vec()));
            assert!(matches!(client.receive().await, Err(Error::Seal(_))));
        };
        tokio::join!(serve, ask);
    }

    #[tokio::test]
    async fn a_refused_login_says_why() {
        let (mut client, mut server) = pair();
        let serve = async {
            let request = server.receiver.expect().await.unwrap();
            assert_eq!((request.command, &*request.body), (command::LOGIN, &b"t"[..]));
            let flags = Flags::REPLY.with(Flags::ERROR);
            let body = b"no such ticket".to_vec();
            server.send(&Frame { flags, status: 16, body, ..request }).await.unwrap();
        };
        let login = Login::Ticket(Credential::Ticket("t".into()));
        let (result, ()) = tokio::join!(client.login(&login), serve);
        assert!(
            matches!(result, Err(Error::Refused { status: 16, text }) if text == "no such ticket")
        );
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_an_error() {
        let (mut client, mut server) = pair();
        server.send_raw(b"MG\x01").await.unwrap();
        drop(server);
        assert!(matches!(client.receive().await, Err(Error::NotAFrame(_))));
    }
}
