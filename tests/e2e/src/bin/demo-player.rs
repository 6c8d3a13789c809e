//! The demo's private client: logs in by Noise, plays a short session, and shows side by side
//! what went over the wire and what the service saw.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use meshgate_client::{Connection, Credential, Flags, Frame, Login, NoiseServer};
use meshgate_e2e::command;
use meshgate_game::demo::v1::{
    EnterReply, EnterRequest, Line, LookReply, MoveReply, MoveRequest, SayRequest,
};
use prost::Message;

/// Where the demo listens, and what `scripts/demo` prepared.
const USAGE: &str = "demo-player ADDRESS PUBLIC-KEY-FILE TICKET GAME-LOG";

/// How long the service's log may lag behind.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, key, ticket, log] = &arguments[..] else { bail!("usage: {USAGE}") };
    let server = NoiseServer {
        public_key: public_key(Path::new(key))?,
        key_id: b"demo".to_vec(),
        audience: "demo".into(),
        layout: "game".into(),
    };
    let login = Login::Noise { server, credential: Credential::Ticket(ticket.clone()) };
    let mut player = Player::connect(address, &login, log.into()).await?;
    player.play().await
}

struct Player {
    connection: Connection,
    /// What the game printed so far was shown up to here.
    log: PathBuf,
    shown: usize,
    sequence: u32,
}

impl Player {
    async fn connect(address: &str, login: &Login, log: PathBuf) -> Result<Self> {
        let mut connection = Connection::connect(address).await?;
        let reply = connection.login(login).await?.context("a login has a reply")?;
        println!("logged in as {:?}; every frame is sealed from here on", reply.user);
        let shown = fs::read_to_string(&log)?.len();
        Ok(Self { connection, log, shown, sequence: 0 })
    }

    async fn play(&mut self) -> Result<()> {
        let enter = EnterRequest { name: "ann".into() };
        let entered: EnterReply = self.call("Enter", command::ENTER, &enter).await?;
        let player_id = entered.player.context("a player")?.id;
        let step = MoveRequest { player_id, dx: 3, dy: -1 };
        let _: MoveReply = self.call("Move", command::MOVE, &step).await?;
        let listen = self.send(command::LISTEN, Flags(0), &()).await?;
        self.show("Listen (a stream)", &listen)?;
        self.say(&SayRequest { player_id, text: "anybody here?".into() }).await?;
        self.hear().await?;
        let look: LookReply = self.call("Look", command::LOOK, &()).await?;
        println!(
            "the hall has {} player(s), the last words were {:?}",
            look.players.len(),
            look.lines.last().map_or("", |line| &line.text)
        );
        Ok(())
    }

    async fn call<R: Message + Default + std::fmt::Debug>(
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

    async fn say(&mut self, message: &SayRequest) -> Result<()> {
        let sent = self.send(command::SAY, Flags::ONE_WAY, message).await?;
        self.show("Say (one-way)", &sent)
    }

    /// The stream's next message.
    async fn hear(&mut self) -> Result<()> {
        let push = self.connection.receive().await?.context("the connection closed")?;
        if !push.flags.has(Flags::PUSH) {
            bail!("status {}: {}", push.status, String::from_utf8_lossy(&push.body));
        }
        let line = Line::decode(&push.body[..])?;
        println!("  the stream pushed {line:?} with sequence {}", push.sequence);
        Ok(())
    }

    async fn send(
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
    fn show(&mut self, name: &str, sent: &[u8]) -> Result<()> {
        let (header, body) = sent.split_at(meshgate_client::HEADER.min(sent.len()));
        println!("\n{name}");
        println!("  on the wire      {} | {} sealed bytes", hex(header), body.len());
        println!("                   {}…", hex(&body[..body.len().min(24)]));
        println!("  the service saw  {}", self.next_line()?);
        Ok(())
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

fn public_key(path: &Path) -> Result<[u8; 32]> {
    let text = fs::read_to_string(path)?;
    let document: serde_json::Value =
        serde_json::from_str(&text[text.find('{').context("no key in the file")?..])?;
    let key = BASE64_STANDARD.decode(document["key"].as_str().context("no key")?)?;
    key.try_into().ok().context("a key has 32 bytes")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
