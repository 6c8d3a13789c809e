//! An operator asks clients to leave.

use std::time::Duration;

use meshgate_proto::admin::v1::{DrainSessionsRequest, DrainSessionsResponse};
use tonic::Status;

use super::{MAX_REASON_BYTES, filter, store_away};
use crate::domain::push::{Leave, MAX_ADDRESS, MAX_LEAVE, Outcome};
use crate::domain::sessions::Sessions;
use crate::domain::sessions::drain::Leavers;

pub(super) async fn ask(
    sessions: &Sessions,
    request: DrainSessionsRequest,
) -> Result<DrainSessionsResponse, Status> {
    let (leavers, leave) = read(request)?;
    let outcome = sessions.ask_to_leave(&leavers, leave).await.map_err(store_away)?;
    let Outcome { delivered, away, gone, slow, queued, refused, unconfirmed, reason } = outcome;
    Ok(DrainSessionsResponse {
        asked: delivered,
        not_meant: gone.saturating_add(queued),
        refused,
        refused_because: reason,
        // Of these it is known that they were not asked; they have to be tried again all the same.
        unconfirmed: unconfirmed.saturating_add(slow).saturating_add(away),
    })
}

fn read(request: DrainSessionsRequest) -> Result<(Leavers, Leave), Status> {
    let problem = |problem: String| Err(Status::invalid_argument(problem));
    let percent = match request.percent {
        0 => 100,
        percent @ 1..=100 => percent,
        _ => return problem("`percent` must be 1 to 100".into()),
    };
    let texts = [("reason", &request.reason), ("service", &request.service)];
    for (name, text) in texts {
        if text.len() > MAX_REASON_BYTES || text.chars().any(char::is_control) {
            return problem(format!(
                "`{name}` must have at most {MAX_REASON_BYTES} bytes and no control characters"
            ));
        }
    }
    let is_letter = |byte: u8| (b'!'..=b'~').contains(&byte);
    if request.address.len() > MAX_ADDRESS || !request.address.bytes().all(is_letter) {
        return problem(format!(
            "`address` must have at most {MAX_ADDRESS} printable ASCII letters"
        ));
    }
    let [spread, within] =
        [request.spread_ms, request.within_ms].map(|ms| Duration::from_millis(ms.into()));
    if spread > MAX_LEAVE || within > MAX_LEAVE {
        return problem("`spread_ms` and `within_ms` must be at most a day".into());
    }
    let filter = filter(request.matching.unwrap_or_default())?;
    let leave = Leave {
        service: request.service,
        reason: request.reason,
        spread,
        within,
        address: request.address,
    };
    Ok((Leavers { filter, percent }, leave))
}
