//! The client leg against the server role of crate `h2`, over a pipe in memory.
#![cfg(not(target_family = "wasm"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use meshgate_protocol::call::Code;
use meshgate_protocol::grpc::client::{ClientLeg, Event, Limits, StartError, StreamId};
use meshgate_protocol::grpc::request::{Head, Heads};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What the leg said, with its own copy of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Message(u32, Vec<u8>),
    End(u32, Code, String, bool),
    Bell,
    GoingAway,
}

/// A leg with a pipe for an upstream.
struct Client {
    leg: ClientLeg,
    pipe: DuplexStream,
    heads: Heads,
    routes: BTreeMap<String, Head>,
    said: VecDeque<Said>,
    open: bool,
}

impl Client {
    fn new(limits: &Limits, pipe: DuplexStream) -> Self {
        Self {
            leg: ClientLeg::new(limits),
            pipe,
            heads: Heads::new("test").unwrap(),
            routes: BTreeMap::new(),
            said: VecDeque::new(),
            open: true,
        }
    }

    fn start(&mut self, token: u32, path: &str, message: &[u8]) -> StreamId {
        self.try_start(token, path, message).unwrap()
    }

    fn try_start(
        &mut self,
        token: u32,
        path: &str,
        message: &[u8],
    ) -> Result<StreamId, StartError> {
        let number = self.routes.len() as u16;
        let heads = &mut self.heads;
        let head = self.routes.entry(path.to_owned()).or_insert_with(|| {
            heads.head(number, path, [("x-number", "7")], Some(Duration::from_secs(60))).unwrap()
        });
        self.leg.start(token, &head.parts(), b"\x00\x03own\x05field", &[message])
    }

    /// The next event; reads and writes the pipe until there is one.
    async fn next(&mut self) -> Said {
        let mut buffer = vec![0u8; 3000];
        loop {
            self.gather(&[]);
            if let Some(said) = self.said.pop_front() {
                return said;
            }
            assert!(self.open, "the upstream is gone and nothing is left to say");
            let output = std::mem::take(self.leg.output());
            let (mut reader, mut writer) = tokio::io::split(&mut self.pipe);
            // Both at once: the pipe is short, and either side may wait for the other.
            let mut written = 0;
            loop {
                tokio::select! {
                    biased;
                    read = reader.read(&mut buffer) => {
                        let read = read.unwrap();
                        if written < output.len() {
                            // Not lost: it goes first next time.
                            let rest = [&output[written..], self.leg.output()].concat();
                            *self.leg.output() = rest;
                        }
                        if read == 0 {
                            self.leg.upstream_closed();
                            self.open = false;
                        }
                        let bytes = buffer[..read].to_vec();
                        self.gather(&bytes);
                        break;
                    }
                    count = writer.write(&output[written..]), if written < output.len() => {
                        match count {
                            Ok(count) => written += count,
                            Err(_) => written = output.len(),
                        }
                    }
                }
            }
        }
    }

    fn gather(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = self.leg.poll(&mut input).expect("the peer is well-behaved") {
            self.said.push_back(match event {
                Event::Message { token, message, .. } => Said::Message(token, message.to_vec()),
                Event::End { token, code, message, processed, .. } => {
                    Said::End(token, code, message.into(), processed)
                }
                Event::BellAnswered => Said::Bell,
                Event::GoingAway => Said::GoingAway,
            });
        }
        assert!(input.is_empty());
    }

    /// Events until `count` calls ended, by token: the messages and the end of each.
    async fn ends(&mut self, count: usize) -> BTreeMap<u32, (Vec<Vec<u8>>, Code, String, bool)> {
        let mut messages: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut ended = BTreeMap::new();
        while ended.len() < count {
            match self.next().await {
                Said::Message(token, message) => messages.entry(token).or_default().push(message),
                Said::End(token, code, text, processed) => {
                    let messages = messages.remove(&token).unwrap_or_default();
                    assert!(ended.insert(token, (messages, code, text, processed)).is_none());
                }
                Said::Bell | Said::GoingAway => {}
            }
        }
        ended
    }
}

fn ok(message: &[u8]) -> (Vec<Vec<u8>>, Code, String, bool) {
    (vec![message.to_vec()], Code::Ok, String::new(), true)
}

