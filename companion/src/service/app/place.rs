//! Which server holds a session.

use std::time::Duration;

use meshgate_proto::app::v1::{PlaceRequest, PlaceResponse};
use tonic::Status;

use super::groups::{no_session, reachable};
use super::push::group;
use super::store_away;
use crate::domain::push::MAX_LEAVE;
use crate::domain::reach::Reach;
use crate::domain::sessions::Sessions;
use crate::domain::sessions::places::{MAX_PLACE, Place};

/// For a client that does not leave by itself.
const WITHIN: Duration = Duration::from_secs(30);

pub async fn place(
    sessions: &Sessions,
    reach: &Reach,
    request: PlaceRequest,
) -> Result<PlaceResponse, Status> {
    let PlaceRequest { session_id, place, stay, within_ms } = request;
    let to = match place {
        place if place.is_empty() => None,
        place => {
            let place = Place::new(place).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "`place` must be 1 to {MAX_PLACE} letters, digits, `-`, `_` and `.`"
                ))
            })?;
            let name = place.group().map_err(Status::invalid_argument)?;
            Some(group(reach, name.as_str().to_owned())?)
        }
    };
    let within = match within_ms {
        0 => WITHIN,
        millis => Duration::from_millis(millis.into()),
    };
    if within > MAX_LEAVE {
        return Err(Status::invalid_argument("`within_ms` must be at most a day"));
    }
    let id = reachable(sessions, reach, &session_id).await?;
    let placed = sessions.place(id, to, (!stay).then_some(within)).await.map_err(store_away)?;
    let placed = placed.ok_or_else(no_session)?;
    let outcome = placed.outcome.unwrap_or_default();
    Ok(PlaceResponse {
        changed: placed.changed,
        asked: outcome.delivered > 0,
        reason: outcome.reason,
    })
}
