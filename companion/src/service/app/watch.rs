//! What happens to sessions, told to a service for as long as it listens.
//!
//! A subscriber takes events from the history at his own pace; nothing is kept for him. One who is
//! so slow that the history has forgotten where he was hears that, and may come back: with his
//! revision he gets a snapshot, like one who was away for too long.

use std::sync::Arc;

use meshgate_proto::app::v1::watch_response::Kind;
use meshgate_proto::app::v1::{
    Cause as CauseNumber, Happened as HappenedNumber, Progress, SessionEvent, SnapshotBegin,
    SnapshotEnd, WatchRequest, WatchResponse,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{audience, message, store_away};
use crate::domain::reach::Reach;
use crate::domain::session::Session;
use crate::domain::sessions::Sessions;
use crate::store::Page;
use crate::store::history::{Bookmark, Cause, Event, Happened, TooOld};

/// Subscribers at once.
pub const SUBSCRIBERS: usize = 64;
/// Messages that are ready for a subscriber.
const READY: usize = 256;
/// Events that one look into the history brings.
const STEP: usize = 512;
/// Sessions of a snapshot that one look into the store brings.
const SNAPSHOT_STEP: usize = 1000;
/// After so many events that do not concern him a subscriber hears where he is.
const PROGRESS: u64 = 1024;

/// One subscriber.
struct Subscriber {
    sessions: Arc<Sessions>,
    reach: Reach,
    audience: Option<String>,
    tell: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// Why it ends.
enum End {
    /// The subscriber is gone.
    Gone,
    Status(Status),
}

type Told = Result<(), End>;

/// Where a subscriber begins.
enum Start {
    Snapshot,
    After(Bookmark),
    Now,
}

pub fn watch(
    sessions: Arc<Sessions>,
    reach: Reach,
    request: WatchRequest,
    mut stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<WatchResponse, Status>>, Status> {
    let audience = audience(&reach, request.audience)?;
    let start = match (request.after.as_str(), request.only_new) {
        ("", true) => Start::Now,
        ("", false) => Start::Snapshot,
        (_, true) => {
            return Err(Status::invalid_argument("give `after` or `only_new`, not both"));
        }
        (text, false) => Start::After(
            Bookmark::parse(text)
                .ok_or_else(|| Status::invalid_argument("`after` is no revision of mine"))?,
        ),
    };
    let (tell, told) = mpsc::channel(READY);
    let subscriber = Subscriber { sessions, reach, audience, tell };
    tokio::spawn(async move {
        let end = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => {
                End::Status(Status::unavailable("the companion is stopping: watch another one"))
            }
            () = subscriber.tell.closed() => End::Gone,
            end = subscriber.run(start) => end,
        };
        if let End::Status(status) = end {
            // He may be gone.
            let _ = subscriber.tell.send(Err(status)).await;
        }
        drop(place);
    });
    Ok(ReceiverStream::new(told))
}

impl Subscriber {
    async fn run(&self, start: Start) -> End {
        match self.tell_all(start).await {
            Err(end) => end,
            Ok(()) => End::Gone,
        }
    }

    async fn tell_all(&self, start: Start) -> Told {
        let store = self.sessions.store();
        // Before the first look, so that nothing falls in between.
        let mut pulse = store.pulse();
        let mut place = match start {
            Start::Now => store.newest().await.map_err(away)?,
            Start::Snapshot => self.snapshot().await?,
            Start::After(place) => match store.since(place, 1).await.map_err(away)? {
                Ok(_) => place,
                Err(TooOld) => self.snapshot().await?,
            },
        };
        let mut said = place.revision;
        loop {
            pulse.mark_unchanged();
            let events = match store.since(place, STEP).await.map_err(away)? {
                Ok(events) => events,
                Err(TooOld) => {
                    return Err(End::Status(Status::resource_exhausted(
                        "this subscriber is too slow, what comes next is forgotten: watch again, \
                         it begins with a snapshot",
                    )));
                }
            };
            if events.is_empty() {
                // The sender lives as long as the store.
                if pulse.changed().await.is_err() {
                    return Err(End::Status(Status::unavailable("the store is closed")));
                }
                continue;
            }
            for event in events {
                place.revision = event.revision;
                if self.takes(&event.session) {
                    self.tell(Kind::Event(told(place, event))).await?;
                    said = place.revision;
                } else if place.revision.saturating_sub(said) >= PROGRESS {
                    self.tell(Kind::Progress(Progress { revision: place.to_string() })).await?;
                    said = place.revision;
                }
            }
        }
    }

    /// Tells all live sessions; answers from where events go on.
    async fn snapshot(&self) -> Result<Bookmark, End> {
        let store = self.sessions.store();
        let place = store.newest().await.map_err(away)?;
        self.tell(Kind::SnapshotBegin(SnapshotBegin {})).await?;
        let now = self.sessions.clock().now();
        let mut after = None;
        loop {
            let page = Page { user: None, after, limit: SNAPSHOT_STEP };
            let listed = store.list(page).await.map_err(away)?;
            for session in listed.sessions {
                if session.ends_at() > now && self.takes(&session) {
                    self.tell(Kind::Session(message(session))).await?;
                }
            }
            after = listed.next;
            if after.is_none() {
                break;
            }
        }
        self.tell(Kind::SnapshotEnd(SnapshotEnd { revision: place.to_string() })).await?;
        Ok(place)
    }

    fn takes(&self, session: &Session) -> bool {
        self.reach.covers(&session.audience)
            && self.audience.as_ref().is_none_or(|audience| *audience == session.audience)
    }

    async fn tell(&self, kind: Kind) -> Told {
        let told = self.tell.send(Ok(WatchResponse { kind: Some(kind) })).await;
        told.map_err(|_| End::Gone)
    }
}

fn away(error: crate::store::StoreError) -> End {
    End::Status(store_away(error))
}

fn told(place: Bookmark, event: Event) -> SessionEvent {
    let (happened, cause, reason, code) = match event.happened {
        Happened::Login => (HappenedNumber::Login, CauseNumber::Unspecified, String::new(), 0),
        Happened::Away => (HappenedNumber::Away, CauseNumber::Unspecified, String::new(), 0),
        Happened::Back => (HappenedNumber::Back, CauseNumber::Unspecified, String::new(), 0),
        Happened::End { cause, farewell } => {
            let cause = match cause {
                Cause::Closed => CauseNumber::Closed,
                Cause::Kicked => CauseNumber::Kicked,
                Cause::Replaced => CauseNumber::Replaced,
                Cause::Expired => CauseNumber::Expired,
                Cause::GivenUp => CauseNumber::GivenUp,
            };
            (HappenedNumber::End, cause, farewell.reason, farewell.code)
        }
    };
    SessionEvent {
        revision: place.to_string(),
        at_ms: event.at.0,
        happened: happened.into(),
        session: Some(message(event.session)),
        cause: cause.into(),
        reason,
        code,
    }
}
