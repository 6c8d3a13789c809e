//! The atomic steps, as scripts that run in the server, and the names of keys.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Script};

use super::VERSION;
use super::link::OpenError;
use crate::domain::group::{GroupLimits, GroupName};
use crate::domain::key::hex;
use crate::domain::same_user::{Bound, Over};
use crate::domain::session::{Farewell, SessionId};
use crate::domain::sessions::Whom;
use crate::domain::time::UnixMillis;
use crate::store::{Admission, EXPIRED, StoreError, record};

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
    sweep: Arc<Script>,
    announce: Arc<Script>,
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
        let script =
            |code: &str| Arc::new(Script::new(&format!("{}{code}", include_str!("prelude.lua"))));
        Ok(Self {
            base: format!("{{{prefix}}}:"),
            replica: random()?,
            hello: script(include_str!("hello.lua")),
            admit: script(include_str!("admit.lua")),
            end: script(include_str!("end.lua")),
            sweep: script(include_str!("sweep.lua")),
            announce: script(include_str!("announce.lua")),
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
        let Admission { credential, bound, session } = admission;
        let now = bound.as_ref().map_or(0, |bound| bound.now.0);
        let call = self.call(&self.admit)?.with(now.to_string());
        let call = match credential {
            Some(credential) => {
                let bytes = credential.as_bytes();
                let expires = bytes.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
                call.with(hex(bytes)).with(UnixMillis(expires).after(LATE).0.to_string())
            }
            None => call.with("").with("0"),
        };
        let call = match bound {
            Some(Bound { user, over: Over::Refuse { limit }, .. }) => {
                call.with("refuse").with(user).with(limit.to_string()).with("").with("0")
            }
            Some(Bound { user, over: Over::End { farewell }, .. }) => {
                let call = call.with("end").with(user).with("0");
                call.with(farewell.reason).with(farewell.code.to_string())
            }
            None => call.with("").with("").with("0").with("").with("0"),
        };
        let Some(session) = session else {
            return Ok(call.with("").with("").with("").with("0").with("0").with(""));
        };
        let expires = session.expires_at;
        let call = call.with(session.id.to_string()).with(session.identity.user.as_str());
        let call = call.with(session.proxy.as_str()).with(expires.0.to_string());
        Ok(call.with(expires.after(LATE).0.to_string()).with(record::encode(session)))
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

    pub fn sweep(&self, now: UnixMillis, limit: usize) -> Result<Call, StoreError> {
        let call = self.call(&self.sweep)?;
        Ok(call.with(now.0.to_string()).with(limit.to_string()).with(EXPIRED))
    }

    pub fn announce(&self, whom: &Whom, farewell: &Farewell) -> Result<Call, StoreError> {
        let whom = serde_json::to_string(whom).map_err(|error| StoreError(error.to_string()))?;
        let call = self.call(&self.announce)?.with(whom);
        Ok(call.with(farewell.reason.as_str()).with(farewell.code.to_string()))
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

/// 16 hexadecimal digits that nobody else has.
fn random() -> Result<String, OpenError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| OpenError::Settings { name: "randomness", problem: error.to_string() })?;
    Ok(hex(&bytes))
}
