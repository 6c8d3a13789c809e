//! `meshgate doctor`: what is wrong with a proxy or with manifests, and what to do about it.
//!
//! ```text
//!   --envoy URL ──admin──▶ Snapshot ─▶ proxy::Proxy ─▶ listeners, clusters, counters ─┐
//!   --manifests PATH ─yaml─▶ manifests::Object ──────▶ plugins ───────────────────────┴─▶ Report
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::admin::Snapshot;
use self::proxy::Proxy;
use self::report::Report;

mod admin;
mod clusters;
mod counters;
mod listeners;
mod manifests;
mod plugins;
mod proxy;
mod report;
#[cfg(test)]
mod tests;

/// Looks at a running Envoy, through its admin interface, or at Kubernetes manifests, and says what
/// is wrong and what to do. Changes nothing. Exit codes: 0 all is well, 1 warnings, 2 errors (or it
/// could not look).
///
/// Of a pod: kubectl port-forward POD 15000, then --envoy http://127.0.0.1:15000
#[derive(Args)]
pub struct Doctor {
    /// The admin interface of a running Envoy
    #[arg(long, value_name = "URL", required_unless_present = "manifests")]
    envoy: Option<String>,
    /// A listener that must have the filter, by its name or port; may be given several times
    #[arg(long = "listener", value_name = "NAME|PORT", requires = "envoy")]
    listeners: Vec<String>,
    /// YAML files, or folders of them: what `helm template` prints, or what is applied
    #[arg(long, value_name = "PATH", num_args = 1..)]
    manifests: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub fn run(self) -> ExitCode {
        let mut report = Report::default();
        if let Some(url) = &self.envoy {
            match super::block_on(Snapshot::fetch(url)) {
                Ok(snapshot) => examine(&Proxy::read(&snapshot), &self.listeners, &mut report),
                Err(error) => report
                    .error("envoy", url, &format!("cannot be asked: {error:#}"))
                    .remedy("give the admin interface of a running Envoy, such as http://127.0.0.1:9901"),
            }
        }
        if !self.manifests.is_empty() {
            match manifests::read(&self.manifests) {
                Ok(objects) => plugins::examine(&objects, &mut report),
                Err(error) => report
                    .error("manifests", "", &format!("cannot be read: {error:#}"))
                    .remedy("give YAML files, or folders of them; of a chart what `helm template` prints"),
            }
        }
        report.print(self.json);
        report.exit_code()
    }
}

fn examine(proxy: &Proxy, expected: &[String], report: &mut Report) {
    listeners::examine(proxy, expected, report);
    clusters::examine(proxy, report);
    counters::examine(proxy, report);
}
