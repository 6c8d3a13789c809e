//! The events that other replicas leave, in their order and without a gap.
//!
//! Each has a revision, one more than that of the event before, and a nonce. Whoever comes back
//! looks for the event that he heard last. If it is there, with its nonce, he goes on after it;
//! if it is not (he was away for too long, or the store lost something), or if revisions have a
//! gap, he says so: then what is held is looked up in the store ([`News::Gap`]). It is also looked
//! up after each interruption, once he has caught up: a server that has failed may have lost what
//! left no event, such as a login.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{Value, from_redis_value};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::link::Link;
use crate::domain::session::{Farewell, Hold, SessionId};
use crate::store::News;

/// After so long without an event the store is asked whether it is still the same.
const BLOCK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
/// Events that one round trip brings.
const STEP: usize = 512;

/// The event that was heard last.
struct Cursor {
    revision: u64,
    nonce: String,
}

/// Why the connection is no use any more.
struct Broken(String);

/// Tells the news until nobody listens.
pub async fn follow(link: Arc<Link>, tell: mpsc::Sender<News>) {
    let mut cursor = None;
    while !tell.is_closed() {
        let Err(Broken(problem)) = listen(&link, &tell, &mut cursor).await else { return };
        debug!(problem, "the store's events are away");
        // So it may be for others, who have not asked it for a while.
        link.probe().await;
        tokio::time::sleep(RETRY).await;
    }
}

/// Until nobody listens, or something breaks.
async fn listen(
    link: &Link,
    tell: &mpsc::Sender<News>,
    cursor: &mut Option<Cursor>,
) -> Result<(), Broken> {
    let timeout = BLOCK.saturating_add(link.timeout);
    let mut moves = link.moves();
    let mut connection = link.connection(timeout).await.map_err(|e| Broken(e.to_string()))?;
    let events = link.scripts.key("events");
    let (mut quiet, mut interrupted) = (true, cursor.is_some());
    loop {
        if quiet {
            let told = recognise(link, &mut connection, cursor, tell).await?;
            interrupted &= !told;
        }
        let Some(heard) = cursor else { return Err(Broken("no event to begin with".into())) };
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(STEP);
        if !interrupted {
            read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        read.arg("STREAMS").arg(&events).arg(format!("{}-0", heard.revision));
        let reply: Option<StreamReadReply> = tokio::select! {
            reply = read.query_async(&mut connection) => {
                reply.map_err(|error| Broken(error.to_string()))?
            }
            _ = moves.changed() => return Err(Broken("the store is elsewhere".into())),
        };
        let new = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        quiet = true;
        for event in new {
            quiet = false;
            if !take(&link.scripts.replica, tell, heard, &event).await? {
                return Ok(());
            }
        }
        if quiet && interrupted {
            interrupted = false;
            if tell.send(News::Gap).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Sees to it that the cursor is an event of this store; a new one means that something may have
/// been missed, and `true` that this was told.
async fn recognise(
    link: &Link,
    connection: &mut MultiplexedConnection,
    cursor: &mut Option<Cursor>,
    tell: &mpsc::Sender<News>,
) -> Result<bool, Broken> {
    let broken = |error: &dyn ToString| Broken(error.to_string());
    for _ in 0..2 {
        let revision = cursor.as_ref().map_or(0, |cursor| cursor.revision);
        let hello = link.scripts.hello(revision).map_err(|error| broken(&error))?;
        let answer: Vec<String> = hello.invoke(connection).await.map_err(|error| broken(&error))?;
        let [_, revision, nonce] = answer.as_slice() else {
            return Err(Broken("a store of another version".into()));
        };
        match cursor {
            Some(heard) if heard.nonce == *nonce => return Ok(false),
            Some(heard) => {
                warn!(revision = heard.revision, "the last event is not in the store any more");
                *cursor = None;
            }
            None => {
                let revision = revision.parse().map_err(|error| broken(&error))?;
                *cursor = Some(Cursor { revision, nonce: nonce.clone() });
                // From here on nothing is missed; what was missed before shows when what is held
                // is looked up. Whoever does not listen any more needs nothing.
                let _ = tell.send(News::Gap).await;
                return Ok(true);
            }
        }
    }
    Err(Broken("the store changes under our eyes".into()))
}

/// Tells one event; `false` if nobody listens.
async fn take(
    replica: &str,
    tell: &mpsc::Sender<News>,
    cursor: &mut Cursor,
    event: &StreamId,
) -> Result<bool, Broken> {
    let revision = event.id.split('-').next().and_then(|text| text.parse::<u64>().ok());
    let revision = revision.ok_or_else(|| Broken(format!("no event of mine: {}", event.id)))?;
    if revision != cursor.revision.wrapping_add(1) {
        warn!(from = cursor.revision, to = revision, "events are missing");
        // The event itself may be told as well: hearing twice that a session ended is no harm.
        if tell.send(News::Gap).await.is_err() {
            return Ok(false);
        }
    }
    *cursor = Cursor { revision, nonce: text(&event.map, "nonce") };
    let news = read(&event.map, replica);
    Ok(match news {
        Some(news) => tell.send(news).await.is_ok(),
        None => !tell.is_closed(),
    })
}

/// What an event says; nothing if it concerns nobody here, or is of a kind that a later version
/// writes.
fn read(event: &HashMap<String, Value>, replica: &str) -> Option<News> {
    let own = text(event, "by") == replica;
    let code = text(event, "code").parse().unwrap_or(0);
    let farewell = Farewell { reason: text(event, "reason"), code };
    match text(event, "kind").as_str() {
        "ended" => {
            let session = SessionId::from_hex(&text(event, "session"))?;
            let proxy = Some(text(event, "proxy")).filter(|proxy| !proxy.is_empty());
            Some(News::Ended { session, proxy, farewell, own })
        }
        "moved" if !own => {
            let session = SessionId::from_hex(&text(event, "session"))?;
            let number = super::scripts::hold_number(&text(event, "hold"));
            Some(News::Moved { hold: Hold { session, number } })
        }
        "call" if !own => {
            let whom = serde_json::from_str(&text(event, "whom")).ok()?;
            Some(News::Call { whom, farewell })
        }
        _ => None,
    }
}

fn text(event: &HashMap<String, Value>, field: &str) -> String {
    event.get(field).and_then(|value| from_redis_value(value.clone()).ok()).unwrap_or_default()
}