/// Compares without printing a hundred thousand numbers.
fn expect_echo(end: &(Vec<Vec<u8>>, Code, String, bool), message: &[u8]) {
    assert_eq!((end.1, end.2.as_str(), end.3), (Code::Ok, "", true));
    assert!(end.0.len() == 1 && end.0[0] == message, "not what was sent");
}

fn grpc_response() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers
}

/// Reads a whole request body and releases its window.
async fn body(mut stream: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        bytes.extend_from_slice(&chunk);
        stream.flow_control().release_capacity(chunk.len())?;
    }
    Ok(bytes)
}

/// Sends bytes within the client's window.
async fn send(stream: &mut h2::SendStream<Bytes>, bytes: Vec<u8>) -> Result<(), h2::Error> {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await else { break };
        let piece = bytes.split_to(capacity?.min(bytes.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}

/// An echo of the request message, in the path's manner.
async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_string();
    let agent = concat!("meshgate/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", agent),
        ("x-number", "7"),
        ("grpc-timeout", "60000000u"),
        ("own", "field"),
    ] {
        assert_eq!(request.headers()[name], value);
    }
    assert_eq!(request.headers().len(), 6);
    assert_eq!(request.uri().authority().unwrap(), "test");
    match path.as_str() {
        "/t/Refuse" => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        "/t/TrailersOnly" => {
            let mut response = grpc_response();
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("7"));
            response.headers_mut().insert("grpc-message", HeaderValue::from_static("not%20you"));
            respond.send_response(response, true)?;
            return Ok(());
        }
        "/t/Unavailable" => {
            let response = Response::builder().status(503).body(()).unwrap();
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(Bytes::from_static(b"<html>"), true)?;
            return Ok(());
        }
        "/t/Early" => {
            // Answers without reading the request.
            let mut stream = respond.send_response(grpc_response(), false)?;
            stream.send_trailers(status("5"))?;
            return Ok(());
        }
        "/t/Hang" => {
            let mut stream = respond.send_response(grpc_response(), false)?;
            poll_fn(|cx| stream.poll_reset(cx)).await?;
            return Ok(());
        }
        _ => {}
    }
    let message = body(request.into_body()).await?;
    let mut stream = respond.send_response(grpc_response(), false)?;
    match path.as_str() {
        "/t/Thrice" => {
            for _ in 0..3 {
                send(&mut stream, message.clone()).await?;
            }
        }
        "/t/NoTrailers" => {
            stream.send_data(message.into(), true)?;
            return Ok(());
        }
        "/t/ResetInside" => {
            stream.send_data(message[..message.len() - 1].to_vec().into(), false)?;
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        _ => send(&mut stream, message).await?,
    }
    stream.send_trailers(status("0"))
}

/// An h2 server on one end of a pipe of `size` bytes; the other end.
fn server(size: usize, configure: impl FnOnce(&mut h2::server::Builder)) -> DuplexStream {
    let (near, far) = tokio::io::duplex(size);
    let mut builder = h2::server::Builder::new();
    configure(&mut builder);
    tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            if request.uri().path() == "/t/GoAway" {
                connection.graceful_shutdown();
            }
            tokio::spawn(serve(request, respond));
        }
    });
    near
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|place| (place.wrapping_mul(31).wrapping_add(seed) >> 3) as u8).collect()
}

#[tokio::test]
async fn a_call_is_answered() {
    let mut client = Client::new(&Limits::default(), server(1 << 16, |_| {}));
    client.start(7, "/t/Echo", b"hello");
    assert_eq!(client.next().await, Said::Message(7, b"hello".to_vec()));
    assert_eq!(client.next().await, Said::End(7, Code::Ok, String::new(), true));
    assert_eq!(client.leg.in_flight(), 0);
}

#[tokio::test]
async fn many_calls_in_flight_are_each_answered() {
    let mut client = Client::new(&Limits::default(), server(1 << 14, |_| {}));
    for round in 0..3 {
        for token in 0..500 {
            client.start(token, "/t/Echo", &bytes(token as usize, round));
        }
        let ends = client.ends(500).await;
        for (token, end) in ends {
            expect_echo(&end, &bytes(token as usize, round));
        }
        assert_eq!(client.leg.in_flight(), 0);
    }
}

