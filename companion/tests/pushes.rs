//! Pushes, from the service's call to the proxy's stream and back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use meshgate_companion::domain::reach::Grant;
use meshgate_companion::domain::sessions::push::PushLimits;
use meshgate_companion::domain::token::{Tokens, generate};
use meshgate_companion::service::rights::Rights;
use meshgate_proto::app::v1::push_request::{Command, Target};
use meshgate_proto::app::v1::{GetSessionRequest, ListSessionsRequest, PushRequest, PushResponse};
use meshgate_proto::edge::v1::{Hello, Mode, Pushed, from_proxy, push};
use tonic::{Code, Request};

use support::{Proxy, Server, soon};

fn request(target: Target, body: &[u8]) -> PushRequest {
    PushRequest {
        target: Some(target),
        command: Some(Command::Number(1206)),
        body: body.to_vec(),
        ..PushRequest::default()
    }
}

fn to(session: &[u8]) -> Target {
    Target::SessionId(session.to_vec())
}

fn user(name: &str) -> Target {
    Target::User(name.into())
}

impl Server {
    async fn pushed(&self, request: PushRequest) -> Result<PushResponse, Code> {
        let mut app = self.app().await;
        soon(app.push(request)).await.map(tonic::Response::into_inner).map_err(|s| s.code())
    }

    async fn live(&self, proxy: &mut Proxy, user: &str) -> Vec<u8> {
        self.clock.advance(Duration::from_millis(1));
        let ticket = self.keys.ticket(user, |_| ());
        proxy.login(Mode::Ticket, ticket).await.unwrap().session_id
    }

    /// A session of another audience.
    async fn live_in(&self, proxy: &mut Proxy, user: &str, audience: &str) -> Vec<u8> {
        // So that the order of their ids is that of their logins.
        self.clock.advance(Duration::from_millis(1));
        let ticket = self.keys.ticket(user, |payload| payload.aud = audience.into());
        let change = |login: &mut meshgate_proto::edge::v1::Login| login.audience = audience.into();
        proxy.login_with(Mode::Ticket, ticket, change).await.unwrap().session_id
    }
}

fn delivered(delivered: u32) -> PushResponse {
    PushResponse { delivered, ..PushResponse::default() }
}

#[tokio::test]
async fn a_push_goes_to_the_proxy_of_its_session_and_is_answered_as_that_answers() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.proxy("one").await, server.proxy("two").await);
    let ada = server.live(&mut one, "ada").await;
    server.live(&mut two, "bob").await;
    let proxying = async {
        let heard = one.push().await;
        assert_eq!(heard.sessions, ada);
        assert_eq!(heard.command, Some(push::Command::Number(1206)));
        assert_eq!(heard.body, b"hello");
        one.delivered(&heard).await;
    };
    let (answer, ()) = tokio::join!(server.pushed(request(to(&ada), b"hello")), proxying);
    assert_eq!(answer, Ok(delivered(1)));
    two.heard_nothing().await;
}

#[tokio::test]
async fn a_push_to_a_user_is_one_message_for_each_proxy_that_holds_him() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.proxy("one").await, server.proxy("two").await);
    let first = server.live(&mut one, "ada").await;
    let second = server.live(&mut one, "ada").await;
    let third = server.live(&mut two, "ada").await;
    server.live(&mut two, "bob").await;
    let proxying = async {
        let heard = one.push().await;
        assert_eq!(heard.sessions, [first, second].concat());
        let answer = Pushed {
            r#ref: heard.r#ref,
            delivered: 1,
            refused: 1,
            reason: "too\nlarge".into(),
            ..Pushed::default()
        };
        one.send(from_proxy::Kind::Pushed(answer)).await;
        let heard = two.push().await;
        assert_eq!(heard.sessions, third);
        two.delivered(&heard).await;
    };
    let (answer, ()) = tokio::join!(server.pushed(request(user("ada"), b"x")), proxying);
    let expected =
        PushResponse { delivered: 2, refused: 1, reason: "toolarge".into(), ..delivered(0) };
    assert_eq!(answer, Ok(expected));
    assert_eq!(server.pushed(request(user("eve"), b"x")).await, Ok(delivered(0)));
}

