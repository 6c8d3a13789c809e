//! What the stream brings: its coming and going, the companion's messages, and time passing.

use crate::session::login::{Accepted, Hold, Mode, Refusal};
use crate::time::Moment;

use super::book::{Entry, Stage};
use super::stream::{Phase, Token};
use super::wire::Incoming;
use super::{CONTRACT, Event, Link, Outcome, SILENT_DEADLINES, try_again};

/// # Handle
///
/// Messages and closes of a stream other than the current one are ignored: a host may deliver
/// them late, or for a stream that it never handed out.
impl Link {
    /// The stream of [`Transmit::OpenStream`] is there.
    pub fn stream_opened(&mut self, now: Moment, token: Token) {
        self.stream.opened(now, token);
    }

    /// The stream of [`Transmit::OpenStream`] could not be opened.
    pub fn open_failed(&mut self, now: Moment) {
        self.stream.open_failed(now);
    }

    /// The stream is closed, with this gRPC status.
    pub fn stream_closed(&mut self, now: Moment, token: Token, status: u32) {
        if self.stream.closed(now, token, status) {
            self.lost();
        }
    }

    pub fn stream_message(&mut self, now: Moment, token: Token, message: &[u8]) {
        if !self.stream.is_current(token) {
            return;
        }
        self.silent = 0;
        match (Incoming::parse(message), self.stream.phase()) {
            (Err(fault), _) => self.give_up(now, Event::Fault(fault)),
            (Ok(Incoming::Welcome { contract, .. }), _) if contract != CONTRACT => {
                self.give_up(now, Event::WrongContract { theirs: contract });
            }
            (Ok(Incoming::Welcome { companion, .. }), Phase::Greeting { .. }) => {
                self.stream.welcomed(now, companion);
            }
            (Ok(Incoming::Welcome { .. } | Incoming::Unknown), _) => {}
            (Ok(Incoming::Drain), Phase::Ready { .. }) => self.stream.drain(now),
            (Ok(incoming), Phase::Ready { .. }) => self.incoming(incoming),
            (Ok(_), _) => self.give_up(now, Event::Fault("a message before its welcome")),
        }
    }

    /// The moment of [`Link::poll_timeout`] has come, or any other.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some(connection) = self.book.next_expired(now) {
            self.expire(connection);
        }
        if self.silent >= SILENT_DEADLINES {
            self.give_up(now, Event::Silent);
        }
        if self.stream.handle_timeout(now) {
            self.lost();
        }
    }

    fn expire(&mut self, connection: u32) {
        let Some(entry) = self.book.remove(connection) else { return };
        self.unqueue(&entry);
        let (Stage::Login { sent, .. } | Stage::Activation { sent, .. }) = entry.stage else {
            return;
        };
        if sent {
            self.silent = self.silent.saturating_add(1);
        }
        match entry.stage.hold() {
            Some(hold) => {
                // It may have been activated and the answer is late.
                self.report_ended(hold, false);
                let text = Refusal::TryAgain.text().to_owned();
                self.answer(connection, Outcome::ActivationRefused { text });
            }
            None => self.answer(connection, try_again()),
        }
    }

    fn give_up(&mut self, now: Moment, why: Event) {
        if self.stream.give_up(now, why) {
            self.lost();
        }
    }

    /// The stream is gone. Logins that were on it will not be answered, and may have used up
    /// their credential: the client has to come with another. Activations are asked for again.
    fn lost(&mut self) {
        self.silent = 0;
        let (logins, activations) = self.book.lost();
        for connection in logins {
            self.book.remove(connection);
            self.answer(connection, try_again());
        }
        self.activations = activations.into();
        self.pushes.forget_answers();
    }

    fn incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Accepted { reference, hold, accepted } => {
                self.login_accepted(reference, hold, accepted);
            }
            Incoming::Refused { reference, refusal, text } => {
                if let Some((connection, Stage::Login { sent: true, .. })) =
                    self.book.asked(reference)
                {
                    self.book.remove(connection);
                    self.answer(connection, Outcome::LoginRefused { refusal, text });
                }
            }
            Incoming::Activated { reference, refused } => self.activated(reference, refused),
            Incoming::Kick { hold, reason, code } => {
                if let Some(connection) = self.book.connection(hold) {
                    self.answer(connection, Outcome::Kick { reason, code });
                }
            }
            Incoming::Push { reference, sessions, push } => {
                let live = sessions.iter().filter_map(|id| self.book.live_connection(*id));
                let live: Vec<_> = live.collect();
                let gone = sessions.len().saturating_sub(live.len());
                self.pushes.begin(reference, push, &live, u32::try_from(gone).unwrap_or(u32::MAX));
            }
            Incoming::Welcome { .. } | Incoming::Drain | Incoming::Unknown => {}
        }
    }

    fn login_accepted(
        &mut self,
        reference: u64,
        hold: Option<Hold>,
        accepted: Result<Accepted, &'static str>,
    ) {
        let known = hold.and_then(|hold| self.book.connection(hold));
        let Some((connection, Stage::Login { mode, sent: true })) = self.book.asked(reference)
        else {
            // Too late: the connection is gone or was told to try again. A repeated answer of
            // a session that lives here ends nothing.
            if let (Some(hold), None) = (hold, known) {
                self.report_ended(hold, false);
            }
            return;
        };
        self.book.remove(connection);
        let fault = match (&accepted, known) {
            (Err(fault), _) => Some(*fault),
            (Ok(_), Some(_)) => Some("a session that lives already"),
            (Ok(accepted), None) if accepted.keys.is_some() != (mode == Mode::Noise) => {
                Some("keys that do not go with the login's mode")
            }
            (Ok(_), None) => None,
        };
        match (accepted, fault) {
            (Ok(accepted), None) => {
                let hold = accepted.hold();
                let pends = mode == Mode::Noise || accepted.activate;
                let stage = if pends { Stage::Pending { hold } } else { Stage::Live { hold } };
                self.book.insert(connection, Entry { reference, deadline: Moment::MAX, stage });
                self.answer(connection, Outcome::LoginAccepted(accepted));
            }
            (_, fault) => {
                self.stream.note(Event::Fault(fault.unwrap_or_default()));
                if let (Some(hold), None) = (hold, known) {
                    self.report_ended(hold, false);
                }
                self.answer(connection, try_again());
            }
        }
    }

    fn activated(&mut self, reference: u64, refused: Option<String>) {
        let Some((connection, Stage::Activation { hold, sent: true })) = self.book.asked(reference)
        else {
            return;
        };
        self.book.remove(connection);
        match refused {
            None => {
                let stage = Stage::Live { hold };
                self.book.insert(connection, Entry { reference, deadline: Moment::MAX, stage });
                self.answer(connection, Outcome::Activated);
            }
            Some(text) => {
                // If it lived after all (the answer that said so was lost with its stream),
                // it does no more.
                self.report_ended(hold, false);
                self.answer(connection, Outcome::ActivationRefused { text });
            }
        }
    }
}
