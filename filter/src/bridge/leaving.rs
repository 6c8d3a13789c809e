//! Leaving: a client goes, and comes back over another connection, without losing a call.
//!
//! ```text
//!           asked by the companion            its time is over
//!   served ------------------------> Asked -----------------------> Parting --> closing
//!     |                                | the client closes             ^   calls are through
//!     |  the service takes no more     v                               |
//!     +-----------------------------------------------------------------
//! ```
//!
//! *Asked*, it has a goodbye that says from when on it shall be elsewhere, and is served as before:
//! it leaves when nothing of its own is under way. *Parting*, nothing more is taken of it: what it
//! sends stays unread, calls in flight are answered, and then its goodbye says that whatever has
//! no answer was not carried out. A call that the service has certainly not seen is not answered
//! for the same reason.

use std::time::Duration;

use crate::call::{Code, Status};
use crate::companion::push::{Leave, NotPushed};
use crate::metrics::Labelled;
use crate::time::Moment;
use crate::trace::Random;
use crate::worker::Worker;

use super::calls::{Call, Request};
use super::closing::LastWord;
use super::{Bridge, HalfClose, Upstream};

/// On the way to another connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaving {
    /// It knows, and is served until then.
    Asked { until: Moment },
    /// Nothing more is taken; calls in flight may take until then.
    Parting { reason: &'static str, until: Moment, after: Duration },
}

impl Leaving {
    pub const fn deadline(&self) -> Moment {
        match self {
            Self::Asked { until } | Self::Parting { until, .. } => *until,
        }
    }
}

/// What a goodbye says of coming back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Return<'a> {
    /// Requests are served still; without it nothing is taken any more, and a request without a
    /// reply was not carried out.
    pub served: bool,
    /// From the goodbye to the moment when the client shall come back.
    pub after: Duration,
    /// If it is served: until when, from the goodbye.
    pub until: Duration,
    /// Empty: where it came from.
    pub address: &'a str,
}

impl Return<'_> {
    /// Behind the goodbye's text:
    ///
    /// ```text
    ///  0  u8   0x00, which no text holds
    ///  1  u8   version, 1
    ///  2  u8   flags; bit 0: served
    ///  3  u32  after, in milliseconds, big-endian
    ///  7  u32  until, in milliseconds, big-endian
    /// 11       address, to the body's end
    /// ```
    pub fn head(&self) -> [u8; 11] {
        let mut head = [0; 11];
        let [_, version, flags, times @ ..] = &mut head;
        (*version, *flags) = (1, u8::from(self.served));
        let (after, until) = times.split_at_mut(4);
        for (place, time) in [(after, self.after), (until, self.until)] {
            let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            place.copy_from_slice(&millis.to_be_bytes());
        }
        head
    }
}

impl Bridge {
    /// This proxy goes away.
    pub fn handle_leave(&mut self, now: Moment, leave: &Leave, worker: &mut Worker) {
        self.lend(worker);
        // Who hears nothing yet is asked the next time.
        let _ = self.ask_to_leave(now, leave, "proxy", worker);
        self.ring(now, worker);
        self.wrap_up(worker);
    }

    /// Somebody wants the client elsewhere.
    pub(super) fn ask_to_leave(
        &mut self,
        now: Moment,
        leave: &Leave,
        who: &'static str,
        worker: &mut Worker,
    ) -> Result<(), NotPushed> {
        let Some(drain) = &self.terms.config.drain else {
            let problem =
                "the listener's clients do not know how: its configuration has no `drain`";
            return Err(NotPushed::Refused(problem.into()));
        };
        let service = self.place.as_deref().or(self.terms.config.upstream.cluster.as_deref());
        let service = service.unwrap_or_default();
        let meant = leave.service.is_empty() || leave.service == service;
        if !self.hears() || !meant {
            return Err(NotPushed::Gone);
        }
        if self.leaving.is_some() {
            return Ok(());
        }
        let address = if leave.address.is_empty() { &*drain.address } else { &*leave.address };
        let (address, after) = (address.to_owned(), slot(&mut worker.random, leave.spread));
        let until = after.saturating_add(leave.within);
        worker.metrics.count(Labelled::AskedToLeave, who);
        let back = Return { served: true, after, until, address: &address };
        let word = LastWord { back: Some(back), ..LastWord::default() };
        let status = Status::new(Code::Unavailable, leave.reason.as_str());
        self.leaving = Some(Leaving::Asked { until: now.after(until) });
        self.write_pushes(worker);
        self.say_goodbye(&status, word, worker);
        Ok(())
    }

