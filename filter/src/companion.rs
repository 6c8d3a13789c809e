//! The link to the companion: one stream for each worker VM, for as long as the VM lives.
//!
//! ```text
//!   connections ── login, activate, ended, forget ──> ┌──────┐ ── poll_transmit ──> host calls
//!                                                     │ Link │
//!   connections <──────── poll_answer, poll_push ──── └──────┘ <── stream_*, handle_timeout
//! ```
//!
//! Sans-I/O: the host does what [`Link::poll_transmit`] says and reports what comes back. After
//! each call into the link, drain `poll_transmit`, `poll_answer`, `poll_push` and `poll_event`, and
//! set a timer for `poll_timeout`.
//!
//! What holds whatever the companion does:
//! - each login and each activation gets exactly one answer, at the latest after
//!   [`LinkConfig::answer_within`], unless the connection is forgotten before;
//! - a stream that ends is opened again, after a pause that grows and is different on each
//!   worker; sessions that live go on meanwhile, and are told to the companion when it is back;
//! - memory is bounded by [`LinkConfig::max_pending`] and the number of connections.

mod backoff;
mod book;
mod event;
mod incoming;
pub mod push;
mod stream;
mod wire;

use std::collections::VecDeque;
use std::time::Duration;

use crate::session::login::{Accepted, Hold, Mode, Refusal};
use crate::time::Moment;

use book::{Book, Entry, Stage};
pub use event::Event;
use push::{Delivery, NotPushed, Pushes, Ticket};
pub use stream::Token;
use stream::{Phase, Stream};

/// The version of the contract `meshgate.edge.v1` that this filter speaks.
pub const CONTRACT: u32 = 1;

/// The largest message taken from the companion. The largest that it has reason to send is a push
/// with the longest body, for as many sessions as may be.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// How many sessions a Hello lists at most, 26 bytes each: two thirds of what the companion takes, and
/// more connections than a worker can have. Sessions beyond it would not hear of kicks.
pub const MAX_LISTED: usize = 400_000;
/// The longest name of a proxy, in bytes; what is longer is cut.
pub const MAX_NAME: usize = 256;
/// How many ended sessions are remembered while there is no stream to tell of them; beyond that
/// the oldest are forgotten, and the companion learns of them from the next Hello alone.
pub const MAX_ENDED: usize = 4096;
/// How many deadlines may pass without any sign of the companion until its stream is given up
/// for dead: one may be a slow disk, three are a companion that hangs.
pub const SILENT_DEADLINES: u32 = 3;
/// The longest reason or text taken over from the companion, in bytes; what is longer is cut.
pub const MAX_TEXT: usize = 256;

/// What a link needs to know.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Names the proxy in the companion's logs and listings.
    pub proxy: String,
    /// The longest time that a login or an activation waits for its answer.
    pub answer_within: Duration,
    /// How many logins may wait at once.
    pub max_pending: usize,
    /// Any number that differs between workers: spreads their reconnects, and names the worker to
    /// the companion.
    pub seed: u64,
}

impl LinkConfig {
    /// What a player waits before believing that the game is down.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
    /// A second's worth of logins of one worker, with room; 8 MiB if each is as large as it may.
    pub const MAX_PENDING: usize = 1024;

    pub fn new(proxy: impl Into<String>, seed: u64) -> Self {
        Self {
            proxy: proxy.into(),
            answer_within: Self::ANSWER_WITHIN,
            max_pending: Self::MAX_PENDING,
            seed,
        }
    }
}

/// A login to pass on.
#[derive(Clone, Copy, Debug)]
pub struct LoginRequest<'a> {
    /// Not [`Mode::None`]: nobody logs in there.
    pub mode: Mode,
    /// What the session is for.
    pub audience: &'a str,
    /// The name of the frame layout.
    pub layout: &'a str,
    /// The login frame's body.
    pub message: &'a [u8],
    /// The client's address and port.
    pub peer: &'a str,
}

/// As many logins wait as may: refuse this one with [`Refusal::TryAgain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkBusy;

