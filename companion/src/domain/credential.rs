//! What a verified credential says, and the limits that it must keep.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::refusal::Why;
use super::time::UnixMillis;

/// A ticket or JWT beyond this is refused unread: an identity with a few claims needs a tenth.
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;
pub const MAX_USER_BYTES: usize = 256;
pub const MAX_ROLES: usize = 64;
pub const MAX_ROLE_BYTES: usize = 64;
pub const MAX_CLAIMS: usize = 32;
pub const MAX_CLAIM_NAME_BYTES: usize = 64;
pub const MAX_CLAIM_VALUE_BYTES: usize = 1024;
/// How far an issuer's clock may be ahead of ours.
pub const CLOCK_SKEW: std::time::Duration = std::time::Duration::from_secs(30);

/// Who somebody is: what goes to the services behind the filter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    pub user: String,
    pub roles: Vec<String>,
    pub claims: BTreeMap<String, String>,
}

impl Identity {
    /// Refuses what is empty, too long, or would not survive as a header value: control
    /// characters are in no honest name.
    pub fn checked(self) -> Result<Self, Why> {
        let fits =
            |text: &str, limit: usize| text.len() <= limit && !text.chars().any(char::is_control);
        let good = !self.user.is_empty()
            && fits(&self.user, MAX_USER_BYTES)
            && self.roles.len() <= MAX_ROLES
            && self.roles.iter().all(|role| !role.is_empty() && fits(role, MAX_ROLE_BYTES))
            && self.claims.len() <= MAX_CLAIMS
            && self.claims.iter().all(|(name, value)| {
                !name.is_empty()
                    && fits(name, MAX_CLAIM_NAME_BYTES)
                    && fits(value, MAX_CLAIM_VALUE_BYTES)
            });
        if good { Ok(self) } else { Err(Why::UnacceptableIdentity) }
    }
}

/// A credential whose signature, audience and times are good.
#[derive(Clone, Debug)]
pub struct Verified {
    pub identity: Identity,
    /// `None`: how often it works is for the login server to say, which is asked each time.
    pub id: Option<CredentialId>,
    /// Its issuer wants it to work a single time, whatever this companion's policy is.
    pub once: bool,
    /// When the session ends at the latest, whatever this companion's policy is.
    pub until: Option<UnixMillis>,
}

/// Names a credential in the store of used ones, for as long as it could be used.
///
/// 24 bytes: expiry (u64 BE, milliseconds), then the first 16 bytes of SHA-256 over what names the
/// credential to its issuer. Expiry first: used credentials leave the store in key order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CredentialId([u8; 24]);

impl CredentialId {
    /// `issuer` and `name` are hashed with their lengths, so that no two pairs run together.
    pub fn new(expires: UnixMillis, issuer: &str, name: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(u64::try_from(issuer.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(issuer.as_bytes());
        hash.update(name);
        let mut id = [0; 24];
        let (head, tail) = id.split_at_mut(8);
        head.copy_from_slice(&expires.0.to_be_bytes());
        for (to, from) in tail.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(id)
    }

    pub const fn from_bytes(bytes: [u8; 24]) -> Self {
        Self(bytes)
    }

    /// 48 hexadecimal digits, as [`hex`](super::key::hex) writes them.
    pub fn from_hex(text: &str) -> Option<Self> {
        super::key::from_hex(text).map(Self)
    }

    /// When it cannot be used any more.
    pub fn expires(&self) -> UnixMillis {
        UnixMillis(self.0.first_chunk().map_or(0, |time| u64::from_be_bytes(*time)))
    }

    pub const fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }
}

/// `not_before` and `expires` against the clock. A credential dies at its expiry exactly.
pub fn check_times(
    now: UnixMillis,
    not_before: Option<UnixMillis>,
    expires: UnixMillis,
) -> Result<(), Why> {
    if now >= expires {
        return Err(Why::Expired);
    }
    match not_before {
        Some(start) if now.after(CLOCK_SKEW) < start => Err(Why::NotYetValid),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: &str) -> Identity {
        Identity { user: user.into(), ..Identity::default() }
    }

    #[test]
    fn names_with_control_characters_or_beyond_limits_are_refused() {
        assert!(identity("ada").checked().is_ok());
        assert!(identity("Łukasz 太郎").checked().is_ok());
        for bad in ["", "a\nb", "a\u{0}", "\u{7f}", &"x".repeat(257)] {
            assert_eq!(identity(bad).checked(), Err(Why::UnacceptableIdentity), "{bad:?}");
        }
        let mut many = identity("ada");
        many.roles = vec!["r".into(); MAX_ROLES + 1];
        assert!(many.checked().is_err());
        let mut long = identity("ada");
        long.claims.insert("k".into(), "v".repeat(MAX_CLAIM_VALUE_BYTES + 1));
        assert!(long.checked().is_err());
    }

    #[test]
    fn a_credential_lives_from_its_start_less_skew_until_its_expiry() {
        let at = UnixMillis::from_seconds;
        assert_eq!(check_times(at(100), None, at(101)), Ok(()));
        assert_eq!(check_times(at(101), None, at(101)), Err(Why::Expired));
        assert_eq!(check_times(at(100), Some(at(130)), at(200)), Ok(()));
        assert_eq!(check_times(at(100), Some(at(131)), at(200)), Err(Why::NotYetValid));
    }

    #[test]
    fn issuer_and_name_do_not_run_together_in_an_id() {
        let at = UnixMillis(5);
        assert_ne!(CredentialId::new(at, "ab", b"c"), CredentialId::new(at, "a", b"bc"));
        assert_eq!(CredentialId::new(at, "ab", b"c"), CredentialId::new(at, "ab", b"c"));
    }
}
