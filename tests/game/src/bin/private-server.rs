//! The private-protocol game. Prints `listening ADDRESS` once it serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use meshgate_game::private::Server;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "The game as a private-protocol server (layout `game`), one thread")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let server = Server::bind(arguments.listen)?;
    println!("listening {}", server.address());
    let stop = Arc::new(AtomicBool::new(false));
    let serving = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || server.run(&stop)
    });
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.store(true, Ordering::Relaxed);
    Ok(serving.await??)
}
