//! Redis or Valkey servers of a test's own, on free ports, in folders of their own: one, one with a
//! replica and sentinels, or a cluster.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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
        let mut server = Self::new(|port, folder| {
            let base = ["--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", ""];
            let durable = ["--appendonly", "yes", "--appendfsync", "always"];
            [&base[..], &durable, arguments].concat().iter().map(|&text| text.to_owned()).collect()
        })?;
        server.run();
        Some(server)
    }

    /// With the arguments that belong to a port and a folder; does not run yet.
    fn new(arguments: impl FnOnce(&str, &str) -> Vec<String>) -> Option<Self> {
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "no redis-server: install the package, or set MESHGATE_REDIS_SERVER"
            );
            eprintln!("skipped: no redis-server (scripts/redis says how to get one)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments = arguments(&port.to_string(), &folder.path().display().to_string());
        Some(Self { process: None, program, folder, port, arguments })
    }

    /// Starts it, again with what it had on its disk, and waits until it answers.
    pub fn run(&mut self) {
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        until(|| {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "redis-server: {ended:?}");
            self.answers()
        });
        self.process = Some(process);
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// One command; the parts of its answer, one to a line.
    pub fn ask(&self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).unwrap();
        let (mut answer, mut reader) = (String::new(), BufReader::new(stream));
        read_reply(&mut reader, &mut answer);
        answer
    }

    /// What it has on its disk, for [`Self::restore`].
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    /// While it does not run: back to what it had then.
    pub fn restore(&self, copy: &TempDir) {
        assert!(!self.runs());
        std::fs::remove_dir_all(self.folder.path()).unwrap();
        copy_folder(copy.path(), self.folder.path());
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

/// A master, a replica of it, and three sentinels who call it `games`.
pub struct RedisSentinels {
    pub servers: [RedisServer; 2],
    pub sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    pub fn start() -> Option<Self> {
        let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"])?;
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()])?;
        until(|| replica.ask("INFO replication").contains("master_link_status:up"));
        let sentinel = || {
            let mut sentinel = RedisServer::new(|port, folder| {
                let config = format!(
                    "port {port}\nbind 127.0.0.1\ndir {folder}\n\
                     sentinel monitor games 127.0.0.1 {} 2\n\
                     sentinel down-after-milliseconds games 1000\n\
                     sentinel failover-timeout games 4000\n",
                    master.port
                );
                let path = format!("{folder}/sentinel.conf");
                std::fs::write(&path, config).unwrap();
                vec![path, "--sentinel".into()]
            })?;
            sentinel.run();
            Some(sentinel)
        };
        let sentinels = (0..3).map(|_| sentinel()).collect::<Option<Vec<_>>>()?;
        // Before they know each other and the replica, they would not agree on another master.
        for sentinel in &sentinels {
            until(|| {
                let known = sentinel.ask("SENTINEL MASTER games");
                known.contains("num-other-sentinels\n2\n") && known.contains("num-slaves\n1\n")
            });
        }
        Some(Self { servers: [master, replica], sentinels })
    }

    pub fn nodes(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::address).collect()
    }
}

/// Three masters with a replica each.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    pub fn start() -> Option<Self> {
        let server = || {
            let bus = free_port().to_string();
            let timeout = ["--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
            let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            Some((RedisServer::start(&[cluster, timeout].concat())?, bus))
        };
        let (servers, buses): (Vec<_>, Vec<_>) =
            (0..6).map(|_| server()).collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let cluster = Self { servers };
        for (number, (server, bus)) in cluster.servers.iter().zip(&buses).enumerate() {
            server.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
            if number < 3 {
                let (first, last) = (number * 5462, (number * 5462 + 5461).min(16383));
                server.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            }
            cluster.servers[0].ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port));
        }
        for (number, replica) in cluster.servers.iter().enumerate().skip(3) {
            let master = cluster.servers[number - 3].ask("CLUSTER MYID");
            until(|| replica.ask(&format!("CLUSTER REPLICATE {}", master.trim())) == "OK\n");
            until(|| replica.ask("INFO replication").contains("master_link_status:up"));
        }
        for server in &cluster.servers {
            until(|| {
                let masters = server.ask("CLUSTER SLOTS");
                server.ask("CLUSTER INFO").contains("cluster_state:ok")
                    && cluster.servers.iter().all(|s| masters.contains(&s.port.to_string()))
            });
        }
        Some(cluster)
    }

    pub fn nodes(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::address).collect()
    }

    /// Which of the servers has this slot, as they see it that run.
    pub fn master_of(&self, slot: u16) -> usize {
        let asked = self.servers.iter().find(|server| server.runs()).unwrap();
        let lines = asked.ask("CLUSTER NODES");
        let line = lines.lines().find(|line| {
            line.contains("master")
                && line.split(' ').skip(8).any(|range| {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    first.parse().is_ok_and(|first: u16| first <= slot)
                        && last.parse().is_ok_and(|last: u16| slot <= last)
                })
        });
        let port = line.and_then(|line| line.split([':', '@']).nth(1)).unwrap();
        self.servers.iter().position(|server| server.port.to_string() == port).unwrap()
    }

    /// The replicas of that one.
    pub fn replica_of(&self, master: usize) -> usize {
        let id = self.servers[master].ask("CLUSTER MYID");
        let lines = self.servers[master].ask(&format!("CLUSTER REPLICAS {}", id.trim()));
        let port = lines.split([':', '@']).nth(1).unwrap();
        self.servers.iter().position(|server| server.port.to_string() == port).unwrap()
    }
}

/// Waits for a condition.
pub fn until(mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < patience, "not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A reply of RESP2.
fn read_reply(reader: &mut BufReader<TcpStream>, answer: &mut String) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (kind, rest) = line.trim_end().split_at_checked(1).unwrap_or(("", ""));
    match (kind, rest.parse::<usize>()) {
        ("*", Ok(count)) => (0..count).for_each(|_| read_reply(reader, answer)),
        ("$", Ok(length)) => {
            let mut text = vec![0; length + 2];
            reader.read_exact(&mut text).unwrap();
            answer.push_str(std::str::from_utf8(&text[..length]).unwrap());
            answer.push('\n');
        }
        _ => {
            answer.push_str(rest);
            answer.push('\n');
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
