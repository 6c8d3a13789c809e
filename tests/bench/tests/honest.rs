//! Generator, servers and bridge speak what they claim to: each is held against an ordinary
//! implementation, and the generator sees every reply that is missing or wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use meshgate_bench::bridge;
use meshgate_bench::grpc_client::GrpcClient;
use meshgate_bench::grpc_server::GrpcServer;
use meshgate_bench::leg::{Commands, Frames, Leg};
use meshgate_bench::load::{Load, Seen, Spread, connect};
use meshgate_bench::scenario::ECHO_PATH;
use meshgate_client::{CallError, Client, Login};
use meshgate_game::demo::v1::echo_client::EchoClient;
use meshgate_game::demo::v1::{EchoReply, EchoRequest, FailRequest, SlowRequest};
use meshgate_game::private::{Server, command};
use meshgate_game::reactor::Reactor;
use meshgate_game::service::Game;
use prost::Message;
use tokio::net::TcpListener;

const ANY: &str = "127.0.0.1:0";
const ECHO: Commands = Commands { first: command::ECHO, count: 1 };

/// A server on a thread of its own.
struct Background {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Background {
    fn frames() -> Self {
        let server = Server::bind(ANY.parse().unwrap()).unwrap();
        let address = server.address();
        Self::run(address, move |stop| server.run(&stop).unwrap())
    }

    fn grpc() -> Self {
        let mut reactor = Reactor::new().unwrap();
        let address = reactor.listen(ANY.parse().unwrap()).unwrap();
        Self::run(address, move |stop| {
            while !stop.load(Ordering::Relaxed) {
                reactor.turn(&mut GrpcServer, Some(Duration::from_millis(10))).unwrap();
            }
        })
    }

    fn run(address: SocketAddr, serve: impl FnOnce(Arc<AtomicBool>) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let serving = std::thread::spawn({
            let stop = stop.clone();
            move || serve(stop)
        });
        Self { address, stop, serving: Some(serving) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.serving.take().unwrap().join().unwrap();
    }
}

async fn game() -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Game::new(false).serve(listener, std::future::pending()));
    address
}

fn message(size: usize) -> Vec<u8> {
    EchoRequest { body: vec![7; size] }.encode_to_vec()
}

/// Loads a server for a moment; what was seen, and how many replies were lost at the end.
fn load(address: SocketAddr, spread: Spread, mut leg: impl FnMut() -> Leg) -> (Seen, u64) {
    let mut load = Load::open(3, 2, spread, || Ok((connect(address)?, leg()))).unwrap();
    load.start();
    let seen = load.run(Duration::from_millis(200)).unwrap();
    (seen, load.finish().unwrap())
}

fn grpc(path: &'static str, size: usize) -> impl FnMut() -> Leg {
    move || Leg::Grpc(Box::new(GrpcClient::new("demo", path, &message(size))))
}

#[test]
fn the_generator_loads_the_private_server() {
    let server = Background::frames();
    for spread in [Spread::Each(16), Spread::Around(10)] {
        let frames = || Leg::Frames(Frames::new(ECHO, &message(64)));
        let (seen, lost) = load(server.address, spread, frames);
        assert_eq!((seen.errors, lost), (0, 0));
        assert!(seen.latency.len() > 100, "{}", seen.latency.len());
    }
}

#[test]
fn the_generator_sees_errors() {
    let server = Background::frames();
    let unknown = Commands { first: 4_000_000, count: 1 };
    let open = || Ok((connect(server.address)?, Leg::Frames(Frames::new(unknown, b"x"))));
    assert!(Load::open(1, 0, Spread::Each(1), open).is_err());
}

#[test]
fn the_generator_loads_the_lean_grpc_server() {
    let server = Background::grpc();
    for size in [0, 64, 1024, 16_000] {
        let (seen, lost) = load(server.address, Spread::Each(16), grpc(ECHO_PATH, size));
        assert_eq!((seen.errors, lost), (0, 0), "{size} bytes");
        assert!(seen.latency.len() > 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generator_loads_an_ordinary_grpc_server() {
    let address = game().await;
    let done = tokio::task::spawn_blocking(move || {
        let (seen, lost) = load(address, Spread::Each(16), grpc(ECHO_PATH, 1024));
        assert_eq!((seen.errors, lost), (0, 0));
        assert!(seen.latency.len() > 10);
        // A method that is not there is an error, not a fast reply.
        let mut unknown = grpc("/demo.v1.Echo/Nothing", 1024);
        let open = || Ok((connect(address)?, unknown()));
        assert!(Load::open(1, 0, Spread::Each(1), open).is_err());
    });
    done.await.unwrap();
}

#[tokio::test]
async fn an_ordinary_client_calls_the_lean_grpc_server() {
    let server = Background::grpc();
    let uri = format!("http://{}", server.address);
    let mut echo = EchoClient::connect(uri).await.unwrap();
    for size in [0, 1, 1024, 100_000, 1, 1_500_000] {
        let body = vec![7; size];
        let reply = echo.echo(EchoRequest { body: body.clone() }).await.unwrap();
        assert!(reply.into_inner().body == body, "{size} bytes");
    }
}

#[tokio::test]
async fn the_bridge_carries_calls_errors_and_one_way_frames() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(bridge::serve(listener, game().await));
    let client = Client::connect(address, &Login::None).await.unwrap();

    let slow = SlowRequest { millis: 50, body: b"late".to_vec() }.encode_to_vec();
    let (late, soon) =
        tokio::join!(client.call(command::SLOW, slow), client.call(command::ECHO, message(9)));
    assert_eq!(EchoReply::decode(&*late.unwrap()).unwrap().body, b"late");
    assert_eq!(soon.unwrap(), message(9));

    let fail = FailRequest { code: 9, message: "not now".into() }.encode_to_vec();
    let error = client.call(command::FAIL, fail).await.unwrap_err();
    assert!(matches!(error, CallError::Status { status: 9, text } if text == "not now"));
    client.one_way(command::HALL_SAY, b"".to_vec()).await.unwrap();
    assert_eq!(client.call(77, b"".to_vec()).await.unwrap_err().status(), Some(12));
}
