//! A login, from the client's bytes to a session or a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meshgate_proto::session::v1::{LoginReply, LoginRequest, login_request::Credential};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::credential::{CredentialId, Verified};
use super::handshake::{MAX_LOGIN_MESSAGE_BYTES, NoiseKeys};
use super::jwt::JwtKeys;
use super::presence::{Accepted, ProxyStream, Word};
use super::ration::Ration;
use super::refusal::Why;
use super::session::{Mode, Session, SessionId};
use super::sessions::Sessions;
use super::ticket::{PREFIX, TicketKeys};
use super::time::UnixMillis;
use crate::live::Live;

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
    /// Logins under way at once, over all streams; more are told to try again.
    pub max_under_way: usize,
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
    stopping: AtomicBool,
    /// Of lines about refused logins.
    ration: Ration,
}

/// The right to work on a login.
pub struct Admittance(#[expect(dead_code, reason = "counts while it lives")] OwnedSemaphorePermit);

impl Logins {
    pub fn new(sessions: Arc<Sessions>, keys: Keys, policy: Policy) -> Self {
        let under_way = Arc::new(Semaphore::new(policy.max_under_way));
        let (stopping, ration) = (AtomicBool::new(false), Ration::default());
        let max_under_way = policy.max_under_way;
        let rules = Live::new(Rules { keys, policy });
        Self { sessions, rules, max_under_way, under_way, stopping, ration }
    }

    /// Judges logins by these from now on. How many may be under way stays as it is.
    pub fn reload(&self, keys: Keys, policy: Policy) {
        self.rules.set(Rules { keys, policy });
    }

    /// Logins that are being worked on.
    pub fn under_way(&self) -> usize {
        self.max_under_way.saturating_sub(self.under_way.available_permits())
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

    /// To be asked before a login is queued anywhere.
    pub fn enter(&self) -> Result<Admittance, Why> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Why::Stopping);
        }
        if !self.sessions.store().healthy() {
            return Err(Why::StoreAway);
        }
        let permit = Arc::clone(&self.under_way).try_acquire_owned().map_err(|_| Why::TooMany)?;
        Ok(Admittance(permit))
    }

    /// Answers the stream, one way or the other.
    pub async fn login(&self, stream: &Arc<dyn ProxyStream>, attempt: Attempt, _: Admittance) {
        let reference = attempt.reference;
        let begun = Instant::now();
        let result = match self.rules.get().check(&self.sessions, stream, &attempt) {
            Ok((credential, accepted)) => {
                let (id, user) = (accepted.session.id, accepted.session.identity.user.clone());
                let result = match accepted.session.mode {
                    Mode::Noise => self.sessions.pend(stream, credential, accepted).await,
                    Mode::Ticket => self.sessions.join(stream, credential, accepted).await,
                };
                result.inspect(|()| {
                    debug!(session = %id, user, peer = attempt.peer, "login accepted");
                })
            }
            Err(why) => Err(why),
        };
        self.sessions.metrics().login_time.record(begun.elapsed());
        match result {
            Ok(()) => self.count(attempt.mode, "accepted"),
            Err(why) => self.refuse(stream, reference, attempt.mode, &attempt.peer, why),
        }
    }

    fn count(&self, mode: Option<Mode>, result: &str) {
        let metrics = self.sessions.metrics();
        match mode {
            Some(Mode::Ticket) => metrics.ticket_logins.count(result),
            Some(Mode::Noise) => metrics.noise_logins.count(result),
            None => metrics.other_logins.count(result),
        }
    }

    /// Says no, and writes down why, as far as the client's ration of log lines goes.
    pub fn refuse(
        &self,
        stream: &Arc<dyn ProxyStream>,
        reference: u64,
        mode: Option<Mode>,
        peer: &str,
        why: Why,
    ) {
        self.count(mode, why.name());
        // What a proxy calls a peer is not more trusted than the peer.
        let peer = if peer.len() > MAX_PEER_BYTES { "(too long)" } else { peer };
        if let Some(held_back) = self.ration.line(peer, self.sessions.clock().now()) {
            info!(%why, peer, proxy = stream.proxy(), held_back, "login refused");
        } else {
            self.sessions.metrics().log_lines_held_back.count();
        }
        stream.tell(Word::Refused { reference, why });
    }
}

