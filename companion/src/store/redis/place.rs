//! Where the store lies: one server, the master that Sentinels name, or the master of a Cluster
//! that has the prefix's slot.
//!
//! Sentinels and nodes are asked all at once, and what most of them say counts: one that is cut
//! off from the others may still name a master that was given up.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{RedisResult, Value, from_redis_value};
use tokio::task::JoinSet;

use super::dial::{Dialer, OpenError};

/// Nodes of a cluster that are asked.
const MAX_NODES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// `host:port`, or `[address]:port` of IPv6.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some(Self::new(host, port)).filter(|address| !address.host.is_empty())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Server(Address),
    Sentinel {
        sentinels: Vec<Address>,
        /// What they call the master.
        master: String,
        username: Option<String>,
        password_file: Option<PathBuf>,
    },
    /// Some of the nodes; the others are learned from them.
    Cluster(Vec<Address>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |nodes: &[Address]| nodes.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Server(address) => address.fmt(f),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "{master}, by the sentinels {}", list(sentinels))
            }
            Self::Cluster(nodes) => write!(f, "the cluster of {}", list(nodes)),
        }
    }
}

/// Finds the server to talk to.
#[derive(Debug)]
pub struct Finder {
    pub place: Place,
    /// A key of the store: all others have the same slot.
    key: String,
    timeout: Duration,
    /// Nodes of the cluster beside those that were given.
    learned: Mutex<Vec<Address>>,
}

/// What one node of a cluster says.
struct View {
    master: Option<Address>,
    nodes: Vec<Address>,
}

impl Finder {
    pub fn new(place: Place, key: String, timeout: Duration) -> Self {
        Self { place, key, timeout, learned: Mutex::default() }
    }

    pub async fn find(&self, dialer: &Dialer) -> Result<Address, OpenError> {
        match &self.place {
            Place::Server(address) => Ok(address.clone()),
            Place::Sentinel { sentinels, master, .. } => {
                self.by_sentinels(dialer, sentinels, master).await
            }
            Place::Cluster(nodes) => self.by_nodes(dialer, nodes).await,
        }
    }

    async fn by_sentinels(
        &self,
        dialer: &Dialer,
        sentinels: &[Address],
        master: &str,
    ) -> Result<Address, OpenError> {
        let mut asks = JoinSet::new();
        for sentinel in sentinels {
            let (client, timeout) = (dialer.sentinel(sentinel, &self.place)?, self.timeout);
            let (sentinel, master) = (sentinel.clone(), master.to_owned());
            asks.spawn(async move {
                let asking = async {
                    let mut connection = client.get_multiplexed_async_connection().await?;
                    let mut ask = redis::cmd("SENTINEL");
                    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
                    let found: Option<(String, u16)> = ask.query_async(&mut connection).await?;
                    Ok(found.map(|(host, port)| Address { host, port }))
                };
                within(timeout, &sentinel, asking).await
            });
        }
        let unknown = || OpenError::Settings {
            name: "master",
            problem: format!("no sentinel knows a master `{master}`"),
        };
        let mut votes = Votes::of(sentinels.len());
        while let Some(answer) = asks.join_next().await {
            if votes.take(answer.unwrap_or_else(|_| Err(OpenError::Unserved))) {
                break;
            }
        }
        votes.result(unknown)
    }

    async fn by_nodes(&self, dialer: &Dialer, nodes: &[Address]) -> Result<Address, OpenError> {
        let mut asked = nodes.to_vec();
        for node in self.learned.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !asked.contains(node) {
                asked.push(node.clone());
            }
        }
        let mut asks = JoinSet::new();
        for node in &asked {
            let (client, timeout) = (dialer.server(node)?, self.timeout);
            let (node, key) = (node.clone(), self.key.clone());
            asks.spawn(async move {
                let asking = async {
                    let mut connection = client.get_multiplexed_async_connection().await?;
                    let mut cluster = redis::pipe();
                    cluster.cmd("CLUSTER").arg("KEYSLOT").arg(key);
                    cluster.cmd("CLUSTER").arg("SLOTS");
                    let (slot, ranges): (i64, Vec<Value>) =
                        cluster.query_async(&mut connection).await?;
                    view(&node.host, slot, ranges)
                };
                within(timeout, &node, asking).await
            });
        }
        let mut votes = Votes::of(asked.len());
        while let Some(answer) = asks.join_next().await {
            let answer = answer.unwrap_or_else(|_| Err(OpenError::Unserved)).map(|view| {
                self.learn(view.nodes);
                view.master
            });
            if votes.take(answer) {
                break;
            }
        }
        votes.result(|| OpenError::Unserved)
    }

    /// The newest news of the cluster's nodes come first.
    fn learn(&self, nodes: Vec<Address>) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.retain(|known| !nodes.contains(known));
        learned.splice(0..0, nodes);
        learned.truncate(MAX_NODES);
    }
}

async fn within<T>(
    timeout: Duration,
    server: &Address,
    asking: impl Future<Output = RedisResult<T>>,
) -> Result<T, OpenError> {
    match tokio::time::timeout(timeout, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(OpenError::Server { server: server.to_string(), error }),
        Err(_) => Err(OpenError::Silent { server: server.to_string(), timeout }),
    }
}

