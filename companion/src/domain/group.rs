//! Groups of sessions: rooms, guilds, whoever is to hear the same.

use std::fmt;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 128;

/// A group's name: 1 to [`MAX_NAME`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    pub fn new(name: impl Into<String>) -> Result<Self, &'static str> {
        let name = name.into();
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err("a group's name must have 1 to 128 bytes and no control characters");
        }
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How large groups may be. What joined before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    pub members: u32,
    pub of_session: u32,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { members: 10_000, of_session: 64 }
    }
}

/// What came of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    Yes,
    /// It was a member before.
    Already,
    /// No such session lives.
    NoSession,
    /// The group has as many members as it may.
    Full,
    /// The session is in as many groups as it may.
    TooMany,
}
