//! Pushes: from whom they are for, to the streams that hold them, to what came of it.
//!
//! Sending and waiting are two steps, so that whoever has many pushes can send the next one before
//! the answer to the last one is there, and still has his order: what was sent first is first in
//! each stream's queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Sessions;
use super::relay::Posted;
use crate::domain::in_flight::{Flight, Full};
use crate::domain::presence::{ProxyStream, StreamId, Word};
use crate::domain::push::{Command, MAX_BODY, Only, Outcome, Parcel, Target};
use crate::domain::reach::Reach;
use crate::domain::session::{Session, SessionId};
use crate::store::queue::QueueLimits;
use crate::store::{Page, StoreError};

/// As many sessions as one message to a proxy names.
const MAX_SESSIONS: usize = 16 * 1024;
/// A push to a user reaches so many of his sessions, the oldest ones.
const MAX_OF_USER: usize = 1000;

/// Why a proxy gets none.
const EARLIER_RELEASE: &str = "the proxy's filter is of an earlier release and takes no pushes";
const CANNOT_ASK: &str = "the proxy's filter is of an earlier release and asks nobody to leave";

/// What bounds pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushLimits {
    /// In bytes.
    pub max_body: usize,
    /// For the answers of proxies.
    pub answer_within: Duration,
    /// Pushes that one worker of a proxy may have unanswered.
    pub in_flight: usize,
    /// For sessions that are away.
    pub queue: QueueLimits,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            max_body: MAX_BODY,
            answer_within: Duration::from_secs(2),
            in_flight: 1024,
            queue: QueueLimits::default(),
        }
    }
}

/// A push that cannot be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error("this caller may not reach sessions of the audience {0:?}: see `app.grants`")]
    Audience(String),
    #[error("the body has {size} bytes, more than `app.max_body`, {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A push on its way.
pub struct Sent {
    flights: Vec<Flight>,
    /// What other replicas hand out.
    posted: Option<Posted>,
    /// What is known already.
    known: Outcome,
    in_time: Instant,
}

impl Sent {
    /// Nothing is on its way.
    fn known(known: Outcome) -> Self {
        Self { flights: Vec::new(), posted: None, known, in_time: Instant::now() }
    }

    /// What came of it.
    pub async fn outcome(self) -> Outcome {
        let mut outcome = self.known;
        for flight in self.flights {
            outcome.add(flight.outcome(self.in_time).await);
        }
        if let Some(posted) = self.posted {
            outcome.add(posted.outcome(self.in_time).await);
        }
        outcome
    }
}

impl Sessions {
    /// What bounds pushes from now on.
    pub fn set_push_limits(&self, limits: PushLimits) {
        self.push_limits.set(limits);
    }

    /// Sends a push to those of its target whom the caller may reach.
    pub async fn push(
        &self,
        target: Target,
        only: &Only,
        reach: &Reach,
        parcel: Parcel,
    ) -> Result<Sent, PushError> {
        let limits = *self.push_limits.get();
        if parcel.body.len() > limits.max_body {
            return Err(PushError::TooLarge { size: parcel.body.len(), limit: limits.max_body });
        }
        let parcel = Arc::new(parcel);
        let ids: Vec<SessionId> = match target {
            Target::Session(id) => {
                // The usual case needs no look into the store.
                let at_once = reach.covers_all() && *only == Only::default();
                if at_once && self.presence.holds_live(id) {
                    return Ok(self.send(&[id], &parcel, limits));
                }
                let Some(session) = self.live(id).await? else {
                    return Ok(Sent::known(Outcome { gone: 1, ..Outcome::default() }));
                };
                if !reach.covers(&session.audience) {
                    return Err(PushError::Audience(session.audience));
                }
                only.takes(&session).then_some(id).into_iter().collect()
            }
            Target::User(user) => self.of_user(user, only, reach).await?,
            Target::Group(group) => {
                let members = self.members(&group).await?;
                let (members, kept) = self.keep_for(members, &parcel, limits).await;
                // By the letters' order, so that all members hear a group's pushes in one order,
                // whichever replicas took them.
                let mut sent = match self.post_all(&members, &parcel, limits).await {
                    Some(posted) => posted?,
                    None => self.send(&members, &parcel, limits),
                };
                sent.known.add(kept);
                return Ok(sent);
            }
        };
        Ok(self.send_everywhere(&ids, &parcel, limits).await?)
    }

