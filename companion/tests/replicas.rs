//! Two companions that share a Redis.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use meshgate_companion::domain::key::{Key, hex};
use meshgate_proto::edge::v1::{Mode, Refusal};
use meshgate_proto::session::v1::login_request::Credential;
use tempfile::TempDir;

use support::process::{Authority, Process, becomes, issue, keys, meshgate, ok, scrape, value};
use support::redis::{RedisSentinels, RedisServer};
use support::{AUDIENCE, LAYOUT, NoiseClient, Proxy};

fn start(folder: &TempDir, redis: &RedisServer, rule: &str) -> Process {
    let (port, rule) =
        (format!("store.redis.port={}", redis.port), format!("login.same_user={rule}"));
    let args = ["--set", "store.kind=redis", "--set", &port, "--set", &rule];
    Process::start(folder.path(), &[&args[..], &["--metrics-listen", "127.0.0.1:0"]].concat())
}

fn kick(folder: &TempDir, at: &Process, args: &[&str]) -> Option<i32> {
    let base = ["session", "kick", "--server", &at.admin, "--reason", "out", "--code", "3"];
    meshgate(folder.path(), &[&base[..], args].concat()).status.code()
}

fn noise(folder: &TempDir, user: &str) -> NoiseClient {
    let key = Key::from_json(&std::fs::read(folder.path().join("noise.json")).unwrap()).unwrap();
    NoiseClient::new(&key, Credential::Ticket(issue(folder.path(), "ticket.json", user)))
}

const HEALTHY: &str = "meshgate_companion_store_healthy";

#[tokio::test]
async fn a_kick_at_one_companion_reaches_the_proxy_at_the_other_within_a_second() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let (one, two) = (start(&folder, &redis, "allow"), start(&folder, &redis, "allow"));
    let mut proxy = Proxy::attach(&one.url(), "p", vec![]).await;
    let client = noise(&folder, "ada");
    let id = proxy.login(Mode::Noise, client.message.clone()).await.unwrap().session_id;
    assert_eq!(proxy.activate(&id).await.refused, "");
    // The credential is used up everywhere.
    let mut other = Proxy::attach(&two.url(), "q", vec![]).await;
    let refused = other.login(Mode::Noise, client.message).await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::Expired);

    let list = ["session", "list", "--json", "--server", &two.admin];
    let list = ok(meshgate(folder.path(), &list));
    assert!(list.contains(&hex(&id)), "{list}");
    assert_eq!(kick(&folder, &two, &[&hex(&id)]), Some(0));
    let began = Instant::now();
    let heard = proxy.kicked().await;
    assert_eq!((heard.session_id, heard.reason.as_str(), heard.code), (id, "out", 3));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    // What waits for its first frame is in no store: it hears it all the same.
    let pending = proxy.login(Mode::Noise, noise(&folder, "bob").message).await.unwrap().session_id;
    assert_eq!(kick(&folder, &two, &["--user", "bob"]), Some(1), "it is not counted");
    assert_eq!(proxy.kicked().await.session_id, pending);
    assert_ne!(proxy.activate(&pending).await.refused, "");
}

#[tokio::test]
async fn a_user_who_logs_in_at_the_other_companion_replaces_himself() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let (one, two) = (start(&folder, &redis, "replace"), start(&folder, &redis, "replace"));
    let mut old = Proxy::attach(&one.url(), "p", vec![]).await;
    let mut new = Proxy::attach(&two.url(), "q", vec![]).await;
    let ticket = || issue(folder.path(), "hmac.json", "ada");
    let first = old.login(Mode::Ticket, ticket()).await.unwrap().session_id;
    new.login(Mode::Ticket, ticket()).await.unwrap();
    let heard = old.kicked().await;
    assert_eq!((heard.session_id, heard.reason.as_str()), (first, "logged in elsewhere"));
}

#[tokio::test]
async fn a_proxy_that_moves_to_the_other_companion_hears_what_it_missed_and_keeps_the_rest() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let (one, two) = (start(&folder, &redis, "allow"), start(&folder, &redis, "allow"));
    let mut proxy = Proxy::attach(&one.url(), "p", vec![]).await;
    let mut login = async |user: &str| {
        proxy.login(Mode::Ticket, issue(folder.path(), "hmac.json", user)).await.unwrap().session_id
    };
    let (stays, kicked) = (login("ada").await, login("bob").await);
    drop(proxy);
    becomes(&one, "meshgate_companion_proxy_streams", 0.0).await;
    assert_eq!(kick(&folder, &one, &["--user", "bob"]), Some(0));
    becomes(&two, "meshgate_companion_replica_news_total{kind=\"ended\"}", 1.0).await;
    let mut proxy = Proxy::attach(&two.url(), "p", vec![stays.clone(), kicked.clone()]).await;
    let heard = proxy.kicked().await;
    assert_eq!((heard.session_id, heard.reason.as_str()), (kicked, "out"));
    assert_eq!(kick(&folder, &one, &["--user", "ada"]), Some(0));
    assert_eq!(proxy.kicked().await.session_id, stays);
}

