//! The side toward a private server: what both directions need that end at one.
//!
//! ```text
//!   calls -> pending: a sequence of our own -> frames -> [tunnel] -> private server
//!   calls <- pending: whose reply it is     <- frames <- [tunnel] <- private server
//! ```
//!
//! Calls of several callers share the one connection, told apart by sequences of our own, or by
//! their order where frames have no sequence. What the server is told besides calls is here too: the
//! login that begins a connection, the heartbeat, which is also the doorbell, and the cancel of a
//! call that was given up.
//!
//! Sans-I/O. What came from upstream is read in two steps, so that frames can be borrowed from it:
//! [`arrive`](Initiator::arrive) gives the server's bytes, [`poll`](Initiator::poll) what they say.

mod bell;
mod pending;
mod reading;
mod sending;

use std::rc::Rc;

use crate::bridge::Terms;
use crate::config::ServerConfig;
use crate::metrics::{Labelled, Metric};
use crate::protocol::grpc::tunnel::Tunnel;
use crate::protocol::layout::{Frame, Layout};
use crate::time::Moment;
use crate::worker::Worker;

use bell::Login;
use pending::Pending;
pub use pending::Who;
pub use reading::Arrived;

/// What the server said.
#[derive(Debug)]
pub enum Event<'i> {
    /// The reply to this call, which it ends. `fits` if it has the command of such a reply.
    Reply {
        token: u32,
        frame: Frame<'i>,
        fits: bool,
    },
    /// A frame that was not asked for, and the call whose sequence it has if it is a push. `kind` is
    /// the word for metrics, if nobody wants it.
    Unasked {
        frame: Frame<'i>,
        call: Option<u32>,
        kind: &'static str,
    },
    /// Calls may be asked now.
    LoggedIn,
    LoginRefused,
    /// Bytes that are no frame. Nothing after them can be read.
    Broken {
        reason: &'static str,
    },
}

/// Why the connection cannot stay as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The bell was lost, and with it the way to say anything to the caller.
    Bell(&'static str),
    /// The server is not what it should be: a word for metrics, a text for people.
    Server(&'static str, &'static str),
}

/// Frames and bytes since the last question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub frames_in: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
}

pub struct Initiator {
    terms: Rc<Terms>,
    /// What was asked of the server and not replied to.
    pending: Pending,
    max_calls: usize,
    /// What is to go to the server.
    output: Vec<u8>,
    /// Requests that wait for the login's reply.
    held: Vec<u8>,
    /// How it goes there, if not as it is.
    tunnel: Option<Box<Tunnel>>,
    /// The connection through the tunnel is to be given up.
    drops_server: bool,
    /// A frame of the server's that has arrived in part.
    partial: Vec<u8>,
    partial_since: Option<Moment>,
    login: Login,
    /// When the bell in flight has to be answered.
    bell: Option<Moment>,
    /// The same for a heartbeat that is not the bell, because there is a tunnel.
    pulse: Option<Moment>,
    /// The server is gone: nothing can be sent there any more.
    gone: bool,
    /// The caller has sent something, and there is a connection, so that something can be sent.
    reachable: bool,
    /// When the server said something last.
    heard_at: Moment,
    counts: Counts,
}

impl Initiator {
    /// `None` if the configuration has no private server. `max_calls` is how many calls may wait for
    /// their replies, late ones included.
    pub fn new(terms: &Rc<Terms>, now: Moment, max_calls: usize) -> Option<Self> {
        let server = terms.config.server.as_ref()?;
        Some(Self {
            pending: Pending::new(terms.config.server_layout(), max_calls),
            max_calls,
            output: Vec::new(),
            held: Vec::new(),
            tunnel: server.tunnel.as_ref().map(|authority| Box::new(Tunnel::new(authority))),
            drops_server: false,
            partial: Vec::new(),
            partial_since: None,
            login: Login::new(server),
            bell: None,
            pulse: None,
            gone: false,
            reachable: false,
            heard_at: now,
            counts: Counts::default(),
            terms: Rc::clone(terms),
        })
    }
}

/// # Getters
impl Initiator {
    /// Replies come in the order of the requests.
    pub fn is_ordered(&self) -> bool {
        self.pending.is_ordered()
    }

