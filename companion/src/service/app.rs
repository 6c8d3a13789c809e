//! For services of the game: pushes, groups, who is there, what happens.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use meshgate_proto::app::v1::app_server::App;
use meshgate_proto::app::v1::{
    GetSessionRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, ListGroupsResponse, ListMembersRequest, ListMembersResponse,
    ListSessionsRequest, ListSessionsResponse, PlaceRequest, PlaceResponse, PushRequest,
    PushResponse, Session as SessionMessage, WatchRequest, WatchResponse,
};
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::push::MAX_BODY;
use crate::domain::reach::{Act, Grants, Reach};
use crate::domain::session::{Session, SessionId};
use crate::domain::sessions::Sessions;
use crate::store::StoreError;

mod groups;
mod lookup;
mod place;
mod push;
mod watch;

/// The longest push, with room for its names and claims.
pub const MAX_REQUEST_BYTES: usize = MAX_BODY + 64 * 1024;

#[derive(Clone)]
pub struct AppService {
    sessions: Arc<Sessions>,
    /// `true`: every stream is to end.
    stopping: Stopping,
    /// Places of those who watch.
    subscribers: Arc<Semaphore>,
}

type Stopping = tokio::sync::watch::Receiver<bool>;

impl AppService {
    pub fn new(sessions: Arc<Sessions>, stopping: Stopping) -> Self {
        Self { sessions, stopping, subscribers: Arc::new(Semaphore::new(watch::SUBSCRIBERS)) }
    }

    fn count<T>(&self, result: &Result<T, Status>) {
        self.sessions.metrics().app_calls.count(if result.is_ok() { "ok" } else { "failed" });
    }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl App for AppService {
    type PushStreamStream = Answers<PushResponse>;
    type WatchStream = Answers<WatchResponse>;

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let begun = Instant::now();
        let reach = reach(&request, Act::Push);
        let answer =
            async { push::send(&self.sessions, &reach?, request.into_inner()).await }.await;
        self.count(&answer);
        let outcome = answer?.outcome().await;
        self.sessions.metrics().push_time.record(begun.elapsed());
        Ok(Response::new(push::answer(&self.sessions, outcome)))
    }

    async fn push_stream(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        let reach = reach(&request, Act::Push)?;
        let (sessions, stopping) = (Arc::clone(&self.sessions), self.stopping.clone());
        let answers = push::stream(sessions, reach, request.into_inner(), stopping);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn join_group(
        &self,
        request: Request<JoinGroupRequest>,
    ) -> Result<Response<JoinGroupResponse>, Status> {
        let reach = reach(&request, Act::Groups);
        let answer =
            async { groups::join_group(&self.sessions, &reach?, request.into_inner()).await }.await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn leave_group(
        &self,
        request: Request<LeaveGroupRequest>,
    ) -> Result<Response<LeaveGroupResponse>, Status> {
        let reach = reach(&request, Act::Groups);
        let answer =
            async { groups::leave_group(&self.sessions, &reach?, request.into_inner()).await }
                .await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let reach = reach(&request, Act::Groups);
        let answer =
            async { groups::list_members(&self.sessions, &reach?, request.into_inner()).await }
                .await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let reach = reach(&request, Act::Groups);
        let answer =
            async { groups::list_groups(&self.sessions, &reach?, request.into_inner()).await }
                .await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn place(
        &self,
        request: Request<PlaceRequest>,
    ) -> Result<Response<PlaceResponse>, Status> {
        let reach = reach(&request, Act::Groups);
        let answer =
            async { place::place(&self.sessions, &reach?, request.into_inner()).await }.await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<SessionMessage>, Status> {
        let reach = reach(&request, Act::Lookup);
        let answer =
            async { lookup::get(&self.sessions, &reach?, request.into_inner()).await }.await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let reach = reach(&request, Act::Lookup);
        let answer =
            async { lookup::list(&self.sessions, &reach?, request.into_inner()).await }.await;
        self.count(&answer);
        answer.map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let reach = reach(&request, Act::Events)?;
        let place = Arc::clone(&self.subscribers).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("as many services watch as may: share one subscription")
        })?;
        let (sessions, stopping) = (Arc::clone(&self.sessions), self.stopping.clone());
        let answers = watch::watch(sessions, reach, request.into_inner(), stopping, place);
        self.count(&answers.as_ref().map(|_| ()).map_err(Status::clone));
        Ok(Response::new(Box::pin(answers?)))
    }
}

/// What the caller may reach by this act.
fn reach<T>(request: &Request<T>, act: Act) -> Result<Reach, Status> {
    let grants = request.extensions().get::<Grants>();
    grants.and_then(|grants| grants.reach(act)).ok_or_else(|| {
        let problem = format!("this caller may not do that: `may={}` is not granted", act.name());
        Status::permission_denied(format!("{problem} in `app.grants`"))
    })
}

fn audience_denied(audience: &str) -> Status {
    Status::permission_denied(format!(
        "this caller may not reach sessions of the audience {audience:?}: see `app.grants`"
    ))
}

/// The audience that a caller names, if he does and may.
fn audience(reach: &Reach, named: String) -> Result<Option<String>, Status> {
    if named.is_empty() {
        return Ok(None);
    }
    if !reach.covers(&named) {
        return Err(audience_denied(&named));
    }
    Ok(Some(named))
}

fn session_id(bytes: &[u8]) -> Result<SessionId, Status> {
    SessionId::try_from(bytes)
        .map_err(|_| Status::invalid_argument("`session_id` must have 16 bytes"))
}

fn store_away(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}

fn message(session: Session) -> SessionMessage {
    SessionMessage {
        session_id: session.id.as_bytes().to_vec(),
        user: session.identity.user,
        audience: session.audience,
        proxy: session.proxy,
        peer: session.peer,
        created_at_ms: session.created_at.0,
        expires_at_ms: session.expires_at.0,
        claims: session.identity.claims,
        roles: session.identity.roles,
        client: session.client,
        away_until_ms: session.away_until.map_or(0, |until| until.0),
    }
}
