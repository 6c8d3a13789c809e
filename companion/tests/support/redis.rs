//! A Redis or Valkey server of a test's own, on a free port, in a folder of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct RedisServer {
    process: Option<Child>,
    program: PathBuf,
    folder: TempDir,
    pub port: u16,
    arguments: Vec<String>,
}

impl RedisServer {
    /// `None`, and a word about it, where there is no server program. In CI that is a failure.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "no redis-server: install the package, or set MESHGATE_REDIS_SERVER"
            );
            eprintln!("skipped: no redis-server (scripts/redis says how to get one)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { process: None, program, folder, port, arguments };
        server.run();
        Some(server)
    }

    /// Starts it, again with what it had on its disk, and waits until it answers.
    pub fn run(&mut self) {
        let folder = self.folder.path().display().to_string();
        let port = self.port.to_string();
        let base = ["--port", &port, "--bind", "127.0.0.1", "--dir", &folder, "--save", ""];
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let mut process = Command::new(&self.program)
            .args(base)
            .args(durable)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let patience = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < patience, "redis-server: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
    }

    /// Any answer will do, also that a password is needed.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0; 5];
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && matches!(&answer, b"+PONG" | b"-NOAU")
    }

    /// Without a word to anybody.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// `STOP` and `CONT`: it hangs, and goes on.
    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("MESHGATE_REDIS_SERVER") {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|program| program.is_file())
}
