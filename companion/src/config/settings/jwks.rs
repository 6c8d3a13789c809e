//! An issuer's keys that are fetched: from where, and how often.

use std::time::Duration;

use hyper::Uri;
use jsonwebtoken::Algorithm;

use super::SettingsError;
use super::verifier::{Plain, outbound_tls, uri};
use crate::config::{self, duration};
use crate::domain::jwt::fetched::Rules;
use crate::outbound::OutboundTls;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub uri: Uri,
    pub tls: OutboundTls,
    pub rules: Rules,
}

pub fn settings(
    jwks: &config::Jwks,
    issuers: &[String],
) -> Result<Option<Settings>, SettingsError> {
    let Some(url) = &jwks.url else { return Ok(None) };
    let plain = match jwks.behind_mesh {
        true => Plain::Allowed,
        false => Plain::Refused("say https, or `jwks.behind_mesh` where the mesh protects it"),
    };
    let example = "https://login.example/.well-known/jwks.json";
    let uri = uri("jwks.url", url, example, plain)?;
    // Checked when the document was read.
    let span = |text: &str, default| duration::parse(text).unwrap_or(Duration::from_secs(default));
    let rules = Rules {
        refresh: span(&jwks.refresh, 300),
        cool_down: span(&jwks.cool_down, 30),
        timeout: span(&jwks.timeout, 5),
        algorithm: match jwks.algorithm.as_str() {
            "EdDSA" => Some(Algorithm::EdDSA),
            "ES256" => Some(Algorithm::ES256),
            "RS256" => Some(Algorithm::RS256),
            _ => None,
        },
        issuers: issuers.to_vec(),
    };
    Ok(Some(Settings { uri, tls: outbound_tls("jwks.tls", &jwks.tls)?, rules }))
}
