//! `meshgate` as a process: when it refuses to start, how it stops, what its logs hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use meshgate_companion::domain::key::{Key, hex};
use meshgate_companion::domain::resume::ticket_message;
use meshgate_proto::edge::v1::{Login, Mode, Refusal, from_proxy, to_proxy};
use meshgate_proto::session::v1::{LoginReply, LoginRequest, login_request::Credential};
use prost::Message as _;
use tonic::Code;
use zeroize::Zeroizing;

use support::process::{Process, becomes, issue, keys, meshgate, ok, scrape, spellings, value};
use support::{AUDIENCE, LAYOUT, NoiseClient, Proxy, forge};

fn read_key(folder: &Path, name: &str) -> Key {
    Key::from_json(&fs::read(folder.join(name)).unwrap()).unwrap()
}

#[test]
fn it_refuses_to_start_where_others_could_reach_it_or_nothing_could_work() {
    let folder = keys();
    let path = folder.path();
    fs::write(path.join("garbage"), [0xa5; 8192]).unwrap();
    fs::write(path.join("jwk.json"), r#"{"kty":"oct","kid":"j","k":"AAAA"}"#).unwrap();
    let ticket = ["--ticket-key", "ticket.pub.json"];
    let cases: [(&[&str], i32, &str); 13] = [
        (&["--listen", "0.0.0.0:0"], 1, "--behind-mesh-mtls"),
        (&["--listen", "[::]:0"], 1, "loopback"),
        (&["--listen", "nonsense"], 2, "--listen"),
        (&["--tls-cert", "c.pem"], 2, "--tls-key"),
        (&["--client-ca", "c.pem"], 2, "--tls-cert"),
        (
            &["--tls-cert", "c", "--tls-key", "k", "--client-ca", "a", "--behind-mesh-mtls"],
            2,
            "cannot be used with",
        ),
        (&["--tls-cert", "c.pem", "--tls-key", "k.pem", "--client-ca", "a.pem"], 1, "c.pem"),
        (&["--store", "garbage"], 1, "garbage"),
        (&["--store", "no/such/folder/store"], 1, "no/such/folder"),
        (&["--noise-key", "ticket.json"], 1, "kind ticket-ed25519"),
        (&["--noise-key", "missing.json"], 1, "missing.json"),
        (&["--jwt-key", "jwk.json"], 1, "alg"),
        (&["--session-lifetime", "soon"], 2, "90s"),
    ];
    for (args, code, named) in cases {
        let mut all = vec!["serve"];
        // A later --listen would be a second one.
        if !args.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(ticket);
        all.extend(args);
        let output = meshgate(path, &all);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
    let output = meshgate(path, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--ticket-key"));
}

#[test]
fn behind_the_meshs_mtls_it_listens_anywhere() {
    let folder = keys();
    let args =
        ["serve", "--listen", "0.0.0.0:0", "--behind-mesh-mtls", "--ticket-key", "hmac.json"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshgate"))
        .args(args)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<_> = lines.take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // Operators' calls are not opened with it.
    assert!(lines[0].starts_with("admin on 127.0.0.1:"), "{lines:?}");
    assert!(lines[1].starts_with("listening on 0.0.0.0:"), "{lines:?}");
}

#[tokio::test]
async fn sigterm_ends_it_in_order_and_sessions_are_there_at_the_next_start() {
    let folder = keys();
    let mut process = Process::start(folder.path(), &[]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let ticket = issue(folder.path(), "ticket.json", "ada");
    let id = proxy.login(Mode::Ticket, ticket).await.unwrap().session_id;
    process.terminate();
    assert_eq!(proxy.end().await.code(), Code::Unavailable);
    drop(proxy);
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SIGTERM") && log.contains("stopped"), "{log}");

    let mut process = Process::start(folder.path(), &[]);
    let args = ["session", "list", "--json", "--server", &process.admin];
    let list: serde_json::Value =
        serde_json::from_str(&ok(meshgate(folder.path(), &args))).unwrap();
    assert_eq!((&list[0]["session"], &list[0]["user"]), (&hex(&id).into(), &"ada".into()));
    process.terminate();
    assert_eq!(process.wait().0, Some(0));
}

#[tokio::test]
async fn operators_list_and_kick() {
    let folder = keys();
    let process = Process::start(folder.path(), &[]);
    let server = process.admin.clone();
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--server", &server]);
        meshgate(folder.path(), &all)
    };
    let mut proxy = Proxy::attach(&process.url(), "proxy-1", vec![]).await;
    let login = |user| issue(folder.path(), "hmac.json", user);
    let ada = proxy.login(Mode::Ticket, login("ada")).await.unwrap().session_id;
    let bob = proxy.login(Mode::Ticket, login("bob")).await.unwrap().session_id;
    let table = ok(run(&["session", "list"]));
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("proxy-1") && table.contains("ada") && table.contains("live"),
        "{table}"
    );
    assert_eq!(ok(run(&["session", "list", "--user", "bob"])).lines().count(), 2);

    assert_eq!(
        ok(run(&["session", "kick", &hex(&ada), "--reason", "bye", "--code", "3"])),
        "1 ended\n"
    );
    let kick = proxy.kicked().await;
    assert_eq!((kick.session_id, kick.reason.as_str(), kick.code), (ada, "bye", 3));
    assert_eq!(ok(run(&["session", "kick", "--user", "bob", "--json"])), "{\"ended\":1}\n");
    assert_eq!(proxy.kicked().await.session_id, bob);

    let output = run(&["session", "kick", "--user", "bob"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no session"));
    assert_eq!(run(&["session", "kick", "nonsense"]).status.code(), Some(1));
    assert_eq!(run(&["session", "kick"]).status.code(), Some(2));
    assert_eq!(run(&["session", "kick", &hex(&bob), "--user", "bob"]).status.code(), Some(2));
    assert_eq!(run(&["session", "kick", "--user", ""]).status.code(), Some(1));
    drop(process);
    let output = run(&["session", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is it running"));
}

#[tokio::test]
async fn a_configuration_says_how_often_a_user_may_be_there() {
    let folder = keys();
    let path = folder.path();
    let config = |rule: &str| {
        let text = format!("[metrics]\nlisten = \"127.0.0.1:0\"\n[login]\n{rule}\n");
        fs::write(path.join("c.toml"), text).unwrap();
    };
    config("same_user = \"refuse\"");
    let process = Process::start(path, &["--config", "c.toml"]);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let login = || issue(path, "hmac.json", "ada");
    let first = proxy.login(Mode::Ticket, login()).await.unwrap().session_id;
    let refused = proxy.login(Mode::Ticket, login()).await.unwrap_err();
    assert_eq!(refused.text, "this user is logged in already");

    config("same_user = \"replace\"\nreplaced_code = 12");
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    // The old one hears it before the new one begins.
    let reference = from_proxy::Kind::Login(Login {
        r#ref: 77,
        mode: Mode::Ticket.into(),
        audience: AUDIENCE.into(),
        layout: LAYOUT.into(),
        message: login().into(),
        peer: "203.0.113.7:40112".into(),
    });
    proxy.send(reference).await;
    let kick = proxy.kicked().await;
    assert_eq!((kick.session_id, kick.reason.as_str()), (first, "logged in elsewhere"));
    assert_eq!(kick.code, 12);
    assert!(matches!(proxy.next().await, to_proxy::Kind::LoginAccepted(_)));
    let page = scrape(&process, "GET /metrics");
    let replaced = "meshgate_companion_sessions_ended_total{cause=\"replaced\"}";
    let refused = "meshgate_companion_logins_total{mode=\"ticket\",result=\"too_many_sessions\"}";
    assert_eq!((value(&page, replaced), value(&page, refused)), (1.0, 1.0));
}

#[tokio::test]
async fn operators_find_count_and_kick_by_what_a_credential_says() {
    let folder = keys();
    let process = Process::start(folder.path(), &[]);
    let run =
        |args: &[&str]| meshgate(folder.path(), &[args, &["--server", &process.admin]].concat());
    let mut proxy = Proxy::attach(&process.url(), "proxy-1", vec![]).await;
    for (user, zone, role) in [("ada", "7", "player"), ("bob", "8", "player"), ("eve", "7", "gm")] {
        let zone = format!("zone={zone}");
        let more = ["--claim", &zone, "--role", role];
        let base =
            ["ticket", "issue", "--key", "hmac.json", "--audience", AUDIENCE, "--user", user];
        let ticket = ok(meshgate(folder.path(), &[&base[..], &more].concat()));
        proxy.login(Mode::Ticket, ticket.trim()).await.unwrap();
    }
    let users = |args: &[&str]| -> Vec<String> {
        let text = ok(run(&[&["session", "list", "--json"], args].concat()));
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sessions = list.as_array().unwrap().iter();
        let mut users: Vec<_> =
            sessions.map(|session| session["user"].as_str().unwrap().to_owned()).collect();
        users.sort();
        users
    };
    assert_eq!(users(&["--label", "zone=7"]), ["ada", "eve"]);
    assert_eq!(users(&["--label", "zone=7", "--role", "gm"]), ["eve"]);
    assert_eq!(users(&["--proxy", "proxy-1", "--state", "live"]).len(), 3);
    assert_eq!(users(&["--state", "pending"]).len(), 0);
    assert_eq!(users(&["--audience", "other"]).len(), 0);

    // Pages follow each other.
    let first = run(&["session", "list", "--limit", "2", "--json"]);
    let told = String::from_utf8(first.stderr.clone()).unwrap();
    let after = told.split("--after ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(users(&["--limit", "2"]).len(), 2);
    assert_eq!(users(&["--after", after]).len(), 1);

    let count = ok(run(&["session", "count", "--json"]));
    assert_eq!(count, "{\"away\":0,\"live\":3,\"live_here\":3,\"pending_here\":0}\n");
    let kick = ["session", "kick", "--label", "zone=7", "--reason", "zone closes"];
    assert_eq!(ok(run(&kick)), "2 ended\n");
    assert_eq!(proxy.kicked().await.reason, "zone closes");
    proxy.kicked().await;
    assert_eq!(users(&[]), ["bob"]);
    assert_eq!(run(&kick).status.code(), Some(1));
    assert!(ok(run(&["session", "count"])).starts_with("1 live"));
}

#[test]
fn key_files_are_private_and_not_overwritten() {
    let folder = keys();
    let path = folder.path().join("noise.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    let again = ["keygen", "noise", "--out", "noise.json"];
    let output = meshgate(folder.path(), &again);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--force"));
    assert_eq!(fs::read(&path).unwrap(), before);

    let forced = [&again[..], &["--force", "--id", "n2"]].concat();
    let public = Key::from_json(ok(meshgate(folder.path(), &forced)).as_bytes()).unwrap();
    let private = read_key(folder.path(), "noise.json");
    assert_eq!((public.id(), private.id()), ("n2", "n2"));
    assert_eq!(private.public().unwrap().bytes().expose(), public.bytes().expose());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn no_secret_is_in_a_log_of_everything() {
    let folder = keys();
    let path = folder.path();
    let mut process = Process::start(path, &["--log", "trace", "--log-format", "json"]);
    let noise_key = read_key(path, "noise.json");
    let mut proxy = Proxy::attach(&process.url(), "proxy-1", vec![]).await;
    let mut secrets: Vec<String> = Vec::new();

    let good = issue(path, "hmac.json", "ada");
    let mut tickets = vec![good.clone()];
    let accepted = proxy.login(Mode::Ticket, good.clone()).await.unwrap();
    let reply = LoginReply::decode(accepted.reply.as_slice()).unwrap();
    let token = reply.resume.expect("a token");
    secrets.extend(spellings(&token.secret));
    let secret = Zeroizing::new(token.secret.as_slice().try_into().unwrap());
    let message = ticket_message(&token.id, &secret, good.as_bytes()).unwrap();
    secrets.extend(spellings(&message[message.len() - 32..]));
    let resumed = proxy.login(Mode::Ticket, message).await.unwrap();
    assert_eq!(proxy.activate(&resumed.session_id).await.refused, "");
    assert_eq!(proxy.kicked().await.hold, accepted.hold);
    let forged = forge(&good);
    assert_eq!(
        proxy.login(Mode::Ticket, forged.clone()).await.unwrap_err().refusal(),
        Refusal::Unauthenticated
    );
    tickets.push(forged);

    let ticket = issue(path, "ticket.json", "bob");
    tickets.push(ticket.clone());
    let client = NoiseClient::new(&noise_key, Credential::Ticket(ticket.clone()));
    let accepted = proxy.login(Mode::Noise, client.message.clone()).await.unwrap();
    let again = client.message.clone();
    let token = client.finish(&accepted.reply).0.resume.expect("a token");
    secrets.extend(spellings(&token.secret));
    secrets.extend(spellings(&accepted.client_to_server_key));
    secrets.extend(spellings(&accepted.server_to_client_key));
    assert_eq!(proxy.activate(&accepted.session_id).await.refused, "");
    proxy.login(Mode::Noise, again).await.unwrap_err();
    let client = NoiseClient::resuming(&noise_key, LAYOUT, AUDIENCE, &token);
    let resumed = proxy.login(Mode::Noise, client.message.clone()).await.unwrap();
    secrets.extend(spellings(&resumed.client_to_server_key));
    secrets.extend(spellings(&client.finish(&resumed.reply).0.resume.unwrap().secret));
    let request = LoginRequest {
        credential: Some(Credential::Jwt("header.claims.signature-of-jwt".into())),
        client: String::new(),
    };
    let client = NoiseClient::with(&noise_key, LAYOUT, AUDIENCE, &request.encode_to_vec());
    proxy.login(Mode::Noise, client.message).await.unwrap_err();
    secrets.push("signature-of-jwt".into());
    let kick = ["session", "kick", "--user", "ada", "--server", &process.admin];
    ok(meshgate(path, &kick));
    proxy.kicked().await;
    process.terminate();
    proxy.end().await;
    drop(proxy);
    let (code, log) = process.wait();
    assert_eq!(code, Some(0));

    for ticket in tickets {
        let mut parts = ticket.rsplitn(2, '.');
        secrets.push(parts.next().unwrap()[..20].to_owned());
        secrets.push(parts.next().unwrap()[..40].to_owned());
    }
    for name in ["noise.json", "hmac.json", "ticket.json"] {
        secrets.extend(spellings(read_key(path, name).bytes().expose()));
    }
    // The log is the whole one.
    for line in ["TRACE", "login refused", "login accepted", "session kicked"] {
        assert!(log.contains(line), "no {line} in the log");
    }
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}

#[test]
fn bash_completes_commands_and_flags_and_other_shells_get_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let script = ok(meshgate(path, &["completion", "bash"]));
    fs::write(path.join("completion"), script).unwrap();
    let complete = |words: &str, last: &str, before: &str| {
        let count = words.split(' ').count() - 1;
        let line = format!(
            "source ./completion; COMP_WORDS=({words}); COMP_CWORD={count}; \
             _meshgate meshgate '{last}' '{before}'; echo \"${{COMPREPLY[*]}}\""
        );
        let output = Command::new("bash").args(["-c", &line]).current_dir(path).output();
        ok(output.unwrap()).trim().to_owned()
    };
    assert_eq!(complete("meshgate sess", "sess", "meshgate"), "session");
    assert_eq!(complete("meshgate session ki", "ki", "session"), "kick");
    assert_eq!(complete("meshgate serve --ticket", "--ticket", "serve"), "--ticket-key");
    for (shell, holds) in [("zsh", "#compdef meshgate"), ("fish", "complete -c meshgate")] {
        assert!(ok(meshgate(path, &["completion", shell])).contains(holds), "{shell}");
    }
}
