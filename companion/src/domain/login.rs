//! A login, from the client's bytes to a session or a refusal. [`shown`] is about credentials,
//! [`resume`] about those who come back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meshgate_proto::session::v1::{LoginRequest, login_request::Credential};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::bucket::{Bucket, Buckets, Origin, Rate};
use super::cookie::{Brought, Cookies, Demand, Purpose};
use super::credential::{CredentialId, Verified};
use super::handshake::{MAX_LOGIN_MESSAGE_BYTES, NoiseKeys};
use super::jwt::JwtKeys;
use super::jwt::fetched::FetchedKeys;
use super::presence::{Accepted, ProxyStream, Word};
use super::ration::Ration;
use super::refusal::{Refused, Why};
use super::resume::{ResumeKeys, Seed};
use super::same_user::SameUser;
use super::session::{HoldNumber, Mode, Session, SessionId};
use super::sessions::{Away, Sessions};
use super::ticket::TicketKeys;
use super::time::UnixMillis;
use super::verifier::Verifier;
use crate::live::Live;
use resume::Resume;
use shown::Shown;

mod resume;
mod shown;

/// The contract allows this much free text of a client about itself.
const MAX_CLIENT_BYTES: usize = 128;
/// The prologue counts a layout's name in one byte, an audience in two; nobody needs as much.
const MAX_NAME_BYTES: usize = 255;
/// "[2001:db8:…]:65535" has 47.
const MAX_PEER_BYTES: usize = 64;

/// When a credential works a single time. A ticket that says `once` always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SingleUse {
    /// In Noise logins alone: clients of the ticket mode come back with the ticket that they have.
    #[default]
    Noise,
    Always,
    Never,
}

#[derive(Clone, Debug)]
pub struct Policy {
    /// How long a session lives at most.
    pub lifetime: Duration,
    pub single_use: SingleUse,
    /// The audiences that this companion serves; empty: whichever the credential is for.
    pub audiences: Vec<String>,
    /// Logins under way at once, over all streams; beyond, the one that has waited longest for
    /// its turn is told to try again.
    pub max_under_way: usize,
    /// How many sessions a user may have at a time.
    pub same_user: SameUser,
    /// Whether clients may go on with their session over another connection.
    pub resume: bool,
    /// What is done about sessions whose connection is gone.
    pub away: Away,
    /// How often one client address may try; `None`: as often as it likes.
    pub address_rate: Option<Rate>,
    /// The same for all together.
    pub total_rate: Option<Rate>,
    /// Who is sent away for a cookie before anything else.
    pub cookie: Demand,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(12 * 3600),
            single_use: SingleUse::default(),
            audiences: Vec::new(),
            // At a few thousand logins a second these wait for under a second, which clients
            // and the filter's deadline bear.
            max_under_way: 4096,
            same_user: SameUser::default(),
            resume: true,
            away: Away::default(),
            address_rate: None,
            total_rate: None,
            cookie: Demand::default(),
        }
    }
}

/// A login as a proxy hands it on.
pub struct Attempt {
    /// Ties the answer to the question, on its stream.
    pub reference: u64,
    pub mode: Option<Mode>,
    pub audience: String,
    pub layout: String,
    pub peer: String,
    /// The login frame's body, as the client sent it.
    pub message: Zeroizing<Vec<u8>>,
}

/// Everything that logins are checked against.
#[derive(Default)]
pub struct Keys {
    pub noise: Option<NoiseKeys>,
    pub tickets: TicketKeys,
    pub jwt: JwtKeys,
    /// An issuer's keys that lie at a URL.
    pub fetched: Option<Arc<FetchedKeys>>,
    pub resume: ResumeKeys,
    /// `None`: no client is asked for a cookie.
    pub cookies: Option<Cookies>,
    /// The login server that is asked about other credentials.
    pub verifier: Option<Arc<Verifier>>,
}

/// What logins are judged by; a reload replaces it.
struct Rules {
    keys: Keys,
    policy: Policy,
}

pub struct Logins {
    sessions: Arc<Sessions>,
    rules: Live<Rules>,
    /// As at the start, whatever a reload says.
    max_under_way: usize,
    under_way: Arc<Semaphore>,
    /// Those of the logins under way that nobody works on yet, oldest first.
    waiting: Mutex<VecDeque<Waiting>>,
    taken: Mutex<Taken>,
    stopping: AtomicBool,
    /// Of lines about refused logins.
    ration: Ration,
}

/// A login that waits for a processor.
struct Waiting {
    stream: Arc<dyn ProxyStream>,
    attempt: Attempt,
    admittance: Admittance,
    arrived: Instant,
}

