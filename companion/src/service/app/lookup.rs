//! Who is there.

use meshgate_proto::app::v1::{
    GetSessionRequest, ListSessionsRequest, ListSessionsResponse, Session as SessionMessage,
};
use tonic::Status;

use super::{audience, audience_denied, message, session_id, store_away};
use crate::domain::reach::Reach;
use crate::domain::sessions::Sessions;
use crate::store::Page;

/// As many sessions as one answer holds.
const LIMIT: usize = 1000;

pub async fn get(
    sessions: &Sessions,
    reach: &Reach,
    request: GetSessionRequest,
) -> Result<SessionMessage, Status> {
    let id = session_id(&request.session_id)?;
    let session = sessions.live(id).await.map_err(store_away)?;
    let session = session.ok_or_else(|| Status::not_found("no such session"))?;
    if !reach.covers(&session.audience) {
        return Err(audience_denied(&session.audience));
    }
    Ok(message(session))
}

pub async fn list(
    sessions: &Sessions,
    reach: &Reach,
    request: ListSessionsRequest,
) -> Result<ListSessionsResponse, Status> {
    if request.user.is_empty() {
        return Err(Status::invalid_argument("`user` must be given"));
    }
    let only = audience(reach, request.audience)?;
    let page = Page { user: Some(request.user), after: None, limit: LIMIT };
    let now = sessions.clock().now();
    let listed = sessions.store().list(page).await.map_err(store_away)?.sessions;
    let meant = listed.into_iter().filter(|session| {
        session.ends_at() > now
            && reach.covers(&session.audience)
            && only.as_ref().is_none_or(|only| *only == session.audience)
    });
    Ok(ListSessionsResponse { sessions: meant.map(message).collect() })
}