/// Answers of those who were asked.
struct Votes {
    asked: usize,
    named: Vec<(Address, usize)>,
    /// One that waiting cannot cure, or else the first one.
    error: Option<OpenError>,
    answered: bool,
}

impl Votes {
    fn of(asked: usize) -> Self {
        Self { asked, named: Vec::new(), error: None, answered: false }
    }

    /// `true`: more than half say the same.
    fn take(&mut self, answer: Result<Option<Address>, OpenError>) -> bool {
        let address = match answer {
            Ok(address) => address,
            Err(error) => {
                if self.error.as_ref().is_none_or(|known| known.may_pass() && !error.may_pass()) {
                    self.error = Some(error);
                }
                return false;
            }
        };
        self.answered = true;
        let Some(address) = address else { return false };
        let votes = match self.named.iter_mut().find(|(named, _)| *named == address) {
            Some((_, votes)) => {
                *votes = votes.saturating_add(1);
                *votes
            }
            None => {
                self.named.push((address, 1));
                1
            }
        };
        votes > self.asked / 2
    }

    /// `nowhere`: those who answered name nobody.
    fn result(self, nowhere: impl FnOnce() -> OpenError) -> Result<Address, OpenError> {
        // Of as many votes, who was named first.
        let most = self.named.into_iter().rev().max_by_key(|(_, votes)| *votes);
        match (most, self.error) {
            (Some((address, _)), _) => Ok(address),
            (None, Some(error)) if !self.answered => Err(error),
            (None, _) => Err(nowhere()),
        }
    }
}

/// Reads `CLUSTER SLOTS`: ranges, each `[first, last, [host, port, …] of the master, … of replicas]`.
/// A host that is nothing is that of whoever was asked.
fn view(asked: &str, slot: i64, ranges: Vec<Value>) -> RedisResult<View> {
    let mut view = View { master: None, nodes: Vec::new() };
    for range in ranges {
        let parts: Vec<Value> = from_redis_value(range)?;
        let mut parts = parts.into_iter();
        let mut bound = || parts.next().map(from_redis_value::<i64>).transpose();
        let (first, last) = (bound()?, bound()?);
        let here =
            first.is_some_and(|first| first <= slot) && last.is_some_and(|last| slot <= last);
        for (place, node) in parts.enumerate() {
            let node: Vec<Value> = from_redis_value(node)?;
            let mut node = node.into_iter();
            let host: Option<String> = node.next().map(from_redis_value).transpose()?.flatten();
            let port: Option<u16> = node.next().map(from_redis_value).transpose()?;
            let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.to_owned());
            let Some(port) = port.filter(|port| *port > 0 && host != "?") else { continue };
            let address = Address { host, port };
            if here && place == 0 {
                view.master = Some(address.clone());
            }
            if !view.nodes.contains(&address) {
                view.nodes.push(address);
            }
        }
    }
    Ok(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_again_by_its_text() {
        for text in ["redis:6379", "10.0.0.1:1", "[::1]:26379"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("[::1]:5").unwrap().host, "::1");
        for bad in ["", "redis", ":1", "redis:", "redis:0", "redis:65536", "::1:5", "[::1:5"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    fn at(port: u16) -> Address {
        Address::new("a", port)
    }

    fn away() -> OpenError {
        OpenError::Silent { server: "a".into(), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn what_most_say_counts_and_more_than_half_is_enough() {
        let mut votes = Votes::of(3);
        assert!(!votes.take(Ok(Some(at(1)))));
        assert!(!votes.take(Ok(Some(at(2)))));
        assert!(votes.take(Ok(Some(at(2)))));
        assert_eq!(votes.result(|| OpenError::Unserved).unwrap(), at(2));
        let mut votes = Votes::of(3);
        assert!(!votes.take(Err(away())));
        assert!(!votes.take(Ok(Some(at(1)))));
        assert!(!votes.take(Ok(Some(at(2)))));
        assert_eq!(votes.result(|| OpenError::Unserved).unwrap(), at(1));
    }

    #[test]
    fn where_nobody_answers_the_error_says_why() {
        let wrong = || OpenError::Settings { name: "password_file", problem: "gone".into() };
        let mut votes = Votes::of(3);
        votes.take(Err(away()));
        votes.take(Err(wrong()));
        votes.take(Err(away()));
        let error = votes.result(|| OpenError::Unserved).unwrap_err();
        assert!(matches!(error, OpenError::Settings { .. }), "{error}");
        let mut votes = Votes::of(2);
        votes.take(Err(away()));
        votes.take(Ok(None));
        let error = votes.result(|| OpenError::Unserved).unwrap_err();
        assert!(matches!(error, OpenError::Unserved), "{error}");
    }

    #[test]
    fn the_master_of_the_slot_is_read_from_the_slots() {
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let ranges = vec![
            range(0, 99, vec![node(text("a"), 1), node(text("a"), 2)]),
            range(100, 200, vec![node(Value::Nil, 3), node(text("?"), 4), node(text("a"), 2)]),
        ];
        let view = |slot| view("me", slot, ranges.clone()).unwrap();
        assert_eq!(view(99).master, Some(at(1)));
        assert_eq!(view(100).master, Some(Address::new("me", 3)));
        assert_eq!(view(201).master, None);
        assert_eq!(view(0).nodes, [at(1), at(2), Address::new("me", 3)]);
    }
}
