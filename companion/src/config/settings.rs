//! What a document means: addresses that parse, listeners that are protected, files by name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::{Document, Login, Tls, duration};
use crate::domain::bucket::Rate;
use crate::domain::cookie::Demand;
use crate::domain::group::GroupLimits;
use crate::domain::login::{Policy, SingleUse};
use crate::domain::reach::{Grant, GrantError};
use crate::domain::same_user::SameUser;
use crate::domain::sessions::Away;
use crate::domain::sessions::push::PushLimits;
use crate::service::exposure::{self, Exposed, Protection};
use crate::service::rights::Side;
use crate::service::tls::TlsFiles;
use crate::store::queue::QueueLimits;
use crate::store::redis::{Address, Place, RedisSettings, RedisTls};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("`{path}`: `{value}` is no address and port, such as 127.0.0.1:7600")]
    Address { path: &'static str, value: String },
    #[error("`{section}.cert` and `{section}.key` go together: give both, or none")]
    HalfTls { section: &'static str },
    #[error("`{section}.client_ca` needs `{section}.cert` and `{section}.key`")]
    CaWithoutTls { section: &'static str },
    #[error("`{side}.behind_mesh` and `{side}.tls` exclude each other: the mesh does the TLS")]
    TwiceTls { side: &'static str },
    #[error(
        "`{side}.peers` lists names, but nothing proves one: give `{side}.tls.client_ca`, or say \
         `{side}.behind_mesh`"
    )]
    NamesWithoutProof { side: &'static str },
    #[error("`edge.tls` needs a `client_ca`: a proxy proves itself by its certificate alone")]
    EdgeWithoutCa,
    #[error(
        "`admin.behind_mesh` alone would let every workload of the mesh throw players out: give \
         `admin.tokens` or `admin.peers`"
    )]
    OpenAdmin,
    #[error("`app` has rights and no address: give `app.listen`, such as 127.0.0.1:7602")]
    AppNotServed,
    #[error("`app.grants[{index}]`: {problem}")]
    Grant { index: usize, problem: GrantError },
    #[error(
        "callers of the app service prove who they are, and `app.grants` grants nothing to \
         anybody: give it a line such as `token=chat audience=* group=* may=push`"
    )]
    NoGrants,
    #[error(
        "`app.grants` names {what}, but nothing proves one: give `{remedy}`, or listen on a \
         loopback address without grants"
    )]
    GrantWithoutProof { what: &'static str, remedy: &'static str },
    #[error(
        "`login.same_user_max` goes with `login.same_user = \"allow\"`: `refuse` and `replace` leave \
         one session"
    )]
    SameUserMax,
    #[error("`store.redis.prefix` must be 1 to 64 letters, digits, `-`, `_`, `.` or `:`")]
    Prefix,
    #[error("`store.redis.username` needs a `store.redis.password_file`")]
    NoPassword,
    #[error(
        "`store.redis.nodes` goes with `store.redis.topology`: `sentinel` and `cluster` need it, such \
         as [\"redis-0:6379\", \"redis-1:6379\"]; `single` has `host` and `port`"
    )]
    Nodes,
    #[error("`store.redis.nodes[{index}]`: `{value}` is no host and port, such as redis-0:6379")]
    Node { index: usize, value: String },
    #[error("`store.redis.{key}` is for `store.redis.topology = \"sentinel\"`")]
    NoSentinel { key: &'static str },
    #[error("`store.redis.sentinel_username` needs a `store.redis.sentinel_password_file`")]
    NoSentinelPassword,
    #[error("`store.redis.database` must be 0: a Cluster has no other")]
    ClusterDatabase,
    #[error("`store.redis.tls_cert` and `store.redis.tls_key` go together: give both, or none")]
    HalfRedisTls,
    #[error("`store.redis.tls_ca`, `tls_cert` and `tls_key` need `store.redis.tls = true`")]
    RedisTlsOff,
    #[error("`{key}`: `{value}` is no URL, such as {example}")]
    Url { key: &'static str, value: String, example: &'static str },
    #[error("`{key}`: others can read on the way what goes to `{value}`: {remedy}")]
    PlainUrl { key: &'static str, value: String, remedy: &'static str },
    #[error("`verifier.kind` needs a `verifier.url`, such as https://login.internal:8443")]
    NoVerifierUrl,
    #[error("`verifier.url` without `verifier.kind`: say `grpc` or `http`")]
    NoVerifierKind,
    #[error("`{0}.cert` and `{0}.key` go together: give both, or none")]
    HalfOutboundTls(&'static str),
    #[error(transparent)]
    Exposed(#[from] Exposed),
    #[error(
        "no login could ever succeed: give --ticket-key (`keys.tickets`; make one with `meshgate \
         keygen ticket-ed25519 --out FILE`), --jwt-key (`keys.jwks`) or --key-ring (`keys.ring`), or \
         name an issuer (`jwks.url`) or a login server (`verifier`)"
    )]
    NoKeys,
}

