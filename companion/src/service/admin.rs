//! For operators: who is there, and out with them.

use std::sync::Arc;
use std::time::Instant;

use meshgate_proto::admin::v1::admin_server::Admin;
use meshgate_proto::admin::v1::{
    KickSessionsRequest, KickSessionsResponse, ListSessionsRequest, ListSessionsResponse,
    Session as SessionMessage, State as StateNumber, kick_sessions_request,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::peer::Peer;
use super::rights::Caller;
use crate::domain::key::hex;
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
        let audit = Audit::of(&request, "ListSessions");
        let request = request.into_inner();
        let asked = format!("user={:?} page_size={}", request.user, request.page_size);
        let answer = self.list(request).await;
        audit.write(&self.sessions, &asked, answer.as_ref().map(|page| page.sessions.len()));
        answer.map(Response::new)
    }

    async fn kick_sessions(
        &self,
        request: Request<KickSessionsRequest>,
    ) -> Result<Response<KickSessionsResponse>, Status> {
        let audit = Audit::of(&request, "KickSessions");
        let request = request.into_inner();
        let asked = match &request.whom {
            Some(kick_sessions_request::Whom::SessionId(id)) => format!("session={}", hex(id)),
            Some(kick_sessions_request::Whom::User(user)) => format!("user={user:?}"),
            None => "nobody".into(),
        };
        let asked = format!("{asked} reason={:?} code={}", request.reason, request.code);
        let answer = self.kick(request).await;
        let ended = |answer: &KickSessionsResponse| usize::try_from(answer.ended).unwrap_or(0);
        audit.write(&self.sessions, &asked, answer.as_ref().map(ended));
        answer.map(Response::new)
    }
}

impl AdminService {
    async fn list(&self, request: ListSessionsRequest) -> Result<ListSessionsResponse, Status> {
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
        Ok(ListSessionsResponse {
            sessions: listing.sessions.into_iter().map(message).collect(),
            next_page_token: listing.next.map(|id| id.to_string()).unwrap_or_default(),
        })
    }

    async fn kick(&self, request: KickSessionsRequest) -> Result<KickSessionsResponse, Status> {
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
        let farewell = Farewell { reason: request.reason, code: request.code };
        let ended = self.sessions.kick(whom, farewell).await.map_err(store_away)?;
        Ok(KickSessionsResponse { ended })
    }
}

/// The line that every call of an operator leaves, on the target `meshgate::audit`.
struct Audit {
    call: &'static str,
    caller: String,
    peer: String,
    begun: Instant,
}

impl Audit {
    fn of<T>(request: &Request<T>, call: &'static str) -> Self {
        let extensions = request.extensions();
        let caller =
            extensions.get::<Caller>().map_or_else(|| "?".into(), |caller| caller.0.clone());
        let peer = extensions.get::<Peer>().map_or_else(|| "?".into(), |p| p.address.to_string());
        Self { call, caller, peer, begun: Instant::now() }
    }

    /// `affected`: how many sessions were listed or ended.
    fn write(self, sessions: &Sessions, asked: &str, result: Result<usize, &Status>) {
        let Self { call, caller, peer, begun } = self;
        let took = begun.elapsed();
        sessions.metrics().admin_calls.count(if result.is_ok() { "ok" } else { "failed" });
        // What callers write is in quotes, its control characters escaped: no line can be forged.
        match result {
            Ok(affected) => info!(
                target: "meshgate::audit",
                call, caller, peer, asked, affected, ?took, "operator's call"
            ),
            Err(status) => info!(
                target: "meshgate::audit",
                call, caller, peer, asked, ?took, code = ?status.code(), error = status.message(),
                "operator's call failed"
            ),
        }
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
