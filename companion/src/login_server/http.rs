//! By HTTP/1.1: a POST of JSON, answered with JSON.
//!
//! ```text
//! {"credential": "<base64>", "kind": "opaque", "audience": "game", "peer": "203.0.113.7:40112",
//!  "mode": "ticket", "layout": "happy", "client": ""}
//!
//! {"accepted": {"user": "ada", "roles": ["player"], "claims": {"zone": "7"},
//!               "expires_at_ms": 1800000000000}, "reusable_for_ms": 10000}
//! {"refused": {"reason": "unauthenticated", "text": "wrong password"}}
//! ```
//!
//! The answer may also be what a protobuf library writes for `VerifyReply`: `expiresAtMs`,
//! `reusableForMs`, numbers as texts, `REASON_EXPIRED`. Unknown members are passed over. Only the
//! status 200 carries an answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Uri};
use meshgate_proto::verifier::v1::{Accepted, Reason, Refused, VerifyReply, verify_reply};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{MAX_ANSWER_BYTES, Token, reply, request};
use crate::domain::verifier::{Ask, CredentialKind, Question, Reply, Trouble};
use crate::outbound::{HttpClient, HttpError, OutboundTls};

pub struct Http {
    client: HttpClient,
    uri: Uri,
    token: Option<Token>,
}

impl Http {
    pub fn new(uri: Uri, tls: &OutboundTls, token: Option<Token>) -> anyhow::Result<Self> {
        Ok(Self { client: HttpClient::new(tls)?, uri, token })
    }
}

#[tonic::async_trait]
impl Ask for Http {
    async fn ask(&self, question: &Question) -> Result<Reply, Trouble> {
        let unusable = |_| Trouble::Failed("nothing: the request cannot be made".into());
        let mut asked = Request::post(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            asked = asked.header(AUTHORIZATION, token.header());
        }
        let body = Full::new(written(question).into());
        let asked = asked.body(body).map_err(unusable)?;
        let answer = self.client.send(asked, MAX_ANSWER_BYTES).await.map_err(trouble)?;
        let document: Document = serde_json::from_slice(&answer).map_err(|error| {
            // Where, not what.
            let (line, column) = (error.line(), error.column());
            Trouble::Garbage(format!("{:?} at line {line}, column {column}", error.classify()))
        })?;
        reply(document.message()?)
    }
}

fn trouble(error: HttpError) -> Trouble {
    match error {
        HttpError::Unreachable(_) => Trouble::Unreachable(error.to_string()),
        HttpError::Status(_) => Trouble::Failed(error.to_string()),
        HttpError::TooLarge(_) | HttpError::Broken(_) => Trouble::Garbage(error.to_string()),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    credential: &'a str,
    kind: &'static str,
    audience: &'a str,
    peer: &'a str,
    mode: &'a str,
    layout: &'a str,
    client: &'a str,
}

fn written(question: &Question) -> Vec<u8> {
    let message = request(question);
    let credential = Zeroizing::new(STANDARD.encode(Zeroizing::new(message.credential)));
    let document = Written {
        credential: &credential,
        kind: match question.kind {
            CredentialKind::Opaque => "opaque",
            CredentialKind::Ticket => "ticket",
            CredentialKind::Jwt => "jwt",
        },
        audience: &message.audience,
        peer: &message.peer,
        mode: &message.mode,
        layout: &message.layout,
        client: &message.client,
    };
    // Texts alone: nothing in it cannot be written.
    serde_json::to_vec(&document).unwrap_or_default()
}

#[derive(Deserialize)]
struct Document {
    accepted: Option<AcceptedDocument>,
    refused: Option<RefusedDocument>,
    #[serde(alias = "reusableForMs")]
    reusable_for_ms: Option<Number>,
}

#[derive(Deserialize)]
struct AcceptedDocument {
    user: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    #[serde(default, alias = "expiresAtMs")]
    expires_at_ms: Option<Number>,
}

#[derive(Deserialize)]
struct RefusedDocument {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    text: String,
}

/// Protobuf's JSON writes 64-bit numbers as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

impl Number {
    fn value(self) -> Result<u64, Trouble> {
        match self {
            Self::Plain(number) => Ok(number),
            Self::Text(text) => {
                text.parse().map_err(|_| Trouble::Garbage("a text where a number goes".into()))
            }
        }
    }
}

impl Document {
    fn message(self) -> Result<VerifyReply, Trouble> {
        let result = match (self.accepted, self.refused) {
            (Some(accepted), None) => {
                let AcceptedDocument { user, roles, claims, expires_at_ms } = accepted;
                let expires_at_ms = expires_at_ms.map(Number::value).transpose()?;
                let expires_at_ms = expires_at_ms.unwrap_or_default();
                verify_reply::Result::Accepted(Accepted { user, roles, claims, expires_at_ms })
            }
            (None, Some(RefusedDocument { reason, text })) => {
                let reason = reason.to_uppercase();
                let reason = reason.strip_prefix("REASON_").unwrap_or(&reason);
                let reason = match reason {
                    "" | "UNSPECIFIED" | "UNAUTHENTICATED" => Reason::Unauthenticated,
                    "EXPIRED" => Reason::Expired,
                    "TRY_AGAIN" => Reason::TryAgain,
                    "MALFORMED" => Reason::Malformed,
                    _ => return Err(Trouble::Garbage("a reason that nobody knows".into())),
                };
                verify_reply::Result::Refused(Refused { reason: reason.into(), text })
            }
            _ => return Err(Trouble::Garbage("not one of accepted and refused".into())),
        };
        let reusable_for_ms = self.reusable_for_ms.map(Number::value).transpose()?;
        Ok(VerifyReply { result: Some(result), reusable_for_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<VerifyReply> {
        serde_json::from_str::<Document>(text).ok()?.message().ok()
    }

    #[test]
    fn answers_are_read_as_people_and_as_protobuf_write_them() {
        let plain = read(
            r#"{"accepted": {"user": "ada", "roles": ["gm"], "claims": {"zone": "7"},
                "expires_at_ms": 18, "new": [1]}, "reusable_for_ms": 5}"#,
        );
        let protobuf = read(
            r#"{"accepted": {"user": "ada", "roles": ["gm"], "claims": {"zone": "7"},
                "expiresAtMs": "18"}, "reusableForMs": "5"}"#,
        );
        assert!(plain.is_some() && plain == protobuf);
        let expired = read(r#"{"refused": {"reason": "expired"}}"#);
        assert!(expired.is_some() && expired == read(r#"{"refused":{"reason":"REASON_EXPIRED"}}"#));
        assert!(read(r#"{"refused": {}}"#).is_some());
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"accepted": {}}"#,
            r#"{"accepted": {"user": "ada"}, "refused": {}}"#,
            r#"{"accepted": {"user": "ada", "expires_at_ms": "soon"}}"#,
            r#"{"accepted": {"user": "ada", "expires_at_ms": -1}}"#,
            r#"{"accepted": {"user": "ada"}, "reusable_for_ms": "x"}"#,
            r#"{"refused": {"reason": "maybe"}}"#,
            r#"{"user": "ada"}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
