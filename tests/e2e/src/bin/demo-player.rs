//! The demo's private client: logs in by Noise, plays a short session, and shows side by side
//! what went over the wire and what the service saw.

use std::path::Path;

use anyhow::{Context, Result, bail};
use meshgate_client::{Credential, Flags, Login, NoiseServer};
use meshgate_e2e::command;
use meshgate_e2e::player::{Player, public_key};
use meshgate_game::demo::v1::{
    EnterReply, EnterRequest, LookReply, MoveReply, MoveRequest, SayRequest,
};

/// Where the demo listens, and what `scripts/demo` prepared.
const USAGE: &str = "demo-player ADDRESS PUBLIC-KEY-FILE TICKET GAME-LOG";

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
    println!("logged in as {:?}; every frame is sealed from here on", player.session.user);
    play(&mut player).await
}

async fn play(player: &mut Player) -> Result<()> {
    let enter = EnterRequest { name: "ann".into() };
    let entered: EnterReply = player.call("Enter", command::ENTER, &enter).await?;
    let player_id = entered.player.context("a player")?.id;
    let step = MoveRequest { player_id, dx: 3, dy: -1 };
    let _: MoveReply = player.call("Move", command::MOVE, &step).await?;
    let listen = player.send(command::LISTEN, Flags(0), &()).await?;
    player.show("Listen (a stream)", &listen)?;
    player.say(&SayRequest { player_id, text: "anybody here?".into() }).await?;
    player.hear().await?;
    let look: LookReply = player.call("Look", command::LOOK, &()).await?;
    println!(
        "the hall has {} player(s), the last words were {:?}",
        look.players.len(),
        look.lines.last().map_or("", |line| &line.text)
    );
    Ok(())
}
