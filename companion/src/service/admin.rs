//! For operators: who is there, and out with them.

use std::sync::Arc;
use std::time::Instant;

use meshgate_proto::admin::v1::admin_server::Admin;
use meshgate_proto::admin::v1::{
    CountSessionsRequest, CountSessionsResponse, DrainSessionsRequest, DrainSessionsResponse,
    Filter as FilterMessage, KickSessionsRequest, KickSessionsResponse, ListSessionsRequest,
    ListSessionsResponse, Session as SessionMessage, State as StateNumber, kick_sessions_request,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::peer::Peer;
use super::rights::Caller;
use crate::domain::credential::MAX_CLAIMS;
use crate::domain::filter::Filter;
use crate::domain::key::hex;
use crate::domain::session::{Farewell, Session, SessionId, State};
use crate::domain::sessions::{Search, Sessions, Whom};
use crate::store::StoreError;

mod drain;

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// A goodbye frame must hold it, whatever the layout.
pub(super) const MAX_REASON_BYTES: usize = 256;

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
        let user = request.user.clone();
        let given = FilterMessage { user, ..FilterMessage::default() };
        let filter = request.filter.as_ref().map(in_words).unwrap_or_default();
        let asked = format!("{}{filter} page_size={}", in_words(&given), request.page_size);
        let asked = asked.trim_start();
        let answer = self.list(request).await;
        audit.write(&self.sessions, asked, answer.as_ref().map(|page| page.sessions.len()));
        answer.map(Response::new)
    }

    async fn count_sessions(
        &self,
        request: Request<CountSessionsRequest>,
    ) -> Result<Response<CountSessionsResponse>, Status> {
        let audit = Audit::of(&request, "CountSessions");
        let answer = self.count().await;
        let live = |answer: &CountSessionsResponse| usize::try_from(answer.live).unwrap_or(0);
        audit.write(&self.sessions, "", answer.as_ref().map(live));
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
            Some(kick_sessions_request::Whom::Matching(filter)) => {
                format!("matching{}", in_words(filter))
            }
            None => "nobody".into(),
        };
        let asked = format!("{asked} reason={:?} code={}", request.reason, request.code);
        let answer = self.kick(request).await;
        let ended = |answer: &KickSessionsResponse| usize::try_from(answer.ended).unwrap_or(0);
        audit.write(&self.sessions, &asked, answer.as_ref().map(ended));
        answer.map(Response::new)
    }

    async fn drain_sessions(
        &self,
        request: Request<DrainSessionsRequest>,
    ) -> Result<Response<DrainSessionsResponse>, Status> {
        let audit = Audit::of(&request, "DrainSessions");
        let request = request.into_inner();
        let asked = format!(
            "service={:?} percent={} address={:?} reason={:?}{}",
            request.service,
            request.percent,
            request.address,
            request.reason,
            request.matching.as_ref().map(in_words).unwrap_or_default()
        );
        let answer = drain::ask(&self.sessions, request).await;
        let left = |answer: &DrainSessionsResponse| usize::try_from(answer.asked).unwrap_or(0);
        audit.write(&self.sessions, &asked, answer.as_ref().map(left));
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
        let mut filter = filter(request.filter.unwrap_or_default())?;
        if !request.user.is_empty() {
            if filter.user.as_ref().is_some_and(|user| *user != request.user) {
                return Err(Status::invalid_argument("`user` and `filter.user` differ"));
            }
            filter.user = Some(request.user);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let listing =
            self.sessions.list(Search { filter, after, limit }).await.map_err(store_away)?;
        Ok(ListSessionsResponse {
            sessions: listing.sessions.into_iter().map(message).collect(),
            next_page_token: listing.next.map(|id| id.to_string()).unwrap_or_default(),
        })
    }

    async fn count(&self) -> Result<CountSessionsResponse, Status> {
        let (count, census) = self.sessions.count().await.map_err(store_away)?;
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        Ok(CountSessionsResponse {
            live: count.live,
            away: count.away,
            live_here: number(census.live),
            pending_here: number(census.pending),
        })
    }

    async fn kick(&self, request: KickSessionsRequest) -> Result<KickSessionsResponse, Status> {
        let whom = match request.whom {
            Some(kick_sessions_request::Whom::SessionId(id)) => Whom::Session(
                SessionId::try_from(id.as_slice())
                    .map_err(|_| Status::invalid_argument("`session_id` must have 16 bytes"))?,
            ),
            Some(kick_sessions_request::Whom::User(user)) if !user.is_empty() => {
                Whom::Matching(Filter::of_user(user))
            }
            Some(kick_sessions_request::Whom::Matching(message)) => {
                let filter = filter(message)?;
                if filter.is_empty() {
                    return Err(Status::invalid_argument("`matching` must not be empty"));
                }
                Whom::Matching(filter)
            }
            _ => return Err(Status::invalid_argument("give `session_id`, `user` or `matching`")),
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

/// A filter as a caller wrote it; what he left empty is not asked for.
pub(super) fn filter(message: FilterMessage) -> Result<Filter, Status> {
    if message.claims.len() > MAX_CLAIMS {
        let problem = format!("`claims` must be at most {MAX_CLAIMS}");
        return Err(Status::invalid_argument(problem));
    }
    let state = match message.state() {
        StateNumber::Unspecified if message.state == 0 => None,
        StateNumber::Unspecified => return Err(Status::invalid_argument("unknown `state`")),
        StateNumber::Pending => Some(State::Pending),
        StateNumber::Live => Some(State::Live),
        StateNumber::Away => Some(State::Away),
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Filter {
        user: given(message.user),
        claims: message.claims,
        role: given(message.role),
        audience: given(message.audience),
        proxy: given(message.proxy),
        state,
    })
}

/// For the audit: what is asked for, in quotes.
fn in_words(filter: &FilterMessage) -> String {
    let FilterMessage { user, claims, role, audience, proxy, .. } = filter;
    let mut words = String::new();
    for (name, value) in [("user", user), ("role", role), ("audience", audience), ("proxy", proxy)]
    {
        if !value.is_empty() {
            words.push_str(&format!(" {name}={value:?}"));
        }
    }
    for (name, value) in claims.iter().take(MAX_CLAIMS) {
        words.push_str(&format!(" claim {name:?}={value:?}"));
    }
    if filter.state != 0 {
        words.push_str(&format!(" state={}", filter.state));
    }
    words
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
            State::Away => StateNumber::Away,
        }
        .into(),
        proxy: session.proxy,
        peer: session.peer,
        audience: session.audience,
        created_at_ms: session.created_at.0,
        expires_at_ms: session.expires_at.0,
        claims: session.identity.claims,
        roles: session.identity.roles,
        client: session.client,
        generation: session.hold.generation(),
        away_until_ms: session.away_until.map_or(0, |until| until.0),
    }
}

pub(super) fn store_away(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}
