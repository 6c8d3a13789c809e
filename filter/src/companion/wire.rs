//! The messages of `meshgate.edge.v1`, made and checked.

use std::time::Duration;

use meshgate_proto::edge::v1 as edge;
use prost::Message;
use zeroize::Zeroize;

use crate::config::drain::MAX_ADDRESS;
use crate::session::login::{Accepted, Hold, Mode, Refusal, SessionId};
use crate::session::seal::{TrafficKey, TrafficKeys};

use super::push::{Leave, MAX_BODY, MAX_SESSIONS, Push, PushCommand};
use super::{CONTRACT, LoginRequest, MAX_MESSAGE, MAX_NAME, MAX_TEXT};

/// A name that the companion takes: not empty, not too long, without control characters.
pub(super) fn name(given: &str) -> String {
    let mut name: String =
        given.chars().map(|char| if char.is_control() { '?' } else { char }).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

pub(super) fn hello<'a>(
    proxy: &str,
    worker: u64,
    holds: impl Iterator<Item = &'a Hold>,
) -> Vec<u8> {
    let (sessions, holds) = holds.map(|hold| (bytes(hold), hold.number)).unzip();
    encode(edge::from_proxy::Kind::Hello(edge::Hello {
        contract: CONTRACT,
        proxy: proxy.to_owned(),
        sessions,
        holds,
        worker,
        drains: true,
        takes_pushes: true,
        takes_cookies: true,
        asks_to_leave: true,
    }))
}

pub(super) fn login(reference: u64, login: &LoginRequest<'_>) -> Vec<u8> {
    let mode = match login.mode {
        Mode::None => edge::Mode::Unspecified,
        Mode::Ticket => edge::Mode::Ticket,
        Mode::Noise => edge::Mode::Noise,
    };
    encode(edge::from_proxy::Kind::Login(edge::Login {
        r#ref: reference,
        mode: mode.into(),
        audience: login.audience.to_owned(),
        layout: login.layout.to_owned(),
        message: login.message.to_vec(),
        peer: login.peer.to_owned(),
    }))
}

pub(super) fn activate(reference: u64, hold: Hold) -> Vec<u8> {
    encode(edge::from_proxy::Kind::Activate(edge::Activate {
        r#ref: reference,
        session_id: bytes(&hold),
        hold: hold.number,
    }))
}

pub(super) fn ended(hold: Hold, logout: bool) -> Vec<u8> {
    let (session_id, hold) = (bytes(&hold), hold.number);
    encode(edge::from_proxy::Kind::Ended(edge::Ended { session_id, hold, logout }))
}

pub(super) fn drained() -> Vec<u8> {
    encode(edge::from_proxy::Kind::Drained(edge::Drained {}))
}

/// The reason is cut like every text.
pub(super) fn pushed(mut pushed: edge::Pushed) -> Vec<u8> {
    pushed.reason = cut(pushed.reason);
    encode(edge::from_proxy::Kind::Pushed(pushed))
}

fn encode(kind: edge::from_proxy::Kind) -> Vec<u8> {
    edge::FromProxy { kind: Some(kind) }.encode_to_vec()
}

fn bytes(hold: &Hold) -> Vec<u8> {
    hold.session.as_bytes().to_vec()
}

/// A message of the companion.
#[derive(Debug)]
pub(super) enum Incoming {
    Welcome {
        contract: u32,
        companion: String,
    },
    /// `accepted` is an error if the companion broke the contract; `hold` may be known still.
    Accepted {
        reference: u64,
        hold: Option<Hold>,
        accepted: Result<Accepted, &'static str>,
    },
    Refused {
        reference: u64,
        refusal: Refusal,
        text: String,
    },
    Activated {
        reference: u64,
        refused: Option<String>,
    },
    Kick {
        hold: Hold,
        reason: String,
        code: u32,
    },
    /// No more logins on this stream.
    Drain,
    Push {
        reference: u64,
        sessions: Vec<SessionId>,
        push: Push,
    },
    /// From a later version of the contract, which may say more than this one knows.
    Unknown,
}