mod jwks;
mod verifier;

pub use jwks::Settings as JwksSettings;
pub use verifier::Settings as VerifierSettings;

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: Option<TlsFiles>,
    pub peers: Vec<String>,
    pub behind_mesh: bool,
    pub protection: Protection,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub document: Document,
    pub edge: Listener,
    pub admin: Listener,
    pub tokens: Option<PathBuf>,
    /// Where services call, if they do.
    pub app: Option<Listener>,
    pub grants: Vec<Grant>,
    pub pushes: PushLimits,
    pub groups: GroupLimits,
    pub metrics: Option<SocketAddr>,
    pub policy: Policy,
    pub verifier: Option<verifier::Settings>,
    pub jwks: Option<jwks::Settings>,
    pub store: Store,
}

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub enum Store {
    Redb(PathBuf),
    Redis(Box<RedisSettings>),
}

impl Settings {
    pub fn new(document: Document) -> Result<Self, SettingsError> {
        let edge = edge(&document)?;
        let admin = admin(&document, edge.address)?;
        let (app, grants) = app(&document)?;
        let metrics = document.metrics.listen.as_deref();
        let metrics = metrics.map(|text| address("metrics.listen", text)).transpose()?;
        let verifier = verifier::settings(&document.verifier)?;
        let jwks = jwks::settings(&document.jwks, &document.keys.jwt_issuers)?;
        let keys = &document.keys;
        let has_keys = !keys.tickets.is_empty() || !keys.jwks.is_empty() || keys.ring.is_some();
        if !has_keys && verifier.is_none() && jwks.is_none() {
            return Err(SettingsError::NoKeys);
        }
        let login = &document.login;
        let defaults = Policy::default();
        let policy = Policy {
            // Checked when the document was read, as are the names below.
            lifetime: duration::parse(&login.session_lifetime).unwrap_or(defaults.lifetime),
            single_use: match login.single_use.as_str() {
                "always" => SingleUse::Always,
                "never" => SingleUse::Never,
                _ => SingleUse::Noise,
            },
            audiences: login.audiences.clone(),
            same_user: same_user(login)?,
            resume: document.session.resume,
            away: away(&document.session),
            max_under_way: usize::try_from(login.max_under_way).unwrap_or(usize::MAX),
            address_rate: rate(login.address_rate, login.address_burst),
            total_rate: rate(login.total_rate, login.total_burst),
            cookie: match login.cookie.as_str() {
                "always" => Demand::Always,
                "auto" => Demand::Above(Rate::new(login.cookie_rate, login.cookie_burst)),
                _ => Demand::Never,
            },
        };
        let tokens = document.admin.tokens.clone();
        let store = store(&document.store)?;
        let pushes = pushes(&document.app);
        let groups = GroupLimits {
            members: document.app.group_members,
            of_session: document.app.session_groups,
        };
        Ok(Self {
            edge,
            admin,
            tokens,
            app,
            grants,
            pushes,
            groups,
            metrics,
            policy,
            verifier,
            jwks,
            store,
            document,
        })
    }
}

/// What the section `store` means.
pub fn store(store: &super::Store) -> Result<Store, SettingsError> {
    if store.kind != "redis" {
        return Ok(Store::Redb(store.path.clone()));
    }
    let redis = &store.redis;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if redis.prefix.is_empty() || redis.prefix.len() > 64 || !redis.prefix.chars().all(fits) {
        return Err(SettingsError::Prefix);
    }
    if redis.username.is_some() && redis.password_file.is_none() {
        return Err(SettingsError::NoPassword);
    }
    let identity = match (&redis.tls_cert, &redis.tls_key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(SettingsError::HalfRedisTls),
    };
    let tls = RedisTls { ca: redis.tls_ca.clone(), identity };
    let (none, without) = (RedisTls { ca: None, identity: None }, !redis.tls);
    if without && tls != none {
        return Err(SettingsError::RedisTlsOff);
    }
    Ok(Store::Redis(Box::new(RedisSettings {
        place: place(redis)?,
        confirm: if redis.topology == "single" { 0 } else { usize::from(redis.confirm) },
        username: redis.username.clone(),
        password_file: redis.password_file.clone(),
        database: redis.database,
        prefix: redis.prefix.clone(),
        // Checked when the document was read.
        timeout: duration::parse(&redis.timeout).unwrap_or(Duration::from_secs(1)),
        tls: redis.tls.then_some(tls),
    })))
}

