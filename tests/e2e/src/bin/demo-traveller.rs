//! The client of `scripts/demo --redis`: logs in at one Envoy, loses its line, goes on at another one
//! with another companion behind it, and is thrown out from the first.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use meshgate_client::{Client, Credential, Error, Login, NoiseServer};
use meshgate_e2e::command;
use meshgate_e2e::player::{Player, public_key};
use meshgate_game::demo::v1::{EnterReply, EnterRequest, LookReply, MoveReply, MoveRequest};

/// Two gates for clients, two companions for operators, the first one for services, and what
/// `scripts/demo` prepared.
const USAGE: &str = "demo-traveller GATE GATE OPERATORS OPERATORS SERVICES MESHGATE \
                     PUBLIC-KEY-FILE TICKET GAME-LOG";
/// From the root of the repository, where `scripts/demo` is.
const PROTO: &str = "tests/game/proto/demo/v1/demo.proto";
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [one, two, operators_one, operators_two, services, meshgate, key, ticket, log] =
        &arguments[..]
    else {
        bail!("usage: {USAGE}")
    };
    let operate = |server: &str, arguments: &[&str]| operate(meshgate, server, arguments);
    let server = NoiseServer {
        public_key: public_key(Path::new(key))?,
        key_id: b"demo".to_vec(),
        audience: "demo".into(),
        layout: "game".into(),
    };
    let credential = Credential::Ticket(ticket.clone());
    let login = Login::Noise { server: server.clone(), credential };

    println!("at gate 1, with a ticket");
    let mut player = Player::connect(one, &login, log.into()).await?;
    let (session, user) = (hex(&player.session.session_id), player.session.user.clone());
    println!("  session {session} of {user:?}, generation {}", player.session.generation);
    let enter = EnterRequest { name: "ann".into() };
    let entered: EnterReply = player.call("Enter", command::ENTER, &enter).await?;
    let player_id = entered.player.context("a player")?.id;
    let token = player.session.resume.clone().context("a resume token")?;

    println!("\nthe line is cut");
    drop(player);
    let listed = wait_for(|| operate(operators_two, &["session", "list"]), "away")?;
    println!("  companion 2 says:\n{}", indented(&listed));

    println!("\nat gate 2, with the token of gate 1: no ticket, new keys, one round trip");
    let resume = Login::ResumeNoise { server: server.clone(), token: token.clone() };
    let mut player = Player::connect(two, &resume, log.into()).await?;
    let reply = player.session.clone();
    println!(
        "  session {} of {:?}, generation {}; calls up to generation {} without a reply are lost",
        hex(&reply.session_id),
        reply.user,
        reply.generation,
        reply.lost_up_to
    );
    let step = MoveRequest { player_id, dx: 3, dy: -1 };
    let _: MoveReply = player.call("Move", command::MOVE, &step).await?;
    let look: LookReply = player.call("Look", command::LOOK, &()).await?;
    println!("the hall has {} player(s)", look.players.len());

    println!("\nthe token of gate 1 again");
    let again = Login::ResumeNoise { server, token };
    match Client::connect(one.as_str(), &again).await {
        Err(Error::Refused { status, text }) => println!("  refused, status {status}: {text}"),
        Err(error) => return Err(error.into()),
        Ok(_) => bail!("an old token was taken"),
    }

    println!("\na service pushes to {user:?} through companion 1");
    let to = ["push", "--session", &session, "--command", "1206", "--proto", PROTO];
    let what = ["--type", "demo.v1.Line", "--message", r#"{"text": "welcome back"}"#];
    let pushed = operate(services, &[&to[..], &what[..]].concat())?;
    println!("  {}", pushed.trim());
    player.hear().await?;

    println!("\ncompanion 1 throws {user:?} out, who is at gate 2");
    let began = Instant::now();
    operate(operators_one, &["session", "kick", "--user", &user, "--reason", "good night"])?;
    let goodbye = tokio::time::timeout(PATIENCE, player.goodbye()).await??;
    println!("  goodbye: {goodbye:?}, {} ms after the command began", began.elapsed().as_millis());
    Ok(())
}

/// Runs an operator's command at a companion; what it prints.
fn operate(meshgate: &str, server: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(meshgate).args(arguments).args(["--server", server]).output()?;
    if !output.status.success() {
        bail!("meshgate {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Asks until the answer has this word.
fn wait_for(ask: impl Fn() -> Result<String>, word: &str) -> Result<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask()?;
        if answer.contains(word) {
            return Ok(answer);
        }
        if Instant::now() > until {
            bail!("{word:?} never came:\n{answer}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