/// What is left of the rates.
#[derive(Default)]
struct Taken {
    by_address: Buckets,
    in_all: Bucket,
    /// Of those who came without a cookie.
    without_cookie: Bucket,
}

/// A login that has waited for so long is not worked on: proxies wait for five seconds.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// The right to work on a login.
struct Admittance(#[expect(dead_code, reason = "counts while it lives")] OwnedSemaphorePermit);

impl Logins {
    pub fn new(sessions: Arc<Sessions>, keys: Keys, policy: Policy) -> Self {
        let under_way = Arc::new(Semaphore::new(policy.max_under_way));
        let (stopping, ration) = (AtomicBool::new(false), Ration::default());
        let max_under_way = policy.max_under_way;
        sessions.set_same_user(policy.same_user);
        sessions.set_away(policy.away);
        let rules = Live::new(Rules { keys, policy });
        Self {
            sessions,
            rules,
            max_under_way,
            under_way,
            waiting: Mutex::default(),
            taken: Mutex::default(),
            stopping,
            ration,
        }
    }

    /// Judges logins by these from now on. How many may be under way stays as it is.
    pub fn reload(&self, keys: Keys, policy: Policy) {
        self.sessions.set_same_user(policy.same_user);
        self.sessions.set_away(policy.away);
        self.rules.set(Rules { keys, policy });
    }

    /// Logins that are being worked on.
    pub fn under_way(&self) -> usize {
        self.max_under_way.saturating_sub(self.under_way.available_permits())
    }

    /// The login server that is asked, if there is one.
    pub fn verifier(&self) -> Option<Arc<Verifier>> {
        self.rules.get().keys.verifier.clone()
    }

    /// The keys that are fetched from a URL, if there are any.
    pub fn fetched(&self) -> Option<Arc<FetchedKeys>> {
        self.rules.get().keys.fetched.clone()
    }

    /// From now on every login is told to try again (at another replica, or later).
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits until no login is under way.
    pub async fn finished(&self) {
        let all = u32::try_from(self.max_under_way).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.under_way.acquire_many(all).await;
    }

    /// Queues a login, or refuses it at once. `true`: call [`Logins::work`] once more, on a task
    /// of its own.
    pub fn enter(&self, stream: &Arc<dyn ProxyStream>, mut attempt: Attempt) -> bool {
        let admittance = self
            .open()
            .map_err(Refused::from)
            .and_then(|()| self.cookie(stream, &mut attempt))
            .and_then(|()| Ok(self.may_come(&attempt.peer)?))
            .and_then(|()| Ok(self.room()?));
        match admittance {
            Ok(admittance) => {
                let (stream, arrived) = (Arc::clone(stream), Instant::now());
                lock(&self.waiting).push_back(Waiting { stream, attempt, admittance, arrived });
                true
            }
            Err(refused) => {
                self.refuse(stream, &attempt, refused);
                false
            }
        }
    }

    /// Whether logins are taken.
    fn open(&self) -> Result<(), Why> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Why::Stopping);
        }
        if !self.sessions.store().healthy() {
            return Err(Why::StoreAway);
        }
        Ok(())
    }

    /// Takes the cookie off the message. Who brings none that is good is sent away for one, if that
    /// is the rule; it costs one hash.
    fn cookie(&self, stream: &Arc<dyn ProxyStream>, attempt: &mut Attempt) -> Result<(), Refused> {
        fits(attempt)?;
        let rules = self.rules.get();
        let now = self.sessions.clock().now();
        let purpose = |message| Purpose {
            peer: &attempt.peer,
            mode: attempt.mode,
            layout: &attempt.layout,
            audience: &attempt.audience,
            message,
        };
        let Brought { cookie, message } = Brought::parse(&attempt.message).ok_or(Why::Malformed)?;
        let good = |cookies: &Cookies| {
            cookie.is_some_and(|cookie| cookies.is_good(cookie, purpose(message), now))
        };
        let demanded = match (&rules.keys.cookies, rules.policy.cookie) {
            (_, Demand::Never) | (None, _) => None,
            (Some(cookies), _) if good(cookies) => None,
            (Some(cookies), Demand::Always) => Some(cookies),
            (Some(cookies), Demand::Above(rate)) => {
                Some(cookies).filter(|_| !lock(&self.taken).without_cookie.take(rate, now))
            }
        };
        if let Some(cookies) = demanded.filter(|_| stream.takes_cookies()) {
            let text = Some(cookies.make(purpose(message), now).into_boxed_str());
            return Err(Refused { why: Why::CookieAsked, text });
        }
        if cookie.is_some() {
            attempt.message = Zeroizing::new(message.to_vec());
        }
        Ok(())
    }

    /// Whether this client's turn is now.
    fn may_come(&self, peer: &str) -> Result<(), Why> {
        let rules = self.rules.get();
        let Policy { address_rate, total_rate, .. } = rules.policy;
        if address_rate.is_none() && total_rate.is_none() {
            return Ok(());
        }
        let now = self.sessions.clock().now();
        let mut taken = lock(&self.taken);
        // The client's own first: what it is refused costs the others nothing.
        if address_rate.is_some_and(|rate| !taken.by_address.take(Origin::of(peer), rate, now)) {
            return Err(Why::AddressTooFast);
        }
        if total_rate.is_some_and(|rate| !taken.in_all.take(rate, now)) {
            return Err(Why::AllTooFast);
        }
        Ok(())
    }

    /// Room for one more login: where there is none, the one that has waited longest makes it.
    fn room(&self) -> Result<Admittance, Why> {
        if let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() {
            return Ok(Admittance(permit));
        }
        let oldest = lock(&self.waiting).pop_front();
        // None: all are being worked on, or wait for the store.
        let Waiting { stream, attempt, admittance, .. } = oldest.ok_or(Why::TooMany)?;
        self.refuse(&stream, &attempt, Why::Shed.into());
        Ok(admittance)
    }

    /// Works on the login that has waited longest, if one waits, and answers its stream.
    pub async fn work(&self) {
        let next = lock(&self.waiting).pop_front();
        let Some(Waiting { stream, attempt, admittance, arrived }) = next else { return };
        self.login(&stream, attempt, admittance, arrived).await;
    }

    /// Answers the stream, one way or the other.
    async fn login(
        &self,
        stream: &Arc<dyn ProxyStream>,
        attempt: Attempt,
        _: Admittance,
        arrived: Instant,
    ) {
        if arrived.elapsed() > STALE_AFTER {
            return self.refuse(stream, &attempt, Why::Shed.into());
        }
        let (rules, sessions) = (self.rules.get(), &self.sessions);
        let checked = match Resume::parse(&attempt) {
            None => rules.check(sessions, stream, &attempt).await,
            Some(Err(why)) => Err(why.into()),
            Some(Ok(resume)) => {
                let checked = rules.check_resume(sessions, stream, &attempt, resume).await;
                checked.map(|accepted| (None, accepted)).map_err(Refused::from)
            }
        };
        let result = match checked {
            Ok((credential, accepted)) => {
                let (id, user) = (accepted.session.id, accepted.session.identity.user.clone());
                let result = if accepted.pends() {
                    sessions.pend(stream, credential, accepted).await
                } else {
                    sessions.join(stream, credential, accepted).await
                };
                result.map_err(Refused::from).inspect(|()| {
                    debug!(session = %id, user, peer = attempt.peer, "login accepted");
                })
            }
            Err(refused) => Err(refused),
        };
        self.sessions.metrics().login_time.record(arrived.elapsed());
        match result {
            Ok(()) => self.count(&attempt, "accepted"),
            Err(refused) => self.refuse(stream, &attempt, refused),
        }
    }

    fn count(&self, attempt: &Attempt, result: &str) {
        let metrics = self.sessions.metrics();
        match attempt.mode {
            Some(_) if Resume::parse(attempt).is_some() => metrics.resumes.count(result),
            Some(Mode::Ticket) => metrics.ticket_logins.count(result),
            Some(Mode::Noise) => metrics.noise_logins.count(result),
            None => metrics.other_logins.count(result),
        }
    }

    /// Says no, and writes down why, as far as the client's ration of log lines goes.
    fn refuse(&self, stream: &Arc<dyn ProxyStream>, attempt: &Attempt, refused: Refused) {
        let (reference, why) = (attempt.reference, refused.why);
        self.count(attempt, why.name());
        // What a proxy calls a peer is not more trusted than the peer.
        let peer = attempt.peer.as_str();
        let peer = if peer.len() > MAX_PEER_BYTES { "(too long)" } else { peer };
        if why == Why::CookieAsked {
            debug!(peer, "a cookie is asked for");
        } else if let Some(held_back) = self.ration.line(peer, self.sessions.clock().now()) {
            info!(%why, peer, proxy = stream.proxy(), held_back, "login refused");
        } else {
            self.sessions.metrics().log_lines_held_back.count();
        }
        stream.tell(Word::Refused { reference, refused });
    }
}

