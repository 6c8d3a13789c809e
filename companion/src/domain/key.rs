//! Key files: one small JSON document for each key.
//!
//! ```json
//! {"id": "k1", "kind": "noise", "key": "<base64>"}
//! ```
//!
//! | kind | `key` holds |
//! |---|---|
//! | `noise` | an X25519 private key, 32 bytes |
//! | `noise-public` | its public key, 32 bytes, for clients |
//! | `ticket-ed25519` | an Ed25519 seed, 32 bytes, for whoever issues tickets |
//! | `ticket-ed25519-public` | its public key, 32 bytes, enough for the companion |
//! | `ticket-hmac` | an HMAC-SHA256 key, 32 to 128 bytes, for issuer and companion |
//! | `master` | what seals the keys of a [ring](super::ring), 32 bytes |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver as _, DefaultResolver};
use zeroize::Zeroizing;

use super::secret::Secret;

/// Key ids travel in login messages behind a length byte, and people read them in logs.
pub const MAX_KEY_ID_BYTES: usize = 64;
const HMAC_KEY_BYTES: usize = 32;
const MAX_HMAC_KEY_BYTES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Noise,
    NoisePublic,
    #[serde(rename = "ticket-ed25519")]
    TicketEd25519,
    #[serde(rename = "ticket-ed25519-public")]
    TicketEd25519Public,
    TicketHmac,
    Master,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::NoisePublic => "noise-public",
            Self::TicketEd25519 => "ticket-ed25519",
            Self::TicketEd25519Public => "ticket-ed25519-public",
            Self::TicketHmac => "ticket-hmac",
            Self::Master => "master",
        }
    }

    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Noise | Self::TicketEd25519 | Self::TicketHmac | Self::Master)
    }
}

/// A key with its name, checked for form.
#[derive(Clone, Debug)]
pub struct Key {
    id: String,
    kind: Kind,
    bytes: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not a key file: {0}; expected {{\"id\": …, \"kind\": …, \"key\": \"<base64>\"}}")]
    NotJson(String),
    #[error("`id` must be 1 to {MAX_KEY_ID_BYTES} printable ASCII characters without spaces")]
    BadId,
    #[error("`key` is not base64")]
    NotBase64,
    #[error("`key` of a {kind} key must be {expected} bytes, this one has {found}")]
    BadLength { kind: &'static str, expected: &'static str, found: usize },
    #[error("no randomness from the operating system")]
    NoRandomness,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    id: String,
    kind: Kind,
    key: Zeroizing<String>,
}

impl Key {
    pub fn new(id: impl Into<String>, kind: Kind, bytes: Secret) -> Result<Self, KeyError> {
        let id = id.into();
        if id.is_empty()
            || id.len() > MAX_KEY_ID_BYTES
            || !id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(KeyError::BadId);
        }
        let found = bytes.expose().len();
        let (good, expected) = match kind {
            Kind::TicketHmac => {
                ((HMAC_KEY_BYTES..=MAX_HMAC_KEY_BYTES).contains(&found), "32 to 128")
            }
            _ => (found == 32, "32"),
        };
        if !good {
            return Err(KeyError::BadLength { kind: kind.name(), expected, found });
        }
        Ok(Self { id, kind, bytes })
    }

    /// A new secret key. Without an id it is named by a short hash of its public part, or, where
    /// there is none, at random.
    pub fn generate(kind: Kind, id: Option<String>) -> Result<Self, KeyError> {
        let bytes = Secret::random(32).map_err(|_| KeyError::NoRandomness)?;
        let id = match id {
            Some(id) => id,
            None => {
                let named = Self { id: String::new(), kind, bytes: bytes.clone() };
                let seed = match named.public() {
                    Some(public) => public.bytes,
                    None => Secret::random(32).map_err(|_| KeyError::NoRandomness)?,
                };
                hex(Sha256::digest(seed.expose()).get(..4).unwrap_or_default())
            }
        };
        Self::new(id, kind, bytes)
    }

    pub fn from_json(json: &[u8]) -> Result<Self, KeyError> {
        let document: Document = serde_json::from_slice(json).map_err(|error| {
            // serde_json's messages may quote what they found; a key file's contents stay private.
            KeyError::NotJson(format!("line {}, column {}", error.line(), error.column()))
        })?;
        let bytes = STANDARD.decode(document.key.as_bytes()).map_err(|_| KeyError::NotBase64)?;
        Self::new(document.id, document.kind, Secret::new(bytes))
    }

    pub fn to_json(&self) -> Zeroizing<String> {
        let document = Document {
            id: self.id.clone(),
            kind: self.kind,
            key: Zeroizing::new(STANDARD.encode(self.bytes.expose())),
        };
        let mut json = Zeroizing::new(serde_json::to_string_pretty(&document).unwrap_or_default());
        json.push('\n');
        json
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub const fn kind(&self) -> Kind {
        self.kind
    }

    pub const fn bytes(&self) -> &Secret {
        &self.bytes
    }

    /// The key's bytes, where its kind says that there are 32.
    pub fn array(&self) -> Option<Zeroizing<[u8; 32]>> {
        <[u8; 32]>::try_from(self.bytes.expose()).ok().map(Zeroizing::new)
    }

    /// The part that others may know; `None` for an HMAC key, which has no such part.
    pub fn public(&self) -> Option<Self> {
        let private = self.array()?;
        let (kind, public) = match self.kind {
            Kind::Noise => (Kind::NoisePublic, noise_public(&private)?),
            Kind::TicketEd25519 => {
                let public = SigningKey::from_bytes(&private).verifying_key().to_bytes();
                (Kind::TicketEd25519Public, public)
            }
            Kind::NoisePublic | Kind::TicketEd25519Public => return Some(self.clone()),
            Kind::TicketHmac | Kind::Master => return None,
        };
        Some(Self { id: self.id.clone(), kind, bytes: Secret::new(public.to_vec()) })
    }
}