#[tokio::test]
async fn a_client_comes_back_at_the_other_companion_and_its_old_connection_is_told() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let (one, two) = (start(&folder, &redis, "refuse"), start(&folder, &redis, "refuse"));
    let key = Key::from_json(&std::fs::read(folder.path().join("noise.json")).unwrap()).unwrap();
    let mut old = Proxy::attach(&one.url(), "p", vec![]).await;
    let mut new = Proxy::attach(&two.url(), "q", vec![]).await;
    let client = noise(&folder, "ada");
    let accepted = old.login(Mode::Noise, client.message.clone()).await.unwrap();
    let id = accepted.session_id.clone();
    assert_eq!(old.activate(&id).await.refused, "");
    let token = client.finish(&accepted.reply).0.resume.unwrap();

    // Its line is dead, and nobody has noticed yet.
    let resuming = || NoiseClient::resuming(&key, LAYOUT, AUDIENCE, &token);
    let resumed = new.login(Mode::Noise, resuming().message).await.unwrap();
    assert_eq!((&resumed.session_id, resumed.user.as_str()), (&id, "ada"));
    assert_eq!(new.activate(&id).await.refused, "");
    let heard = old.kicked().await;
    assert_eq!((heard.session_id, heard.hold), (id.clone(), accepted.hold));
    assert_eq!(heard.reason, "the session goes on over another connection");
    let refused = old.login(Mode::Noise, resuming().message).await.unwrap_err();
    assert_eq!(refused.text, "the session cannot be resumed, log in");
    let ticket = || issue(folder.path(), "hmac.json", "ada");
    let refused = old.login(Mode::Ticket, ticket()).await.unwrap_err();
    assert_eq!(refused.text, "this user is logged in already");

    // Away at the one, away at the other.
    new.ended(&id).await;
    becomes(&one, "meshgate_companion_sessions_stored{state=\"away\"}", 1.0).await;
    let list = ["session", "list", "--state", "away", "--server", &one.admin];
    assert!(ok(meshgate(folder.path(), &list)).contains(&hex(&id)));
    old.login(Mode::Ticket, ticket()).await.unwrap();
    becomes(&two, "meshgate_companion_sessions_stored{state=\"away\"}", 0.0).await;
    assert_eq!(kick(&folder, &two, &["--user", "ada"]), Some(0));
    assert_eq!(old.kicked().await.reason, "out");
}

#[tokio::test]
async fn a_proxy_that_moves_to_the_other_companion_loses_no_session_to_the_clock() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let (port, timeout) = (format!("store.redis.port={}", redis.port), "session.proxy_timeout=2s");
    let args = ["--set", "store.kind=redis", "--set", &port, "--set", timeout];
    let args = [&args[..], &["--metrics-listen", "127.0.0.1:0"]].concat();
    let mut one = Process::start(folder.path(), &args);
    let two = Process::start(folder.path(), &args);
    let login = async |proxy: &mut Proxy, user: &str| {
        proxy.login(Mode::Ticket, issue(folder.path(), "hmac.json", user)).await.unwrap().session_id
    };
    let mut moves = Proxy::attach(&one.url(), "p", vec![]).await;
    let mut dies = Proxy::attach(&one.url(), "dead", vec![]).await;
    let stays = login(&mut moves, "ada").await;
    login(&mut dies, "bob").await;
    // A companion and a proxy vanish together: nobody is left who saw that proxy go.
    one.signal("-KILL");
    one.wait();
    drop(dies);
    let _moves = Proxy::attach(&two.url(), "p", vec![stays.clone()]).await;
    becomes(&two, "meshgate_companion_session_moves_total{kind=\"lost\"}", 1.0).await;
    becomes(&two, "meshgate_companion_sessions_stored{state=\"away\"}", 1.0).await;
    becomes(&two, "meshgate_companion_sessions_stored{state=\"live\"}", 1.0).await;
    let list = ["session", "list", "--state", "live", "--server", &two.admin];
    assert!(ok(meshgate(folder.path(), &list)).contains(&hex(&stays)));
}

