//! The stream's own life: opened, greeted, lost, opened again.
//!
//! ```text
//!             timeout              opened()             welcomed()
//!   Resting ----------> Asked ----------------> Greeting ----------> Ready
//!      ^                  | open_failed()          | no welcome        | closed(), give_up()
//!      +------------------+------------------------+-------------------+
//! ```
//!
//! A companion that stops says so before: no login goes out on the stream any more, they wait for
//! the next one, which is opened without a pause.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Moment;

use super::Transmit;
use super::backoff::Backoff;
use super::event::Event;

/// The host's name for a stream.
pub type Token = u32;

/// From an opened stream to the companion's welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// A stream that held so long was a good one: the next pause is short again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// The gRPC status `FAILED_PRECONDITION`.
const FAILED_PRECONDITION: u32 = 9;
/// From a companion's word that it stops to the end of its stream: more than it gives itself.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);
/// How often the same complaint is repeated while nothing gets better.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Events kept if nobody asks for them; beyond that the oldest go.
const MAX_EVENTS: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Resting {
        until: Moment,
    },
    /// `told` is whether the host knows that it shall open a stream.
    Asked {
        told: bool,
    },
    /// `said` is whether the Hello is.
    Greeting {
        token: Token,
        deadline: Moment,
        said: bool,
    },
    Ready {
        token: Token,
        since: Moment,
        drain: Drain,
    },
}

/// Whether the companion is about to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// It said so, and ends the stream by then.
    Asked {
        until: Moment,
    },
    /// It knows that no login follows.
    Agreed {
        until: Moment,
    },
}

#[derive(Debug)]
pub(super) struct Stream {
    phase: Phase,
    backoff: Backoff,
    cancel: VecDeque<Token>,
    events: VecDeque<Event>,
    /// What was last said to be wrong since the last welcome, and when.
    complaint: Option<(Event, Moment)>,
}

