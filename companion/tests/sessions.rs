//! The life of sessions over real connections: streams, kicks, restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshgate_companion::domain::login::Policy;
use meshgate_companion::domain::same_user::SameUser;
use meshgate_companion::store::redb::RedbStore;
use meshgate_proto::admin::v1::{
    CountSessionsRequest, Filter, KickSessionsRequest, ListSessionsRequest, Session, State,
    kick_sessions_request::Whom,
};
use meshgate_proto::edge::v1::{Hello, Kick, Mode, Refusal, from_proxy};
use meshgate_proto::session::v1::login_request::Credential;
use redb::backends::InMemoryBackend;
use tokio::sync::Barrier;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use support::{Disk, KeyRing, NoiseClient, Proxy, Server, soon};

fn kick_user(user: &str) -> KickSessionsRequest {
    let whom = Some(Whom::User(user.into()));
    KickSessionsRequest { whom, reason: "maintenance".into(), code: 42 }
}

fn kick_matching(filter: Filter) -> KickSessionsRequest {
    let whom = Some(Whom::Matching(filter));
    KickSessionsRequest { whom, reason: "maintenance".into(), code: 42 }
}

fn kick_session(id: &[u8]) -> KickSessionsRequest {
    let whom = Some(Whom::SessionId(id.to_vec()));
    KickSessionsRequest { whom, reason: "bye".into(), code: 0 }
}

async fn listed(server: &Server) -> Vec<Session> {
    let request = ListSessionsRequest::default();
    server.admin().await.list_sessions(request).await.unwrap().into_inner().sessions
}

async fn login(server: &Server, proxy: &mut Proxy, user: &str) -> Vec<u8> {
    let ticket = server.keys.ticket(user, |_| ());
    proxy.login(Mode::Ticket, ticket).await.unwrap().session_id
}

async fn noise_login(server: &Server, proxy: &mut Proxy, user: &str) -> Vec<u8> {
    let ticket = Credential::Ticket(server.keys.ticket(user, |_| ()));
    let client = NoiseClient::new(&server.keys.noise, ticket);
    proxy.login(Mode::Noise, client.message).await.unwrap().session_id
}

#[tokio::test]
async fn a_kick_reaches_the_stream_that_holds_the_session_and_no_other() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.proxy("p").await, server.proxy("p").await);
    let ada = login(&server, &mut one, "ada").await;
    let bob = login(&server, &mut two, "bob").await;
    let mut admin = server.admin().await;
    assert_eq!(admin.kick_sessions(kick_user("bob")).await.unwrap().into_inner().ended, 1);
    let kick = two.kicked().await;
    assert_eq!(
        (kick.session_id, kick.reason.as_str(), kick.code),
        (bob.clone(), "maintenance", 42)
    );
    one.heard_nothing().await;
    assert_eq!(admin.kick_sessions(kick_session(&bob)).await.unwrap().into_inner().ended, 0);
    assert_eq!(admin.kick_sessions(kick_session(&ada)).await.unwrap().into_inner().ended, 1);
    assert_eq!(one.kicked().await.session_id, ada);
    two.heard_nothing().await;
}

#[tokio::test]
async fn a_pending_session_can_be_kicked_and_cannot_live_after() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let id = noise_login(&server, &mut proxy, "ada").await;
    let mut admin = server.admin().await;
    assert_eq!(admin.kick_sessions(kick_user("ada")).await.unwrap().into_inner().ended, 1);
    assert_eq!(proxy.kicked().await.session_id, id);
    assert_ne!(proxy.activate(&id).await.refused, "");
    assert!(listed(&server).await.is_empty());
}

#[tokio::test]
async fn a_pending_session_ends_by_itself_and_with_its_stream() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let id = noise_login(&server, &mut proxy, "ada").await;
    server.clock.advance(Duration::from_secs(10));
    // The companion's own sweep, once a second.
    assert_eq!(proxy.kicked().await.session_id, id);

    noise_login(&server, &mut proxy, "bob").await;
    assert_eq!(listed(&server).await[0].state(), State::Pending);
    drop(proxy);
    soon(async {
        while !listed(&server).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_stream_cannot_activate_a_session() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.proxy("p").await, server.proxy("p").await);
    let id = noise_login(&server, &mut one, "ada").await;
    assert_ne!(two.activate(&id).await.refused, "");
    assert_ne!(two.activate(b"short").await.refused, "");
    assert_eq!(one.activate(&id).await.refused, "");
}

