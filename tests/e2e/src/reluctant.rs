//! A gRPC service that takes nothing until it is told to: for back-pressure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

/// What it does while it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// It reads nothing from its connections.
    Deaf,
    /// It reads, makes no room in its windows, and sends one PING after another.
    Full,
    /// It does so with the streams of one method alone, and serves all others.
    In(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Echo,
    /// As many bytes.
    Large(usize),
}

/// As few streams at once as a modest server allows: the other calls wait in the filter.
const CONCURRENT: u32 = 16;

/// Any method is an echo of field 1 of its request, or an answer of a given size. The answers of
/// one connection go out one after another, in any order.
#[derive(Debug)]
pub struct Reluctant {
    pub address: SocketAddr,
    awake: watch::Sender<bool>,
    pings: Arc<AtomicUsize>,
}

impl Reluctant {
    /// Sleeps, then echoes.
    pub async fn asleep(sleep: Sleep) -> Result<Self> {
        Self::start(false, sleep, Answer::Echo).await
    }

    /// Answers every call with a body of `size` bytes.
    pub async fn verbose(size: usize) -> Result<Self> {
        Self::start(true, Sleep::Full, Answer::Large(size)).await
    }

    async fn start(awake: bool, sleep: Sleep, answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (awake, wake) = watch::channel(awake);
        let pings = Arc::new(AtomicUsize::new(0));
        let counted = pings.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, wake.clone(), sleep, answer, counted.clone()));
            }
        });
        Ok(Self { address, awake, pings })
    }

    pub fn wake(&self) {
        self.awake.send_replace(true);
    }

    /// PINGs that were answered, on all connections.
    pub fn pings(&self) -> usize {
        self.pings.load(Ordering::Relaxed)
    }
}

async fn serve(
    stream: TcpStream,
    mut wake: watch::Receiver<bool>,
    sleep: Sleep,
    answer: Answer,
    pings: Arc<AtomicUsize>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    if sleep == Sleep::Deaf {
        wake.wait_for(|awake| *awake).await?;
    }
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(CONCURRENT)
        .handshake::<_, Bytes>(stream)
        .await?;
    if sleep == Sleep::Full && !*wake.borrow() {
        let ping_pong = connection.ping_pong().context("taken")?;
        tokio::spawn(ping(ping_pong, wake.clone(), pings));
    }
    let turn = Arc::new(Mutex::new(()));
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let sleeps = match sleep {
            Sleep::In(method) => request.uri().path() == method,
            Sleep::Deaf | Sleep::Full => true,
        };
        let wake = sleeps.then(|| wake.clone());
        tokio::spawn(call(request, respond, wake, answer, turn.clone()));
    }
    Ok(())
}

async fn ping(
    mut ping_pong: PingPong,
    wake: watch::Receiver<bool>,
    pings: Arc<AtomicUsize>,
) -> Result<()> {
    while !*wake.borrow() {
        ping_pong.ping(Ping::opaque()).await?;
        pings.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    wake: Option<watch::Receiver<bool>>,
    answer: Answer,
    turn: Arc<Mutex<()>>,
) -> Result<()> {
    if let Some(mut wake) = wake {
        wake.wait_for(|awake| *awake).await?;
    }
    let message = receive(request.into_body()).await?;
    let message = match answer {
        Answer::Echo => message,
        Answer::Large(size) => framed(&noise(size)),
    };
    let _turn = turn.lock().await;
    let response = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(response, false)?;
    send(&mut stream, message.into()).await?;
    let status = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    stream.send_trailers(status)?;
    Ok(())
}

async fn receive(mut body: RecvStream) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message.extend_from_slice(&chunk);
    }
    Ok(message)
}

/// Sends as the peer's windows admit.
async fn send(stream: &mut SendStream<Bytes>, mut message: Bytes) -> Result<()> {
    while !message.is_empty() {
        stream.reserve_capacity(message.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let room = room.context("the stream is over")??;
        stream.send_data(message.split_to(room.min(message.len())), false)?;
    }
    Ok(())
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// A gRPC message whose field 1 is `body`.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut message = vec![0x0a];
    prost::encoding::encode_varint(body.len() as u64, &mut message);
    message.extend_from_slice(body);
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}
