//! Which sessions are meant: all that is given must be true of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::session::{Session, State};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    pub user: Option<String>,
    /// Claims of the credential, and the values that they have.
    pub claims: BTreeMap<String, String>,
    /// One of the session's roles.
    pub role: Option<String>,
    pub audience: Option<String>,
    /// The proxy that holds it.
    pub proxy: Option<String>,
    pub state: Option<State>,
}

impl Filter {
    pub fn of_user(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..Self::default() }
    }

    /// Nothing is given: everybody is meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Nothing but a user, which every store finds by itself.
    pub fn is_user_alone(&self) -> bool {
        let rest = Self { user: None, ..self.clone() };
        rest.is_empty()
    }

    pub fn takes(&self, session: &Session, state: State) -> bool {
        let is = |wanted: &Option<String>, found: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let Session { identity, audience, proxy, .. } = session;
        is(&self.user, &identity.user)
            && is(&self.audience, audience)
            && is(&self.proxy, proxy)
            && self.state.is_none_or(|wanted| wanted == state)
            && self.role.as_ref().is_none_or(|role| identity.roles.contains(role))
            && self.claims.iter().all(|(name, value)| identity.claims.get(name) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::credential::Identity;
    use crate::domain::session::{HoldNumber, Mode, SessionId};
    use crate::domain::time::UnixMillis;

    fn session() -> Session {
        let claims = [("zone", "7"), ("region", "eu")];
        Session {
            id: SessionId::from_bytes([1; 16]),
            identity: Identity {
                user: "ada".into(),
                roles: vec!["player".into(), "tester".into()],
                claims: claims.map(|(name, value)| (name.into(), value.into())).into(),
            },
            mode: Mode::Noise,
            audience: "game".into(),
            layout: "l".into(),
            proxy: "p".into(),
            peer: "x".into(),
            client: String::new(),
            created_at: UnixMillis(0),
            expires_at: UnixMillis(1),
            hold: HoldNumber(1 << 32),
            worker: 0,
            away_until: None,
            seed: None,
        }
    }

    #[test]
    fn everything_that_is_given_must_be_true() {
        let text = |text: &str| Some(text.to_owned());
        let claim = |name: &str, value: &str| BTreeMap::from([(name.into(), value.into())]);
        let none = Filter::default;
        let takes = |filter: &Filter| filter.takes(&session(), State::Live);
        for right in [
            none(),
            Filter::of_user("ada"),
            Filter { claims: claim("zone", "7"), ..none() },
            Filter { role: text("tester"), audience: text("game"), ..none() },
            Filter { proxy: text("p"), state: Some(State::Live), ..none() },
        ] {
            assert!(takes(&right), "{right:?}");
            assert!(!takes(&Filter { claims: claim("zone", "8"), ..right.clone() }));
            assert!(!takes(&Filter { claims: claim("guild", ""), ..right.clone() }));
            assert!(!takes(&Filter { user: text("ad"), ..right.clone() }));
            assert!(!takes(&Filter { role: text("test"), ..right.clone() }));
            assert!(!takes(&Filter { audience: text(""), ..right.clone() }));
            assert!(!takes(&Filter { proxy: text("q"), ..right.clone() }));
            assert!(!takes(&Filter { state: Some(State::Pending), ..right }));
        }
        assert!(Filter::of_user("ada").is_user_alone() && none().is_empty());
        assert!(!Filter { role: text("x"), ..Filter::of_user("ada") }.is_user_alone());
    }
}
