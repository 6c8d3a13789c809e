//! Logins over a real connection: who gets in, who does not, and what they are told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use meshgate_companion::domain::cookie::{Demand, with_cookie};
use meshgate_companion::domain::key::{Key, Kind};
use meshgate_companion::domain::login::{Policy, SingleUse};
use meshgate_companion::store::redb::RedbStore;
use meshgate_proto::edge::v1::{Hello, LoginRefused, Mode, Refusal, from_proxy};
use meshgate_proto::session::v1::{LoginReply, LoginRequest, login_request::Credential};
use prost::Message as _;
use redb::backends::InMemoryBackend;
use serde_json::json;
use sha2::Sha256;

use support::{AUDIENCE, KeyRing, LAYOUT, NoiseClient, Proxy, START, Server, forge};

/// Signs with the secret of the test's JWK, unless told another one.
fn jwt(claims: &serde_json::Value, secret: [u8; 32]) -> String {
    let b64 = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = json!({"alg": "HS256", "typ": "JWT", "kid": "j1"});
    let body = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap().chain_update(&body);
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn jwt_claims() -> serde_json::Value {
    json!({"sub": "joe", "aud": AUDIENCE, "exp": START.seconds() + 60,
        "iss": "https://login.example", "zone": "9"})
}

fn refused(result: Result<impl std::fmt::Debug, LoginRefused>) -> (Refusal, String) {
    let refused = result.expect_err("a refusal");
    (refused.refusal(), refused.text)
}

#[tokio::test]
async fn a_ticket_login_lives_at_once() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let ticket = server.keys.ticket("ada", |_| ());
    let accepted = proxy.login(Mode::Ticket, ticket).await.unwrap();
    assert_eq!(
        (accepted.user.as_str(), accepted.roles.as_slice()),
        ("ada", &["player".into()][..])
    );
    assert_eq!(accepted.claims.get("zone").map(String::as_str), Some("7"));
    assert_eq!(accepted.expires_at_ms, START.0 + 12 * 3600 * 1000);
    assert!(accepted.client_to_server_key.is_empty() && accepted.server_to_client_key.is_empty());
    let reply = LoginReply::decode(accepted.reply.as_slice()).unwrap();
    assert_eq!((reply.session_id.len(), &reply.session_id), (16, &accepted.session_id));
    assert_eq!((reply.user.as_str(), reply.expires_at_ms), ("ada", accepted.expires_at_ms));
}

#[tokio::test]
async fn a_jwt_login_works_in_both_modes() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let token = jwt(&jwt_claims(), [1; 32]);
    let accepted = proxy.login(Mode::Ticket, token.clone()).await.unwrap();
    assert_eq!((accepted.user.as_str(), accepted.claims["zone"].as_str()), ("joe", "9"));
    // Some protocols end a text with NUL.
    assert!(proxy.login(Mode::Ticket, format!("{token}\0")).await.is_ok());
    let client = NoiseClient::new(&server.keys.noise, Credential::Jwt(token));
    let accepted = proxy.login(Mode::Noise, client.message.clone()).await.unwrap();
    assert_eq!(client.finish(&accepted.reply).0.user, "joe");
}

#[tokio::test]
async fn a_noise_login_gives_client_and_filter_the_same_keys() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let ticket = Credential::Ticket(server.keys.ticket("ada", |_| ()));
    let client = NoiseClient::new(&server.keys.noise, ticket);
    let accepted = proxy.login(Mode::Noise, client.message.clone()).await.unwrap();
    let (reply, up, down) = client.finish(&accepted.reply);
    assert_eq!((reply.session_id, reply.user.as_str()), (accepted.session_id.clone(), "ada"));
    assert_eq!((up.len(), down.len()), (32, 32));
    assert_eq!((up, down), (accepted.client_to_server_key, accepted.server_to_client_key));
    assert_eq!(proxy.activate(&accepted.session_id).await.refused, "");
    // An answer can be lost with its stream: asked again, it is the same one.
    assert_eq!(proxy.activate(&accepted.session_id).await.refused, "");
}