#[tokio::test]
async fn without_the_store_logins_try_again_what_lives_goes_on_and_it_recovers_by_itself() {
    let Some(mut redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let (one, two) = (start(&folder, &redis, "refuse"), start(&folder, &redis, "refuse"));
    let mut proxy = Proxy::attach(&one.url(), "p", vec![]).await;
    let ticket = |user: &str| issue(folder.path(), "hmac.json", user);
    let id = proxy.login(Mode::Ticket, ticket("ada")).await.unwrap().session_id;
    let bob = proxy.login(Mode::Ticket, ticket("bob")).await.unwrap().session_id;
    redis.kill();
    becomes(&one, HEALTHY, 0.0).await;
    let began = Instant::now();
    let refused = proxy.login(Mode::Ticket, ticket("eve")).await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(
        value(&scrape(&one, "GET /metrics"), "meshgate_companion_sessions{state=\"live\"}") == 2.0
    );
    // Bob leaves while nobody can write it down.
    proxy.ended(&bob).await;
    becomes(&one, "meshgate_companion_sessions{state=\"live\"}", 1.0).await;

    redis.run();
    becomes(&one, HEALTHY, 1.0).await;
    becomes(&two, HEALTHY, 1.0).await;
    // He may come again, and Ada still lives.
    proxy.login(Mode::Ticket, ticket("bob")).await.unwrap();
    let refused = proxy.login(Mode::Ticket, ticket("ada")).await.unwrap_err();
    assert_eq!(refused.text, "this user is logged in already");
    assert_eq!(kick(&folder, &two, &["--user", "ada"]), Some(0));
    assert_eq!(proxy.kicked().await.session_id, id);
}

#[tokio::test]
async fn a_lost_master_costs_a_moment_and_no_session() {
    let Some(mut redis) = RedisSentinels::start() else { return };
    let folder = keys();
    let nodes = format!("store.redis.nodes={}", redis.nodes().join(","));
    let args = ["store.kind=redis", "store.redis.topology=sentinel", "store.redis.master=games"];
    let args = [&args[..], &[&nodes, "login.same_user=refuse"]].concat();
    let args: Vec<_> = args.iter().flat_map(|setting| ["--set", *setting]).collect();
    let args = [&args[..], &["--metrics-listen", "127.0.0.1:0"]].concat();
    let (one, two) = (Process::start(folder.path(), &args), Process::start(folder.path(), &args));
    let (mut p, mut q) = (
        Proxy::attach(&one.url(), "p", vec![]).await,
        Proxy::attach(&two.url(), "q", vec![]).await,
    );
    let ticket = |user: &str| issue(folder.path(), "hmac.json", user);
    let ada = p.login(Mode::Ticket, ticket("ada")).await.unwrap().session_id;
    redis.servers[0].kill();
    becomes(&one, HEALTHY, 0.0).await;
    for companion in [&one, &two] {
        becomes(companion, HEALTHY, 1.0).await;
    }
    let refused = q.login(Mode::Ticket, ticket("ada")).await.unwrap_err();
    assert_eq!(refused.text, "this user is logged in already");
    q.login(Mode::Ticket, ticket("bob")).await.unwrap();
    // It was looked up, and goes on.
    becomes(&one, "meshgate_companion_replica_news_total{kind=\"gap\"}", 2.0).await;
    assert_eq!(kick(&folder, &two, &["--user", "ada"]), Some(0));
    let heard = p.kicked().await;
    assert_eq!((heard.session_id, heard.reason.as_str()), (ada, "out"));
}

#[test]
fn a_server_that_cannot_be_used_is_named_at_the_start() {
    let Some(redis) = RedisServer::start(&["--requirepass", "x"]) else { return };
    let folder = keys();
    let port = format!("store.redis.port={}", redis.port);
    let args = ["serve", "--listen", "127.0.0.1:0", "--ticket-key", "hmac.json", "--set", &port];
    let output = meshgate(folder.path(), &[&args[..], &["--set", "store.kind=redis"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("store.redis") && said.contains(&redis.port.to_string()), "{said}");
}

#[tokio::test]
async fn server_and_companion_prove_themselves_by_certificates() {
    let folder = keys();
    let path = folder.path();
    let authority = Authority::new(path, "ca");
    authority.sign("redis");
    authority.sign("companion");
    Authority::new(path, "stranger");
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = tls_port.to_string();
    let file = |name: &str| path.join(name).display().to_string();
    let (cert, key, ca) = (file("redis.pem"), file("redis.key"), file("ca.pem"));
    let arguments = [
        ["--tls-port", &port],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &ca],
        ["--tls-auth-clients", "yes"],
    ];
    let Some(_redis) = RedisServer::start(arguments.as_flattened()) else { return };
    let config = |ca: &str| {
        format!(
            "[metrics]\nlisten = \"127.0.0.1:0\"\n[store]\nkind = \"redis\"\n[store.redis]\n\
             host = \"localhost\"\nport = {tls_port}\ntls = true\ntls_ca = \"{ca}.pem\"\n\
             tls_cert = \"companion.pem\"\ntls_key = \"companion.key\"\n"
        )
    };
    std::fs::write(path.join("good.toml"), config("ca")).unwrap();
    std::fs::write(path.join("bad.toml"), config("stranger")).unwrap();
    let process = Process::start(path, &["--config", "good.toml"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    proxy.login(Mode::Ticket, issue(path, "hmac.json", "ada")).await.unwrap();

    // One that somebody else vouches for may be anybody.
    let process = Process::start(path, &["--config", "bad.toml"]);
    assert_eq!(value(&scrape(&process, "GET /metrics"), HEALTHY), 0.0);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let refused = proxy.login(Mode::Ticket, issue(path, "hmac.json", "ada")).await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::TryAgain);
}