fn place(redis: &super::Redis) -> Result<Place, SettingsError> {
    let node = |(index, text): (usize, &String)| {
        Address::parse(text).ok_or_else(|| SettingsError::Node { index, value: text.clone() })
    };
    let nodes: Vec<_> = redis.nodes.iter().enumerate().map(node).collect::<Result<_, _>>()?;
    if nodes.is_empty() != (redis.topology == "single") {
        return Err(SettingsError::Nodes);
    }
    let (username, password_file) = (&redis.sentinel_username, &redis.sentinel_password_file);
    if redis.topology == "sentinel" {
        if username.is_some() && password_file.is_none() {
            return Err(SettingsError::NoSentinelPassword);
        }
        return Ok(Place::Sentinel {
            sentinels: nodes,
            master: redis.master.clone(),
            username: username.clone(),
            password_file: password_file.clone(),
        });
    }
    if username.is_some() || password_file.is_some() {
        let key = if username.is_some() { "sentinel_username" } else { "sentinel_password_file" };
        return Err(SettingsError::NoSentinel { key });
    }
    if redis.topology == "single" {
        return Ok(Place::Server(Address::new(redis.host.clone(), redis.port)));
    }
    if redis.database != 0 {
        return Err(SettingsError::ClusterDatabase);
    }
    Ok(Place::Cluster(nodes))
}

fn same_user(login: &Login) -> Result<SameUser, SettingsError> {
    let rule = match login.same_user.as_str() {
        "refuse" => SameUser::REFUSE,
        "replace" => SameUser::Replace { code: login.replaced_code },
        _ => return Ok(SameUser::Allow(NonZeroU32::new(login.same_user_max))),
    };
    if login.same_user_max > 0 { Err(SettingsError::SameUserMax) } else { Ok(rule) }
}

fn away(session: &super::Session) -> Away {
    // Checked when the document was read.
    let defaults = Away::default();
    Away {
        grace: duration::parse_or_none(&session.grace).unwrap_or(defaults.grace),
        proxy_timeout: duration::parse(&session.proxy_timeout).unwrap_or(defaults.proxy_timeout),
        counts: session.away_counts,
    }
}

/// None a second means no limit.
fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    (per_second > 0).then(|| Rate::new(per_second, burst))
}

fn address(path: &'static str, text: &str) -> Result<SocketAddr, SettingsError> {
    text.parse().map_err(|_| SettingsError::Address { path, value: text.to_owned() })
}

fn edge(document: &Document) -> Result<Listener, SettingsError> {
    let edge = &document.edge;
    let address = address("edge.listen", &edge.listen)?;
    let tls = tls_files("edge.tls", &edge.tls, false)?;
    if tls.as_ref().is_some_and(|tls| tls.client_ca.is_none()) {
        return Err(SettingsError::EdgeWithoutCa);
    }
    let protection = match (&tls, edge.behind_mesh) {
        (Some(_), true) => return Err(SettingsError::TwiceTls { side: "edge" }),
        (Some(_), false) => Protection::MutualTls,
        (None, true) => Protection::MeshMutualTls,
        (None, false) => Protection::None,
    };
    if !edge.peers.is_empty() && protection == Protection::None {
        return Err(SettingsError::NamesWithoutProof { side: "edge" });
    }
    exposure::check(Side::Edge, address, protection)?;
    let (peers, behind_mesh) = (edge.peers.clone(), edge.behind_mesh);
    Ok(Listener { address, tls, peers, behind_mesh, protection })
}

fn admin(document: &Document, edge: SocketAddr) -> Result<Listener, SettingsError> {
    let admin = &document.admin;
    let address = match &admin.listen {
        Some(text) => address("admin.listen", text)?,
        None => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), next_port(edge.port())),
    };
    let has_tokens = admin.tokens.is_some();
    let tls = tls_files("admin.tls", &admin.tls, has_tokens)?;
    let asks = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let protection = match (&tls, admin.behind_mesh) {
        (Some(_), true) => return Err(SettingsError::TwiceTls { side: "admin" }),
        (Some(_), false) if has_tokens => Protection::TlsAndToken,
        (Some(_), false) if asks => Protection::MutualTls,
        (None, true) if has_tokens || !admin.peers.is_empty() => Protection::MeshMutualTls,
        (None, true) => return Err(SettingsError::OpenAdmin),
        (_, false) => Protection::None,
    };
    if !admin.peers.is_empty() && !asks && !admin.behind_mesh {
        return Err(SettingsError::NamesWithoutProof { side: "admin" });
    }
    exposure::check(Side::Admin, address, protection)?;
    let (peers, behind_mesh) = (admin.peers.clone(), admin.behind_mesh);
    Ok(Listener { address, tls, peers, behind_mesh, protection })
}

