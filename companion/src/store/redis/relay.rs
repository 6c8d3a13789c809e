//! Letters by Pub/Sub: `<prefix>:push` for all replicas, `<prefix>:push:<replica>` for one; and on
//! `<prefix>:log` the news that the history has grown.
//!
//! The server passes the letters of one channel on in one order to all who listen, keeps none, and
//! says how many there were.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tracing::{debug, warn};

use super::link::Link;
use crate::domain::push::{Command, Leave, Outcome, Parcel};
use crate::domain::session::SessionId;
use crate::store::relay::{Letter, Relay};
use crate::store::{Answer, StoreError};

/// Letters that wait for the domain; beyond, they wait in the server, which cuts off who is too
/// far behind (its `client-output-buffer-limit`).
const LETTERS: usize = 1024;
const RETRY: Duration = Duration::from_millis(200);
/// How often a quiet connection is asked whether it still works.
const PING: Duration = Duration::from_secs(2);

pub struct RedisRelay {
    link: Arc<Link>,
    letters: Mutex<Option<mpsc::Receiver<Letter>>>,
    /// Counts what may be news of the history.
    pulse: watch::Receiver<u64>,
}

/// A letter as it travels. Later versions may add fields.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    /// Of a push: the replica that wrote it.
    #[prost(string, tag = "1")]
    from: String,
    #[prost(uint64, tag = "2")]
    reference: u64,
    /// Of a push: 16 bytes each.
    #[prost(bytes = "vec", tag = "3")]
    sessions: Vec<u8>,
    #[prost(int64, optional, tag = "4")]
    number: Option<i64>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(bytes = "vec", tag = "6")]
    body: Vec<u8>,
    /// Of a receipt.
    #[prost(message, optional, tag = "7")]
    receipt: Option<Receipt>,
    /// Of a push without a command.
    #[prost(message, optional, tag = "12")]
    leave: Option<Departure>,
}

/// [`Leave`].
#[derive(Clone, PartialEq, Message)]
struct Departure {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(uint64, tag = "3")]
    spread_ms: u64,
    #[prost(uint64, tag = "4")]
    within_ms: u64,
    #[prost(string, tag = "5")]
    address: String,
}