#[tokio::test]
async fn sessions_are_listed_with_what_an_operator_needs() {
    let server = Server::start().await;
    let mut proxy = server.proxy("proxy-1").await;
    let live = login(&server, &mut proxy, "ada").await;
    let pending = noise_login(&server, &mut proxy, "bob").await;
    let sessions = listed(&server).await;
    assert_eq!(sessions.len(), 2);
    let ada = sessions.iter().find(|session| session.session_id == live).unwrap();
    assert_eq!((ada.user.as_str(), ada.state()), ("ada", State::Live));
    assert_eq!((ada.proxy.as_str(), ada.peer.as_str()), ("proxy-1", "203.0.113.7:40112"));
    assert_eq!(ada.expires_at_ms - ada.created_at_ms, 12 * 3600 * 1000);
    let bob = sessions.iter().find(|session| session.session_id == pending).unwrap();
    assert_eq!((bob.user.as_str(), bob.state()), ("bob", State::Pending));

    let mut admin = server.admin().await;
    let request = ListSessionsRequest { page_size: 1, ..Default::default() };
    let first = admin.list_sessions(request.clone()).await.unwrap().into_inner();
    let request = ListSessionsRequest { page_token: first.next_page_token, ..request };
    let second = admin.list_sessions(request).await.unwrap().into_inner();
    assert_eq!((first.sessions.len(), second.sessions.len()), (1, 1));
    assert_ne!(first.sessions[0].session_id, second.sessions[0].session_id);
}

#[tokio::test]
async fn an_operators_mistakes_are_named() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let request = ListSessionsRequest { page_size: 1001, ..Default::default() };
    assert!(admin.list_sessions(request).await.unwrap_err().message().contains("page_size"));
    let request = ListSessionsRequest { page_token: "x".into(), ..Default::default() };
    assert!(admin.list_sessions(request).await.unwrap_err().message().contains("page_token"));
    let filter = Some(Filter { user: "ada".into(), ..Filter::default() });
    let request = ListSessionsRequest { user: "bob".into(), filter, ..Default::default() };
    assert!(admin.list_sessions(request).await.unwrap_err().message().contains("differ"));
    for (request, named) in [
        (KickSessionsRequest::default(), "session_id"),
        (kick_user(""), "user"),
        (kick_matching(Filter::default()), "matching"),
        (kick_matching(Filter { state: 9, ..Filter::default() }), "state"),
        (
            kick_matching(Filter {
                claims: (0..33).map(|n| (n.to_string(), String::new())).collect(),
                ..Filter::default()
            }),
            "claims",
        ),
        (kick_session(b"short"), "16 bytes"),
        (KickSessionsRequest { reason: "r".repeat(257), ..kick_user("a") }, "reason"),
    ] {
        let status = admin.kick_sessions(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(named), "{}", status.message());
    }
}

#[tokio::test]
async fn a_restart_keeps_live_sessions_and_used_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let server = Server::on_file(&path, Arc::new(KeyRing::new())).await;
    let mut proxy = server.proxy("p").await;
    let live = login(&server, &mut proxy, "ada").await;
    let kicked = login(&server, &mut proxy, "bob").await;
    let ticket = Credential::Ticket(server.keys.ticket("eve", |_| ()));
    let client = NoiseClient::new(&server.keys.noise, ticket);
    let pending = proxy.login(Mode::Noise, client.message.clone()).await.unwrap().session_id;
    let keys = Arc::clone(&server.keys);
    server.stop().await;
    assert_eq!(proxy.end().await.code(), Code::Unavailable);

    let server = Server::on_file(&path, keys).await;
    let mut admin = server.admin().await;
    assert_eq!(admin.kick_sessions(kick_session(&kicked)).await.unwrap().into_inner().ended, 1);
    let ids = vec![live.clone(), kicked.clone(), pending.clone()];
    let mut proxy = Proxy::attach(&server.address, "p", ids).await;
    // Those that are gone are named, the one that lives is held again.
    assert_eq!(proxy.kicked().await.session_id, kicked);
    assert_eq!(proxy.kicked().await.session_id, pending);
    let refused = proxy.login(Mode::Noise, client.message).await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::Expired);
    assert_eq!(admin.kick_sessions(kick_session(&live)).await.unwrap().into_inner().ended, 1);
    assert_eq!(proxy.kicked().await.session_id, live);
}

