//! Session events, as services that watch hear them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use meshgate_companion::domain::reach::Grant;
use meshgate_companion::domain::token::{Tokens, generate};
use meshgate_companion::service::rights::Rights;
use meshgate_proto::admin::v1::{KickSessionsRequest, kick_sessions_request::Whom};
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::app::v1::watch_response::Kind;
use meshgate_proto::app::v1::{Cause, Happened, SessionEvent, WatchRequest, WatchResponse};
use meshgate_proto::edge::v1::{Login, Mode};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use support::process::{Process, issue, keys};
use support::redis::RedisServer;
use support::{Proxy, Server, soon};

struct Watcher(Streaming<WatchResponse>);

impl Watcher {
    async fn on(app: &mut AppClient<Channel>, request: WatchRequest) -> Result<Self, Status> {
        Ok(Self(soon(app.watch(request)).await?.into_inner()))
    }

    async fn next(&mut self) -> Kind {
        soon(self.0.message()).await.unwrap().expect("a message").kind.unwrap()
    }

    async fn event(&mut self) -> SessionEvent {
        match self.next().await {
            Kind::Event(event) => event,
            other => panic!("no event but {other:?}"),
        }
    }

    /// Users of a snapshot, and its revision.
    async fn snapshot(&mut self) -> (Vec<String>, String) {
        assert!(matches!(self.next().await, Kind::SnapshotBegin(_)));
        let mut users = Vec::new();
        loop {
            match self.next().await {
                Kind::Session(session) => users.push(session.user),
                Kind::SnapshotEnd(end) => {
                    users.sort();
                    return (users, end.revision);
                }
                other => panic!("not in a snapshot: {other:?}"),
            }
        }
    }
}

/// Who, what, and why, in short.
fn short(event: &SessionEvent) -> (String, Happened, Cause, &str, u32) {
    let user = event.session.as_ref().unwrap().user.clone();
    (user, event.happened(), event.cause(), &event.reason, event.code)
}

async fn login(proxy: &mut Proxy, server: &Server, user: &str) -> Vec<u8> {
    let ticket = server.keys.ticket(user, |_| ());
    proxy.login(Mode::Ticket, ticket).await.unwrap().session_id
}

#[tokio::test]
async fn a_snapshot_is_followed_by_what_happens() {
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    let ada = login(&mut proxy, &server, "ada").await;
    let mut app = server.app().await;
    let mut watcher = Watcher::on(&mut app, WatchRequest::default()).await.unwrap();
    assert_eq!(watcher.snapshot().await.0, ["ada"]);
    let bob = login(&mut proxy, &server, "bob").await;
    let event = watcher.event().await;
    assert_eq!(short(&event), ("bob".into(), Happened::Login, Cause::Unspecified, "", 0));
    assert_eq!(event.session.unwrap().session_id, bob);
    proxy.ended(&ada).await;
    let expected = ("ada".to_owned(), Happened::Away, Cause::Unspecified, "", 0);
    let event = watcher.event().await;
    assert_eq!(short(&event), expected);
    assert!(event.session.unwrap().away_until_ms > 0);
    let whom = Some(Whom::User("bob".into()));
    let kick = KickSessionsRequest { whom, reason: "cheating".into(), code: 7 };
    soon(server.admin().await.kick_sessions(kick)).await.unwrap();
    let expected = ("bob".to_owned(), Happened::End, Cause::Kicked, "cheating", 7);
    assert_eq!(short(&watcher.event().await), expected);
    server.clock.advance(Duration::from_secs(60));
    let event = watcher.event().await;
    let (user, happened, cause, ..) = short(&event);
    assert_eq!((user.as_str(), happened, cause), ("ada", Happened::End, Cause::GivenUp));
}

