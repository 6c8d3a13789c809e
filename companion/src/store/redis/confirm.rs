//! Waits until replicas have what was written, before anybody hears of it.
//!
//! A replica that takes over has what it was sent, and no more. So what is answered must be with
//! one: then a fail-over forgets no login that anybody heard of, no end, no used credential and no
//! token that was overtaken. Many writes share one round: a write after all of theirs, and `WAIT`
//! for it, on a connection of its own, since `WAIT` holds up what comes after it.
//!
//! So many replicas as are attached have to answer, up to [`RedisSettings::confirm`]. A master
//! without any (the others were lost, or it has just taken over) works alone: nobody else can take
//! over from it. Whether it may is the server's own matter (`min-replicas-to-write`).
//!
//! [`RedisSettings::confirm`]: super::RedisSettings::confirm

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use tokio::sync::{Notify, oneshot};

/// How long the key that is written each time stays, in ms.
const STAYS: u32 = 60_000;

#[derive(Debug, Default)]
pub struct Confirmations {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
}

#[derive(Debug)]
pub struct Waiting {
    /// The connection over which it was written, by its number.
    pub generation: u64,
    pub told: oneshot::Sender<Result<(), String>>,
}

impl Confirmations {
    /// Until a round that begins after now has its result.
    pub async fn wait(&self, generation: u64) -> Result<(), String> {
        let (told, result) = oneshot::channel();
        self.lock().push(Waiting { generation, told });
        self.wake.notify_one();
        result.await.unwrap_or_else(|_| Err("nobody confirms".into()))
    }

    /// Those who wait; waits for the first one.
    pub async fn next(&self) -> Vec<Waiting> {
        loop {
            let waiting = std::mem::take(&mut *self.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        // Nothing panics while the lock is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of confirmations, and how many replicas were attached the last time.
#[derive(Clone)]
pub struct Confirmer {
    connection: MultiplexedConnection,
    /// Written before each `WAIT`.
    key: String,
    wanted: usize,
    attached: usize,
    /// Less than the connection waits for an answer.
    patience: Duration,
}

impl Confirmer {
    pub fn new(
        connection: MultiplexedConnection,
        key: String,
        wanted: usize,
        timeout: Duration,
    ) -> Self {
        let patience = timeout.saturating_mul(3) / 4;
        Self { connection, key, wanted, attached: 0, patience }
    }

    /// Everything that the server did before this call is with its replicas; `false` if not, or
    /// if it is no master any more.
    pub async fn round(&mut self) -> RedisResult<bool> {
        let expected = self.attached.min(self.wanted);
        let mut round = redis::pipe();
        round.cmd("SET").arg(&self.key).arg("1").arg("PX").arg(STAYS).ignore();
        if expected > 0 {
            self.wait(&mut round, expected);
        }
        round.cmd("INFO").arg("replication");
        let (have, info): (usize, String) = if expected > 0 {
            round.query_async(&mut self.connection).await?
        } else {
            let (info,): (String,) = round.query_async(&mut self.connection).await?;
            (0, info)
        };
        let Some(attached) = attached(&info) else { return Ok(false) };
        self.attached = attached;
        let needed = attached.min(self.wanted);
        if have >= needed {
            return Ok(true);
        }
        // One came, or one that was slow has gone since.
        let mut again = redis::pipe();
        self.wait(&mut again, needed);
        let (have,): (usize,) = again.query_async(&mut self.connection).await?;
        Ok(have >= needed)
    }

    fn wait(&self, pipe: &mut redis::Pipeline, replicas: usize) {
        pipe.cmd("WAIT").arg(replicas).arg(u64::try_from(self.patience.as_millis()).unwrap_or(0));
    }
}

/// Of a master: how many replicas are up to date and attached.
fn attached(info: &str) -> Option<usize> {
    let mut lines = info.lines();
    if !lines.any(|line| line == "role:master") {
        return None;
    }
    let replica = |line: &&str| line.starts_with("slave") && line.contains("state=online");
    Some(lines.filter(replica).count())
}

/// As text for whoever waits.
pub fn problem(result: Result<bool, RedisError>) -> Result<(), String> {
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err("too few replicas have it".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_count_once_they_are_up_to_date() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=127.0.0.1,port=1,state=online,offset=14,lag=1\r\n\
            slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
            master_failover_state:no-failover\r\n";
        assert_eq!(attached(info), Some(1));
        assert_eq!(attached("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"), Some(0));
        assert_eq!(attached("# Replication\r\nrole:slave\r\nslave0:state=online\r\n"), None);
        assert_eq!(attached(""), None);
    }
}
