//! Answers of the login server, remembered for a short time.
//!
//! Keyed by HMAC-SHA256 under a key of this process over everything that the answer may depend on;
//! no credential is kept. Bounded by count and by bytes: when the young generation has half of
//! either, the old one is forgotten.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Answer, Question};
use crate::domain::bucket::Origin;
use crate::domain::secret::Secret;
use crate::domain::session::Mode;
use crate::domain::time::UnixMillis;

/// What all answers together may weigh.
const MAX_BYTES: usize = 16 << 20;
/// Of an answer without a name: key, times, the map's own.
const OVERHEAD: usize = 160;

/// Names a question, without giving anything of it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

pub struct Cache {
    secret: Secret,
    max_entries: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    young_bytes: usize,
}

#[derive(Clone)]
struct Entry {
    answer: Answer,
    kept: UnixMillis,
    until: UnixMillis,
}

impl Cache {
    pub fn new(max_entries: usize) -> Result<Self, getrandom::Error> {
        Ok(Self { secret: Secret::random(32)?, max_entries, held: Mutex::default() })
    }

    /// The client's address counts, without its port: an answer may depend on it.
    pub fn key(&self, question: &Question) -> Key {
        let Question { credential, kind, audience, peer, mode, layout, .. } = question;
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.expose()) else {
            return Key([0; 32]);
        };
        let mode: &[u8] = match mode {
            Mode::Ticket => b"ticket",
            Mode::Noise => b"noise",
        };
        let fixed = format!("{kind:?} {:?}", Origin::of(peer));
        for part in [fixed.as_bytes(), mode, audience.as_bytes(), layout.as_bytes(), credential] {
            // With their lengths, so that no two questions run together.
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        Key(mac.finalize().into_bytes().into())
    }

    pub fn find(&self, key: &Key, now: UnixMillis) -> Option<Answer> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = held.young.get(key).or_else(|| held.old.get(key))?;
        // Kept in the future: the clock was set back.
        (entry.kept <= now && now < entry.until).then(|| entry.answer.clone())
    }

    pub fn keep(&self, key: Key, answer: &Answer, life: Duration, now: UnixMillis) {
        if life.is_zero() || self.max_entries == 0 {
            return;
        }
        let weight = weight(answer);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let full = held.young.len() >= self.max_entries.div_ceil(2)
            || held.young_bytes.saturating_add(weight) > MAX_BYTES / 2;
        if full {
            held.old = std::mem::take(&mut held.young);
            held.young_bytes = 0;
        }
        held.young_bytes = held.young_bytes.saturating_add(weight);
        let entry = Entry { answer: answer.clone(), kept: now, until: now.after(life) };
        held.young.insert(key, entry);
    }
}

fn weight(answer: &Answer) -> usize {
    let bytes = match answer {
        Answer::Accepted(granted) => {
            let identity = &granted.identity;
            let claims = identity.claims.iter().map(|(name, value)| {
                name.len().saturating_add(value.len()).saturating_add(OVERHEAD)
            });
            let roles = identity.roles.iter().map(|role| role.len().saturating_add(OVERHEAD));
            claims.chain(roles).fold(identity.user.len(), usize::saturating_add)
        }
        Answer::Refused(refused) => refused.text.as_ref().map_or(0, |text| text.len()),
    };
    bytes.saturating_add(OVERHEAD)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::{CredentialKind, Granted};
    use super::*;
    use crate::domain::credential::Identity;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const LIFE: Duration = Duration::from_secs(10);

    fn question(credential: &str, change: impl FnOnce(&mut Question)) -> Question {
        let mut question = Question {
            credential: Zeroizing::new(credential.into()),
            kind: CredentialKind::Opaque,
            audience: "game".into(),
            peer: "192.0.2.1:1".into(),
            mode: Mode::Ticket,
            layout: "happy".into(),
            client: String::new(),
        };
        change(&mut question);
        question
    }

    fn accepted(user: &str) -> Answer {
        let identity = Identity { user: user.into(), ..Identity::default() };
        Answer::Accepted(Granted { identity, until: None })
    }

    #[test]
    fn an_answer_is_for_the_same_question_alone_and_for_its_time() {
        let cache = Cache::new(10).unwrap();
        let key = cache.key(&question("a", |_| ()));
        cache.keep(key, &accepted("ada"), LIFE, NOW);
        let found = |cache: &Cache, question: &Question, now| cache.find(&cache.key(question), now);
        let other_port = question("a", |q| q.peer = "192.0.2.1:2".into());
        assert_eq!(found(&cache, &other_port, NOW), Some(accepted("ada")));
        for other in [
            question("b", |_| ()),
            question("a", |q| q.peer = "192.0.2.2:1".into()),
            question("a", |q| q.audience = "gameh".into()),
            question("a", |q| q.layout = "appy".into()),
            question("a", |q| q.mode = Mode::Noise),
            question("a", |q| q.kind = CredentialKind::Jwt),
        ] {
            assert_eq!(found(&cache, &other, NOW), None);
        }
        let same = question("a", |_| ());
        assert!(found(&cache, &same, NOW.after(LIFE - Duration::from_millis(1))).is_some());
        assert_eq!(found(&cache, &same, NOW.after(LIFE)), None);
        assert_eq!(found(&cache, &same, UnixMillis(NOW.0 - 1)), None);
        assert_eq!(Cache::new(10).unwrap().find(&key, NOW), None, "each has a key of its own");
    }

    #[test]
    fn it_is_bounded_by_count_and_by_bytes() {
        let cache = Cache::new(10).unwrap();
        for number in 0..1000 {
            let key = cache.key(&question(&number.to_string(), |_| ()));
            cache.keep(key, &accepted("ada"), LIFE, NOW);
        }
        let held = cache.held.lock().unwrap();
        assert!(held.young.len() + held.old.len() <= 10 && !held.old.is_empty());
        drop(held);

        let cache = Cache::new(usize::MAX).unwrap();
        let large = accepted(&"x".repeat(1 << 20));
        for number in 0..100 {
            let key = cache.key(&question(&number.to_string(), |_| ()));
            cache.keep(key, &large, LIFE, NOW);
        }
        let held = cache.held.lock().unwrap();
        assert!((7..=16).contains(&(held.young.len() + held.old.len())));
    }

    #[test]
    fn without_entries_or_life_nothing_is_kept() {
        let key = |cache: &Cache| cache.key(&question("a", |_| ()));
        for (entries, life) in [(0, LIFE), (10, Duration::ZERO)] {
            let cache = Cache::new(entries).unwrap();
            cache.keep(key(&cache), &accepted("ada"), life, NOW);
            assert_eq!(cache.find(&key(&cache), NOW), None);
        }
    }
}
