//! For operators: who is there, and out with them.

use std::sync::Arc;

use meshgate_proto::admin::v1::admin_server::Admin;
use meshgate_proto::admin::v1::{
    KickSessionsRequest, KickSessionsResponse, ListSessionsRequest, ListSessionsResponse,
    Session as SessionMessage, State as StateNumber, kick_sessions_request,
};
use tonic::{Request, Response, Status};
use tracing::info;

use crate::domain::session::{Farewell, Session, SessionId, State};
use crate::domain::sessions::{Sessions, Whom};
use crate::store::{Page, StoreError};

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// A goodbye frame must hold it, whatever the layout.
const MAX_REASON_BYTES: usize = 256;

#[derive(Clone)]
pub struct AdminService {
    sessions: Arc<Sessions>,
}

impl AdminService {
    pub fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let limit = match request.page_size {
            0 => DEFAULT_PAGE,
            size if size <= MAX_PAGE => size,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "`page_size` must be at most {MAX_PAGE}"
                )));
            }
        };
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(
                SessionId::from_hex(token)
                    .ok_or_else(|| Status::invalid_argument("`page_token` is not one of mine"))?,
            ),
        };
        let page = Page {
            user: Some(request.user).filter(|user| !user.is_empty()),
            after,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let listing = self.sessions.list(page).await.map_err(store_away)?;
        Ok(Response::new(ListSessionsResponse {
            sessions: listing.sessions.into_iter().map(message).collect(),
            next_page_token: listing.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn kick_sessions(
        &self,
        request: Request<KickSessionsRequest>,
    ) -> Result<Response<KickSessionsResponse>, Status> {
        let peer = request.remote_addr();
        let request = request.into_inner();
        let whom = match request.whom {
            Some(kick_sessions_request::Whom::SessionId(id)) => Whom::Session(
                SessionId::try_from(id.as_slice())
                    .map_err(|_| Status::invalid_argument("`session_id` must have 16 bytes"))?,
            ),
            Some(kick_sessions_request::Whom::User(user)) if !user.is_empty() => Whom::User(user),
            _ => return Err(Status::invalid_argument("give `session_id` or `user`")),
        };
        if request.reason.len() > MAX_REASON_BYTES || request.reason.chars().any(char::is_control) {
            return Err(Status::invalid_argument(format!(
                "`reason` must have at most {MAX_REASON_BYTES} bytes and no control characters"
            )));
        }
        info!(?whom, ?peer, reason = request.reason, code = request.code, "kick asked for");
        let farewell = Farewell { reason: request.reason, code: request.code };
        let ended = self.sessions.kick(whom, farewell).await.map_err(store_away)?;
        Ok(Response::new(KickSessionsResponse { ended }))
    }
}

fn message((session, state): (Session, State)) -> SessionMessage {
    SessionMessage {
        session_id: session.id.as_bytes().to_vec(),
        user: session.identity.user,
        state: match state {
            State::Pending => StateNumber::Pending,
            State::Live => StateNumber::Live,
        }
        .into(),
        proxy: session.proxy,
        peer: session.peer,
        audience: session.audience,
        created_at_ms: session.created_at.0,
        expires_at_ms: session.expires_at.0,
    }
}

fn store_away(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}
