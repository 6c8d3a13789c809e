//! Who is in which group. A membership ends with its session, in the same atomic step.

use super::Answer;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::session::SessionId;

pub trait GroupStore {
    /// Durable when the answer comes.
    fn join(&self, group: GroupName, session: SessionId, limits: GroupLimits) -> Answer<Joined>;

    /// `false`: it was no member. Durable when the answer comes.
    fn leave(&self, group: GroupName, session: SessionId) -> Answer<bool>;

    /// At most so many members, in the order of their ids, after this one.
    fn members(
        &self,
        group: GroupName,
        after: Option<SessionId>,
        limit: usize,
    ) -> Answer<Vec<SessionId>>;

    /// The groups of a session, in the order of their names.
    fn groups_of(&self, session: SessionId) -> Answer<Vec<GroupName>>;
}
