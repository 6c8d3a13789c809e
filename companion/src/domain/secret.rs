//! Secrets in memory: wiped when dropped, never printed.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that no log, no `Debug` and no error may show.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// `length` bytes from the operating system's random source.
    pub fn random(length: usize) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new(vec![0; length]);
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes themselves: for cryptography alone.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// The two keys of a Noise session, 32 bytes each, as the filter needs them.
pub struct TrafficKeys {
    pub client_to_server: Zeroizing<[u8; 32]>,
    pub server_to_client: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for TrafficKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<traffic keys>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let secret = Secret::new(b"hunter2".to_vec());
        let keys = TrafficKeys {
            client_to_server: Zeroizing::new([7; 32]),
            server_to_client: Zeroizing::new([8; 32]),
        };
        let text = format!("{secret:?} {keys:?}");
        assert_eq!(text, "<secret> <traffic keys>");
    }
}
