//! A bare unary echo of tonic, which ticket logins are held against.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use anyhow::Result;
use http::uri::PathAndQuery;
use meshgate_game::demo::v1::EchoRequest;
use tokio::net::TcpListener;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const PATH: &str = "/bench.Echo/Echo";
/// About as long as a ticket.
const SIZE: usize = 300;

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<EchoRequest> for Echo {
    type Response = EchoRequest;
    type Future = Ready<Result<Response<EchoRequest>, Status>>;

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl<B> Service<http::Request<B>> for Echo
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<EchoRequest, EchoRequest>::default());
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

/// Serves until the process ends; says where.
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(Echo).serve_with_incoming(incoming).await?)
}

/// Calls a second, over so many connections with so many in flight each.
pub async fn rate(
    address: SocketAddr,
    connections: usize,
    in_flight: usize,
    duration: Duration,
) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    let began = Instant::now();
    for _ in 0..connections {
        let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
        for _ in 0..in_flight {
            let (channel, done) = (channel.clone(), Arc::clone(&done));
            tasks.spawn(async move {
                let mut client = tonic::client::Grpc::new(channel);
                while began.elapsed() < duration {
                    let request = Request::new(EchoRequest { body: vec![b'x'; SIZE] });
                    client.ready().await?;
                    let codec = ProstCodec::<EchoRequest, EchoRequest>::default();
                    client.unary(request, PathAndQuery::from_static(PATH), codec).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, anyhow::Error>(())
            });
        }
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}
