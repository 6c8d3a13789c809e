//! `meshgate serve`

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use self::flags::Flags;
use self::reload::Running;
use super::logs;
use crate::config::settings::{self, Settings};
use crate::domain::login::Logins;
use crate::domain::sessions::Sessions;
use crate::domain::time::SystemClock;
use crate::service::rights::{Gate, Side};
use crate::service::server::{self, Companion, Endpoint};
use crate::service::tls::Tls;
use crate::store::Store;
use crate::store::redb::RedbStore;
use crate::store::redis::RedisStore;

mod flags;
mod parts;
mod reload;

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    flags: Flags,
    /// Check the configuration and the files that it names, then stop
    #[arg(long)]
    check: bool,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.flags.read()?;
        let logs = logs::start(&settings.document.log)?;
        let keys = parts::keys(&settings, None)?;
        let (edge_rights, admin_rights) =
            (parts::edge_rights(&settings), parts::admin_rights(&settings)?);
        let app_rights = parts::app_rights(&settings)?;
        let load = |files: &Option<_>| files.clone().map(Tls::load).transpose();
        let edge_tls = load(&settings.edge.tls)?.map(Arc::new);
        let admin_tls = load(&settings.admin.tls)?.map(Arc::new);
        let app_files = settings.app.as_ref().and_then(|app| app.tls.clone());
        let app_tls = load(&app_files)?.map(Arc::new);
        if self.check {
            println!("the configuration is good");
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let store: Arc<dyn Store> = match &settings.store {
            settings::Store::Redb(path) => Arc::new(RedbStore::open(path)?),
            settings::Store::Redis(redis) => {
                Arc::new(runtime.block_on(RedisStore::open((**redis).clone()))?)
            }
        };
        let sessions = Arc::new(Sessions::new(store, Arc::new(SystemClock)));
        sessions.set_push_limits(settings.pushes);
        sessions.set_group_limits(settings.groups);
        let logins = Logins::new(Arc::clone(&sessions), keys, settings.policy.clone());
        let logins = Arc::new(logins);
        let edge_gate = Gate::new(Side::Edge, edge_rights, Arc::clone(&sessions));
        let admin_gate = Gate::new(Side::Admin, admin_rights, Arc::clone(&sessions));
        let app_gate = Gate::new(Side::App, app_rights, Arc::clone(&sessions));

        runtime.block_on(async {
            let edge = listen(settings.edge.address).await?;
            let admin = listen(settings.admin.address).await?;
            let app = match &settings.app {
                Some(app) => Some(listen(app.address).await?),
                None => None,
            };
            let metrics = match settings.metrics {
                Some(address) => Some(listen(address).await?),
                None => None,
            };
            if let Some(fetched) = logins.fetched() {
                fetched.start();
            }
            let (shutdown, hangup) = (shutdown_signal()?, signal(SignalKind::hangup())?);
            announce(&settings, &edge, &admin, app.as_ref(), metrics.as_ref())?;
            let companion = Companion {
                sessions: Arc::clone(&sessions),
                logins: Arc::clone(&logins),
                name: settings.document.name.clone().unwrap_or_else(host_name),
                edge: Endpoint { listener: edge, tls: edge_tls.clone(), gate: edge_gate.clone() },
                admin: Endpoint {
                    listener: admin,
                    tls: admin_tls.clone(),
                    gate: admin_gate.clone(),
                },
                app: app.map(|listener| Endpoint {
                    listener,
                    tls: app_tls.clone(),
                    gate: app_gate.clone(),
                }),
                metrics,
            };
            let running = Running {
                flags: self.flags,
                settings,
                logs,
                sessions,
                logins,
                edge: (edge_gate, edge_tls),
                admin: (admin_gate, admin_tls),
                app: (app_gate, app_tls),
            };
            let reloading = tokio::spawn(running.obey(hangup));
            server::serve(companion, shutdown).await?;
            reloading.abort();
            Ok(())
        })
        // The store closes, whole, when the last user of it is dropped: with the runtime.
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Says where everything is. The last line means that logins are taken from now on.
fn announce(
    settings: &Settings,
    edge: &TcpListener,
    admin: &TcpListener,
    app: Option<&TcpListener>,
    metrics: Option<&TcpListener>,
) -> anyhow::Result<()> {
    let (edge, admin) = (edge.local_addr()?, admin.local_addr()?);
    info!(
        %edge, %admin, edge_protection = ?settings.edge.protection,
        admin_protection = ?settings.admin.protection,
        store = store_name(settings), "ready"
    );
    println!("admin on {admin}");
    if let Some(app) = app {
        let protection = settings.app.as_ref().map(|app| app.protection);
        info!(app = %app.local_addr()?, ?protection, "services may call");
        println!("app on {}", app.local_addr()?);
    }
    if let Some(metrics) = metrics {
        println!("metrics on {}", metrics.local_addr()?);
    }
    println!("listening on {edge}");
    Ok(())
}

fn store_name(settings: &Settings) -> String {
    match &settings.store {
        settings::Store::Redb(path) => path.display().to_string(),
        settings::Store::Redis(redis) => format!("redis {}", redis.place),
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "companion".to_owned())
}

/// Ready at SIGTERM or SIGINT. A second one ends the process at once.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    })
}
