//! Groups: who joins, who leaves, who is in.

use meshgate_proto::app::v1::{
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, ListMembersRequest, ListMembersResponse,
};
use tonic::Status;

use super::push::group;
use super::{audience_denied, session_id, store_away};
use crate::domain::group::Joined;
use crate::domain::reach::Reach;
use crate::domain::session::SessionId;
use crate::domain::sessions::Sessions;

const DEFAULT_PAGE: usize = 1000;
const MAX_PAGE: usize = 10_000;

pub async fn join_group(
    sessions: &Sessions,
    reach: &Reach,
    request: JoinGroupRequest,
) -> Result<JoinGroupResponse, Status> {
    let group = group(reach, request.group)?;
    let id = reachable(sessions, reach, &request.session_id).await?;
    let joined = match sessions.join_group(group, id).await.map_err(store_away)? {
        Joined::Yes => true,
        Joined::Already => false,
        Joined::NoSession => return Err(no_session()),
        Joined::Full => {
            return Err(Status::resource_exhausted(
                "the group has as many members as `app.group_members` allows",
            ));
        }
        Joined::TooMany => {
            return Err(Status::resource_exhausted(
                "the session is in as many groups as `app.session_groups` allows",
            ));
        }
    };
    Ok(JoinGroupResponse { joined })
}

pub async fn leave_group(
    sessions: &Sessions,
    reach: &Reach,
    request: LeaveGroupRequest,
) -> Result<LeaveGroupResponse, Status> {
    let group = group(reach, request.group)?;
    let id = session_id(&request.session_id)?;
    let left = sessions.store().leave(group, id).await.map_err(store_away)?;
    Ok(LeaveGroupResponse { left })
}

pub async fn list_members(
    sessions: &Sessions,
    reach: &Reach,
    request: ListMembersRequest,
) -> Result<ListMembersResponse, Status> {
    let group = group(reach, request.group)?;
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) if size <= MAX_PAGE => size,
        _ => {
            let problem = format!("`page_size` must be at most {MAX_PAGE}");
            return Err(Status::invalid_argument(problem));
        }
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(
            SessionId::from_hex(token)
                .ok_or_else(|| Status::invalid_argument("`page_token` is not one of mine"))?,
        ),
    };
    let members = sessions.store().members(group, after, limit).await.map_err(store_away)?;
    let next = members.last().filter(|_| members.len() >= limit);
    Ok(ListMembersResponse {
        next_page_token: next.map(SessionId::to_string).unwrap_or_default(),
        session_ids: members.iter().map(|id| id.as_bytes().to_vec()).collect(),
    })
}

pub async fn list_groups(
    sessions: &Sessions,
    reach: &Reach,
    request: ListGroupsRequest,
) -> Result<ListGroupsResponse, Status> {
    let id = reachable(sessions, reach, &request.session_id).await?;
    let groups = sessions.store().groups_of(id).await.map_err(store_away)?;
    let reached = groups.iter().filter(|group| reach.covers_group(group.as_str()));
    Ok(ListGroupsResponse { groups: reached.map(ToString::to_string).collect() })
}

/// A live session that the caller may reach.
pub(super) async fn reachable(
    sessions: &Sessions,
    reach: &Reach,
    id: &[u8],
) -> Result<SessionId, Status> {
    let id = session_id(id)?;
    let session = sessions.live(id).await.map_err(store_away)?.ok_or_else(no_session)?;
    if reach.covers(&session.audience) { Ok(id) } else { Err(audience_denied(&session.audience)) }
}

pub(super) fn no_session() -> Status {
    Status::not_found("no such session lives")
}
