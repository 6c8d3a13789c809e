//! Resume tokens: what a client shows to go on with its session over another connection.
//!
//! ```text
//!   token id   session id (16) | hold (u64 BE) | base (u64 BE)             no secret
//!   secret     HMAC-SHA256(key, "meshgate resume token\0" | salt | token id)   32 bytes
//! ```
//!
//! A token belongs to the connection that it was given to (`hold`) and remembers which hold counted
//! when it was made (`base`). It is good while the session's hold is one of the two: until the
//! client's first frame the new connection may turn out to be lost together with its reply, so the
//! token before must still be good; after it, the store's hold is the new one and the token before
//! is worth nothing, nor is the token of any other connection that tried at the same time.
//!
//! No secret is stored. The record of a session holds the salt, the companion has the key: a stolen
//! store resumes nothing, and neither does a stolen key without the store. The key is derived from a
//! master key where there is one, else from the Noise key, so that all replicas have the same:
//!
//! ```text
//!   key = HMAC-SHA256(master or Noise private key, "meshgate resume key\0")
//! ```
//!
//! What a client does with the secret:
//!
//! - **Noise**: it is the pre-shared key of `Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s`.
//! - **ticket**: it sends a proof, which also takes the credential that the session logged in with:
//!
//! ```text
//!   message    u8 version = 1 | u8 kind = 2 | u8 t | token id (t) | proof (32)
//!   proof      HMAC-SHA256(secret, "meshgate resume proof\0" | token id | SHA-256(credential))
//! ```

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::key::{Key, Kind};
use super::refusal::Why;
use super::session::{HoldNumber, Session, SessionId};

const KEY_LABEL: &[u8] = b"meshgate resume key\0";
const TOKEN_LABEL: &[u8] = b"meshgate resume token\0";
const PROOF_LABEL: &[u8] = b"meshgate resume proof\0";
const VERSION: u8 = 1;
const KIND_RESUME: u8 = 2;
const TOKEN_ID_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;

/// 32 secret bytes.
pub type TokenSecret = Zeroizing<[u8; 32]>;

/// What the tokens of one session are made from, as its record holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    /// Of the key: the first 8 bytes of its SHA-256.
    pub key: [u8; 8],
    pub salt: [u8; 16],
    /// SHA-256 of the credential of a ticket login.
    pub credential: Option<[u8; 32]>,
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<seed>")
    }
}

/// Names a token; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId {
    pub session: SessionId,
    pub hold: HoldNumber,
    pub base: HoldNumber,
}

impl TokenId {
    pub fn to_bytes(self) -> [u8; TOKEN_ID_BYTES] {
        let mut bytes = [0; TOKEN_ID_BYTES];
        let (session, holds) = bytes.split_at_mut(16);
        let (hold, base) = holds.split_at_mut(8);
        session.copy_from_slice(self.session.as_bytes());
        hold.copy_from_slice(&self.hold.0.to_be_bytes());
        base.copy_from_slice(&self.base.0.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; TOKEN_ID_BYTES] = bytes.try_into().ok()?;
        let (session, holds) = bytes.split_first_chunk::<16>()?;
        let (hold, base) = holds.split_first_chunk::<8>()?;
        Some(Self {
            session: SessionId::from_bytes(*session),
            hold: HoldNumber(u64::from_be_bytes(*hold)),
            base: HoldNumber(u64::from_be_bytes(*base.first_chunk()?)),
        })
    }

    /// Whether no connection but the token's own has come to life since it was made.
    pub fn is_good_for(&self, session: &Session) -> bool {
        self.session == session.id && (session.hold == self.hold || session.hold == self.base)
    }
}

/// The keys that seeds are used with. The first one is for new sessions.
#[derive(Default)]
pub struct ResumeKeys(Vec<ResumeKey>);

struct ResumeKey {
    name: [u8; 8],
    key: TokenSecret,
}

impl ResumeKeys {
    /// From these keys, in their order; those that are no secret shared by all replicas are passed
    /// over.
    pub fn derive<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let fit = keys.into_iter().filter(|key| matches!(key.kind(), Kind::Master | Kind::Noise));
        Self(fit.map(ResumeKey::derive).collect())
    }

    /// Without a key no session can be resumed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For a session that begins; `None` without a key.
    pub fn seed(&self, credential: Option<&[u8]>) -> Result<Option<Seed>, Why> {
        let Some(key) = self.0.first() else { return Ok(None) };
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| Why::NoRandomness)?;
        let credential = credential.map(|credential| Sha256::digest(credential).into());
        Ok(Some(Seed { key: key.name, salt, credential }))
    }

    pub fn secret(&self, seed: &Seed, id: TokenId) -> Result<TokenSecret, Why> {
        let key = self.0.iter().find(|key| key.name == seed.key).ok_or(Why::TokenWrong)?;
        Ok(mac(key.key.as_slice(), &[TOKEN_LABEL, &seed.salt, &id.to_bytes()]))
    }
}

impl fmt::Debug for ResumeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} resume keys>", self.0.len())
    }
}

impl ResumeKey {
    fn derive(key: &Key) -> Self {
        let key = mac(key.bytes().expose(), &[KEY_LABEL]);
        let mut name = [0; 8];
        for (to, from) in name.iter_mut().zip(Sha256::digest(key.as_slice())) {
            *to = from;
        }
        Self { name, key }
    }
}

/// The message of a resume in mode `ticket`, taken apart.
pub struct TicketResume {
    pub id: TokenId,
    proof: [u8; PROOF_BYTES],
}