fn app(document: &Document) -> Result<(Option<Listener>, Vec<Grant>), SettingsError> {
    let app = &document.app;
    let Some(listen) = &app.listen else {
        let rights = !app.grants.is_empty() || app.tokens.is_some() || app.behind_mesh;
        if rights || app.tls.cert.is_some() {
            return Err(SettingsError::AppNotServed);
        }
        return Ok((None, Vec::new()));
    };
    let address = address("app.listen", listen)?;
    let parse = |(index, line): (usize, &String)| {
        Grant::parse(line).map_err(|problem| SettingsError::Grant { index, problem })
    };
    let grants: Vec<_> = app.grants.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    let has_tokens = app.tokens.is_some();
    let tls = tls_files("app.tls", &app.tls, has_tokens)?;
    let asks = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let protection = match (&tls, app.behind_mesh) {
        (Some(_), true) => return Err(SettingsError::TwiceTls { side: "app" }),
        (Some(_), false) if has_tokens => Protection::TlsAndToken,
        (Some(_), false) if asks => Protection::MutualTls,
        (None, true) => Protection::MeshMutualTls,
        (_, false) => Protection::None,
    };
    if grants.is_empty() && (has_tokens || asks || app.behind_mesh) {
        return Err(SettingsError::NoGrants);
    }
    if grants.iter().any(Grant::names_peers) && !asks && !app.behind_mesh {
        let remedy = "app.tls.client_ca` or `app.behind_mesh";
        return Err(SettingsError::GrantWithoutProof { what: "a peer", remedy });
    }
    if grants.iter().any(Grant::names_tokens) && !has_tokens {
        let remedy = "app.tokens";
        return Err(SettingsError::GrantWithoutProof { what: "a token", remedy });
    }
    exposure::check(Side::App, address, protection)?;
    let behind_mesh = app.behind_mesh;
    let listener = Listener { address, tls, peers: Vec::new(), behind_mesh, protection };
    Ok((Some(listener), grants))
}

fn pushes(app: &super::App) -> PushLimits {
    let defaults = PushLimits::default();
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    PushLimits {
        max_body: number(app.max_body),
        // Checked when the document was read.
        answer_within: duration::parse(&app.answer_within).unwrap_or(defaults.answer_within),
        queue: QueueLimits {
            pushes: app.away_queue,
            bytes: app.away_queue_bytes,
            age: duration::parse(&app.away_queue_age).unwrap_or(defaults.queue.age),
        },
        in_flight: number(app.in_flight),
    }
}

/// The port after the edge's; any free one if that is any free one.
const fn next_port(port: u16) -> u16 {
    match port {
        0 => 0,
        u16::MAX => u16::MAX - 1,
        port => port.saturating_add(1),
    }
}

