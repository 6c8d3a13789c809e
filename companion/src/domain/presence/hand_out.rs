//! One word for many sessions: to each stream once, with those that it holds.

use std::sync::Arc;

use super::{Entry, Held, Presence, ProxyStream, Stage, StreamId, span};
use crate::domain::session::SessionId;

/// A stream and the sessions of it that are meant.
pub type Share = (Arc<dyn ProxyStream>, Vec<SessionId>);

impl Presence {
    /// Whether a stream holds this session, and it lives.
    pub fn holds_live(&self, id: SessionId) -> bool {
        self.lock().live_entry(id).is_some()
    }

    /// Hands something out to the streams that hold these sessions, live ones alone. Answers
    /// those that none holds. `hand` tells the stream under the lock, so that two who hand out
    /// to the same sessions are heard in one order by all of them.
    pub fn hand_out(&self, ids: &[SessionId], mut hand: impl FnMut(Share)) -> Vec<SessionId> {
        let held = self.lock();
        let (shares, missing) = held.shares(ids);
        shares.into_iter().for_each(&mut hand);
        missing
    }
}

impl Held {
    /// What holds the session, if it lives: of several connections the newest.
    fn live_entry(&self, id: SessionId) -> Option<&Entry> {
        let entries = self.sessions.range(span(id)).map(|(_, entry)| entry);
        entries.rev().find(|entry| matches!(entry.stage, Stage::Live))
    }

    fn shares(&self, ids: &[SessionId]) -> (Vec<Share>, Vec<SessionId>) {
        let (mut shares, mut missing): (Vec<Share>, _) = (Vec::new(), Vec::new());
        // There are few streams, and neighbours are often on the same.
        let mut last: Option<(StreamId, usize)> = None;
        for id in ids {
            let Some(entry) = self.live_entry(*id) else {
                missing.push(*id);
                continue;
            };
            let stream = entry.stream.id();
            let known = last.filter(|(known, _)| *known == stream).map(|(_, place)| place);
            let known = known.or_else(|| shares.iter().position(|(held, _)| held.id() == stream));
            let place = known.unwrap_or_else(|| {
                shares.push((Arc::clone(&entry.stream), Vec::new()));
                shares.len().saturating_sub(1)
            });
            last = Some((stream, place));
            if let Some((_, sessions)) = shares.get_mut(place) {
                sessions.push(*id);
            }
        }
        (shares, missing)
    }
}
