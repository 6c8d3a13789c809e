//! A service that keeps count of what it carried out, in several replicas.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use meshgate_game::demo::v1::echo_server::{Echo, EchoServer};
use meshgate_game::demo::v1::{
    EchoReply, EchoRequest, Empty, FailRequest, RepeatRequest, SlowRequest, WhoamiReply,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// How long each call takes.
const WORK: Duration = Duration::from_millis(50);

/// What all replicas carried out: how often each body came.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<HashMap<Vec<u8>, usize>>>);

/// One replica.
#[derive(Debug)]
pub struct Replica {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Ledger {
    /// A replica at an address of its own, or at one that another one has left.
    pub async fn replica(&self, at: Option<SocketAddr>) -> Result<Replica> {
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(EchoServer::new(self.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                // Dropped with the replica, which stops it too.
                let _ = stopped.await;
            });
        Ok(Replica { address, stop: Some(stop), serving: tokio::spawn(serving) })
    }

    /// How often each body was carried out.
    pub fn entries(&self) -> HashMap<Vec<u8>, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Replica {
    /// As by SIGTERM: takes no more connections and calls (GOAWAY), and ends after the last call.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        Ok(self.serving.await??)
    }
}

#[tonic::async_trait]
impl Echo for Ledger {
    type RepeatStream = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;
    type ConverseStream = Self::RepeatStream;

    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let body = request.into_inner().body;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(body.clone()).or_default() +=
            1;
        tokio::time::sleep(WORK).await;
        Ok(Response::new(EchoReply { body }))
    }

    async fn slow(&self, _: Request<SlowRequest>) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("no such work here"))
    }

    async fn fail(&self, _: Request<FailRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("no such work here"))
    }

    async fn repeat(
        &self,
        _: Request<RepeatRequest>,
    ) -> Result<Response<Self::RepeatStream>, Status> {
        Err(Status::unimplemented("no such work here"))
    }

    async fn gather(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("no such work here"))
    }

    async fn converse(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        Err(Status::unimplemented("no such work here"))
    }

    async fn whoami(&self, _: Request<Empty>) -> Result<Response<WhoamiReply>, Status> {
        Err(Status::unimplemented("no such work here"))
    }
}
