//! A companion on a free port of this process, and a proxy's side of the contract.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use ::redb::StorageBackend;
use ::redb::backends::InMemoryBackend;
use meshgate_companion::domain::cookie::Cookies;
use meshgate_companion::domain::handshake::{NOISE, NOISE_RESUME, NoiseKeys, prologue};
use meshgate_companion::domain::jwt::JwtKeys;
use meshgate_companion::domain::key::{Key, Kind};
use meshgate_companion::domain::login::{Keys, Logins, Policy};
use meshgate_companion::domain::resume::ResumeKeys;
use meshgate_companion::domain::sessions::Sessions;
use meshgate_companion::domain::ticket::{Issuer, Payload, TicketKeys};
use meshgate_companion::domain::time::{Clock, ManualClock, UnixMillis};
use meshgate_companion::domain::verifier::Verifier;
use meshgate_companion::service::rights::{Gate, Rights, Side};
use meshgate_companion::service::server::{Companion, Endpoint, serve};
use meshgate_companion::store::redb::RedbStore;
use meshgate_proto::admin::v1::admin_client::AdminClient;
use meshgate_proto::admin::v1::{KickSessionsRequest, kick_sessions_request};
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::edge::v1::edge_client::EdgeClient;
use meshgate_proto::edge::v1::{
    Activate, Activated, Ended, FromProxy, Hello, Kick, Login, LoginAccepted, LoginRefused, Mode,
    Push, Pushed, Refusal, ToProxy, from_proxy, to_proxy,
};
use meshgate_proto::session::v1::{
    LoginReply, LoginRequest, ResumeToken, login_request::Credential,
};
use prost::Message as _;
use snow::{Builder, HandshakeState};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub mod process;
pub mod redis;

pub const AUDIENCE: &str = "game";
pub const LAYOUT: &str = "happy";
pub const START: UnixMillis = UnixMillis(1_800_000_000_000);
/// Nothing here takes long; a test that hangs should say where.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// The keys of issuer and companion.
pub struct KeyRing {
    pub noise: Key,
    pub ticket: Key,
    pub jwk: String,
    pub issuers: Vec<String>,
    pub verifier: Option<Arc<Verifier>>,
}

impl KeyRing {
    pub fn new() -> Self {
        let jwk = r#"{"kty":"oct","alg":"HS256","kid":"j1",
            "k":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}"#;
        Self {
            noise: Key::generate(Kind::Noise, Some("n1".into())).unwrap(),
            ticket: Key::generate(Kind::TicketEd25519, Some("t1".into())).unwrap(),
            jwk: jwk.into(),
            issuers: vec!["https://login.example".into()],
            verifier: None,
        }
    }

    fn companion(&self) -> Keys {
        Keys {
            noise: Some(NoiseKeys::new([&self.noise]).unwrap()),
            tickets: TicketKeys::new([&self
                .ticket
                .public()
                .unwrap_or_else(|| self.ticket.clone())])
            .unwrap(),
            jwt: JwtKeys::new([self.jwk.as_bytes()], self.issuers.clone()).unwrap(),
            resume: ResumeKeys::derive([&self.noise]),
            verifier: self.verifier.clone(),
            fetched: None,
            cookies: Some(Cookies::derive([&self.noise]).unwrap()),
        }
    }

    /// A ticket for `user` that is good for a minute; `change` makes it another one.
    pub fn ticket(&self, user: &str, change: impl FnOnce(&mut Payload)) -> String {
        let issuer = Issuer::new(&self.ticket).unwrap();
        let mut payload = payload(user);
        change(&mut payload);
        issuer.issue(payload)
    }
}

pub fn payload(user: &str) -> Payload {
    let mut jti = [0; 8];
    getrandom::fill(&mut jti).unwrap();
    Payload {
        kid: String::new(),
        alg: meshgate_companion::domain::ticket::Algorithm::EdDsa,
        sub: user.into(),
        aud: AUDIENCE.into(),
        iat: START.seconds(),
        nbf: START.seconds(),
        exp: START.seconds() + 60,
        jti: format!("{jti:?}"),
        roles: vec!["player".into()],
        claims: [("zone".into(), "7".into())].into(),
        once: false,
    }
}

/// The ticket with another signature.
pub fn forge(ticket: &str) -> String {
    let (body, signature) = ticket.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{body}.{first}{}", &signature[1..])
}