impl Rules {
    /// Everything that needs no store: handshake, credential, times, limits.
    async fn check(
        &self,
        sessions: &Sessions,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
    ) -> Result<(Option<CredentialId>, Accepted), Refused> {
        fits(attempt)?;
        if !self.policy.audiences.is_empty() && !self.policy.audiences.contains(&attempt.audience) {
            return Err(Why::AudienceNotServed.into());
        }
        match attempt.mode {
            Some(Mode::Ticket) => self.check_ticket(sessions, stream, attempt).await,
            Some(Mode::Noise) => self.check_noise(sessions, stream, attempt).await,
            None => Err(Why::ModeNotOffered.into()),
        }
    }

    async fn check_ticket(
        &self,
        sessions: &Sessions,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
    ) -> Result<(Option<CredentialId>, Accepted), Refused> {
        let shown = Shown::in_message(&attempt.message);
        let verified = self.verify(sessions, attempt, Mode::Ticket, shown, "").await?;
        let credential = self.single_use(Mode::Ticket, &verified);
        let now = sessions.clock().now();
        let mut session =
            self.session(Mode::Ticket, now, stream, attempt, verified, String::new())?;
        session.seed = self.seed(Some(shown.bytes()))?;
        let reply = self.reply(&session, None);
        let reference = attempt.reference;
        Ok((credential, Accepted { reference, session, base: None, reply, keys: None }))
    }