impl Departure {
    fn of(leave: &Leave) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            service: leave.service.clone(),
            reason: leave.reason.clone(),
            spread_ms: millis(leave.spread),
            within_ms: millis(leave.within),
            address: leave.address.clone(),
        }
    }

    fn leave(self) -> Leave {
        let Self { service, reason, spread_ms, within_ms, address } = self;
        let (spread, within) = (Duration::from_millis(spread_ms), Duration::from_millis(within_ms));
        Leave { service, reason, spread, within, address }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Receipt {
    #[prost(uint32, tag = "1")]
    delivered: u32,
    #[prost(uint32, tag = "2")]
    gone: u32,
    #[prost(uint32, tag = "3")]
    slow: u32,
    #[prost(uint32, tag = "4")]
    refused: u32,
    #[prost(uint32, tag = "5")]
    unconfirmed: u32,
    #[prost(string, tag = "6")]
    reason: String,
}

impl RedisRelay {
    /// And the work of reading letters, to be spawned.
    pub fn new(link: Arc<Link>) -> (Self, impl Future<Output = ()>) {
        let (tell, letters) = mpsc::channel(LETTERS);
        let (beat, pulse) = watch::channel(0);
        let reading = read(Arc::clone(&link), tell, beat);
        (Self { link, letters: Mutex::new(Some(letters)), pulse }, reading)
    }

    pub fn pulse(&self) -> watch::Receiver<u64> {
        self.pulse.clone()
    }

    fn publish(&self, channel: String, envelope: &Envelope) -> Answer<u32> {
        let link = Arc::clone(&self.link);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(envelope.encode_to_vec());
        Box::pin(async move {
            link.run(|mut connection| async move { publish.query_async(&mut connection).await })
                .await
        })
    }
}

impl Relay for RedisRelay {
    fn push(&self, reference: u64, sessions: Vec<SessionId>, parcel: Arc<Parcel>) -> Answer<u32> {
        let (number, name, leave) = match &parcel.command {
            Command::Number(number) => (Some(*number), String::new(), None),
            Command::Name(name) => (None, name.clone(), None),
            Command::Leave(leave) => (None, String::new(), Some(Departure::of(leave))),
        };
        let envelope = Envelope {
            from: self.link.scripts.replica.clone(),
            reference,
            sessions: sessions.iter().flat_map(|session| *session.as_bytes()).collect(),
            number,
            name,
            body: parcel.body.clone(),
            receipt: None,
            leave,
        };
        self.publish(self.link.scripts.key("push"), &envelope)
    }

    fn receipt(&self, to: String, reference: u64, outcome: Outcome) -> Answer<()> {
        let Outcome { delivered, gone, slow, refused, unconfirmed, reason, .. } = outcome;
        let receipt = Receipt { delivered, gone, slow, refused, unconfirmed, reason };
        let envelope = Envelope { reference, receipt: Some(receipt), ..Envelope::default() };
        let told = self.publish(self.link.scripts.key(&format!("push:{to}")), &envelope);
        Box::pin(async move { told.await.map(|_| ()) })
    }

    fn letters(&self) -> Option<mpsc::Receiver<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn letter(bytes: &[u8]) -> Result<Letter, StoreError> {
    let problem = |problem: &str| StoreError(format!("a letter of another replica: {problem}"));
    let envelope = Envelope::decode(bytes).map_err(|error| problem(&error.to_string()))?;
    let reference = envelope.reference;
    if let Some(receipt) = envelope.receipt {
        let Receipt { delivered, gone, slow, refused, unconfirmed, reason } = receipt;
        let known = Outcome { delivered, gone, slow, refused, unconfirmed, ..Outcome::default() };
        let outcome = Outcome { reason, ..known };
        return Ok(Letter::Receipt { reference, outcome });
    }
    let (ids, []) = envelope.sessions.as_chunks::<16>() else {
        return Err(problem("it is for what is no session"));
    };
    let command = match (envelope.number, envelope.leave) {
        (_, Some(departure)) => Command::Leave(departure.leave()),
        (Some(number), None) => Command::Number(number),
        (None, None) => Command::Name(envelope.name),
    };
    Ok(Letter::Push {
        from: envelope.from,
        reference,
        sessions: ids.iter().map(|id| SessionId::from_bytes(*id)).collect(),
        parcel: Arc::new(Parcel { command, body: envelope.body }),
    })
}

/// Reads letters until nobody listens.
async fn read(link: Arc<Link>, tell: mpsc::Sender<Letter>, beat: watch::Sender<u64>) {
    while !tell.is_closed() {
        let Err(problem) = listen(&link, &tell, &beat).await else { return };
        debug!(%problem, "letters of other replicas are not read");
        tokio::time::sleep(RETRY).await;
    }
}

/// Until nobody listens, or something breaks.
async fn listen(
    link: &Link,
    tell: &mpsc::Sender<Letter>,
    beat: &watch::Sender<u64>,
) -> Result<(), StoreError> {
    let failed = |error: &dyn ToString| StoreError(error.to_string());
    let mut moves = link.moves();
    let mut subscriber = link.subscriber().await.map_err(|error| failed(&error))?;
    let own = format!("push:{}", link.scripts.replica);
    let log = link.scripts.key("log");
    for channel in ["push", "log", &own] {
        let subscribing = subscriber.subscribe(link.scripts.key(channel));
        let subscribed = tokio::time::timeout(link.timeout, subscribing).await;
        subscribed.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    }
    let (mut asks, mut messages) = subscriber.split();
    // Something may have been missed.
    beat.send_modify(|count| *count = count.wrapping_add(1));
    let mut quiet = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            _ = moves.changed() => return Err(StoreError("the store is elsewhere".into())),
            _ = quiet.tick() => {
                let ping = tokio::time::timeout(link.timeout, asks.ping::<redis::Value>());
                ping.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
                continue;
            }
        };
        let message = message.ok_or_else(|| StoreError("the connection ended".into()))?;
        if message.get_channel_name() == log {
            beat.send_modify(|count| *count = count.wrapping_add(1));
            continue;
        }
        match letter(message.get_payload_bytes()) {
            Ok(letter) => {
                if tell.send(letter).await.is_err() {
                    return Ok(());
                }
            }
            // Of a later version, perhaps.
            Err(problem) => warn!(%problem, "a letter cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_letter_are_refused() {
        let short = Envelope { sessions: vec![1; 17], ..Envelope::default() };
        assert!(letter(&short.encode_to_vec()).is_err());
        assert!(letter(&[0xff]).is_err());
    }
}
