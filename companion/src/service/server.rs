//! Serving: all services on one listener, their health, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use meshgate_proto::FILE_DESCRIPTOR_SET;
use meshgate_proto::admin::v1::admin_server::AdminServer;
use meshgate_proto::edge::v1::edge_server::EdgeServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use super::admin::AdminService;
use super::edge::{EdgeService, MAX_MESSAGE_BYTES};
use crate::domain::login::Logins;
use crate::domain::sessions::Sessions;

/// A proxy whose machine vanished is noticed by its silence.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// Logins that are under way at the end get this long to finish.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// Connections get this long to close by themselves.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

pub struct Companion {
    pub sessions: Arc<Sessions>,
    pub logins: Arc<Logins>,
    /// Names this replica.
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the TLS certificate, key or client CA cannot be used: {0}")]
    Tls(tonic::transport::Error),
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("serving failed: {0}")]
    Transport(tonic::transport::Error),
}

/// Serves until `shutdown` is ready, then ends in order: not ready any more, no new logins, those
/// under way finish, streams are told to go elsewhere, connections close.
pub async fn serve(
    companion: Companion,
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Companion { sessions, logins, name } = companion;
    let (stop_streams, stopping) = watch::channel(false);
    let (stop_serving, mut stopped) = watch::channel(false);
    let edge = EdgeService::new(Arc::clone(&sessions), Arc::clone(&logins), name, stopping);
    let edge = EdgeServer::new(edge).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let admin = AdminServer::new(AdminService::new(Arc::clone(&sessions)));
    let (health, health_service) = tonic_health::server::health_reporter();
    report(&health, sessions.store().healthy()).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;

    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    if let Some(tls) = tls {
        server = server.tls_config(tls).map_err(ServeError::Tls)?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = server
        .add_service(edge)
        .add_service(admin)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the sender is gone: that is an end as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
    let mut serving = tokio::spawn(serving);
    let chores = [
        tokio::spawn(sweep(Arc::clone(&sessions))),
        tokio::spawn(watch_health(Arc::clone(&sessions), health.clone())),
    ];

    let early = tokio::select! {
        ended = &mut serving => Some(ended),
        () = shutdown => None,
    };
    chores.iter().for_each(|chore| chore.abort());
    let ended = match early {
        Some(ended) => Ok(ended),
        None => {
            info!("stopping: no new logins");
            logins.stop();
            report(&health, false).await;
            if tokio::time::timeout(FINISH_WITHIN, logins.finished()).await.is_err() {
                warn!("logins were still under way");
            }
            // The receivers may all be gone, which is the aim.
            let _ = stop_streams.send(true);
            let _ = stop_serving.send(true);
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

/// Ends what expires. Never gives up: a store that is away comes back.
async fn sweep(sessions: Arc<Sessions>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Ok(true) = sessions.sweep().await {}
    }
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
    for service in ["", "meshgate.edge.v1.Edge", "meshgate.admin.v1.Admin"] {
        health.set_service_status(service, status).await;
    }
}
