//! JSON Web Tokens (RFC 7519) of an issuer that the studio already has.
//!
//! Keys come as a JWK or a JWK set (RFC 7517). Each key must say its `alg`, and a token is checked
//! with that algorithm alone, whatever its header claims. `exp`, `aud` and `sub` are required,
//! `nbf` and `iss` are checked where present or configured. [`fetched`] is about sets that lie at a
//! URL.

use std::collections::{BTreeMap, HashMap};

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::credential::{CredentialId, Identity, MAX_CREDENTIAL_BYTES, Verified, check_times};
use super::refusal::Why;
use super::time::UnixMillis;

pub mod fetched;
mod signature;

/// Keys of a published set that are looked at: issuers have a handful.
const MAX_PUBLISHED: usize = 64;
/// Members of a token that are no claims of the user.
const REGISTERED: [&str; 8] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "roles"];

#[derive(Debug, thiserror::Error)]
pub enum JwkError {
    #[error("not a JWK or JWK set: line {line}, column {column}")]
    NotJwk { line: usize, column: usize },
    #[error("the JWK set holds no key")]
    Empty,
    #[error("the JWK set holds no key that can be used")]
    NoneUsable,
    #[error("JWK `{0}` has no `kid`, which a set of several keys needs")]
    NoKeyId(usize),
    #[error("two JWKs have the kid `{0}`")]
    DuplicateId(String),
    #[error("JWK `{0}` must say one `alg` of HS256, EdDSA, ES256, RS256: it pins the algorithm")]
    Algorithm(String),
    #[error("JWK `{0}` does not hold a key of its algorithm")]
    Unusable(String),
}

/// The issuers' keys and names.
#[derive(Default)]
pub struct JwtKeys {
    keys: HashMap<String, PinnedKey>,
    /// Empty: any issuer whose key signed.
    issuers: Vec<String>,
}

struct PinnedKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtKeys {
    /// `documents` are JWKs or JWK sets.
    pub fn new<'a>(
        documents: impl IntoIterator<Item = &'a [u8]>,
        issuers: Vec<String>,
    ) -> Result<Self, JwkError> {
        signature::install();
        let mut jwks = Vec::new();
        for document in documents {
            jwks.extend(read(document)?);
        }
        let single = jwks.len() == 1;
        let mut keys = HashMap::new();
        for (index, jwk) in jwks.iter().enumerate() {
            let id = match &jwk.common.key_id {
                Some(id) => id.clone(),
                None if single => String::new(),
                None => return Err(JwkError::NoKeyId(index)),
            };
            let name = if id.is_empty() { "(without kid)" } else { &id };
            let pinned = PinnedKey::new(jwk, name)?;
            if keys.insert(id.clone(), pinned).is_some() {
                return Err(JwkError::DuplicateId(id));
            }
        }
        Ok(Self { keys, issuers })
    }

    /// Of a set that somebody else keeps: what cannot be used here is passed over, and so are
    /// secrets, which have no business where everybody can read them. With `pinned`, keys that say
    /// no `alg` have that one, and keys of another one are passed over.
    pub fn of_published(
        document: &[u8],
        issuers: Vec<String>,
        pinned: Option<Algorithm>,
    ) -> Result<Self, JwkError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        signature::install();
        let set: Set = serde_json::from_slice(document).map_err(|error| not_jwk(&error))?;
        let mut keys = HashMap::new();
        for jwk in set.keys.into_iter().take(MAX_PUBLISHED) {
            let Ok(jwk) = serde_json::from_value::<Jwk>(jwk) else { continue };
            if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
                continue;
            }
            let Ok(key) = PinnedKey::pinned(&jwk, "", pinned) else { continue };
            if key.algorithm == Algorithm::HS256 {
                continue;
            }
            // Of several with one name, the first.
            keys.entry(jwk.common.key_id.unwrap_or_default()).or_insert(key);
        }
        if keys.is_empty() { Err(JwkError::NoneUsable) } else { Ok(Self { keys, issuers }) }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn verify(&self, token: &str, audience: &str, now: UnixMillis) -> Result<Verified, Why> {
        if token.len() > MAX_CREDENTIAL_BYTES {
            return Err(Why::Malformed);
        }
        let header = decode_header(token).map_err(|_| Why::Malformed)?;
        let pinned = self.find(header.kid.as_deref()).ok_or(Why::UnknownKey)?;
        let signed = decode::<Token>(token, &pinned.key, &self.validation(pinned, audience))
            .map_err(|error| why(error.kind()))?;
        let Token { sub, exp, nbf, iss, jti, roles, rest } = signed.claims;
        let expires = UnixMillis::from_seconds(exp);
        check_times(now, nbf.map(UnixMillis::from_seconds), expires)?;

        let issuer = iss.as_deref().or(header.kid.as_deref()).unwrap_or_default();
        // Without `jti` the signed part names the token; not the signature, of which ECDSA
        // lets anybody make a second one.
        let body = token.rsplit_once('.').map_or(token, |(body, _)| body);
        let id = CredentialId::new(expires, issuer, jti.as_deref().unwrap_or(body).as_bytes());
        let identity = Identity { user: sub, roles, claims: claims(rest) };
        Ok(Verified { identity: identity.checked()?, id: Some(id), once: false, until: None })
    }

    fn find(&self, id: Option<&str>) -> Option<&PinnedKey> {
        let only = || self.keys.values().next().filter(|_| self.keys.len() == 1);
        match id {
            // A single key without a name of its own fits any name.
            Some(id) => self.keys.get(id).or_else(|| self.keys.get("")),
            None => only(),
        }
    }

    fn validation(&self, pinned: &PinnedKey, audience: &str) -> Validation {
        let mut validation = Validation::new(pinned.algorithm);
        validation.set_audience(&[audience]);
        // Times are checked against our own clock, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        if self.issuers.is_empty() {
            validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        } else {
            validation.set_required_spec_claims(&["exp", "aud", "sub", "iss"]);
            validation.set_issuer(&self.issuers);
        }
        validation
    }
}

