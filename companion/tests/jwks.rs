//! An issuer's key set at a URL: a whole companion fetches it, and goes on when it is away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use meshgate_proto::edge::v1::{Mode, Refusal};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use support::process::{Authority, Process, becomes, keys, meshgate};
use support::{AUDIENCE, Proxy};

/// What the URL has; `None`: HTTP 500.
type Document = Arc<Mutex<Option<String>>>;

fn acceptor(folder: &Path) -> TlsAcceptor {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&read("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves by TLS on a free port; its URL.
async fn issuer(folder: &Path, document: &Document) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/jwks.json", listener.local_addr().unwrap());
    let (acceptor, document) = (acceptor(folder), Arc::clone(document));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, document) = (acceptor.clone(), Arc::clone(&document));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = service_fn(move |request: Request<Incoming>| {
                    assert_eq!(request.uri().path(), "/jwks.json");
                    let found = document.lock().unwrap().clone();
                    let status = if found.is_some() { 200 } else { 500 };
                    let body = Full::<Bytes>::from(found.unwrap_or_default());
                    let response = Response::builder().status(status).body(body).unwrap();
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    url
}

fn set(keys: &[u8]) -> String {
    let jwk = |number: &u8| {
        let public = SigningKey::from_bytes(&[*number; 32]).verifying_key();
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": number.to_string(),
            "x": URL_SAFE_NO_PAD.encode(public.as_bytes())})
    };
    json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()}).to_string()
}

fn token(key: u8) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"alg": "EdDSA", "kid": key.to_string()}).to_string();
    let claims = json!({"sub": "ada", "aud": AUDIENCE, "exp": now + 3600}).to_string();
    let body = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = SigningKey::from_bytes(&[key; 32]).sign(body.as_bytes()).to_bytes();
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
}

const OK: &str = "meshgate_companion_jwks_fetches_total{result=\"ok\"}";

#[tokio::test]
async fn keys_come_from_a_url_change_there_and_stay_when_it_is_away() {
    let folder = keys();
    let path = folder.path();
    Authority::new(path, "ca").sign("server");
    let document = Document::default();
    *document.lock().unwrap() = Some(set(&[1]));
    let url = issuer(path, &document).await;
    let write = |refresh: &str| {
        let text = format!(
            "[edge]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [jwks]\nurl = \"{url}\"\nalgorithm = \"EdDSA\"\nrefresh = \"{refresh}\"\n\
             cool_down = \"1h\"\ntls = {{ ca = \"ca.pem\" }}\n"
        );
        fs::write(path.join("companion.toml"), text).unwrap();
    };
    write("1h");
    let process = Process::bare(path, &["--config", "companion.toml"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    becomes(&process, OK, 1.0).await;
    assert_eq!(proxy.login(Mode::Ticket, token(1)).await.unwrap().user, "ada");
    let refused = proxy.login(Mode::Ticket, token(2)).await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::Unauthenticated);

    // A new key; SIGHUP fetches it, and what was known stays meanwhile.
    *document.lock().unwrap() = Some(set(&[2]));
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    becomes(&process, OK, 1.0).await;
    assert!(proxy.login(Mode::Ticket, token(2)).await.is_ok());
    assert!(proxy.login(Mode::Ticket, token(1)).await.is_err(), "the old one is gone");

    *document.lock().unwrap() = None;
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_jwks_fetches_total{result=\"failed\"}", 1.0).await;
    assert!(proxy.login(Mode::Ticket, token(2)).await.is_ok(), "the last good set stays");
}

#[test]
fn a_url_that_others_can_read_is_refused() {
    let folder = keys();
    let set = |url: &str| format!("jwks.url={url}");
    let check = |url: &str| {
        let output = meshgate(folder.path(), &["serve", "--check", "--set", &set(url)]);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (good, said) = check("http://login.example/jwks.json");
    assert!(!good && said.contains("`jwks.url`") && said.contains("say https"), "{said}");
    assert!(check("https://login.example/jwks.json").0);
    assert!(check("http://127.0.0.1:1/jwks.json").0);
}