impl TicketResume {
    /// `None`: a login message. No credential begins with a control character.
    pub fn parse(message: &[u8]) -> Option<Result<Self, Why>> {
        let rest = message.strip_prefix(&[VERSION, KIND_RESUME])?;
        let parts = rest
            .split_first()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
            .and_then(|(id, proof)| Some((id, proof.try_into().ok()?)));
        let Some((id, proof)) = parts else { return Some(Err(Why::Malformed)) };
        Some(TokenId::from_bytes(id).ok_or(Why::TokenWrong).map(|id| Self { id, proof }))
    }

    /// Whether the client has the token's secret and the credential of the login.
    pub fn is_proven(&self, seed: &Seed, secret: &TokenSecret) -> bool {
        let Some(credential) = &seed.credential else { return false };
        let expected = proof(secret, &self.id.to_bytes(), credential);
        bool::from(expected.as_slice().ct_eq(&self.proof))
    }
}

/// The message that resumes a session of mode `ticket`. For clients.
pub fn ticket_message(id: &[u8], secret: &TokenSecret, credential: &[u8]) -> Option<Vec<u8>> {
    let proof = proof(secret, id, &Sha256::digest(credential).into());
    let mut message = vec![VERSION, KIND_RESUME, u8::try_from(id.len()).ok()?];
    message.extend_from_slice(id);
    message.extend_from_slice(proof.as_slice());
    Some(message)
}

fn proof(secret: &TokenSecret, id: &[u8], credential: &[u8; 32]) -> TokenSecret {
    mac(secret.as_slice(), &[PROOF_LABEL, id, credential])
}

fn mac(key: &[u8], parts: &[&[u8]]) -> TokenSecret {
    let mut out = Zeroizing::new([0; 32]);
    // HMAC takes a key of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) {
        parts.iter().for_each(|part| mac.update(part));
        out.copy_from_slice(&mac.finalize().into_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Secret;

    fn key(kind: Kind, byte: u8) -> Key {
        Key::new("k", kind, Secret::new(vec![byte; 32])).unwrap()
    }

    fn id(hold: u64, base: u64) -> TokenId {
        let session = SessionId::from_bytes([7; 16]);
        TokenId { session, hold: HoldNumber(hold), base: HoldNumber(base) }
    }

    #[test]
    fn a_token_id_survives_its_bytes() {
        let id = id(0x0000_0002_dead_beef, 0x0000_0001_1234_5678);
        assert_eq!(TokenId::from_bytes(&id.to_bytes()), Some(id));
        for length in [0, 31, 33] {
            assert_eq!(TokenId::from_bytes(&vec![1; length]), None);
        }
    }

    #[test]
    fn every_token_has_a_secret_of_its_own() {
        let (master, noise) = (key(Kind::Master, 1), key(Kind::Noise, 1));
        let keys = ResumeKeys::derive([&master, &noise]);
        let seed = keys.seed(None).unwrap().unwrap();
        let secret = |keys: &ResumeKeys, seed: &Seed, id| keys.secret(seed, id);
        let one = secret(&keys, &seed, id(1, 1)).unwrap();
        assert_eq!(secret(&keys, &seed, id(1, 1)).unwrap(), one);
        for other in [id(2, 1), id(1, 2), id(2, 2)] {
            assert_ne!(secret(&keys, &seed, other).unwrap(), one);
        }
        let salted = Seed { salt: [0; 16], ..seed.clone() };
        assert_ne!(secret(&keys, &salted, id(1, 1)).unwrap(), one);
        // The same bytes make another key: it is named by what it is, not by what it is from.
        let alone = ResumeKeys::derive([&key(Kind::Master, 2)]);
        assert_eq!(secret(&alone, &seed, id(1, 1)), Err(Why::TokenWrong));
        // Both are at hand while sessions of the old one are there.
        let later = ResumeKeys::derive([&key(Kind::Master, 2), &master]);
        assert_eq!(secret(&later, &seed, id(1, 1)).unwrap(), one);
    }

    #[test]
    fn only_keys_that_all_replicas_have_make_tokens() {
        let tickets = key(Kind::TicketHmac, 1);
        let keys = ResumeKeys::derive([&tickets]);
        assert!(keys.is_empty());
        assert_eq!(keys.seed(None), Ok(None));
        let seed = Seed { key: [1; 8], salt: [2; 16], credential: None };
        assert_eq!(format!("{seed:?} {keys:?}"), "<seed> <0 resume keys>");
    }

    #[test]
    fn a_proof_takes_the_secret_and_the_credential() {
        let keys = ResumeKeys::derive([&key(Kind::Noise, 1)]);
        let seed = keys.seed(Some(b"ticket")).unwrap().unwrap();
        let secret = keys.secret(&seed, id(1, 1)).unwrap();
        let proven = |credential: &[u8], seed: &Seed, secret: &TokenSecret| {
            let message = ticket_message(&id(1, 1).to_bytes(), secret, credential).unwrap();
            let parsed = TicketResume::parse(&message).unwrap().unwrap();
            parsed.is_proven(seed, &keys.secret(seed, parsed.id).unwrap())
        };
        assert!(proven(b"ticket", &seed, &secret));
        assert!(!proven(b"tickets", &seed, &secret));
        assert!(!proven(b"ticket", &seed, &Zeroizing::new([0; 32])));
        assert!(!proven(b"ticket", &Seed { credential: None, ..seed.clone() }, &secret));
        assert!(TicketResume::parse(b"mgt1.a.b").is_none());
    }
}
