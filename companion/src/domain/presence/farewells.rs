//! What to say to proxies that were away when a session ended.

use std::collections::{HashMap, VecDeque};

use crate::domain::session::{Farewell, SessionId};

/// Beyond, the oldest are forgotten: their proxies hear that the session has ended, and not why.
/// As many kicks as an operator sends out while a proxy is away; 5 MiB with the longest reasons.
pub const MAX_FAREWELLS: usize = 16_384;

/// In memory alone: after a restart the companion still knows that a session ended, but not why.
#[derive(Default)]
pub struct Farewells {
    kept: HashMap<SessionId, Kept>,
    /// In their order. Some may have been said already.
    order: VecDeque<SessionId>,
}

struct Kept {
    /// The proxy that held the session, where known; nobody else hears the reason.
    proxy: Option<String>,
    farewell: Farewell,
}

impl Farewells {
    pub fn keep(&mut self, session: SessionId, proxy: Option<String>, farewell: Farewell) {
        if self.order.len() >= MAX_FAREWELLS
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
        self.order.push_back(session);
        self.kept.insert(session, Kept { proxy, farewell });
    }

    /// What this proxy is to hear of the session, once.
    pub fn take(&mut self, session: SessionId, proxy: &str) -> Option<Farewell> {
        let kept = self.kept.get(&session)?;
        if kept.proxy.as_ref().is_some_and(|holder| holder != proxy) {
            return None;
        }
        self.kept.remove(&session).map(|kept| kept.farewell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> SessionId {
        SessionId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn a_farewell_is_said_once_and_to_its_proxy_alone() {
        let mut farewells = Farewells::default();
        farewells.keep(id(1), Some("p".into()), Farewell::new("cheating"));
        assert_eq!(farewells.take(id(1), "q"), None);
        assert_eq!(farewells.take(id(1), "p"), Some(Farewell::new("cheating")));
        assert_eq!(farewells.take(id(1), "p"), None);
        farewells.keep(id(2), None, Farewell::new("expired"));
        assert_eq!(farewells.take(id(2), "q"), Some(Farewell::new("expired")));
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut farewells = Farewells::default();
        for number in 0..3 * MAX_FAREWELLS {
            farewells.keep(id(number), None, Farewell::new("x"));
            assert!(farewells.kept.len() <= MAX_FAREWELLS);
            assert!(farewells.order.len() <= MAX_FAREWELLS);
        }
        assert_eq!(farewells.take(id(0), "p"), None);
        assert!(farewells.take(id(3 * MAX_FAREWELLS - 1), "p").is_some());
    }
}
