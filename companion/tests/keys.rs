//! Keys at rest and in change: the ring, its master keys, and logins while all of it moves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use meshgate_companion::domain::key::Key;
use meshgate_companion::domain::master::Masters;
use meshgate_companion::domain::ring::Ring;
use meshgate_proto::edge::v1::Mode;
use meshgate_proto::session::v1::login_request::Credential;
use tempfile::TempDir;

use support::process::{Process, becomes, meshgate, ok, spellings};
use support::{AUDIENCE, NoiseClient, Proxy};

const BY: [&str; 4] = ["--ring", "ring.json", "--master-file", "m1.json"];

/// A folder with a ring of two kinds, sealed by `m1`.
fn ring() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| ok(meshgate(folder.path(), args));
    run(&["keygen", "master", "--id", "m1", "--out", "m1.json"]);
    rotate(folder.path(), "noise", "n1");
    rotate(folder.path(), "ticket-ed25519", "t1");
    folder
}

fn rotate(folder: &Path, kind: &str, id: &str) {
    let id = if id.is_empty() { vec![] } else { vec!["--id", id] };
    ok(meshgate(folder, &[&["key", "rotate", kind][..], &BY, &id].concat()));
}

fn ticket(folder: &Path, user: &str) -> String {
    let args = ["ticket", "issue", "--user", user, "--audience", AUDIENCE];
    ok(meshgate(folder, &[&args[..], &BY].concat())).trim().to_owned()
}

