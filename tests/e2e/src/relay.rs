//! Private clients of a private server: an Envoy with `relay.yaml`.

use std::net::SocketAddr;

use anyhow::Result;
use meshgate_client::{Client, Connection, Login};

use crate::envoy::Backends;
use crate::{Companion, Envoy};

/// Companion connections of the plugin: Envoy runs it on its main thread too.
const BOTH: u64 = 2;

/// How clients log in, as the bootstrap has it.
const NOISE: &str = r#""mode": "noise",
                          "audience": "demo",
                          "login": { "command": 1 },"#;

const REFUSALS: &str = r#""cluster": "private-server",
                          "refusal_cluster": "refusals""#;

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

    /// The same where nobody logs in at the listener `private` either.
    pub fn relay_without_logins(server: SocketAddr, edits: &[(&str, &str)]) -> Result<Self> {
        let mut all = vec![
            (NOISE, r#""mode": "none","#),
            (r#""companion": { "cluster": "companion" },"#, ""),
            (r#""push": { "ranges": [{ "from": 1300, "to": 1399 }] },"#, ""),
            (r#""connect": "after_login","#, ""),
            (REFUSALS, r#""cluster": "private-server""#),
            (r#""identity": { "level": { "claim": "level" } },"#, ""),
            ("upstream_connect_mode: ON_DOWNSTREAM_DATA", ""),
            ("max_early_data_bytes: 65536", ""),
        ];
        all.extend(edits);
        Self::relay(server, None, &all)
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
