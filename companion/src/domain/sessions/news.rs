//! What other replicas did, done here.

use std::time::Duration;

use tracing::debug;

use super::{ENDED_MEANWHILE, RESUMED, Sessions, Whom};
use crate::domain::presence::Met;
use crate::domain::session::{Farewell, State};
use crate::store::News;

/// Sessions that are looked up in one step after news were missed.
const LOOK_UP_STEP: usize = 1000;
/// Between two attempts to look them up.
const LOOK_UP_RETRY: Duration = Duration::from_millis(200);

impl Sessions {
    /// Does here what other replicas did, for as long as there is news; at once where there are no
    /// other replicas.
    pub async fn follow(&self) {
        let Some(mut news) = self.store.news() else { return };
        while let Some(news) = news.recv().await {
            match news {
                News::Ended { session, proxy, farewell, own } => {
                    if own {
                        // Told already, unless the store's answer was lost.
                        self.presence.kick(session, &farewell);
                    } else {
                        self.metrics.news.count("ended");
                        self.presence.kick_recorded(session, proxy, farewell);
                    }
                }
                News::Moved { hold } => {
                    self.metrics.news.count("moved");
                    self.presence.fence(hold, &Farewell::new(RESUMED));
                }
                News::Call { whom, farewell } => {
                    self.metrics.news.count("call");
                    self.kick_pending(&whom, &farewell);
                }
                News::Gap => {
                    self.metrics.news.count("gap");
                    self.look_up().await;
                }
            }
        }
    }

    fn kick_pending(&self, whom: &Whom, farewell: &Farewell) {
        let meant = self.presence.pending(|session| match whom {
            Whom::Session(id) => session.id == *id,
            Whom::Matching(filter) => filter.takes(session, State::Pending),
        });
        for session in meant {
            if self.presence.kick(session.id, farewell) != Met::Nothing {
                self.metrics.ended.count("kicked");
            }
        }
    }

    /// Ends what is held here and is in the store no more. Does not give up: what comes after
    /// must wait for it.
    async fn look_up(&self) {
        let held = self.presence.live();
        debug!(sessions = held.len(), "news may have been missed: looking up what is held");
        for holds in held.chunks(LOOK_UP_STEP) {
            let ids: Vec<_> = holds.iter().map(|hold| hold.session).collect();
            let found = loop {
                match self.store.find(ids.clone()).await {
                    Ok(found) => break found,
                    Err(_) => tokio::time::sleep(LOOK_UP_RETRY).await,
                }
            };
            for (hold, session) in holds.iter().zip(found) {
                match session {
                    None => {
                        self.presence.kick(hold.session, &Farewell::new(ENDED_MEANWHILE));
                    }
                    // Moved since, or the store lost that it moved here.
                    Some(session) if session.hold != hold.number => {
                        self.presence.kick_hold(*hold, &Farewell::new(RESUMED));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