#[tokio::test]
async fn all_that_might_help_guessing_sounds_the_same() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let keys = &server.keys;
    let impostor = KeyRing {
        ticket: Key::generate(Kind::TicketEd25519, Some("t1".into())).unwrap(),
        ..KeyRing::new()
    };
    let stranger = KeyRing {
        ticket: Key::generate(Kind::TicketEd25519, Some("t9".into())).unwrap(),
        ..KeyRing::new()
    };
    let good = keys.ticket("ada", |_| ());
    let mut other_audience = jwt_claims();
    other_audience["aud"] = json!("shop");
    let mut other_issuer = jwt_claims();
    other_issuer["iss"] = json!("https://evil.example");
    for bad in [
        impostor.ticket("ada", |_| ()),
        stranger.ticket("ada", |_| ()),
        impostor.ticket("ada", |payload| payload.exp = 5),
        keys.ticket("ada", |payload| payload.aud = "shop".into()),
        keys.ticket("ada", |payload| payload.nbf += 3600),
        keys.ticket("", |_| ()),
        keys.ticket("a\u{7}", |_| ()),
        forge(&good),
        jwt(&jwt_claims(), [2; 32]),
        jwt(&other_audience, [1; 32]),
        jwt(&other_issuer, [1; 32]),
    ] {
        let wrong = (Refusal::Unauthenticated, "login refused".to_owned());
        assert_eq!(refused(proxy.login(Mode::Ticket, bad.clone()).await), wrong, "{bad}");
        let credential =
            if bad.starts_with("mgt1.") { Credential::Ticket(bad) } else { Credential::Jwt(bad) };
        let client = NoiseClient::new(&keys.noise, credential);
        assert_eq!(refused(proxy.login(Mode::Noise, client.message).await), wrong);
    }
}

#[tokio::test]
async fn an_expired_credential_is_told_apart_only_with_a_good_signature() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let ticket = server.keys.ticket("ada", |_| ());
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(refused(proxy.login(Mode::Ticket, ticket.clone()).await).0, Refusal::Expired);
    assert_eq!(
        refused(proxy.login(Mode::Ticket, forge(&ticket)).await).0,
        Refusal::Unauthenticated
    );
    let token = jwt(&jwt_claims(), [1; 32]);
    assert_eq!(refused(proxy.login(Mode::Ticket, token).await).0, Refusal::Expired);
}

#[tokio::test]
async fn a_noise_credential_works_once_even_in_another_handshake() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let ticket = server.keys.ticket("ada", |_| ());
    let client = NoiseClient::new(&server.keys.noise, Credential::Ticket(ticket.clone()));
    assert!(proxy.login(Mode::Noise, client.message.clone()).await.is_ok());
    // The very bytes again, from another proxy.
    let mut other = server.proxy("q").await;
    assert_eq!(refused(other.login(Mode::Noise, client.message).await).0, Refusal::Expired);
    let again = NoiseClient::new(&server.keys.noise, Credential::Ticket(ticket));
    assert_eq!(refused(proxy.login(Mode::Noise, again.message).await).0, Refusal::Expired);
}

#[tokio::test]
async fn a_ticket_serves_reconnects_unless_it_says_once() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let ticket = server.keys.ticket("ada", |_| ());
    for _ in 0..3 {
        assert!(proxy.login(Mode::Ticket, ticket.clone()).await.is_ok());
    }
    let once = server.keys.ticket("ada", |payload| payload.once = true);
    assert!(proxy.login(Mode::Ticket, once.clone()).await.is_ok());
    assert_eq!(refused(proxy.login(Mode::Ticket, once).await).0, Refusal::Expired);
}

#[tokio::test]
async fn the_policy_of_single_use_can_be_always_or_never() {
    for (single_use, ticket_again, noise_again) in
        [(SingleUse::Always, false, false), (SingleUse::Never, true, true)]
    {
        let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
        let policy = Policy { single_use, ..Policy::default() };
        let server = Server::with(store, Arc::new(KeyRing::new()), policy).await;
        let mut proxy = server.proxy("p").await;
        let ticket = server.keys.ticket("ada", |_| ());
        assert!(proxy.login(Mode::Ticket, ticket.clone()).await.is_ok());
        assert_eq!(proxy.login(Mode::Ticket, ticket).await.is_ok(), ticket_again);
        let ticket = server.keys.ticket("ada", |_| ());
        for again in [true, noise_again] {
            let credential = Credential::Ticket(ticket.clone());
            let client = NoiseClient::new(&server.keys.noise, credential);
            assert_eq!(proxy.login(Mode::Noise, client.message).await.is_ok(), again);
        }
    }
}

#[tokio::test]
async fn a_handshake_for_another_layout_audience_or_key_is_refused() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let ticket = || Credential::Ticket(server.keys.ticket("ada", |_| ()));
    let request =
        || LoginRequest { credential: Some(ticket()), client: String::new() }.encode_to_vec();
    let unknown = Key::generate(Kind::Noise, Some("n9".into())).unwrap();
    let impostor = Key::generate(Kind::Noise, Some("n1".into())).unwrap();
    for client in [
        NoiseClient::with(&server.keys.noise, "other", AUDIENCE, &request()),
        NoiseClient::with(&server.keys.noise, LAYOUT, "shop", &request()),
        NoiseClient::with(&unknown, LAYOUT, AUDIENCE, &request()),
        NoiseClient::with(&impostor, LAYOUT, AUDIENCE, &request()),
    ] {
        let result = proxy.login(Mode::Noise, client.message).await;
        assert_eq!(refused(result), (Refusal::Unauthenticated, "login refused".into()));
    }
    // The proxy's own word counts as well: a good message, presented for another audience.
    let client = NoiseClient::new(&server.keys.noise, ticket());
    let result =
        proxy.login_with(Mode::Noise, client.message, |login| login.audience = "shop".into()).await;
    assert_eq!(refused(result).0, Refusal::Unauthenticated);
}

