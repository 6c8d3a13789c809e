//! Serving: each service on a listener of its own, their health and numbers, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use meshgate_proto::FILE_DESCRIPTOR_SET;
use meshgate_proto::admin::v1::admin_server::AdminServer;
use meshgate_proto::app::v1::app_server::AppServer;
use meshgate_proto::edge::v1::edge_server::EdgeServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use super::admin::AdminService;
use super::app::{AppService, MAX_REQUEST_BYTES};
use super::edge::{EdgeService, MAX_MESSAGE_BYTES};
use super::incoming::incoming;
use super::rights::Gate;
use super::scrape;
use super::tls::Tls;
use crate::domain::login::Logins;
use crate::domain::sessions::Sessions;
use crate::metrics::{Gauges, Metrics};

/// A proxy whose machine vanished is noticed by its silence.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// Before that, proxies get this long to take their logins elsewhere, and clients that have logged in
/// to send their first frame. Less than proxies wait for the answer to a login (three seconds), so
/// that those which come meanwhile are answered by another replica in time.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// Logins that are under way at the end get this long to finish.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// Connections get this long to close by themselves.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// How often certificates are looked at for a change.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

pub struct Companion {
    pub sessions: Arc<Sessions>,
    pub logins: Arc<Logins>,
    /// Names this replica.
    pub name: String,
    pub edge: Endpoint,
    pub admin: Endpoint,
    /// Where services call.
    pub app: Option<Endpoint>,
    /// Where metrics are scraped.
    pub metrics: Option<TcpListener>,
}

/// A listener, and who may call there.
pub struct Endpoint {
    pub listener: TcpListener,
    pub tls: Option<Arc<Tls>>,
    pub gate: Gate,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("serving failed: {0}")]
    Transport(tonic::transport::Error),
}

/// Serves until `shutdown` is ready, then ends in order: not ready any more and no new connections,
/// proxies take their logins elsewhere, those under way finish, streams end, connections close.
pub async fn serve(
    companion: Companion,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Companion { sessions, logins, name, edge, admin, app, metrics } = companion;
    let (stop_streams, stopping) = watch::channel(false);
    let (stop_serving, stopped) = watch::channel(false);
    let (health, health_service) = tonic_health::server::health_reporter();
    report(&health, sessions.store().healthy()).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .build_v1()
    };
    let app_tls = app.as_ref().and_then(|app| app.tls.clone());
    let listeners = [("edge", edge.tls.clone()), ("admin", admin.tls.clone()), ("app", app_tls)];
    let certificates =
        listeners.into_iter().filter_map(|(listener, tls)| tls.map(|tls| (listener, tls)));
    let numbers = Arc::new(Numbers {
        sessions: Arc::clone(&sessions),
        logins: Arc::clone(&logins),
        certificates: certificates.collect(),
    });

    let app_service = AppService::new(Arc::clone(&sessions), stopping.clone());
    let service = EdgeService::new(Arc::clone(&sessions), Arc::clone(&logins), name, stopping);
    let service = EdgeServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let edge_serving = server()
        .add_service(InterceptedService::new(service, edge.gate))
        .add_service(health_service.clone())
        .add_service(reflection()?)
        .serve_with_incoming_shutdown(incoming(edge.listener, edge.tls), is_set(stopped.clone()));
    let service = AdminServer::new(AdminService::new(Arc::clone(&sessions)));
    let admin_serving = server()
        .add_service(InterceptedService::new(service, admin.gate))
        .add_service(health_service.clone())
        .add_service(reflection()?)
        .serve_with_incoming_shutdown(incoming(admin.listener, admin.tls), is_set(stopped.clone()));
    let service = AppServer::new(app_service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let app_reflection = reflection()?;
    let app_serving = async move {
        let Some(app) = app else { return Ok(()) };
        server()
            .add_service(InterceptedService::new(service, app.gate))
            .add_service(health_service)
            .add_service(app_reflection)
            .serve_with_incoming_shutdown(incoming(app.listener, app.tls), is_set(stopped))
            .await
    };
    let serving = async { tokio::try_join!(edge_serving, admin_serving, app_serving).map(|_| ()) };
    let mut serving = tokio::spawn(serving);
    let mut chores = vec![
        tokio::spawn(sweep(Arc::clone(&sessions))),
        tokio::spawn(follow(Arc::clone(&sessions))),
        tokio::spawn(Arc::clone(&sessions).read_letters()),
        tokio::spawn(watch_health(Arc::clone(&sessions), health.clone())),
        tokio::spawn(watch_certificates(numbers.certificates.clone())),
    ];
    if let Some(listener) = metrics {
        chores.push(tokio::spawn(scrape::serve(listener, numbers)));
    }

    let early = tokio::select! {
        ended = &mut serving => Some(ended),
        () = shutdown => None,
    };
    chores.iter().for_each(|chore| chore.abort());
    let ended = match early {
        Some(ended) => Ok(ended),
        None => {
            info!("stopping: proxies are to go elsewhere");
            report(&health, false).await;
            // The receivers may all be gone, which is the aim. Connections hear that nothing new is
            // taken on them (GOAWAY); what is on them goes on.
            let _ = stop_serving.send(true);
            sessions.drain();
            let drained = async {
                while !(sessions.is_drained() && logins.under_way() == 0) {
                    tokio::time::sleep(DRAIN_STEP).await;
                }
            };
            if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
                info!("some proxies or clients took too long");
            }
            logins.stop();
            if tokio::time::timeout(FINISH_WITHIN, logins.finished()).await.is_err() {
                warn!("logins were still under way");
            }
            let _ = stop_streams.send(true);
            tokio::time::timeout(CLOSE_WITHIN, &mut serving).await
        }
    };
    match ended {
        Ok(Ok(Ok(()))) => info!("stopped"),
        Ok(Ok(Err(error))) => return Err(ServeError::Transport(error)),
        Ok(Err(error)) => warn!(%error, "the server task failed"),
        Err(_) => {
            serving.abort();
            warn!("stopped; some connections had not closed");
        }
    }
    Ok(())
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

