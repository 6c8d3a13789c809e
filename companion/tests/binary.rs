//! `meshgate` as a process: when it refuses to start, how it stops, what its logs hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshgate_companion::domain::key::{Key, hex};
use meshgate_proto::edge::v1::{Mode, Refusal};
use meshgate_proto::session::v1::{LoginRequest, login_request::Credential};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tonic::Code;

use support::{AUDIENCE, LAYOUT, NoiseClient, Proxy, forge};

fn meshgate(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshgate"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("meshgate runs")
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with a key of each kind.
fn keys() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (kind, name) in [("noise", "noise"), ("ticket-ed25519", "ticket"), ("ticket-hmac", "hmac")]
    {
        let public =
            ok(meshgate(folder.path(), &["keygen", kind, "--out", &format!("{name}.json")]));
        fs::write(folder.path().join(format!("{name}.pub.json")), public).unwrap();
    }
    folder
}

/// A running companion; its log is collected.
struct Process {
    child: Child,
    address: String,
    log: Option<JoinHandle<String>>,
}

impl Process {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_meshgate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--noise-key", "noise.json"])
            .args(["--ticket-key", "ticket.pub.json,hmac.json"])
            .args(args)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("meshgate starts");
        let mut errors = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on ").map(str::to_owned);
        match address {
            Some(address) => Self { child, address, log: Some(log) },
            None => panic!("no address but {first:?}: {}", log.join().unwrap()),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end; its exit code and log.
    fn wait(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only if a test failed before its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn issue(folder: &Path, key: &str, user: &str) -> String {
    let args = ["ticket", "issue", "--key", key, "--user", user, "--audience", AUDIENCE];
    ok(meshgate(folder, &args)).trim().to_owned()
}

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
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.starts_with("listening on 0.0.0.0:"), "{first}");
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
    let args = ["session", "list", "--json", "--server", &process.address];
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
    let server = process.address.clone();
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
    drop(process);
    let output = run(&["session", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is it running"));
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

/// How a secret might look in a log.
fn spellings(bytes: &[u8]) -> Vec<String> {
    let decimal: Vec<_> = bytes.iter().take(6).map(u8::to_string).collect();
    vec![
        hex(bytes),
        hex(bytes).to_uppercase(),
        STANDARD.encode(bytes).trim_end_matches('=').to_owned(),
        decimal.join(", "),
        decimal.join(","),
        bytes.iter().take(6).map(|byte| format!("\\x{byte:02x}")).collect(),
    ]
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
    proxy.login(Mode::Ticket, good.clone()).await.unwrap();
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
    secrets.extend(spellings(&accepted.client_to_server_key));
    secrets.extend(spellings(&accepted.server_to_client_key));
    assert_eq!(proxy.activate(&accepted.session_id).await.refused, "");
    proxy.login(Mode::Noise, client.message).await.unwrap_err();
    let request = LoginRequest {
        credential: Some(Credential::Jwt("header.claims.signature-of-jwt".into())),
        client: String::new(),
    };
    let client = NoiseClient::with(&noise_key, LAYOUT, AUDIENCE, &request.encode_to_vec());
    proxy.login(Mode::Noise, client.message).await.unwrap_err();
    secrets.push("signature-of-jwt".into());
    let kick = ["session", "kick", "--user", "ada", "--server", &process.address];
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

/// An authority, and certificates that it signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned() }
    }

    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn with_mtls_only_certificates_of_the_authority_get_in() {
    let folder = keys();
    let path = folder.path();
    let ours = Authority::new(path, "ca");
    ours.sign("server");
    ours.sign("operator");
    Authority::new(path, "other-ca").sign("stranger");
    let tls = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--client-ca", "ca.pem"];
    let process = Process::start(path, &tls);
    let list = |tls: &[&str]| {
        let args = [&["session", "list", "--server", &process.address], tls].concat();
        meshgate(path, &args).status.code()
    };
    let operator = ["--ca", "ca.pem", "--cert", "operator.pem", "--key", "operator.key"];
    assert_eq!(list(&operator), Some(0));
    let stranger = ["--ca", "ca.pem", "--cert", "stranger.pem", "--key", "stranger.key"];
    assert_eq!(list(&stranger), Some(1));
    assert_eq!(list(&["--ca", "ca.pem"]), Some(1));
    assert_eq!(list(&["--ca", "other-ca.pem"]), Some(1));
    assert_eq!(list(&[]), Some(1));
}