#[tokio::test]
async fn who_is_gone_away_or_does_not_answer_is_told_apart() {
    let server = Server::start().await;
    let limits = PushLimits { answer_within: Duration::from_millis(50), ..PushLimits::default() };
    server.sessions.set_push_limits(limits);
    let mut proxy = server.proxy("one").await;
    let ada = server.live(&mut proxy, "ada").await;
    let only = |change: fn(&mut PushResponse)| {
        let mut response = delivered(0);
        change(&mut response);
        Ok(response)
    };
    let gone = server.pushed(request(to(&[9; 16]), b"x")).await;
    assert_eq!(gone, only(|response| response.gone = 1));
    let silent = server.pushed(request(to(&ada), b"x")).await;
    assert_eq!(silent, only(|response| response.unconfirmed = 1));
    drop(proxy);
    soon(async {
        while server.sessions.held() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let away = server.pushed(request(to(&ada), b"x")).await;
    assert_eq!(away, only(|response| response.away = 1));
    let away = server.pushed(request(user("ada"), b"x")).await;
    assert_eq!(away, only(|response| response.away = 1));
}

#[tokio::test]
async fn a_proxy_that_goes_while_it_has_a_push_leaves_it_unconfirmed_at_once() {
    let server = Server::start().await;
    let limits = PushLimits { answer_within: Duration::from_secs(600), ..PushLimits::default() };
    server.sessions.set_push_limits(limits);
    let mut proxy = server.proxy("one").await;
    let ada = server.live(&mut proxy, "ada").await;
    let going = async {
        proxy.push().await;
        drop(proxy);
    };
    let (answer, ()) = tokio::join!(server.pushed(request(to(&ada), b"x")), going);
    assert_eq!(answer.unwrap().unconfirmed, 1);
}

#[tokio::test]
async fn a_session_that_waits_for_its_first_frame_gets_nothing() {
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    let ticket = server.keys.ticket("ada", |_| ());
    let credential = meshgate_proto::session::v1::login_request::Credential::Ticket(ticket);
    let client = support::NoiseClient::new(&server.keys.noise, credential);
    let id = proxy.login(Mode::Noise, client.message).await.unwrap().session_id;
    assert_eq!(server.pushed(request(to(&id), b"x")).await.unwrap().gone, 1);
    assert_eq!(server.pushed(request(user("ada"), b"x")).await, Ok(delivered(0)));
    proxy.heard_nothing().await;
}

#[tokio::test]
async fn a_stream_of_pushes_is_sent_ahead_of_its_answers_and_in_its_order() {
    const PUSHES: u16 = 500;
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    let ada = server.live(&mut proxy, "ada").await;
    let bodies = (0..PUSHES).map(u16::to_be_bytes);
    let requests: Vec<_> = bodies.map(|body| request(to(&ada), &body)).collect();
    let mut app = server.app().await;
    let mut answers =
        soon(app.push_stream(tokio_stream::iter(requests))).await.unwrap().into_inner();
    // All are there before the first is answered.
    let mut heard = Vec::new();
    for number in 0..PUSHES {
        let push = proxy.push().await;
        assert_eq!(push.body, number.to_be_bytes());
        heard.push(push);
    }
    for push in heard.iter().rev() {
        proxy.delivered(push).await;
    }
    for _ in 0..PUSHES {
        assert_eq!(soon(answers.message()).await.unwrap(), Some(delivered(1)));
    }
    assert_eq!(soon(answers.message()).await.unwrap(), None);
}

#[tokio::test]
async fn a_proxy_that_falls_behind_gets_no_more_until_it_answers() {
    let server = Server::start().await;
    let limits = PushLimits { in_flight: 2, ..PushLimits::default() };
    server.sessions.set_push_limits(limits);
    let mut proxy = server.proxy("one").await;
    let ada = server.live(&mut proxy, "ada").await;
    let requests: Vec<_> = (0..3).map(|number| request(to(&ada), &[number])).collect();
    let mut app = server.app().await;
    let mut answers =
        soon(app.push_stream(tokio_stream::iter(requests))).await.unwrap().into_inner();
    let (first, second) = (proxy.push().await, proxy.push().await);
    proxy.heard_nothing().await;
    proxy.delivered(&first).await;
    proxy.delivered(&second).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(soon(answers.message()).await.unwrap().unwrap().slow);
    }
    assert_eq!(slow, [0, 0, 1]);
    let next = async {
        let push = proxy.push().await;
        proxy.delivered(&push).await;
    };
    let (answer, ()) = tokio::join!(server.pushed(request(to(&ada), b"x")), next);
    assert_eq!(answer, Ok(delivered(1)), "there is room again");
}

#[tokio::test]
async fn a_proxy_of_an_earlier_release_gets_none_and_is_named_as_the_reason() {
    let server = Server::start().await;
    let mut proxy = Proxy::open(&server.address).await;
    let hello = Hello { contract: 1, proxy: "old".into(), ..Hello::default() };
    proxy.send(from_proxy::Kind::Hello(hello)).await;
    proxy.next().await;
    let ada = server.live(&mut proxy, "ada").await;
    let answer = server.pushed(request(to(&ada), b"x")).await.unwrap();
    assert!(answer.refused == 1 && answer.reason.contains("earlier release"), "{answer:?}");
    proxy.heard_nothing().await;
}

#[tokio::test]
async fn pushes_that_say_too_little_or_too_much_are_refused() {
    let server = Server::start().await;
    let limits = PushLimits { max_body: 4, ..PushLimits::default() };
    server.sessions.set_push_limits(limits);
    let good = request(user("ada"), b"four");
    let bad = |change: fn(&mut PushRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for wrong in [
        bad(|request| request.target = None),
        bad(|request| request.target = Some(user(""))),
        bad(|request| request.target = Some(to(&[1; 15]))),
        bad(|request| request.target = Some(Target::Group("a\nb".into()))),
        bad(|request| request.command = None),
        bad(|request| request.command = Some(Command::Name(String::new()))),
        bad(|request| request.body = b"fives".to_vec()),
        bad(|request| {
            request.target = Some(Target::Group("room".into()));
            request.audience = "game".into();
        }),
    ] {
        assert_eq!(server.pushed(wrong).await, Err(Code::InvalidArgument));
    }
    assert_eq!(server.pushed(good).await, Ok(delivered(0)));
}

#[tokio::test]
async fn audience_and_claims_choose_among_a_users_sessions() {
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    let game = server.live(&mut proxy, "ada").await;
    let lobby = server.live_in(&mut proxy, "ada", "lobby").await;
    let mut pushed = async |audience: &str, zone: &str| {
        let claims = [("zone".to_owned(), zone.to_owned())].into();
        let request =
            PushRequest { audience: audience.into(), claims, ..request(user("ada"), b"x") };
        if zone == "8" {
            return server.pushed(request).await.unwrap().delivered.to_be_bytes().to_vec();
        }
        let answering = async {
            let push = proxy.push().await;
            proxy.delivered(&push).await;
            push.sessions
        };
        tokio::join!(server.pushed(request), answering).1
    };
    assert_eq!(pushed("lobby", "7").await, lobby);
    assert_eq!(pushed("game", "7").await, game);
    assert_eq!(pushed("", "7").await, [game, lobby].concat());
    assert_eq!(pushed("", "8").await, [0; 4]);
}

#[tokio::test]
async fn a_service_reaches_what_is_granted_to_its_token_and_nothing_else() {
    let server = Server::start().await;
    let (chat, news) = (generate("chat").unwrap(), generate("news").unwrap());
    let grants = [
        "token=chat audience=lobby group=room:* may=push may=lookup",
        "token=n* audience=* may=lookup",
    ];
    server.app_gate.reload(Rights {
        tokens: Some(Tokens::parse(&format!("{}\n{}", chat.line, news.line)).unwrap()),
        grants: grants.iter().map(|line| Grant::parse(line).unwrap()).collect(),
        ..Rights::default()
    });
    let mut proxy = server.proxy("one").await;
    let game = server.live(&mut proxy, "ada").await;
    let lobby = server.live_in(&mut proxy, "ada", "lobby").await;
    let mut app = server.app().await;
    let mut pushed = async |token: &str, request: PushRequest| {
        let mut request = Request::new(request);
        let header = format!("bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        soon(app.push(request)).await.map(tonic::Response::into_inner).map_err(|s| s.code())
    };
    let denied = Err(Code::PermissionDenied);
    assert_eq!(pushed(&chat.token, request(to(&game), b"x")).await, denied);
    assert_eq!(pushed(&news.token, request(to(&lobby), b"x")).await, denied);
    assert_eq!(pushed("mgat_x", request(to(&lobby), b"x")).await, Err(Code::Unauthenticated));
    let group = |name: &str| request(Target::Group(name.into()), b"x");
    assert_eq!(pushed(&chat.token, group("guild:1")).await, denied);
    assert_eq!(pushed(&chat.token, group("room:1")).await, Ok(delivered(0)));
    let named = PushRequest { audience: "game".into(), ..request(user("ada"), b"x") };
    assert_eq!(pushed(&chat.token, named).await, denied);
    let answering = async {
        let push = proxy.push().await;
        proxy.delivered(&push).await;
        push.sessions
    };
    // Of her two sessions the one that it may reach.
    let everywhere = pushed(&chat.token, request(user("ada"), b"x"));
    assert_eq!(tokio::join!(everywhere, answering), (Ok(delivered(1)), lobby));
    assert_eq!(server.sessions.metrics().denied.value("app"), 1, "the unknown token");
}

#[tokio::test]
async fn services_look_sessions_up() {
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    let game = server.live(&mut proxy, "ada").await;
    let lobby = server.live_in(&mut proxy, "ada", "lobby").await;
    let mut app = server.app().await;
    let found = soon(app.get_session(GetSessionRequest { session_id: game.clone() })).await;
    let found = found.unwrap().into_inner();
    assert_eq!((found.user.as_str(), found.proxy.as_str()), ("ada", "one"));
    assert_eq!((found.claims["zone"].as_str(), found.roles), ("7", vec!["player".to_owned()]));
    let mut list = async |audience: &str| {
        let request = ListSessionsRequest { user: "ada".into(), audience: audience.into() };
        let sessions = soon(app.list_sessions(request)).await.unwrap().into_inner().sessions;
        sessions.into_iter().map(|session| session.session_id).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, [game.clone(), lobby.clone()]);
    assert_eq!(list("lobby").await, [lobby]);
    proxy.ended(&game).await;
    soon(async {
        let request = || GetSessionRequest { session_id: game.clone() };
        let mut app = server.app().await;
        while app.get_session(request()).await.unwrap().into_inner().away_until_ms == 0 {}
        assert_eq!(list("game").await, std::slice::from_ref(&game));
        server.clock.advance(Duration::from_secs(60));
        while app.get_session(request()).await.is_ok() {}
    })
    .await;
}
