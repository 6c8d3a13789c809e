//! Child processes: where they listen, what they have cost so far, how much memory they hold.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// How long anything may take to get ready on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// All that were started, so that none outlives a bench that is stopped from outside.
static STARTED: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

/// A process that is ended with its owner.
#[derive(Debug)]
pub struct Process {
    id: u32,
    child: Arc<Mutex<Child>>,
}

/// Ends what was started, and this process, on SIGINT or SIGTERM.
pub fn stop_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        for child in lock(&STARTED).drain(..).filter_map(|child| child.upgrade()) {
            end(&mut lock(&child));
        }
        std::process::exit(130);
    });
    Ok(())
}

impl Process {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let id = child.id();
        let child = Arc::new(Mutex::new(child));
        let mut started = lock(&STARTED);
        started.retain(|child| child.strong_count() > 0);
        started.push(Arc::downgrade(&child));
        Ok(Self { id, child })
    }

    /// Starts a program and waits for its line `listening ADDRESS` or `listening on ADDRESS`.
    pub fn listening(command: &mut Command) -> Result<(Self, SocketAddr)> {
        let process = Self::spawn(command.stdout(Stdio::piped()))?;
        let stdout = lock(&process.child).stdout.take().context("no standard output")?;
        let (sender, receiver) = mpsc::channel();
        // Reads on to the end, so that the program never waits for its reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening") {
                    let address = address.split_whitespace().next_back().unwrap_or_default();
                    let _ = sender.send(address.to_owned());
                }
            }
        });
        let address = receiver
            .recv_timeout(PATIENCE)
            .with_context(|| format!("{command:?} did not say where it listens"))?;
        Ok((process, address.parse()?))
    }

    /// This program again, with other arguments.
    pub fn this(arguments: &[&str]) -> Result<(Self, SocketAddr)> {
        Self::listening(Command::new(std::env::current_exe()?).args(arguments))
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn is_running(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Time that the process's threads have spent on a core, kernel time included. From
    /// `schedstat` (nanoseconds); `stat` counts in hundredths of a second.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.id())
    }

    /// Bytes of its own memory, without mapped files.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no RssAnon")?;
        Ok(kib.parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut lock(&self.child));
    }
}

fn end(child: &mut Child) {
    // An error says that it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The CPU time of several processes.
pub fn cpu<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Result<Duration> {
    processes.into_iter().map(Process::cpu).sum()
}

/// This program's own, with the threads that have ended: hundredths of a second.
pub fn own_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(')').context("a strange stat")?;
    // After the name: user time is the 12th field, system time the 13th.
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn cpu_of(id: u32) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let ran = text.split_ascii_whitespace().next().context("an empty schedstat")?;
        nanos += ran.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
