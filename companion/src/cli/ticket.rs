//! `meshgate ticket`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::masters::MasterArgs;
use super::{files, ring_file};
use crate::config::duration;
use crate::domain::credential::{Identity, MAX_CREDENTIAL_BYTES};
use crate::domain::key::{Key, Kind, hex};
use crate::domain::ticket::{Issuer, Payload};
use crate::domain::time::{Clock as _, SystemClock};

#[derive(Subcommand)]
pub enum Ticket {
    /// Sign a ticket and print it
    Issue(Issue),
}

impl Ticket {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Issue(issue) => issue.run(),
        }
    }
}

#[derive(Args)]
pub struct Issue {
    /// A key of kind ticket-ed25519 or ticket-hmac
    #[arg(
        long,
        value_name = "FILE",
        env = "MESHGATE_TICKET_KEY",
        required_unless_present = "ring",
        conflicts_with = "ring"
    )]
    key: Option<PathBuf>,
    /// A key ring: its current ticket key signs, the Ed25519 one if there are two
    #[arg(long, value_name = "FILE")]
    ring: Option<PathBuf>,
    #[command(flatten)]
    masters: MasterArgs,
    /// Who the ticket is for
    #[arg(long)]
    user: String,
    /// What the ticket is good for: the `audience` of the filter's configuration
    #[arg(long)]
    audience: String,
    /// How long the ticket is good
    #[arg(long, value_parser = duration::parse, default_value = "1h", value_name = "DURATION")]
    ttl: Duration,
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A claim that goes to the services behind the filter; may be given several times
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// The ticket's own id [default: random]
    #[arg(long)]
    jti: Option<String>,
    /// The ticket works a single time, whatever the companion's policy
    #[arg(long)]
    once: bool,
}

impl Issue {
    fn run(self) -> anyhow::Result<()> {
        let key = match (&self.key, &self.ring) {
            (_, Some(ring)) => current_key(ring, &self.masters)?,
            (Some(key), None) => files::read_key(key)?,
            // The command line asks for one of the two.
            (None, None) => anyhow::bail!("give --key or --ring"),
        };
        let issuer = Issuer::new(&key)?;
        let now = SystemClock.now();
        let jti = match self.jti {
            Some(jti) => jti,
            None => {
                let mut random = [0; 16];
                getrandom::fill(&mut random).context("no randomness")?;
                hex(&random)
            }
        };
        let claims: BTreeMap<_, _> = self.claims.into_iter().collect();
        let identity = Identity { user: self.user, roles: self.roles, claims }
            .checked()
            .context("a companion would refuse this ticket")?;
        let ticket = issuer.issue(Payload {
            kid: issuer.key_id().to_owned(),
            alg: issuer.algorithm(),
            sub: identity.user,
            aud: self.audience,
            iat: now.seconds(),
            nbf: now.seconds(),
            exp: now.after(self.ttl).seconds(),
            jti,
            roles: identity.roles,
            claims: identity.claims,
            once: self.once,
        });
        anyhow::ensure!(
            ticket.len() <= MAX_CREDENTIAL_BYTES,
            "the ticket would have {} bytes, more than the {MAX_CREDENTIAL_BYTES} that a companion \
             reads: give it fewer claims",
            ticket.len()
        );
        println!("{ticket}");
        Ok(())
    }
}

fn current_key(path: &Path, masters: &MasterArgs) -> anyhow::Result<Key> {
    let ring = ring_file::read(path)?;
    let record = ring
        .current(Kind::TicketEd25519)
        .or_else(|| ring.current(Kind::TicketHmac))
        .with_context(|| {
            let path = path.display();
            format!("{path} has no ticket key: `meshgate key rotate ticket-ed25519 --ring {path}`")
        })?;
    Ok(record.open(&masters.read()?)?)
}

fn claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no claim: write NAME=VALUE")),
    }
}
