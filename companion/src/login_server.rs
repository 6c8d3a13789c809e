//! The way to a login server of the studio's own: [`grpc`] or [`http`].
//! [`crate::domain::verifier`] says when it is taken.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::Uri;
use hyper::header::HeaderValue;
use meshgate_proto::verifier::v1::{
    Accepted, CredentialKind as Kind, Reason, Refused as RefusedMessage, VerifyReply,
    VerifyRequest, verify_reply,
};
use tracing::warn;

use crate::domain::credential::Identity;
use crate::domain::refusal::{Refused, Why};
use crate::domain::session::Mode;
use crate::domain::time::UnixMillis;
use crate::domain::verifier::{
    Answer, Ask, CredentialKind, Granted, Question, Reply, Trouble, text_for_client,
};
use crate::outbound::OutboundTls;

pub mod grpc;
pub mod http;

/// The longest answer: an identity at its limits has some 40 KiB.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;
/// A token is read anew when it is older than this: platforms change them while they run.
const TOKEN_LIFE: Duration = Duration::from_secs(10);
const MAX_TOKEN_BYTES: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Http,
}

/// Where the login server is, and what it is shown.
#[derive(Clone, Debug)]
pub struct Place {
    pub transport: Transport,
    pub uri: Uri,
    pub tls: OutboundTls,
    pub token_file: Option<PathBuf>,
}

impl Place {
    pub fn way(&self) -> anyhow::Result<Box<dyn Ask>> {
        let token = self.token_file.clone().map(Token::read).transpose()?;
        Ok(match self.transport {
            Transport::Grpc => Box::new(grpc::Grpc::new(&self.uri, &self.tls, token)?),
            Transport::Http => Box::new(http::Http::new(self.uri.clone(), &self.tls, token)?),
        })
    }
}

/// A bearer token in a file that may change.
pub struct Token {
    path: PathBuf,
    held: Mutex<(HeaderValue, Instant)>,
}

impl Token {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let held = Mutex::new((header(&path)?, Instant::now()));
        Ok(Self { path, held })
    }

    /// `Bearer …`. If the file cannot be read any more, as it was.
    fn header(&self) -> HeaderValue {
        // Nothing panics while the lock is held.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, read) = &mut *held;
        if read.elapsed() > TOKEN_LIFE {
            *read = Instant::now();
            match header(&self.path) {
                Ok(new) => *value = new,
                Err(error) => warn!(error = format!("{error:#}"), "the old token stays"),
            }
        }
        value.clone()
    }
}

fn header(path: &PathBuf) -> anyhow::Result<HeaderValue> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new).with_context(name)?;
    let token = text.trim();
    anyhow::ensure!(
        (1..=MAX_TOKEN_BYTES).contains(&token.len()),
        "{}: a token has 1 to {MAX_TOKEN_BYTES} bytes",
        path.display()
    );
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .with_context(|| format!("{}: a token is printable ASCII", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn request(question: &Question) -> VerifyRequest {
    VerifyRequest {
        credential: question.credential.to_vec(),
        kind: match question.kind {
            CredentialKind::Opaque => Kind::Opaque,
            CredentialKind::Ticket => Kind::Ticket,
            CredentialKind::Jwt => Kind::Jwt,
        }
        .into(),
        audience: question.audience.clone(),
        peer: question.peer.clone(),
        mode: match question.mode {
            Mode::Ticket => "ticket",
            Mode::Noise => "noise",
        }
        .into(),
        layout: question.layout.clone(),
        client: question.client.clone(),
    }
}

fn reply(message: VerifyReply) -> Result<Reply, Trouble> {
    let answer = match message.result {
        Some(verify_reply::Result::Accepted(Accepted { user, roles, claims, expires_at_ms })) => {
            Answer::Accepted(Granted {
                identity: Identity { user, roles, claims },
                until: (expires_at_ms > 0).then_some(UnixMillis(expires_at_ms)),
            })
        }
        Some(verify_reply::Result::Refused(refused)) => Answer::Refused(refusal(&refused)),
        None => return Err(Trouble::Garbage("neither accepted nor refused".into())),
    };
    let reusable_for = message.reusable_for_ms.map(Duration::from_millis);
    Ok(Reply { answer, reusable_for })
}

fn refusal(message: &RefusedMessage) -> Refused {
    let why = match message.reason() {
        Reason::Unspecified | Reason::Unauthenticated => Why::VerifierRefused,
        Reason::Expired => Why::VerifierExpired,
        Reason::TryAgain => Why::VerifierTryAgain,
        Reason::Malformed => Why::Malformed,
    };
    Refused { why, text: text_for_client(&message.text) }
}
