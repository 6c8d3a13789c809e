//! Pushes of the companion: frames that no call of this client asked for.
//!
//! A push counts as delivered when its frame is with Envoy. Until then it waits with everything
//! else that is to be said, for the next bytes from upstream or the bell's answer; its frame is made
//! (and sealed, in its turn) when something else is to be said after it, or when it leaves. A client
//! that does not read makes Envoy stop reading upstream, so that nothing leaves here either: what
//! waits is bounded by `limits.max_unread`, and `push.when_full` says what becomes of more. A bell
//! that is not answered in time closes the connection, as it does for everything else.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::companion::push::{Delivery, Judged, NotPushed, Prepared, Push, PushCommand, Ticket};
use crate::config::WhenUnread;
use crate::config::command::{CommandSpec, resolve_text};
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{FrameSeal, Push as PushFrame};
use crate::session::Session;
use crate::time::Moment;
use crate::worker::Worker;

use super::{Bridge, Terms};

impl Bridge {
    /// Takes a push for this client. Its ticket is reported on now, or when its frame has left.
    pub fn handle_push(&mut self, now: Moment, delivery: &Delivery, worker: &mut Worker) {
        self.lend(worker);
        let terms = Rc::clone(&self.terms);
        if let PushCommand::Leave(leave) = &delivery.push.command {
            let outcome = self.ask_to_leave(now, leave, "companion", worker);
            worker.link.pushed(delivery.ticket, outcome);
            self.ring(now, worker);
            return self.wrap_up(worker);
        }
        match self.judge_push(&terms, &delivery.push) {
            Ok(()) => self.queue_push(&terms, delivery, worker),
            Err(why) => report_dropped(delivery.ticket, why, worker),
        }
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    fn judge_push(&mut self, terms: &Terms, push: &Push) -> Result<(), NotPushed> {
        if !self.hears() {
            return Err(NotPushed::Gone);
        }
        let judged = push.judged.get_or_init(|| judge(terms, &push.command));
        judged.as_ref().map(|_| ()).map_err(NotPushed::clone)
    }

    /// Lets a push wait, or what else has to make room for it.
    fn queue_push(&mut self, terms: &Terms, delivery: &Delivery, worker: &mut Worker) {
        let most = terms.config.limits.max_unread.get();
        let when_full = terms.config.push.as_ref().map(|push| push.when_full);
        let size = delivery.push.body.len().saturating_add(FRAME);
        let mut hit = false;
        loop {
            let waits = self.to_client.len().saturating_add(self.pushes.bytes);
            // A single one may be larger than what may wait.
            if waits == 0 || waits.saturating_add(size) <= most {
                break;
            }
            if !std::mem::replace(&mut hit, true) {
                worker.metrics.count(Labelled::LimitsHit, "max_unread");
            }
            match when_full {
                Some(WhenUnread::DropOldest) if !self.pushes.waiting.is_empty() => {
                    if let Some((ticket, _)) = self.pushes.pop() {
                        worker.metrics.count(Labelled::PushesDropped, "overtaken");
                        worker.link.pushed(ticket, Err(NotPushed::Slow));
                    }
                }
                Some(WhenUnread::Close) => {
                    // It would not hear why. Its session may go on over another connection.
                    self.close_silently("slow_client");
                    return report_dropped(delivery.ticket, NotPushed::Slow, worker);
                }
                _ => return report_dropped(delivery.ticket, NotPushed::Slow, worker),
            }
        }
        self.pushes.bytes = self.pushes.bytes.saturating_add(size);
        self.pushes.waiting.push_back((delivery.ticket, Rc::clone(&delivery.push)));
    }

    /// Makes the frames of the pushes that wait: something else is to be said after them, or they
    /// leave.
    pub(super) fn write_pushes(&mut self, worker: &mut Worker) {
        if self.pushes.waiting.is_empty() {
            return;
        }
        let terms = Rc::clone(&self.terms);
        while let Some((ticket, push)) = self.pushes.pop() {
            let written = match push.judged.get() {
                Some(Ok(prepared)) => {
                    append(&terms, prepared, &push.body, &mut self.session, &mut self.to_client)
                }
                Some(Err(why)) => Err(why.clone()),
                None => Err(NotPushed::Gone),
            };
            match written {
                Ok(()) => {
                    worker.metrics.add(Metric::FramesOut, 1);
                    worker.metrics.add(Metric::Pushes, 1);
                    self.tally.pushes = self.tally.pushes.saturating_add(1);
                    self.pushes.unsaid.push(ticket);
                }
                Err(why) => report_dropped(ticket, why, worker),
            }
        }
    }

    /// What was to be said is with Envoy.
    pub(super) fn pushes_said(&mut self, worker: &mut Worker) {
        for ticket in self.pushes.unsaid.drain(..) {
            worker.link.pushed(ticket, Ok(()));
        }
        if self.pushes.unsaid.capacity() > IDLE_TICKETS {
            self.pushes.unsaid = Vec::new();
        }
    }

    /// The connection is gone, and with it what waited.
    pub(super) fn pushes_lost(&mut self, worker: &mut Worker) {
        let Waiting { unsaid, waiting, .. } = std::mem::take(&mut self.pushes);
        for ticket in unsaid.into_iter().chain(waiting.into_iter().map(|(ticket, _)| ticket)) {
            report_dropped(ticket, NotPushed::Gone, worker);
        }
    }
}

/// Pushes of the companion that are not with Envoy.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Those whose frames are made, and wait in `Bridge::to_client`.
    pub unsaid: Vec<Ticket>,
    /// Those whose frames are not, and which may still be left out; the oldest first.
    waiting: VecDeque<(Ticket, Rc<Push>)>,
    /// What the frames of these will have, about.
    bytes: usize,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn pop(&mut self) -> Option<(Ticket, Rc<Push>)> {
        let (ticket, push) = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(push.body.len().saturating_add(FRAME));
        if self.waiting.is_empty() {
            // An idle connection holds no memory for pushes that it once had.
            *self = Self { unsaid: std::mem::take(&mut self.unsaid), ..Self::default() };
        }
        Some((ticket, push))
    }
}