#[tokio::test]
async fn what_does_not_parse_is_called_malformed() {
    let server = Server::start().await;
    let mut proxy = server.proxy("p").await;
    let keys = &server.keys;
    let malformed = |result| assert_eq!(refused(result).0, Refusal::Malformed);
    for bad in ["", "x", "mgt1.", "mgt1.a.b", "a.b.c", "mgt1.e30.AA"] {
        malformed(proxy.login(Mode::Ticket, bad).await.map(drop));
    }
    malformed(proxy.login(Mode::Ticket, vec![0xff, 0xfe]).await.map(drop));
    malformed(proxy.login(Mode::Ticket, "m".repeat(100_000)).await.map(drop));
    for bad in [vec![], vec![2, 1, 0], vec![1, 2, 0], vec![1, 1], vec![1, 1, 200, 1], vec![0; 9000]]
    {
        malformed(proxy.login(Mode::Noise, bad).await.map(drop));
    }
    let long = LoginRequest {
        credential: Some(Credential::Ticket(keys.ticket("ada", |_| ()))),
        client: "c".repeat(129),
    };
    for payload in [vec![], vec![0xff; 20], long.encode_to_vec()] {
        let client = NoiseClient::with(&keys.noise, LAYOUT, AUDIENCE, &payload);
        malformed(proxy.login(Mode::Noise, client.message).await.map(drop));
    }
    // A mode that this contract does not know.
    let result = proxy.login(Mode::Unspecified, "x").await;
    assert_eq!(refused(result).0, Refusal::Unauthenticated);
}

#[tokio::test]
async fn only_the_audiences_that_are_served_get_in() {
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    let policy = Policy { audiences: vec!["shop".into()], ..Policy::default() };
    let server = Server::with(store, Arc::new(KeyRing::new()), policy).await;
    let mut proxy = server.proxy("p").await;
    let result = proxy.login(Mode::Ticket, server.keys.ticket("ada", |_| ())).await;
    assert_eq!(refused(result).0, Refusal::Unauthenticated);
    let ticket = server.keys.ticket("ada", |payload| payload.aud = "shop".into());
    let result = proxy.login_with(Mode::Ticket, ticket, |login| login.audience = "shop".into());
    assert!(result.await.is_ok());
}

#[tokio::test]
async fn beyond_the_limit_logins_are_told_to_try_again() {
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    let policy = Policy { max_under_way: 0, ..Policy::default() };
    let server = Server::with(store, Arc::new(KeyRing::new()), policy).await;
    let mut proxy = server.proxy("p").await;
    let result = proxy.login(Mode::Ticket, server.keys.ticket("ada", |_| ())).await;
    assert_eq!(refused(result).0, Refusal::TryAgain);
}

#[tokio::test]
async fn with_cookies_a_login_takes_two_messages_and_a_proxy_of_before_none() {
    let policy = Policy { cookie: Demand::Always, ..Policy::default() };
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    let server = Server::with(store, Arc::new(KeyRing::new()), policy).await;
    let mut proxy = server.proxy("p").await;
    let ticket = Credential::Ticket(server.keys.ticket("ada", |_| ()));
    let client = NoiseClient::new(&server.keys.noise, ticket);
    let (refusal, cookie) = refused(proxy.login(Mode::Noise, client.message.clone()).await);
    assert_eq!(refusal, Refusal::ComeBack);
    let again = with_cookie(cookie.as_bytes(), &client.message).unwrap();
    let accepted = proxy.login(Mode::Noise, again).await.unwrap();
    assert_eq!(client.finish(&accepted.reply).0.user, "ada");
    assert_eq!(server.sessions.metrics().noise_logins.value("cookie_asked"), 1);

    let mut old = Proxy::open(&server.address).await;
    let hello = Hello { contract: 1, proxy: "old".into(), ..Hello::default() };
    old.send(from_proxy::Kind::Hello(hello)).await;
    old.next().await;
    assert!(old.login(Mode::Ticket, server.keys.ticket("eve", |_| ())).await.is_ok());
}
