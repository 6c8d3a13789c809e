//! `meshgate token`

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use crate::domain::token::{Tokens, generate, is_name};

#[derive(Subcommand)]
pub enum Token {
    /// Make a bearer token: print it, and add its hash to the companion's file
    New(New),
}

impl Token {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(),
        }
    }
}

/// The token is printed once and kept nowhere. The companion reads the file (`admin.tokens`) at its
/// start and at SIGHUP; a token is taken back by removing its line.
#[derive(Args)]
pub struct New {
    /// Whose it is: audit lines show it
    #[arg(long)]
    name: String,
    /// The companion's file of tokens; made if it is not there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl New {
    fn run(self) -> anyhow::Result<()> {
        let Self { name, out } = self;
        ensure!(
            is_name(&name),
            "`{name}` is no name: 1 to 64 printable ASCII characters without spaces, not `#` first"
        );
        let path = out.display();
        let before = match fs::read_to_string(&out) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        };
        let new = generate(&name).context("no randomness")?;
        let break_line = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        let added = format!("{break_line}{}", new.line);
        // What the companion would refuse is not written.
        Tokens::parse(&format!("{before}{added}")).with_context(|| path.to_string())?;
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&out)
            .and_then(|mut file| file.write_all(added.as_bytes()).and_then(|()| file.sync_all()))
            .with_context(|| format!("cannot write {path}"))?;
        eprintln!("token `{name}` added to {path}; the companion takes it at SIGHUP");
        println!("{}", *new.token);
        Ok(())
    }
}