#[tokio::test]
async fn who_comes_back_goes_on_where_he_was_and_after_a_restart_with_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let keys = std::sync::Arc::new(support::KeyRing::new());
    let server = Server::on_file(&path, keys.clone()).await;
    let mut proxy = server.proxy("one").await;
    let mut app = server.app().await;
    let new = WatchRequest { only_new: true, ..WatchRequest::default() };
    let mut watcher = Watcher::on(&mut app, new).await.unwrap();
    login(&mut proxy, &server, "ada").await;
    let first = watcher.event().await;
    drop(watcher);
    for user in ["bob", "eve"] {
        login(&mut proxy, &server, user).await;
    }
    let on = WatchRequest { after: first.revision, ..WatchRequest::default() };
    let mut watcher = Watcher::on(&mut app, on.clone()).await.unwrap();
    for user in ["bob", "eve"] {
        assert_eq!(short(&watcher.event().await).0, user);
    }
    drop((proxy, app));
    server.stop().await;
    // It hears why.
    let end = soon(watcher.0.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    let server = Server::on_file(&path, keys).await;
    let mut app = server.app().await;
    let mut watcher = Watcher::on(&mut app, on).await.unwrap();
    assert_eq!(watcher.snapshot().await.0, ["ada", "bob", "eve"]);
    let wrong = WatchRequest { after: "yesterday".into(), ..WatchRequest::default() };
    let refused = Watcher::on(&mut app, wrong).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_service_hears_of_the_audiences_that_are_granted_to_it() {
    let server = Server::start().await;
    let chat = generate("chat").unwrap();
    server.app_gate.reload(Rights {
        tokens: Some(Tokens::parse(&chat.line).unwrap()),
        grants: vec![Grant::parse("token=chat audience=lobby may=events").unwrap()],
        ..Rights::default()
    });
    let mut proxy = server.proxy("one").await;
    login(&mut proxy, &server, "ada").await;
    let mut app = server.app().await;
    let mut watch = async |request: WatchRequest| {
        let mut request = Request::new(request);
        let header = format!("Bearer {}", *chat.token).parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        soon(app.watch(request)).await.map(|answer| Watcher(answer.into_inner()))
    };
    let foreign = WatchRequest { audience: "game".into(), ..WatchRequest::default() };
    assert_eq!(watch(foreign).await.err().unwrap().code(), Code::PermissionDenied);
    let mut watcher = watch(WatchRequest::default()).await.unwrap();
    assert!(watcher.snapshot().await.0.is_empty());
    login(&mut proxy, &server, "bob").await;
    let ticket = server.keys.ticket("eve", |payload| payload.aud = "lobby".into());
    let change = |login: &mut Login| login.audience = "lobby".into();
    proxy.login_with(Mode::Ticket, ticket, change).await.unwrap();
    assert_eq!(short(&watcher.event().await).0, "eve");
}

#[tokio::test]
async fn one_who_is_too_slow_is_told_so_and_comes_back_with_a_snapshot() {
    let server = Server::start().await;
    let mut app = server.app().await;
    let new = WatchRequest { only_new: true, ..WatchRequest::default() };
    let mut watcher = Watcher::on(&mut app, new).await.unwrap();
    // More than is kept, and than waits on its way, while he reads nothing.
    let store = server.sessions.store();
    for _ in 0..20 {
        let sessions: Vec<_> = (0..500).map(|_| session()).collect();
        let ids = sessions.iter().map(|session| session.id).collect();
        // All at once: they share one transaction.
        let admissions: Vec<_> =
            sessions.into_iter().map(|one| tokio::spawn(store.admit(lives(one)))).collect();
        for admission in admissions {
            soon(admission).await.unwrap().unwrap();
        }
        soon(store.end(ids, None)).await.unwrap();
    }
    let end = soon(async {
        loop {
            if let Err(status) = watcher.0.message().await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(end.message().contains("snapshot"), "{end}");
}

fn session() -> meshgate_companion::domain::session::Session {
    use meshgate_companion::domain::credential::Identity;
    use meshgate_companion::domain::session::{HoldNumber, Mode, Session, SessionId};
    use meshgate_companion::domain::time::UnixMillis;
    Session {
        id: SessionId::new(support::START).unwrap(),
        // Large, so that few of them fill what waits between the two.
        identity: Identity {
            user: "ada".into(),
            roles: vec!["player".into()],
            claims: [("note".to_owned(), "x".repeat(900))].into(),
        },
        mode: Mode::Ticket,
        audience: "game".into(),
        layout: "happy".into(),
        proxy: "p".into(),
        peer: "203.0.113.7:40112".into(),
        client: String::new(),
        created_at: support::START,
        expires_at: UnixMillis(u64::MAX / 2),
        hold: HoldNumber(1 << 32),
        worker: 1,
        away_until: None,
        seed: None,
    }
}

fn lives(
    session: meshgate_companion::domain::session::Session,
) -> meshgate_companion::store::Admission {
    meshgate_companion::store::Admission { session: Some(session), ..Default::default() }
}

#[tokio::test]
async fn events_of_one_companion_are_heard_at_the_other() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let port = format!("store.redis.port={}", redis.port);
    let start = || {
        let args = ["--set", "store.kind=redis", "--set", &port, "--app-listen", "127.0.0.1:0"];
        Process::start(folder.path(), &args)
    };
    let (one, two) = (start(), start());
    let mut app = AppClient::connect(format!("http://{}", two.app)).await.unwrap();
    let mut watcher = Watcher::on(&mut app, WatchRequest::default()).await.unwrap();
    assert!(watcher.snapshot().await.0.is_empty());
    let mut proxy = Proxy::attach(&one.url(), "p", vec![]).await;
    let ticket = issue(folder.path(), "hmac.json", "ada");
    let id = proxy.login(Mode::Ticket, ticket).await.unwrap().session_id;
    let event = watcher.event().await;
    assert_eq!(short(&event).0, "ada");
    proxy.ended(&id).await;
    assert_eq!(short(&watcher.event().await).1, Happened::Away);
    // Whoever was at the one goes on at the other.
    let mut app = AppClient::connect(format!("http://{}", one.app)).await.unwrap();
    let on = WatchRequest { after: event.revision, ..WatchRequest::default() };
    let mut watcher = Watcher::on(&mut app, on).await.unwrap();
    assert_eq!(short(&watcher.event().await).1, Happened::Away);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_prints_a_line_for_each_event() {
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    login(&mut proxy, &server, "ada").await;
    let folder = tempfile::tempdir().unwrap();
    let app = server.app_address.strip_prefix("http://").unwrap().to_owned();
    let watching = tokio::task::spawn_blocking(move || {
        let base = ["session", "watch", "--snapshot", "--count", "1", "--json", "--server", &app];
        support::process::ok(support::process::meshgate(folder.path(), &base))
    });
    // Until it listens.
    let mut watching = Box::pin(watching);
    let said = loop {
        let ticket = server.keys.ticket("bob", |_| ());
        let id = proxy.login(Mode::Ticket, ticket).await.unwrap().session_id;
        proxy.ended(&id).await;
        let patience = std::time::Duration::from_millis(20);
        if let Ok(said) = tokio::time::timeout(patience, &mut watching).await {
            break said.unwrap();
        }
    };
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["happened"], "there");
    let last = lines.last().unwrap();
    assert_eq!(last["session"]["user"], "bob");
    assert!(last["revision"].as_str().unwrap().contains('-'));
}
