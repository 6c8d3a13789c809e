//! A login server of one's own, over real connections: by gRPC and by HTTP, well and badly behaved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use meshgate_companion::domain::login::Policy;
use meshgate_companion::domain::refusal::{Refused, Why};
use meshgate_companion::domain::session::Mode as LoginMode;
use meshgate_companion::domain::verifier::{
    Answer, Ask, CredentialKind, Limits, Question, Reply, Takes, Trouble, Verifier,
};
use meshgate_companion::login_server::{Place, Transport};
use meshgate_companion::outbound::OutboundTls;
use meshgate_companion::store::redb::RedbStore;
use meshgate_proto::edge::v1::{Mode, Refusal};
use meshgate_proto::session::v1::{LoginReply, login_request::Credential};
use meshgate_proto::verifier::v1::verifier_server::{Verifier as Service, VerifierServer};
use meshgate_proto::verifier::v1::{
    Accepted, CredentialKind as Kind, Reason, Refused as RefusedMessage, VerifyReply,
    VerifyRequest, verify_reply,
};
use prost::Message as _;
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::{Certificate, Identity, Server as TonicServer, ServerTlsConfig};
use zeroize::Zeroizing;

use support::process::{Authority, Process, keys, value};
use support::{AUDIENCE, KeyRing, LAYOUT, NoiseClient, Proxy, START, Server, soon};

/// A login server by gRPC: knows one user, and fails as it is told.
#[derive(Clone, Default)]
struct LoginServer {
    asked: Arc<Mutex<Vec<VerifyRequest>>>,
    wants_token: bool,
}

#[tonic::async_trait]
impl Service for LoginServer {
    async fn verify(
        &self,
        request: tonic::Request<VerifyRequest>,
    ) -> Result<tonic::Response<VerifyReply>, Status> {
        let token = request.metadata().get("authorization");
        assert_eq!(token.is_some_and(|token| token == "Bearer t0ken"), self.wants_token);
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        let refused = |reason: Reason, text: &str| {
            verify_reply::Result::Refused(RefusedMessage {
                reason: reason.into(),
                text: text.into(),
            })
        };
        let mut user = "ada".to_owned();
        let result = match request.credential.as_slice() {
            b"expired" => refused(Reason::Expired, ""),
            b"later" => refused(Reason::TryAgain, "the doors open at nine"),
            b"unreadable" => refused(Reason::Malformed, ""),
            b"denied" => return Err(Status::permission_denied("who are you")),
            b"slow" => std::future::pending().await,
            b"empty" => return Ok(tonic::Response::new(VerifyReply::default())),
            b"wrong" => refused(Reason::Unauthenticated, "wrong\npassword"),
            _ => {
                if request.credential == b"large" {
                    user = "x".repeat(100_000);
                }
                verify_reply::Result::Accepted(Accepted {
                    user,
                    roles: vec!["player".into()],
                    claims: [("zone".into(), "7".into())].into(),
                    expires_at_ms: START.0 + 60_000,
                })
            }
        };
        Ok(tonic::Response::new(VerifyReply { result: Some(result), reusable_for_ms: None }))
    }
}

