//! One plugin configuration on one worker: its connections, its timers, its link to the companion.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{BufferType, ContextType};

use crate::bridge::Terms;
use crate::companion::push::{Delivery, Leave, NotPushed};
use crate::companion::{Answer, Event, Token, Transmit};
use crate::config::Config;
use crate::metrics::Metric;
use crate::time::Moment;
use crate::worker::Worker;

use super::connection::{Connection, Stream};
use super::metrics;
use super::timers::Timers;
use super::watch::Watch;

/// How often deadlines are looked at: errors are late by this at most. Fifty looks a second
/// cost an idle worker a hundredth of a percent of a core.
const TICK: Duration = Duration::from_millis(10);

/// How many ticks pass between two deliveries of metrics: operators look at seconds.
const TICKS_PER_PUBLICATION: u32 = 50;

pub struct Root {
    id: u32,
    shell: Option<Rc<Shell>>,
    ticks: u32,
}

/// What the root context shares with its connections.
pub struct Shell {
    pub root: u32,
    pub terms: Rc<Terms>,
    pub worker: RefCell<Worker>,
    pub connections: RefCell<HashMap<u32, Rc<RefCell<Connection>>>>,
    pub timers: RefCell<Timers>,
    /// Connections that want another callback before Envoy reads anything; see [`Shell::nudge`].
    nudged: RefCell<Vec<u32>>,
    queue: Option<u32>,
    companion_connected: Cell<bool>,
    watch: Watch,
    start: Instant,
}

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, shell: None, ticks: 0 }
    }
}

impl Context for Root {
    fn on_grpc_stream_message(&mut self, token: Token, size: usize) {
        let message = read(BufferType::GrpcReceiveBuffer, size);
        self.report(|worker, now| worker.link.stream_message(now, token, &message));
    }

    fn on_grpc_stream_close(&mut self, token: Token, status: u32) {
        self.report(|worker, now| worker.link.stream_closed(now, token, status));
        // Envoy keeps the token until it is cancelled, whoever closed the stream.
        let _ = hostcalls::cancel_grpc_stream(token);
    }

    fn on_http_call_response(&mut self, _: Token, _: usize, _: usize, _: usize) {
        let Some(shell) = &self.shell else { return };
        let drain = shell.terms.config.drain.as_ref();
        if let Some(leave) = drain.and_then(|drain| shell.watch.answered(drain)) {
            shell.ask_to_leave(shell.now(), &leave);
        }
    }
}

impl Root {
    /// Tells the link what came, and carries what it has to say.
    fn report(&self, tell: impl FnOnce(&mut Worker, Moment)) {
        let Some(shell) = &self.shell else { return };
        let now = shell.now();
        tell(&mut shell.worker.borrow_mut(), now);
        shell.pump(now);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let document = read(BufferType::PluginConfiguration, size);
        let config = match Config::parse(&document) {
            Ok(config) => config,
            Err(error) => {
                log::error!("meshgate: configuration refused: {error}");
                return false;
            }
        };
        log::debug!("meshgate: configured with {} routes", config.routes.len());
        self.shell = Some(Rc::new(Shell::new(self.id, Rc::new(Terms::new(config)))));
        let _ = hostcalls::set_tick_period(TICK);
        true
    }

    fn on_tick(&mut self) {
        let Some(shell) = self.shell.clone() else { return };
        let now = shell.now();
        if shell.terms.config.companion.is_some() {
            shell.worker.borrow_mut().link.handle_timeout(now);
            shell.pump(now);
        }
        if let Some(watch) =
            shell.terms.config.drain.as_ref().and_then(|drain| drain.watch.as_ref())
        {
            shell.watch.look(now, watch);
        }
        shell.wake(now);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_PUBLICATION) {
            metrics::publish(&mut shell.worker.borrow_mut().metrics);
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        let _ = hostcalls::dequeue_shared_queue(queue);
        let Some(shell) = &self.shell else { return };
        let now = shell.now();
        for id in shell.nudged.take() {
            shell.with_connection(id, |connection, shell| {
                connection.settle(now, id, &mut shell.worker.borrow_mut());
            });
        }
        shell.transmit(now);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }

    fn create_stream_context(&self, id: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Stream::new(id, self.shell.clone())))
    }
}

impl Shell {
    fn new(root: u32, terms: Rc<Terms>) -> Self {
        // Named by chance: queues are shared by every plugin of the proxy.
        let queue = hostcalls::register_shared_queue(&format!("meshgate.{:016x}", seed())).ok();
        Self {
            root,
            nudged: RefCell::default(),
            queue,
            worker: RefCell::new(Worker::new(&terms, seed(), property(&["xds", "node", "id"]))),
            terms,
            connections: RefCell::default(),
            timers: RefCell::default(),
            companion_connected: Cell::new(false),
            watch: Watch::default(),
            start: now(),
        }
    }

