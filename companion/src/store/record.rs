//! How a session lies in a store: a protobuf message, so that later versions can add fields and
//! still read old ones.

use std::collections::BTreeMap;

use prost::Message;

use crate::domain::credential::Identity;
use crate::domain::resume::Seed;
use crate::domain::session::{HoldNumber, Mode, Session, SessionId};
use crate::domain::time::UnixMillis;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, repeated, tag = "2")]
    roles: Vec<String>,
    #[prost(btree_map = "string, string", tag = "3")]
    claims: BTreeMap<String, String>,
    /// 1 ticket, 2 noise.
    #[prost(uint32, tag = "4")]
    mode: u32,
    #[prost(string, tag = "5")]
    audience: String,
    #[prost(string, tag = "6")]
    layout: String,
    #[prost(string, tag = "7")]
    proxy: String,
    #[prost(string, tag = "8")]
    peer: String,
    #[prost(string, tag = "9")]
    client: String,
    #[prost(uint64, tag = "10")]
    created_at_ms: u64,
    #[prost(uint64, tag = "11")]
    expires_at_ms: u64,
    #[prost(fixed64, tag = "12")]
    hold: u64,
    #[prost(fixed64, tag = "13")]
    worker: u64,
    /// 0: not away.
    #[prost(uint64, tag = "14")]
    away_until_ms: u64,
    /// Of the seed; empty without one.
    #[prost(bytes = "vec", tag = "15")]
    seed_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "16")]
    seed_salt: Vec<u8>,
    #[prost(bytes = "vec", tag = "17")]
    seed_credential: Vec<u8>,
}

/// The session's record; its id is the key that it lies under.
pub fn encode(session: Session) -> Vec<u8> {
    let (seed_key, seed_salt, seed_credential) = match session.seed {
        Some(Seed { key, salt, credential }) => {
            (key.to_vec(), salt.to_vec(), credential.map(|hash| hash.to_vec()).unwrap_or_default())
        }
        None => (Vec::new(), Vec::new(), Vec::new()),
    };
    Record {
        user: session.identity.user,
        roles: session.identity.roles,
        claims: session.identity.claims,
        mode: match session.mode {
            Mode::Ticket => 1,
            Mode::Noise => 2,
        },
        audience: session.audience,
        layout: session.layout,
        proxy: session.proxy,
        peer: session.peer,
        client: session.client,
        created_at_ms: session.created_at.0,
        expires_at_ms: session.expires_at.0,
        hold: session.hold.0,
        worker: session.worker,
        away_until_ms: session.away_until.map_or(0, |until| until.0),
        seed_key,
        seed_salt,
        seed_credential,
    }
    .encode_to_vec()
}

/// `Err` says what is wrong with the record.
pub fn decode(id: SessionId, bytes: &[u8]) -> Result<Session, String> {
    let record = Record::decode(bytes).map_err(|error| format!("session {id}: {error}"))?;
    let seed = match (record.seed_key.as_slice().try_into(), record.seed_salt.try_into()) {
        (Ok(key), Ok(salt)) => {
            let credential = record.seed_credential.try_into().ok();
            Some(Seed { key, salt, credential })
        }
        _ => None,
    };
    Ok(Session {
        id,
        identity: Identity { user: record.user, roles: record.roles, claims: record.claims },
        mode: match record.mode {
            1 => Mode::Ticket,
            2 => Mode::Noise,
            _ => return Err(format!("session {id}: unknown mode")),
        },
        audience: record.audience,
        layout: record.layout,
        proxy: record.proxy,
        peer: record.peer,
        client: record.client,
        created_at: UnixMillis(record.created_at_ms),
        expires_at: UnixMillis(record.expires_at_ms),
        hold: HoldNumber(record.hold),
        worker: record.worker,
        away_until: Some(UnixMillis(record.away_until_ms)).filter(|until| until.0 > 0),
        seed,
    })
}