    /// Sends it to sessions that live, whichever replica holds them; what may wait does so for
    /// those that are away.
    pub(super) async fn send_everywhere(
        &self,
        ids: &[SessionId],
        parcel: &Arc<Parcel>,
        limits: PushLimits,
    ) -> Result<Sent, StoreError> {
        let (mut sent, missing) = self.hand_out(ids, parcel, limits);
        let (missing, kept) = self.keep_for(missing, parcel, limits).await;
        sent.known.add(kept);
        if missing.is_empty() {
            return Ok(sent);
        }
        match self.post(&missing, parcel).await {
            Some(Ok(posted)) => sent.posted = Some(posted),
            Some(Err(error)) if missing.len() == ids.len() => return Err(error),
            Some(Err(_)) => {
                let lost = number(missing.len());
                sent.known.unconfirmed = sent.known.unconfirmed.saturating_add(lost);
            }
            None => sent.known.away = sent.known.away.saturating_add(number(missing.len())),
        }
        Ok(sent)
    }

    /// A user's live sessions that are meant and may be reached.
    async fn of_user(
        &self,
        user: String,
        only: &Only,
        reach: &Reach,
    ) -> Result<Vec<SessionId>, StoreError> {
        let page = Page { user: Some(user), after: None, limit: MAX_OF_USER };
        let now = self.clock.now();
        let meant = |session: &Session| {
            session.ends_at() > now && reach.covers(&session.audience) && only.takes(session)
        };
        let listed = self.store.list(page).await?.sessions;
        Ok(listed.into_iter().filter(meant).map(|session| session.id).collect())
    }

    /// All by letters; `None` where there are no other replicas.
    async fn post_all(
        &self,
        ids: &[SessionId],
        parcel: &Arc<Parcel>,
        limits: PushLimits,
    ) -> Option<Result<Sent, StoreError>> {
        let in_time = Instant::now() + limits.answer_within;
        let posted = self.post(ids, parcel).await?;
        let sent =
            |posted| Sent { posted: Some(posted), in_time, ..Sent::known(Outcome::default()) };
        Some(posted.map(sent))
    }

    /// The session's record, if it lives.
    pub async fn live(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let now = self.clock.now();
        let found = self.store.find(vec![id]).await?.pop().flatten();
        Ok(found.filter(|session| session.ends_at() > now))
    }

    /// Sends it to sessions that live, as far as streams of this replica hold them; the others
    /// are away.
    pub(super) fn send(&self, ids: &[SessionId], parcel: &Arc<Parcel>, limits: PushLimits) -> Sent {
        let (mut sent, missing) = self.hand_out(ids, parcel, limits);
        sent.known.away = number(missing.len());
        sent
    }

    /// Sends it as far as streams of this replica hold the sessions; answers which none holds.
    fn hand_out(
        &self,
        ids: &[SessionId],
        parcel: &Arc<Parcel>,
        limits: PushLimits,
    ) -> (Sent, Vec<SessionId>) {
        let in_time = Instant::now() + limits.answer_within;
        let (mut flights, mut known) = (Vec::new(), Outcome::default());
        let missing = self.presence.hand_out(ids, |(stream, sessions)| {
            self.hand(&stream, &sessions, parcel, limits, (&mut flights, &mut known));
        });
        (Sent { flights, posted: None, known, in_time }, missing)
    }

    /// To one stream that holds these sessions.
    pub(super) fn hand(
        &self,
        stream: &Arc<dyn ProxyStream>,
        sessions: &[SessionId],
        parcel: &Arc<Parcel>,
        limits: PushLimits,
        (flights, known): (&mut Vec<Flight>, &mut Outcome),
    ) {
        let why = match parcel.command {
            Command::Leave(_) => (!stream.asks_to_leave()).then_some(CANNOT_ASK),
            _ => (!stream.takes_pushes()).then_some(EARLIER_RELEASE),
        };
        if let Some(why) = why {
            known.add(Outcome {
                refused: number(sessions.len()),
                reason: why.into(),
                ..Outcome::default()
            });
            return;
        }
        for sessions in sessions.chunks(MAX_SESSIONS) {
            let count = number(sessions.len());
            let bytes = parcel.body.len().saturating_add(sessions.len().saturating_mul(16));
            match self.in_flight.begin(stream.id(), count, bytes, limits.in_flight) {
                Ok(flight) => {
                    stream.tell(Word::Push {
                        reference: flight.reference,
                        sessions: sessions.to_vec(),
                        parcel: Arc::clone(parcel),
                    });
                    flights.push(flight);
                }
                Err(Full) => known.slow = known.slow.saturating_add(count),
            }
        }
    }

    /// A proxy says what came of a push.
    pub fn pushed(&self, stream: StreamId, reference: u64, outcome: Outcome) {
        self.in_flight.answered(stream, reference, outcome);
    }
}

pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
