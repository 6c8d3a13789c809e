//! A real Prometheus that scrapes what a test started.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http;
use crate::process::{PATIENCE, Process};

/// What is scraped: the job's name, where, and by which path.
pub type Target = (&'static str, SocketAddr, &'static str);

#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes twice a second and evaluates the rules of that file. `None`, and a word about it,
    /// where there is no Prometheus; in CI that is an error.
    pub fn start(targets: &[Target], rules: &Path) -> Result<Option<Self>> {
        let Some(program) = program()? else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yaml");
        fs::write(&config, configuration(targets, rules))?;
        let log = folder.path().join("prometheus.log");
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let process = Process::spawn("prometheus", &mut command)?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut prometheus = Self { process, address, folder };
        let until = Instant::now() + PATIENCE;
        while !prometheus.is_ready() {
            if !prometheus.process.is_running() || Instant::now() > until {
                bail!("Prometheus is not ready:\n{}", prometheus.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(prometheus))
    }

    fn is_ready(&mut self) -> bool {
        let log = self.log();
        // The line of its web server, with the port that it got.
        let said = log.lines().find_map(|line| line.split_once("\"Listening on\" address="));
        let address = said.and_then(|(_, address)| address.trim().parse().ok());
        let Some(address) = address else { return false };
        self.address = address;
        http::request(address, "GET", "/-/ready").is_ok_and(|body| body.contains("is Ready"))
    }

    /// The values of an instant query, none that is not a number.
    pub fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let path = format!("/api/v1/query?query={}", http::encoded(expression));
        let data = self.api(&path).with_context(|| expression.to_owned())?;
        let results = data["result"].as_array().context("no vector")?;
        let values = results.iter().filter_map(|result| result["value"][1].as_str()?.parse().ok());
        Ok(values.filter(|value: &f64| value.is_finite()).collect())
    }

    /// The rules as they were evaluated last.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.api("/api/v1/rules")?;
        let groups = data["groups"].as_array().context("no groups")?;
        Ok(groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect())
    }

    fn api(&self, path: &str) -> Result<Value> {
        let answer = http::request(self.address, "GET", path)?;
        let mut answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        if answer["status"] != "success" {
            bail!("{answer}");
        }
        Ok(answer["data"].take())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("prometheus.log")).unwrap_or_default()
    }
}

fn configuration(targets: &[Target], rules: &Path) -> String {
    let mut text = format!(
        "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
         rule_files: [{:?}]\nscrape_configs:\n",
        rules.display().to_string()
    );
    for (job, address, path) in targets {
        text += &format!(
            "  - {{ job_name: {job}, metrics_path: {path}, static_configs: [{{ targets: ['{address}'] }}] }}\n"
        );
    }
    text
}

/// `scripts/prometheus` finds it; `scripts/test` says where in MESHGATE_PROMETHEUS.
fn program() -> Result<Option<PathBuf>> {
    let folder = std::env::var_os("MESHGATE_PROMETHEUS").map(PathBuf::from);
    let program = folder.map(|folder| folder.join("prometheus")).filter(|program| program.exists());
    if program.is_none() {
        if std::env::var_os("CI").is_some() {
            bail!("no prometheus: scripts/prometheus, and set MESHGATE_PROMETHEUS");
        }
        eprintln!("skipped: no prometheus (scripts/prometheus says how to get one)");
    }
    Ok(program)
}
