//! `meshgate key`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::masters::MasterArgs;
use super::{files, ring_file};
use crate::config::duration;
use crate::domain::key::Kind;
use crate::domain::ring::{Record, Rotated, State};
use crate::domain::time::{Clock as _, SystemClock};

const RELOAD: &str = "the companion takes it at SIGHUP";

/// The ring is a file of keys, each sealed by a master key. The companion accepts all of them at
/// once (`keys.ring`). To rotate without losing a login: `rotate` (a next key), SIGHUP, give the
/// next key to clients or issuers, `rotate` (switch), and `retire` the old one when nobody uses it.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// List the keys and their states
    List(List),
    /// Make a kind's next key; or switch to it, if there is one
    Rotate(Rotate),
    /// Remove a key: nobody logs in with it any more
    Retire(Retire),
    /// Print a key's public part, a key file for clients or checkers
    Public(Public),
    /// Take in a key file, as current if there is none of its kind, else as next
    Import(Import),
    /// Seal all keys by the first master key that is given
    Rewrap(Rewrap),
}

impl KeyCommand {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(),
            Self::Rotate(rotate) => rotate.run(),
            Self::Retire(retire) => retire.run(),
            Self::Public(public) => public.run(),
            Self::Import(import) => import.run(),
            Self::Rewrap(rewrap) => rewrap.run(),
        }
    }
}

#[derive(Args)]
struct RingArg {
    /// The key ring
    #[arg(long = "ring", value_name = "FILE", env = "MESHGATE_KEY_RING")]
    path: PathBuf,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    ring: RingArg,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let ring = ring_file::read(&self.ring.path)?;
        if self.json {
            let row = |record: &Record| {
                json!({
                    "id": record.id,
                    "kind": record.kind.name(),
                    "state": record.state.name(),
                    "created_at": record.created_at,
                    "master": record.master,
                })
            };
            let rows: Vec<_> = ring.records().iter().map(row).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
            return Ok(());
        }
        let now = SystemClock.now().seconds();
        let line = |cells: [&str; 5]| {
            let [id, kind, state, age, master] = cells;
            println!("{}", format!("{id:<24} {kind:<16} {state:<8} {age:<8} {master}").trim_end());
        };
        line(["KEY", "KIND", "STATE", "AGE", "MASTER"]);
        for record in ring.records() {
            let age = duration::show(Duration::from_secs(now.saturating_sub(record.created_at)));
            line([&record.id, record.kind.name(), record.state.name(), &age, &record.master]);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    /// The companion's static keys of Noise logins
    Noise,
    /// Sign tickets, Ed25519
    TicketEd25519,
    /// Sign and check tickets, HMAC-SHA256
    TicketHmac,
}

#[derive(Args)]
pub struct Rotate {
    /// Which keys
    kind: Purpose,
    #[command(flatten)]
    ring: RingArg,
    #[command(flatten)]
    masters: MasterArgs,
    /// The new key's name [default: a short hash]
    #[arg(long)]
    id: Option<String>,
}

impl Rotate {
    fn run(self) -> anyhow::Result<()> {
        let kind = match self.kind {
            Purpose::Noise => Kind::Noise,
            Purpose::TicketEd25519 => Kind::TicketEd25519,
            Purpose::TicketHmac => Kind::TicketHmac,
        };
        let masters = self.masters.read()?;
        let rotated = ring_file::change(&self.ring.path, |ring| {
            Ok(ring.rotate(&masters, kind, self.id, SystemClock.now())?)
        })?;
        match rotated {
            Rotated::First(id) => eprintln!("{} key `{id}` is current; {RELOAD}", kind.name()),
            Rotated::Prepared(id) => eprintln!(
                "{} key `{id}` is next; {RELOAD}. Rotate again to switch to it",
                kind.name()
            ),
            Rotated::Switched { current, old } => eprintln!(
                "{} key `{current}` is current; `{}` is accepted until it is retired",
                kind.name(),
                old.unwrap_or_default()
            ),
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Retire {
    /// The key's id
    id: String,
    #[command(flatten)]
    ring: RingArg,
    /// Also the current key
    #[arg(long)]
    force: bool,
}

impl Retire {
    fn run(self) -> anyhow::Result<()> {
        ring_file::change(&self.ring.path, |ring| Ok(ring.retire(&self.id, self.force)?))?;
        eprintln!("key `{}` is gone; {RELOAD}", self.id);
        Ok(())
    }
}

#[derive(Args)]
pub struct Public {
    /// The key's id
    id: String,
    #[command(flatten)]
    ring: RingArg,
    #[command(flatten)]
    masters: MasterArgs,
}

impl Public {
    fn run(self) -> anyhow::Result<()> {
        let ring = ring_file::read(&self.ring.path)?;
        let key = ring.find(&self.id)?.open(&self.masters.read()?)?;
        let public = key.public().with_context(|| {
            format!("key `{}` is of kind {}, which has no public part", self.id, key.kind().name())
        })?;
        print!("{}", public.to_json().as_str());
        Ok(())
    }
}

#[derive(Args)]
pub struct Import {
    /// A key file, as `meshgate keygen` makes it; remove it afterwards
    #[arg(value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    ring: RingArg,
    #[command(flatten)]
    masters: MasterArgs,
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        let key = files::read_key(&self.key)?;
        let masters = self.masters.read()?;
        let state = ring_file::change(&self.ring.path, |ring| {
            let taken = ring.current(key.kind()).is_some();
            let state = if taken { State::Next } else { State::Current };
            ring.add(&masters, &key, state, SystemClock.now())?;
            Ok(state)
        })?;
        eprintln!("{} key `{}` is {}; {RELOAD}", key.kind().name(), key.id(), state.name());
        Ok(())
    }
}

#[derive(Args)]
pub struct Rewrap {
    #[command(flatten)]
    ring: RingArg,
    #[command(flatten)]
    masters: MasterArgs,
}

impl Rewrap {
    fn run(self) -> anyhow::Result<()> {
        let masters = self.masters.read()?;
        let moved = ring_file::change(&self.ring.path, |ring| Ok(ring.rewrap(&masters)?))?;
        eprintln!("{moved} keys are sealed by `{}` now, as are the others", masters.sealing());
        Ok(())
    }
}
