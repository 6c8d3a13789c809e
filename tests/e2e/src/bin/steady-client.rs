//! A private client that stays: logs in once, then makes a call for every line that it reads, and says
//! how each went. So a script can change things under an open connection.
//!
//! Prints `ready`; then for each line `user NAME` (who the service takes it for), `status CODE`, or
//! `closed REASON`, after which it ends.

use std::path::Path;

use anyhow::{Result, bail};
use meshgate_client::{CallError, Client, Credential, Login, NoiseServer};
use meshgate_e2e::command;
use meshgate_e2e::player::public_key;
use meshgate_game::demo::v1::WhoamiReply;
use prost::Message;
use tokio::task::block_in_place;

const USAGE: &str = "steady-client ADDRESS [TICKET [PUBLIC-KEY-FILE KEY-ID]]";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ticket = |ticket: &String| Credential::Ticket(ticket.clone());
    let (address, login) = match &arguments[..] {
        [address] => (address, Login::None),
        [address, credential] => (address, Login::Ticket(ticket(credential))),
        [address, credential, file, key_id] => {
            let server = NoiseServer {
                public_key: public_key(Path::new(file))?,
                key_id: key_id.clone().into_bytes(),
                audience: "demo".into(),
                layout: "game".into(),
            };
            (address, Login::Noise { server, credential: ticket(credential) })
        }
        _ => bail!("usage: {USAGE}"),
    };
    let client = Client::connect(address.as_str(), &login).await?;
    println!("ready");
    let mut lines = std::io::stdin().lines();
    while block_in_place(|| lines.next()).transpose()?.is_some() {
        match client.call(command::WHOAMI, Vec::new()).await {
            Ok(reply) => {
                let who = WhoamiReply::decode(&reply[..])?.metadata;
                println!("user {}", who.get("x-meshgate-user").map_or("-", String::as_str));
            }
            Err(CallError::Status { status, .. }) => println!("status {status}"),
            Err(error) => {
                println!("closed {error}");
                return Ok(());
            }
        }
    }
    Ok(())
}
