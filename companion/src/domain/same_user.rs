//! How many sessions one user may have at a time, and what gives way.
//!
//! The store decides, in the step that records the session: of any number of logins at the same
//! moment, as many get in as may. Only live sessions count and only a session that goes live ends
//! others: whoever holds a copy of somebody's first Noise message throws nobody out with it.
//!
//! A session that is away keeps nobody out, unless it is configured to: its user may have lost the
//! token that he would resume it with. It ends for the new one where there is not room for both, so
//! that there never are more than may be, whoever comes back.

use std::num::NonZeroU32;

use super::session::{Farewell, Session};
use super::time::UnixMillis;

/// What the client of a replaced session hears.
const REPLACED: &str = "logged in elsewhere";

/// The rule, for each user, over all audiences and proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameUser {
    /// At most so many sessions, the next is refused; `None`: any number.
    Allow(Option<NonZeroU32>),
    /// The newest alone; the others end, with this number in their goodbye.
    Replace { code: u32 },
}

impl Default for SameUser {
    fn default() -> Self {
        Self::Allow(None)
    }
}

impl SameUser {
    pub const REFUSE: Self = Self::Allow(Some(NonZeroU32::MIN));

    /// What the store is asked to see to for this session; `None` if anything goes.
    pub fn bound(self, session: &Session, now: UnixMillis, away_counts: bool) -> Option<Bound> {
        let (over, code) = match self {
            Self::Allow(None) => return None,
            Self::Allow(Some(limit)) => (Over::Refuse { limit, away_counts }, 0),
            Self::Replace { code } => (Over::End, code),
        };
        let farewell = Farewell { reason: REPLACED.into(), code };
        Some(Bound { user: session.identity.user.clone(), now, over, farewell })
    }
}

/// The bound for one admission. Sessions that have expired at `now` do not count, whether
/// they were swept or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub user: String,
    pub now: UnixMillis,
    pub over: Over,
    /// What those hear who end for another.
    pub farewell: Farewell,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// With so many sessions there, nothing happens. Those that are away do not count, unless they
    /// are meant to, and end where they would be too many beside the new one, the oldest first.
    Refuse { limit: NonZeroU32, away_counts: bool },
    /// If the admission records a session, the user's others end.
    End,
}
