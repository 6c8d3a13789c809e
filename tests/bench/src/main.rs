//! `scripts/bench` runs this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::{Parser, Subcommand};
use meshgate_bench::grpc_server::GrpcServer;
use meshgate_bench::process::stop_on_signals;
use meshgate_bench::{bench, bridge, echo};
use meshgate_game::private::Server;
use meshgate_game::reactor::Reactor;
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(about = "Measures MeshGate beside what it replaces and what it is built on")]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    bench: bench::Options,
}

/// The processes that the bench starts for itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Part {
    /// Echoes private frames.
    #[command(hide = true)]
    ServeFrames,
    /// Echoes gRPC calls.
    #[command(hide = true)]
    ServeGrpc,
    /// Echoes gRPC calls as tonic does.
    #[command(hide = true)]
    ServeEcho,
    /// Turns private frames into gRPC calls.
    #[command(hide = true)]
    Bridge {
        #[arg(long)]
        upstream: SocketAddr,
    },
}

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        None => {
            stop_on_signals()?;
            bench::run(&arguments.bench)
        }
        Some(Part::ServeFrames) => {
            let server = Server::bind(ANY_PORT)?;
            println!("listening {}", server.address());
            Ok(server.run(&Arc::new(AtomicBool::new(false)))?)
        }
        Some(Part::ServeGrpc) => {
            let mut reactor = Reactor::new()?;
            println!("listening {}", reactor.listen(ANY_PORT)?);
            loop {
                reactor.turn(&mut GrpcServer, None)?;
            }
        }
        Some(Part::ServeEcho) => serve_echo(),
        Some(Part::Bridge { upstream }) => serve_bridge(upstream),
    }
}

#[tokio::main]
async fn serve_echo() -> Result<()> {
    echo::serve().await
}

#[tokio::main(flavor = "current_thread")]
async fn serve_bridge(upstream: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(ANY_PORT).await?;
    println!("listening {}", listener.local_addr()?);
    bridge::serve(listener, upstream).await
}
