//! The gRPC game over a real connection.

use meshgate_game::demo::v1::echo_client::EchoClient;
use meshgate_game::demo::v1::hall_client::HallClient;
use meshgate_game::demo::v1::{
    EchoRequest, Empty, EnterRequest, FailRequest, LeaveRequest, MoveRequest, Position, SayRequest,
    SlowRequest,
};
use meshgate_game::service::Game;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

struct Running {
    channel: Channel,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<anyhow::Result<()>>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(Game::new(false).serve(listener, async {
        // A test that drops the sender does not want it to stop.
        if stopped.await.is_err() {
            std::future::pending().await
        }
    }));
    let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
    Running { channel, stop, serving }
}

#[tokio::test]
async fn echo_gives_the_body_back() {
    let game = start().await;
    let mut echo = EchoClient::new(game.channel);
    let reply = echo.echo(EchoRequest { body: "hello".into() }).await.unwrap();
    assert_eq!(reply.into_inner().body, b"hello");
    let reply = echo.slow(SlowRequest { millis: 1, body: "late".into() }).await.unwrap();
    assert_eq!(reply.into_inner().body, b"late");
    let status = echo.slow(SlowRequest { millis: 60_001, ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn fail_fails_as_asked() {
    let mut echo = EchoClient::new(start().await.channel);
    for code in 1..=16 {
        let request = FailRequest { code, message: format!("code {code}") };
        let status = echo.fail(request).await.unwrap_err();
        assert_eq!((status.code() as u32, status.message()), (code, &*format!("code {code}")));
    }
    assert!(echo.fail(FailRequest::default()).await.is_ok());
    let status = echo.fail(FailRequest { code: 17, ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn whoami_shows_the_metadata() {
    let mut echo = EchoClient::new(start().await.channel);
    let mut request = Request::new(Empty {});
    request.metadata_mut().append("x-user", "ada".parse().unwrap());
    request.metadata_mut().append("x-user", "grace".parse().unwrap());
    let metadata = echo.whoami(request).await.unwrap().into_inner().metadata;
    assert_eq!(metadata["x-user"], "ada, grace");
    assert!(metadata["user-agent"].starts_with("tonic/"));
}

#[tokio::test]
async fn players_meet_in_the_hall() {
    let mut hall = HallClient::new(start().await.channel);
    let enter = |name: &str| EnterRequest { name: name.into() };
    let ada = hall.enter(enter("ada")).await.unwrap().into_inner().player.unwrap().id;
    let grace = hall.enter(enter("grace")).await.unwrap().into_inner();
    assert_eq!(grace.players, 2);

    let walk = MoveRequest { player_id: ada, dx: -3, dy: 100 };
    let position = hall.r#move(walk).await.unwrap().into_inner().position;
    assert_eq!(position, Some(Position { x: 13, y: 31 }));
    hall.say(SayRequest { player_id: ada, text: "hello".into() }).await.unwrap();
    hall.leave(LeaveRequest { player_id: grace.player.unwrap().id }).await.unwrap();

    let seen = hall.look(Empty {}).await.unwrap().into_inner();
    let names: Vec<_> = seen.players.iter().map(|player| player.name.as_str()).collect();
    assert_eq!(names, ["ada"]);
    assert_eq!((seen.lines[0].player_id, seen.lines[0].text.as_str()), (ada, "hello"));

    let status = hall.say(SayRequest { player_id: 99, text: "?".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn health_names_both_services() {
    let game = start().await;
    let mut health = HealthClient::new(game.channel);
    for service in ["", "demo.v1.Echo", "demo.v1.Hall"] {
        let request = HealthCheckRequest { service: service.into() };
        let reply = health.check(request).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn a_stop_lets_calls_in_flight_finish() {
    let game = start().await;
    let mut echo = EchoClient::new(game.channel);
    // Both calls go over one connection in order, so the answer to the second shows that the
    // first has reached the server.
    let mut first = echo.clone();
    let slow =
        tokio::spawn(
            async move { first.slow(SlowRequest { millis: 300, body: "done".into() }).await },
        );
    tokio::task::yield_now().await;
    echo.echo(EchoRequest::default()).await.unwrap();
    game.stop.send(()).unwrap();
    assert_eq!(slow.await.unwrap().unwrap().into_inner().body, b"done");
    drop(echo);
    game.serving.await.unwrap().unwrap();
}
