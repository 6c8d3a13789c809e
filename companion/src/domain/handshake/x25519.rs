//! X25519 (RFC 7748) for the responder's side of a handshake.
//!
//! snow's own implementation derives the public half of the static key anew for each login and
//! leaves copies of the private one behind. This one knows the public half, wipes what it copies,
//! and refuses a peer's key that leaves no shared secret (RFC 7748, section 6.1). Everything else
//! is snow's.

use std::sync::Arc;

use curve25519_dalek::MontgomeryPoint;
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A static key with both its halves.
pub struct StaticKey {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl StaticKey {
    pub fn new(private: Zeroizing<[u8; 32]>) -> Self {
        let public = public_half(&private);
        Self { private, public }
    }

    pub fn private(&self) -> &[u8] {
        self.private.as_slice()
    }
}

/// snow's algorithms, with [`X25519`] in place of its own.
pub struct StaticResolver {
    key: Arc<StaticKey>,
    others: DefaultResolver,
}

impl StaticResolver {
    pub fn new(key: Arc<StaticKey>) -> Self {
        Self { key, others: DefaultResolver }
    }
}

impl CryptoResolver for StaticResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.others.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 {
                known: Arc::clone(&self.key),
                private: Zeroizing::default(),
                public: [0; 32],
            })),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.others.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.others.resolve_cipher(choice)
    }
}

/// One key pair of a handshake: the static one, or an ephemeral one.
struct X25519 {
    known: Arc<StaticKey>,
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    /// snow hands over the key that the builder was given: 32 bytes.
    fn set(&mut self, private: &[u8]) {
        for (to, from) in self.private.iter_mut().zip(private) {
            *to = *from;
        }
        let is_known = bool::from(self.private.as_slice().ct_eq(self.known.private()));
        self.public = if is_known { self.known.public } else { public_half(&self.private) };
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        random.try_fill_bytes(self.private.as_mut_slice())?;
        self.public = public_half(&self.private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_slice()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk().ok_or(Error::Dh)?;
        let shared = Zeroizing::new(MontgomeryPoint(*public).mul_clamped(*self.private).to_bytes());
        if bool::from(shared.as_slice().ct_eq(&[0; 32])) {
            return Err(Error::Dh);
        }
        let out = out.first_chunk_mut().ok_or(Error::Dh)?;
        *out = *shared;
        Ok(())
    }
}

fn public_half(private: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(*private).to_bytes()
}