/// A companion that serves until it is stopped.
pub struct Server {
    pub address: String,
    pub admin_address: String,
    pub app_address: String,
    /// Of the app service; to be reloaded.
    pub app_gate: Gate,
    pub keys: Arc<KeyRing>,
    pub clock: Arc<ManualClock>,
    pub sessions: Arc<Sessions>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        let store = RedbStore::with_backend(InMemoryBackend::new()).unwrap();
        Self::with(store, Arc::new(KeyRing::new()), Policy::default()).await
    }

    pub async fn on_file(path: &Path, keys: Arc<KeyRing>) -> Self {
        Self::with(RedbStore::open(path).unwrap(), keys, Policy::default()).await
    }

    pub async fn with(store: RedbStore, keys: Arc<KeyRing>, policy: Policy) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let sessions =
            Arc::new(Sessions::new(Arc::new(store), Arc::clone(&clock) as Arc<dyn Clock>));
        let logins = Arc::new(Logins::new(Arc::clone(&sessions), keys.companion(), policy));
        let (edge, admin, app) = (listen().await, listen().await, listen().await);
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (edge_address, admin_address) = (address(&edge), address(&admin));
        let app_address = address(&app);
        let endpoint = |side, listener| {
            let gate = Gate::new(side, Rights::default(), Arc::clone(&sessions));
            Endpoint { listener, tls: None, gate }
        };
        let app = endpoint(Side::App, app);
        let app_gate = app.gate.clone();
        let companion = Companion {
            app: Some(app),
            edge: endpoint(Side::Edge, edge),
            admin: endpoint(Side::Admin, admin),
            sessions: Arc::clone(&sessions),
            logins,
            name: "test".into(),
            metrics: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            serve(companion, shutdown).await.unwrap();
        });
        let (address, stop) = (edge_address, Some(stop));
        Self { address, admin_address, app_address, app_gate, keys, clock, sessions, stop, task }
    }

    pub async fn proxy(&self, name: &str) -> Proxy {
        Proxy::attach(&self.address, name, vec![]).await
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.address.clone()).unwrap().connect().await.unwrap()
    }

    pub async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::connect(self.admin_address.clone()).await.unwrap()
    }

    pub async fn app(&self) -> AppClient<Channel> {
        AppClient::connect(self.app_address.clone()).await.unwrap()
    }

    /// Stops and waits until the store is closed.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        soon(&mut self.task).await.unwrap();
        let sessions = Arc::downgrade(&self.sessions);
        drop(self);
        // The last tasks let go of it.
        soon(async {
            while sessions.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// The latest hold on each session that any proxy here got, as its filter would know it.
fn holds() -> MutexGuard<'static, HashMap<Vec<u8>, u64>> {
    static HOLDS: LazyLock<Mutex<HashMap<Vec<u8>, u64>>> = LazyLock::new(Mutex::default);
    HOLDS.lock().unwrap()
}

/// A proxy of one name has one worker here.
pub fn worker(proxy: &str) -> u64 {
    proxy.bytes().fold(1, |number, byte| number << 8 | u64::from(byte))
}

/// One worker of a proxy.
pub struct Proxy {
    up: mpsc::Sender<FromProxy>,
    down: Streaming<ToProxy>,
    next_ref: u64,
    /// The latest of each session on this worker.
    holds: HashMap<Vec<u8>, u64>,
}

impl Proxy {
    pub async fn attach(address: &str, name: &str, sessions: Vec<Vec<u8>>) -> Self {
        let numbers = {
            let known = holds();
            sessions.iter().map(|id| known.get(id).copied().unwrap_or_default()).collect()
        };
        let hello = Hello {
            contract: 1,
            proxy: name.into(),
            sessions,
            holds: numbers,
            worker: worker(name),
            drains: false,
            takes_pushes: true,
            takes_cookies: true,
            asks_to_leave: true,
        };
        let mut proxy = Self::open(address).await;
        proxy.holds = hello.sessions.iter().cloned().zip(hello.holds.iter().copied()).collect();
        proxy.send(from_proxy::Kind::Hello(hello)).await;
        match proxy.next().await {
            to_proxy::Kind::Welcome(welcome) => assert_eq!(welcome.contract, 1),
            other => panic!("no welcome but {other:?}"),
        }
        proxy
    }

    /// A stream without a Hello.
    pub async fn open(address: &str) -> Self {
        let endpoint = Channel::from_shared(address.to_owned()).unwrap();
        Self::on(endpoint.connect().await.unwrap()).await.unwrap()
    }

    /// The same, on a connection of one's own, if it may.
    pub async fn on(channel: Channel) -> Result<Self, Status> {
        let mut client = EdgeClient::new(channel);
        let (up, queue) = mpsc::channel(64);
        let down = soon(client.attach(ReceiverStream::new(queue))).await?.into_inner();
        Ok(Self { up, down, next_ref: 1, holds: HashMap::new() })
    }

    pub async fn send(&self, kind: from_proxy::Kind) {
        soon(self.up.send(FromProxy { kind: Some(kind) })).await.unwrap();
    }

    pub async fn next(&mut self) -> to_proxy::Kind {
        soon(self.down.message()).await.unwrap().expect("a message").kind.unwrap()
    }

    /// The status that the companion ends the stream with.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon(self.down.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the end"),
                Err(status) => return status,
            }
        }
    }

    pub async fn login(
        &mut self,
        mode: Mode,
        message: impl Into<Vec<u8>>,
    ) -> Result<LoginAccepted, LoginRefused> {
        self.login_with(mode, message, |_| ()).await
    }

    /// A login of which the companion's end may be the only answer: `None`.
    pub async fn try_login(
        &mut self,
        mode: Mode,
        message: Vec<u8>,
    ) -> Option<Result<LoginAccepted, LoginRefused>> {
        let (audience, layout) = (AUDIENCE.into(), LAYOUT.into());
        let (mode, peer) = (mode.into(), "203.0.113.7:40112".into());
        let login = Login { r#ref: self.next_ref, mode, audience, layout, message, peer };
        self.next_ref += 1;
        let kind = Some(from_proxy::Kind::Login(login));
        soon(self.up.send(FromProxy { kind })).await.ok()?;
        match soon(self.down.message()).await.ok()??.kind? {
            to_proxy::Kind::LoginAccepted(accepted) => Some(Ok(accepted)),
            to_proxy::Kind::LoginRefused(refused) => Some(Err(refused)),
            other => panic!("neither accepted nor refused but {other:?}"),
        }
    }

    pub async fn login_with(
        &mut self,
        mode: Mode,
        message: impl Into<Vec<u8>>,
        change: impl FnOnce(&mut Login),
    ) -> Result<LoginAccepted, LoginRefused> {
        let reference = self.next_ref;
        self.next_ref += 1;
        let mut login = Login {
            r#ref: reference,
            mode: mode.into(),
            audience: AUDIENCE.into(),
            layout: LAYOUT.into(),
            message: message.into(),
            peer: "203.0.113.7:40112".into(),
        };
        change(&mut login);
        self.send(from_proxy::Kind::Login(login)).await;
        match self.next().await {
            to_proxy::Kind::LoginAccepted(accepted) => {
                assert_eq!(accepted.r#ref, reference);
                holds().insert(accepted.session_id.clone(), accepted.hold);
                self.holds.insert(accepted.session_id.clone(), accepted.hold);
                Ok(accepted)
            }
            to_proxy::Kind::LoginRefused(refused) => {
                assert_eq!(refused.r#ref, reference);
                Err(refused)
            }
            other => panic!("neither accepted nor refused but {other:?}"),
        }
    }

    pub async fn activate(&mut self, session_id: &[u8]) -> Activated {
        let hold = self.holds.get(session_id).copied().unwrap_or_default();
        self.activate_hold(session_id, hold).await
    }

    pub async fn activate_hold(&mut self, session_id: &[u8], hold: u64) -> Activated {
        let reference = self.next_ref;
        self.next_ref += 1;
        let activate = Activate { r#ref: reference, session_id: session_id.to_vec(), hold };
        self.send(from_proxy::Kind::Activate(activate)).await;
        match self.next().await {
            to_proxy::Kind::Activated(activated) => {
                assert_eq!(activated.r#ref, reference);
                activated
            }
            other => panic!("not activated but {other:?}"),
        }
    }

    /// Activates a session that another connection of this worker holds, which is told to go; answers
    /// the hold of that one.
    pub async fn activate_and_hear_kick(&mut self, session_id: &[u8]) -> u64 {
        let hold = self.holds.get(session_id).copied().unwrap_or_default();
        assert_eq!(self.activate_hold(session_id, hold).await.refused, "");
        self.kicked().await.hold
    }

    pub async fn ended(&self, session_id: &[u8]) {
        let hold = self.holds.get(session_id).copied().unwrap_or_default();
        self.ended_hold(session_id, hold).await;
    }

    pub async fn ended_hold(&self, session_id: &[u8], hold: u64) {
        let ended = Ended { session_id: session_id.to_vec(), hold, logout: false };
        self.send(from_proxy::Kind::Ended(ended)).await;
    }

    pub async fn logged_out(&self, session_id: &[u8]) {
        let hold = self.holds.get(session_id).copied().unwrap_or_default();
        let ended = Ended { session_id: session_id.to_vec(), hold, logout: true };
        self.send(from_proxy::Kind::Ended(ended)).await;
    }

    pub async fn kicked(&mut self) -> Kick {
        match self.next().await {
            to_proxy::Kind::Kick(kick) => kick,
            other => panic!("no kick but {other:?}"),
        }
    }

    /// The next push; not answered yet.
    pub async fn push(&mut self) -> Push {
        match self.next().await {
            to_proxy::Kind::Push(push) => push,
            other => panic!("no push but {other:?}"),
        }
    }

    /// Says that a push reached all of its sessions.
    pub async fn delivered(&self, push: &Push) {
        let delivered = u32::try_from(push.sessions.len() / 16).unwrap();
        let pushed = Pushed { r#ref: push.r#ref, delivered, ..Pushed::default() };
        self.send(from_proxy::Kind::Pushed(pushed)).await;
    }

    /// What was said before the answer to one more login: nothing, or one kick.
    pub async fn heard_at_most_a_kick(&mut self) -> Option<Kick> {
        let message = b"garbage".to_vec();
        let login = Login { mode: Mode::Ticket.into(), message, ..Login::default() };
        self.send(from_proxy::Kind::Login(login)).await;
        let mut kick = None;
        loop {
            match self.next().await {
                to_proxy::Kind::Kick(said) if kick.is_none() => kick = Some(said),
                to_proxy::Kind::LoginRefused(_) => return kick,
                other => panic!("neither one kick nor a refusal but {other:?}"),
            }
        }
    }

    /// Asserts that nothing was said before the answer to one more login.
    pub async fn heard_nothing(&mut self) {
        let refused = self.login(Mode::Ticket, "garbage").await.unwrap_err();
        assert_eq!(refused.refusal(), Refusal::Malformed);
    }
}

pub fn kick_request(session_id: &[u8]) -> KickSessionsRequest {
    let whom = kick_sessions_request::Whom::SessionId(session_id.to_vec());
    KickSessionsRequest { whom: Some(whom), reason: "out".into(), code: 0 }
}

/// A disk in memory that can be broken.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    inner: Arc<InMemoryBackend>,
    pub broken: Arc<AtomicBool>,
}

impl Disk {
    fn work(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.work()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.work()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.work()?;
        self.inner.write(offset, data)
    }
}

/// A client's side of a Noise login, written against the text of the protocol.
pub struct NoiseClient {
    state: HandshakeState,
    kind: u8,
    pub message: Vec<u8>,
}

impl NoiseClient {
    pub fn new(key: &Key, credential: Credential) -> Self {
        let request = LoginRequest { credential: Some(credential), client: "test/1".into() };
        Self::with(key, LAYOUT, AUDIENCE, &request.encode_to_vec())
    }

    pub fn with(key: &Key, layout: &str, audience: &str, payload: &[u8]) -> Self {
        let bound = prologue(layout, audience, key.id().as_bytes()).unwrap();
        Self::start(key, 1, &bound, None, payload)
    }

    /// Comes back with a token.
    pub fn resuming(key: &Key, layout: &str, audience: &str, token: &ResumeToken) -> Self {
        let mut bound = prologue(layout, audience, key.id().as_bytes()).unwrap();
        bound.push(u8::try_from(token.id.len()).unwrap());
        bound.extend_from_slice(&token.id);
        let request = LoginRequest { credential: None, client: "test/2".into() };
        Self::start(key, 2, &bound, Some(token), &request.encode_to_vec())
    }

    fn start(
        key: &Key,
        kind: u8,
        bound: &[u8],
        token: Option<&ResumeToken>,
        payload: &[u8],
    ) -> Self {
        let public = key.public().unwrap();
        let pattern = if token.is_some() { NOISE_RESUME } else { NOISE };
        let secret = token.map(|token| <[u8; 32]>::try_from(token.secret.as_slice()).unwrap());
        let mut builder = Builder::new(pattern.parse().unwrap())
            .remote_public_key(public.bytes().expose())
            .unwrap()
            .prologue(bound)
            .unwrap();
        if let Some(secret) = &secret {
            builder = builder.psk(0, secret).unwrap();
        }
        let mut state = builder.build_initiator().unwrap();
        let mut noise = vec![0; payload.len() + 48];
        let length = state.write_message(payload, &mut noise).unwrap();
        noise.truncate(length);
        let mut message = vec![1, kind, u8::try_from(key.id().len()).unwrap()];
        message.extend_from_slice(key.id().as_bytes());
        if let Some(token) = token {
            message.push(u8::try_from(token.id.len()).unwrap());
            message.extend_from_slice(&token.id);
        }
        message.extend_from_slice(&noise);
        Self { state, kind, message }
    }

    /// The reply, and the keys of both directions.
    pub fn finish(mut self, reply: &[u8]) -> (LoginReply, Vec<u8>, Vec<u8>) {
        assert_eq!(reply[..2], [1, self.kind]);
        let mut payload = vec![0; reply.len()];
        let length = self.state.read_message(&reply[2..], &mut payload).unwrap();
        let reply = LoginReply::decode(&payload[..length]).unwrap();
        let (up, down) = self.state.dangerously_get_raw_split();
        (reply, up.to_vec(), down.to_vec())
    }
}
