//! `Debug` for messages with secrets: enough to follow a login or a push, nothing to steal.

use std::fmt::{Debug, Formatter, Result};

use crate::app::v1::{PushRequest, push_request};
use crate::edge::v1::{Login, LoginAccepted, Push, push};
use crate::session::v1::{LoginRequest, ResumeToken, login_request::Credential};
use crate::verifier::v1::VerifyRequest;

/// A field's length in place of its value.
struct Hidden(usize);

impl Debug for Hidden {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl Debug for Login {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Login")
            .field("ref", &self.r#ref)
            .field("mode", &self.mode())
            .field("audience", &self.audience)
            .field("layout", &self.layout)
            .field("message", &Hidden(self.message.len()))
            .field("peer", &self.peer)
            .finish()
    }
}

impl Debug for LoginAccepted {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("LoginAccepted")
            .field("ref", &self.r#ref)
            .field("session_id", &self.session_id)
            .field("reply", &Hidden(self.reply.len()))
            .field("user", &self.user)
            .field("claims", &self.claims)
            .field("roles", &self.roles)
            .field("expires_at_ms", &self.expires_at_ms)
            .field("client_to_server_key", &Hidden(self.client_to_server_key.len()))
            .field("server_to_client_key", &Hidden(self.server_to_client_key.len()))
            .field("hold", &self.hold)
            .field("activate", &self.activate)
            .finish()
    }
}

/// What a service tells a client is theirs.
impl Debug for Push {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Push")
            .field("ref", &self.r#ref)
            .field("sessions", &(self.sessions.len() / 16))
            .field("command", &self.command)
            .field("body", &Hidden(self.body.len()))
            .finish()
    }
}

impl Debug for PushRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("PushRequest")
            .field("target", &self.target)
            .field("audience", &self.audience)
            .field("command", &self.command)
            .field("body", &Hidden(self.body.len()))
            .finish()
    }
}

impl Debug for push::Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Number(number) => Debug::fmt(number, f),
            Self::Name(name) => Debug::fmt(name, f),
            Self::Leave(leave) => Debug::fmt(leave, f),
        }
    }
}

impl Debug for push_request::Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Number(number) => Debug::fmt(number, f),
            Self::Name(name) => Debug::fmt(name, f),
        }
    }
}

impl Debug for push_request::Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::SessionId(id) => f.debug_tuple("SessionId").field(id).finish(),
            Self::User(user) => f.debug_tuple("User").field(user).finish(),
            Self::Group(group) => f.debug_tuple("Group").field(group).finish(),
        }
    }
}

impl Debug for LoginRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("LoginRequest")
            .field("credential", &self.credential)
            .field("client", &self.client)
            .finish()
    }
}

impl Debug for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Ticket(ticket) => f.debug_tuple("Ticket").field(&Hidden(ticket.len())).finish(),
            Self::Jwt(jwt) => f.debug_tuple("Jwt").field(&Hidden(jwt.len())).finish(),
            Self::Opaque(opaque) => f.debug_tuple("Opaque").field(&Hidden(opaque.len())).finish(),
        }
    }
}

impl Debug for ResumeToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("ResumeToken")
            .field("id", &self.id)
            .field("secret", &Hidden(self.secret.len()))
            .field("grace_ms", &self.grace_ms)
            .finish()
    }
}

impl Debug for VerifyRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("VerifyRequest")
            .field("credential", &Hidden(self.credential.len()))
            .field("kind", &self.kind())
            .field("audience", &self.audience)
            .field("peer", &self.peer)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::v1::{FromProxy, ToProxy, from_proxy, to_proxy};
    use crate::session::v1::LoginReply;

    #[test]
    fn a_login_hides_its_message_also_inside_the_envelope() {
        let login = Login { message: b"credential".to_vec(), ..Login::default() };
        let text = format!("{:?}", FromProxy { kind: Some(from_proxy::Kind::Login(login)) });
        assert!(text.contains("<10 bytes>"), "{text}");
        assert!(!text.contains("credential") && !text.contains("99, 114"), "{text}");
    }

    #[test]
    fn an_acceptance_hides_its_keys() {
        let accepted = LoginAccepted {
            client_to_server_key: vec![0x5a; 32],
            server_to_client_key: vec![0xa5; 32],
            ..LoginAccepted::default()
        };
        let message = ToProxy { kind: Some(to_proxy::Kind::LoginAccepted(accepted)) };
        let text = format!("{message:?} {message:#?}");
        assert!(text.contains("<32 bytes>"), "{text}");
        assert!(!text.contains("90") && !text.contains("165"), "{text}");
    }

    #[test]
    fn a_push_hides_its_body() {
        let body = b"s3cret".to_vec();
        let push = Push { body: body.clone(), sessions: vec![7; 32], ..Push::default() };
        let text = format!("{push:?} {:?}", PushRequest { body, ..PushRequest::default() });
        assert!(text.contains("<6 bytes>") && text.contains("sessions: 2"), "{text}");
        assert!(!text.contains("s3cret") && !text.contains("115"), "{text}");
    }

    #[test]
    fn a_login_request_hides_its_credential() {
        for credential in [
            Credential::Ticket("s3cret".into()),
            Credential::Jwt("s3cret".into()),
            Credential::Opaque(b"s3cret".to_vec()),
        ] {
            let request = LoginRequest { credential: Some(credential), client: "game/1".into() };
            let text = format!("{request:?}");
            assert!(text.contains("game/1") && !text.contains("s3cret"), "{text}");
            assert!(!text.contains("115"), "{text}");
        }
    }

    #[test]
    fn a_question_to_a_verifier_hides_its_credential() {
        let credential = b"s3cret".to_vec();
        let text = format!("{:?}", VerifyRequest { credential, ..VerifyRequest::default() });
        assert!(text.contains("<6 bytes>") && !text.contains("115"), "{text}");
    }

    #[test]
    fn a_login_reply_hides_the_secret_of_its_token() {
        let token = ResumeToken { secret: vec![0x5a; 32], ..ResumeToken::default() };
        let reply = LoginReply { resume: Some(token), ..LoginReply::default() };
        let text = format!("{reply:?}");
        assert!(text.contains("<32 bytes>") && !text.contains("90"), "{text}");
    }
}
