//! The responder of the Noise login, and the bytes around it.
//!
//! ```text
//!   login message: u8 version = 1 | u8 kind = 1 | u8 k | k bytes key id | Noise message 1
//!   login reply:   u8 version = 1 | u8 kind = 1 | Noise message 2
//! ```
//!
//! The handshake is `Noise_NK_25519_ChaChaPoly_BLAKE2s` (Noise Protocol Framework, revision 34):
//! the client knows the companion's static key. Message 1 is `e, es` with a
//! `meshgate.session.v1.LoginRequest` as its payload, message 2 is `e, ee` with a `LoginReply`.
//! Both sides put the prologue into the handshake, so that a login message made for another
//! version, mode, layout, audience or key opens nothing here:
//!
//! ```text
//!   "meshgate-session" 0x00 | u8 version = 1 | u8 mode = 2
//!   | u8 len | layout | u16 BE len | audience | u8 len | key id
//! ```
//!
//! A resume is the same with kind 2, `Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s` and the secret of a
//! resume token ([`super::resume`]) as its pre-shared key. The token is named in the message, and
//! stands at the end of the prologue:
//!
//! ```text
//!   resume message: u8 version = 1 | u8 kind = 2 | u8 k | key id | u8 t | t bytes token id
//!                   | Noise message 1
//!   prologue:       as above | u8 t | token id
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::credential::MAX_CREDENTIAL_BYTES;
use super::key::{Key, Kind};
use super::refusal::Why;
use super::resume::TokenSecret;
use super::secret::TrafficKeys;
use x25519::{StaticKey, StaticResolver};

mod x25519;

pub const NOISE: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
pub const NOISE_RESUME: &str = "Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s";
const VERSION: u8 = 1;
const KIND_NK: u8 = 1;
const KIND_NKPSK0: u8 = 2;
const MODE_NOISE: u8 = 2;
const PROLOGUE_LABEL: &[u8] = b"meshgate-session\0";
/// An ephemeral key and an authentication tag: the least that a Noise message of NK has.
const MESSAGE_OVERHEAD: usize = 32 + 16;
/// The largest login message: a credential, its protobuf fields, a client text, the handshake.
pub const MAX_LOGIN_MESSAGE_BYTES: usize = MAX_CREDENTIAL_BYTES + 512;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoiseKeyError {
    #[error("key `{id}` is of kind {kind}: Noise logins need a key of kind noise")]
    NotNoise { id: String, kind: &'static str },
    #[error("two Noise keys have the id `{0}`: ids must differ")]
    DuplicateId(String),
    #[error("the Noise pattern is unknown to this build")]
    Pattern,
}

/// The companion's static keys, by the ids that clients name.
pub struct NoiseKeys {
    keys: HashMap<Vec<u8>, Arc<StaticKey>>,
    params: NoiseParams,
    resume: NoiseParams,
}

impl NoiseKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Result<Self, NoiseKeyError> {
        let parse = |name: &str| name.parse().map_err(|_| NoiseKeyError::Pattern);
        let (params, resume) = (parse(NOISE)?, parse(NOISE_RESUME)?);
        let mut ring = HashMap::new();
        for key in keys {
            let id = key.id().to_owned();
            let (Kind::Noise, Some(private)) = (key.kind(), key.array()) else {
                return Err(NoiseKeyError::NotNoise { id, kind: key.kind().name() });
            };
            let static_key = Arc::new(StaticKey::new(private));
            if ring.insert(id.clone().into_bytes(), static_key).is_some() {
                return Err(NoiseKeyError::DuplicateId(id));
            }
        }
        Ok(Self { keys: ring, params, resume })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Opens a login message. Says nothing of why it did not open.
    pub fn open(&self, layout: &str, audience: &str, message: &[u8]) -> Result<Opened, Why> {
        let LoginMessage { key_id, noise } = LoginMessage::parse(message)?;
        let key = self.keys.get(key_id).ok_or(Why::UnknownNoiseKey)?;
        let prologue = prologue(layout, audience, key_id).ok_or(Why::Handshake)?;
        let builder = Self::responder(&self.params, key, &prologue)?;
        Opened::read(builder, KIND_NK, noise).ok_or(Why::Handshake)
    }

    /// Opens a resume message with the secret of the token that it names. Says nothing of why it
    /// did not open.
    pub fn open_resume(
        &self,
        layout: &str,
        audience: &str,
        message: &ResumeMessage<'_>,
        secret: &TokenSecret,
    ) -> Result<Opened, Why> {
        let ResumeMessage { key_id, token_id, noise } = message;
        let key = self.keys.get(*key_id).ok_or(Why::UnknownNoiseKey)?;
        let mut prologue = prologue(layout, audience, key_id).ok_or(Why::Handshake)?;
        prologue.push(u8::try_from(token_id.len()).map_err(|_| Why::Malformed)?);
        prologue.extend_from_slice(token_id);
        let builder = Self::responder(&self.resume, key, &prologue)?;
        let builder = builder.psk(0, secret).map_err(|_| Why::TokenWrong)?;
        Opened::read(builder, KIND_NKPSK0, noise).ok_or(Why::TokenWrong)
    }

    fn responder<'a>(
        params: &NoiseParams,
        key: &'a Arc<StaticKey>,
        prologue: &'a [u8],
    ) -> Result<Builder<'a>, Why> {
        let resolver = Box::new(StaticResolver::new(Arc::clone(key)));
        Builder::with_resolver(params.clone(), resolver)
            .local_private_key(key.private())
            .and_then(|builder| builder.prologue(prologue))
            .map_err(|_| Why::Handshake)
    }
}

