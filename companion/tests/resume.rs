//! Clients that come back: over other proxies and other companions, by Noise and by ticket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use meshgate_companion::domain::key::{Key, Kind};
use meshgate_companion::domain::login::Policy;
use meshgate_companion::domain::resume::ticket_message;
use meshgate_companion::domain::same_user::SameUser;
use meshgate_companion::domain::session::SessionId;
use meshgate_companion::domain::sessions::Away;
use meshgate_companion::domain::sessions::push::PushLimits;
use meshgate_companion::domain::time::UnixMillis;
use meshgate_companion::store::queue::QueueLimits;
use meshgate_companion::store::redb::RedbStore;
use meshgate_proto::admin::v1::{CountSessionsRequest, ListSessionsRequest, State};
use meshgate_proto::app::v1::PushRequest;
use meshgate_proto::app::v1::push_request::{Command, Target};
use meshgate_proto::edge::v1::push;
use meshgate_proto::edge::v1::{LoginAccepted, LoginRefused, Mode, Refusal};
use meshgate_proto::session::v1::login_request::Credential;
use meshgate_proto::session::v1::{LoginReply, ResumeToken};
use prost::Message as _;
use redb::backends::InMemoryBackend;
use zeroize::Zeroizing;

use support::{AUDIENCE, KeyRing, LAYOUT, NoiseClient, Proxy, Server, soon, worker};

const RESUMED: &str = "the session goes on over another connection";

async fn with(policy: Policy) -> Server {
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    Server::with(store, Arc::new(KeyRing::new()), policy).await
}

/// Logs in by Noise up to the first frame; the client's token, and its session.
async fn log_in(server: &Server, proxy: &mut Proxy, user: &str) -> (ResumeToken, LoginAccepted) {
    let ticket = Credential::Ticket(server.keys.ticket(user, |_| ()));
    let client = NoiseClient::new(&server.keys.noise, ticket);
    let accepted = proxy.login(Mode::Noise, client.message.clone()).await.unwrap();
    let (reply, ..) = client.finish(&accepted.reply);
    assert_eq!((reply.generation, reply.lost_up_to), (1, 0));
    assert_eq!(proxy.activate(&accepted.session_id).await.refused, "");
    (reply.resume.expect("a token"), accepted)
}

/// Resumes by Noise up to the first frame.
async fn resume(
    key: &Key,
    proxy: &mut Proxy,
    token: &ResumeToken,
) -> Result<(LoginReply, LoginAccepted), LoginRefused> {
    let client = NoiseClient::resuming(key, LAYOUT, AUDIENCE, token);
    let accepted = proxy.login(Mode::Noise, client.message.clone()).await?;
    let (reply, up, down) = client.finish(&accepted.reply);
    assert_eq!(
        (&up, &down),
        (&accepted.client_to_server_key, &accepted.server_to_client_key),
        "fresh keys that both sides have"
    );
    assert!(accepted.activate);
    Ok((reply, accepted))
}

fn not_resumed(result: Result<impl std::fmt::Debug, LoginRefused>) {
    let refused = result.expect_err("a refusal");
    let said = (refused.refusal(), refused.text.as_str());
    assert_eq!(said, (Refusal::Unauthenticated, "the session cannot be resumed, log in"));
}

async fn states(server: &Server) -> Vec<State> {
    let listed = server.admin().await.list_sessions(ListSessionsRequest::default()).await.unwrap();
    listed.into_inner().sessions.iter().map(|session| session.state()).collect()
}