fn read_key(folder: &Path, name: &str) -> Key {
    Key::from_json(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// The keys of the ring, opened.
fn opened(folder: &Path) -> Vec<Key> {
    let ring = Ring::from_json(&fs::read(folder.join("ring.json")).unwrap()).unwrap();
    ring.open(&Masters::new(vec![read_key(folder, "m1.json")]).unwrap()).unwrap()
}

fn find<'a>(keys: &'a [Key], id: &str) -> &'a Key {
    keys.iter().find(|key| key.id() == id).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const SERVE: [&str; 8] = [
    "--listen",
    "127.0.0.1:0",
    "--metrics-listen",
    "127.0.0.1:0",
    "--key-ring",
    "ring.json",
    "--master-file",
    "m1.json",
];

#[tokio::test]
async fn a_rotation_drops_no_login() {
    let folder = ring();
    let path = folder.path();
    let process = Process::bare(path, &SERVE);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let mut reloads = 0.0;
    let keys = opened(path);
    let first_tickets: Vec<_> = (0..3).map(|n| ticket(path, &format!("early{n}"))).collect();
    let noise = |keys: &[Key], id: &str, ticket: String| {
        NoiseClient::new(find(keys, id), Credential::Ticket(ticket)).message
    };
    proxy.login(Mode::Noise, noise(&keys, "n1", ticket(path, "ada"))).await.unwrap();

    // Prepared, known to the companion; then switched: both keys of a kind are good all the time.
    for (noise_id, ticket_id) in [("n2", "t2"), ("", "")] {
        rotate(path, "noise", noise_id);
        rotate(path, "ticket-ed25519", ticket_id);
        process.signal("-HUP");
        reloads += 1.0;
        // While the companion reloads.
        for user in ["bob", "cyd", "dan"] {
            proxy.login(Mode::Noise, noise(&keys, "n1", ticket(path, user))).await.unwrap();
        }
        becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", reloads).await;
        let keys = opened(path);
        for id in ["n1", "n2"] {
            proxy.login(Mode::Noise, noise(&keys, id, ticket(path, "eve"))).await.unwrap();
        }
    }
    // Signed by the new key since the switch; those of before are good as well.
    let payload = ticket(path, "fay");
    proxy.login(Mode::Ticket, payload).await.unwrap();
    for ticket in &first_tickets[..2] {
        proxy.login(Mode::Ticket, ticket.clone()).await.unwrap();
    }

    for id in ["n1", "t1"] {
        ok(meshgate(path, &["key", "retire", id, "--ring", "ring.json"]));
    }
    process.signal("-HUP");
    reloads += 1.0;
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", reloads).await;
    let all = opened(path);
    let old = proxy.login(Mode::Noise, noise(&keys, "n1", ticket(path, "gil"))).await;
    let new = proxy.login(Mode::Noise, noise(&all, "n2", ticket(path, "gil"))).await;
    assert!(old.is_err() && new.is_ok());
    assert!(proxy.login(Mode::Ticket, first_tickets[2].clone()).await.is_err());
}

#[test]
fn a_ring_is_listed_and_kept_by_hand() {
    let folder = ring();
    let path = folder.path();
    let run = |args: &[&str]| meshgate(path, args);
    let mode = fs::metadata(path.join("ring.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    rotate(path, "noise", "n2");
    let table = ok(run(&["key", "list", "--ring", "ring.json"]));
    assert_eq!(table.lines().count(), 4, "{table}");
    let list = ok(run(&["key", "list", "--ring", "ring.json", "--json"]));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let states: Vec<_> =
        list.as_array().unwrap().iter().map(|key| (&key["id"], &key["state"])).collect();
    let expected = [("n1", "current"), ("t1", "current"), ("n2", "next")];
    assert_eq!(states.len(), 3);
    for ((id, state), expected) in states.iter().zip(expected) {
        assert_eq!((id.as_str().unwrap(), state.as_str().unwrap()), expected);
    }
    let public = ok(run(&[&["key", "public", "n2"][..], &BY].concat()));
    let public = Key::from_json(public.as_bytes()).unwrap();
    assert_eq!(
        public.bytes().expose(),
        find(&opened(path), "n2").public().unwrap().bytes().expose()
    );

    let before = fs::read(path.join("ring.json")).unwrap();
    ok(run(&["keygen", "ticket-hmac", "--id", "h1", "--out", "h1.json"]));
    for (args, named) in [
        (vec!["key", "retire", "n1", "--ring", "ring.json"], "rotate first"),
        (vec!["key", "retire", "n9", "--ring", "ring.json"], "no key `n9`"),
        ([&["key", "rotate", "noise", "--id", "n3"][..], &BY].concat(), "`n2`"),
        ([&["key", "rotate", "ticket-hmac", "--id", "n1"][..], &BY].concat(), "`n1` already"),
        (vec!["key", "rotate", "noise", "--ring", "ring.json"], "--master-file"),
        ([&["key", "import", "m1.json"][..], &BY].concat(), "not kept in a ring"),
        (
            vec!["key", "public", "n1", "--ring", "ring.json", "--master-file", "h1.json"],
            "a master key is needed",
        ),
        (vec!["key", "list", "--ring", "h1.json"], "not a key ring"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(said(&output).contains(named), "{args:?}: {}", said(&output));
        assert_eq!(fs::read(path.join("ring.json")).unwrap(), before, "{args:?}");
    }
    ok(run(&[&["key", "import", "h1.json"][..], &BY].concat()));
    assert_eq!(
        find(&opened(path), "h1").bytes().expose(),
        read_key(path, "h1.json").bytes().expose()
    );
}

#[tokio::test]
async fn the_master_key_comes_from_a_command_or_the_environment_and_can_change() {
    let folder = ring();
    let path = folder.path();
    ok(meshgate(path, &["keygen", "master", "--id", "m2", "--out", "m2.json"]));
    let m2 = fs::read_to_string(path.join("m2.json")).unwrap();
    let serve = &SERVE[..6];
    let command = ["--set", "keys.master_command=cat m1.json"];
    // Both master keys are known while the ring moves from one to the other.
    let both = [("MESHGATE_MASTER_KEY", m2.as_str())];
    let process = Process::with(path, &[serve, &command].concat(), &both);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    proxy.login(Mode::Ticket, ticket(path, "ada")).await.unwrap();
    let bob = ticket(path, "bob");
    let rewrap = ["key", "rewrap", "--ring", "ring.json", "--master-file", "m2.json,m1.json"];
    ok(meshgate(path, &rewrap));
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    proxy.login(Mode::Ticket, bob).await.unwrap();
    drop(process);

    // Now the new one alone opens it.
    let mut check = vec!["serve", "--check", "--key-ring", "ring.json"];
    let with = |check: &[&str], key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshgate"));
        command.args(check).current_dir(path);
        if let Some(key) = key {
            command.env("MESHGATE_MASTER_KEY", key);
        }
        command.output().unwrap()
    };
    assert!(with(&check, Some(&m2)).status.success());
    assert!(said(&with(&check, None)).contains("no master key"));
    assert!(said(&with(&check, Some("{}"))).contains("MESHGATE_MASTER_KEY"));
    check.extend(["--set", "keys.master_command=cat m1.json"]);
    let missing = said(&with(&check, None));
    assert!(missing.contains("sealed by the master key `m2`, which is not given"), "{missing}");
    check.extend(["--set", "keys.master_command=exit 3"]);
    let failed = said(&with(&check, None));
    assert!(failed.contains("master key's command") && failed.contains('3'), "{failed}");
}

#[tokio::test]
async fn no_key_is_readable_from_disk_or_from_a_log_of_everything() {
    let folder = ring();
    let path = folder.path();
    let master = fs::read_to_string(path.join("m1.json")).unwrap();
    let trace = ["--log", "trace", "--log-format", "json"];
    let variables = [("MESHGATE_MASTER_KEY", master.as_str())];
    let mut process = Process::with(path, &[&SERVE[..6], &trace].concat(), &variables);
    let keys = opened(path);
    let mut proxy = Proxy::attach(&process.url(), "p", vec![]).await;
    let credential = Credential::Ticket(ticket(path, "ada"));
    let client = NoiseClient::new(find(&keys, "n1"), credential);
    let accepted = proxy.login(Mode::Noise, client.message).await.unwrap();
    proxy.activate(&accepted.session_id).await;
    rotate(path, "noise", "n2");
    process.signal("-HUP");
    becomes(&process, "meshgate_companion_reloads_total{result=\"ok\"}", 1.0).await;
    process.terminate();
    let (code, log) = process.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("TRACE") && log.contains("key loaded") && log.contains("n2"));
    let mut secrets = opened(path);
    secrets.push(read_key(path, "m1.json"));
    fs::remove_file(path.join("m1.json")).unwrap();
    let raw_traffic = [accepted.client_to_server_key, accepted.server_to_client_key];
    let raw =
        secrets.iter().map(|key| key.bytes().expose()).chain(raw_traffic.iter().map(|k| &k[..]));
    for secret in raw {
        for spelling in spellings(secret) {
            assert!(!log.contains(&spelling), "{spelling} is in the log");
        }
        for entry in fs::read_dir(path).unwrap() {
            let file = entry.unwrap().path();
            let bytes = fs::read(&file).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            let bare = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!bare, "in {}", file.display());
            for spelling in spellings(secret) {
                assert!(!text.contains(&spelling), "in {}", file.display());
            }
        }
    }
}
