//! MeshGate tickets: a signed statement of who somebody is, for one audience, for a while.
//!
//! ```text
//!   mgt1.<payload>.<signature>      both parts base64url without padding
//! ```
//!
//! The payload is a JSON object:
//!
//! | member | |
//! |---|---|
//! | `kid` | the id of the signing key |
//! | `alg` | `EdDSA` (Ed25519, 64-byte signature) or `HS256` (HMAC-SHA256, 32 bytes) |
//! | `sub` | the user |
//! | `aud` | what the ticket is for: the filter's `audience` |
//! | `iat`, `nbf`, `exp` | issued, not before, expires; seconds since the Unix epoch |
//! | `jti` | the ticket's own id, unique to its issuer |
//! | `roles` | optional, a list of texts |
//! | `claims` | optional, an object of texts |
//! | `once` | optional, `true`: the ticket works a single time |
//!
//! The signature covers the ASCII bytes of `mgt1.<payload>`. The algorithm is pinned by the key:
//! a ticket that names another one is refused before anything is computed.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::credential::{CredentialId, Identity, MAX_CREDENTIAL_BYTES, Verified, check_times};
use super::key::{Key, Kind};
use super::refusal::Why;
use super::time::UnixMillis;

/// Every ticket begins so; what does not is taken for a JWT.
pub const PREFIX: &str = "mgt1.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "HS256")]
    HmacSha256,
}

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    pub kid: String,
    pub alg: Algorithm,
    pub sub: String,
    pub aud: String,
    pub iat: u64,
    pub nbf: u64,
    pub exp: u64,
    pub jti: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// A key that cannot do what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeyError {
    #[error("key `{id}` is of kind {kind}: tickets are signed with ticket-ed25519 or ticket-hmac")]
    CannotSign { id: String, kind: &'static str },
    #[error("key `{id}` is of kind {kind}: tickets are checked with a ticket key")]
    CannotCheck { id: String, kind: &'static str },
    #[error("key `{0}` is not a point on the curve of Ed25519")]
    NotAPoint(String),
    #[error("two ticket keys have the id `{0}`: ids must differ")]
    DuplicateId(String),
}

/// Signs tickets.
pub struct Issuer {
    id: String,
    signer: Signer,
}

enum Signer {
    Ed25519(Box<SigningKey>),
    Hmac(Hmac<Sha256>),
}

impl Issuer {
    pub fn new(key: &Key) -> Result<Self, TicketKeyError> {
        let signer = match (key.kind(), key.array(), mac(key)) {
            (Kind::TicketEd25519, Some(seed), _) => {
                Signer::Ed25519(Box::new(SigningKey::from_bytes(&seed)))
            }
            (Kind::TicketHmac, _, Some(mac)) => Signer::Hmac(mac),
            (kind, _, _) => {
                let id = key.id().to_owned();
                return Err(TicketKeyError::CannotSign { id, kind: kind.name() });
            }
        };
        Ok(Self { id: key.id().to_owned(), signer })
    }

    pub fn key_id(&self) -> &str {
        &self.id
    }

    pub const fn algorithm(&self) -> Algorithm {
        match self.signer {
            Signer::Ed25519(_) => Algorithm::EdDsa,
            Signer::Hmac(_) => Algorithm::HmacSha256,
        }
    }

    /// The ticket as text; `kid` and `alg` are the key's, whatever the payload says.
    pub fn issue(&self, mut payload: Payload) -> String {
        payload.kid.clone_from(&self.id);
        payload.alg = self.algorithm();
        let json = serde_json::to_vec(&payload).unwrap_or_default();
        let mut ticket = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        let signature = match &self.signer {
            Signer::Ed25519(key) => key.sign(ticket.as_bytes()).to_bytes().to_vec(),
            Signer::Hmac(mac) => {
                mac.clone().chain_update(ticket.as_bytes()).finalize().into_bytes().to_vec()
            }
        };
        ticket.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut ticket);
        ticket
    }
}

/// Checks tickets against the keys that are valid now, several at once.
#[derive(Default)]
pub struct TicketKeys(HashMap<String, Checker>);

enum Checker {
    Ed25519(Box<VerifyingKey>),
    Hmac(Hmac<Sha256>),
}

impl TicketKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Result<Self, TicketKeyError> {
        let mut ring = HashMap::new();
        for key in keys {
            let id = key.id().to_owned();
            let public = key.public().and_then(|key| key.array());
            let checker = match (key.kind(), public, mac(key)) {
                (Kind::TicketEd25519 | Kind::TicketEd25519Public, Some(public), _) => {
                    let point = VerifyingKey::from_bytes(&public)
                        .map_err(|_| TicketKeyError::NotAPoint(id.clone()))?;
                    Checker::Ed25519(Box::new(point))
                }
                (Kind::TicketHmac, _, Some(mac)) => Checker::Hmac(mac),
                (kind, _, _) => {
                    return Err(TicketKeyError::CannotCheck { id, kind: kind.name() });
                }
            };
            if ring.insert(id.clone(), checker).is_some() {
                return Err(TicketKeyError::DuplicateId(id));
            }
        }
        Ok(Self(ring))
    }

    /// The ticket's word, if it is genuine, for this audience, and in time.
    pub fn verify(&self, ticket: &str, audience: &str, now: UnixMillis) -> Result<Verified, Why> {
        if ticket.len() > MAX_CREDENTIAL_BYTES {
            return Err(Why::Malformed);
        }
        let body = ticket.strip_prefix(PREFIX).ok_or(Why::Malformed)?;
        let (payload, signature) = body.split_once('.').ok_or(Why::Malformed)?;
        let signed = ticket.get(..PREFIX.len() + payload.len()).ok_or(Why::Malformed)?;
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Why::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Why::Malformed)?;
        let payload: Payload = serde_json::from_slice(&json).map_err(|_| Why::Malformed)?;

        self.0.get(&payload.kid).ok_or(Why::UnknownKey)?.check(
            payload.alg,
            signed.as_bytes(),
            &signature,
        )?;

        if payload.aud != audience {
            return Err(Why::WrongAudience);
        }
        let expires = UnixMillis::from_seconds(payload.exp);
        check_times(now, Some(UnixMillis::from_seconds(payload.nbf)), expires)?;
        let id = CredentialId::new(expires, &payload.kid, payload.jti.as_bytes());
        let identity = Identity { user: payload.sub, roles: payload.roles, claims: payload.claims };
        let identity = identity.checked()?;
        Ok(Verified { identity, id: Some(id), once: payload.once, until: None })
    }
}

impl Checker {
    fn check(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Result<(), Why> {
        match (self, algorithm) {
            (Self::Ed25519(key), Algorithm::EdDsa) => {
                let signature = Signature::from_slice(signature).map_err(|_| Why::BadSignature)?;
                key.verify_strict(signed, &signature).map_err(|_| Why::BadSignature)
            }
            // `verify_slice` compares in constant time.
            (Self::Hmac(mac), Algorithm::HmacSha256) => mac
                .clone()
                .chain_update(signed)
                .verify_slice(signature)
                .map_err(|_| Why::BadSignature),
            _ => Err(Why::WrongAlgorithm),
        }
    }
}

fn mac(key: &Key) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(key.bytes().expose()).ok()
}

#[cfg(test)]
mod tests;
