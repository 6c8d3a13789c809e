//! A store whose every operation is timed and counted.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::{Admission, Admitted, Answer, Listed, News, Page, Store, StoreError, Swept};
use crate::domain::session::{Farewell, Session, SessionId};
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

    fn count(&self) -> Answer<u64> {
        self.timed(Operation::Count, self.store.count())
    }

    fn sweep(&self, now: UnixMillis) -> Answer<Swept> {
        self.timed(Operation::Sweep, self.store.sweep(now))
    }

    fn announce(&self, whom: &Whom, farewell: &Farewell) -> Answer<()> {
        self.timed(Operation::Announce, self.store.announce(whom, farewell))
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        self.store.news()
    }

    fn healthy(&self) -> bool {
        self.store.healthy()
    }
}