#[tokio::test]
async fn a_session_whose_client_left_is_away_and_then_gone() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let id = login(&server, &mut proxy, "ada").await;
    proxy.ended(b"short").await;
    proxy.ended(&id).await;
    let becomes = async |states: &[State]| {
        soon(async {
            while listed(&server).await.iter().map(|s| s.state()).collect::<Vec<_>>() != states {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    becomes(&[State::Away]).await;
    let count = server.admin().await.count_sessions(CountSessionsRequest {}).await.unwrap();
    assert_eq!((count.get_ref().live, count.get_ref().away), (0, 1));
    server.clock.advance(Duration::from_secs(60));
    becomes(&[]).await;
    proxy.heard_nothing().await;
}

#[tokio::test]
async fn a_stream_must_begin_with_one_hello_of_this_contract() {
    let server = Server::start().await;
    let hello = Hello { contract: 1, proxy: "p".into(), ..Hello::default() };
    let refused = async |hello: Hello| {
        let mut proxy = Proxy::open(&server.address).await;
        proxy.send(from_proxy::Kind::Hello(hello)).await;
        proxy.end().await
    };
    let status = refused(Hello { contract: 2, ..hello.clone() }).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("contract 2"), "{}", status.message());
    for bad in [
        Hello { proxy: String::new(), ..hello.clone() },
        Hello { proxy: "p".repeat(257), ..hello.clone() },
        Hello { sessions: vec![vec![1, 2, 3]], ..hello.clone() },
    ] {
        assert_eq!(refused(bad).await.code(), Code::InvalidArgument);
    }
    let mut silent = Proxy::open(&server.address).await;
    silent.ended(&[0; 16]).await;
    assert_eq!(silent.end().await.code(), Code::FailedPrecondition);
    let mut twice = server.proxy("p").await;
    twice.send(from_proxy::Kind::Hello(hello)).await;
    assert_eq!(twice.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn stopping_refuses_new_logins_and_ends_streams_in_order() {
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    let server = Server::with(store, Arc::new(KeyRing::new()), Default::default()).await;
    let mut proxy = server.proxy("p").await;
    login(&server, &mut proxy, "ada").await;
    server.stop().await;
    let status = proxy.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("stopping"), "{}", status.message());
}

#[tokio::test]
async fn when_the_store_fails_logins_try_again_and_what_lives_goes_on() {
    let disk = Disk::default();
    let store = RedbStore::with_backend(disk.clone()).unwrap();
    let server = Server::with(store, Arc::new(KeyRing::new()), Policy::default()).await;
    let mut proxy = server.proxy("p").await;
    login(&server, &mut proxy, "ada").await;
    let pending = noise_login(&server, &mut proxy, "bob").await;
    disk.broken.store(true, Ordering::SeqCst);

    assert!(proxy.activate(&pending).await.refused.contains("try again"));
    for _ in 0..2 {
        let ticket = server.keys.ticket("eve", |_| ());
        let refused = proxy.login(Mode::Ticket, ticket).await.unwrap_err();
        assert_eq!(refused.refusal(), Refusal::TryAgain);
    }
    let status = server.admin().await.kick_sessions(kick_user("ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let mut health = HealthClient::new(server.channel().await);
    soon(async {
        let request = HealthCheckRequest::default();
        while health.check(request.clone()).await.unwrap().into_inner().status()
            != ServingStatus::NotServing
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The proxy heard no kick: its session was not touched.
    let refused = proxy.login(Mode::Ticket, "x").await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "meshgate.edge.v1.Edge", "meshgate.admin.v1.Admin"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }

    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = soon(answers.into_inner().message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"meshgate.edge.v1.Edge".to_owned()), "{names:?}");
}

/// Fifty Noise logins of one user, activated at the same moment, each on a stream of its own:
/// how many heard that they live, and the goodbyes that came after.
async fn fifty(server: &Server) -> (usize, Vec<Kick>) {
    let start = Arc::new(Barrier::new(50));
    let tasks = (0..50).map(|number| {
        let ticket = Credential::Ticket(server.keys.ticket("ada", |_| ()));
        let client = NoiseClient::new(&server.keys.noise, ticket);
        let (address, start) = (server.address.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            let mut proxy = Proxy::attach(&address, &format!("p{number}"), vec![]).await;
            let id = proxy.login(Mode::Noise, client.message).await.unwrap().session_id;
            start.wait().await;
            let lives = proxy.activate(&id).await.refused.is_empty();
            (proxy, lives)
        })
    });
    let mut lived = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        let (proxy, lives) = soon(task).await.unwrap();
        lived.extend(lives.then_some(proxy));
    }
    let mut kicks = Vec::new();
    let count = lived.len();
    for mut proxy in lived {
        kicks.extend(proxy.heard_at_most_a_kick().await);
    }
    (count, kicks)
}

async fn with_rule(same_user: SameUser) -> Server {
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    let policy = Policy { same_user, ..Policy::default() };
    Server::with(store, Arc::new(KeyRing::new()), policy).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_logins_at_the_same_moment_one_lives_where_the_next_is_refused() {
    let server = with_rule(SameUser::REFUSE).await;
    let (lived, kicks) = fifty(&server).await;
    assert_eq!((lived, kicks.len()), (1, 0));
    assert_eq!(listed(&server).await.len(), 1);
    // Now it is known before the handshake is answered.
    let mut proxy = server.proxy("late").await;
    let ticket = server.keys.ticket("ada", |_| ());
    let refused = proxy.login(Mode::Ticket, ticket).await.unwrap_err();
    assert_eq!(
        (refused.refusal(), refused.text.as_str()),
        (Refusal::TryAgain, "this user is logged in already")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_logins_at_the_same_moment_the_last_lives_where_the_old_is_replaced() {
    let server = with_rule(SameUser::Replace { code: 9 }).await;
    let (lived, kicks) = fifty(&server).await;
    assert_eq!(kicks.len() + 1, lived);
    for kick in kicks {
        assert_eq!((kick.reason.as_str(), kick.code), ("logged in elsewhere", 9));
    }
    assert_eq!(listed(&server).await.len(), 1);
}
