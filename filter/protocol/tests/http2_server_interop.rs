//! The server leg against the client role of crate `h2`, over a pipe in memory.
#![cfg(not(target_family = "wasm"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

use std::rc::Rc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use meshgate_protocol::call::Code;
use meshgate_protocol::grpc::server::{Event, Limits, ServerLeg, StreamKey};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What the server does with a call: the first byte of the message says it.
mod deed {
    /// The message comes back.
    pub const ECHO: u8 = 0;
    /// NOT_FOUND, with the message's length for a text.
    pub const FAIL: u8 = 1;
    /// Three times the message.
    pub const STREAM: u8 = 2;
    /// REFUSED_STREAM.
    pub const REFUSE: u8 = 3;
}

/// Serves until the caller closes. Reads and writes at once: the pipe is short.
async fn serve(limits: Limits, pipe: DuplexStream) {
    let mut leg = ServerLeg::new(&Rc::new(limits.valid()));
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let mut buffer = vec![0u8; 3000];
    let mut output: Vec<u8> = Vec::new();
    loop {
        output.append(leg.output());
        tokio::select! {
            biased;
            read = reader.read(&mut buffer) => {
                let Ok(read @ 1..) = read else { return };
                handle(&mut leg, &buffer[..read]);
            }
            written = writer.write(&output), if !output.is_empty() => {
                let Ok(written) = written else { return };
                output.drain(..written);
            }
        }
    }
}

fn handle(leg: &mut ServerLeg, bytes: &[u8]) {
    let mut input = bytes;
    loop {
        let request = match leg.poll(&mut input).expect("the peer is well-behaved") {
            None => return,
            Some(Event::Begin { stream, path, .. }) => Err((stream, path == b"/demo.v1.Echo/Echo")),
            Some(Event::Request { stream, message, .. }) => Ok((stream, message.to_vec())),
            Some(Event::Over { .. }) => continue,
        };
        match request {
            Err((stream, true)) => leg.accept(stream, stream.number(), 1 << 20),
            Err((stream, false)) => leg.finish(stream, Code::Unimplemented, "no such method"),
            Ok((stream, message)) => answer(leg, stream, &message),
        }
    }
}

fn answer(leg: &mut ServerLeg, stream: StreamKey, message: &[u8]) {
    match message.first() {
        None | Some(&deed::ECHO) => leg.respond(stream, &[message]),
        Some(&deed::FAIL) => {
            leg.finish(stream, Code::NotFound, &format!("{} bytes", message.len()));
        }
        Some(&deed::STREAM) => {
            let sent = (0..3).all(|_| leg.send(stream, &[message]));
            assert!(sent);
            leg.finish(stream, Code::Ok, "");
        }
        _ => leg.refuse_stream(stream),
    }
}

/// A caller and what drives its connection.
async fn caller(builder: &Builder, limits: Limits, pipe: usize) -> SendRequest<Bytes> {
    let (ours, theirs) = tokio::io::duplex(pipe);
    tokio::task::spawn_local(serve(limits, theirs));
    let (send, connection) = builder.handshake::<_, Bytes>(ours).await.unwrap();
    tokio::task::spawn_local(async move {
        // What goes wrong shows in the calls.
        let _ = connection.await;
    });
    send
}

fn request(path: &str) -> Request<()> {
    let uri = format!("http://echo{path}");
    Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-trace", "a value that differs from the others")
        .body(())
        .unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat().into()
}

/// Body and trailers of a response; trailers may be its head.
async fn read(response: Response<RecvStream>) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    assert_eq!(response.status(), 200);
    let head = response.headers().clone();
    let mut stream = response.into_body();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok((body, stream.trailers().await?.unwrap_or(head)))
}

async fn call(
    send: &SendRequest<Bytes>,
    path: &str,
    message: &[u8],
) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request(path), false)?;
    let mut left = framed(message);
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(Ok(room)) = room else { break };
        let piece = left.split_to(room.min(left.len()));
        stream.send_data(piece, left.is_empty())?;
    }
    read(response.await?).await
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let limit = std::time::Duration::from_secs(60);
    local.block_on(&runtime, async { tokio::time::timeout(limit, test).await.expect("in time") });
}