fn noise_public(private: &[u8; 32]) -> Option<[u8; 32]> {
    let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519)?;
    dh.set(private);
    dh.pubkey().try_into().ok()
}

/// Reads what [`hex`] writes, if it has so many bytes.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| {
        let number = digit(*high)?.checked_mul(16)?.checked_add(digit(*low)?)?;
        u8::try_from(number).ok()
    };
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_file_and_gives_its_public_part() {
        for (kind, public) in [
            (Kind::Noise, Some(Kind::NoisePublic)),
            (Kind::TicketEd25519, Some(Kind::TicketEd25519Public)),
            (Kind::TicketHmac, None),
            (Kind::Master, None),
        ] {
            let key = Key::generate(kind, None).unwrap();
            let again = Key::from_json(key.to_json().as_bytes()).unwrap();
            assert_eq!((again.id(), again.kind()), (key.id(), kind));
            assert_eq!(again.bytes().expose(), key.bytes().expose());
            assert_eq!(key.public().map(|key| key.kind()), public);
            if let Some(public) = key.public() {
                assert_eq!(public.id(), key.id());
                assert_ne!(public.bytes().expose(), key.bytes().expose());
            }
        }
    }

    #[test]
    fn the_public_noise_key_is_x25519_of_the_private_one() {
        // RFC 7748, section 6.1: Alice's keys.
        let bytes = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let key = Key::new("alice", Kind::Noise, Secret::new(bytes.to_vec())).unwrap();
        assert_eq!(
            hex(key.public().unwrap().bytes().expose()),
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        );
    }

    #[test]
    fn malformed_files_are_refused_without_quoting_them() {
        let refuse = |json: &str| Key::from_json(json.as_bytes()).unwrap_err();
        assert!(matches!(refuse("{"), KeyError::NotJson(_)));
        let wrong = refuse(r#"{"id":"a","kind":"noise","key":["s3cret"]}"#);
        assert!(matches!(wrong, KeyError::NotJson(_)) && !wrong.to_string().contains("s3cret"));
        assert_eq!(refuse(r#"{"id":"a","kind":"noise","key":"!"}"#), KeyError::NotBase64);
        assert_eq!(refuse(r#"{"id":"a b","kind":"noise","key":""}"#), KeyError::BadId);
        assert!(matches!(
            refuse(r#"{"id":"a","kind":"ticket-hmac","key":"AAAA"}"#),
            KeyError::BadLength { found: 3, .. }
        ));
        let unknown = refuse(r#"{"id":"a","kind":"rot13","key":""}"#);
        assert!(matches!(unknown, KeyError::NotJson(_)));
    }
}
