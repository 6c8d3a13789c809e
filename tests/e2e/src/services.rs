//! The demo's services, as processes.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;

use crate::process::{Process, program};

/// The gRPC game, which knows nothing of private frames.
#[derive(Debug)]
pub struct GameServer {
    pub process: Process,
    pub address: SocketAddr,
}

impl GameServer {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(program("game-server")?);
        let (process, address) = Process::listening("game-server", &mut command)?;
        Ok(Self { process, address })
    }
}

/// The private-protocol game, which knows nothing of gRPC.
#[derive(Debug)]
pub struct PrivateServer {
    pub process: Process,
    pub address: SocketAddr,
}

impl PrivateServer {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(program("private-server")?);
        let (process, address) = Process::listening("private-server", &mut command)?;
        Ok(Self { process, address })
    }
}