/// What a frame has beside its body, about: header, seal, and what a push costs while it waits.
const FRAME: usize = 64;

/// Room for tickets that an idle connection may hold on to.
const IDLE_TICKETS: usize = 16;

fn report_dropped(ticket: Ticket, why: NotPushed, worker: &mut Worker) {
    let reason = match &why {
        NotPushed::Gone => "gone",
        NotPushed::Slow => "slow_client",
        NotPushed::Refused(_) => "refused",
    };
    worker.metrics.count(Labelled::PushesDropped, reason);
    worker.link.pushed(ticket, Err(why));
}

/// What the listener's configuration makes of a push's command.
fn judge(terms: &Terms, command: &PushCommand) -> Judged {
    let config = &terms.config;
    let Some(pushes) = &config.push else {
        return refused("the listener takes no pushes: its configuration has no `push`");
    };
    let resolved = match command {
        PushCommand::Number(number) => {
            CommandSpec::Number((*number).into()).resolve(config.command_shape)
        }
        PushCommand::Text(text) => resolve_text(text, config.command_shape),
        PushCommand::Leave(_) => return refused("it is no frame"),
    };
    match resolved {
        Ok(command) if pushes.allows(command.borrow()) => {
            Ok(Prepared { command, plain: Default::default() })
        }
        Ok(_) => refused("the listener does not let this command be pushed: see its `push`"),
        Err(problem) => Err(NotPushed::Refused(problem)),
    }
}

fn refused<T>(reason: &str) -> Result<T, NotPushed> {
    Err(NotPushed::Refused(reason.to_owned()))
}

/// Appends the frame; one that is not sealed is the same for all, and made once.
fn append(
    terms: &Terms,
    prepared: &Prepared,
    body: &[u8],
    session: &mut Session,
    out: &mut Vec<u8>,
) -> Result<(), NotPushed> {
    match session.sealer() {
        Some(sealer) => encode(terms, prepared, body, Some(sealer), out),
        None => {
            let frame = prepared.plain.get_or_init(|| {
                let mut frame = Vec::new();
                encode(terms, prepared, body, None, &mut frame).map(|()| frame)
            });
            out.extend_from_slice(frame.as_ref().map_err(NotPushed::clone)?);
            Ok(())
        }
    }
}

fn encode(
    terms: &Terms,
    prepared: &Prepared,
    body: &[u8],
    seal: Option<&mut dyn FrameSeal>,
    out: &mut Vec<u8>,
) -> Result<(), NotPushed> {
    let frame = PushFrame {
        command: prepared.command.borrow(),
        sequence: 0,
        status: 0,
        error: false,
        body: &[body],
        compress: terms.config.push.as_ref().is_some_and(|push| push.compress),
    };
    let written = terms.config.layout.encode_push(frame, seal, out);
    written.map_err(|error| NotPushed::Refused(format!("no frame can hold it: {error}")))
}
