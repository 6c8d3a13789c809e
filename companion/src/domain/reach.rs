//! What a service may do: which calls, with sessions of which audiences, with which groups.
//!
//! A grant is one line of the configuration: `peer=spiffe://d/ns/*/sa/chat audience=game
//! group=room:* may=push may=groups`. Words are separated by blanks; `*` stands for any
//! characters; a key may stand several times.

use super::pattern::matches;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Push,
    Groups,
    Lookup,
    Events,
}

impl Act {
    const ALL: [(&'static str, Self); 4] = [
        ("push", Self::Push),
        ("groups", Self::Groups),
        ("lookup", Self::Lookup),
        ("events", Self::Events),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, act)| *act == self).map_or("?", |(name, _)| name)
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Identities of peers.
    peers: Vec<String>,
    /// Names of tokens.
    tokens: Vec<String>,
    audiences: Vec<String>,
    groups: Vec<String>,
    may: Vec<Act>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("{0:?} is no KEY=VALUE")]
    NoPair(String),
    #[error("{0:?} is no key: there are `peer`, `token`, `audience`, `group` and `may`")]
    UnknownKey(String),
    #[error("`may={0}`: there are `push`, `groups`, `lookup` and `events`")]
    UnknownAct(String),
    #[error("nobody is named: `peer=…` or `token=…` says for whom it is")]
    Nobody,
    #[error("nothing is granted: `may=push` and its like say what")]
    Nothing,
    #[error("no session can be reached: `audience=…` says which, `audience=*` all")]
    NoAudience,
}

impl Grant {
    pub fn parse(line: &str) -> Result<Self, GrantError> {
        let mut grant = Self::default();
        for word in line.split_whitespace() {
            let Some((key, value)) = word.split_once('=').filter(|(_, value)| !value.is_empty())
            else {
                return Err(GrantError::NoPair(word.to_owned()));
            };
            let values = match key {
                "peer" => &mut grant.peers,
                "token" => &mut grant.tokens,
                "audience" => &mut grant.audiences,
                "group" => &mut grant.groups,
                "may" => {
                    let act = Act::ALL.iter().find(|(name, _)| *name == value);
                    let act = act.ok_or_else(|| GrantError::UnknownAct(value.to_owned()))?;
                    grant.may.push(act.1);
                    continue;
                }
                _ => return Err(GrantError::UnknownKey(key.to_owned())),
            };
            values.push(value.to_owned());
        }
        if grant.peers.is_empty() && grant.tokens.is_empty() {
            return Err(GrantError::Nobody);
        }
        if grant.may.is_empty() {
            return Err(GrantError::Nothing);
        }
        if grant.audiences.is_empty() {
            return Err(GrantError::NoAudience);
        }
        Ok(grant)
    }

    pub fn names_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    pub fn names_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether it is for a peer of this name.
    pub fn is_for_peer(&self, name: &str) -> bool {
        self.peers.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether it is for the holder of the token of this name.
    pub fn is_for_token(&self, name: &str) -> bool {
        self.tokens.iter().any(|pattern| matches(pattern, name))
    }
}

/// What one caller may do, by all the lines that are for him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grants {
    All,
    These(Vec<Grant>),
}

impl Grants {
    /// What may be reached by this act; `None` if it is not granted at all.
    pub fn reach(&self, act: Act) -> Option<Reach> {
        let Self::These(grants) = self else { return Some(Reach::all()) };
        let mut reach = Reach { audiences: Vec::new(), groups: Vec::new() };
        let mut granted = false;
        for grant in grants.iter().filter(|grant| grant.may.contains(&act)) {
            granted = true;
            reach.audiences.extend_from_slice(&grant.audiences);
            reach.groups.extend_from_slice(&grant.groups);
        }
        granted.then_some(reach)
    }
}

/// The sessions and groups that an act of a caller may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    audiences: Vec<String>,
    groups: Vec<String>,
}

impl Reach {
    pub fn all() -> Self {
        Self { audiences: vec!["*".into()], groups: vec!["*".into()] }
    }

    pub fn covers(&self, audience: &str) -> bool {
        self.audiences.iter().any(|pattern| matches(pattern, audience))
    }

    /// Sessions of every audience.
    pub fn covers_all(&self) -> bool {
        self.audiences.iter().any(|pattern| pattern == "*")
    }

    pub fn covers_group(&self, group: &str) -> bool {
        self.groups.iter().any(|pattern| matches(pattern, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_may_do_what_with_whom() {
        let line = "peer=spiffe://d/ns/*/sa/chat audience=game audience=lobby-* group=room:* \
                    may=push may=groups";
        let grant = Grant::parse(line).unwrap();
        assert!(grant.is_for_peer("spiffe://d/ns/x/sa/chat") && !grant.is_for_peer("chat"));
        assert!(!grant.is_for_token("chat"));
        let grants = Grants::These(vec![grant]);
        let push = grants.reach(Act::Push).unwrap();
        assert!(push.covers("game") && push.covers("lobby-7") && !push.covers("games"));
        assert!(push.covers_group("room:1") && !push.covers_group("guild:1"));
        assert_eq!(grants.reach(Act::Events), None);
        assert!(Grants::All.reach(Act::Events).unwrap().covers("any"));
    }

    #[test]
    fn lines_add_up_for_each_act_by_itself() {
        let parse = |line| Grant::parse(line).unwrap();
        let grants = Grants::These(vec![
            parse("token=a audience=x may=push"),
            parse("token=a audience=y group=* may=push may=lookup"),
        ]);
        let push = grants.reach(Act::Push).unwrap();
        assert!(push.covers("x") && push.covers("y") && push.covers_group("g"));
        assert!(!grants.reach(Act::Lookup).unwrap().covers("x"));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (line, named) in [
            ("", "nobody"),
            ("peer=a audience=b", "nothing"),
            ("peer=a may=push", "no session"),
            ("audience=b may=push", "nobody"),
            ("peer=a audience=b may=kick", "`lookup`"),
            ("peer=a audience=b may=push when=now", "no key"),
            ("peer=a audience= may=push", "KEY=VALUE"),
            ("peer=a audience=b may=push x", "KEY=VALUE"),
        ] {
            let error = Grant::parse(line).unwrap_err().to_string().to_lowercase();
            assert!(error.contains(&named.to_lowercase()), "{line}: {error}");
        }
    }
}