    async fn check_noise(
        &self,
        sessions: &Sessions,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
    ) -> Result<(Option<CredentialId>, Accepted), Refused> {
        let keys = self.keys.noise.as_ref().ok_or(Why::ModeNotOffered)?;
        let opened = keys.open(&attempt.layout, &attempt.audience, &attempt.message)?;
        let request =
            LoginRequest::decode(opened.payload.as_slice()).map_err(|_| Why::Malformed)?;
        let client = request.client;
        if client.len() > MAX_CLIENT_BYTES || client.chars().any(char::is_control) {
            return Err(Why::Malformed.into());
        }
        let verified = match request.credential.ok_or(Why::Malformed)? {
            Credential::Ticket(ticket) => {
                let ticket = Zeroizing::new(ticket);
                self.verify(sessions, attempt, Mode::Noise, Shown::Ticket(&ticket), &client).await?
            }
            Credential::Jwt(jwt) => {
                let jwt = Zeroizing::new(jwt);
                self.verify(sessions, attempt, Mode::Noise, Shown::Jwt(&jwt), &client).await?
            }
            Credential::Opaque(bytes) => {
                let bytes = Zeroizing::new(bytes);
                self.verify(sessions, attempt, Mode::Noise, Shown::Opaque(&bytes), &client).await?
            }
        };
        let credential = self.single_use(Mode::Noise, &verified);
        let now = sessions.clock().now();
        let mut session = self.session(Mode::Noise, now, stream, attempt, verified, client)?;
        session.seed = self.seed(None)?;
        let answered = opened.answer(&self.reply(&session, None))?;
        let accepted = Accepted {
            reference: attempt.reference,
            session,
            base: None,
            reply: answered.reply,
            keys: Some(answered.keys),
        };
        Ok((credential, accepted))
    }

    fn single_use(&self, mode: Mode, verified: &Verified) -> Option<CredentialId> {
        let by_policy = match self.policy.single_use {
            SingleUse::Noise => mode == Mode::Noise,
            SingleUse::Always => true,
            SingleUse::Never => false,
        };
        verified.id.filter(|_| by_policy || verified.once)
    }

    fn session(
        &self,
        mode: Mode,
        now: UnixMillis,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
        verified: Verified,
        client: String,
    ) -> Result<Session, Why> {
        let latest = now.after(self.policy.lifetime);
        Ok(Session {
            id: SessionId::new(now)?,
            identity: verified.identity,
            mode,
            audience: attempt.audience.clone(),
            layout: attempt.layout.clone(),
            proxy: stream.proxy().to_owned(),
            peer: attempt.peer.clone(),
            client,
            created_at: now,
            expires_at: verified.until.map_or(latest, |until| until.min(latest)),
            hold: HoldNumber::default().next()?,
            worker: stream.worker(),
            away_until: None,
            seed: None,
        })
    }

    /// For a session that may be resumed, if there is time for it. `credential`: in mode `ticket`.
    fn seed(&self, credential: Option<&[u8]>) -> Result<Option<Seed>, Why> {
        if !self.policy.resume || self.policy.away.grace.is_zero() {
            return Ok(None);
        }
        self.keys.resume.seed(credential)
    }
}

/// Limits of what proxies hand on.
fn fits(attempt: &Attempt) -> Result<(), Why> {
    let good = attempt.message.len() <= MAX_LOGIN_MESSAGE_BYTES
        && attempt.audience.len() <= MAX_NAME_BYTES
        && attempt.layout.len() <= MAX_NAME_BYTES
        && attempt.peer.len() <= MAX_PEER_BYTES;
    if good { Ok(()) } else { Err(Why::Malformed) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while a lock is held; if it did, what it guards is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
