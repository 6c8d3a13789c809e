//! A resume, from the client's bytes to a session that waits for its first frame on the new
//! connection. [`crate::domain::resume`] tells what a token is.

use std::sync::Arc;

use meshgate_proto::session::v1::{LoginReply, LoginRequest, ResumeToken};
use prost::Message as _;

use super::{Attempt, MAX_CLIENT_BYTES, Rules, fits};
use crate::domain::handshake::ResumeMessage;
use crate::domain::presence::{Accepted, ProxyStream};
use crate::domain::refusal::Why;
use crate::domain::resume::{TicketResume, TokenId, TokenSecret};
use crate::domain::session::{HoldNumber, Mode, Session};
use crate::domain::sessions::Sessions;

/// A login message that resumes.
pub enum Resume<'a> {
    Noise(ResumeMessage<'a>),
    Ticket(TicketResume),
}

impl<'a> Resume<'a> {
    /// `None`: a login.
    pub fn parse(attempt: &'a Attempt) -> Option<Result<Self, Why>> {
        match attempt.mode? {
            Mode::Noise => Some(ResumeMessage::parse(&attempt.message)?.map(Self::Noise)),
            Mode::Ticket => Some(TicketResume::parse(&attempt.message)?.map(Self::Ticket)),
        }
    }

    fn token(&self) -> Result<TokenId, Why> {
        match self {
            Self::Noise(message) => TokenId::from_bytes(message.token_id).ok_or(Why::TokenWrong),
            Self::Ticket(message) => Ok(message.id),
        }
    }
}

impl Rules {
    /// Everything up to the client's first frame. Looks the session up, and changes nothing.
    pub async fn check_resume(
        &self,
        sessions: &Sessions,
        stream: &Arc<dyn ProxyStream>,
        attempt: &Attempt,
        resume: Resume<'_>,
    ) -> Result<Accepted, Why> {
        fits(attempt)?;
        if !self.policy.resume {
            return Err(Why::ResumeOff);
        }
        let id = resume.token()?;
        let found = sessions.store().find(vec![id.session]).await.map_err(|_| Why::StoreAway)?;
        let found = found.into_iter().flatten().next().ok_or(Why::SessionGone)?;
        if found.ends_at() <= sessions.clock().now() {
            return Err(Why::SessionGone);
        }
        let mut found = found;
        sessions.know_place(&mut found).await.map_err(|_| Why::StoreAway)?;
        let seed = found.seed.as_ref().ok_or(Why::TokenWrong)?;
        let secret = self.keys.resume.secret(seed, id)?;
        let here = found.audience == attempt.audience && found.layout == attempt.layout;
        if !here || Some(found.mode) != attempt.mode {
            return Err(Why::TokenWrong);
        }
        match resume {
            Resume::Noise(message) => {
                let keys = self.keys.noise.as_ref().ok_or(Why::ModeNotOffered)?;
                let opened =
                    keys.open_resume(&attempt.layout, &attempt.audience, &message, &secret)?;
                let request =
                    LoginRequest::decode(opened.payload.as_slice()).map_err(|_| Why::Malformed)?;
                let client = request.client;
                if client.len() > MAX_CLIENT_BYTES || client.chars().any(char::is_control) {
                    return Err(Why::Malformed);
                }
                // Said only to who has the secret.
                let next = follow(found, id, stream, attempt, Some(client))?;
                let answered = opened.answer(&self.reply(&next.session, Some(next.base)))?;
                let (reply, keys) = (answered.reply, Some(answered.keys));
                Ok(next.accepted(attempt.reference, reply, keys))
            }
            Resume::Ticket(message) => {
                if !message.is_proven(seed, &secret) {
                    return Err(Why::TokenWrong);
                }
                let next = follow(found, id, stream, attempt, None)?;
                let reply = self.reply(&next.session, Some(next.base));
                Ok(next.accepted(attempt.reference, reply, None))
            }
        }
    }

    /// The encoded `LoginReply` for a connection with this session's hold; `base` is what it follows.
    pub(super) fn reply(&self, session: &Session, base: Option<HoldNumber>) -> Vec<u8> {
        LoginReply {
            session_id: session.id.as_bytes().to_vec(),
            user: session.identity.user.clone(),
            expires_at_ms: session.expires_at.0,
            resume: self.token(session, base.unwrap_or(session.hold)),
            generation: session.hold.generation(),
            lost_up_to: base.map_or(0, HoldNumber::generation),
        }
        .encode_to_vec()
    }

    fn token(&self, session: &Session, base: HoldNumber) -> Option<ResumeToken> {
        let seed = session.seed.as_ref().filter(|_| self.policy.resume)?;
        let id = TokenId { session: session.id, hold: session.hold, base };
        let secret: TokenSecret = self.keys.resume.secret(seed, id).ok()?;
        let grace = self.policy.away.grace.as_millis();
        Some(ResumeToken {
            id: id.to_bytes().to_vec(),
            secret: secret.to_vec(),
            grace_ms: u64::try_from(grace).unwrap_or(u64::MAX),
        })
    }
}

/// A session as it shall go on.
struct Next {
    session: Session,
    base: HoldNumber,
}

impl Next {
    fn accepted(
        self,
        reference: u64,
        reply: Vec<u8>,
        keys: Option<crate::domain::secret::TrafficKeys>,
    ) -> Accepted {
        let Self { session, base } = self;
        Accepted { reference, session, base: Some(base), reply, keys }
    }
}

fn follow(
    found: Session,
    id: TokenId,
    stream: &Arc<dyn ProxyStream>,
    attempt: &Attempt,
    client: Option<String>,
) -> Result<Next, Why> {
    if !id.is_good_for(&found) {
        return Err(Why::TokenOld);
    }
    let base = found.hold;
    let session = Session {
        hold: base.next()?,
        proxy: stream.proxy().to_owned(),
        worker: stream.worker(),
        peer: attempt.peer.clone(),
        client: client.filter(|client| !client.is_empty()).unwrap_or_else(|| found.client.clone()),
        away_until: None,
        ..found
    };
    Ok(Next { session, base })
}
