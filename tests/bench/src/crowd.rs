//! The companion alone, under a crowd: how fast it takes tickets, and what so many sessions cost.
//!
//! Two workers of a proxy, played by this program, log users in by ticket, as many at once as a
//! busy gateway would.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use meshgate_proto::admin::v1::admin_client::AdminClient;
use meshgate_proto::admin::v1::{KickSessionsRequest, kick_sessions_request::Whom};
use meshgate_proto::app::v1::GetSessionRequest;
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::edge::v1::edge_client::EdgeClient;
use meshgate_proto::edge::v1::{
    FromProxy, Hello, Login, Mode, ToProxy, from_proxy::Kind as From, to_proxy::Kind as To,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::companion::{AUDIENCE, Companion, LAYOUT, Visitors};
use crate::echo;
use crate::histogram::Histogram;
use crate::process::Process;

/// Workers of the proxy, and connections of the echo's client.
const STREAMS: usize = 2;
const IN_FLIGHT: usize = 64;
/// Workers that hold nothing: no event is theirs.
const BYSTANDERS: usize = 100;
/// Lookups and kicks that are timed, one after the other.
const LOOKUPS: usize = 20_000;
const KICKS: usize = 500;
/// One session in so many is remembered, to be looked up.
const REMEMBERED: u64 = 37;

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub sessions: u64,
    /// Of the whole process, over an empty one, in bytes for each session.
    pub memory: f64,
    pub disk: f64,
    pub lookup_p99_us: f64,
    /// From the operator's call to the word at the worker that holds the session.
    pub kick_p99_ms: f64,
    /// Words that workers heard which hold nothing, of all those kicks.
    pub overheard: u64,
}

/// Ticket logins a second, and calls of the bare echo.
#[derive(Debug, Clone, Copy)]
pub struct Tickets {
    pub echo: f64,
    pub meshgate: f64,
}

/// How long, how often, how many.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    pub measure: Duration,
    pub sessions: u64,
}

#[tokio::main]
pub async fn measure(program: &Path, plan: Plan) -> Result<(Vec<Tickets>, Crowd)> {
    let (_echo, echo) = Process::this(&["serve-echo"])?;
    let companion = Companion::start(program)?;
    let before = companion.process.memory()?;
    let workers = Workers::attach(companion.address, &companion.visitors).await?;
    let mut tickets = Vec::new();
    for _ in 0..plan.rounds {
        let echo = echo::rate(echo, STREAMS, IN_FLIGHT, plan.measure).await?;
        let (count, began) = (workers.done(), Instant::now());
        workers.log_in(i64::MAX).await;
        tokio::time::sleep(plan.measure).await;
        let meshgate = (workers.done() - count) as f64 / began.elapsed().as_secs_f64();
        workers.rest().await?;
        tickets.push(Tickets { echo, meshgate });
    }
    workers.log_in(plan.sessions.saturating_sub(workers.done()) as i64).await;
    workers.rest().await?;
    let sessions = workers.done();
    let memory = companion.process.memory()?.saturating_sub(before) as f64 / sessions as f64;
    let disk = companion.disk()? as f64 / sessions as f64;

    let ids = workers.remembered();
    let lookup_p99_us = lookups(companion.app, &ids).await?;
    let bystanders = Bystanders::attach(companion.address).await?;
    let kick_p99_ms = workers.kicks(companion.admin, &ids).await?;
    let overheard = bystanders.heard.load(Ordering::Relaxed);
    Ok((tickets, Crowd { sessions, memory, disk, lookup_p99_us, kick_p99_ms, overheard }))
}

async fn channel(address: SocketAddr) -> Result<Channel> {
    Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
}

/// A stream of a worker that holds nothing yet.
async fn attach(
    address: SocketAddr,
    worker: u64,
) -> Result<(mpsc::Sender<FromProxy>, Streaming<ToProxy>)> {
    let (up, queue) = mpsc::channel(4 * IN_FLIGHT);
    let hello = Hello {
        contract: 1,
        proxy: format!("bench-{worker}"),
        worker,
        takes_pushes: true,
        ..Hello::default()
    };
    up.send(FromProxy { kind: Some(From::Hello(hello)) }).await?;
    let mut edge = EdgeClient::new(channel(address).await?);
    let mut down = edge.attach(ReceiverStream::new(queue)).await?.into_inner();
    match down.message().await?.and_then(|word| word.kind) {
        Some(To::Welcome(_)) => Ok((up, down)),
        other => bail!("no welcome but {other:?}"),
    }
}

/// The workers that log in.
struct Workers {
    shared: Arc<Shared>,
    go: watch::Sender<u64>,
    kicked: tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
}

#[derive(Default)]
struct Shared {
    /// Logins that may begin still.
    left: AtomicI64,
    under_way: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    remembered: std::sync::Mutex<Vec<Vec<u8>>>,
}

