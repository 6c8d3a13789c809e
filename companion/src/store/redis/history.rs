//! What happened, in the stream `log`: one entry an event, under its revision. `log-revision` is
//! the newest one's; the channel `log` tells when there is a new one.

use std::collections::HashMap;
use std::sync::Arc;

use redis::streams::StreamRangeReply;
use redis::{Value, from_redis_value};
use tokio::sync::watch;

use super::{FIELDS, RedisStore, assembled};
use crate::domain::session::{Farewell, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::history::{Bookmark, Cause, Event, Happened, History, TooOld};
use crate::store::{Answer, StoreError};

impl History for RedisStore {
    fn newest(&self) -> Answer<Bookmark> {
        let link = Arc::clone(&self.link);
        let mut get = redis::cmd("MGET");
        get.arg(self.scripts.key("epoch")).arg(self.scripts.key("log-revision"));
        Box::pin(async move {
            let (epoch, revision): (Option<String>, Option<u64>) = link
                .run(|mut connection| async move { get.query_async(&mut connection).await })
                .await?;
            let epoch = epoch.and_then(|epoch| u64::from_str_radix(&epoch, 16).ok());
            let epoch = epoch.ok_or_else(|| StoreError("the history has no epoch".into()))?;
            Ok(Bookmark { epoch, revision: revision.unwrap_or(0) })
        })
    }

    fn since(&self, place: Bookmark, limit: usize) -> Answer<Result<Vec<Event>, TooOld>> {
        let link = Arc::clone(&self.link);
        let newest = self.newest();
        let mut range = redis::cmd("XRANGE");
        range.arg(self.scripts.key("log")).arg(format!("({}-0", place.revision)).arg("+");
        range.arg("COUNT").arg(limit);
        Box::pin(async move {
            let newest = newest.await?;
            if newest.epoch != place.epoch || newest.revision < place.revision {
                return Ok(Err(TooOld));
            }
            if newest.revision == place.revision {
                return Ok(Ok(Vec::new()));
            }
            let reply: StreamRangeReply = link
                .run(|mut connection| async move { range.query_async(&mut connection).await })
                .await?;
            let mut events = Vec::with_capacity(reply.ids.len());
            for entry in reply.ids {
                let event = read(&entry.id, &entry.map)?;
                let expected = place.revision.saturating_add(events.len() as u64).saturating_add(1);
                if event.revision != expected {
                    // Trimmed, in between or before.
                    return Ok(Err(TooOld));
                }
                events.push(event);
            }
            Ok(if events.is_empty() { Err(TooOld) } else { Ok(events) })
        })
    }

    fn pulse(&self) -> watch::Receiver<u64> {
        self.relay.pulse()
    }
}

fn read(id: &str, entry: &HashMap<String, Value>) -> Result<Event, StoreError> {
    let wrong = || StoreError(format!("event {id} of the history cannot be read"));
    let text = |field: &str| -> String {
        let value = entry.get(field).and_then(|value| from_redis_value(value.clone()).ok());
        value.unwrap_or_default()
    };
    let revision = id.split('-').next().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    let happened = match (text("what").as_str(), Cause::from_name(&text("cause"))) {
        ("login", _) => Happened::Login,
        ("away", _) => Happened::Away,
        ("back", _) => Happened::Back,
        ("end", Some(cause)) => {
            let code = text("code").parse().unwrap_or(0);
            Happened::End { cause, farewell: Farewell { reason: text("reason"), code } }
        }
        _ => return Err(wrong()),
    };
    let session = SessionId::from_hex(&text("session")).ok_or_else(wrong)?;
    let record = entry.get("record").and_then(|value| from_redis_value(value.clone()).ok());
    let record: Vec<u8> = record.ok_or_else(wrong)?;
    let at = UnixMillis(text("at").parse().map_err(|_| wrong())?);
    let texts = FIELDS.map(text);
    let [_, texts @ ..] = texts;
    Ok(Event { revision, at, happened, session: assembled(session, record, texts)? })
}
