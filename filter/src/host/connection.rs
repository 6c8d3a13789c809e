//! One connection's callbacks, and what they move between Envoy's buffers and the bridge.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, StreamContext};
use proxy_wasm::types::{Action, BufferType, PeerType};

use crate::bridge::Ending;
use crate::connection::Connection as Bridge;
use crate::time::Moment;
use crate::worker::Worker;

use super::root::{Shell, property, read};
use super::timers::Timers;

/// Envoy's side of one connection.
pub struct Connection {
    pub bridge: Bridge,
    /// When a wake-up stands in the timers, the earliest.
    pub scheduled: Option<Moment>,
    /// A downstream callback has come, so that the downstream buffer can be written.
    writable: bool,
    /// Bytes of the client stay in Envoy's buffer, where its read limit sees them.
    held: bool,
    closed: bool,
}

pub struct Stream {
    id: u32,
    /// `None` when the plugin was never configured: Envoy should not have come here.
    shell: Option<Rc<Shell>>,
    connection: Option<Rc<RefCell<Connection>>>,
}

impl Stream {
    pub fn new(id: u32, shell: Option<Rc<Shell>>) -> Self {
        Self { id, shell, connection: None }
    }

    /// Runs `act` on the connection, then carries out what it asks for.
    fn act(&self, act: impl FnOnce(&mut Connection, Moment, &mut Worker)) {
        let (Some(shell), Some(connection)) = (&self.shell, &self.connection) else { return };
        let now = shell.now();
        {
            let mut connection = connection.borrow_mut();
            let mut worker = shell.worker.borrow_mut();
            act(&mut connection, now, &mut worker);
            connection.schedule(self.id, &mut shell.timers.borrow_mut());
            if connection.wants_nudge() {
                shell.nudge(self.id);
            }
        }
        if shell.transmit(now) {
            let _ = hostcalls::set_effective_context(self.id);
        }
    }

    fn end(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let Some(shell) = &self.shell else { return };
        let now = shell.now();
        let mut connection = connection.borrow_mut();
        let line = connection.bridge.handle_closed(now, &mut shell.worker.borrow_mut());
        if let Some(line) = line {
            log::info!("{line}");
        }
        drop(connection);
        shell.connections.borrow_mut().remove(&self.id);
        shell.transmit(now);
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        self.end();
        true
    }
}

impl StreamContext for Stream {
    fn on_new_connection(&mut self) -> Action {
        let Some(shell) = &self.shell else {
            let _ = hostcalls::close_downstream();
            return Action::Pause;
        };
        let now = shell.now();
        let peer = property(&["source", "address"]);
        let bridge = Bridge::new(self.id, &shell.terms, now, peer, &mut shell.worker.borrow_mut());
        let opens_at_once = bridge.opens_at_once();
        let connection = Rc::new(RefCell::new(Connection {
            bridge,
            scheduled: None,
            writable: false,
            held: false,
            closed: false,
        }));
        if opens_at_once {
            // tcp_proxy picks its cluster as soon as this callback continues.
            connection.borrow_mut().choose_cluster();
        }
        connection.borrow_mut().schedule(self.id, &mut shell.timers.borrow_mut());
        shell.connections.borrow_mut().insert(self.id, Rc::clone(&connection));
        self.connection = Some(connection);
        if opens_at_once { Action::Continue } else { Action::Pause }
    }

    fn on_downstream_data(&mut self, size: usize, end: bool) -> Action {
        self.act(|connection, now, worker| {
            connection.writable = true;
            let data = read(BufferType::DownstreamData, size);
            connection.take_in(now, &data, end, worker);
            connection.finish(now);
        });
        // Always: see the module's documentation.
        Action::Pause
    }

    fn on_upstream_data(&mut self, size: usize, end: bool) -> Action {
        let id = self.id;
        self.act(|connection, now, worker| {
            let data = read(BufferType::UpstreamData, size);
            connection.bridge.handle_upstream(now, &data, end, worker);
            let to_client = connection.bridge.client_output();
            if size > 0 || !to_client.is_empty() {
                let _ = hostcalls::set_buffer(BufferType::UpstreamData, 0, size, to_client);
            }
            connection.bridge.client_output_sent(now, worker);
            if end {
                // Envoy tells of this end once more after the callback, and the stream has to be
                // there for it: what is to be closed is closed by the next timer.
                connection.carry_on(now, worker);
            } else {
                connection.settle(now, id, worker);
            }
        });
        Action::Continue
    }

