//! A session: an authenticated relation with one client. It outlives its connection.
//!
//! ```text
//!                 login (noise)             first sealed frame genuine
//!      client ──────────────────▶ pending ─────────────────────────────▶ live ───▶ ended
//!         │                          │                                  ▲  ▲│         ▲
//!         │                          │ 10 s, its stream lost, a kick    │  ││ its     │
//!         │                          ▼                                  │  ││ client  │
//!         │                        ended                                │  ││ or its  │ grace
//!         └───────────────────────── login (ticket) ────────────────────┘  ││ proxy   │ over,
//!                                                                  resumed, ││ is gone │ a kick
//!                                                       proxy came back    │▼         │
//!                                                                         away ───────┘
//! ```
//!
//! - **pending**: the first Noise message can be replayed by whoever saw it, so a Noise login
//!   proves nothing until a frame comes that only the holder of the keys can have sealed. A pending
//!   session lives in memory, with the stream that logged it in; only its used credential is
//!   in the store. Once its activation is under way it outlives the stream: the proxy asks for it
//!   again on the next one, and hears what came of it.
//! - **live**: recorded in the store, before anybody hears of it. Ends by a kick, a newer login of
//!   its user, or its lifetime.
//! - **away**: its client's connection closed (`Ended`), or its worker has been without a stream
//!   for longer than `session.proxy_timeout`. It is in the store still, for `session.grace`. It
//!   lives again when its client resumes it, or when the worker comes back with it. One that cannot
//!   be resumed (no token was given) ends when its connection does.
//! - **ended**: gone from the store. A proxy that still holds one learns by a `Kick`, at
//!   once or when its stream comes back; then with the reason, unless the companion was restarted
//!   in between.
//!
//! A connection has a **hold** on its session; the store knows the one that counts. To resume is to
//! begin a new hold, **pending** until the client's first frame as a login is; then the store puts
//! it in the place of the old one if that still is what it was when the token was checked. So of
//! any number of connections with one token one wins, the old connection can do nothing to the
//! session any more, and nobody is put off by a replayed message.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::credential::Identity;
use super::key::hex;
use super::refusal::Why;
use super::resume::Seed;
use super::time::UnixMillis;

/// Names a session: 6 bytes of time (milliseconds, big-endian), then 10 random bytes. Neighbours
/// in time are neighbours in the store. It is a name and no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId([u8; 16]);

impl SessionId {
    pub fn new(now: UnixMillis) -> Result<Self, Why> {
        let mut bytes = [0; 16];
        let (time, random) = bytes.split_at_mut(6);
        let [_, _, millis @ ..] = now.0.to_be_bytes();
        time.copy_from_slice(&millis);
        getrandom::fill(random).map_err(|_| Why::NoRandomness)?;
        Ok(Self(bytes))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads what [`fmt::Display`] writes: 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_hex(&text).ok_or("a session id has 32 hexadecimal digits")
    }
}

impl TryFrom<&[u8]> for SessionId {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Numbers the holds of one session: its generation (how many of its connections came to life,
/// with this one) in the upper half, and chance in the lower, because several connections may try
/// to be the next one. 0 in records of companions that knew no holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldNumber(pub u64);

impl HoldNumber {
    /// One that follows this one; none follows the last.
    pub fn next(self) -> Result<Self, Why> {
        let generation = self.generation().checked_add(1).ok_or(Why::SessionGone)?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| Why::NoRandomness)?;
        Ok(Self(u64::from(generation) << 32 | u64::from(u32::from_be_bytes(random))))
    }

    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One connection's hold on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    pub session: SessionId,
    pub number: HoldNumber,
}

/// How a session logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Ticket,
    Noise,
}

/// A session as the store keeps it. Keys are no part of it: they live with the filter alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub identity: Identity,
    pub mode: Mode,
    pub audience: String,
    pub layout: String,
    /// The proxy that holds it.
    pub proxy: String,
    /// The client's address.
    pub peer: String,
    /// What the client calls itself, free text.
    pub client: String,
    pub created_at: UnixMillis,
    pub expires_at: UnixMillis,
    /// That counts.
    pub hold: HoldNumber,
    /// The worker of `proxy` that holds it; 0 for one that does not name itself.
    pub worker: u64,
    /// Set while it is away: when it ends.
    pub away_until: Option<UnixMillis>,
    /// What its resume tokens are made from; without it, it cannot be resumed.
    pub seed: Option<Seed>,
}

impl Session {
    pub const fn hold(&self) -> Hold {
        Hold { session: self.id, number: self.hold }
    }

    /// Of one that is recorded.
    pub const fn state(&self) -> State {
        if self.away_until.is_some() { State::Away } else { State::Live }
    }

    /// When it ends if nothing happens to it.
    pub fn ends_at(&self) -> UnixMillis {
        self.away_until.map_or(self.expires_at, |until| until.min(self.expires_at))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Pending,
    Live,
    Away,
}

/// Why a session is thrown out, as its client hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    pub reason: String,
    /// A number that the game gives a meaning; 0 for none.
    pub code: u32,
}

impl Farewell {
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), code: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_their_text() {
        let early = SessionId::new(UnixMillis(1_800_000_000_000)).unwrap();
        let late = SessionId::new(UnixMillis(1_800_000_000_001)).unwrap();
        assert!(early < late);
        assert_eq!(SessionId::from_hex(&early.to_string()), Some(early));
        for bad in ["", "+1234567890123456789012345678901", &"0".repeat(31), &"g".repeat(32)] {
            assert_eq!(SessionId::from_hex(bad), None, "{bad}");
        }
    }
}
