//! The gRPC game. Prints `listening ADDRESS` once it serves; stops on SIGINT or SIGTERM.

use std::net::SocketAddr;

use clap::Parser;
use meshgate_game::service::Game;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "An ordinary gRPC game (demo.v1.Echo and demo.v1.Hall)")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print each call with its metadata.
    #[arg(long)]
    print_calls: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening {}", listener.local_addr()?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    Game::new(arguments.print_calls).serve(listener, stop).await
}
