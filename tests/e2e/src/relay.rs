//! Private clients of a private server: an Envoy with `relay.yaml`.

use std::net::SocketAddr;

use anyhow::Result;
use meshgate_client::{Client, Connection, Login};

use crate::envoy::Backends;
use crate::{Companion, Envoy};

/// Companion connections of the plugin: Envoy runs it on its main thread too.
const BOTH: u64 = 2;

impl Envoy {
    /// Runs `relay.yaml` before a private server, with edits.
    pub fn relay(
        server: SocketAddr,
        companion: Option<&Companion>,
        edits: &[(&str, &str)],
    ) -> Result<Self> {
        let port = format!("port_value: {}", server.port());
        let mut all = vec![("port_value: 7001", "port_value: 0"), ("port_value: 7800", &port)];
        all.extend(edits);
        let address = companion.map(|companion| companion.address);
        let backends = Backends { companion: address, ..Backends::default() };
        let mut envoy = Self::start("relay.yaml", backends, &all)?;
        if companion.is_some() {
            envoy.wait_stat("wasmcustom.meshgate.companion_connected", BOTH)?;
        }
        Ok(envoy)
    }

    /// A client that need not log in, by way of the tunnel.
    pub async fn trusted(&self) -> Result<Client> {
        Ok(Client::connect(self.listener("trusted")?, &Login::None).await?)
    }

    /// The same, frame by frame.
    pub async fn trusted_frames(&self) -> Result<Connection> {
        Ok(Connection::connect(self.listener("trusted")?).await?)
    }
}