    fn on_downstream_close(&mut self, peer: PeerType) {
        let by_client = matches!(peer, PeerType::Remote);
        self.act(|connection, now, _| {
            connection.closed = true;
            connection.bridge.handle_ending(now, Ending::Downstream { by_client });
        });
    }

    fn on_upstream_close(&mut self, _: PeerType) {
        self.act(|connection, now, _| connection.bridge.handle_ending(now, Ending::Upstream));
    }
}

impl Connection {
    /// Gives the client's bytes to the bridge and leaves in Envoy's buffer what it does not take.
    fn take_in(&mut self, now: Moment, data: &[u8], end: bool, worker: &mut Worker) {
        let taken = self.bridge.handle_downstream(now, data, end, worker);
        self.held = taken < data.len();
        let output = self.bridge.upstream_output();
        if !output.is_empty() || self.bridge.wants_resume() {
            self.choose_cluster();
            self.write_upstream(worker);
        } else {
            let rest = self.bridge.take_rest();
            if taken > 0 || !rest.is_empty() {
                let _ = hostcalls::set_buffer(BufferType::DownstreamData, 0, taken, &rest);
            }
            self.held |= !rest.is_empty();
        }
    }

    /// After anything but the client's own bytes: lets the bridge have the bytes that it had
    /// left in Envoy's buffer, and carries its output.
    pub fn settle(&mut self, now: Moment, _id: u32, worker: &mut Worker) {
        self.carry_on(now, worker);
        self.finish(now);
    }

    fn carry_on(&mut self, now: Moment, worker: &mut Worker) {
        let writes = !self.bridge.upstream_output().is_empty() || self.bridge.wants_resume();
        if self.writable && !self.closed && (writes || self.bridge.wants_input()) {
            let held =
                if self.held { read(BufferType::DownstreamData, usize::MAX) } else { Vec::new() };
            self.take_in(now, &held, false, worker);
        }
    }

    /// It has to put bytes back into Envoy's buffer before Envoy reads on.
    pub fn wants_nudge(&self) -> bool {
        self.writable && !self.closed && self.bridge.holds_rest()
    }

    fn finish(&mut self, now: Moment) {
        if !self.closed && self.bridge.poll_close(now) {
            self.closed = true;
            let _ = hostcalls::close_downstream();
        }
    }

    pub fn schedule(&mut self, id: u32, timers: &mut Timers) {
        if self.closed {
            return;
        }
        let Some(wanted) = self.bridge.poll_timeout() else { return };
        if self.scheduled.is_none_or(|scheduled| wanted < scheduled) {
            self.scheduled = Some(wanted);
            timers.schedule(wanted, id);
        }
    }

    fn write_upstream(&mut self, worker: &mut Worker) {
        let output = self.bridge.upstream_output();
        let _ = hostcalls::set_buffer(BufferType::DownstreamData, 0, usize::MAX, output);
        let _ = hostcalls::resume_downstream();
        self.bridge.upstream_output_sent(worker);
    }

    /// tcp_proxy looks for its cluster when it is resumed for the first time.
    fn choose_cluster(&mut self) {
        if let Some(cluster) = self.bridge.take_cluster() {
            let arguments = filter_state("envoy.tcp_proxy.cluster", &cluster);
            let set = hostcalls::call_foreign_function("set_envoy_filter_state", Some(&arguments));
            if let Err(status) = set {
                log::warn!("meshgate: cannot choose cluster {cluster:?}: {status:?}");
            }
        }
    }
}

/// `envoy.source.extensions.common.wasm.SetEnvoyFilterStateArguments`: 1 path, 2 value; the
/// span (3) stays at its default, the filter chain.
fn filter_state(path: &str, value: &str) -> Vec<u8> {
    use prost::encoding::string;
    let mut out = Vec::new();
    string::encode(1, &path.to_owned(), &mut out);
    string::encode(2, &value.to_owned(), &mut out);
    out
}