/// A handshake whose first message was genuine.
pub struct Opened {
    state: HandshakeState,
    kind: u8,
    /// An encoded `LoginRequest`.
    pub payload: Zeroizing<Vec<u8>>,
}

/// The end of a handshake: what the client gets, and what the filter seals with.
#[derive(Debug)]
pub struct Answered {
    pub reply: Vec<u8>,
    pub keys: TrafficKeys,
}

impl Opened {
    fn read(builder: Builder<'_>, kind: u8, noise: &[u8]) -> Option<Self> {
        let mut state = builder.build_responder().ok()?;
        let mut payload = Zeroizing::new(vec![0; noise.len()]);
        let length = state.read_message(noise, &mut payload).ok()?;
        payload.truncate(length);
        Some(Self { state, kind, payload })
    }

    /// Completes the handshake with an encoded `LoginReply`.
    pub fn answer(mut self, payload: &[u8]) -> Result<Answered, Why> {
        let mut reply = vec![0; payload.len().saturating_add(2 + MESSAGE_OVERHEAD)];
        let (head, noise) = reply.split_at_mut(2);
        head.copy_from_slice(&[VERSION, self.kind]);
        let length = self.state.write_message(payload, noise).map_err(|_| Why::Handshake)?;
        reply.truncate(length.saturating_add(2));
        // The first key of the split is the initiator's, whichever side asks.
        let (client_to_server, server_to_client) = self.state.dangerously_get_raw_split();
        let keys = TrafficKeys {
            client_to_server: Zeroizing::new(client_to_server),
            server_to_client: Zeroizing::new(server_to_client),
        };
        Ok(Answered { reply, keys })
    }
}

/// A login message, of which `write` makes the Noise message 1. For clients.
pub fn login_message(
    key_id: &str,
    write: impl FnOnce(&mut [u8]) -> Result<usize, snow::Error>,
) -> Result<Vec<u8>, snow::Error> {
    let length = u8::try_from(key_id.len()).map_err(|_| snow::Error::Input)?;
    let mut message = vec![VERSION, KIND_NK, length];
    message.extend_from_slice(key_id.as_bytes());
    let mut noise = vec![0; MAX_LOGIN_MESSAGE_BYTES.saturating_sub(message.len())];
    let length = write(&mut noise)?;
    message.extend_from_slice(noise.get(..length).unwrap_or_default());
    Ok(message)
}

/// The Noise message 2 of a login's reply. For clients.
pub fn reply_message(reply: &[u8]) -> Option<&[u8]> {
    reply.strip_prefix(&[VERSION, KIND_NK])
}

/// A login message, taken apart.
struct LoginMessage<'a> {
    key_id: &'a [u8],
    noise: &'a [u8],
}

impl<'a> LoginMessage<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Why> {
        if message.len() > MAX_LOGIN_MESSAGE_BYTES {
            return Err(Why::Malformed);
        }
        let Some(([VERSION, KIND_NK, length], rest)) = message.split_first_chunk() else {
            return Err(Why::Malformed);
        };
        let (key_id, noise) = rest.split_at_checked(usize::from(*length)).ok_or(Why::Malformed)?;
        if noise.len() < MESSAGE_OVERHEAD {
            return Err(Why::Malformed);
        }
        Ok(Self { key_id, noise })
    }
}

/// A resume message, taken apart.
pub struct ResumeMessage<'a> {
    key_id: &'a [u8],
    pub token_id: &'a [u8],
    noise: &'a [u8],
}

impl<'a> ResumeMessage<'a> {
    /// `None`: another message.
    pub fn parse(message: &'a [u8]) -> Option<Result<Self, Why>> {
        let rest = message.strip_prefix(&[VERSION, KIND_NKPSK0])?;
        let named = |bytes: &'a [u8]| {
            let (length, rest) = bytes.split_first()?;
            rest.split_at_checked(usize::from(*length))
        };
        let parts = named(rest).and_then(|(key_id, rest)| Some((key_id, named(rest)?)));
        Some(match parts {
            Some((key_id, (token_id, noise))) if noise.len() >= MESSAGE_OVERHEAD => {
                Ok(Self { key_id, token_id, noise })
            }
            _ => Err(Why::Malformed),
        })
    }
}

/// What both sides bind into the handshake; `None` if a part exceeds its length field.
pub fn prologue(layout: &str, audience: &str, key_id: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(PROLOGUE_LABEL);
    bytes.extend_from_slice(&[VERSION, MODE_NOISE]);
    bytes.push(u8::try_from(layout.len()).ok()?);
    bytes.extend_from_slice(layout.as_bytes());
    bytes.extend_from_slice(&u16::try_from(audience.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(audience.as_bytes());
    bytes.push(u8::try_from(key_id.len()).ok()?);
    bytes.extend_from_slice(key_id);
    Some(bytes)
}

#[cfg(test)]
mod tests;