impl LoginServer {
    /// Serves on a free port.
    async fn start(&self, tls: Option<ServerTlsConfig>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let mut server = TonicServer::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let server = server.add_service(VerifierServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

/// What came to a login server by HTTP: method, path, headers of interest, JSON.
type Asked = Arc<Mutex<Vec<(String, Option<String>, Value)>>>;

/// A login server by HTTP that answers as `respond` says to each path.
async fn http_server(respond: fn(&str) -> Response<Full<Bytes>>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            let answer = service_fn(move |request: Request<Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let token = head.headers.get("authorization");
                    let token = token.map(|token| token.to_str().unwrap().to_owned());
                    let line = format!("{} {}", head.method, head.uri);
                    let document = serde_json::from_slice(&body).unwrap_or(Value::Null);
                    seen.lock().unwrap().push((line, token, document));
                    if head.uri.path() == "/slow" {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(respond(head.uri.path()))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, asked)
}

fn body(text: impl Into<Bytes>) -> Full<Bytes> {
    Full::new(text.into())
}

fn status(status: u16) -> Response<Full<Bytes>> {
    let accepted = r#"{"accepted": {"user": "ada"}}"#;
    Response::builder().status(status).body(body(accepted)).unwrap()
}

fn question(credential: &[u8]) -> Question {
    Question {
        credential: Zeroizing::new(credential.to_vec()),
        kind: CredentialKind::Opaque,
        audience: AUDIENCE.into(),
        peer: "203.0.113.7:40112".into(),
        mode: LoginMode::Ticket,
        layout: LAYOUT.into(),
        client: "game/1".into(),
    }
}

fn place(transport: Transport, url: &str) -> Place {
    let tls = OutboundTls::default();
    Place { transport, uri: url.parse().unwrap(), tls, token_file: None }
}

fn way(transport: Transport, url: &str) -> Box<dyn Ask> {
    place(transport, url).way().unwrap()
}

async fn ask(way: &dyn Ask, credential: &[u8]) -> Result<Reply, Trouble> {
    soon(way.ask(&question(credential))).await
}

/// Nothing is slow on a busy machine but what is meant to be.
fn patient() -> Limits {
    Limits { timeout: Duration::from_secs(60), ..Limits::default() }
}

/// A companion that asks a login server.
async fn companion(place: &Place, limits: Limits) -> Server {
    let verifier = Verifier::new(place.way().unwrap(), limits).unwrap();
    let keys = KeyRing { verifier: Some(Arc::new(verifier)), ..KeyRing::new() };
    let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
    Server::with(store, Arc::new(keys), Policy::default()).await
}

#[tokio::test]
async fn whom_the_login_server_knows_is_let_in_by_ticket_and_by_noise() {
    let login_server = LoginServer { wants_token: true, ..LoginServer::default() };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t0ken\n").unwrap();
    let token_file = Some(folder.path().join("token"));
    let place = place(Transport::Grpc, &login_server.start(None).await);
    let server = companion(&Place { token_file, ..place }, patient()).await;
    let mut proxy = server.proxy("p").await;

    let accepted = proxy.login(Mode::Ticket, b"\xffsecret\0".to_vec()).await.unwrap();
    assert_eq!((accepted.user.as_str(), accepted.claims["zone"].as_str()), ("ada", "7"));
    assert_eq!(accepted.roles, ["player"]);
    assert_eq!(accepted.expires_at_ms, START.0 + 60_000, "as the login server says");
    assert!(LoginReply::decode(&accepted.reply[..]).unwrap().resume.is_some());

    let opaque = Credential::Opaque(b"secret".to_vec());
    let client = NoiseClient::new(&server.keys.noise, opaque.clone());
    let accepted = proxy.login(Mode::Noise, client.message.clone()).await.unwrap();
    assert_eq!(client.finish(&accepted.reply).0.user, "ada");
    // How often it works is the login server's to say.
    let again = NoiseClient::new(&server.keys.noise, opaque);
    assert!(proxy.login(Mode::Noise, again.message.clone()).await.is_ok());

    let asked = login_server.asked.lock().unwrap();
    let (first, second) = (&asked[0], &asked[1]);
    assert_eq!((first.credential.as_slice(), first.kind()), (&b"\xffsecret\0"[..], Kind::Opaque));
    assert_eq!((first.audience.as_str(), first.layout.as_str()), (AUDIENCE, LAYOUT));
    assert_eq!((first.peer.as_str(), first.mode.as_str()), ("203.0.113.7:40112", "ticket"));
    assert_eq!((second.credential.as_slice(), second.mode.as_str()), (&b"secret"[..], "noise"));
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn keys_that_are_here_check_their_own_credentials_unless_the_login_server_takes_all() {
    for (takes, expected) in [(Takes::Others, 0), (Takes::All, 1)] {
        let login_server = LoginServer::default();
        let place = place(Transport::Grpc, &login_server.start(None).await);
        let server = companion(&place, Limits { takes, ..patient() }).await;
        let mut proxy = server.proxy("p").await;
        let ticket = server.keys.ticket("joe", |_| ());
        let accepted = proxy.login(Mode::Ticket, format!("{ticket}\0")).await.unwrap();
        assert_eq!(accepted.user, if expected == 0 { "joe" } else { "ada" });
        let asked = login_server.asked.lock().unwrap();
        assert_eq!(asked.len(), expected);
        for request in asked.iter() {
            assert_eq!(
                (request.kind(), &request.credential[..]),
                (Kind::Ticket, ticket.as_bytes())
            );
        }
    }
}

#[tokio::test]
async fn a_refused_client_hears_what_the_login_server_says() {
    let login_server = LoginServer::default();
    let place = place(Transport::Grpc, &login_server.start(None).await);
    let server = companion(&place, patient()).await;
    let mut proxy = server.proxy("p").await;
    for (credential, refusal, text) in [
        ("wrong", Refusal::Unauthenticated, "wrongpassword"),
        ("expired", Refusal::Expired, "the credential is no longer valid"),
        ("later", Refusal::TryAgain, "the doors open at nine"),
        ("unreadable", Refusal::Malformed, "the login message is malformed"),
        ("denied", Refusal::TryAgain, "no login just now, try again"),
        ("large", Refusal::TryAgain, "no login just now, try again"),
        ("empty", Refusal::TryAgain, "no login just now, try again"),
    ] {
        let refused = proxy.login(Mode::Ticket, credential).await.unwrap_err();
        assert_eq!((refused.refusal(), refused.text.as_str()), (refusal, text), "{credential}");
    }
    let answers = &server.sessions.metrics().verifier_answers;
    let counts = ["refused", "failed", "slow", "garbage"].map(|result| answers.value(result));
    assert_eq!(counts, [4, 1, 0, 2]);

    let limits = Limits { timeout: Duration::from_millis(50), ..Limits::default() };
    let server = companion(&place, limits).await;
    let refused = server.proxy("p").await.login(Mode::Ticket, "slow").await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
    assert_eq!(server.sessions.metrics().verifier_answers.value("slow"), 1);
}

#[tokio::test]
async fn a_login_server_that_is_away_fails_no_other_login_and_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let place = place(Transport::Grpc, &format!("http://{address}"));
    let server = companion(&place, patient()).await;
    let mut proxy = server.proxy("p").await;
    let refused = proxy.login(Mode::Ticket, "secret").await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
    assert!(proxy.login(Mode::Ticket, server.keys.ticket("joe", |_| ())).await.is_ok());

    let listener = TcpListener::bind(address).await.unwrap();
    let service = VerifierServer::new(LoginServer::default());
    let serving = TonicServer::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    soon(async {
        // The transport waits for a moment before it connects again.
        while proxy.login(Mode::Ticket, "secret").await.is_err() {
            server.clock.advance(Duration::from_secs(2));
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn by_http_it_is_json_both_ways() {
    let (url, asked) = http_server(|path| match path {
        "/no" => Response::new(body(r#"{"refused": {"reason": "expired", "text": "old"}}"#)),
        _ => Response::new(body(
            r#"{"accepted": {"user": "ada", "claims": {"zone": "7"}}, "reusable_for_ms": 10}"#,
        )),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t0ken\n").unwrap();
    let token_file = Some(folder.path().join("token"));
    let place = Place { token_file, ..place(Transport::Http, &format!("{url}/yes?game=1")) };
    let reply = ask(place.way().unwrap().as_ref(), b"\x00\xff").await.unwrap();
    let Answer::Accepted(granted) = reply.answer else { panic!("{:?}", reply.answer) };
    assert_eq!((granted.identity.user.as_str(), granted.until), ("ada", None));
    assert_eq!(reply.reusable_for, Some(Duration::from_millis(10)));
    let expected = json!({"credential": STANDARD.encode(b"\x00\xff"), "kind": "opaque",
        "audience": AUDIENCE, "peer": "203.0.113.7:40112", "mode": "ticket", "layout": LAYOUT,
        "client": "game/1"});
    let seen = asked.lock().unwrap().pop().unwrap();
    assert_eq!(seen, ("POST /yes?game=1".into(), Some("Bearer t0ken".into()), expected));

    let reply = ask(way(Transport::Http, &format!("{url}/no")).as_ref(), b"x").await.unwrap();
    let refused = Refused { why: Why::VerifierExpired, text: Some("old".into()) };
    assert_eq!(reply, Reply { answer: Answer::Refused(refused), reusable_for: None });
}

#[tokio::test]
async fn by_http_only_an_answer_in_full_and_with_200_counts() {
    let (url, asked) = http_server(|path| match path {
        "/garbage" => Response::new(body("<html>s3cret")),
        "/large" => Response::new(body(vec![b' '; 70_000])),
        "/redirect" => {
            let moved = Response::builder().status(302).header("location", "/accepted");
            moved.body(Full::default()).unwrap()
        }
        "/accepted" => status(200),
        path => status(path[1..].parse().unwrap()),
    })
    .await;
    let at =
        async |path: &str| ask(way(Transport::Http, &format!("{url}{path}")).as_ref(), b"x").await;
    assert!(at("/accepted").await.is_ok());
    for code in [201, 204, 302, 400, 401, 403, 404, 429, 500, 503] {
        let trouble = at(&format!("/{code}")).await.unwrap_err();
        assert!(matches!(&trouble, Trouble::Failed(text) if text.contains(&code.to_string())));
    }
    let before = asked.lock().unwrap().len();
    assert!(matches!(at("/redirect").await, Err(Trouble::Failed(_))));
    assert_eq!(asked.lock().unwrap().len(), before + 1, "the redirect is not followed");
    let garbage = at("/garbage").await.unwrap_err();
    assert!(matches!(garbage, Trouble::Garbage(_)) && !garbage.to_string().contains("s3cret"));
    let large = at("/large").await.unwrap_err();
    assert_eq!(
        large.to_string(),
        "the login server's answer cannot be used: it has more than 65536 bytes"
    );

    // What never ends is given up by whoever asks.
    let limits = Limits { timeout: Duration::from_millis(50), ..Limits::default() };
    let server = companion(&place(Transport::Http, &format!("{url}/slow")), limits).await;
    let refused = server.proxy("p").await.login(Mode::Ticket, "x").await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
    assert_eq!(server.sessions.metrics().verifier_answers.value("slow"), 1);
}

/// A login server of the authority `ca` that lets in whom the authority `client_ca` signed.
async fn with_tls(folder: &Path) -> String {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read("server.pem"), read("server.key")))
        .client_ca_root(Certificate::from_pem(read("ca.pem")));
    LoginServer::default().start(Some(tls)).await
}

#[tokio::test]
async fn by_tls_both_sides_show_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let authority = Authority::new(path, "ca");
    authority.sign("server");
    authority.sign("companion");
    let other = Authority::new(path, "other-ca");
    other.sign("stranger");
    let url = with_tls(path).await;
    let asked = async |ca: &str, name: Option<&str>| {
        let file = |name: &str| path.join(name);
        let identity =
            name.map(|name| (file(&format!("{name}.pem")), file(&format!("{name}.key"))));
        let tls = OutboundTls { ca: Some(file(ca)), identity };
        let place = Place { tls, ..place(Transport::Grpc, &url) };
        ask(place.way().unwrap().as_ref(), b"secret").await
    };
    assert!(asked("ca.pem", Some("companion")).await.is_ok());
    for (ca, name) in
        [("other-ca.pem", Some("companion")), ("ca.pem", None), ("ca.pem", Some("stranger"))]
    {
        let trouble = asked(ca, name).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Unreachable(_)), "{ca} {name:?}: {trouble}");
    }
    // The same by HTTP: it gets as far as a server that speaks something else.
    let tls = OutboundTls {
        ca: Some(path.join("other-ca.pem")),
        identity: Some((path.join("companion.pem"), path.join("companion.key"))),
    };
    let stranger = Place { tls: tls.clone(), ..place(Transport::Http, &url) };
    let trouble = ask(stranger.way().unwrap().as_ref(), b"x").await.unwrap_err();
    assert!(trouble.to_string().contains("certificate"), "{trouble}");
}

#[tokio::test]
async fn a_whole_companion_asks_as_configured_and_logs_no_credential() {
    let (url, asked) = http_server(|_| status(200)).await;
    let folder = keys();
    let path = folder.path();
    fs::write(path.join("token"), "t0ken-s3cret").unwrap();
    let document = format!(
        "[edge]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [log]\nfilter = \"trace\"\n\
         [verifier]\nkind = \"http\"\ntimeout = \"60s\"\nurl = \"{url}/verify?key=q-s3cret\"\ntoken_file = \"token\"\n"
    );
    fs::write(path.join("companion.toml"), document).unwrap();
    let mut process = Process::bare(path, &["--config", "companion.toml"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let accepted = proxy.login(Mode::Ticket, "pass-s3cret").await.unwrap();
    assert_eq!(accepted.user, "ada");
    assert_eq!(asked.lock().unwrap()[0].1.as_deref(), Some("Bearer t0ken-s3cret"));
    let page = support::process::scrape(&process, "GET /metrics");
    let metric = |name: &str| value(&page, &format!("meshgate_companion_{name}"));
    assert_eq!(metric("verifier_answers_total{result=\"accepted\"}"), 1.0);
    assert_eq!(metric("verifier_breaker{state=\"closed\"}"), 1.0);
    process.terminate();
    let (code, log) = process.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("a login server is asked"), "{log}");
    for secret in ["s3cret", &STANDARD.encode("pass-s3cret")] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn a_reload_takes_another_login_server() {
    let (first, _) = http_server(|_| status(500)).await;
    let (second, _) = http_server(|_| status(200)).await;
    let folder = keys();
    let path = folder.path();
    let write = |url: &str| {
        let document = format!(
            "[edge]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [verifier]\nkind = \"http\"\ntimeout = \"60s\"\nurl = \"{url}/\"\n"
        );
        fs::write(path.join("companion.toml"), document).unwrap();
    };
    write(&first);
    let process = Process::bare(path, &["--config", "companion.toml"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let refused = proxy.login(Mode::Ticket, "secret").await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
    write(&second);
    process.signal("-HUP");
    support::process::becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0)
        .await;
    assert!(proxy.login(Mode::Ticket, "secret").await.is_ok());
}
