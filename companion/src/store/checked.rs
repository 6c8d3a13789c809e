//! What a check of a store found.

/// Problems that are told one by one.
const MAX_PROBLEMS: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub sessions: u64,
    pub away: u64,
    pub credentials: u64,
    pub memberships: u64,
    /// What does not fit together, the first hundred of it.
    pub problems: Vec<String>,
}

impl Checked {
    pub fn problem(&mut self, problem: impl FnOnce() -> String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem());
        }
    }
}