fn tls_files(
    section: &'static str,
    tls: &Tls,
    client_optional: bool,
) -> Result<Option<TlsFiles>, SettingsError> {
    let client_ca = tls.client_ca.clone();
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let (cert, key) = (cert.clone(), key.clone());
            Ok(Some(TlsFiles { cert, key, client_ca, client_optional }))
        }
        (None, None) if client_ca.is_some() => Err(SettingsError::CaWithoutTls { section }),
        (None, None) => Ok(None),
        _ => Err(SettingsError::HalfTls { section }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;

    fn settings(text: &str) -> Result<Settings, SettingsError> {
        let text = format!("{text}\n[keys]\ntickets = [\"t\"]");
        let document = load(Some((std::path::Path::new("c"), &text)), |_| None, &[]).unwrap();
        Settings::new(document)
    }

    #[test]
    fn the_admin_service_is_on_loopback_beside_the_edge_unless_told_otherwise() {
        let found = settings("[edge]\nlisten = \"0.0.0.0:7000\"\nbehind_mesh = true").unwrap();
        assert_eq!(found.admin.address.to_string(), "127.0.0.1:7001");
        assert_eq!(settings("[edge]\nlisten = \"[::1]:0\"").unwrap().admin.address.port(), 0);
        assert_eq!(
            settings("[edge]\nlisten = \"[::1]:65535\"").unwrap().admin.address.port(),
            65534
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_a_remedy() {
        const TLS: &str = "[admin.tls]\ncert = \"c\"\nkey = \"k\"\n";
        for (text, named) in [
            ("[edge]\nlisten = \"here\"", "`edge.listen`"),
            ("[metrics]\nlisten = \"9\"", "`metrics.listen`"),
            ("[edge]\nlisten = \"0.0.0.0:1\"", "--behind-mesh-mtls"),
            ("[admin]\nlisten = \"0.0.0.0:1\"", "`admin.tokens`"),
            ("[admin]\nlisten = \"0.0.0.0:1\"\ntokens = \"t\"", "`admin.tls.cert`"),
            ("[edge.tls]\ncert = \"c\"", "`edge.tls.key`"),
            ("[edge.tls]\ncert = \"c\"\nkey = \"k\"", "client_ca"),
            ("[admin.tls]\nclient_ca = \"c\"", "`admin.tls.cert`"),
            ("[edge]\npeers = [\"a\"]", "`edge.behind_mesh`"),
            ("[admin]\npeers = [\"a\"]", "`admin.tls.client_ca`"),
            ("[admin]\nbehind_mesh = true", "every workload"),
            ("[store]\nkind = \"redis\"\nredis.prefix = \"a{b\"", "`store.redis.prefix`"),
            ("[store]\nkind = \"redis\"\nredis.username = \"a\"", "password_file"),
            ("[store]\nkind = \"redis\"\nredis.tls_cert = \"a\"", "`store.redis.tls_key`"),
            ("[store]\nkind = \"redis\"\nredis.tls_ca = \"a\"", "`store.redis.tls = true`"),
            ("[store]\nkind = \"redis\"\nredis.topology = \"cluster\"", "`store.redis.nodes`"),
            ("[store]\nkind = \"redis\"\nredis.nodes = [\"a:1\"]", "`single`"),
            (
                "[store]\nkind = \"redis\"\nredis.topology = \"cluster\"\nredis.nodes = [\"a\"]",
                "`store.redis.nodes[0]`",
            ),
            (
                "[store]\nkind = \"redis\"\nredis.topology = \"cluster\"\n\
                 redis.nodes = [\"a:1\"]\nredis.database = 1",
                "`store.redis.database`",
            ),
            (
                "[store]\nkind = \"redis\"\nredis.sentinel_password_file = \"a\"",
                "`store.redis.sentinel_password_file`",
            ),
            (
                "[store]\nkind = \"redis\"\nredis.topology = \"sentinel\"\n\
                 redis.nodes = [\"a:1\"]\nredis.sentinel_username = \"u\"",
                "sentinel_password_file",
            ),
            ("[login]\nsame_user = \"refuse\"\nsame_user_max = 2", "`login.same_user_max`"),
            (&format!("[admin]\nbehind_mesh = true\n{TLS}"), "exclude"),
            ("[app]\nlisten = \"0.0.0.0:1\"", "`app.grants`"),
            ("[app]\nbehind_mesh = true", "`app.listen`"),
            ("[app]\nlisten = \"127.0.0.1:1\"\ntokens = \"t\"", "grants nothing"),
            ("[app]\nlisten = \"127.0.0.1:1\"\nbehind_mesh = true", "grants nothing"),
            (
                "[app]\nlisten = \"127.0.0.1:1\"\ngrants = [\"peer=a audience=b may=push\"]",
                "`app.behind_mesh`",
            ),
            (
                "[app]\nlisten = \"127.0.0.1:1\"\ngrants = [\"token=a audience=b may=push\"]",
                "`app.tokens`",
            ),
            (
                "[app]\nlisten = \"127.0.0.1:1\"\ngrants = [\"token=a audience=b may=all\"]",
                "`app.grants[0]`",
            ),
        ] {
            let error = settings(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        let document = load(None, |_| None, &[]).unwrap();
        assert_eq!(Settings::new(document).unwrap_err(), SettingsError::NoKeys);
        for good in [
            "[admin]\nlisten = \"0.0.0.0:1\"\nbehind_mesh = true\npeers = [\"a\"]".to_owned(),
            format!("[admin]\nlisten = \"0.0.0.0:1\"\ntokens = \"t\"\n{TLS}"),
            format!("[admin]\nlisten = \"0.0.0.0:1\"\n{TLS}client_ca = \"a\""),
        ] {
            settings(&good).unwrap();
        }
    }
}
