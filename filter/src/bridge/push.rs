//! Pushes of the companion: frames that no call of this client asked for.
//!
//! A push counts as delivered when its frame is with Envoy. Until then it waits with everything
//! else that is to be said, for the next bytes from upstream or the bell's answer. A client that
//! does not read makes Envoy stop reading upstream, so that nothing leaves here either: what waits
//! is bounded by `limits.max_unread`, and beyond it pushes are dropped. A bell that is not answered
//! in time closes the connection, as it does for everything else.

use std::rc::Rc;

use crate::companion::push::{Delivery, Judged, NotPushed, Prepared, Push, PushCommand, Ticket};
use crate::config::command::{CommandSpec, resolve_text};
use crate::metrics::{Labelled, Metric};
use crate::protocol::layout::{FrameSeal, Push as PushFrame};
use crate::session::Session;
use crate::time::Moment;
use crate::worker::Worker;

use super::{Bridge, HalfClose, Terms, Upstream};

impl Bridge {
    /// Takes a push for this client. Its ticket is reported on now, or when its frame has left.
    pub fn handle_push(&mut self, now: Moment, delivery: &Delivery, worker: &mut Worker) {
        self.lend(worker);
        let terms = Rc::clone(&self.terms);
        match self.write_push(&terms, &delivery.push) {
            Ok(()) => {
                worker.metrics.add(Metric::FramesOut, 1);
                worker.metrics.add(Metric::Pushes, 1);
                self.tally.pushes = self.tally.pushes.saturating_add(1);
                self.unsaid_pushes.push(delivery.ticket);
            }
            Err(why) => report_dropped(delivery.ticket, why, worker),
        }
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    fn write_push(&mut self, terms: &Terms, push: &Push) -> Result<(), NotPushed> {
        // After a half-close no bell can be rung, and before a login nobody is pushed to.
        let hears = self.session.is_established()
            && self.closing.is_none()
            && self.upstream == Upstream::Open
            && self.half_closed == HalfClose::No;
        if !hears {
            return Err(NotPushed::Gone);
        }
        let prepared = match push.judged.get_or_init(|| judge(terms, &push.command)) {
            Ok(prepared) => prepared,
            Err(why) => return Err(why.clone()),
        };
        // A single one may be larger than what may wait.
        let waits = self.to_client.len().saturating_add(push.body.len());
        if !self.to_client.is_empty() && waits > terms.config.limits.max_unread.get() {
            return Err(NotPushed::Slow);
        }
        append(terms, prepared, &push.body, &mut self.session, &mut self.to_client)
    }

    /// What was to be said is with Envoy.
    pub(super) fn pushes_said(&mut self, worker: &mut Worker) {
        for ticket in self.unsaid_pushes.drain(..) {
            worker.link.pushed(ticket, Ok(()));
        }
        if self.unsaid_pushes.capacity() > IDLE_TICKETS {
            self.unsaid_pushes = Vec::new();
        }
    }

    /// The connection is gone, and with it what waited.
    pub(super) fn pushes_lost(&mut self, worker: &mut Worker) {
        for ticket in std::mem::take(&mut self.unsaid_pushes) {
            report_dropped(ticket, NotPushed::Gone, worker);
        }
    }
}

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
