//! Structured logs on standard error.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Args)]
pub struct Logs {
    /// What to log: a level, or targets with levels such as `info,meshgate_companion=debug`
    #[arg(long = "log", value_name = "FILTER", default_value = "info", env = "MESHGATE_LOG")]
    filter: String,
    #[arg(long = "log-format", value_enum, default_value = "text", env = "MESHGATE_LOG_FORMAT")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Logs {
    pub fn start(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.filter)
            .map_err(|error| anyhow::anyhow!("--log `{}`: {error}", self.filter))?;
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.format {
            Format::Text => {
                use std::io::IsTerminal as _;
                logs.with_ansi(std::io::stderr().is_terminal()).init();
            }
            Format::Json => logs.json().flatten_event(true).with_current_span(false).init(),
        }
        Ok(())
    }
}
