//! Master keys: what seals every other secret at rest.
//!
//! A sealed secret is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a master key: 24 random
//! bytes of nonce, then ciphertext and tag. Beside it stands the master key's id, so that several
//! can be in use while secrets move from one to the next. What the secret is for goes in as
//! associated data: a record cannot be passed off as another one.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::key::{Key, Kind};
use super::secret::Secret;

const NONCE_BYTES: usize = 24;

/// A secret that only a master key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The id of the master key.
    pub master: String,
    /// Nonce, ciphertext, tag.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MasterError {
    #[error("there is no master key: give --master-file, --master-command or MESHGATE_MASTER_KEY")]
    None,
    #[error("key `{id}` is of kind {kind}: a master key is needed (`meshgate keygen master`)")]
    NotMaster { id: String, kind: &'static str },
    #[error("two master keys have the id `{0}`")]
    Duplicate(String),
    #[error("it is sealed by the master key `{0}`, which is not given")]
    Missing(String),
    #[error("the master key `{0}` does not open it: another key of this name, or it was changed")]
    Closed(String),
    #[error("no randomness from the operating system")]
    NoRandomness,
}

/// The master keys at hand. The first one seals, all open.
#[derive(Debug)]
pub struct Masters(Vec<Key>);

impl Masters {
    pub fn new(keys: Vec<Key>) -> Result<Self, MasterError> {
        for (index, key) in keys.iter().enumerate() {
            if key.kind() != Kind::Master {
                let (id, kind) = (key.id().to_owned(), key.kind().name());
                return Err(MasterError::NotMaster { id, kind });
            }
            if keys.iter().skip(index.saturating_add(1)).any(|other| other.id() == key.id()) {
                return Err(MasterError::Duplicate(key.id().to_owned()));
            }
        }
        if keys.is_empty() { Err(MasterError::None) } else { Ok(Self(keys)) }
    }

    /// In their order: the one that seals first.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// The id of the one that seals.
    pub fn sealing(&self) -> &str {
        self.0.first().map(Key::id).unwrap_or_default()
    }

    pub fn seal(&self, secret: &Secret, purpose: &[u8]) -> Result<Sealed, MasterError> {
        let master = self.0.first().ok_or(MasterError::None)?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| MasterError::NoRandomness)?;
        let payload = Payload { msg: secret.expose(), aad: purpose };
        let sealed = cipher(master)?
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| MasterError::Closed(master.id().to_owned()))?;
        Ok(Sealed { master: master.id().to_owned(), bytes: [&nonce[..], &sealed].concat() })
    }

    pub fn open(&self, sealed: &Sealed, purpose: &[u8]) -> Result<Secret, MasterError> {
        let master = self.0.iter().find(|key| key.id() == sealed.master);
        let master = master.ok_or_else(|| MasterError::Missing(sealed.master.clone()))?;
        let closed = || MasterError::Closed(sealed.master.clone());
        let (nonce, bytes) = sealed.bytes.split_first_chunk::<NONCE_BYTES>().ok_or_else(closed)?;
        let opened = cipher(master)?
            .decrypt(&XNonce::from(*nonce), Payload { msg: bytes, aad: purpose })
            .map_err(|_| closed())?;
        Ok(Secret::new(opened))
    }
}

fn cipher(master: &Key) -> Result<XChaCha20Poly1305, MasterError> {
    let bytes: Zeroizing<[u8; 32]> =
        master.array().ok_or_else(|| MasterError::Closed(master.id().to_owned()))?;
    XChaCha20Poly1305::new_from_slice(bytes.as_slice())
        .map_err(|_| MasterError::Closed(master.id().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(id: &str) -> Key {
        Key::generate(Kind::Master, Some(id.into())).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_and_its_purpose_alone() {
        let (one, two) = (master("one"), master("two"));
        let both = Masters::new(vec![one.clone(), two.clone()]).unwrap();
        let secret = Secret::new(b"hunter2".to_vec());
        let sealed = both.seal(&secret, b"p").unwrap();
        assert_eq!((sealed.master.as_str(), both.sealing()), ("one", "one"));
        let later = Masters::new(vec![two.clone(), one]).unwrap();
        assert_eq!(later.open(&sealed, b"p").unwrap().expose(), b"hunter2");
        let closed = MasterError::Closed("one".into());
        assert_eq!(later.open(&sealed, b"q").unwrap_err(), closed);
        let alone = Masters::new(vec![two]).unwrap();
        assert_eq!(alone.open(&sealed, b"p").unwrap_err(), MasterError::Missing("one".into()));
        let impostor = Masters::new(vec![master("one")]).unwrap();
        assert_eq!(impostor.open(&sealed, b"p").unwrap_err(), closed);
        for index in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[index] ^= 1;
            assert_eq!(later.open(&changed, b"p").unwrap_err(), closed, "byte {index}");
            changed.bytes.truncate(index);
            assert_eq!(later.open(&changed, b"p").unwrap_err(), closed, "cut at {index}");
        }
    }

    #[test]
    fn only_master_keys_with_different_ids_are_taken() {
        assert_eq!(Masters::new(vec![]).unwrap_err(), MasterError::None);
        let noise = Key::generate(Kind::Noise, None).unwrap();
        assert!(matches!(Masters::new(vec![noise]), Err(MasterError::NotMaster { .. })));
        let twice = Masters::new(vec![master("a"), master("a")]);
        assert_eq!(twice.unwrap_err(), MasterError::Duplicate("a".into()));
    }
}