#[tokio::test]
async fn one_concurrent_stream_makes_calls_wait_their_turn() {
    let pipe = server(1 << 12, |builder| {
        builder.max_concurrent_streams(1);
    });
    let mut client = Client::new(&Limits::default(), pipe);
    client.leg.ring();
    assert_eq!(client.next().await, Said::Bell);
    for token in 0..50 {
        client.start(token, "/t/Echo", &bytes(1000, token as usize));
    }
    let mut order = Vec::new();
    for token in 0..50 {
        assert_eq!(client.next().await, Said::Message(token, bytes(1000, token as usize)));
        assert_eq!(client.next().await, Said::End(token, Code::Ok, String::new(), true));
        order.push(token);
    }
}

#[tokio::test]
async fn small_windows_and_big_messages_both_ways() {
    let pipe = server(1 << 12, |builder| {
        builder.initial_window_size(100).initial_connection_window_size(70_000);
    });
    let limits = Limits { stream_window: 1000, connection_window: 65_535, ..Limits::default() };
    let mut client = Client::new(&limits, pipe);
    for token in 0..5 {
        client.start(token, "/t/Echo", &bytes(100_000, token as usize));
    }
    for (token, end) in client.ends(5).await {
        expect_echo(&end, &bytes(100_000, token as usize));
    }
}

#[tokio::test]
async fn large_frames_are_used_where_the_server_allows_them() {
    let pipe = server(1 << 16, |builder| {
        builder
            .initial_window_size(1 << 24)
            .initial_connection_window_size(1 << 24)
            .max_frame_size(1 << 20);
    });
    let limits = Limits { max_queued_bytes: 8 << 20, ..Limits::default() };
    let mut client = Client::new(&limits, pipe);
    client.start(0, "/t/Echo", &bytes(3 << 20, 1));
    client.start(1, "/t/Echo", &bytes(3 << 20, 2));
    let ends = client.ends(2).await;
    assert_eq!(ends[&0], ok(&bytes(3 << 20, 1)));
    assert_eq!(ends[&1], ok(&bytes(3 << 20, 2)));
}

#[tokio::test]
async fn several_messages_of_one_call_come_one_by_one() {
    let mut client = Client::new(&Limits::default(), server(1 << 12, |_| {}));
    client.start(1, "/t/Thrice", &bytes(30_000, 5));
    let ends = client.ends(1).await;
    assert_eq!(ends[&1].0, vec![bytes(30_000, 5); 3]);
    assert_eq!(ends[&1].1, Code::Ok);
}

#[tokio::test]
async fn every_way_to_fail_has_its_status() {
    let mut client = Client::new(&Limits::default(), server(1 << 14, |_| {}));
    let ways = [
        ("/t/TrailersOnly", Code::PermissionDenied, "not you", true),
        ("/t/Refuse", Code::Unavailable, "upstream refused the stream", false),
        ("/t/Unavailable", Code::Unavailable, "response with HTTP status 503", true),
        ("/t/ResetInside", Code::Internal, "upstream reset the stream: INTERNAL_ERROR", true),
        ("/t/NoTrailers", Code::Internal, "response ended without trailers", true),
        ("/t/Early", Code::NotFound, "", true),
    ];
    for (token, (path, ..)) in (0..).zip(ways) {
        client.start(token, path, b"x");
    }
    let ends = client.ends(ways.len()).await;
    for (token, (path, code, text, processed)) in (0..).zip(ways) {
        let end = &ends[&token];
        assert_eq!((end.1, end.2.as_str(), end.3), (code, text, processed), "{path}");
    }
    // The connection is none the worse.
    client.start(99, "/t/Echo", b"still here");
    assert_eq!(client.ends(1).await[&99], ok(b"still here"));
}

#[tokio::test]
async fn an_answer_before_the_request_is_sent_ends_the_call_and_frees_its_bytes() {
    let pipe = server(1 << 12, |builder| {
        builder.initial_window_size(10);
    });
    let mut client = Client::new(&Limits::default(), pipe);
    client.leg.ring();
    assert_eq!(client.next().await, Said::Bell);
    for token in 0..20 {
        client.start(token, "/t/Early", &bytes(50_000, 0));
    }
    for (_, end) in client.ends(20).await {
        assert_eq!((end.1, end.3), (Code::NotFound, true));
    }
    assert!(client.leg.has_room());
    client.start(99, "/t/Echo", b"0123456789abcdef");
    assert_eq!(client.ends(1).await[&99], ok(b"0123456789abcdef"));
}