    pub fn now(&self) -> Moment {
        let since = now().saturating_duration_since(self.start);
        Moment::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Carries what the link has to say: to the companion, to connections, to the log.
    fn pump(&self, now: Moment) {
        self.transmit(now);
        while let Some(answer) = self.poll_answer() {
            self.deliver(now, answer);
        }
        while let Some(delivery) = self.poll_push() {
            self.push(now, &delivery);
        }
        self.transmit(now);
        while let Some(event) = self.poll_event() {
            log::log!(event.level(), "meshgate: {event}");
        }
        let connected = self.worker.borrow().link.is_connected();
        if self.companion_connected.replace(connected) != connected {
            let change = if connected { 1 } else { -1 };
            self.worker.borrow_mut().metrics.add(Metric::CompanionConnected, change);
        }
    }

    fn poll_answer(&self) -> Option<Answer> {
        self.worker.borrow_mut().link.poll_answer()
    }

    fn poll_push(&self) -> Option<Delivery> {
        self.worker.borrow_mut().link.poll_push()
    }

    fn poll_event(&self) -> Option<Event> {
        self.worker.borrow_mut().link.poll_event()
    }

    fn poll_transmit(&self) -> Option<Transmit> {
        self.worker.borrow_mut().link.poll_transmit()
    }

    /// Sends what waits for the companion. The stream belongs to the root context, which is
    /// made effective for it. True if it was, and the caller's own has to be restored.
    pub fn transmit(&self, now: Moment) -> bool {
        let mut switched = false;
        while let Some(transmit) = self.poll_transmit() {
            if !switched {
                let _ = hostcalls::set_effective_context(self.root);
                switched = true;
            }
            self.carry_out(now, transmit);
        }
        switched
    }

    fn carry_out(&self, now: Moment, transmit: Transmit) {
        match transmit {
            Transmit::OpenStream => self.open_stream(now),
            Transmit::Send { token, message } => {
                let _ = hostcalls::send_grpc_stream_message(token, Some(&message), false);
            }
            Transmit::Cancel { token } => {
                let _ = hostcalls::cancel_grpc_stream(token);
            }
        }
    }

    /// Only on a tick: the SDK gives a stream's callbacks to the context that is active here.
    fn open_stream(&self, now: Moment) {
        let Some(companion) = &self.terms.config.companion else { return };
        let (target, service) = (companion.grpc_service(), "meshgate.edge.v1.Edge");
        let opened = hostcalls::open_grpc_stream(&target, service, "Attach", Vec::new());
        let link = &mut self.worker.borrow_mut().link;
        match opened {
            Ok(token) => link.stream_opened(now, token),
            Err(status) => {
                log::warn!("meshgate: no stream to cluster {:?}: {status:?}", companion.cluster);
                link.open_failed(now);
            }
        }
    }

    fn deliver(&self, now: Moment, answer: Answer) {
        let id = answer.connection;
        self.with_connection(id, |connection, shell| {
            let mut worker = shell.worker.borrow_mut();
            connection.bridge.handle_companion(now, answer, &mut worker);
            connection.settle(now, id, &mut worker);
        });
    }

    fn push(&self, now: Moment, delivery: &Delivery) {
        let id = delivery.connection;
        let mut taken = false;
        self.with_connection(id, |connection, shell| {
            let mut worker = shell.worker.borrow_mut();
            connection.bridge.handle_push(now, delivery, &mut worker);
            connection.settle(now, id, &mut worker);
            taken = true;
        });
        if !taken {
            self.worker.borrow_mut().link.pushed(delivery.ticket, Err(NotPushed::Gone));
        }
    }

    /// Asks the client of every connection; those that were asked before are not asked again.
    fn ask_to_leave(&self, now: Moment, leave: &Leave) {
        let all: Vec<u32> = self.connections.borrow().keys().copied().collect();
        for id in all {
            self.with_connection(id, |connection, shell| {
                let mut worker = shell.worker.borrow_mut();
                connection.bridge.handle_leave(now, leave, &mut worker);
                connection.settle(now, id, &mut worker);
            });
        }
        self.transmit(now);
    }

    /// Looks at every connection whose moment has come.
    fn wake(&self, now: Moment) {
        // Taken out first: whoever asks for the same moment again is looked at on the next tick.
        let due = self.timers.borrow_mut().take_due(now);
        for id in due {
            self.with_connection(id, |connection, shell| {
                connection.scheduled = None;
                let mut worker = shell.worker.borrow_mut();
                connection.bridge.handle_timeout(now, &mut worker);
                connection.settle(now, id, &mut worker);
            });
        }
        self.transmit(now);
    }

    /// Asks for a callback in which a connection can put back what it took from Envoy's buffer.
    /// Envoy delivers a queue's message to this very thread before it looks at sockets again, so
    /// that its buffer never looks empty to its own read limit.
    pub fn nudge(&self, id: u32) {
        let Some(queue) = self.queue else { return };
        let mut nudged = self.nudged.borrow_mut();
        if nudged.is_empty() {
            let _ = hostcalls::enqueue_shared_queue(queue, None);
        }
        nudged.push(id);
    }

    /// Runs `act` on a connection as if in one of its own callbacks.
    fn with_connection(&self, id: u32, act: impl FnOnce(&mut Connection, &Self)) {
        let Some(connection) = self.connections.borrow().get(&id).cloned() else { return };
        if hostcalls::set_effective_context(id).is_ok() {
            let mut connection = connection.borrow_mut();
            act(&mut connection, self);
            connection.schedule(id, &mut self.timers.borrow_mut());
            if connection.wants_nudge() {
                self.nudge(id);
            }
        }
    }
}

/// Reads a whole buffer; what the host cannot give reads as empty.
pub fn read(buffer: BufferType, size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    hostcalls::get_buffer(buffer, 0, size).ok().flatten().unwrap_or_default()
}

/// A property as text; empty if there is none.
pub fn property(path: &[&str]) -> String {
    let bytes = hostcalls::get_property(path.to_vec()).ok().flatten().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The monotonic clock, through Envoy's WASI.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// A seed from the host's randomness.
#[allow(clippy::disallowed_methods)]
fn seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
