//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;

use crate::config::Log;

type Change = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// The log, whose filter can be changed.
pub struct Logs(Change);

pub fn filter(log: &Log) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&log.filter)
        .map_err(|error| anyhow::anyhow!("`log.filter` (--log) `{}`: {error}", log.filter))
}

pub fn start(log: &Log) -> anyhow::Result<Logs> {
    let logs = tracing_subscriber::fmt().with_env_filter(filter(log)?).with_writer(std::io::stderr);
    if log.format == "json" {
        let logs = logs.json().flatten_event(true).with_current_span(false);
        let logs = logs.with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        return Ok(Logs(Box::new(move |filter| Ok(handle.reload(filter)?))));
    }
    use std::io::IsTerminal as _;
    let logs = logs.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
    let handle = logs.reload_handle();
    logs.init();
    Ok(Logs(Box::new(move |filter| Ok(handle.reload(filter)?))))
}

impl Logs {
    pub fn change(&self, filter: EnvFilter) -> anyhow::Result<()> {
        (self.0)(filter)
    }
}
