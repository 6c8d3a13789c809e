//! Where master keys come from: files, a command, the environment.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use zeroize::Zeroizing;

use super::files;
use crate::domain::key::Key;
use crate::domain::master::Masters;

/// Holds a master key as its file would.
const VARIABLE: &str = "MESHGATE_MASTER_KEY";
/// A KMS answers within seconds; a command that waits for a password never does.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);
const COMMAND_STEP: Duration = Duration::from_millis(20);
const MAX_OUTPUT: u64 = 64 * 1024;

#[derive(Args)]
pub struct MasterArgs {
    /// A master key; the first one seals, all open. Or MESHGATE_MASTER_KEY, with what the file
    /// holds
    #[arg(long = "master-file", value_name = "FILE", value_delimiter = ',')]
    files: Vec<PathBuf>,
    /// A command for `sh -c` that prints a master key, such as a KMS client
    #[arg(long = "master-command", value_name = "COMMAND", env = "MESHGATE_MASTER_COMMAND")]
    command: Option<String>,
}

impl MasterArgs {
    pub fn read(&self) -> anyhow::Result<Masters> {
        read(&self.files, self.command.as_deref())
    }
}

/// Whether a master key is given at all.
pub fn given(files: &[PathBuf], command: Option<&str>) -> bool {
    !files.is_empty() || command.is_some() || std::env::var_os(VARIABLE).is_some()
}

/// In this order: files, command, environment.
pub fn read(files: &[PathBuf], command: Option<&str>) -> anyhow::Result<Masters> {
    let mut keys: Vec<Key> =
        files.iter().map(|path| files::read_key(path)).collect::<Result<_, _>>()?;
    if let Some(command) = command {
        let printed = run(command).context("the master key's command")?;
        keys.push(Key::from_json(&printed).context("what the master key's command printed")?);
    }
    if let Ok(text) = std::env::var(VARIABLE) {
        let text = Zeroizing::new(text);
        keys.push(Key::from_json(text.as_bytes()).context(VARIABLE)?);
    }
    Ok(Masters::new(keys)?)
}

fn run(command: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start")?;
    let output = child.stdout.take().context("no output")?;
    // Read beside the waiting: a full pipe would hold the command up.
    let reading = std::thread::spawn(move || {
        let mut text = Zeroizing::new(Vec::new());
        output.take(MAX_OUTPUT).read_to_end(&mut text).map(|_| text)
    });
    let ended = wait(&mut child);
    if ended.is_err() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    ended?;
    match reading.join() {
        Ok(text) => text.context("cannot read what it prints"),
        Err(_) => bail!("cannot read what it prints"),
    }
}

fn wait(child: &mut Child) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "it failed: {status}");
            return Ok(());
        }
        let seconds = COMMAND_WITHIN.as_secs();
        ensure!(begun.elapsed() < COMMAND_WITHIN, "it took longer than {seconds} seconds");
        std::thread::sleep(COMMAND_STEP);
    }
}
