//! A companion that is killed while players log in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshgate_companion::domain::key::{Key, hex};
use meshgate_companion::domain::ticket::{Issuer, Payload};
use meshgate_companion::domain::time::{Clock as _, SystemClock};
use meshgate_proto::edge::v1::Mode;

use support::process::{Process, keys, meshgate, ok};
use support::{Proxy, payload, soon};

const STORE: [&str; 4] = ["--store", "killed.redb", "--set", "login.single_use=always"];

/// A ticket that is good now.
fn ticket(issuer: &Issuer, user: &str) -> String {
    let now = SystemClock.now().seconds();
    issuer.issue(Payload { iat: now, nbf: now, exp: now + 600, ..payload(user) })
}

/// Logs ever new users in until the companion is gone; answers who was let in, with his ticket.
async fn log_in(
    mut proxy: Proxy,
    issuer: Arc<Issuer>,
    name: String,
    done: Arc<AtomicUsize>,
) -> Vec<(String, String)> {
    let mut accepted = Vec::new();
    for number in 0.. {
        let ticket = ticket(&issuer, &format!("{name}-{number}"));
        match proxy.try_login(Mode::Ticket, ticket.clone().into_bytes()).await {
            Some(Ok(login)) => accepted.push((hex(&login.session_id), ticket)),
            Some(Err(refused)) => panic!("{}", refused.text),
            None => break,
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_companion_that_is_killed_amid_logins_has_all_that_it_answered() {
    let folder = keys();
    let key = std::fs::read(folder.path().join("ticket.json")).unwrap();
    let issuer = Arc::new(Issuer::new(&Key::from_json(&key).unwrap()).unwrap());
    let mut accepted = Vec::new();
    for round in 0..3 {
        let mut process = Process::start(folder.path(), &STORE);
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for number in 0..8 {
            let name = format!("p{round}-{number}");
            let proxy = Proxy::attach(&process.url(), &name, vec![]).await;
            tasks.push(tokio::spawn(log_in(proxy, Arc::clone(&issuer), name, Arc::clone(&done))));
        }
        soon(async {
            while done.load(Ordering::SeqCst) < 300 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        process.signal("-KILL");
        process.wait();
        for task in tasks {
            accepted.extend(task.await.unwrap());
        }

        let check = ok(meshgate(folder.path(), &["store", "check", "--store", "killed.redb"]));
        assert!(check.contains("sessions") && !check.contains("problem"), "{check}");
    }
    assert!(accepted.len() >= 900);
    let process = Process::start(folder.path(), &STORE);
    let list = ["session", "list", "--json", "--limit", "100000", "--server", &process.admin];
    let list: serde_json::Value =
        serde_json::from_str(&ok(meshgate(folder.path(), &list))).unwrap();
    let list = list.as_array().unwrap();
    let there: BTreeSet<_> =
        list.iter().filter_map(|session| session["session"].as_str()).collect();
    assert!(accepted.iter().all(|(session, _)| there.contains(session.as_str())));
    let mut proxy = Proxy::attach(&process.url(), "again", vec![]).await;
    for (_, ticket) in accepted.iter().step_by(50) {
        let refused = proxy.login(Mode::Ticket, ticket.clone()).await.unwrap_err();
        assert_eq!(refused.text, "the credential is no longer valid");
    }
}

#[test]
fn a_store_is_written_as_text_and_read_back_and_one_in_use_is_left_alone() {
    let folder = keys();
    let process = Process::start(folder.path(), &["--store", "used.redb"]);
    let run = |args: &[&str]| {
        let output = meshgate(folder.path(), &[&["store"], args].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for command in ["check", "export"] {
        let (code, said) = run(&[command, "--store", "used.redb"]);
        assert!(code == Some(1) && said.contains("stop it first"), "{said}");
    }
    drop(process);
    let (code, said) = run(&["export", "--store", "used.redb", "--out", "text"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["import", "--store", "new.redb", "text"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["export", "--store", "nowhere.redb"]);
    assert!(code == Some(1) && said.contains("no such file"), "{said}");
    assert!(!folder.path().join("nowhere.redb").exists());
}
