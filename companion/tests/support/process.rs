//! `meshgate` as a process, with keys and certificates of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshgate_companion::domain::key::hex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::{AUDIENCE, soon};

pub fn meshgate(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshgate"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("meshgate runs")
}

pub fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with a key of each kind.
pub fn keys() -> TempDir {
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
pub struct Process {
    pub child: Child,
    pub address: String,
    pub admin: String,
    /// Empty where it is not served.
    pub app: String,
    pub metrics: Option<String>,
    log: Option<JoinHandle<String>>,
}

impl Process {
    /// With all keys of the folder.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let all = ["--listen", "127.0.0.1:0", "--noise-key", "noise.json"];
        let tickets = ["--ticket-key", "ticket.pub.json,hmac.json"];
        Self::bare(folder, &[&all[..], &tickets, args].concat())
    }

    pub fn bare(folder: &Path, args: &[&str]) -> Self {
        Self::with(folder, args, &[])
    }

    pub fn with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_meshgate"))
            .arg("serve")
            .args(args)
            .envs(variables.iter().copied())
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
        let (mut admin, mut app, mut metrics) = (None, None, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                let address = address.to_owned();
                let (admin, log) = (admin.expect("where the admin service is"), Some(log));
                let app = app.unwrap_or_default();
                return Self { child, address, admin, app, metrics, log };
            } else if let Some(address) = line.strip_prefix("app on ") {
                app = Some(address.to_owned());
            } else if let Some(address) = line.strip_prefix("admin on ") {
                admin = Some(address.to_owned());
            } else if let Some(address) = line.strip_prefix("metrics on ") {
                metrics = Some(address.to_owned());
            }
        }
        child.wait().unwrap();
        panic!("it did not say where it listens: {}", log.join().unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; its exit code and log.
    pub fn wait(&mut self) -> (Option<i32>, String) {
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

pub fn issue(folder: &Path, key: &str, user: &str) -> String {
    let args = ["ticket", "issue", "--key", key, "--user", user, "--audience", AUDIENCE];
    ok(meshgate(folder, &args)).trim().to_owned()
}

/// How a secret might look in a log.
pub fn spellings(bytes: &[u8]) -> Vec<String> {
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

/// What Prometheus would read.
pub fn scrape(process: &Process, request: &str) -> String {
    let mut stream = TcpStream::connect(process.metrics.as_ref().unwrap()).unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn value(page: &str, name: &str) -> f64 {
    let line =
        page.lines().find(|line| line.strip_prefix(name).is_some_and(|r| r.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {name} in {page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Waits until a metric has a value: what counts it may come after the answer.
pub async fn becomes(process: &Process, name: &str, expected: f64) {
    soon(async {
        while value(&scrape(process, "GET /metrics"), name) != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// An authority, and certificates that it signed.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned() }
    }

    /// `NAME.pem` and `NAME.key`, for this machine and this common name.
    pub fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
