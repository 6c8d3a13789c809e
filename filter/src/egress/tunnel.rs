//! The server behind a CONNECT stream: another connection can be opened when one is lost, and the
//! caller's stays.

use crate::metrics::Labelled;
use crate::protocol::grpc::tunnel::TunnelEvent;
use crate::time::Moment;
use crate::worker::Worker;

use super::Egress;
use super::bell::Login;
use super::pending::Pending;

impl Egress {
    pub(super) fn tunnelled(&self) -> bool {
        Self::config(&self.terms).is_some_and(|egress| egress.tunnel.is_some())
    }

    /// Reads what came from upstream: the server's bytes, or what they are wrapped in.
    pub(super) fn read_upstream(&mut self, now: Moment, data: &[u8], worker: &mut Worker) {
        // Put back below: reading the server's bytes needs all the rest.
        let Some(mut tunnel) = self.tunnel.take() else {
            return self.read_server(now, data, worker);
        };
        let mut input = data;
        loop {
            match tunnel.poll(&mut input) {
                Ok(None) => break,
                Ok(Some(TunnelEvent::Data(bytes))) => self.read_server(now, bytes, worker),
                Ok(Some(TunnelEvent::BellAnswered)) => self.bell = None,
                Ok(Some(TunnelEvent::Ended { connected })) => {
                    let kind = if connected { "server_closed" } else { "server_unreachable" };
                    worker.metrics.count(Labelled::UpstreamErrors, kind);
                    let text = "the server closed the connection";
                    self.lose_server(now, connected, text, worker);
                }
                Err(error) => {
                    worker.metrics.count(Labelled::UpstreamErrors, "http2");
                    log::warn!("meshgate: the tunnel broke HTTP/2: {error}");
                    self.server_gone = true;
                    self.leave(now, "tunnel_protocol_error", "the tunnel is broken", worker);
                    break;
                }
            }
        }
        if tunnel.is_gone() && !self.server_gone {
            self.server_gone = true;
            self.leave(now, "tunnel_gone", "the way to the server is closed", worker);
        }
        self.tunnel = Some(tunnel);
    }

    /// The connection to the server is gone, or given up: its calls end, the next opens another.
    pub(super) fn lose_server(
        &mut self,
        now: Moment,
        connected: bool,
        text: &str,
        worker: &mut Worker,
    ) {
        self.fail_all(now, connected, text, worker);
        let terms = std::rc::Rc::clone(&self.terms);
        self.pending = Pending::new(&terms.config);
        if let Some(egress) = Self::config(&terms) {
            self.login = Login::new(egress);
        }
        self.to_server.clear();
        self.partial = Vec::new();
        self.partial_since = None;
        self.pulse = None;
    }

    /// Hands the tunnel what is to go through it.
    pub(super) fn fill_tunnel(&mut self) {
        let Some(tunnel) = &mut self.tunnel else { return };
        if std::mem::take(&mut self.drops_server) {
            tunnel.close();
        }
        if !self.to_server.is_empty() && tunnel.open() {
            tunnel.send(&self.to_server);
        }
        self.to_server.clear();
    }
}
