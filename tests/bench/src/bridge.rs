//! The founding design, for comparison: a bridge as a process of its own beside Envoy.
//!
//! Private frames come in, gRPC calls go out through the Envoy beside it. One thread, like the
//! Envoy worker it is held against; one HTTP/2 connection (crate `h2`) carries the calls of all
//! clients, so that busy clients share reads and writes; replies that are ready together leave
//! with one write.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use meshgate_game::private::{Flags, HEADER, Header, command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Calls of one client at the same time; further frames wait to be read.
const MAX_IN_FLIGHT: usize = 128;
/// Flow control windows, as gRPC implementations set them on fast networks.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Room for one read.
const READ: usize = 64 * 1024;
/// The length prefix of a gRPC message.
const PREFIX: usize = 5;

const UNKNOWN: u16 = 2;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const UNIMPLEMENTED: u16 = 12;

/// Where a command goes.
struct Methods {
    by_command: HashMap<u32, Uri>,
    headers: HeaderMap,
}

/// A reply and the place that its call took.
type Reply = (Header, Bytes, OwnedSemaphorePermit);
/// What a call answers: the message, or status and text.
type Answer = Result<Bytes, (u16, String)>;

/// Serves for ever.
pub async fn serve(listener: TcpListener, upstream: SocketAddr) -> Result<()> {
    let methods = Arc::new(Methods::new(upstream)?);
    let calls = connect(upstream).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let (reply, replies) = mpsc::channel(MAX_IN_FLIGHT);
        tokio::spawn(write(writer, replies));
        tokio::spawn(read(reader, reply, calls.clone(), methods.clone()));
    }
}

async fn connect(upstream: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (calls, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false)
        .handshake(stream)
        .await?;
    tokio::spawn(async move {
        // Whoever calls then is told UNAVAILABLE; what supervises the bridge starts another.
        if let Err(error) = connection.await {
            eprintln!("the connection to {upstream} ended: {error}");
        }
        std::process::exit(1);
    });
    Ok(calls)
}

/// Frames of one client, until it closes or sends something else.
async fn read(
    mut reader: OwnedReadHalf,
    reply: mpsc::Sender<Reply>,
    calls: SendRequest<Bytes>,
    methods: Arc<Methods>,
) {
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut buffer = BytesMut::new();
    loop {
        while let Ok(header) = Header::parse(&buffer) {
            let Some(header) = header.filter(|header| header.length <= buffer.len()) else {
                break;
            };
            let message = buffer.split_to(header.length).freeze().slice(HEADER..);
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (reply, calls, methods) = (reply.clone(), calls.clone(), methods.clone());
            tokio::spawn(async move {
                let answer = methods.call(calls, header.command, message).await;
                if header.flags & Flags::ONE_WAY == 0 {
                    let (header, body) = frame(&header, answer);
                    let _ = reply.send((header, body, place)).await;
                }
            });
        }
        if Header::parse(&buffer).is_err() {
            return;
        }
        buffer.reserve(READ);
        if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// Writes replies, all that are ready with one write.
async fn write(mut writer: OwnedWriteHalf, mut replies: mpsc::Receiver<Reply>) {
    let mut ready = Vec::new();
    let mut output = Vec::new();
    while replies.recv_many(&mut ready, MAX_IN_FLIGHT).await > 0 {
        for (header, body, _place) in ready.drain(..) {
            header.write(&body, &mut output);
        }
        if writer.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
    }
}

fn frame(request: &Header, answer: Answer) -> (Header, Bytes) {
    match answer {
        Ok(message) => (Header { flags: Flags::REPLY, status: 0, ..*request }, message),
        Err((status, text)) => {
            let flags = Flags::REPLY | Flags::ERROR;
            (Header { flags, status, ..*request }, text.into())
        }
    }
}

impl Methods {
    fn new(authority: SocketAddr) -> Result<Self> {
        let table = [
            (command::ECHO, "/demo.v1.Echo/Echo"),
            (command::SLOW, "/demo.v1.Echo/Slow"),
            (command::FAIL, "/demo.v1.Echo/Fail"),
            (command::WHOAMI, "/demo.v1.Echo/Whoami"),
            (command::HALL_ENTER, "/demo.v1.Hall/Enter"),
            (command::HALL_MOVE, "/demo.v1.Hall/Move"),
            (command::HALL_SAY, "/demo.v1.Hall/Say"),
            (command::HALL_LOOK, "/demo.v1.Hall/Look"),
            (command::HALL_LEAVE, "/demo.v1.Hall/Leave"),
        ];
        let mut by_command = HashMap::new();
        for (command, path) in table {
            let uri = format!("http://{authority}{path}").parse().context("no URI")?;
            by_command.insert(command, uri);
        }
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (header::TE, HeaderValue::from_static("trailers")),
            (header::USER_AGENT, HeaderValue::from_static("native-bridge")),
        ];
        Ok(Self { by_command, headers: HeaderMap::from_iter(headers) })
    }

    async fn call(&self, calls: SendRequest<Bytes>, command: u32, message: Bytes) -> Answer {
        let Some(uri) = self.by_command.get(&command) else {
            return Err((UNIMPLEMENTED, format!("no command {command}")));
        };
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        let mut prefixed = BytesMut::with_capacity(PREFIX + message.len());
        prefixed.extend_from_slice(&[0]);
        prefixed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        prefixed.extend_from_slice(&message);
        let lost = |error: h2::Error| (UNAVAILABLE, error.to_string());
        let mut calls = calls.ready().await.map_err(lost)?;
        let (response, mut stream) = calls.send_request(request, false).map_err(lost)?;
        stream.send_data(prefixed.freeze(), true).map_err(lost)?;
        answer(response).await.map_err(lost)?
    }
}

/// The message of a response, or its status (gRPC over HTTP/2, "Responses").
async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    if head.headers.contains_key("grpc-status") {
        return Ok(status(&head.headers).map(|()| Bytes::new()));
    }
    let mut message = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        message.extend_from_slice(&part);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    if let Err(status) = status(&trailers) {
        return Ok(Err(status));
    }
    Ok(match message.len() {
        0..PREFIX => Err((INTERNAL, "a response without a message".into())),
        _ => Ok(message.freeze().slice(PREFIX..)),
    })
}

fn status(headers: &HeaderMap) -> Result<(), (u16, String)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        status => {
            let message = percent_decode(text("grpc-message").unwrap_or_default());
            Err((status.unwrap_or(UNKNOWN), message))
        }
    }
}

/// Status messages are percent-encoded; what is not is kept as it is.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