async fn is_set(mut signal: watch::Receiver<bool>) {
    // An error means that the sender is gone: that is an end as well.
    let _ = signal.wait_for(|set| *set).await;
}

/// What a scrape reads.
struct Numbers {
    sessions: Arc<Sessions>,
    logins: Arc<Logins>,
    certificates: Vec<(&'static str, Arc<Tls>)>,
}

impl scrape::Source for Numbers {
    fn metrics(&self) -> &Metrics {
        self.sessions.metrics()
    }

    fn gauges(&self) -> Gauges {
        let census = self.sessions.census();
        let expiry =
            |(name, tls): &(&'static str, Arc<Tls>)| tls.expiry().map(|expiry| (*name, expiry));
        Gauges {
            sessions_pending: census.pending,
            sessions_live: census.live,
            stored_live: self.sessions.stored().live,
            stored_away: self.sessions.stored().away,
            streams: census.streams,
            logins_under_way: self.logins.under_way(),
            store_healthy: self.sessions.store().healthy(),
            fetched_keys: self.logins.fetched().map(|keys| keys.numbers()),
            verifier: self.logins.verifier().map(|it| (it.breaker_state(), it.under_way())),
            certificates: self.certificates.iter().filter_map(expiry).collect(),
        }
    }
}

/// Takes certificates over when their files change, as cert-manager and its like do it.
async fn watch_certificates(certificates: Vec<(&'static str, Arc<Tls>)>) {
    let mut ticks = tokio::time::interval(CERTIFICATE_INTERVAL);
    let mut failing = false;
    loop {
        ticks.tick().await;
        for (listener, tls) in &certificates {
            match tls.reload(tls.files()) {
                Ok(true) => info!(listener, "new certificates are in use"),
                Ok(false) => {}
                // Half written, perhaps. Said once.
                Err(error) if !failing => {
                    warn!(listener, %error, "new certificates cannot be used, the old ones stay");
                    failing = true;
                    continue;
                }
                Err(_) => continue,
            }
            failing = false;
        }
    }
}

/// Ends what is over, and says which workers are attached. Never gives up: a store that is away
/// comes back.
async fn sweep(sessions: Arc<Sessions>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sessions.beat().await;
        while let Ok(true) = sessions.sweep().await {}
        sessions.take_count().await;
    }
}

async fn follow(sessions: Arc<Sessions>) {
    sessions.follow().await;
}

/// Keeps the health service in line with the store.
async fn watch_health(sessions: Arc<Sessions>, health: HealthReporter) {
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    let mut reported = None;
    loop {
        ticks.tick().await;
        let healthy = sessions.store().healthy();
        if reported != Some(healthy) {
            report(&health, healthy).await;
            reported = Some(healthy);
        }
    }
}

async fn report(health: &HealthReporter, serving: bool) {
    let status = if serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    // The empty name stands for the server as a whole.
    for service in ["", "meshgate.edge.v1.Edge", "meshgate.admin.v1.Admin", "meshgate.app.v1.App"] {
        health.set_service_status(service, status).await;
    }
}