impl PinnedKey {
    fn new(jwk: &Jwk, name: &str) -> Result<Self, JwkError> {
        Self::pinned(jwk, name, None)
    }

    fn pinned(jwk: &Jwk, name: &str, pinned: Option<Algorithm>) -> Result<Self, JwkError> {
        let said = match jwk.common.key_algorithm {
            Some(KeyAlgorithm::HS256) => Some(Algorithm::HS256),
            Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
            Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
            Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
            Some(_) => return Err(JwkError::Algorithm(name.to_owned())),
            None => None,
        };
        let algorithm = match (said, pinned) {
            (Some(said), Some(pinned)) if said != pinned => None,
            (said, pinned) => said.or(pinned),
        };
        let algorithm = algorithm.ok_or_else(|| JwkError::Algorithm(name.to_owned()))?;
        let unusable = || JwkError::Unusable(name.to_owned());
        let key = DecodingKey::from_jwk(jwk).map_err(|_| unusable())?;
        if !signature::usable(algorithm, &key) {
            return Err(unusable());
        }
        Ok(Self { algorithm, key })
    }
}

fn read(document: &[u8]) -> Result<Vec<Jwk>, JwkError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Document {
        Set(JwkSet),
        One(Box<Jwk>),
    }
    match serde_json::from_slice(document) {
        Ok(Document::Set(set)) if set.keys.is_empty() => Err(JwkError::Empty),
        Ok(Document::Set(set)) => Ok(set.keys),
        Ok(Document::One(jwk)) => Ok(vec![*jwk]),
        Err(error) => Err(not_jwk(&error)),
    }
}

/// Where, not what.
fn not_jwk(error: &serde_json::Error) -> JwkError {
    JwkError::NotJwk { line: error.line(), column: error.column() }
}

#[derive(Deserialize)]
struct Token {
    sub: String,
    exp: u64,
    nbf: Option<u64>,
    iss: Option<String>,
    jti: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Further members as claims: texts as they are, numbers and truth values as JSON writes them;
/// lists and objects are left out, the services behind the filter take texts.
fn claims(rest: Map<String, Value>) -> BTreeMap<String, String> {
    rest.into_iter()
        .filter(|(name, _)| !REGISTERED.contains(&name.as_str()))
        .filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            Value::Bool(truth) => Some((name, truth.to_string())),
            _ => None,
        })
        .collect()
}

fn why(error: &jsonwebtoken::errors::ErrorKind) -> Why {
    use jsonwebtoken::errors::ErrorKind;
    match error {
        ErrorKind::InvalidSignature => Why::BadSignature,
        ErrorKind::InvalidAlgorithm => Why::WrongAlgorithm,
        ErrorKind::InvalidAudience => Why::WrongAudience,
        ErrorKind::InvalidIssuer => Why::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Why::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Why::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "sub" => Why::UnacceptableIdentity,
        _ => Why::Malformed,
    }
}

#[cfg(test)]
mod tests;
