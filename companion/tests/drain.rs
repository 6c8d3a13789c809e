//! Clients that are asked to leave, from the operator's call to their proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use meshgate_proto::admin::v1::{DrainSessionsRequest, DrainSessionsResponse, Filter};
use meshgate_proto::edge::v1::{Hello, Leave, Mode, Pushed, from_proxy, push};
use tonic::Code;

use support::{Proxy, Server, soon};

async fn live(server: &Server, proxy: &mut Proxy, user: &str) -> Vec<u8> {
    server.clock.advance(Duration::from_millis(1));
    let ticket = server.keys.ticket(user, |_| ());
    proxy.login(Mode::Ticket, ticket).await.unwrap().session_id
}

async fn drain(
    server: &Server,
    request: DrainSessionsRequest,
) -> Result<DrainSessionsResponse, Code> {
    let mut admin = server.admin().await;
    let answer = soon(admin.drain_sessions(request)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.code())
}

fn of_proxy(name: &str) -> DrainSessionsRequest {
    DrainSessionsRequest {
        matching: Some(Filter { proxy: name.into(), ..Filter::default() }),
        reason: "new release".into(),
        spread_ms: 30_000,
        within_ms: 60_000,
        address: "gate-2:7000".into(),
        ..DrainSessionsRequest::default()
    }
}

#[tokio::test]
async fn the_clients_of_a_proxy_are_asked_and_those_of_another_are_not() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.proxy("one").await, server.proxy("two").await);
    let ada = live(&server, &mut one, "ada").await;
    let bob = live(&server, &mut one, "bob").await;
    live(&server, &mut two, "eve").await;
    let proxying = async {
        let heard = one.push().await;
        assert_eq!(heard.sessions, [ada, bob].concat());
        let leave = Leave {
            service: String::new(),
            reason: "new release".into(),
            spread_ms: 30_000,
            within_ms: 60_000,
            address: "gate-2:7000".into(),
        };
        assert_eq!(heard.command, Some(push::Command::Leave(leave)));
        let answer = Pushed { r#ref: heard.r#ref, delivered: 1, gone: 1, ..Pushed::default() };
        one.send(from_proxy::Kind::Pushed(answer)).await;
    };
    let (answer, ()) = tokio::join!(drain(&server, of_proxy("one")), proxying);
    let expected = DrainSessionsResponse { asked: 1, not_meant: 1, ..Default::default() };
    assert_eq!(answer, Ok(expected));
    two.heard_nothing().await;
    assert_eq!(drain(&server, of_proxy("three")).await, Ok(DrainSessionsResponse::default()));
}

#[tokio::test]
async fn a_proxy_of_an_earlier_release_is_not_sent_what_it_cannot_read() {
    let server = Server::start().await;
    let mut old = Proxy::open(&server.address).await;
    let hello = Hello { contract: 1, proxy: "old".into(), takes_pushes: true, ..Hello::default() };
    old.send(from_proxy::Kind::Hello(hello)).await;
    old.next().await;
    live(&server, &mut old, "ada").await;
    let answer = drain(&server, of_proxy("old")).await.unwrap();
    assert_eq!((answer.asked, answer.refused), (0, 1));
    assert!(answer.refused_because.contains("earlier release"), "{answer:?}");
    old.heard_nothing().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = Server::start().await;
    let bad = |change: fn(&mut DrainSessionsRequest)| {
        let mut request = of_proxy("one");
        change(&mut request);
        request
    };
    for request in [
        bad(|request| request.percent = 101),
        bad(|request| request.reason = "two\nlines".into()),
        bad(|request| request.address = "two words".into()),
        bad(|request| request.address = "x".repeat(262)),
        bad(|request| request.spread_ms = 86_400_001),
        bad(|request| request.within_ms = u32::MAX),
    ] {
        assert_eq!(drain(&server, request).await, Err(Code::InvalidArgument));
    }
}
