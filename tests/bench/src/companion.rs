//! A companion with keys of its own, and tickets that it takes.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::BytesMut;
use hmac::{Hmac, KeyInit, Mac};
use meshgate_client::{
    Credential, Frame, Handshake, LoginReply, NoiseServer, ResumeToken, Seal, command,
};
use serde_json::json;
use sha2::Sha256;

use crate::load::connect;
use crate::process::{PATIENCE, Process};

pub const AUDIENCE: &str = "bench";
pub const LAYOUT: &str = "game";
const NOISE: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
const NOISE_KEY_ID: &str = "k1";
const TICKET_KEY_ID: &str = "t1";
/// How long a ticket of the bench is good, in seconds.
const TICKET_LIFE: u64 = 3600;

/// A running companion.
pub struct Companion {
    pub process: Process,
    pub address: SocketAddr,
    /// Where services call.
    pub app: SocketAddr,
    /// Where operators call.
    pub admin: SocketAddr,
    pub visitors: Visitors,
    folder: tempfile::TempDir,
}

/// Logs users in, each with a ticket of its own.
#[derive(Clone)]
pub struct Visitors {
    server: NoiseServer,
    ticket_key: [u8; 32],
    count: Arc<AtomicU64>,
}

impl Companion {
    pub fn start(binary: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let noise = snow::Builder::new(NOISE.parse()?).generate_keypair()?;
        let ticket_key = snow::Builder::new(NOISE.parse()?).generate_keypair()?.private;
        let key = |name: &str, id: &str, kind: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            let key = json!({ "id": id, "kind": kind, "key": BASE64_STANDARD.encode(bytes) });
            std::fs::write(&path, key.to_string()).map(|()| path)
        };
        let noise_file = key("noise.json", NOISE_KEY_ID, "noise", &noise.private)?;
        let ticket_file = key("ticket.json", TICKET_KEY_ID, "ticket-hmac", &ticket_key)?;
        let (app, admin) = (free_address()?, free_address()?);
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error"])
            .args(["--app-listen", &app.to_string(), "--admin-listen", &admin.to_string()])
            .arg("--store")
            .arg(folder.path().join("store.redb"))
            .arg("--noise-key")
            .arg(noise_file)
            .arg("--ticket-key")
            .arg(ticket_file)
            .stderr(Stdio::null());
        let (process, address) = Process::listening(&mut command)?;
        let server = NoiseServer {
            public_key: noise.public.try_into().ok().context("a public key has 32 bytes")?,
            key_id: NOISE_KEY_ID.into(),
            audience: AUDIENCE.into(),
            layout: LAYOUT.into(),
        };
        let ticket_key = ticket_key.try_into().ok().context("a key has 32 bytes")?;
        let visitors = Visitors { server, ticket_key, count: Arc::default() };
        Ok(Self { process, address, app, admin, visitors, folder })
    }

    /// Bytes of its store on the disk.
    pub fn disk(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(self.folder.path().join("store.redb"))?.len())
    }
}

impl Visitors {
    /// A ticket for a user who was never here (`companion/src/domain/ticket.rs` has the form).
    pub fn ticket(&self) -> Credential {
        Credential::Ticket(self.ticket_text())
    }

    pub fn ticket_text(&self) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let payload = json!({
            "kid": TICKET_KEY_ID,
            "alg": "HS256",
            "sub": format!("user{number}"),
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now - 60,
            "exp": now + TICKET_LIFE,
            "jti": number.to_string(),
        });
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload.to_string());
        let signed = format!("mgt1.{payload}");
        // A MAC takes keys of any length.
        let mac = Hmac::<Sha256>::new_from_slice(&self.ticket_key).expect("a key");
        let signature = mac.chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Logs in as soon as the filter has reached the companion.
    pub fn first_login(&self, address: SocketAddr) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.login(&mut connect(address)?) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Comes back by Noise; gives the server's reply. The token stays good until a frame follows.
    pub fn resume(&self, stream: &mut TcpStream, token: &ResumeToken) -> io::Result<LoginReply> {
        let started = Handshake::resume(&self.server, token).map_err(io::Error::other)?;
        Ok(Self::shake_hands(stream, started)?.0)
    }

    /// Logs a new user in by Noise; gives the client's seal and the server's.
    pub fn login(&self, stream: &mut TcpStream) -> io::Result<(LoginReply, Seal, Seal)> {
        let started = Handshake::start(&self.server, &self.ticket()).map_err(io::Error::other)?;
        Self::shake_hands(stream, started)
    }

    fn shake_hands(
        stream: &mut TcpStream,
        (handshake, body): (Handshake, Vec<u8>),
    ) -> io::Result<(LoginReply, Seal, Seal)> {
        io::Write::write_all(stream, &Frame::request(command::LOGIN, 0, body).encode())?;
        let mut received = BytesMut::zeroed(0);
        loop {
            if let Some(frame) = Frame::decode(&mut received).map_err(io::Error::other)? {
                if frame.status != 0 {
                    let text = String::from_utf8_lossy(&frame.body).into_owned();
                    return Err(io::Error::other(format!("status {}: {text}", frame.status)));
                }
                return handshake.finish(&frame.body).map_err(io::Error::other);
            }
            let mut part = [0; 4096];
            match io::Read::read(stream, &mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received.extend_from_slice(&part[..count]),
            }
        }
    }
}

/// Where nobody listens now.
fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}
