//! What a command asks of the one who sends it.

use std::collections::BTreeMap;

/// Who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether the client must have logged in. In mode `none` everybody counts as such.
    pub login: bool,
    /// The session must have one of these; none is needed if there are none.
    pub roles: Box<[Box<str>]>,
    /// The session must have each of these claims with one of its values.
    pub claims: BTreeMap<Box<str>, Box<[Box<str>]>>,
}

impl Access {
    /// Whether someone with these roles and claims may call, login or not.
    pub fn permits<'a, R: AsRef<str>>(
        &self,
        roles: &[R],
        claim: impl Fn(&str) -> Option<&'a str>,
    ) -> bool {
        let wanted = |role: &R| self.roles.iter().any(|wanted| **wanted == *role.as_ref());
        let role = self.roles.is_empty() || roles.iter().any(wanted);
        role && self.claims.iter().all(|(name, values)| {
            claim(name).is_some_and(|value| values.iter().any(|wanted| **wanted == *value))
        })
    }
}
