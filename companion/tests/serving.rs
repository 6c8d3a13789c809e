//! How the companion serves: who may call, what a reload changes, what a scrape reads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meshgate_companion::domain::key::Key;
use meshgate_proto::edge::v1::{Hello, Login, Mode, Refusal, from_proxy};
use meshgate_proto::session::v1::login_request::Credential;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use support::process::{Authority, Process, becomes, issue, keys, meshgate, ok, scrape, value};
use support::{NoiseClient, Proxy, forge, soon};

/// A client of the edge, with a certificate or none.
async fn edge(process: &Process, folder: &Path, ca: &str, name: Option<&str>) -> Option<Proxy> {
    let read = |name: String| fs::read(folder.join(name)).unwrap();
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca.into())));
    if let Some(name) = name {
        let identity = Identity::from_pem(read(format!("{name}.pem")), read(format!("{name}.key")));
        tls = tls.identity(identity);
    }
    let url = format!("https://{}", process.address);
    let endpoint = Channel::from_shared(url).unwrap().tls_config(tls).unwrap();
    let proxy = Proxy::on(endpoint.connect().await.ok()?).await.ok()?;
    let hello = Hello { contract: 1, proxy: "p".into(), ..Hello::default() };
    proxy.send(from_proxy::Kind::Hello(hello)).await;
    Some(proxy)
}

