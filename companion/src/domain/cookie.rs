//! Cookies: a client shows that it gets what is sent to it, before anything is worked out for it.
//!
//! ```text
//!   cookie    "mgc1." | base64url( slot (u32 BE) | first 16 bytes of HMAC-SHA256(key, what it is for) )
//!   message   u8 version = 1 | u8 kind = 3 | u8 c | cookie (c) | the login message, unchanged
//! ```
//!
//! It is the answer to a login message, and good for that message alone, of the same client address
//! (of IPv6: its /64), in the same mode, layout and audience, in its slot of 30 seconds and the next
//! one. Nothing is kept: to make and to check one is a hash of the message. The key changes each
//! hour; it is derived from a secret that all replicas have, so any of them takes another's cookie:
//!
//! ```text
//!   root      HMAC-SHA256(master or Noise private key, "meshgate cookie root\0"), else random
//!   key       HMAC-SHA256(root, "meshgate cookie key\0" | hour (u64 BE))
//!   what      "meshgate cookie\0" | slot (u64 BE) | address | mode | layout | audience | message,
//!             the last five with their lengths (u64 BE)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::bucket::{Origin, Rate};
use super::key::{Key, Kind};
use super::session::Mode;
use super::time::UnixMillis;

const PREFIX: &str = "mgc1.";
const VERSION: u8 = 1;
const KIND: u8 = 3;
const SLOT_SECONDS: u64 = 30;
const SLOTS_OF_A_KEY: u64 = 120;
const ROOT_LABEL: &[u8] = b"meshgate cookie root\0";
const KEY_LABEL: &[u8] = b"meshgate cookie key\0";
const LABEL: &[u8] = b"meshgate cookie\0";
const PROOF_BYTES: usize = 16;

/// When a client is asked for a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Demand {
    #[default]
    Never,
    /// While more logins come than this.
    Above(Rate),
    Always,
}

/// What a cookie is for.
#[derive(Clone, Copy)]
pub struct Purpose<'a> {
    pub peer: &'a str,
    pub mode: Option<Mode>,
    pub layout: &'a str,
    pub audience: &'a str,
    /// The login message, without a cookie.
    pub message: &'a [u8],
}

pub struct Cookies {
    root: Zeroizing<[u8; 32]>,
}

impl Cookies {
    /// From the first of these keys that is a secret of all replicas; without one, they are good
    /// at this process alone.
    pub fn derive<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Result<Self, getrandom::Error> {
        let shared = keys.into_iter().find(|key| matches!(key.kind(), Kind::Master | Kind::Noise));
        let root = match shared {
            Some(key) => mac(key.bytes().expose(), |mac| mac.update(ROOT_LABEL)),
            None => {
                let mut root = Zeroizing::new([0; 32]);
                getrandom::fill(root.as_mut_slice())?;
                root
            }
        };
        Ok(Self { root })
    }

    pub fn make(&self, purpose: Purpose<'_>, now: UnixMillis) -> String {
        let slot = now.seconds() / SLOT_SECONDS;
        let mut bytes = Vec::with_capacity(4 + PROOF_BYTES);
        bytes.extend(low(slot).to_be_bytes());
        bytes.extend(self.proof(purpose, slot));
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn is_good(&self, cookie: &[u8], purpose: Purpose<'_>, now: UnixMillis) -> bool {
        let Some(text) = cookie.strip_prefix(PREFIX.as_bytes()) else { return false };
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else { return false };
        let Some((said, proof)) = bytes.split_first_chunk::<4>() else { return false };
        let current = now.seconds() / SLOT_SECONDS;
        let said = u32::from_be_bytes(*said);
        let slot = [current, current.saturating_sub(1)].into_iter().find(|it| low(*it) == said);
        slot.is_some_and(|slot| proof.ct_eq(&self.proof(purpose, slot)).into())
    }

    fn proof(&self, purpose: Purpose<'_>, slot: u64) -> [u8; PROOF_BYTES] {
        let Purpose { peer, mode, layout, audience, message } = purpose;
        let key = mac(self.root.as_slice(), |mac| {
            mac.update(KEY_LABEL);
            mac.update(&(slot / SLOTS_OF_A_KEY).to_be_bytes());
        });
        let mode: &[u8] = match mode {
            Some(Mode::Ticket) => b"ticket",
            Some(Mode::Noise) => b"noise",
            None => b"",
        };
        let address = Origin::of(peer).to_bytes();
        let whole = mac(key.as_slice(), |mac| {
            mac.update(LABEL);
            mac.update(&slot.to_be_bytes());
            for part in [&address, mode, layout.as_bytes(), audience.as_bytes(), message] {
                mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                mac.update(part);
            }
        });
        whole.first_chunk().copied().unwrap_or_default()
    }
}

/// A login message, with or without a cookie, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brought<'a> {
    pub cookie: Option<&'a [u8]>,
    /// The login message.
    pub message: &'a [u8],
}

impl<'a> Brought<'a> {
    /// `None`: it is cut off.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let Some(rest) = message.strip_prefix(&[VERSION, KIND]) else {
            return Some(Self { cookie: None, message });
        };
        let (length, rest) = rest.split_first()?;
        let (cookie, message) = rest.split_at_checked(usize::from(*length))?;
        Some(Self { cookie: Some(cookie), message })
    }
}