impl Incoming {
    /// An error ends the stream.
    pub fn parse(message: &[u8]) -> Result<Self, &'static str> {
        if message.len() > MAX_MESSAGE {
            return Err("a message that is too large");
        }
        let Ok(message) = edge::ToProxy::decode(message) else {
            return Err("a message that does not parse");
        };
        let Some(kind) = message.kind else { return Ok(Self::Unknown) };
        Ok(match kind {
            edge::to_proxy::Kind::Welcome(welcome) => {
                Self::Welcome { contract: welcome.contract, companion: cut(welcome.companion) }
            }
            edge::to_proxy::Kind::LoginAccepted(accepted) => Self::Accepted {
                reference: accepted.r#ref,
                hold: SessionId::from_slice(&accepted.session_id)
                    .map(|session| Hold { session, number: accepted.hold }),
                accepted: self::accepted(accepted),
            },
            edge::to_proxy::Kind::LoginRefused(refused) => Self::Refused {
                reference: refused.r#ref,
                refusal: refusal(refused.refusal()),
                text: cut(refused.text),
            },
            edge::to_proxy::Kind::Activated(activated) => Self::Activated {
                reference: activated.r#ref,
                refused: Some(cut(activated.refused)).filter(|text| !text.is_empty()),
            },
            edge::to_proxy::Kind::Drain(edge::Drain {}) => Self::Drain,
            edge::to_proxy::Kind::Kick(kick) => match SessionId::from_slice(&kick.session_id) {
                Some(session) => {
                    let hold = Hold { session, number: kick.hold };
                    Self::Kick { hold, reason: cut(kick.reason), code: kick.code }
                }
                None => return Err("a kick of what is no session"),
            },
            edge::to_proxy::Kind::Push(push) => self::push(push)?,
        })
    }
}

fn accepted(mut accepted: edge::LoginAccepted) -> Result<Accepted, &'static str> {
    let keys = keys(&accepted);
    accepted.client_to_server_key.zeroize();
    accepted.server_to_client_key.zeroize();
    Ok(Accepted {
        session: SessionId::from_slice(&accepted.session_id)
            .ok_or("a session id that is not 16 bytes long")?,
        hold: accepted.hold,
        activate: accepted.activate,
        reply: accepted.reply,
        user: accepted.user,
        claims: accepted.claims,
        roles: accepted.roles,
        keys: keys?,
    })
}

fn push(push: edge::Push) -> Result<Incoming, &'static str> {
    if push.body.len() > MAX_BODY {
        return Err("a push that is too large");
    }
    let (ids, []) = push.sessions.as_chunks::<16>() else {
        return Err("a push to what is no session");
    };
    if ids.len() > MAX_SESSIONS {
        return Err("a push to too many sessions");
    }
    let command = match push.command {
        Some(edge::push::Command::Number(number)) => PushCommand::Number(number),
        Some(edge::push::Command::Name(name)) => PushCommand::Text(name),
        Some(edge::push::Command::Leave(leave)) => PushCommand::Leave(self::leave(leave)?),
        None => return Err("a push without a command"),
    };
    Ok(Incoming::Push {
        reference: push.r#ref,
        sessions: ids.iter().filter_map(|id| SessionId::from_slice(id)).collect(),
        push: Push::new(command, push.body),
    })
}

fn leave(leave: edge::Leave) -> Result<Leave, &'static str> {
    let is_letter = |byte: u8| (b'!'..=b'~').contains(&byte);
    if leave.address.len() > MAX_ADDRESS || !leave.address.bytes().all(is_letter) {
        return Err("an address that is none");
    }
    let millis = |millis: u32| Duration::from_millis(millis.into());
    Ok(Leave {
        service: leave.service,
        reason: cut(leave.reason).replace('\0', "?"),
        spread: millis(leave.spread_ms),
        within: millis(leave.within_ms),
        address: leave.address,
    })
}

fn keys(accepted: &edge::LoginAccepted) -> Result<Option<TrafficKeys>, &'static str> {
    if accepted.client_to_server_key.is_empty() && accepted.server_to_client_key.is_empty() {
        return Ok(None);
    }
    let key = |bytes: &[u8]| TrafficKey::from_slice(bytes).ok_or("a key that is not 32 bytes long");
    Ok(Some(TrafficKeys {
        client_to_server: key(&accepted.client_to_server_key)?,
        server_to_client: key(&accepted.server_to_client_key)?,
    }))
}

const fn refusal(refusal: edge::Refusal) -> Refusal {
    match refusal {
        edge::Refusal::Unspecified | edge::Refusal::Unauthenticated => Refusal::Unauthenticated,
        edge::Refusal::Expired => Refusal::Expired,
        edge::Refusal::TryAgain => Refusal::TryAgain,
        edge::Refusal::Malformed => Refusal::Malformed,
        edge::Refusal::ComeBack => Refusal::ComeBack,
    }
}

/// At most [`MAX_TEXT`] bytes of a text, in whole characters.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}
