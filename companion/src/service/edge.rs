//! For proxies: one `Attach` stream for each worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshgate_proto::edge::v1::edge_server::Edge;
use meshgate_proto::edge::v1::{
    FromProxy, Hello, Login, Mode as ModeNumber, Pushed, Welcome, from_proxy, to_proxy,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::outbox::{self, Downward, Outbox, Unnamed};
use super::peer::Peer;
use super::rights::Caller;
use crate::domain::login::{Attempt, Logins};
use crate::domain::presence::{ProxyStream, StreamId, Word};
use crate::domain::push::Outcome;
use crate::domain::session::{Hold, HoldNumber, Mode, SessionId};
use crate::domain::sessions::Sessions;

/// The version of the contract that is spoken here.
const CONTRACT: u32 = 1;
/// A proxy says Hello at once; whoever connects and is silent is no proxy.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
const MAX_PROXY_NAME_BYTES: usize = 256;
/// A Hello names every live session of a worker, 26 bytes each: room for 640,000.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

#[derive(Clone)]
pub struct EdgeService(Arc<Shared>);

struct Shared {
    sessions: Arc<Sessions>,
    logins: Arc<Logins>,
    /// Names this replica to proxies.
    name: String,
    next_stream: AtomicU64,
    /// `true`: every stream is to end.
    stopping: watch::Receiver<bool>,
}

impl EdgeService {
    pub fn new(
        sessions: Arc<Sessions>,
        logins: Arc<Logins>,
        name: String,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let next_stream = AtomicU64::new(1);
        Self(Arc::new(Shared { sessions, logins, name, next_stream, stopping }))
    }
}

#[tonic::async_trait]
impl Edge for EdgeService {
    type AttachStream = Downward;

    async fn attach(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Downward>, Status> {
        let (unnamed, downward) = outbox::channel();
        let extensions = request.extensions();
        let address =
            extensions.get::<Peer>().map_or_else(|| "?".into(), |p| p.address.to_string());
        let peer = match extensions.get::<Caller>() {
            Some(Caller(name)) => format!("{address} ({name})"),
            None => address,
        };
        tokio::spawn(run(Arc::clone(&self.0), request.into_inner(), unnamed, peer));
        Ok(Response::new(downward))
    }
}

/// The life of one stream.
async fn run(shared: Arc<Shared>, mut up: Streaming<FromProxy>, unnamed: Unnamed, peer: String) {
    let hello = match tokio::time::timeout(HELLO_WITHIN, up.message()).await {
        Err(_) => Err(Status::deadline_exceeded("no Hello within ten seconds")),
        Ok(first) => first.and_then(read_hello),
    };
    let (hello, holds) = match hello {
        Ok(hello) => hello,
        Err(status) => {
            debug!(peer, reason = status.message(), "a stream ended before its Hello");
            return unnamed.cut(status);
        }
    };

    let id = StreamId(shared.next_stream.fetch_add(1, Ordering::Relaxed));
    let outbox = Arc::new(unnamed.named(id, hello));
    let stream: Arc<dyn ProxyStream> = Arc::clone(&outbox) as Arc<dyn ProxyStream>;
    info!(proxy = stream.proxy(), stream = id.0, sessions = holds.len(), peer, "proxy attached");
    shared.sessions.metrics().streams_opened.count();
    outbox.send(to_proxy::Kind::Welcome(Welcome {
        contract: CONTRACT,
        companion: shared.name.clone(),
    }));
    let why = match shared.sessions.open(&stream, holds).await {
        Ok(()) => {
            let why = listen(&shared, &mut up, &outbox, &stream).await;
            shared.sessions.close(id);
            why
        }
        Err(error) => {
            shared.sessions.close(id);
            Status::unavailable(error.to_string())
        }
    };
    info!(proxy = stream.proxy(), stream = id.0, reason = why.message(), "proxy detached");
    if outbox.was_cut() {
        shared.sessions.metrics().streams_cut.count();
    }
    outbox.cut(why);
}

/// Takes what comes up, until the stream ends; answers why it did.
async fn listen(
    shared: &Arc<Shared>,
    up: &mut Streaming<FromProxy>,
    outbox: &Outbox,
    stream: &Arc<dyn ProxyStream>,
) -> Status {
    let mut stopping = shared.stopping.clone();
    loop {
        let message = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => {
                return Status::unavailable("the companion is stopping: attach to another one");
            }
            () = outbox.closed() => return Status::cancelled("the stream is gone"),
            message = up.message() => message,
        };
        match message {
            Ok(Some(message)) => {
                if let Err(status) = take(shared, stream, message) {
                    return status;
                }
            }
            Ok(None) => return Status::ok("the proxy ended the stream"),
            Err(status) => return status,
        }
    }
}

/// Sets one message to work. Nothing here waits: what needs the store or a processor runs on its
/// own, and the answers find their way by the outbox.
fn take(
    shared: &Arc<Shared>,
    stream: &Arc<dyn ProxyStream>,
    message: FromProxy,
) -> Result<(), Status> {
    let (shared, stream) = (Arc::clone(shared), Arc::clone(stream));
    match message.kind {
        Some(from_proxy::Kind::Login(login)) => {
            if shared.logins.enter(&stream, attempt(login)) {
                drop(tokio::spawn(async move { shared.logins.work().await }));
            }
        }
        Some(from_proxy::Kind::Activate(activate)) => {
            let reference = activate.r#ref;
            match hold(&activate.session_id, activate.hold) {
                Some(hold) => drop(tokio::spawn(async move {
                    shared.sessions.activate(&stream, reference, hold).await;
                })),
                None => {
                    let refused = Some("a session id has 16 bytes");
                    stream.tell(Word::Activated { reference, refused });
                }
            }
        }
        Some(from_proxy::Kind::Ended(ended)) => {
            if let Some(hold) = hold(&ended.session_id, ended.hold) {
                let logout = ended.logout;
                drop(tokio::spawn(async move {
                    shared.sessions.ended(stream.id(), hold, logout).await;
                }));
            }
        }
        Some(from_proxy::Kind::Drained(_)) => shared.sessions.drained(stream.id()),
        Some(from_proxy::Kind::Pushed(pushed)) => {
            let (reference, outcome) = (pushed.r#ref, outcome(pushed));
            shared.sessions.pushed(stream.id(), reference, outcome);
        }
        Some(from_proxy::Kind::Hello(_)) => {
            return Err(Status::failed_precondition("a second Hello on one stream"));
        }
        // A newer proxy's message: the contract's version says that it can do without.
        None => debug!(proxy = stream.proxy(), "unknown message"),
    }
    Ok(())
}

fn outcome(pushed: Pushed) -> Outcome {
    let Pushed { delivered, gone, slow, refused, mut reason, .. } = pushed;
    reason.retain(|c| !c.is_control());
    Outcome { delivered, gone, slow, refused, reason, ..Outcome::default() }
}

fn attempt(login: Login) -> Attempt {
    Attempt {
        reference: login.r#ref,
        mode: match login.mode() {
            ModeNumber::Ticket => Some(Mode::Ticket),
            ModeNumber::Noise => Some(Mode::Noise),
            ModeNumber::Unspecified => None,
        },
        audience: login.audience,
        layout: login.layout,
        peer: login.peer,
        message: Zeroizing::new(login.message),
    }
}

fn hold(session: &[u8], number: u64) -> Option<Hold> {
    let session = SessionId::try_from(session).ok()?;
    Some(Hold { session, number: HoldNumber(number) })
}

fn read_hello(first: Option<FromProxy>) -> Result<(Hello, Vec<Hold>), Status> {
    let Some(FromProxy { kind: Some(from_proxy::Kind::Hello(mut hello)) }) = first else {
        return Err(Status::failed_precondition("the first message must be a Hello"));
    };
    if hello.contract != CONTRACT {
        return Err(Status::failed_precondition(format!(
            "the proxy speaks contract {}, this companion speaks {CONTRACT}: upgrade the older one",
            hello.contract
        )));
    }
    if hello.proxy.is_empty()
        || hello.proxy.len() > MAX_PROXY_NAME_BYTES
        || hello.proxy.chars().any(char::is_control)
    {
        return Err(Status::invalid_argument(format!(
            "`proxy` must be a name of 1 to {MAX_PROXY_NAME_BYTES} bytes"
        )));
    }
    // A proxy of before knows no holds, and holds none but those of its time.
    let numbers = std::mem::take(&mut hello.holds).into_iter().chain(std::iter::repeat(0));
    let holds = std::mem::take(&mut hello.sessions)
        .iter()
        .zip(numbers)
        .map(|(session, number)| hold(session, number))
        .collect::<Option<_>>()
        .ok_or_else(|| Status::invalid_argument("`sessions`: a session id has 16 bytes"))?;
    Ok((hello, holds))
}
