//! A player as the demos show one: each frame beside what the service saw of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use meshgate_client::{Connection, Flags, Frame, Login, LoginReply};
use meshgate_game::demo::v1::{Line, SayRequest};
use prost::Message;

use crate::command;

/// How long the service's log may lag behind.
const PATIENCE: Duration = Duration::from_secs(10);

/// A player at the demo's game.
pub struct Player {
    pub session: LoginReply,
    connection: Connection,
    /// What the game printed so far was shown up to here.
    log: PathBuf,
    shown: usize,
    sequence: u32,
}

impl Player {
    /// Logs in, or comes back.
    pub async fn connect(address: &str, login: &Login, log: PathBuf) -> Result<Self> {
        let mut connection = Connection::connect(address).await?;
        let session = connection.login(login).await?.context("a login has a reply")?;
        let shown = fs::read_to_string(&log)?.len();
        Ok(Self { session, connection, log, shown, sequence: 0 })
    }

    /// Calls, and shows what went over the wire beside what the service saw.
    pub async fn call<R: Message + Default + std::fmt::Debug>(
        &mut self,
        name: &str,
        command: u32,
        message: &impl Message,
    ) -> Result<R> {
        let sent = self.send(command, Flags(0), message).await?;
        let reply = self.connection.receive().await?.context("the connection closed")?;
        if reply.status != 0 {
            bail!("status {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        let answer = R::decode(&reply.body[..])?;
        self.show(name, &sent)?;
        println!("  the client got   {answer:?}");
        Ok(answer)
    }

    pub async fn say(&mut self, message: &SayRequest) -> Result<()> {
        let sent = self.send(command::SAY, Flags::ONE_WAY, message).await?;
        self.show("Say (one-way)", &sent)
    }

    /// The next message that the client gets unasked: of a stream, or pushed by a service.
    pub async fn hear(&mut self) -> Result<()> {
        let push = self.connection.receive().await?.context("the connection closed")?;
        if !push.flags.has(Flags::PUSH) {
            bail!("status {}: {}", push.status, String::from_utf8_lossy(&push.body));
        }
        let line = Line::decode(&push.body[..])?;
        println!("  the client hears {line:?} with sequence {}", push.sequence);
        Ok(())
    }

    pub async fn send(
        &mut self,
        command: u32,
        flags: Flags,
        message: &impl Message,
    ) -> Result<Vec<u8>> {
        self.sequence += 1;
        let frame = Frame::request(command, self.sequence, message.encode_to_vec());
        let bytes = self.connection.sender.encode(&Frame { flags, ..frame });
        self.connection.send_raw(&bytes).await?;
        Ok(bytes)
    }

    /// The frame as it was sent, and the line that the game printed for it.
    pub fn show(&mut self, name: &str, sent: &[u8]) -> Result<()> {
        let (header, body) = sent.split_at(meshgate_client::HEADER.min(sent.len()));
        println!("\n{name}");
        println!("  on the wire      {} | {} sealed bytes", hex(header), body.len());
        println!("                   {}…", hex(&body[..body.len().min(24)]));
        println!("  the service saw  {}", self.next_line()?);
        Ok(())
    }

    /// The frame that ends the connection, and its text.
    pub async fn goodbye(&mut self) -> Result<String> {
        while let Some(frame) = self.connection.receive().await? {
            if frame.command == command::GOODBYE {
                return Ok(String::from_utf8_lossy(&frame.body).into_owned());
            }
        }
        bail!("the connection closed without a goodbye")
    }

    fn next_line(&mut self) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&self.log)?;
            if let Some((line, _)) = log.get(self.shown..).and_then(|new| new.split_once('\n')) {
                self.shown += line.len() + 1;
                return Ok(line.to_owned());
            }
            if Instant::now() > until {
                bail!("the game printed nothing to {}", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Of a file that `meshgate keygen noise` printed.
pub fn public_key(path: &Path) -> Result<[u8; 32]> {
    let text = fs::read_to_string(path)?;
    let document: serde_json::Value =
        serde_json::from_str(&text[text.find('{').context("no key in the file")?..])?;
    let key = BASE64_STANDARD.decode(document["key"].as_str().context("no key")?)?;
    key.try_into().ok().context("a key has 32 bytes")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