impl Workers {
    async fn attach(address: SocketAddr, visitors: &Visitors) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (go, started) = watch::channel(0);
        let (tell, kicked) = mpsc::unbounded_channel();
        for worker in 1..=STREAMS as u64 {
            let (up, down) = attach(address, worker).await?;
            let work = Worker { shared: Arc::clone(&shared), visitors: visitors.clone(), up };
            tokio::spawn(work.run(down, started.clone(), tell.clone()));
        }
        Ok(Self { shared, go, kicked: tokio::sync::Mutex::new(kicked) })
    }

    fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    fn remembered(&self) -> Vec<Vec<u8>> {
        self.shared.remembered.lock().unwrap_or_else(|lock| lock.into_inner()).clone()
    }

    /// So many, from now on.
    async fn log_in(&self, count: i64) {
        self.shared.left.store(count, Ordering::Relaxed);
        self.go.send_modify(|go| *go += 1);
    }

    /// Until none is under way; those that may begin still are given up if there is no end to them.
    async fn rest(&self) -> Result<()> {
        let shared = &self.shared;
        if shared.left.load(Ordering::Relaxed) > i64::MAX / 2 {
            shared.left.store(0, Ordering::Relaxed);
        }
        while shared.left.load(Ordering::Relaxed) > 0
            || shared.under_way.load(Ordering::Relaxed) > 0
        {
            ensure!(shared.failed.load(Ordering::Relaxed) == 0, "ticket logins failed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// One after the other; the time that 99 of 100 do not exceed, in milliseconds.
    async fn kicks(&self, admin: SocketAddr, ids: &[Vec<u8>]) -> Result<f64> {
        let mut admin = AdminClient::new(channel(admin).await?);
        let mut kicked = self.kicked.lock().await;
        let mut times = Histogram::default();
        for id in ids.iter().rev().take(KICKS) {
            let began = Instant::now();
            let whom = Some(Whom::SessionId(id.clone()));
            let kick = KickSessionsRequest { whom, ..KickSessionsRequest::default() };
            let (answer, heard) = tokio::join!(admin.kick_sessions(kick), kicked.recv());
            answer?;
            ensure!(heard.as_ref() == Some(id), "another session was kicked");
            times.record(began.elapsed().as_nanos() as u64);
        }
        Ok(times.quantile_us(0.99) / 1000.0)
    }
}

struct Worker {
    shared: Arc<Shared>,
    visitors: Visitors,
    up: mpsc::Sender<FromProxy>,
}

impl Worker {
    async fn run(
        self,
        mut down: Streaming<ToProxy>,
        mut go: watch::Receiver<u64>,
        tell: mpsc::UnboundedSender<Vec<u8>>,
    ) -> Result<()> {
        loop {
            tokio::select! {
                word = down.message() => match word?.context("the companion ended")?.kind {
                    Some(To::LoginAccepted(accepted)) => {
                        let number = self.shared.done.fetch_add(1, Ordering::Relaxed);
                        if number.is_multiple_of(REMEMBERED) {
                            let remembered = self.shared.remembered.lock();
                            remembered.unwrap_or_else(|l| l.into_inner()).push(accepted.session_id);
                        }
                        self.begin().await?;
                        self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
                    }
                    Some(To::LoginRefused(refused)) => {
                        self.shared.failed.fetch_add(1, Ordering::Relaxed);
                        bail!("refused: {}", refused.text);
                    }
                    Some(To::Kick(kick)) => drop(tell.send(kick.session_id)),
                    _ => {}
                },
                _ = go.changed() => {
                    for _ in 0..IN_FLIGHT {
                        self.begin().await?;
                    }
                }
            }
        }
    }

    /// One more login, if there is to be one.
    async fn begin(&self) -> Result<()> {
        if self.shared.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Ok(());
        }
        let number = self.shared.under_way.fetch_add(1, Ordering::Relaxed);
        let login = Login {
            r#ref: number,
            mode: Mode::Ticket.into(),
            audience: AUDIENCE.into(),
            layout: LAYOUT.into(),
            message: self.visitors.ticket_text().into_bytes(),
            peer: "203.0.113.7:40112".into(),
        };
        Ok(self.up.send(FromProxy { kind: Some(From::Login(login)) }).await?)
    }
}

/// Any session out of all, one lookup after the other, by a service's call.
async fn lookups(app: SocketAddr, ids: &[Vec<u8>]) -> Result<f64> {
    let mut app = AppClient::new(channel(app).await?);
    let mut times = Histogram::default();
    // Far from one another, in no order that the store knows.
    let step = 7919;
    for number in 0..LOOKUPS {
        let session_id = ids[number * step % ids.len()].clone();
        let began = Instant::now();
        app.get_session(GetSessionRequest { session_id }).await?;
        times.record(began.elapsed().as_nanos() as u64);
    }
    Ok(times.quantile_us(0.99))
}

struct Bystanders {
    heard: Arc<AtomicU64>,
    _up: Vec<mpsc::Sender<FromProxy>>,
}

impl Bystanders {
    async fn attach(address: SocketAddr) -> Result<Self> {
        let (heard, mut all) = (Arc::new(AtomicU64::new(0)), Vec::new());
        for worker in 0..BYSTANDERS as u64 {
            let (up, mut down) = attach(address, 1000 + worker).await?;
            all.push(up);
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                while let Ok(Some(_)) = down.message().await {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { heard, _up: all })
    }
}
