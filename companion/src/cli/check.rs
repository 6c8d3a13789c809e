//! `meshgate check`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use meshgate_filter::config::{Config, Direction, schema};
use meshgate_filter::protocol::layout::Layout;

/// Reads filter configurations (the plugin's JSON document: `pluginConfig` of a WasmPlugin) as the
/// filter would, and says what is wrong, where, and what would be right.
#[derive(Args)]
pub struct Check {
    /// The documents; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "schema")]
    files: Vec<PathBuf>,
    /// The files are frame layouts alone
    #[arg(long)]
    layout: bool,
    /// Print the configuration's JSON Schema
    #[arg(long, conflicts_with_all = ["files", "layout"])]
    schema: bool,
}

impl Check {
    pub fn run(self) -> anyhow::Result<()> {
        if self.schema {
            println!("{}", serde_json::to_string_pretty(&schema::schema())?);
            return Ok(());
        }
        let mut wrong = 0_usize;
        for file in &self.files {
            let document = read(file)?;
            let checked = if self.layout { layout(&document) } else { configuration(&document) };
            match checked {
                Ok(summary) => println!("{}: ok, {summary}", file.display()),
                Err(errors) => {
                    wrong = wrong.saturating_add(1);
                    for error in errors {
                        eprintln!("{}: {error}", file.display());
                    }
                }
            }
        }
        match wrong {
            0 => Ok(()),
            _ => bail!("{wrong} of {} would be refused by the filter", self.files.len()),
        }
    }
}

fn configuration(document: &[u8]) -> Result<String, Vec<String>> {
    let config = Config::check(document)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let login = match &config.session.login {
        Some(login) => format!("{:?} logins", login.mode).to_lowercase(),
        None => "no logins".to_owned(),
    };
    let login = match config.direction {
        Direction::Ingress => login,
        Direction::Egress => "to a private server".to_owned(),
        Direction::Relay => format!("{login}, to a private server"),
    };
    let routes = config.routes.len();
    let calls = if routes == 1 { "1 call".to_owned() } else { format!("{routes} calls") };
    Ok(format!("layout `{}`, {calls}, {login}", config.layout.name()))
}

fn layout(document: &[u8]) -> Result<String, Vec<String>> {
    let text = std::str::from_utf8(document).map_err(|error| vec![error.to_string()])?;
    let layout = Layout::from_json(text).map_err(|error| vec![error.to_string()])?;
    Ok(format!("layout `{}`", layout.name()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut document = Vec::new();
        std::io::stdin().read_to_end(&mut document).context("cannot read standard input")?;
        return Ok(document);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