#[tokio::test]
async fn proxies_and_operators_have_their_own_doors_and_keys() {
    let folder = keys();
    let path = folder.path();
    let proxies = Authority::new(path, "proxy-ca");
    proxies.sign("server");
    proxies.sign("gateway");
    proxies.sign("intruder");
    let operators = Authority::new(path, "operator-ca");
    operators.sign("operator");
    fs::write(
        path.join("companion.toml"),
        r#"
            [edge]
            listen = "127.0.0.1:0"
            peers = ["gate*"]
            tls = { cert = "server.pem", key = "server.key", client_ca = "proxy-ca.pem" }
            [admin.tls]
            cert = "server.pem"
            key = "server.key"
            client_ca = "operator-ca.pem"
            [keys]
            tickets = ["hmac.json"]
        "#,
    )
    .unwrap();
    let process = Process::bare(path, &["--config", "companion.toml"]);

    let list = |tls: &[&str], server: &str| {
        let output = meshgate(path, &[&["session", "list", "--server", server], tls].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let ca = ["--ca", "proxy-ca.pem"];
    let as_operator = [&ca[..], &["--cert", "operator.pem", "--key", "operator.key"]].concat();
    let as_gateway = [&ca[..], &["--cert", "gateway.pem", "--key", "gateway.key"]].concat();
    assert_eq!(list(&as_operator, &process.admin).0, Some(0));
    assert_eq!(list(&as_gateway, &process.admin).0, Some(1), "a proxy is no operator");
    assert_eq!(list(&ca, &process.admin).0, Some(1));
    assert_eq!(list(&[], &process.admin).0, Some(1));
    let (code, said) = list(&as_gateway, &process.address);
    assert!(code == Some(1) && said.contains("not the companion's admin service"), "{said}");

    let mut gateway = edge(&process, path, "proxy-ca.pem", Some("gateway")).await.unwrap();
    let ticket = issue(path, "hmac.json", "ada");
    gateway.next().await;
    gateway.login(Mode::Ticket, ticket).await.unwrap();
    for stranger in [Some("intruder"), Some("operator"), None] {
        let came_in = edge(&process, path, "proxy-ca.pem", stranger).await;
        assert!(came_in.is_none(), "{stranger:?}");
    }
}

#[tokio::test]
async fn operators_show_a_token_and_every_call_leaves_a_line() {
    let folder = keys();
    let path = folder.path();
    let new = |name: &str| ok(meshgate(path, &["token", "new", "--name", name, "--out", "tokens"]));
    let (token, other) = (new("ada"), new("bob"));
    fs::write(path.join("ada"), &token).unwrap();
    fs::write(path.join("bob"), &other).unwrap();
    fs::write(path.join("forged"), forge(&format!("x.{token}"))).unwrap();
    let again = meshgate(path, &["token", "new", "--name", "ada", "--out", "tokens"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("two tokens have the name `ada`"));

    let args =
        ["--admin-tokens", "tokens", "--log-format", "json", "--metrics-listen", "127.0.0.1:0"];
    let mut process = Process::start(path, &args);
    let server = process.admin.clone();
    let list = |token: &[&str]| {
        let args = [&["session", "list", "--user", "x\ny", "--server", &server], token].concat();
        meshgate(path, &args).status.code()
    };
    assert_eq!(list(&["--token-file", "ada"]), Some(0));
    assert_eq!(list(&["--token-file", "bob"]), Some(0));
    assert_eq!(list(&["--token-file", "forged"]), Some(1));
    assert_eq!(list(&[]), Some(1));

    // Bob leaves.
    let tokens = fs::read_to_string(path.join("tokens")).unwrap();
    let left: String = tokens.lines().filter(|line| !line.starts_with("bob")).collect();
    fs::write(path.join("tokens"), left).unwrap();
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    assert_eq!(list(&["--token-file", "bob"]), Some(1));
    assert_eq!(list(&["--token-file", "ada"]), Some(0));

    process.terminate();
    let (_, log) = process.wait();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let audit: Vec<_> = lines.iter().filter(|line| line["target"] == "meshgate::audit").collect();
    let callers: Vec<_> = audit.iter().filter_map(|line| line["caller"].as_str()).collect();
    assert_eq!(callers, ["token ada", "token bob", "token ada"]);
    assert_eq!(audit[0]["call"], "ListSessions");
    assert_eq!(audit[0]["asked"], "user=\"x\\ny\" page_size=1000");
    let denied = audit.iter().filter(|line| line["message"] == "call denied").count();
    assert_eq!(denied, 3);
    assert!(!log.contains(token.trim()) && !log.contains(other.trim()));
}

#[tokio::test]
async fn a_reload_takes_over_keys_and_rules_whole_or_not_at_all() {
    let folder = keys();
    let path = folder.path();
    let config = |more: &str| {
        let text = format!(
            "[edge]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n{more}"
        );
        fs::write(path.join("c.toml"), text).unwrap();
    };
    config("[keys]\nnoise = [\"noise.json\"]\ntickets = [\"ticket.pub.json\"]");
    ok(meshgate(path, &["keygen", "noise", "--id", "next", "--out", "next.json"]));
    let process = Process::bare(path, &["--config", "c.toml"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let reloads = |result| format!("meshgate_companion_reloads_total{{result=\"{result}\"}}");
    let read = |name: &str| Key::from_json(&fs::read(path.join(name)).unwrap()).unwrap();
    let by = |name: &str| {
        let ticket = Credential::Ticket(issue(path, "ticket.json", "ada"));
        NoiseClient::new(&read(name), ticket).message
    };
    let ticket = |user: &str| issue(path, "hmac.json", user);
    assert_eq!(
        proxy.login(Mode::Ticket, ticket("ada")).await.unwrap_err().refusal(),
        Refusal::Unauthenticated
    );
    assert!(proxy.login(Mode::Noise, by("next.json")).await.is_err());

    // Both Noise keys are valid at once; then the old one is retired.
    config(
        "[keys]\nnoise = [\"noise.json\", \"next.json\"]\n\
         tickets = [\"ticket.pub.json\", \"hmac.json\"]\n[login]\nmax_under_way = 7",
    );
    process.signal("-HUP");
    becomes(&process, &reloads("ok"), 1.0).await;
    proxy.login(Mode::Ticket, ticket("ada")).await.unwrap();
    proxy.login(Mode::Noise, by("noise.json")).await.unwrap();
    proxy.login(Mode::Noise, by("next.json")).await.unwrap();
    config("[keys]\nnoise = [\"next.json\"]\ntickets = [\"ticket.pub.json\"]");
    process.signal("-HUP");
    becomes(&process, &reloads("ok"), 2.0).await;
    assert!(proxy.login(Mode::Noise, by("noise.json")).await.is_err());
    proxy.login(Mode::Noise, by("next.json")).await.unwrap();

    // What is wrong changes nothing.
    for (number, wrong) in [
        "[keys]\nnoise = [\"missing.json\"]\ntickets = [\"hmac.json\"]",
        "[keys]\ntickts = [\"hmac.json\"]",
        "[keys]\ntickets = [\"hmac.json\"]\n[admin]\ntokens = \"nowhere\"",
        "[keys]\ntickets = [\"hmac.json\"]\n[log]\nfilter = \"=\"",
    ]
    .into_iter()
    .enumerate()
    {
        config(wrong);
        process.signal("-HUP");
        becomes(&process, &reloads("failed"), f64::from(u32::try_from(number).unwrap()) + 1.0)
            .await;
        assert!(proxy.login(Mode::Ticket, ticket("eve")).await.is_err(), "{wrong}");
        proxy.login(Mode::Noise, by("next.json")).await.unwrap();
    }
    let mut process = process;
    process.terminate();
    let (_, log) = process.wait();
    assert!(log.contains("login.max_under_way") && log.contains("after a restart"), "{log}");
    assert!(log.contains("did you mean `keys.tickets`"), "{log}");
}

#[tokio::test]
async fn new_certificates_serve_new_connections_and_old_connections_stay() {
    let folder = keys();
    let path = folder.path();
    let old = Authority::new(path, "ca");
    old.sign("server");
    old.sign("gateway");
    let tls = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--client-ca", "ca.pem"];
    let metrics = ["--metrics-listen", "127.0.0.1:0"];
    let process = Process::start(path, &[&tls[..], &metrics].concat());
    let mut stays = edge(&process, path, "ca.pem", Some("gateway")).await.unwrap();
    stays.next().await;
    let expiry = "meshgate_companion_certificate_expiry_seconds{listener=\"edge\"}";
    assert!(value(&scrape(&process, "GET /metrics"), expiry) > 1.0e9);

    let new = Authority::new(path, "ca");
    new.sign("server");
    new.sign("gateway");
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    let mut fresh = edge(&process, path, "ca.pem", Some("gateway")).await.expect("the new one");
    fresh.next().await;
    fresh.login(Mode::Ticket, issue(path, "hmac.json", "ada")).await.unwrap();
    stays.login(Mode::Ticket, issue(path, "hmac.json", "bob")).await.unwrap();

    // A key that does not go with its certificate is not taken.
    new.sign("other");
    fs::copy(path.join("other.key"), path.join("server.key")).unwrap();
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"failed\"}", 1.0).await;
    assert!(edge(&process, path, "ca.pem", Some("gateway")).await.is_some());
}

#[tokio::test]
async fn a_scrape_tells_what_happened() {
    let folder = keys();
    let path = folder.path();
    let process = Process::start(path, &["--metrics-listen", "127.0.0.1:0"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let ticket = |user: &str| issue(path, "hmac.json", user);
    let ada = proxy.login(Mode::Ticket, ticket("ada")).await.unwrap();
    let bob = proxy.login(Mode::Ticket, ticket("bob")).await.unwrap();
    proxy.login(Mode::Ticket, forge(&ticket("eve"))).await.unwrap_err();
    proxy.login(Mode::Noise, "garbage").await.unwrap_err();
    let noise = Key::from_json(&fs::read(path.join("noise.json")).unwrap()).unwrap();
    let client = NoiseClient::new(&noise, Credential::Ticket(ticket("cyd")));
    let pending = proxy.login(Mode::Noise, client.message).await.unwrap();
    let page = scrape(&process, "GET /metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    let count = |page: &str, name: &str| value(page, &format!("meshgate_companion_{name}"));
    for (name, expected) in [
        ("logins_total{mode=\"ticket\",result=\"accepted\"}", 2.0),
        ("logins_total{mode=\"ticket\",result=\"bad_signature\"}", 1.0),
        ("logins_total{mode=\"noise\",result=\"malformed\"}", 1.0),
        ("login_seconds_count", 5.0),
        ("sessions{state=\"live\"}", 2.0),
        ("sessions{state=\"pending\"}", 1.0),
        ("proxy_streams", 1.0),
        ("store_healthy", 1.0),
        ("store_errors_total{operation=\"admit\"}", 0.0),
    ] {
        // Counted after the answer went out, where it is.
        becomes(&process, &format!("meshgate_companion_{name}"), expected).await;
    }
    assert!(count(&page, "store_seconds_count{operation=\"admit\"}") >= 2.0);
    assert_eq!(proxy.activate(&pending.session_id).await.refused, "");
    becomes(&process, "meshgate_companion_activations_total{result=\"live\"}", 1.0).await;
    ok(meshgate(path, &["session", "kick", "--user", "ada", "--server", &process.admin]));
    assert_eq!(proxy.kicked().await.session_id, ada.session_id);
    becomes(&process, "meshgate_companion_sessions_ended_total{cause=\"kicked\"}", 1.0).await;
    becomes(&process, "meshgate_companion_admin_calls_total{result=\"ok\"}", 1.0).await;
    proxy.ended(&bob.session_id).await;
    becomes(&process, "meshgate_companion_session_moves_total{kind=\"away\"}", 1.0).await;
    becomes(&process, "meshgate_companion_sessions_stored{state=\"away\"}", 1.0).await;
    becomes(&process, "meshgate_companion_sessions{state=\"live\"}", 1.0).await;
    drop(proxy);
    becomes(&process, "meshgate_companion_proxy_streams", 0.0).await;
    assert!(scrape(&process, "GET /").starts_with("HTTP/1.1 404"));
    assert!(scrape(&process, "POST /metrics").starts_with("HTTP/1.1 405"));
    let page = scrape(&process, "GET /metrics");
    for private in ["ada", "bob", "203.0.113.7"] {
        assert!(!page.contains(private), "{private}");
    }
}

#[tokio::test]
async fn both_listeners_tell_their_health() {
    let folder = keys();
    let process = Process::start(folder.path(), &[]);
    for address in [&process.address, &process.admin] {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let mut health = HealthClient::new(channel.connect().await.unwrap());
        let request = HealthCheckRequest { service: String::new() };
        let answer = soon(health.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        let unknown = HealthCheckRequest { service: "nobody".into() };
        assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
    }
}

#[test]
fn a_configuration_can_be_checked_without_serving() {
    let folder = keys();
    let path = folder.path();
    fs::create_dir(path.join("etc")).unwrap();
    let check = |text: &str, more: &[&str]| {
        fs::write(path.join("etc/c.toml"), text).unwrap();
        let args = [&["serve", "--check", "--config", "etc/c.toml"], more].concat();
        let output = meshgate(path, &args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check("[keys]\ntickets = [\"../hmac.json\"]", &[]).0, Some(0));
    assert!(!path.join("meshgate.redb").exists());
    for (text, more, named) in [
        ("[keys]\ntickets = [\"hmac.json\"]", &[][..], "etc/hmac.json"),
        ("[edge]\nlistn = \"x\"", &[], "did you mean `edge.listen`"),
        ("", &["--set", "kyes.noise=x"], "`kyes.noise` is no key"),
        ("", &["--set", "login.max_under_way=0"], "a number from 1 to 65536"),
        ("", &[], "--ticket-key"),
    ] {
        let (code, said) = check(text, more);
        assert!(code == Some(1) && said.contains(named), "{text} {more:?}: {said}");
    }
    assert_eq!(check("", &["--set"]).0, Some(2));
    let reference = ok(meshgate(path, &["config", "reference"]));
    assert!(reference.contains("MESHGATE_EDGE_TLS_CLIENT_CA"), "{reference}");
}

#[tokio::test]
async fn a_client_that_tries_too_often_is_told_to_come_again_and_others_get_in() {
    let folder = keys();
    let rate = ["--set", "login.address_rate=1", "--set", "login.address_burst=2"];
    let metrics = ["--metrics-listen", "127.0.0.1:0"];
    let process = Process::start(folder.path(), &[&rate[..], &metrics].concat());
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let mut refusals = Vec::new();
    // Guesses, fast; far more than come back within the time that this takes.
    for _ in 0..200 {
        let refused = proxy.login(Mode::Ticket, "mgt1.guess.guess").await.unwrap_err();
        refusals.push(refused.refusal());
    }
    assert_eq!(refusals[..2], [Refusal::Malformed; 2]);
    assert!(refusals.iter().filter(|refusal| **refusal == Refusal::TryAgain).count() > 100);
    let ticket = issue(folder.path(), "hmac.json", "ada");
    let elsewhere = |login: &mut Login| login.peer = "198.51.100.9:7".into();
    proxy.login_with(Mode::Ticket, ticket, elsewhere).await.unwrap();
    let page = scrape(&process, "GET /metrics");
    let name = "meshgate_companion_logins_total{mode=\"ticket\",result=\"address_too_fast\"}";
    assert!(value(&page, name) > 100.0);
}

#[tokio::test]
async fn a_reload_takes_over_an_issuers_new_keys() {
    let folder = keys();
    let path = folder.path();
    // {"alg":"HS256","kid":KID} and {"sub":"ada","aud":"game","exp":…}, signed with 32 bytes of one.
    let token = |kid: &str, byte: u8| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[byte; 32]);
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#));
        let claims = r#"{"sub":"ada","aud":"game","exp":4000000000}"#;
        let body = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, body.as_bytes()));
        format!("{body}.{signature}")
    };
    let jwks = |keys: &[(&str, u8)]| {
        let keys: Vec<_> = keys
            .iter()
            .map(|(kid, byte)| {
                let k = URL_SAFE_NO_PAD.encode([*byte; 32]);
                serde_json::json!({ "kty": "oct", "alg": "HS256", "kid": kid, "k": k })
            })
            .collect();
        let set = serde_json::json!({ "keys": keys });
        fs::write(path.join("jwks.json"), set.to_string()).unwrap();
    };
    jwks(&[("one", 1)]);
    let args =
        ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--jwt-key", "jwks.json"];
    let process = Process::bare(path, &args);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    proxy.login(Mode::Ticket, token("one", 1)).await.unwrap();
    assert!(proxy.login(Mode::Ticket, token("two", 2)).await.is_err());
    jwks(&[("two", 2)]);
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    proxy.login(Mode::Ticket, token("two", 2)).await.unwrap();
    assert!(proxy.login(Mode::Ticket, token("one", 1)).await.is_err());
}
