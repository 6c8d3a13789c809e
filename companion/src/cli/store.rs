//! `meshgate store`

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, IsTerminal as _, Write, stdin, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::block_on;
use crate::config::load::{Override, load};
use crate::config::settings::{self, store};
use crate::domain::time::{Clock as _, SystemClock};
use crate::store::Store;
use crate::store::checked::Checked;
use crate::store::lines::{Carried, export, import};
use crate::store::redb::RedbStore;
use crate::store::redis::RedisStore;

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Say whether everything in a store fits together; mend a file that a crash left
    Check(Check),
    /// Write a store as text, one JSON object a line
    Export(Export),
    /// Read such a text into an empty store of any kind
    Import(Import),
}

impl StoreCommand {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Check(check) => check.run(),
            Self::Export(export) => export.run(),
            Self::Import(import) => import.run(),
        }
    }
}

/// Which store: as `meshgate serve` would find it
#[derive(Args)]
struct Which {
    /// The companion's configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "MESHGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Override a key of it, such as `--set store.kind=redis`
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// `store.path`: the file of a redb store
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("`{text}`: write KEY=VALUE"))?;
    Ok((pair.0.trim().to_owned(), pair.1.to_owned()))
}

impl Which {
    fn settings(&self) -> anyhow::Result<settings::Store> {
        let text = match &self.config {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?,
            ),
            None => None,
        };
        let file = self.config.as_deref().zip(text.as_deref());
        let path = self.store.iter().map(|path| Override {
            from: "--store".into(),
            path: "store.path".into(),
            value: path.display().to_string(),
        });
        let set = self.set.iter().map(|(path, value)| Override {
            from: "--set".into(),
            path: path.clone(),
            value: value.clone(),
        });
        let overrides: Vec<_> = path.chain(set).collect();
        let document = load(file, |name| std::env::var(name).ok(), &overrides)?;
        Ok(store(&document.store)?)
    }

    /// A file has to be there unless it may be `new`.
    async fn open(&self, new: bool) -> anyhow::Result<Arc<dyn Store>> {
        Ok(match self.settings()? {
            settings::Store::Redb(path) => {
                if !new && !path.exists() {
                    bail!(
                        "{}: no such file; name the store by --store or --config",
                        path.display()
                    );
                }
                Arc::new(RedbStore::open(&path)?)
            }
            settings::Store::Redis(redis) => Arc::new(redis_store(&redis).await?),
        })
    }
}

/// One that works: waiting for it is no use here.
async fn redis_store(settings: &crate::store::redis::RedisSettings) -> anyhow::Result<RedisStore> {
    let store = RedisStore::open(settings.clone()).await?;
    if !store.healthy() {
        bail!("{}: the server does not work", settings.place);
    }
    Ok(store)
}

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    which: Which,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        let checked = match self.which.settings()? {
            settings::Store::Redb(path) => RedbStore::check(&path)?,
            settings::Store::Redis(redis) => {
                block_on(async { Ok(redis_store(&redis).await?.check().await?) })?
            }
        };
        let Checked { sessions, away, credentials, memberships, problems } = &checked;
        if self.json {
            let said = json!({
                "sessions": sessions, "away": away, "used_credentials": credentials,
                "memberships": memberships, "problems": problems,
            });
            println!("{said:#}");
        } else {
            println!(
                "{sessions} sessions, {away} of them away; {credentials} used credentials, \
                 {memberships} memberships"
            );
            problems.iter().for_each(|problem| println!("problem: {problem}"));
        }
        if !problems.is_empty() {
            bail!(
                "the store does not fit together; `meshgate store export`, and import into a new \
                 one, keeps what can be read"
            );
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    which: Which,
    /// Where to [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Export {
    fn run(self) -> anyhow::Result<()> {
        let mut out: Box<dyn Write> = match &self.out {
            Some(path) => Box::new(BufWriter::new(create(path)?)),
            None => Box::new(BufWriter::new(stdout().lock())),
        };
        let carried = block_on(async {
            let store = self.which.open(false).await?;
            Ok(export(store.as_ref(), &mut out).await?)
        })?;
        say("written", carried);
        Ok(())
    }
}

/// Users' names and addresses are nobody else's business.
fn create(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    which: Which,
    /// What `store export` wrote; `-` for standard input
    #[arg(value_name = "FILE")]
    from: PathBuf,
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        let now = SystemClock.now();
        let carried = block_on(async {
            let store = self.which.open(true).await?;
            if self.from == Path::new("-") {
                if stdin().is_terminal() {
                    eprintln!("reading from the terminal");
                }
                return Ok(import(store.as_ref(), stdin().lock(), now).await?);
            }
            let name = self.from.display();
            let file = File::open(&self.from).with_context(|| format!("cannot read {name}"))?;
            let carried = import(store.as_ref(), BufReader::new(file), now).await;
            carried.with_context(|| name.to_string())
        })?;
        say("read", carried);
        Ok(())
    }
}

fn say(done: &str, Carried { sessions, credentials, expired }: Carried) {
    eprintln!("{done}: {sessions} sessions, {credentials} used credentials");
    if expired > 0 {
        eprintln!("left out, because they have expired: {expired}");
    }
}