/// What the host has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Open the stream `meshgate.edge.v1.Edge/Attach`, then say [`Link::stream_opened`] or
    /// [`Link::open_failed`].
    OpenStream,
    /// Send one message.
    Send { token: Token, message: Vec<u8> },
    /// Let go of the stream. Also asked for after the other side closed it.
    Cancel { token: Token },
}

/// What the companion decided about a connection.
#[derive(Debug)]
pub struct Answer {
    pub connection: u32,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    LoginAccepted(Accepted),
    /// `text` is for the client; empty if the companion had nothing to say.
    LoginRefused {
        refusal: Refusal,
        text: String,
    },
    /// The session may live.
    Activated,
    /// The session must not live.
    ActivationRefused {
        text: String,
    },
    /// Say goodbye, then close.
    Kick {
        reason: String,
        code: u32,
    },
}

/// The link of one worker. See the module's documentation.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    stream: Stream,
    book: Book,
    /// Counts logins and activations; the upper half of a reference.
    count: u32,
    /// Logins not sent yet, by their references; as many as wait at most.
    logins: VecDeque<(u64, Vec<u8>)>,
    /// References of activations not sent yet, or sent on a stream that was lost. Some may have
    /// been given up; they are passed over. As many as there are sessions at most.
    activations: VecDeque<u64>,
    /// And whether their clients logged out.
    ended: VecDeque<(Hold, bool)>,
    answers: VecDeque<Answer>,
    pushes: Pushes,
    /// Deadlines that passed since the companion was last heard of.
    silent: u32,
}

/// # Getters
impl Link {
    pub const fn is_connected(&self) -> bool {
        matches!(self.stream.phase(), Phase::Ready { .. })
    }

    /// How many connections wait for the companion.
    pub fn pending(&self) -> usize {
        self.book.waiting()
    }

    /// How many sessions live on this worker, pending ones included.
    pub fn sessions(&self) -> usize {
        self.book.sessions()
    }
}

/// # Commands
impl Link {
    /// A link that opens its stream at the first [`Link::handle_timeout`]. Not earlier: a
    /// configuration is tried on a VM that is thrown away, and no timer fires there.
    pub fn new(mut config: LinkConfig) -> Self {
        config.proxy = wire::name(&config.proxy);
        let stream = Stream::new(config.seed);
        Self {
            config,
            stream,
            book: Book::default(),
            count: 0,
            logins: VecDeque::new(),
            activations: VecDeque::new(),
            ended: VecDeque::new(),
            answers: VecDeque::new(),
            pushes: Pushes::default(),
            silent: 0,
        }
    }

    /// Asks the companion to let a client in.
    pub fn login(
        &mut self,
        now: Moment,
        connection: u32,
        login: LoginRequest<'_>,
    ) -> Result<(), LinkBusy> {
        if self.book.waiting() >= self.config.max_pending || self.book.knows(connection) {
            return Err(LinkBusy);
        }
        let deadline = now.after(self.config.answer_within);
        if self.stream.rests_beyond(deadline) {
            // Nobody will be there in time: no need to make the client wait for it.
            self.answer(connection, try_again());
            return Ok(());
        }
        let reference = self.reference(connection);
        self.logins.push_back((reference, wire::login(reference, &login)));
        let stage = Stage::Login { mode: login.mode, sent: false };
        self.book.insert(connection, Entry { reference, deadline, stage });
        Ok(())
    }

    /// Asks the companion to activate a pending session: its first frame was genuine.
    pub fn activate(&mut self, now: Moment, connection: u32, hold: Hold) {
        if self.book.pending_hold(connection) != Some(hold) {
            let text = Refusal::TryAgain.text().to_owned();
            self.answer(connection, Outcome::ActivationRefused { text });
            return;
        }
        let reference = self.reference(connection);
        let deadline = now.after(self.config.answer_within);
        let stage = Stage::Activation { hold, sent: false };
        self.book.insert(connection, Entry { reference, deadline, stage });
        self.activations.push_back(reference);
    }

    /// What came of a push at one connection: its frame is with Envoy, or why it is not.
    pub fn pushed(&mut self, ticket: Ticket, outcome: Result<(), NotPushed>) {
        self.pushes.report(ticket, outcome);
    }