async fn become_states(server: &Server, expected: &[State]) {
    soon(async {
        while states(server).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_comes_back_at_another_proxy_and_its_old_token_is_worth_nothing() {
    let server = Server::start().await;
    let key = &server.keys.noise;
    let (mut p, mut q) = (server.proxy("p").await, server.proxy("q").await);
    let (first, accepted) = log_in(&server, &mut p, "ada").await;
    assert_eq!(first.grace_ms, 60_000);
    p.ended(&accepted.session_id).await;
    become_states(&server, &[State::Away]).await;

    let (reply, resumed) = resume(key, &mut q, &first).await.unwrap();
    assert_eq!(
        (reply.session_id.as_slice(), reply.user.as_str()),
        (&accepted.session_id[..], "ada")
    );
    assert_eq!((reply.generation, reply.lost_up_to), (2, 1));
    assert_eq!(resumed.claims, accepted.claims);
    assert_ne!(resumed.client_to_server_key, accepted.client_to_server_key);
    let second = reply.resume.unwrap();
    // The reply may have been lost: until a frame comes, both tokens are good.
    assert_eq!(states(&server).await, [State::Away]);
    let mut r = server.proxy("r").await;
    for token in [&first, &second] {
        resume(key, &mut r, token).await.unwrap();
    }
    assert_eq!(q.activate(&accepted.session_id).await.refused, "");
    assert_eq!(states(&server).await, [State::Live]);
    not_resumed(resume(key, &mut p, &first).await);
    resume(key, &mut p, &second).await.unwrap();
    // Nor does the connection of another token that was good go on.
    assert_eq!(r.activate(&accepted.session_id).await.refused, RESUMED);
    let listed = server.admin().await.list_sessions(ListSessionsRequest::default()).await.unwrap();
    let session = &listed.get_ref().sessions[0];
    assert_eq!((session.proxy.as_str(), session.generation), ("q", 2));
}

#[tokio::test]
async fn the_old_connection_hears_that_the_session_goes_on_elsewhere() {
    let server = Server::start().await;
    let (mut p, mut q) = (server.proxy("p").await, server.proxy("q").await);
    let (token, accepted) = log_in(&server, &mut p, "ada").await;
    let (reply, resumed) = resume(&server.keys.noise, &mut q, &token).await.unwrap();
    // A frame may never come: nothing happens to the old one before.
    p.heard_nothing().await;
    assert_eq!(q.activate(&resumed.session_id).await.refused, "");
    let kick = p.kicked().await;
    assert_eq!((kick.reason.as_str(), kick.hold), (RESUMED, accepted.hold));
    // What the old one reports of its end is about itself alone.
    p.ended_hold(&accepted.session_id, accepted.hold).await;
    p.heard_nothing().await;
    assert_eq!(states(&server).await, [State::Live]);
    // On the same worker, too.
    let (_, again) = resume(&server.keys.noise, &mut q, &reply.resume.unwrap()).await.unwrap();
    let activated = q.activate_and_hear_kick(&again.session_id).await;
    assert_eq!(activated, resumed.hold);
    let kick = server.sessions.kick(
        meshgate_companion::domain::sessions::Whom::Session(
            again.session_id.as_slice().try_into().unwrap(),
        ),
        meshgate_companion::domain::session::Farewell::new("out"),
    );
    assert_eq!(kick.await, Ok(1));
    assert_eq!(q.kicked().await.hold, again.hold);
}

#[tokio::test]
async fn pushes_follow_the_session_to_its_new_connection() {
    let server = Server::start().await;
    let (mut p, mut q) = (server.proxy("p").await, server.proxy("q").await);
    let (token, accepted) = log_in(&server, &mut p, "ada").await;
    let id = accepted.session_id;
    let mut app = server.app().await;
    let push = || PushRequest {
        target: Some(Target::SessionId(id.clone())),
        command: Some(Command::Number(7)),
        body: b"news".to_vec(),
        ..PushRequest::default()
    };
    resume(&server.keys.noise, &mut q, &token).await.unwrap();
    let (answer, ()) = tokio::join!(app.push(push()), async {
        let push = p.push().await;
        p.delivered(&push).await;
    });
    assert_eq!(answer.unwrap().into_inner().delivered, 1, "where it lives still");
    assert_eq!(q.activate(&id).await.refused, "");
    p.kicked().await;
    let (answer, ()) = tokio::join!(app.push(push()), async {
        let push = q.push().await;
        q.delivered(&push).await;
    });
    assert_eq!(answer.unwrap().into_inner().delivered, 1);
    q.ended(&id).await;
    become_states(&server, &[State::Away]).await;
    assert_eq!(app.push(push()).await.unwrap().into_inner().away, 1);
}

/// The commands of the next pushes to this proxy; each is answered.
async fn pushes(proxy: &mut Proxy, count: usize) -> Vec<i64> {
    let mut commands = Vec::new();
    for _ in 0..count {
        let push = proxy.push().await;
        let Some(push::Command::Number(number)) = push.command else { panic!("{push:?}") };
        proxy.delivered(&push).await;
        commands.push(number);
    }
    commands
}

#[tokio::test]
async fn what_was_pushed_meanwhile_comes_first_when_a_session_comes_back() {
    let server = Server::start().await;
    let queue = QueueLimits { pushes: 3, ..QueueLimits::default() };
    server.sessions.set_push_limits(PushLimits { queue, ..PushLimits::default() });
    let mut app = server.app().await;
    let (mut p, mut q) = (server.proxy("p").await, server.proxy("q").await);
    let (token, accepted) = log_in(&server, &mut p, "ada").await;
    p.ended(&accepted.session_id).await;
    become_states(&server, &[State::Away]).await;
    let push = |number: i64| PushRequest {
        target: Some(Target::User("ada".into())),
        command: Some(Command::Number(number)),
        ..PushRequest::default()
    };
    for number in 1..=4 {
        let answer = app.push(push(number)).await.unwrap().into_inner();
        assert_eq!(
            (answer.queued, answer.slow, answer.away),
            if number < 4 { (1, 0, 0) } else { (0, 1, 0) }
        );
    }
    let (_, resumed) = resume(&server.keys.noise, &mut q, &token).await.unwrap();
    assert_eq!(q.activate(&resumed.session_id).await.refused, "");
    assert_eq!(pushes(&mut q, 3).await, [1, 2, 3]);
    let (answer, heard) = tokio::join!(app.push(push(5)), pushes(&mut q, 1));
    assert_eq!((answer.unwrap().into_inner().delivered, heard), (1, vec![5]));

    // Its proxy was lost, and comes back with it.
    drop(q);
    server.clock.advance(Duration::from_secs(31));
    become_states(&server, &[State::Away]).await;
    assert_eq!(app.push(push(6)).await.unwrap().into_inner().queued, 1);
    let mut q = Proxy::attach(&server.address, "q", vec![resumed.session_id.clone()]).await;
    assert_eq!(pushes(&mut q, 1).await, [6]);

    // What has waited for too long is dropped.
    q.ended(&resumed.session_id).await;
    become_states(&server, &[State::Away]).await;
    server.sessions.set_push_limits(PushLimits {
        queue: QueueLimits { age: Duration::from_secs(5), ..queue },
        ..PushLimits::default()
    });
    assert_eq!(app.push(push(7)).await.unwrap().into_inner().queued, 1);
    server.clock.advance(Duration::from_secs(6));
    assert_eq!(app.push(push(8)).await.unwrap().into_inner().queued, 1);
    let id = resumed.session_id;
    let listed = server
        .sessions
        .store()
        .take_kept(vec![SessionId::try_from(id.as_slice()).unwrap()], UnixMillis(0))
        .await
        .unwrap();
    assert_eq!(listed[0].len(), 1);
}

#[tokio::test]
async fn of_fifty_at_the_same_moment_with_one_token_one_goes_on_and_the_rest_must_log_in() {
    let server = Server::start().await;
    let mut p = server.proxy("p").await;
    let (token, accepted) = log_in(&server, &mut p, "ada").await;
    p.ended(&accepted.session_id).await;
    let mut waiting = Vec::new();
    for number in 0..50 {
        let mut proxy = server.proxy(&format!("p{number}")).await;
        let (reply, accepted) = resume(&server.keys.noise, &mut proxy, &token).await.unwrap();
        waiting.push((proxy, reply.resume.unwrap(), accepted.hold));
    }
    let id = &accepted.session_id;
    let all = waiting.into_iter().map(async |(mut proxy, token, hold)| {
        let refused = proxy.activate_hold(id, hold).await.refused;
        (proxy, token, refused.is_empty())
    });
    let mut done = Vec::new();
    for one in futures(all).await {
        done.push(one);
    }
    let winners: Vec<_> = done.iter().filter(|(_, _, won)| *won).collect();
    assert_eq!(winners.len(), 1);
    // The tokens that the others were given are worth nothing either.
    for (proxy, token, won) in &mut done {
        let again = resume(&server.keys.noise, proxy, token).await;
        if *won {
            again.unwrap();
        } else {
            not_resumed(again);
        }
    }
    assert_eq!(states(&server).await, [State::Live]);
}

/// All of them at the same time.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in all.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_ticket_session_is_resumed_with_its_token_and_its_ticket() {
    let server = Server::start().await;
    let (mut p, mut q) = (server.proxy("p").await, server.proxy("q").await);
    let ticket = server.keys.ticket("ada", |payload| payload.once = true);
    let accepted = p.login(Mode::Ticket, ticket.clone()).await.unwrap();
    assert!(!accepted.activate);
    let token = LoginReply::decode(accepted.reply.as_slice()).unwrap().resume.unwrap();
    p.ended(&accepted.session_id).await;
    // Long after the ticket itself: it is only the proof of who logged in.
    server.clock.advance(Duration::from_secs(59));
    let message = |token: &ResumeToken, ticket: &str| {
        let secret = Zeroizing::new(token.secret.clone().try_into().unwrap());
        ticket_message(&token.id, &secret, ticket.as_bytes()).unwrap()
    };
    let good = message(&token, &ticket);
    let other = server.keys.ticket("ada", |_| ());
    let mut changed = token.clone();
    changed.secret[31] ^= 1;
    let mut renamed = token.clone();
    renamed.id[31] ^= 1;
    for bad in [message(&token, &other), message(&changed, &ticket), message(&renamed, &ticket)] {
        not_resumed(q.login(Mode::Ticket, bad).await);
    }
    for end in 2..good.len() {
        let refused = q.login(Mode::Ticket, &good[..end]).await.unwrap_err();
        assert_eq!(refused.refusal(), Refusal::Malformed);
    }
    let resumed = q.login(Mode::Ticket, good.clone()).await.unwrap();
    assert!(resumed.activate && resumed.client_to_server_key.is_empty());
    assert_eq!((resumed.session_id.clone(), resumed.user.as_str()), (accepted.session_id, "ada"));
    assert_eq!(q.activate(&resumed.session_id).await.refused, "");
    not_resumed(p.login(Mode::Ticket, good).await);
    let next = LoginReply::decode(resumed.reply.as_slice()).unwrap();
    assert_eq!((next.generation, next.lost_up_to), (2, 1));
    let good = message(&next.resume.unwrap(), &ticket);
    assert!(p.login(Mode::Ticket, good).await.is_ok());
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_sounds_the_same() {
    let server = Server::start().await;
    let key = &server.keys.noise;
    let mut proxy = server.proxy("p").await;
    let (token, accepted) = log_in(&server, &mut proxy, "ada").await;
    let changed = |at: usize| {
        let mut token = token.clone();
        token.id[at] ^= 1;
        token
    };
    let mut secret = token.clone();
    secret.secret[0] ^= 1;
    let mut short = token.clone();
    short.id.pop();
    for bad in [changed(0), changed(16), changed(31), secret, short] {
        not_resumed(resume(key, &mut proxy, &bad).await);
    }
    for (layout, audience) in [("other", AUDIENCE), (LAYOUT, "shop")] {
        let client = NoiseClient::resuming(key, layout, audience, &token);
        not_resumed(proxy.login(Mode::Noise, client.message).await);
        // As the proxy says, with the right bytes.
        let client = NoiseClient::resuming(key, layout, audience, &token);
        let login = proxy.login_with(Mode::Noise, client.message, |login| {
            login.layout = layout.into();
            login.audience = audience.into();
        });
        not_resumed(login.await);
    }
    // The token of one mode is none in the other.
    let secret = Zeroizing::new(token.secret.clone().try_into().unwrap());
    let message = ticket_message(&token.id, &secret, b"").unwrap();
    not_resumed(proxy.login(Mode::Ticket, message).await);

    let client = NoiseClient::resuming(key, LAYOUT, AUDIENCE, &token);
    for end in [2, 3, 10, client.message.len() - 49] {
        let cut = client.message[..end].to_vec();
        let refused = proxy.login(Mode::Noise, cut).await.unwrap_err();
        assert_eq!(refused.refusal(), Refusal::Malformed, "cut at {end}");
    }
    server.admin().await.kick_sessions(support::kick_request(&accepted.session_id)).await.unwrap();
    proxy.kicked().await;
    not_resumed(resume(key, &mut proxy, &token).await);
}

#[tokio::test]
async fn nobody_comes_back_after_the_grace() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let (token, accepted) = log_in(&server, &mut proxy, "ada").await;
    proxy.ended(&accepted.session_id).await;
    become_states(&server, &[State::Away]).await;
    server.clock.advance(Duration::from_secs(60));
    not_resumed(resume(&server.keys.noise, &mut proxy, &token).await);
    become_states(&server, &[]).await;
}

#[tokio::test]
async fn who_logs_out_is_not_away_but_gone() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let (token, accepted) = log_in(&server, &mut proxy, "ada").await;
    proxy.logged_out(&accepted.session_id).await;
    become_states(&server, &[]).await;
    not_resumed(resume(&server.keys.noise, &mut proxy, &token).await);
    assert_eq!(server.sessions.metrics().ended.value("logout"), 1);
}

#[tokio::test]
async fn without_resume_or_grace_a_session_ends_with_its_connection() {
    let none = Away { grace: Duration::ZERO, ..Away::default() };
    for policy in
        [Policy { resume: false, ..Policy::default() }, Policy { away: none, ..Policy::default() }]
    {
        let server = with(policy).await;
        let mut proxy = server.proxy("p").await;
        let ticket = server.keys.ticket("ada", |_| ());
        let accepted = proxy.login(Mode::Ticket, ticket).await.unwrap();
        let reply = LoginReply::decode(accepted.reply.as_slice()).unwrap();
        assert_eq!(reply.resume, None);
        proxy.ended(&accepted.session_id).await;
        become_states(&server, &[]).await;
    }
}

#[tokio::test]
async fn a_user_whose_proxy_died_is_let_in_again_where_one_session_is_allowed() {
    let policy = Policy { same_user: SameUser::REFUSE, ..Policy::default() };
    let server = with(policy).await;
    let mut dead = server.proxy("dead").await;
    let mut other = server.proxy("other").await;
    let (token, accepted) = log_in(&server, &mut dead, "ada").await;
    drop(dead);
    let ticket = || server.keys.ticket("ada", |_| ());
    let refused = other.login(Mode::Ticket, ticket()).await.unwrap_err();
    assert_eq!(refused.text, "this user is logged in already");
    // The store has been asked for long enough, and nobody has spoken of the worker.
    server.clock.advance(Duration::from_secs(31));
    become_states(&server, &[State::Away]).await;
    let login = other.login(Mode::Ticket, ticket()).await.unwrap();
    assert_eq!(states(&server).await, [State::Live]);
    // The one that gave way is not there any more, whoever asks for it.
    not_resumed(resume(&server.keys.noise, &mut other, &token).await);
    let mut back = Proxy::attach(&server.address, "dead", vec![accepted.session_id.clone()]).await;
    assert_eq!(back.kicked().await.reason, "logged in elsewhere");
    other.ended(&login.session_id).await;
}

#[tokio::test]
async fn a_proxy_that_was_only_out_of_reach_keeps_its_sessions() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let (_, accepted) = log_in(&server, &mut proxy, "ada").await;
    drop(proxy);
    server.clock.advance(Duration::from_secs(31));
    become_states(&server, &[State::Away]).await;
    let mut back = Proxy::attach(&server.address, "p", vec![accepted.session_id.clone()]).await;
    back.heard_nothing().await;
    assert_eq!(states(&server).await, [State::Live]);
    // While it is attached, it is not lost, however long that is.
    for _ in 0..10 {
        server.clock.advance(Duration::from_secs(20));
        server.sessions.beat().await;
        server.sessions.sweep().await.unwrap();
    }
    assert_eq!(states(&server).await, [State::Live]);
    assert_ne!(worker("p"), 0);
    let count = server.admin().await.count_sessions(CountSessionsRequest {}).await.unwrap();
    assert_eq!((count.get_ref().live, count.get_ref().away), (1, 0));
}

#[tokio::test]
async fn a_token_outlives_the_companion_and_needs_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let keys = Arc::new(KeyRing::new());
    let server = Server::on_file(&path, Arc::clone(&keys)).await;
    let mut proxy = server.proxy("p").await;
    let (token, accepted) = log_in(&server, &mut proxy, "ada").await;
    proxy.ended(&accepted.session_id).await;
    become_states(&server, &[State::Away]).await;
    drop(proxy);
    server.stop().await;
    // Who has the store and not the key has nothing.
    let noise = Key::generate(Kind::Noise, Some("n1".into())).unwrap();
    let other = Arc::new(KeyRing { noise: noise.clone(), ..KeyRing::new() });
    let thief = Server::on_file(&path, other).await;
    let mut proxy = thief.proxy("p").await;
    not_resumed(resume(&noise, &mut proxy, &token).await);
    drop(proxy);
    thief.stop().await;
    let server = Server::on_file(&path, Arc::clone(&keys)).await;
    let mut proxy = server.proxy("p").await;
    resume(&keys.noise, &mut proxy, &token).await.unwrap();
}
