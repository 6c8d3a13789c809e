//! The atomic steps, as scripts that run in the server, and the names of keys.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Script};

use super::VERSION;
use super::dial::OpenError;
use crate::domain::group::{GroupLimits, GroupName};
use crate::domain::key::hex;
use crate::domain::same_user::{Bound, Over};
use crate::domain::session::{Farewell, Hold, HoldNumber, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;
use crate::store::queue::QueueLimits;
use crate::store::{Admission, EXPIRED, GIVEN_UP, StoreError, Sweep, Takeover, record};

/// How many events are kept: as many kicks as happen while a replica is away. Whoever was away
/// for more looks up what it holds.
const EVENTS: u32 = 100_000;

/// What expires by itself does so this much later, for clocks that differ.
const LATE: Duration = Duration::from_secs(60);

pub struct Scripts {
    /// What every key begins with: `{prefix}:`.
    base: String,
    /// Names this process among those that share the store.
    pub replica: String,
    hello: Arc<Script>,
    admit: Arc<Script>,
    end: Arc<Script>,
    take_over: Arc<Script>,
    depart: Arc<Script>,
    back: Arc<Script>,
    attached: Arc<Script>,
    sweep: Arc<Script>,
    announce: Arc<Script>,
    keep: Arc<Script>,
    take_kept: Arc<Script>,
    group_join: Arc<Script>,
    group_leave: Arc<Script>,
}

/// A script and what it is called with.
pub struct Call {
    script: Arc<Script>,
    key: String,
    arguments: Vec<Vec<u8>>,
}

impl Scripts {
    pub fn new(prefix: &str) -> Result<Self, OpenError> {
        let late = format!("local LATE = {}\n", LATE.as_millis());
        let script = |code: &str| {
            Arc::new(Script::new(&format!("{late}{}{code}", include_str!("prelude.lua"))))
        };
        Ok(Self {
            base: format!("{{{prefix}}}:"),
            replica: random()?,
            hello: script(include_str!("hello.lua")),
            admit: script(include_str!("admit.lua")),
            end: script(include_str!("end.lua")),
            take_over: script(include_str!("take_over.lua")),
            depart: script(include_str!("depart.lua")),
            back: script(include_str!("back.lua")),
            attached: script(include_str!("attached.lua")),
            sweep: script(include_str!("sweep.lua")),
            announce: script(include_str!("announce.lua")),
            keep: script(include_str!("keep.lua")),
            take_kept: script(include_str!("take_kept.lua")),
            group_join: script(include_str!("group_join.lua")),
            group_leave: script(include_str!("group_leave.lua")),
        })
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    pub fn session_key(&self, id: SessionId) -> String {
        format!("{}s:{id}", self.base)
    }

    pub fn user_key(&self, user: &str) -> String {
        format!("{}u:{user}", self.base)
    }

    /// `revision`: of the event to look up; 0 for the newest.
    pub fn hello(&self, revision: u64) -> Result<Call, StoreError> {
        Ok(self.call(&self.hello)?.with(VERSION).with(revision.to_string()))
    }

    pub fn admit(&self, admission: Admission) -> Result<Call, StoreError> {
        let Admission { credential, bound, session, lost_at } = admission;
        let now = bound.as_ref().map_or(0, |bound| bound.now.0);
        let call = self.call(&self.admit)?.with(now.to_string());
        let call = match credential {
            Some(credential) => {
                let expires = credential.expires().after(LATE);
                call.with(hex(credential.as_bytes())).with(expires.0.to_string())
            }
            None => call.with("").with("0"),
        };
        let away_counts = match &bound {
            Some(Bound { over: Over::Refuse { away_counts, .. }, .. }) => *away_counts,
            _ => false,
        };
        let call = match bound {
            Some(Bound { user, over, farewell, .. }) => {
                let call = match over {
                    Over::Refuse { limit, .. } => {
                        call.with("refuse").with(user).with(limit.to_string())
                    }
                    Over::End => call.with("end").with(user).with("0"),
                };
                call.with(farewell.reason).with(farewell.code.to_string())
            }
            None => call.with("").with("").with("0").with("").with("0"),
        };
        let Some(session) = session else {
            let call = call.with("").with("").with("").with("0").with(flag(away_counts));
            return Ok(call.with("").with("").with("").with("").with("").with("").with(""));
        };
        let call = call.with(session.id.to_string()).with(session.identity.user.as_str());
        let call = call.with(session.proxy.as_str()).with(session.expires_at.0.to_string());
        let call = call.with(flag(away_counts)).with(record::encode(session.clone()));
        let call = call.with(number(session.hold.0)).with(number(session.worker));
        let call = call.with(session.peer).with(session.client);
        Ok(call.with(flag(session.seed.is_some())).with(mind(session.worker, lost_at)))
    }

    pub fn take_over(&self, takeover: Takeover) -> Result<Call, StoreError> {
        let Takeover { session, base, now, lost_at } = takeover;
        let call = self.call(&self.take_over)?.with(session.id.to_string());
        let call = call.with(number(base.0)).with(now.0.to_string());
        let call = call.with(number(session.hold.0)).with(number(session.worker));
        let call = call.with(session.proxy).with(session.peer).with(session.client);
        Ok(call.with(mind(session.worker, lost_at)))
    }

    pub fn depart(&self, holds: &[Hold], until: Option<UnixMillis>) -> Result<Call, StoreError> {
        let until = until.map(|until| until.0.to_string()).unwrap_or_default();
        Ok(self.call(&self.depart)?.with(until).with_holds(holds))
    }

    pub fn back(&self, holds: &[Hold], worker: u64) -> Result<Call, StoreError> {
        Ok(self.call(&self.back)?.with(number(worker)).with_holds(holds))
    }

    pub fn attached(&self, workers: &[u64], until: UnixMillis) -> Result<Call, StoreError> {
        let call = self.call(&self.attached)?.with(until.0.to_string());
        Ok(workers.iter().fold(call, |call, worker| call.with(number(*worker))))
    }

    pub fn end(&self, ids: &[SessionId], farewell: Option<&Farewell>) -> Result<Call, StoreError> {
        let call = self.call(&self.end)?;
        let call = match farewell {
            Some(farewell) => {
                call.with("1").with(farewell.reason.as_str()).with(farewell.code.to_string())
            }
            None => call.with("").with("").with("0"),
        };
        Ok(ids.iter().fold(call, |call, id| call.with(id.to_string())))
    }

    pub fn sweep(&self, sweep: Sweep, limit: usize) -> Result<Call, StoreError> {
        let call = self.call(&self.sweep)?;
        let call = call.with(sweep.now.0.to_string()).with(limit.to_string());
        let lost = sweep.lost_until.map(|until| until.0.to_string()).unwrap_or_default();
        Ok(call.with(EXPIRED).with(GIVEN_UP).with(lost))
    }

    pub fn announce(&self, whom: &Whom, farewell: &Farewell) -> Result<Call, StoreError> {
        let whom = serde_json::to_string(whom).map_err(|error| StoreError(error.to_string()))?;
        let call = self.call(&self.announce)?.with(whom);
        Ok(call.with(farewell.reason.as_str()).with(farewell.code.to_string()))
    }

    pub fn keep(
        &self,
        ids: &[SessionId],
        entry: Vec<u8>,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Result<Call, StoreError> {
        let QueueLimits { pushes, bytes, age } = limits;
        let call = self.call(&self.keep)?.with(now.0.to_string()).with(age.as_millis().to_string());
        let call = call.with(pushes.to_string()).with(bytes.to_string()).with(entry);
        Ok(ids.iter().fold(call, |call, id| call.with(id.to_string())))
    }

    pub fn take_kept(&self, ids: &[SessionId]) -> Result<Call, StoreError> {
        let call = self.call(&self.take_kept)?;
        Ok(ids.iter().fold(call, |call, id| call.with(id.to_string())))
    }

    pub fn group_join(
        &self,
        group: &GroupName,
        session: SessionId,
        limits: GroupLimits,
    ) -> Result<Call, StoreError> {
        let call = self.call(&self.group_join)?.with(session.to_string()).with(group.as_str());
        Ok(call.with(limits.members.to_string()).with(limits.of_session.to_string()))
    }

    pub fn group_leave(&self, group: &GroupName, session: SessionId) -> Result<Call, StoreError> {
        Ok(self.call(&self.group_leave)?.with(session.to_string()).with(group.as_str()))
    }

    fn call(&self, script: &Arc<Script>) -> Result<Call, StoreError> {
        let nonce = random().map_err(|error| StoreError(error.to_string()))?;
        let call =
            Call { script: Arc::clone(script), key: self.key("revision"), arguments: Vec::new() };
        Ok(call
            .with(self.base.as_str())
            .with(self.replica.as_str())
            .with(nonce)
            .with(EVENTS.to_string()))
    }
}

impl Call {
    pub fn with(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn with_holds(self, holds: &[Hold]) -> Self {
        holds.iter().fold(self, |call, hold| {
            call.with(hold.session.to_string()).with(number(hold.number.0))
        })
    }

    pub async fn invoke<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        let mut invocation = self.script.key(&self.key);
        for argument in &self.arguments {
            invocation.arg(argument);
        }
        invocation.invoke_async(connection).await
    }
}

/// 16 hexadecimal digits: Lua's own numbers are not exact.
pub fn number(number: u64) -> String {
    format!("{number:016x}")
}

/// Reads what [`number`] writes; 0 if it is something else.
pub fn hold_number(text: &str) -> HoldNumber {
    HoldNumber(u64::from_str_radix(text, 16).unwrap_or(0))
}

/// When a worker is lost, if that is to be minded.
fn mind(worker: u64, lost_at: Option<UnixMillis>) -> String {
    lost_at.filter(|_| worker != 0).map(|at| at.0.to_string()).unwrap_or_default()
}

const fn flag(set: bool) -> &'static str {
    if set { "1" } else { "" }
}

/// 16 hexadecimal digits that nobody else has.
fn random() -> Result<String, OpenError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| OpenError::Settings { name: "randomness", problem: error.to_string() })?;
    Ok(hex(&bytes))
}
