//! Pushes of services through the companion: real Envoy, real companion, real clients.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use meshgate_client::{Client, Connection, Flags, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, GameServer, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest};
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::app::v1::push_request::{Command, Target};
use meshgate_proto::app::v1::{JoinGroupRequest, PushRequest, PushResponse};
use prost::Message;
use tonic::transport::Channel;

const CONNECTED: &str = "wasmcustom.meshgate.companion_connected";
const PATIENCE: Duration = Duration::from_secs(20);
/// One that the listeners of `envoy-config/` let be pushed, and one that they do not.
const NOTICE: u32 = 1300;
const UNNAMED: u32 = 1299;

struct Scene {
    envoy: Envoy,
    companion: Companion,
    app: AppClient<Channel>,
    _game: GameServer,
}

impl Scene {
    async fn start(bootstrap: &str, edits: &[(&str, &str)]) -> Result<Self> {
        Self::with_workers(bootstrap, edits, 1).await
    }

    async fn with_workers(bootstrap: &str, edits: &[(&str, &str)], workers: u64) -> Result<Self> {
        let game = GameServer::start()?;
        let companion = Companion::start()?;
        let backends = Backends {
            game: Some(game.address),
            companion: Some(companion.address),
            ..Backends::default()
        };
        let mut envoy = Envoy::start_with_workers(bootstrap, backends, edits, workers)?;
        // Envoy runs the plugin on its main thread too.
        envoy.wait_stat(CONNECTED, workers + 1)?;
        let app = AppClient::connect(format!("http://{}", companion.app)).await?;
        Ok(Self { envoy, companion, app, _game: game })
    }

    async fn client(&self, user: &str) -> Result<Client> {
        self.login(&self.companion.noise_login(user, &[])?).await
    }

    /// Logs in, and calls once, so that the session lives.
    async fn login(&self, login: &Login) -> Result<Client> {
        let client = Client::connect(self.envoy.private()?, login).await?;
        echo(&client).await?;
        Ok(client)
    }

    async fn push(&self, target: Target, command: u32, body: &[u8]) -> Result<PushResponse> {
        let request = request(target, command, body);
        Ok(self.app.clone().push(request).await?.into_inner())
    }
}

fn request(target: Target, command: u32, body: &[u8]) -> PushRequest {
    PushRequest {
        target: Some(target),
        command: Some(Command::Number(command.into())),
        body: body.to_vec(),
        ..PushRequest::default()
    }
}

fn session(client: &Client) -> Target {
    Target::SessionId(client.session().expect("a session").session_id.clone())
}

fn user(name: &str) -> Target {
    Target::User(name.to_owned())
}

fn delivered(delivered: u32) -> PushResponse {
    PushResponse { delivered, ..PushResponse::default() }
}

async fn echo(client: &Client) -> Result<()> {
    let body = EchoRequest { body: b"hello".to_vec() }.encode_to_vec();
    let reply = client.call(command::ECHO, body).await?;
    assert_eq!(EchoReply::decode(&reply[..])?.body, b"hello");
    Ok(())
}

async fn next(client: &Client) -> Result<Frame> {
    let push = tokio::time::timeout(PATIENCE, client.next_push()).await;
    push.context("no push came in time")?.context("the connection ended")
}