#[test]
fn calls_of_all_sizes_come_back_through_a_short_pipe() {
    local(async {
        let send = caller(&Builder::new(), Limits::default(), 777).await;
        for size in [0, 1, 100, 16_378, 16_379, 16_384, 70_000, 500_000] {
            let message = vec![deed::ECHO; size];
            let (body, trailers) = call(&send, "/demo.v1.Echo/Echo", &message).await.unwrap();
            assert!(body == framed(&message), "size {size}");
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}

#[test]
fn failures_refusals_and_streams_are_told() {
    local(async {
        let send = caller(&Builder::new(), Limits::default(), 4096).await;
        let (body, trailers) = call(&send, "/demo.v1.Echo/Echo", &[deed::FAIL; 7]).await.unwrap();
        assert!(body.is_empty());
        assert_eq!(trailers["grpc-status"], "5");
        assert_eq!(trailers["grpc-message"], "7 bytes");
        let (_, trailers) = call(&send, "/demo.v1.Echo/Sing", b"la").await.unwrap();
        assert_eq!(trailers["grpc-status"], "12");
        let (body, trailers) = call(&send, "/demo.v1.Echo/Echo", &[deed::STREAM; 9]).await.unwrap();
        assert_eq!(body, framed(&[deed::STREAM; 9]).repeat(3));
        assert_eq!(trailers["grpc-status"], "0");
        let error = call(&send, "/demo.v1.Echo/Echo", &[deed::REFUSE]).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    });
}

#[test]
fn a_caller_with_small_windows_gets_large_responses() {
    local(async {
        let mut builder = Builder::new();
        builder.initial_window_size(100).initial_connection_window_size(1000);
        let send = caller(&builder, Limits::default(), 4096).await;
        let message = vec![deed::STREAM; 30_000];
        let mut done = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (send, message) = (send.clone(), message.clone());
            done.spawn_local(async move { call(&send, "/demo.v1.Echo/Echo", &message).await });
        }
        while let Some(result) = done.join_next().await {
            let (body, trailers) = result.unwrap().unwrap();
            assert!(body == framed(&message).repeat(3));
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}

#[test]
fn a_caller_without_a_header_table_and_one_with_a_large_one_are_served() {
    local(async {
        for size in [0, 100, 65_536] {
            let mut builder = Builder::new();
            builder.header_table_size(size);
            let send = caller(&builder, Limits::default(), 4096).await;
            for n in 0..50u8 {
                let message = [deed::ECHO, n];
                let (body, trailers) = call(&send, "/demo.v1.Echo/Echo", &message).await.unwrap();
                assert_eq!(body, framed(&message));
                assert_eq!(trailers["grpc-status"], "0");
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Many calls at once, of any size and outcome, over any pipe and windows.
    #[test]
    fn calls_at_once_keep_apart(
        calls in prop::collection::vec((0u8..3, 0usize..40_000), 1..30),
        pipe in 64usize..5000,
        window in 200u32..200_000,
        stream_window in 1000u32..200_000,
    ) {
        local(async {
            let mut builder = Builder::new();
            builder.initial_window_size(window);
            let limits = Limits { stream_window, ..Limits::default() };
            let send = caller(&builder, limits, pipe).await;
            let mut done = tokio::task::JoinSet::new();
            for (n, (what, size)) in (0u8..).zip(calls) {
                let send = send.clone();
                done.spawn_local(async move {
                    let message = [&[what][..], &vec![n; size]].concat();
                    let (body, trailers) =
                        call(&send, "/demo.v1.Echo/Echo", &message).await.unwrap();
                    let (expected, status) = match what {
                        deed::FAIL => (vec![], "5"),
                        deed::STREAM => (framed(&message).repeat(3), "0"),
                        _ => (framed(&message).to_vec(), "0"),
                    };
                    assert!(body == expected, "call {n}");
                    assert_eq!(trailers["grpc-status"], status);
                });
            }
            while let Some(result) = done.join_next().await {
                result.unwrap();
            }
        });
    }
}