    /// One more call may be asked now.
    pub fn is_ready(&self) -> bool {
        self.login.is_done() && self.has_room()
    }

    /// One more call may be asked, now or when the login is done.
    pub fn has_room(&self) -> bool {
        self.pending.has_room() && !self.gone
    }

    /// Nothing can be sent any more.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    pub const fn is_tunnelled(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Bytes that wait for the login, or that the tunnel's other end has no room for.
    pub fn unsent(&self) -> usize {
        let unsent = self.tunnel.as_ref().map_or(0, |tunnel| tunnel.unsent());
        self.held.len().saturating_add(unsent)
    }

    /// When [`overdue`](Self::overdue) and [`beat_when_due`](Self::beat_when_due) want to be called.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let partial = self.terms.config.limits.partial_frame_timeout.get();
        [
            self.bell,
            self.pulse,
            self.login.deadline(),
            self.next_beat(),
            self.pending.next_expiry(),
            self.partial_since.map(|since| since.after(partial)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn layout(terms: &Terms) -> &Layout {
        terms.config.server_layout()
    }

    /// What is told to the server besides calls. There is one: `new` has looked.
    fn config(terms: &Terms) -> Option<&ServerConfig> {
        terms.config.server.as_ref()
    }
}

/// # Handle
impl Initiator {
    /// Bytes can go to the server from here on.
    pub const fn reached(&mut self) {
        self.reachable = true;
    }

    /// The server's side has closed.
    pub const fn closed(&mut self) {
        self.gone = true;
    }

    /// What of the server is later than it may be.
    pub fn overdue(&mut self, now: Moment, worker: &mut Worker) -> Option<Overdue> {
        let overdue = self.find_overdue(now)?;
        let (Overdue::Bell(reason) | Overdue::Server(reason, _)) = overdue;
        worker.metrics.count(Labelled::UpstreamErrors, reason);
        Some(overdue)
    }

    fn find_overdue(&mut self, now: Moment) -> Option<Overdue> {
        if self.bell.is_some_and(|by| by <= now) {
            return Some(Overdue::Bell("bell_unanswered"));
        }
        let silent =
            [(self.login.deadline(), "login_unanswered"), (self.pulse, "heartbeat_unanswered")];
        for (by, reason) in silent {
            if by.is_some_and(|by| by <= now) {
                // A tunnel has another bell.
                return Some(if self.tunnel.is_some() {
                    Overdue::Server(reason, "the server does not answer")
                } else {
                    Overdue::Bell(reason)
                });
            }
        }
        let partial = self.terms.config.limits.partial_frame_timeout.get();
        if self.partial_since.is_some_and(|since| since.after(partial) <= now) {
            self.partial_since = None;
            let text = "the rest of the server's frame did not come in time";
            return Some(Overdue::Server("partial_frame_timeout", text));
        }
        if self.pending.expire(now) && self.pending.is_ordered() {
            return Some(Overdue::Server("reply_lost", "the server lost a reply"));
        }
        None
    }

    /// Gives up the connection to the server, if there can be another. What was asked is forgotten.
    pub fn drop_server(&mut self) {
        self.drops_server = true;
        self.forget_server();
    }

    /// The connection to the server is gone; another one may be opened.
    pub(self) fn forget_server(&mut self) {
        let terms = Rc::clone(&self.terms);
        self.pending = Pending::new(Self::layout(&terms), self.max_calls);
        if let Some(server) = Self::config(&terms) {
            self.login = Login::new(server);
        }
        self.output.clear();
        self.held.clear();
        self.partial = Vec::new();
        self.partial_since = None;
        self.pulse = None;
    }

    /// Frames and bytes since the last question, counted by whoever asks.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

/// Counts what went between the filter and a server that gRPC callers call.
pub fn count(counts: Counts, worker: &mut Worker) {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (metric, count) in [
        (Metric::FramesIn, counts.frames_in),
        (Metric::BytesIn, counts.bytes_in),
        (Metric::FramesOut, counts.frames_out),
    ] {
        if count > 0 {
            worker.metrics.add(metric, signed(count));
        }
    }
}
