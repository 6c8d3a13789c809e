//! `meshgate config`

use clap::Subcommand;

use crate::config::reference::reference;

#[derive(Subcommand)]
pub enum Config {
    /// Print the reference of the companion's configuration, Markdown
    Reference,
}

impl Config {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Reference => print!("{}", reference()),
        }
        Ok(())
    }
}