    /// A connection is gone, or its client has been sent away. What it asked for is not answered
    /// any more; its session, if it has
    /// one, is reported as ended.
    pub fn forget(&mut self, connection: u32) {
        self.end(connection, false);
    }

    /// The same, for a client that will not come back: its session is reported as over for good.
    pub fn log_out(&mut self, connection: u32) {
        self.end(connection, true);
    }

    fn end(&mut self, connection: u32, logout: bool) {
        let Some(entry) = self.book.remove(connection) else { return };
        self.unqueue(&entry);
        self.answers.retain(|answer| answer.connection != connection);
        if let Some(hold) = entry.stage.hold() {
            self.report_ended(hold, logout);
        }
    }

    /// A login that nobody waits for any more is not sent.
    fn unqueue(&mut self, entry: &Entry) {
        if matches!(entry.stage, Stage::Login { sent: false, .. }) {
            self.logins.retain(|(reference, _)| *reference != entry.reference);
        }
    }

    fn report_ended(&mut self, hold: Hold, logout: bool) {
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((hold, logout));
    }

    /// The connection's number is in it, so that an answer finds its way without a look-up.
    fn reference(&mut self, connection: u32) -> u64 {
        self.count = self.count.wrapping_add(1);
        u64::from(self.count) << 32 | u64::from(connection)
    }

    fn answer(&mut self, connection: u32, outcome: Outcome) {
        self.answers.push_back(Answer { connection, outcome });
    }
}

/// # Poll
impl Link {
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(transmit) = self.stream.poll_transmit() {
            return Some(transmit);
        }
        let token = self.stream.token()?;
        let message = self.poll_message()?;
        Some(Transmit::Send { token, message })
    }

    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// A push for a connection, after the answers that came before it.
    pub fn poll_push(&mut self) -> Option<Delivery> {
        self.pushes.next_delivery()
    }

    /// Something worth a line in the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.stream.poll_event()
    }

    /// When [`Link::handle_timeout`] is due, at once if that lies in the past.
    pub fn poll_timeout(&self) -> Option<Moment> {
        [self.book.next_deadline(), self.stream.timeout()].into_iter().flatten().min()
    }

    fn poll_message(&mut self) -> Option<Vec<u8>> {
        if self.stream.greet() {
            let holds = self.book.all_holds().take(MAX_LISTED);
            return Some(wire::hello(&self.config.proxy, self.config.seed.max(1), holds));
        }
        if !self.is_connected() {
            return None;
        }
        if let Some((hold, logout)) = self.ended.pop_front() {
            return Some(wire::ended(hold, logout));
        }
        if let Some(pushed) = self.pushes.next_answer() {
            return Some(wire::pushed(pushed));
        }
        while let Some(reference) = self.activations.pop_front() {
            if let Some((_, Stage::Activation { hold, .. })) = self.book.asked(reference) {
                self.book.mark_sent(reference);
                return Some(wire::activate(reference, hold));
            }
        }
        if self.stream.agree() {
            return Some(wire::drained());
        }
        if !self.stream.takes_logins() {
            return None;
        }
        let (reference, message) = self.logins.pop_front()?;
        self.book.mark_sent(reference);
        Some(message)
    }
}

/// For tests of connections, which have no companion.
#[cfg(test)]
impl Link {
    pub(crate) fn begin_push(&mut self, reference: u64, push: push::Push, connection: u32) {
        self.pushes.begin(reference, push, &[connection], 0);
    }

    /// References and numbers (delivered, gone, slow, refused) of what was answered.
    pub(crate) fn push_answers(&mut self) -> Vec<(u64, [u32; 4])> {
        std::iter::from_fn(|| self.pushes.next_answer())
            .map(|a| (a.r#ref, [a.delivered, a.gone, a.slow, a.refused]))
            .collect()
    }
}

fn try_again() -> Outcome {
    Outcome::LoginRefused { refusal: Refusal::TryAgain, text: String::new() }
}

#[cfg(test)]
mod tests;
