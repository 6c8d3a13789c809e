//! The signatures of JSON Web Tokens, by ring, which TLS brings along anyway: HS256, EdDSA, ES256
//! and RS256. Checking only; the companion signs no JWT.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(RingVerifier::new(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes jsonwebtoken check signatures here. The first call in a process counts.
pub fn install() {
    let _ = PROVIDER.install_default();
}

/// Whether a key has the form that its algorithm needs.
pub fn usable(algorithm: Algorithm, key: &DecodingKey) -> bool {
    RingVerifier::new(algorithm, key).is_ok()
}

enum RingVerifier {
    Hmac(hmac::Key),
    Ed25519(UnparsedPublicKey<Vec<u8>>),
    EcdsaP256(UnparsedPublicKey<Vec<u8>>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

/// RFC 7518, section 3.2: an HS256 key has at least 32 bytes.
const MIN_HMAC_KEY_BYTES: usize = 32;

impl RingVerifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        match (algorithm, key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret))
                if secret.len() >= MIN_HMAC_KEY_BYTES =>
            {
                Ok(Self::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret)))
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(public)) if public.len() == 32 => {
                Ok(Self::Ed25519(UnparsedPublicKey::new(&ED25519, public.clone())))
            }
            // 0x04, x, y: an uncompressed point of P-256 (SEC 1, section 2.3.3).
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) if point.len() == 65 => {
                Ok(Self::EcdsaP256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.clone())))
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                Ok(Self::Rsa(RsaPublicKeyComponents { n: n.clone(), e: e.clone() }))
            }
            _ => Err(ErrorKind::InvalidKeyFormat.into()),
        }
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        match self {
            // Compares in constant time.
            Self::Hmac(key) => hmac::verify(key, message, signature),
            Self::Ed25519(key) | Self::EcdsaP256(key) => key.verify(message, signature),
            Self::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        }
        .map_err(|_| Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hmac(_) => Algorithm::HS256,
            Self::Ed25519(_) => Algorithm::EdDSA,
            Self::EcdsaP256(_) => Algorithm::ES256,
            Self::Rsa(_) => Algorithm::RS256,
        }
    }
}
