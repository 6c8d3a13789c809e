//! gRPC callers of private servers: an Envoy with `egress.yaml`, and a caller that can do anything
//! that HTTP/2 allows, and more.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::Envoy;
use crate::envoy::Backends;
use crate::process::PATIENCE;

impl Envoy {
    /// Runs `egress.yaml` before two private servers, with edits.
    pub fn egress(first: SocketAddr, second: SocketAddr, edits: &[(&str, &str)]) -> Result<Self> {
        let first_port = format!("port_value: {}", first.port());
        let (a, b) = (format!("{first}\""), format!("{second}\""));
        let mut all = vec![
            ("port_value: 7001", "port_value: 0"),
            ("port_value: 7800", &first_port),
            ("127.0.0.1:7800\"", &a),
            ("127.0.0.1:7801\"", &b),
        ];
        all.extend(edits);
        Self::start("egress.yaml", Backends::default(), &all)
    }
}

/// An ordinary tonic client.
pub async fn connect(address: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::new(format!("http://{address}"))?.connect().await?)
}

/// A caller that speaks HTTP/2 by hand.
#[derive(Clone, Debug)]
pub struct Caller {
    send: SendRequest<Bytes>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this `grpc-status`, after these bytes of messages.
    Status(u16, String, Vec<u8>),
    /// By RST_STREAM, GOAWAY or the connection's end.
    Broken(String),
}

impl Outcome {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status, ..) => Some(*status),
            Self::Broken(_) => None,
        }
    }
}

impl Caller {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // With a small window h2 takes a burst of small answers for an attack; libraries set a large one.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(4 << 20);
        let (send, connection) = builder.handshake(stream).await?;
        tokio::spawn(async move {
            // What goes wrong shows in the calls.
            let _ = connection.await;
        });
        Ok(Self { send })
    }

    /// Begins a call; `more` are further header fields.
    pub async fn begin(
        &self,
        path: &str,
        more: &[(&'static str, &str)],
    ) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("http://game{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let mut send = self.send.clone().ready().await?;
        Ok(send.send_request(request.body(())?, false)?)
    }

    /// A call with these bytes for a body, gRPC's prefixes included.
    pub async fn call(
        &self,
        path: &str,
        more: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Outcome> {
        let (response, mut stream) = self.begin(path, more).await?;
        // Refused before all of it was taken: the answer tells.
        let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        Ok(outcome(response).await)
    }
}

/// How a call ends, within the patience of a test.
pub async fn outcome(response: ResponseFuture) -> Outcome {
    match tokio::time::timeout(PATIENCE, read(response)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Broken(format!("{error:#}")),
        Err(_) => Outcome::Broken("nothing came".into()),
    }
}

async fn read(response: ResponseFuture) -> Result<Outcome> {
    let response: Response<RecvStream> = response.await?;
    if response.status() != 200 {
        bail!("HTTP status {}", response.status());
    }
    let head = response.headers().clone();
    let mut stream = response.into_body();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers: HeaderMap = stream.trailers().await?.unwrap_or(head);
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status").context("no grpc-status")?.parse()?;
    Ok(Outcome::Status(status, text("grpc-message").unwrap_or_default().into(), body))
}

/// A message with gRPC's prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// How long nothing may come before a caller's deadline is over, with some for a busy machine.
pub const DEADLINE_SLACK: Duration = Duration::from_millis(1500);