/// Whether a refusal's text is a cookie. For clients.
pub fn is_cookie(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes()) && text.len() <= usize::from(u8::MAX)
}

/// The login message with a cookie, which has at most 255 bytes. For clients.
pub fn with_cookie(cookie: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(cookie.len()).ok()?;
    Some([&[VERSION, KIND, length], cookie, message].concat())
}

/// The low half: enough to tell neighbours apart.
fn low(slot: u64) -> u32 {
    let [_, _, _, _, low @ ..] = slot.to_be_bytes();
    u32::from_be_bytes(low)
}

fn mac(key: &[u8], write: impl FnOnce(&mut Hmac<Sha256>)) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    // HMAC takes a key of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) {
        write(&mut mac);
        bytes.copy_from_slice(&mac.finalize().into_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::key::hex;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    const LOGIN: Purpose<'static> = Purpose {
        peer: "192.0.2.1:1",
        mode: Some(Mode::Noise),
        layout: "happy",
        audience: "game",
        message: b"message",
    };

    fn cookies() -> Cookies {
        Cookies::derive([]).unwrap()
    }

    #[test]
    fn a_cookie_is_good_for_its_purpose_alone() {
        let cookies = cookies();
        let cookie = cookies.make(LOGIN, NOW);
        let good = |purpose| cookies.is_good(cookie.as_bytes(), purpose, NOW);
        assert!(good(LOGIN) && good(Purpose { peer: "192.0.2.1:2", ..LOGIN }));
        for other in [
            Purpose { peer: "192.0.2.2:1", ..LOGIN },
            Purpose { mode: Some(Mode::Ticket), ..LOGIN },
            Purpose { layout: "happyg", audience: "ame", ..LOGIN },
            Purpose { audience: "gam", ..LOGIN },
            Purpose { message: b"messagf", ..LOGIN },
        ] {
            assert!(!good(other));
        }
        assert!(!Cookies::derive([]).unwrap().is_good(cookie.as_bytes(), LOGIN, NOW));
    }

    #[test]
    fn it_lives_from_thirty_seconds_to_sixty_also_where_the_key_changes() {
        let cookies = cookies();
        // An hour begins 30 seconds after this.
        for start in [NOW.0, NOW.0 / 3_600_000 * 3_600_000 - 30_000] {
            let start = UnixMillis(start);
            let cookie = cookies.make(LOGIN, start);
            let good = |seconds| {
                let later = start.after(Duration::from_secs(seconds));
                cookies.is_good(cookie.as_bytes(), LOGIN, later)
            };
            assert!(good(0) && good(29) && good(30) && good(59), "{start:?}");
            assert!(!good(60) && !good(3600), "{start:?}");
            assert!(!cookies.is_good(cookie.as_bytes(), LOGIN, UnixMillis(start.0 - 30_000)));
        }
    }

    #[test]
    fn no_changed_cookie_is_good() {
        let cookies = cookies();
        let cookie = cookies.make(LOGIN, NOW).into_bytes();
        for index in 0..cookie.len() {
            let mut changed = cookie.clone();
            changed[index] ^= 1;
            assert!(!cookies.is_good(&changed, LOGIN, NOW), "{index}");
            assert!(!cookies.is_good(&cookie[..index], LOGIN, NOW), "{index}");
        }
        assert!(!cookies.is_good(b"mgc1.", LOGIN, NOW));
    }

    #[test]
    fn replicas_with_one_secret_take_each_others() {
        let noise = Key::generate(Kind::Noise, None).unwrap();
        let ticket = Key::generate(Kind::TicketHmac, None).unwrap();
        let (one, two) = (Cookies::derive([&ticket, &noise]), Cookies::derive([&noise]));
        let cookie = one.unwrap().make(LOGIN, NOW);
        assert!(two.unwrap().is_good(cookie.as_bytes(), LOGIN, NOW));
    }

    #[test]
    fn the_shared_vectors_agree() {
        const VECTORS: &str = include_str!("../../../tests/vectors/session/cookie.json");
        let vectors: Vec<serde_json::Value> = serde_json::from_str(VECTORS).unwrap();
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap().to_owned();
            let whole = with_cookie(text("cookie").as_bytes(), &unhex(&text("message")));
            assert_eq!(whole.as_deref().map(hex), Some(text("message_with_cookie")));
            let whole = whole.unwrap();
            let Brought { cookie, message } = Brought::parse(&whole).unwrap();
            let cookie = cookie.unwrap();
            assert_eq!((cookie, hex(message)), (text("cookie").as_bytes(), text("message")));
            assert!(is_cookie(cookie));
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn a_message_with_a_cookie_is_taken_apart_as_it_was_put_together() {
        let cookie = cookies().make(LOGIN, NOW).into_bytes();
        assert!(is_cookie(&cookie) && !is_cookie(b"no login just now, try again"));
        let whole = with_cookie(&cookie, b"message").unwrap();
        let brought = Brought { cookie: Some(&cookie), message: b"message" };
        assert_eq!(Brought::parse(&whole), Some(brought));
        for end in 2..cookie.len() + 3 {
            assert_eq!(Brought::parse(&whole[..end]), None, "{end}");
        }
        for message in [&b"\x01\x01\x00"[..], b"mgt1.", b"", b"\x01"] {
            assert_eq!(Brought::parse(message), Some(Brought { cookie: None, message }));
        }
        assert_eq!(with_cookie(&[0; 256], b""), None);
    }
}
