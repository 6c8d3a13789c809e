//! Child processes that say on their standard output where they listen.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long anything may take to get ready on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is ended with its owner.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Starts a program and waits for its line `listening ADDRESS`.
    pub fn listening(name: &str, command: &mut Command) -> Result<(Self, SocketAddr)> {
        let (process, address, _) = Self::listening_and_more(name, command)?;
        Ok((process, address))
    }

    /// The same, with the lines that it wrote before.
    pub fn listening_and_more(
        name: &str,
        command: &mut Command,
    ) -> Result<(Self, SocketAddr, Vec<String>)> {
        let mut process = Self::spawn(name, command.stdout(Stdio::piped()))?;
        let stdout = process.child.stdout.take().context("no stdout")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut before = Vec::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening ") {
                    let address = address.strip_prefix("on ").unwrap_or(address);
                    let _ = sender.send((address.trim().to_owned(), std::mem::take(&mut before)));
                } else {
                    before.push(line);
                }
            }
        });
        let (address, before) = receiver
            .recv_timeout(PATIENCE)
            .with_context(|| format!("{name} did not say where it listens"))?;
        let address = address.parse().with_context(|| format!("{name} listens at {address:?}"))?;
        Ok((process, address, before))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, for instance `TERM`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let sent =
            Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status()?;
        if !sent.success() {
            bail!("cannot signal {}", self.name);
        }
        Ok(())
    }

    /// Waits for the process to end by itself; its exit code.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > until {
                bail!("{} does not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The project's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/e2e").to_owned()
}

/// A program of the workspace, built beside the test that runs.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("a test runs from target/PROFILE/deps")?;
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing: run scripts/build", path.display());
    }
    Ok(path)
}

/// A file that a script prepares: `variable` names it, else it is looked for at `default`.
pub fn prepared(variable: &str, default: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| root().join(default), PathBuf::from);
    if !path.exists() {
        bail!(
            "{} is missing: run scripts/envoy and scripts/build, or set {variable}",
            path.display()
        );
    }
    Ok(path)
}