    /// Whether the client can be told something that it did not ask for.
    pub(super) fn hears(&self) -> bool {
        // After a half-close no bell can be rung, and before a login nobody is spoken to.
        self.session.is_established()
            && self.closing.is_none()
            && self.upstream == Upstream::Open
            && self.half_closed == HalfClose::No
    }

    pub(super) const fn is_parting(&self) -> bool {
        matches!(self.leaving, Some(Leaving::Parting { .. }))
    }

    /// The service takes no more calls over this connection.
    pub(super) fn service_leaves(&mut self, now: Moment, worker: &mut Worker) {
        if let Some(after) = self.slot(worker)
            && !self.is_parting()
            && self.closing.is_none()
        {
            worker.metrics.count(Labelled::AskedToLeave, "service");
            self.begin_parting(now, "upstream_going_away", after, worker);
        }
    }

    /// From now on nothing is taken. Streams end now: no end of theirs is in sight.
    fn begin_parting(
        &mut self,
        now: Moment,
        reason: &'static str,
        after: Duration,
        worker: &mut Worker,
    ) {
        let Some(drain) = &self.terms.config.drain else { return };
        self.leaving = Some(Leaving::Parting { reason, until: now.after(drain.within), after });
        let endless = |call: &Call| call.pushes || matches!(call.request, Request::Open { .. });
        for token in self.calls.tokens(endless) {
            let status = Status::new(Code::Unavailable, "the stream ends here, come back for it");
            self.fail_call(now, token, status, worker);
        }
    }

    /// Ends a call that was certainly not carried out, without an answer: the goodbye that follows
    /// says so.
    pub(super) fn forgo_call(&mut self, now: Moment, token: u32, worker: &mut Worker) {
        if let Some(call) = self.calls.remove(token) {
            self.account(now, &call, Code::Unavailable, worker);
        }
    }

    /// After every input: goes a step further when it is time for it.
    pub(super) fn go_on_leaving(&mut self, now: Moment, worker: &mut Worker) {
        if let Some(Leaving::Asked { until }) = self.leaving
            && until <= now
        {
            self.begin_parting(now, "drained", Duration::ZERO, worker);
        }
        let Some(Leaving::Parting { reason, until, after }) = self.leaving else { return };
        // A session that waits for its first frame would end with its connection.
        let is_through = self.calls.is_empty() && !self.session.is_coming();
        if self.closing.is_some() || !is_through && now < until {
            return;
        }
        let status = Status::new(Code::Unavailable, "the connection ends here, come back");
        self.leave_for_return(now, reason, status, Some(after), worker);
    }

    /// Ends the connection with a goodbye that says when to come back, where clients understand
    /// that; `after` is drawn if it is not given.
    pub(super) fn leave_for_return(
        &mut self,
        now: Moment,
        reason: &'static str,
        status: Status,
        after: Option<Duration>,
        worker: &mut Worker,
    ) {
        self.leaving = None;
        let after = after.or_else(|| self.slot(worker));
        let terms = std::rc::Rc::clone(&self.terms);
        let back = terms.config.drain.as_ref().zip(after).map(|(drain, after)| Return {
            served: false,
            after,
            until: Duration::ZERO,
            address: &drain.address,
        });
        self.leave_with(now, reason, status, LastWord { back, ..LastWord::default() }, worker);
    }

    /// When this client is to come back, if its service goes away.
    fn slot(&self, worker: &mut Worker) -> Option<Duration> {
        let drain = self.terms.config.drain.as_ref()?;
        Some(slot(&mut worker.random, drain.spread))
    }
}

/// Any moment of `spread`, in whole milliseconds.
pub(super) fn slot(random: &mut Random, spread: Duration) -> Duration {
    let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.next_u64().checked_rem(millis.saturating_add(1)).unwrap_or(0))
}