async fn body(client: &Client) -> Result<Vec<u8>> {
    next(client).await?.into_body().context("a body")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_reaches_its_session_sealed_and_plain() -> Result<()> {
    for bootstrap in ["noise.yaml", "ticket.yaml"] {
        let mut scene = Scene::start(bootstrap, &[]).await?;
        let login = match bootstrap {
            "noise.yaml" => scene.companion.noise_login("ann", &[])?,
            _ => scene.companion.ticket_login("ann", &[])?,
        };
        let (ann, _ben) = (scene.login(&login).await?, scene.client_of(bootstrap, "ben").await?);
        assert_eq!(scene.push(session(&ann), NOTICE, b"to ann").await?, delivered(1));
        let push = next(&ann).await?;
        assert!(push.flags.has(Flags::PUSH), "{push:?}");
        assert_eq!((push.command, push.sequence, push.status), (NOTICE, 0, 0));
        assert_eq!(push.into_body().context("a body")?, b"to ann");
        echo(&ann).await?;
        scene.envoy.wait_stat("wasmcustom.meshgate.pushes_total", 1)?;
    }
    Ok(())
}

impl Scene {
    async fn client_of(&self, bootstrap: &str, user: &str) -> Result<Client> {
        match bootstrap {
            "noise.yaml" => self.client(user).await,
            _ => self.login(&self.companion.ticket_login(user, &[])?).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_user_reaches_all_of_his_sessions_and_says_how_many() -> Result<()> {
    let scene = Scene::start("noise.yaml", &[]).await?;
    let (one, two) = (scene.client("ann").await?, scene.client("ann").await?);
    let ben = scene.client("ben").await?;
    assert_eq!(scene.push(user("ann"), NOTICE, b"both").await?, delivered(2));
    assert_eq!((body(&one).await?, body(&two).await?), (b"both".to_vec(), b"both".to_vec()));
    assert_eq!(scene.push(user("eve"), NOTICE, b"nobody").await?, delivered(0));
    assert_eq!(scene.push(user("ben"), NOTICE, b"ben").await?, delivered(1));
    assert_eq!(body(&ben).await?, b"ben", "and nothing before it");
    // By the tool as well.
    let said = scene.companion.serve_app(&[
        "push",
        "--user",
        "ann",
        "--command",
        "1206",
        "--text",
        "hello",
        "--json",
    ])?;
    assert!(said.contains(r#""delivered":2"#), "{said}");
    assert_eq!(next(&one).await?.command, command::LINE);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_or_may_not_be_pushed_to_is_told() -> Result<()> {
    let mut scene = Scene::start("noise.yaml", &[]).await?;
    let ann = scene.client("ann").await?;
    let refused = scene.push(session(&ann), UNNAMED, b"x").await?;
    assert_eq!((refused.refused, refused.delivered), (1, 0));
    assert!(refused.reason.contains("`push`"), "{}", refused.reason);
    // Pending: no sealed frame has come.
    let login = scene.companion.noise_login("ben", &[])?;
    let pending = Client::connect(scene.envoy.private()?, &login).await?;
    assert_eq!(scene.push(session(&pending), NOTICE, b"x").await?.gone, 1);
    assert_eq!(scene.push(user("ben"), NOTICE, b"x").await?, delivered(0));
    let gone = session(&ann);
    drop(ann);
    // Until everybody has heard of its end.
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = scene.push(gone.clone(), NOTICE, b"x").await?;
        if answer.gone == 1 {
            break;
        }
        assert!(Instant::now() < until, "{answer:?}");
    }
    echo(&pending).await?;
    assert_eq!(scene.push(session(&pending), NOTICE, b"now").await?, delivered(1));
    assert_eq!(body(&pending).await?, b"now", "and nothing before it");
    scene.envoy.wait_stat("wasmcustom.meshgate.pushes_dropped_total.reason.refused", 1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pushes_arrive_in_their_order_beside_calls() -> Result<()> {
    const PUSHES: u32 = 1000;
    let scene = Scene::start("noise.yaml", &[]).await?;
    let ann = scene.client("ann").await?;
    let target = session(&ann);
    let requests: Vec<_> =
        (0..PUSHES).map(|number| request(target.clone(), NOTICE, &number.to_be_bytes())).collect();
    let mut app = scene.app.clone();
    let pushing = async {
        let mut answers = app.push_stream(tokio_stream::iter(requests)).await?.into_inner();
        let mut count = 0;
        while let Some(answer) = answers.message().await? {
            assert_eq!(answer, delivered(1), "push {count}");
            count += 1;
        }
        anyhow::Ok(count)
    };
    let calling = async {
        for _ in 0..50 {
            echo(&ann).await?;
        }
        anyhow::Ok(())
    };
    let hearing = async {
        for number in 0..PUSHES {
            assert_eq!(body(&ann).await?, number.to_be_bytes());
        }
        anyhow::Ok(())
    };
    let (count, called, heard) = tokio::join!(pushing, calling, hearing);
    assert_eq!(count?, PUSHES);
    called?;
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_group_reaches_fifty_clients_on_two_workers_in_one_order() -> Result<()> {
    const CLIENTS: u32 = 50;
    const PUSHES: u8 = 20;
    let scene = Scene::with_workers("ticket.yaml", &[], 2).await?;
    let (mut clients, mut resume) = (Vec::new(), None);
    let mut app = scene.app.clone();
    for number in 0..CLIENTS {
        let login = scene.companion.ticket_login(&format!("user-{number}"), &[])?;
        let client = scene.login(&login).await?;
        let session_id = client.session().context("a session")?.session_id.clone();
        app.join_group(JoinGroupRequest { group: "room:1".into(), session_id }).await?;
        resume = client.resumption(&login);
        clients.push(client);
    }
    let outside = scene.login(&scene.companion.ticket_login("outside", &[])?).await?;
    let requests = (0..PUSHES).map(|number| {
        let target = Target::Group("room:1".to_owned());
        request(target, NOTICE, &[number])
    });
    let requests: Vec<_> = requests.collect();
    let mut answers = app.push_stream(tokio_stream::iter(requests)).await?.into_inner();
    for _ in 0..PUSHES {
        assert_eq!(answers.message().await?, Some(delivered(CLIENTS)));
    }
    for client in &clients {
        for number in 0..PUSHES {
            assert_eq!(body(client).await?, [number]);
        }
    }
    assert_eq!(scene.push(session(&outside), NOTICE, b"you alone").await?, delivered(1));
    assert_eq!(body(&outside).await?, b"you alone");
    // Who has lost his line is away, but in the room still.
    drop(clients.split_off(1));
    let room = || Target::Group("room:1".to_owned());
    let heard_by = |delivered: u32| {
        let away = CLIENTS - delivered;
        PushResponse { delivered, away, ..PushResponse::default() }
    };
    let until = Instant::now() + PATIENCE;
    while scene.push(room(), NOTICE, b"?").await? != heard_by(1) {
        assert!(Instant::now() < until);
    }
    let back = scene.login(&resume.context("a token")?).await?;
    assert_eq!(scene.push(room(), NOTICE, b"again").await?, heard_by(2));
    assert_eq!(body(&back).await?, b"again");
    Ok(())
}

/// Bytes that compression cannot make small.
fn noise(length: usize) -> Vec<u8> {
    let mut random = 1_u64;
    std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

impl Scene {
    /// A client that reads nothing after its login and a first reply.
    async fn deaf(&self) -> Result<(Connection, Target)> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 << 10)?;
        let (from, to) = socket.connect(self.envoy.private()?).await?.into_split();
        let mut deaf = Connection::over(from, to);
        let reply = deaf.login(&self.companion.ticket_login("deaf", &[])?).await?;
        let target = Target::SessionId(reply.context("a session")?.session_id);
        deaf.send(&Frame::request(command::ECHO, 1, vec![])).await?;
        assert_eq!(deaf.receive().await?.context("the echo")?.sequence, 1);
        Ok((deaf, target))
    }

    /// Pushes of 16 KiB, each with its number in front, one behind the other.
    async fn flood(&self, target: &Target, pushes: u32) -> Result<()> {
        let noise = noise(16 << 10);
        let body = |number: u32| [&number.to_be_bytes()[..], &noise].concat();
        let requests: Vec<_> =
            (0..pushes).map(|number| request(target.clone(), NOTICE, &body(number))).collect();
        let mut app = self.app.clone();
        let mut answers = app.push_stream(tokio_stream::iter(requests)).await?.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        Ok(())
    }
}

fn little_room(when_full: &str) -> (String, &'static str) {
    let push = format!(r#""push": {{ "when_full": "{when_full}", "commands""#);
    (push, r#""limits": { "max_unread": "64KiB", "bell_timeout": "60s" }, "statuses":"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_hears_the_last_pushes_where_the_oldest_make_room() -> Result<()> {
    const PUSHES: u32 = 2000;
    let (push, limits) = little_room("drop_oldest");
    let edits = [(r#""push": { "commands""#, &*push), (r#""statuses":"#, limits)];
    let mut scene = Scene::start("ticket.yaml", &edits).await?;
    let (mut deaf, target) = scene.deaf().await?;
    scene.flood(&target, PUSHES).await?;
    let overtaken = "wasmcustom.meshgate.pushes_dropped_total.reason.overtaken";
    scene.envoy.wait_for(overtaken, |envoy| Ok(envoy.stat(overtaken)?.unwrap_or(0) > 0))?;
    let mut last = None;
    while last != Some(PUSHES - 1) {
        let frame = tokio::time::timeout(PATIENCE, deaf.receive()).await??;
        let body = frame.context("the connection ended")?.into_body().context("a body")?;
        let number = u32::from_be_bytes(body[..4].try_into()?);
        assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
        last = Some(number);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_where_the_configuration_says_so() -> Result<()> {
    let (push, limits) = little_room("close");
    let edits = [(r#""push": { "commands""#, &*push), (r#""statuses":"#, limits)];
    let mut scene = Scene::start("ticket.yaml", &edits).await?;
    let (_deaf, target) = scene.deaf().await?;
    scene.flood(&target, 2000).await?;
    scene.envoy.wait_stat("wasmcustom.meshgate.connections_closed_total.reason.slow_client", 1)?;
    // Its session waits for it to come back.
    let until = Instant::now() + PATIENCE;
    while scene.push(target.clone(), NOTICE, b"x").await?.away == 0 {
        assert!(Instant::now() < until);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_gets_so_much_and_disturbs_nobody() -> Result<()> {
    const PUSHES: usize = 2000;
    let edits = [(r#""statuses":"#, r#""limits": { "max_unread": "64KiB" }, "statuses":"#)];
    let mut scene = Scene::start("ticket.yaml", &edits).await?;
    let reader = scene.login(&scene.companion.ticket_login("reader", &[])?).await?;
    let (_deaf, target) = scene.deaf().await?;
    let large = noise(16 << 10);
    // All at once: what comes before the bell can be answered is too much for the bound.
    let requests: Vec<_> = (0..PUSHES).map(|_| request(target.clone(), NOTICE, &large)).collect();
    let mut app = scene.app.clone();
    let mut answers = app.push_stream(tokio_stream::iter(requests)).await?.into_inner();
    let (mut taken, mut dropped) = (0, 0);
    for _ in 0..PUSHES {
        let answer = answers.message().await?.context("an answer")?;
        taken += answer.delivered;
        dropped += answer.slow;
    }
    assert!(dropped > 0 && taken + dropped == PUSHES as u32, "{taken} {dropped}");
    scene
        .envoy
        .wait_stat("wasmcustom.meshgate.pushes_dropped_total.reason.slow_client", dropped.into())?;
    // One after another: they leave until Envoy and the kernel hold what they may.
    let mut stuck = PushResponse::default();
    while stuck.gone == 0 {
        let answer = scene.push(target.clone(), NOTICE, &large).await?;
        taken += answer.delivered;
        assert!((taken as usize) < PUSHES, "32 MiB were taken from a client that reads none");
        stuck.unconfirmed += answer.unconfirmed;
        stuck.gone += answer.gone;
    }
    // Its bell was not answered: it is closed, whatever it holds.
    assert!(stuck.unconfirmed > 0, "{stuck:?}");
    scene.envoy.wait_stat("wasmcustom.meshgate.upstream_errors_total.kind.bell_unanswered", 1)?;
    assert_eq!(scene.push(session(&reader), NOTICE, b"fine").await?, delivered(1));
    assert_eq!(body(&reader).await?, b"fine");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_go_on_after_the_companion_was_restarted() -> Result<()> {
    let mut scene = Scene::start("noise.yaml", &[]).await?;
    let ann = scene.client("ann").await?;
    let session_id = ann.session().context("a session")?.session_id.clone();
    scene.app.join_group(JoinGroupRequest { group: "room:1".into(), session_id }).await?;
    assert_eq!(scene.push(session(&ann), NOTICE, b"before").await?, delivered(1));
    scene.companion.process.kill();
    scene.envoy.wait_stat(CONNECTED, 0)?;
    echo(&ann).await?;
    scene.companion.restart()?;
    scene.app = AppClient::connect(format!("http://{}", scene.companion.app)).await?;
    scene.envoy.wait_stat(CONNECTED, 2)?;
    // The worker that has the session may be the later one to come back.
    let until = Instant::now() + PATIENCE;
    while scene.push(session(&ann), NOTICE, b"after").await? != delivered(1) {
        assert!(Instant::now() < until);
    }
    assert_eq!(body(&ann).await?, b"before");
    assert_eq!(body(&ann).await?, b"after");
    let room = Target::Group("room:1".to_owned());
    assert_eq!(scene.push(room, NOTICE, b"room").await?, delivered(1), "it is a member still");
    assert_eq!(body(&ann).await?, b"room");
    Ok(())
}
