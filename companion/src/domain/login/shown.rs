//! What a client shows, and who says whether it is good: keys that are here, or a login server.

use zeroize::Zeroizing;

use super::{Attempt, Rules};
use crate::domain::credential::Verified;
use crate::domain::refusal::{Refused, Why};
use crate::domain::session::Mode;
use crate::domain::sessions::Sessions;
use crate::domain::ticket::PREFIX;
use crate::domain::verifier::{CredentialKind, Question, Verifier};

/// A credential, unchecked.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    Ticket(&'a str),
    Jwt(&'a str),
    /// Means something to a login server alone.
    Opaque(&'a [u8]),
}

impl<'a> Shown<'a> {
    /// In mode `ticket` a credential says by its looks what it is.
    pub fn in_message(message: &'a [u8]) -> Self {
        let Ok(text) = std::str::from_utf8(message) else { return Self::Opaque(message) };
        // Text protocols end their fields with NUL, space or newline.
        let text = text.trim_end_matches(['\0', ' ', '\r', '\n']);
        if text.starts_with(PREFIX) {
            Self::Ticket(text)
        } else if looks_like_jwt(text) {
            Self::Jwt(text)
        } else {
            Self::Opaque(message)
        }
    }

    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Ticket(text) | Self::Jwt(text) => text.as_bytes(),
            Self::Opaque(bytes) => bytes,
        }
    }

    const fn kind(self) -> CredentialKind {
        match self {
            Self::Ticket(_) => CredentialKind::Ticket,
            Self::Jwt(_) => CredentialKind::Jwt,
            Self::Opaque(_) => CredentialKind::Opaque,
        }
    }
}

/// Three parts in base64url, of which the first begins with `{` (RFC 7515, section 7.1).
fn looks_like_jwt(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.starts_with('e') && text.bytes().all(fits) && text.matches('.').count() == 2
}

impl Rules {
    /// Whose the credential is. `client`: what the client says of itself.
    pub(super) async fn verify(
        &self,
        sessions: &Sessions,
        attempt: &Attempt,
        mode: Mode,
        shown: Shown<'_>,
        client: &str,
    ) -> Result<Verified, Refused> {
        if let Some(verifier) = self.keys.verifier.as_ref().filter(|it| it.takes(shown.kind())) {
            return ask(verifier, sessions, attempt, mode, shown, client).await;
        }
        let now = sessions.clock().now();
        match (shown, mode) {
            (Shown::Ticket(ticket), _) => {
                Ok(self.keys.tickets.verify(ticket, &attempt.audience, now)?)
            }
            (Shown::Jwt(jwt), _) => {
                match (self.keys.jwt.verify(jwt, &attempt.audience, now), &self.keys.fetched) {
                    (Err(Why::UnknownKey), Some(fetched)) => {
                        Ok(fetched.verify(jwt, &attempt.audience, now).await?)
                    }
                    (verdict, _) => Ok(verdict?),
                }
            }
            (Shown::Opaque(_), Mode::Ticket) => Err(Why::Malformed.into()),
            (Shown::Opaque(_), Mode::Noise) => Err(Why::UnknownKey.into()),
        }
    }
}

async fn ask(
    verifier: &Verifier,
    sessions: &Sessions,
    attempt: &Attempt,
    mode: Mode,
    shown: Shown<'_>,
    client: &str,
) -> Result<Verified, Refused> {
    let question = Question {
        credential: Zeroizing::new(shown.bytes().to_vec()),
        kind: shown.kind(),
        audience: attempt.audience.clone(),
        peer: attempt.peer.clone(),
        mode,
        layout: attempt.layout.clone(),
        client: client.to_owned(),
    };
    let granted = verifier.verify(question, sessions.clock(), sessions.metrics()).await?;
    Ok(Verified { identity: granted.identity, id: None, once: false, until: granted.until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_says_by_its_looks_what_it_is() {
        let kind = |message: &[u8]| Shown::in_message(message).kind();
        assert_eq!(kind(b"mgt1.e30.AA\r\n"), CredentialKind::Ticket);
        assert_eq!(kind(b"eyJhbGciOiJIUzI1NiJ9.e30.AA\0"), CredentialKind::Jwt);
        assert_eq!(kind(b"ewogfQ.e30."), CredentialKind::Jwt);
        for opaque in [&b"e.e"[..], b"xyz.e30.AA", b"e.+.A", b"user:pass", b"\xff\x00", b"e..."] {
            assert_eq!(kind(opaque), CredentialKind::Opaque, "{opaque:?}");
        }
    }

    #[test]
    fn what_is_opaque_stays_to_the_byte() {
        assert_eq!(Shown::in_message(b"secret \0").bytes(), b"secret \0");
        assert_eq!(Shown::in_message(b"mgt1.e30.AA \0").bytes(), b"mgt1.e30.AA");
    }
}
