//! The login server that is asked: where it is, and how it is protected.

use std::time::Duration;

use hyper::Uri;

use super::SettingsError;
use crate::config::{self, duration};
use crate::domain::verifier::{Limits, Takes, breaker};
use crate::login_server::{Place, Transport};
use crate::outbound::{self, OutboundTls};

#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    pub limits: Limits,
}

pub fn settings(verifier: &config::Verifier) -> Result<Option<Settings>, SettingsError> {
    let transport = match verifier.kind.as_str() {
        "grpc" => Transport::Grpc,
        "http" => Transport::Http,
        _ if verifier.url.is_some() => return Err(SettingsError::NoVerifierKind),
        _ => return Ok(None),
    };
    let url = verifier.url.as_deref().ok_or(SettingsError::NoVerifierUrl)?;
    let example = match transport {
        Transport::Grpc => "https://login.internal:8443",
        Transport::Http => "https://login.internal/verify",
    };
    let plain = match verifier.behind_mesh {
        true => Plain::Allowed,
        false => Plain::Refused("say https, or `verifier.behind_mesh` where the mesh encrypts it"),
    };
    let uri = uri("verifier.url", url, example, plain)?;
    if transport == Transport::Grpc && uri.path() != "/" {
        return Err(SettingsError::Url { key: "verifier.url", value: url.into(), example });
    }
    let place = Place {
        transport,
        uri,
        tls: outbound_tls("verifier.tls", &verifier.tls)?,
        token_file: verifier.token_file.clone(),
    };
    Ok(Some(Settings { place, limits: limits(verifier) }))
}

fn limits(verifier: &config::Verifier) -> Limits {
    let defaults = Limits::default();
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    // Checked when the document was read.
    let span = |text: &str, default: Duration| duration::parse_or_none(text).unwrap_or(default);
    Limits {
        takes: if verifier.takes == "all" { Takes::All } else { Takes::Others },
        timeout: span(&verifier.timeout, defaults.timeout),
        max_concurrent: number(verifier.max_concurrent),
        cache_entries: number(verifier.cache_entries),
        cache_accepted: span(&verifier.cache_accepted, defaults.cache_accepted),
        cache_refused: span(&verifier.cache_refused, defaults.cache_refused),
        breaker: breaker::Rules {
            failures: verifier.breaker_failures,
            pause: span(&verifier.breaker_pause, defaults.breaker.pause),
        },
    }
}

/// Whether `http://` may leave this machine.
#[derive(Clone, Copy, Debug)]
pub enum Plain {
    Allowed,
    /// And what to do instead.
    Refused(&'static str),
}

/// An absolute URL.
pub fn uri(
    key: &'static str,
    text: &str,
    example: &'static str,
    plain: Plain,
) -> Result<Uri, SettingsError> {
    let wrong = || SettingsError::Url { key, value: text.to_owned(), example };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    // Whoever puts a password into a URL finds it in a log one day.
    let authority = uri.authority().ok_or_else(wrong)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.as_str().contains('@') {
        return Err(wrong());
    }
    match plain {
        Plain::Refused(remedy) if !outbound::is_private(&uri) => {
            Err(SettingsError::PlainUrl { key, value: text.to_owned(), remedy })
        }
        Plain::Refused(_) | Plain::Allowed => Ok(uri),
    }
}

pub fn outbound_tls(
    section: &'static str,
    tls: &config::OutboundTls,
) -> Result<OutboundTls, SettingsError> {
    let identity = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(SettingsError::HalfOutboundTls(section)),
    };
    Ok(OutboundTls { ca: tls.ca.clone(), identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, url: &str, behind_mesh: bool) -> Result<String, String> {
        let url = (!url.is_empty()).then(|| url.to_owned());
        let document =
            config::Verifier { kind: kind.into(), url, behind_mesh, ..Default::default() };
        match settings(&document) {
            Ok(settings) => Ok(settings.map(|it| it.place.uri.to_string()).unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn where_the_login_server_is_has_to_be_clear_and_private() {
        assert_eq!(found("off", "", false).unwrap(), "");
        assert_eq!(
            found("http", "https://l.example/v?x=1", false).unwrap(),
            "https://l.example/v?x=1"
        );
        assert_eq!(found("grpc", "http://127.0.0.1:80", false).unwrap(), "http://127.0.0.1:80/");
        assert!(found("grpc", "http://login.games:80", true).is_ok());
        for (kind, url, named) in [
            ("http", "http://l.example/v", "say https"),
            ("grpc", "https://l.example/path", "is no URL"),
            ("http", "l.example", "is no URL"),
            ("http", "ftp://l.example/", "is no URL"),
            ("http", "https://ada:secret@l.example/", "is no URL"),
            ("http", "", "`verifier.url`"),
            ("off", "https://l.example/", "`verifier.kind`"),
        ] {
            let error = found(kind, url, false).unwrap_err();
            assert!(error.contains(named), "{url}: {error}");
        }
    }

    #[test]
    fn the_documents_defaults_are_the_rules_own() {
        assert_eq!(limits(&config::Verifier::default()), Limits::default());
    }
}
