//! A login message, and what is needed to understand its reply. The server may want to see it
//! twice: the second time with the cookie that its first reply was.
//!
//! ```text
//! cookie   "mgc1.…", the text of a refusal with status ABORTED
//! message  u8 version 1 | u8 kind 3 | u8 c | cookie (c bytes) | the message as before
//! ```

use crate::error::Error;
use crate::login::{Handshake, Login, LoginReply, login_reply};
use crate::seal::Seal;

const COOKIE: &str = "mgc1.";
const HEAD: [u8; 2] = [1, 3];

pub struct Attempt {
    /// The login frame's body.
    pub message: Vec<u8>,
    handshake: Option<Handshake>,
}

impl Attempt {
    /// `None`: nobody logs in.
    pub fn new(login: &Login) -> Result<Option<Self>, Error> {
        let plain = |message| Self { message, handshake: None };
        let sealed = |(handshake, message)| Self { message, handshake: Some(handshake) };
        Ok(Some(match login {
            Login::None => return Ok(None),
            Login::Ticket(credential) => plain(credential.bytes().to_vec()),
            Login::ResumeTicket { credential, token } => plain(token.ticket_message(credential)?),
            Login::Noise { server, credential } => sealed(Handshake::start(server, credential)?),
            Login::ResumeNoise { server, token } => sealed(Handshake::resume(server, token)?),
        }))
    }

    /// Understands the body of the reply; the seals are the client's direction first.
    pub fn finish(self, body: &[u8]) -> Result<(LoginReply, Option<(Seal, Seal)>), Error> {
        let Some(handshake) = self.handshake else { return Ok((login_reply(body)?, None)) };
        let (reply, outgoing, incoming) = handshake.finish(body)?;
        Ok((reply, Some((outgoing, incoming))))
    }
}

/// The cookie of a refusal, if it is one.
pub fn cookie(error: &Error) -> Option<&str> {
    match error {
        Error::Refused { text, .. } if text.starts_with(COOKIE) => Some(text),
        _ => None,
    }
}

/// `message` with a cookie.
pub fn with_cookie(cookie: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u8::try_from(cookie.len())
        .map_err(|_| Error::Handshake("the cookie is too long".into()))?;
    Ok([&HEAD[..], &[length], cookie.as_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_a_cookie_is_that_of_the_vector() {
        let vectors = include_str!("../../vectors/session/cookie.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        for vector in vectors.as_array().unwrap() {
            let hex = |name: &str| -> Vec<u8> {
                let text = vector[name].as_str().unwrap().as_bytes();
                let digit = |pair: &[u8]| {
                    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                };
                text.chunks(2).map(digit).collect()
            };
            let text = vector["cookie"].as_str().unwrap().to_owned();
            let refused = Error::Refused { status: 10, text };
            let cookie = cookie(&refused).unwrap();
            assert_eq!(with_cookie(cookie, &hex("message")).unwrap(), hex("message_with_cookie"));
        }
        let other = Error::Refused { status: 14, text: "try again".into() };
        assert_eq!(cookie(&other), None);
    }
}
