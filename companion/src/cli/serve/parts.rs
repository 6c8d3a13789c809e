//! What the companion is made of, from its settings and the files that they name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tracing::info;

use crate::cli::{files, masters, ring_file};
use crate::config::settings::{JwksSettings, Settings, VerifierSettings};
use crate::domain::cookie::Cookies;
use crate::domain::handshake::NoiseKeys;
use crate::domain::jwt::JwtKeys;
use crate::domain::jwt::fetched::FetchedKeys;
use crate::domain::key::Kind;
use crate::domain::login::Keys;
use crate::domain::master::Masters;
use crate::domain::resume::ResumeKeys;
use crate::domain::ticket::TicketKeys;
use crate::domain::token::Tokens;
use crate::domain::verifier::Verifier;
use crate::jwks::Url;
use crate::service::rights::Rights;

/// `before`: what is in force, of which fetched keys stay if nothing about them changed.
pub fn keys(
    settings: &Settings,
    before: Option<(&Settings, Arc<FetchedKeys>)>,
) -> anyhow::Result<Keys> {
    let fetched = settings.jwks.as_ref().map(fetched).transpose()?;
    if let (Some(new), Some((settings_before, old))) = (&fetched, before) {
        let place = |settings: &Settings| settings.jwks.as_ref().map(|jwks| jwks.uri.clone());
        if place(settings) == place(settings_before) {
            new.inherit(&old);
        }
    }
    let keys = &settings.document.keys;
    let read = |paths: &[PathBuf]| -> anyhow::Result<Vec<_>> {
        paths.iter().map(|path| files::read_key(path)).collect()
    };
    let mut noise = read(&keys.noise)?;
    let mut tickets = read(&keys.tickets)?;
    let command = keys.master_command.as_deref();
    let masters = if keys.ring.is_some() || masters::given(&keys.master_files, command) {
        Some(masters::read(&keys.master_files, command)?)
    } else {
        None
    };
    if let (Some(path), Some(masters)) = (&keys.ring, &masters) {
        let ring = ring_file::read(path)?;
        let opened = ring.open(masters).with_context(|| path.display().to_string())?;
        let (of_noise, of_tickets): (Vec<_>, Vec<_>) =
            opened.into_iter().partition(|key| key.kind() == Kind::Noise);
        noise.extend(of_noise);
        tickets.extend(of_tickets);
    }
    for key in noise.iter().chain(&tickets) {
        info!(id = key.id(), kind = key.kind().name(), "key loaded");
    }
    let documents: Vec<_> =
        keys.jwks.iter().map(|path| files::read(path)).collect::<Result<_, _>>()?;
    let documents = documents.iter().map(|document| document.as_slice());
    // A master key first: it stays when Noise keys are rotated.
    let resume = ResumeKeys::derive(masters.iter().flat_map(Masters::keys).chain(&noise));
    if resume.is_empty() {
        info!("no session can be resumed: that takes a master key or a Noise key");
    }
    Ok(Keys {
        fetched,
        verifier: settings.verifier.as_ref().map(verifier).transpose()?,
        cookies: Some(Cookies::derive(masters.iter().flat_map(Masters::keys).chain(&noise))?),
        resume,
        noise: if noise.is_empty() { None } else { Some(NoiseKeys::new(&noise)?) },
        tickets: TicketKeys::new(&tickets)?,
        jwt: JwtKeys::new(documents, keys.jwt_issuers.clone())
            .context("`keys.jwks` (--jwt-key)")?,
    })
}

fn fetched(settings: &JwksSettings) -> anyhow::Result<Arc<FetchedKeys>> {
    let JwksSettings { uri, tls, rules } = settings;
    let way = Url::new(uri.clone(), tls).context("`jwks`")?;
    Ok(Arc::new(FetchedKeys::new(Box::new(way), rules.clone())))
}

fn verifier(settings: &VerifierSettings) -> anyhow::Result<Arc<Verifier>> {
    let VerifierSettings { place, limits } = settings;
    let way = place.way().context("`verifier`")?;
    let host = place.uri.authority().map(ToString::to_string);
    info!(host, transport = ?place.transport, "a login server is asked");
    Ok(Arc::new(Verifier::new(way, limits.clone())?))
}

pub fn edge_rights(settings: &Settings) -> Rights {
    Rights {
        peers: settings.edge.peers.clone(),
        tokens: None,
        behind_mesh: settings.edge.behind_mesh,
        certificates: settings.edge.tls.is_some(),
        grants: Vec::new(),
    }
}

pub fn admin_rights(settings: &Settings) -> anyhow::Result<Rights> {
    let tokens = tokens("admin.tokens", settings.tokens.as_deref())?;
    let tls = settings.admin.tls.as_ref();
    Ok(Rights {
        peers: settings.admin.peers.clone(),
        tokens,
        behind_mesh: settings.admin.behind_mesh,
        certificates: tls.is_some_and(|tls| tls.client_ca.is_some()),
        grants: Vec::new(),
    })
}

pub fn app_rights(settings: &Settings) -> anyhow::Result<Rights> {
    let tls = settings.app.as_ref().and_then(|app| app.tls.as_ref());
    Ok(Rights {
        peers: Vec::new(),
        tokens: tokens("app.tokens", settings.document.app.tokens.as_deref())?,
        behind_mesh: settings.app.as_ref().is_some_and(|app| app.behind_mesh),
        certificates: tls.is_some_and(|tls| tls.client_ca.is_some()),
        grants: settings.grants.clone(),
    })
}

fn tokens(key: &str, path: Option<&Path>) -> anyhow::Result<Option<Tokens>> {
    let Some(path) = path else { return Ok(None) };
    let name = || format!("`{key}` {}", path.display());
    let text = files::read(path).with_context(name)?;
    let text = std::str::from_utf8(&text).with_context(name)?;
    Ok(Some(Tokens::parse(text).with_context(name)?))
}