impl Stream {
    pub fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Resting { until: Moment::from_micros(0) },
            backoff: Backoff::new(seed),
            cancel: VecDeque::new(),
            events: VecDeque::new(),
            complaint: None,
        }
    }

    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The stream to send on.
    pub const fn token(&self) -> Option<Token> {
        match self.phase {
            Phase::Greeting { token, .. } | Phase::Ready { token, .. } => Some(token),
            Phase::Resting { .. } | Phase::Asked { .. } => None,
        }
    }

    pub fn is_current(&self, token: Token) -> bool {
        self.token() == Some(token)
    }

    /// Whether no try will be made before `deadline`.
    pub fn rests_beyond(&self, deadline: Moment) -> bool {
        matches!(self.phase, Phase::Resting { until } if until >= deadline)
    }

    /// Whether the Hello is to be said now; it counts as said then.
    pub const fn greet(&mut self) -> bool {
        match &mut self.phase {
            Phase::Greeting { said, .. } => !std::mem::replace(said, true),
            _ => false,
        }
    }

    pub fn opened(&mut self, now: Moment, token: Token) {
        if matches!(self.phase, Phase::Asked { .. }) {
            let deadline = now.after(WELCOME_WITHIN);
            self.phase = Phase::Greeting { token, deadline, said: false };
        } else {
            // Nobody asked for it.
            self.cancel.push_back(token);
        }
    }

    pub fn open_failed(&mut self, now: Moment) {
        if matches!(self.phase, Phase::Asked { .. }) {
            let pause = self.backoff.next();
            self.rest(now, pause, Event::Unreachable);
        }
    }

    pub fn welcomed(&mut self, now: Moment, companion: String) {
        if let Phase::Greeting { token, .. } = self.phase {
            self.phase = Phase::Ready { token, since: now, drain: Drain::No };
            self.complaint = None;
            self.note(Event::Connected { companion });
        }
    }

    /// The companion is about to stop.
    pub fn drain(&mut self, now: Moment) {
        if let Phase::Ready { drain: drain @ Drain::No, .. } = &mut self.phase {
            *drain = Drain::Asked { until: now.after(DRAINED_WITHIN) };
            self.note(Event::Draining);
        }
    }

    /// Whether logins may go out.
    pub const fn takes_logins(&self) -> bool {
        matches!(self.phase, Phase::Ready { drain: Drain::No, .. })
    }

    /// Whether it is to be said now that no login follows; it counts as said then.
    pub const fn agree(&mut self) -> bool {
        match &mut self.phase {
            Phase::Ready { drain, .. } => match *drain {
                Drain::Asked { until } => {
                    *drain = Drain::Agreed { until };
                    true
                }
                Drain::No | Drain::Agreed { .. } => false,
            },
            _ => false,
        }
    }

    /// Whether that was the current stream. It has to be let go of all the same: the host keeps
    /// a half-closed one otherwise.
    pub fn closed(&mut self, now: Moment, token: Token, status: u32) -> bool {
        let why = match self.phase {
            // What a companion answers to a Hello of another contract.
            Phase::Greeting { .. } if status == FAILED_PRECONDITION => Event::HelloRefused,
            _ => Event::Closed { status },
        };
        self.is_current(token) && self.give_up(now, why)
    }

    /// Lets go of the current stream. Whether there was one.
    pub fn give_up(&mut self, now: Moment, why: Event) -> bool {
        let Some(token) = self.token() else { return false };
        self.cancel.push_back(token);
        // Where only another release on one of the sides helps, the next try will fail too.
        let pause = match why {
            Event::WrongContract { .. } | Event::HelloRefused => self.backoff.longest(),
            _ => self.next_pause(now),
        };
        self.rest(now, pause, why);
        true
    }

    /// Whether the current stream was given up.
    pub fn handle_timeout(&mut self, now: Moment) -> bool {
        match self.phase {
            Phase::Resting { until } if until <= now => {
                self.phase = Phase::Asked { told: false };
                false
            }
            Phase::Greeting { deadline, .. } if deadline <= now => {
                self.give_up(now, Event::NoWelcome)
            }
            Phase::Ready { drain: Drain::Asked { until } | Drain::Agreed { until }, .. }
                if until <= now =>
            {
                self.give_up(now, Event::Silent)
            }
            _ => false,
        }
    }

    pub const fn timeout(&self) -> Option<Moment> {
        match self.phase {
            Phase::Resting { until } => Some(until),
            Phase::Greeting { deadline, .. } => Some(deadline),
            Phase::Ready { drain: Drain::Asked { until } | Drain::Agreed { until }, .. } => {
                Some(until)
            }
            Phase::Asked { .. } | Phase::Ready { .. } => None,
        }
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(token) = self.cancel.pop_front() {
            return Some(Transmit::Cancel { token });
        }
        if let Phase::Asked { told: false } = self.phase {
            self.phase = Phase::Asked { told: true };
            return Some(Transmit::OpenStream);
        }
        None
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn note(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn next_pause(&mut self, now: Moment) -> Duration {
        match self.phase {
            // Another one is there, or will be soon; if not, the pause after that is no shorter.
            Phase::Ready { drain: Drain::Asked { .. } | Drain::Agreed { .. }, .. } => {
                return Duration::ZERO;
            }
            Phase::Ready { since, .. } if now.since(since) >= GOOD_AFTER => self.backoff.reset(),
            _ => {}
        }
        self.backoff.next()
    }

    fn rest(&mut self, now: Moment, pause: Duration, why: Event) {
        self.phase = Phase::Resting { until: now.after(pause) };
        let said = self
            .complaint
            .as_ref()
            .is_some_and(|(complaint, at)| *complaint == why && now.since(*at) < COMPLAIN_EVERY);
        if !said {
            self.complaint = Some((why.clone(), now));
            self.note(why);
            self.note(Event::RetryIn(pause));
        }
    }
}
