//! Traffic keys: what a login agrees on for the frames after it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The length of a traffic key in bytes.
pub const KEY_LEN: usize = 32;

/// One direction's key. It is wiped when dropped and never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TrafficKey([u8; KEY_LEN]);

impl TrafficKey {
    /// `None` unless `bytes` are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        <[u8; KEY_LEN]>::try_from(bytes).ok().map(Self)
    }

    pub(super) const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for TrafficKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficKey(..)")
    }
}

/// Both directions' keys.
#[derive(Debug)]
pub struct TrafficKeys {
    pub client_to_server: TrafficKey,
    pub server_to_client: TrafficKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_length_is_no_key() {
        assert!(TrafficKey::from_slice(&[0; 31]).is_none());
        assert!(TrafficKey::from_slice(&[0; 33]).is_none());
        assert!(TrafficKey::from_slice(&[0; 32]).is_some());
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = TrafficKey([0xab; 32]);
        assert_eq!(format!("{key:?}"), "TrafficKey(..)");
    }
}