impl Rules {
    /// Everything that needs no store: handshake, signature, times, limits.
    fn check(
        &self,
        sessions: &Sessions,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
    ) -> Result<(Option<CredentialId>, Accepted), Why> {
        if attempt.message.len() > MAX_LOGIN_MESSAGE_BYTES
            || attempt.audience.len() > MAX_NAME_BYTES
            || attempt.layout.len() > MAX_NAME_BYTES
            || attempt.peer.len() > MAX_PEER_BYTES
        {
            return Err(Why::Malformed);
        }
        if !self.policy.audiences.is_empty() && !self.policy.audiences.contains(&attempt.audience) {
            return Err(Why::AudienceNotServed);
        }
        let now = sessions.clock().now();
        match attempt.mode {
            Some(Mode::Ticket) => self.check_ticket(now, stream, attempt),
            Some(Mode::Noise) => self.check_noise(now, stream, attempt),
            None => Err(Why::ModeNotOffered),
        }
    }

    fn check_ticket(
        &self,
        now: UnixMillis,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
    ) -> Result<(Option<CredentialId>, Accepted), Why> {
        let text = std::str::from_utf8(&attempt.message).map_err(|_| Why::Malformed)?;
        // Text protocols end their fields with NUL, space or newline.
        let text = text.trim_end_matches(['\0', ' ', '\r', '\n']);
        let verified = if text.starts_with(PREFIX) {
            self.ticket(text, attempt, now)?
        } else {
            self.jwt(text, attempt, now)?
        };
        let credential = self.single_use(Mode::Ticket, &verified);
        let session = self.session(Mode::Ticket, now, stream, attempt, verified, String::new())?;
        let reply = login_reply(&session);
        let accepted = Accepted { reference: attempt.reference, session, reply, keys: None };
        Ok((credential, accepted))
    }

    fn check_noise(
        &self,
        now: UnixMillis,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
    ) -> Result<(Option<CredentialId>, Accepted), Why> {
        let keys = self.keys.noise.as_ref().ok_or(Why::ModeNotOffered)?;
        let opened = keys.open(&attempt.layout, &attempt.audience, &attempt.message)?;
        let request =
            LoginRequest::decode(opened.payload.as_slice()).map_err(|_| Why::Malformed)?;
        if request.client.len() > MAX_CLIENT_BYTES || request.client.chars().any(char::is_control) {
            return Err(Why::Malformed);
        }
        let verified = match request.credential {
            Some(Credential::Ticket(ticket)) => {
                self.ticket(&Zeroizing::new(ticket), attempt, now)?
            }
            Some(Credential::Jwt(jwt)) => self.jwt(&Zeroizing::new(jwt), attempt, now)?,
            None => return Err(Why::Malformed),
        };
        let credential = self.single_use(Mode::Noise, &verified);
        let session = self.session(Mode::Noise, now, stream, attempt, verified, request.client)?;
        let answered = opened.answer(&login_reply(&session))?;
        let accepted = Accepted {
            reference: attempt.reference,
            session,
            reply: answered.reply,
            keys: Some(answered.keys),
        };
        Ok((credential, accepted))
    }

    fn ticket(&self, ticket: &str, attempt: &Attempt, now: UnixMillis) -> Result<Verified, Why> {
        self.keys.tickets.verify(ticket, &attempt.audience, now)
    }

    fn jwt(&self, jwt: &str, attempt: &Attempt, now: UnixMillis) -> Result<Verified, Why> {
        self.keys.jwt.verify(jwt, &attempt.audience, now)
    }

    fn single_use(&self, mode: Mode, verified: &Verified) -> Option<CredentialId> {
        let by_policy = match self.policy.single_use {
            SingleUse::Noise => mode == Mode::Noise,
            SingleUse::Always => true,
            SingleUse::Never => false,
        };
        (by_policy || verified.once).then_some(verified.id)
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
            expires_at: now.after(self.policy.lifetime),
        })
    }
}

fn login_reply(session: &Session) -> Vec<u8> {
    LoginReply {
        session_id: session.id.as_bytes().to_vec(),
        user: session.identity.user.clone(),
        expires_at_ms: session.expires_at.0,
    }
    .encode_to_vec()
}