#[tokio::test]
async fn windows_may_change_while_requests_wait_for_them() {
    let (near, far) = tokio::io::duplex(1 << 13);
    tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(5_000);
        let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
        let mut accepted = 0u32;
        while let Some(Ok((request, respond))) = connection.accept().await {
            // Down below what was sent already, then up again.
            accepted += 1;
            let size = [1, 70_000, 300][accepted as usize % 3];
            // Refused while the last change is unacknowledged: then the next one is tried.
            let _ = connection.set_initial_window_size(size);
            connection.set_target_window_size(65_535 + accepted * 1000);
            tokio::spawn(serve(request, respond));
        }
    });
    let mut client = Client::new(&Limits::default(), near);
    for token in 0..12 {
        client.start(token, "/t/Echo", &bytes(40_000, token as usize));
    }
    for (token, end) in client.ends(12).await {
        expect_echo(&end, &bytes(40_000, token as usize));
    }
}

#[tokio::test]
async fn a_cancelled_call_is_silent_and_its_neighbours_go_on() {
    let mut client = Client::new(&Limits::default(), server(1 << 14, |_| {}));
    let hanging = client.start(0, "/t/Hang", b"x");
    client.start(1, "/t/Echo", b"y");
    assert_eq!(client.ends(1).await[&1], ok(b"y"));
    client.leg.cancel(hanging);
    assert_eq!(client.leg.in_flight(), 0);
    client.start(2, "/t/Echo", b"z");
    assert_eq!(client.ends(1).await[&2], ok(b"z"));
}

#[tokio::test]
async fn bells_are_answered_one_at_a_time() {
    let mut client = Client::new(&Limits::default(), server(1 << 14, |_| {}));
    for _ in 0..100 {
        assert!(client.leg.ring());
        assert!(!client.leg.ring());
        assert_eq!(client.next().await, Said::Bell);
    }
}

#[tokio::test]
async fn a_graceful_goaway_lets_calls_finish_and_takes_no_more() {
    let mut client = Client::new(&Limits::default(), server(1 << 14, |_| {}));
    for token in 0..3 {
        client.start(token, "/t/Echo", b"x");
    }
    client.start(3, "/t/GoAway", b"last");
    let ends = client.ends(4).await;
    assert!(ends.values().all(|end| end.1 == Code::Ok));
    while !client.leg.is_draining() {
        client.next().await;
    }
    assert!(!client.leg.has_room());
    assert!(client.try_start(9, "/t/Echo", b"x").is_err());
}

#[tokio::test]
async fn a_lost_upstream_ends_every_call() {
    let (near, far) = tokio::io::duplex(1 << 14);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let _first: (Request<RecvStream>, SendResponse<Bytes>) =
            connection.accept().await.unwrap().unwrap();
        // Dropped here, without a word.
    });
    let mut client = Client::new(&Limits::default(), near);
    for token in 0..200 {
        client.start(token, "/t/Echo", b"x");
    }
    let ends = client.ends(200).await;
    assert!(ends.values().all(|end| end.1 == Code::Unavailable));
    assert_eq!(client.leg.in_flight(), 0);
    assert!(client.leg.is_draining());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn calls_of_any_size_pass_through_windows_of_any_size(
        sizes in proptest::collection::vec(prop_oneof![0usize..100, 0usize..50_000], 1..40),
        pipe in 100usize..20_000,
        concurrent in 1u32..20,
        server_window in 1u32..100_000,
        client_window in 1u32..100_000,
        frame_size in 16_384u32..70_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // Windows of a few bytes are lawful, and slow: keep the number of frames in bounds.
            let server_window = server_window.max(sizes.iter().max().unwrap().div_ceil(200) as u32);
            let client_window = client_window.max(sizes.iter().max().unwrap().div_ceil(200) as u32);
            let pipe = server(pipe, |builder| {
                builder
                    .max_concurrent_streams(concurrent)
                    .initial_window_size(server_window)
                    .max_frame_size(frame_size);
            });
            let limits = Limits {
                stream_window: client_window,
                max_queued_bytes: 8 << 20,
                ..Limits::default()
            };
            let mut client = Client::new(&limits, pipe);
            client.leg.ring();
            assert_eq!(client.next().await, Said::Bell);
            for (token, size) in (0..).zip(&sizes) {
                client.start(token, "/t/Echo", &bytes(*size, token as usize));
            }
            let ends = client.ends(sizes.len()).await;
            for (token, size) in (0..).zip(&sizes) {
                expect_echo(&ends[&token], &bytes(*size, token as usize));
            }
            assert_eq!(client.leg.in_flight(), 0);
        });
    }
}
