//! A store whose every operation is timed and counted.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::groups::GroupStore;
use super::history::{Bookmark, Event, History, TooOld};
use super::queue::{AwayQueue, Kept, QueueLimits};
use super::relay::Relay;
use super::{
    Admission, Admitted, Answer, Count, Left, Listed, News, Page, Store, StoreError, Sweep, Swept,
    Takeover, Used,
};
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::push::Parcel;
use crate::domain::session::{Farewell, Hold, Session, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;
use crate::metrics::{Metrics, Operation};

pub struct Metered {
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
}

impl Metered {
    fn timed<T: Send + 'static>(&self, operation: Operation, answer: Answer<T>) -> Answer<T> {
        let metrics = Arc::clone(&self.metrics);
        Box::pin(async move {
            let begun = Instant::now();
            let result: Result<T, StoreError> = answer.await;
            metrics.store(operation, begun.elapsed(), result.is_err());
            result
        })
    }
}

impl GroupStore for Metered {
    fn join(&self, group: GroupName, session: SessionId, limits: GroupLimits) -> Answer<Joined> {
        self.timed(Operation::Join, self.store.join(group, session, limits))
    }

    fn leave(&self, group: GroupName, session: SessionId) -> Answer<bool> {
        self.timed(Operation::Leave, self.store.leave(group, session))
    }

    fn members(
        &self,
        group: GroupName,
        after: Option<SessionId>,
        limit: usize,
    ) -> Answer<Vec<SessionId>> {
        self.timed(Operation::Members, self.store.members(group, after, limit))
    }

    fn groups_of(&self, session: SessionId) -> Answer<Vec<GroupName>> {
        self.timed(Operation::GroupsOf, self.store.groups_of(session))
    }
}

impl AwayQueue for Metered {
    fn keep(
        &self,
        ids: Vec<SessionId>,
        parcel: Arc<Parcel>,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Answer<Vec<Kept>> {
        self.timed(Operation::Keep, self.store.keep(ids, parcel, limits, now))
    }

    fn take_kept(&self, ids: Vec<SessionId>, since: UnixMillis) -> Answer<Vec<Vec<Parcel>>> {
        self.timed(Operation::TakeKept, self.store.take_kept(ids, since))
    }
}

impl History for Metered {
    fn newest(&self) -> Answer<Bookmark> {
        self.store.newest()
    }

    fn since(&self, place: Bookmark, limit: usize) -> Answer<Result<Vec<Event>, TooOld>> {
        self.store.since(place, limit)
    }

    fn pulse(&self) -> watch::Receiver<u64> {
        self.store.pulse()
    }
}

impl Store for Metered {
    fn admit(&self, admission: Admission) -> Answer<Admitted> {
        self.timed(Operation::Admit, self.store.admit(admission))
    }

    fn end(&self, ids: Vec<SessionId>, farewell: Option<Farewell>) -> Answer<Vec<Session>> {
        self.timed(Operation::End, self.store.end(ids, farewell))
    }

    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>> {
        self.timed(Operation::Find, self.store.find(ids))
    }

    fn list(&self, page: Page) -> Answer<Listed> {
        self.timed(Operation::List, self.store.list(page))
    }

    fn count(&self) -> Answer<Count> {
        self.timed(Operation::Count, self.store.count())
    }

    fn used(&self, after: Option<String>, limit: usize) -> Answer<Used> {
        self.store.used(after, limit)
    }

    fn take_over(&self, takeover: Takeover) -> Answer<bool> {
        self.timed(Operation::TakeOver, self.store.take_over(takeover))
    }

    fn depart(
        &self,
        holds: Vec<Hold>,
        until: Option<UnixMillis>,
    ) -> Answer<Vec<(SessionId, Left)>> {
        self.timed(Operation::Depart, self.store.depart(holds, until))
    }

    fn back(&self, holds: Vec<Hold>, worker: u64) -> Answer<Vec<bool>> {
        self.timed(Operation::Back, self.store.back(holds, worker))
    }

    fn attached(&self, workers: Vec<u64>, until: UnixMillis) -> Answer<Vec<u64>> {
        self.timed(Operation::Attached, self.store.attached(workers, until))
    }

    fn sweep(&self, sweep: Sweep) -> Answer<Swept> {
        self.timed(Operation::Sweep, self.store.sweep(sweep))
    }

    fn announce(&self, whom: &Whom, farewell: &Farewell) -> Answer<()> {
        self.timed(Operation::Announce, self.store.announce(whom, farewell))
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        self.store.news()
    }

    fn relay(&self) -> Option<Arc<dyn Relay>> {
        self.store.relay()
    }

    fn healthy(&self) -> bool {
        self.store.healthy()
    }
}
