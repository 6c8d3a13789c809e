//! The companion's configuration: one TOML file, overridden by the environment, overridden by
//! flags.
//!
//! The types here are the document as it is written. Their comments, defaults and marks are the
//! reference (`CONFIG.md`, `meshgate config reference`), the check for unknown keys and the names
//! of the environment's variables: all by [`schema`]. [`settings`] turns a document into what the
//! companion works with.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod duration;
pub mod load;
pub mod reference;
pub mod schema;
pub mod settings;

/// A whole configuration. `x-reload` marks what SIGHUP reloads, `x-path` what names files:
/// relative ones count from the configuration file's folder.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// Names this replica to proxies and in logs. Without it: the host's name.
    pub name: Option<String>,
    pub edge: Edge,
    pub admin: Admin,
    pub app: App,
    pub metrics: Metrics,
    pub store: Store,
    pub login: Login,
    pub verifier: Verifier,
    pub session: Session,
    pub keys: Keys,
    pub jwks: Jwks,
    pub log: Log,
}

/// Where proxies attach.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Edge {
    /// Address and port. Other than a loopback address only with `edge.tls` and a `client_ca`, or
    /// with `edge.behind_mesh`: traffic keys are handed out here.
    pub listen: String,
    /// The mesh lets only authenticated workloads reach this port (Istio: PeerAuthentication
    /// STRICT and an AuthorizationPolicy). Nothing here can check that. The caller's identity is
    /// read from the sidecar's `x-forwarded-client-cert`.
    pub behind_mesh: bool,
    /// The identities that may attach, of a client certificate (URI, DNS name or common name) or
    /// of the mesh; `*` stands for any characters. Empty: every authenticated peer.
    #[schemars(extend("x-reload" = true))]
    pub peers: Vec<String>,
    pub tls: Tls,
}

impl Default for Edge {
    fn default() -> Self {
        let listen = "127.0.0.1:7600".into();
        Self { listen, behind_mesh: false, peers: Vec::new(), tls: Tls::default() }
    }
}

/// Where operators call.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port. Without it: 127.0.0.1 and the port after the edge's. Other than a
    /// loopback address only with `admin.tls` and tokens or a `client_ca`, or with
    /// `admin.behind_mesh` and tokens or peers.
    pub listen: Option<String>,
    /// As `edge.behind_mesh`.
    pub behind_mesh: bool,
    /// The identities that may call without a token; as `edge.peers`. Empty: every peer with a
    /// certificate that `admin.tls.client_ca` signed; behind the mesh, none.
    #[schemars(extend("x-reload" = true))]
    pub peers: Vec<String>,
    /// A file of bearer tokens' names and SHA-256 hashes, as `meshgate token new` writes it. Where
    /// it is given, nobody calls without a token or an accepted certificate.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub tokens: Option<PathBuf>,
    pub tls: Tls,
}

/// Where services of the game call: pushes, groups, who is there.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct App {
    /// Address and port. Without it: not served. Other than a loopback address only with grants, and
    /// with `app.tls` and tokens or a `client_ca`, or with `app.behind_mesh`.
    pub listen: Option<String>,
    /// As `edge.behind_mesh`.
    pub behind_mesh: bool,
    /// Who may do what: each line names identities (`peer=`, as in `edge.peers`) or tokens
    /// (`token=`), the audiences of sessions (`audience=`) and the groups (`group=`) that they may
    /// reach, and by what (`may=push`, `may=groups`, `may=lookup`, `may=events`); `*` stands for
    /// any characters, a key may stand several times. Such as `peer=spiffe://d/ns/games/sa/chat
    /// audience=game group=room:* may=push may=groups`. Empty: on a loopback address without TLS
    /// and tokens everybody may do everything.
    #[schemars(extend("x-reload" = true))]
    pub grants: Vec<String>,
    /// As `admin.tokens`; which one may do what is in `app.grants`.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub tokens: Option<PathBuf>,
    pub tls: Tls,
    /// The longest body of a push, in bytes.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 262144))]
    pub max_body: u32,
    /// How long a push waits for the answers of proxies; what is not answered then is unconfirmed.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub answer_within: String,
    /// Pushes that one worker of a proxy may have unanswered; beyond, they are told to be slow.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 4096))]
    pub in_flight: u32,
    /// How many pushes may wait for a session that is away, to be sent when its client comes back;
    /// beyond, they are told to be slow. 0: none waits, and their sender hears that it is away.
    #[schemars(range(max = 1000), extend("x-reload" = true))]
    pub away_queue: u32,
    /// How many bytes of them, for each session.
    #[schemars(range(min = 1, max = 1_048_576), extend("x-reload" = true))]
    pub away_queue_bytes: u32,
    /// How long they may wait.
    #[schemars(extend("format" = "duration", "x-reload" = true))]
    pub away_queue_age: String,
    /// How many members a group may have; those that it has stay.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 100000))]
    pub group_members: u32,
    /// In how many groups a session may be; those that it is in stay.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 1000))]
    pub session_groups: u32,
}

impl Default for App {
    fn default() -> Self {
        Self {
            listen: None,
            behind_mesh: false,
            grants: Vec::new(),
            tokens: None,
            tls: Tls::default(),
            max_body: 65_536,
            answer_within: "2s".into(),
            in_flight: 1024,
            away_queue: 0,
            away_queue_bytes: 65_536,
            away_queue_age: "60s".into(),
            group_members: 10_000,
            session_groups: 64,
        }
    }
}

/// The listener's own TLS. Files are read anew when they change.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The listener's certificate chain, PEM. Switches TLS on.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub key: Option<PathBuf>,
    /// The authority that signs the certificates of those who call, PEM. Nobody gets in without
    /// one, but operators with a token.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub client_ca: Option<PathBuf>,
}

/// Where Prometheus scrapes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port of `GET /metrics` over HTTP. Without it: not served. Names no user, no
    /// address and no secret, so any address will do.
    pub listen: Option<String>,
}

/// What survives a restart.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `redb`: a file, for one companion. `redis`: a Redis (7 or later) or Valkey server that
    /// several companions share.
    #[schemars(extend("enum" = ["redb", "redis"]))]
    pub kind: String,
    /// With `redb`: the file that holds sessions and used credentials; made if it is not there.
    #[schemars(extend("x-path" = true))]
    pub path: PathBuf,
    pub redis: Redis,
}

impl Default for Store {
    fn default() -> Self {
        Self { kind: "redb".into(), path: "meshgate.redb".into(), redis: Redis::default() }
    }
}

/// With `store.kind = "redis"`: the server, or the servers that stand for it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `single`: one server, `host` and `port`. `sentinel`: the master that the sentinels in
    /// `nodes` name. `cluster`: the master that has the slot of `prefix`, in the Redis Cluster that
    /// the servers in `nodes` belong to.
    #[schemars(extend("enum" = ["single", "sentinel", "cluster"]))]
    pub topology: String,
    /// With `sentinel`: all sentinels. With `cluster`: some servers; the others are learned from
    /// them. Each `host:port`.
    pub nodes: Vec<String>,
    /// With `sentinel`: what they call the master.
    pub master: String,
    /// With `sentinel`: the ACL user at the sentinels.
    pub sentinel_username: Option<String>,
    /// With `sentinel`: a file with the password for the sentinels.
    #[schemars(extend("x-path" = true))]
    pub sentinel_password_file: Option<PathBuf>,
    /// With `sentinel` and `cluster`: so many replicas have each login, end and move before
    /// anybody hears of it; as many as are attached, if those are fewer. 0: a fail-over may forget
    /// the newest of them.
    #[schemars(range(max = 5))]
    pub confirm: u8,
    /// With `single`: host name or address.
    pub host: String,
    /// With `single`: its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The ACL user. Without it: the default one.
    pub username: Option<String>,
    /// A file with the user's password, read anew for each connection.
    #[schemars(extend("x-path" = true))]
    pub password_file: Option<PathBuf>,
    /// The database's number; a Cluster has only 0.
    #[schemars(range(max = 65535))]
    pub database: u32,
    /// All keys begin with this in braces, `{meshgate}:`. Companions that share sessions have the
    /// same; letters, digits, `-`, `_`, `.` and `:`.
    pub prefix: String,
    /// What takes longer has failed; then logins are told to try again until the server works.
    #[schemars(extend("format" = "duration"))]
    pub timeout: String,
    /// TLS to the servers (and sentinels), whose certificates must be good for the host that each
    /// is called by.
    pub tls: bool,
    /// The authority that signs the server's certificate, PEM. Without it: those that the system
    /// trusts.
    #[schemars(extend("x-path" = true))]
    pub tls_ca: Option<PathBuf>,
    /// The certificate that the companion shows, PEM; needs `tls_key`.
    #[schemars(extend("x-path" = true))]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[schemars(extend("x-path" = true))]
    pub tls_key: Option<PathBuf>,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            topology: "single".into(),
            nodes: Vec::new(),
            master: "mymaster".into(),
            sentinel_username: None,
            sentinel_password_file: None,
            confirm: 1,
            host: "127.0.0.1".into(),
            port: 6379,
            username: None,
            password_file: None,
            database: 0,
            prefix: "meshgate".into(),
            timeout: "1s".into(),
            tls: false,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// Who gets in, and how fast.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// The audiences that are served here. Empty: whichever the credential is for.
    #[schemars(extend("x-reload" = true))]
    pub audiences: Vec<String>,
    /// When a credential works a single time: in `noise` logins, `always`, or `never` but for
    /// tickets that say `once`.
    #[schemars(extend("x-reload" = true, "enum" = ["noise", "always", "never"]))]
    pub single_use: String,
    /// When a user logs in who has a session already: `refuse` the new login, `replace` the old
    /// session (its client gets a goodbye with a reason), or `allow` both. Sessions count over all
    /// audiences, proxies and replicas, and from their first genuine frame on.
    #[schemars(extend("x-reload" = true, "enum" = ["allow", "refuse", "replace"]))]
    pub same_user: String,
    /// With `allow`: how many sessions one user may have at a time; more are refused. 0: any
    /// number.
    #[schemars(extend("x-reload" = true), range(max = 1000000))]
    pub same_user_max: u32,
    /// With `replace`: the number in the old session's goodbye, beside "logged in elsewhere".
    #[schemars(extend("x-reload" = true), range(max = 4294967295_u32))]
    pub replaced_code: u32,
    /// How long a session lives at most; counts for sessions that begin from now on.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub session_lifetime: String,
    /// Logins under way at once. Beyond, the one that has waited longest is told to try again.
    #[schemars(range(min = 1, max = 65536))]
    pub max_under_way: u32,
    /// Who is sent away for a cookie before anything is worked out for him: nobody (`off`), everybody
    /// (`always`), or (`auto`) who comes while more than `cookie_rate` a second do. It takes clients
    /// that know cookies (`filter/src/session/PROTOCOL.md`); others cannot log in then.
    #[schemars(extend("x-reload" = true, "enum" = ["off", "auto", "always"]))]
    pub cookie: String,
    /// With `cookie = "auto"`: logins a second without a cookie, in the long run.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 1000000))]
    pub cookie_rate: u32,
    /// With `cookie = "auto"`: logins without a cookie at once.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 1000000))]
    pub cookie_burst: u32,
    /// Logins a second from one client address (of IPv6: one /64) in the long run; more are told
    /// to try again. 0: no limit. Only where proxies see the clients' own addresses; many players
    /// can share one.
    #[schemars(extend("x-reload" = true), range(max = 1000000))]
    pub address_rate: u32,
    /// Logins from one client address at once.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 1000000))]
    pub address_burst: u32,
    /// Logins a second in all in the long run; more are told to try again. 0: no limit.
    #[schemars(extend("x-reload" = true), range(max = 1000000))]
    pub total_rate: u32,
    /// Logins in all at once.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 1000000))]
    pub total_burst: u32,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            audiences: Vec::new(),
            single_use: "noise".into(),
            same_user: "allow".into(),
            same_user_max: 0,
            replaced_code: 0,
            session_lifetime: "12h".into(),
            max_under_way: 4096,
            cookie: "off".into(),
            cookie_rate: 500,
            cookie_burst: 2000,
            address_rate: 0,
            address_burst: 50,
            total_rate: 0,
            total_burst: 2000,
        }
    }
}

/// What becomes of a session whose connection is gone.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// How long it waits, away, for its client to resume it over another connection. `0s`: it ends
    /// with its connection.
    #[schemars(extend("x-reload" = true, "format" = "duration-or-none"))]
    pub grace: String,
    /// Whether clients get a token to resume with. Needs a secret that all replicas have: a master
    /// key (`keys.master_files` and the like), or else a Noise key. Without it, or without tokens, a
    /// session ends with its connection.
    #[schemars(extend("x-reload" = true))]
    pub resume: bool,
    /// How long a worker of a proxy may be without its stream until its sessions are away.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub proxy_timeout: String,
    /// Whether a session that is away counts where `login.same_user` counts. If not, it ends where
    /// there is no room for it beside a new one.
    #[schemars(extend("x-reload" = true))]
    pub away_counts: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self { grace: "60s".into(), resume: true, proxy_timeout: "30s".into(), away_counts: false }
    }
}

/// What credentials are checked with.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// Key files of kind `noise`: the static keys of Noise logins, all valid at once.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub noise: Vec<PathBuf>,
    /// Key files that tickets are checked with, all valid at once.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub tickets: Vec<PathBuf>,
    /// A key ring, as `meshgate key` keeps it: Noise and ticket keys, sealed by a master key. All
    /// of its keys are valid at once, beside those of the files above.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub ring: Option<PathBuf>,
    /// Files with the master keys that open the ring. A master key may also stand in the variable
    /// MESHGATE_MASTER_KEY, as its file would.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub master_files: Vec<PathBuf>,
    /// A command for `sh -c` that prints a master key file within 30 seconds, such as a KMS client.
    #[schemars(extend("x-reload" = true))]
    pub master_command: Option<String>,
    /// JWK or JWK set files that JSON Web Tokens are checked with; each key must say its `alg`.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub jwks: Vec<PathBuf>,
    /// The `iss` that JSON Web Tokens may have. Empty: any whose key signed.
    #[schemars(extend("x-reload" = true))]
    pub jwt_issuers: Vec<String>,
}

/// An issuer's keys for JSON Web Tokens, fetched from a URL; beside those of `keys.jwks`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwks {
    /// Where the JWK set is, such as `https://login.example/.well-known/jwks.json`. `http://` only on
    /// this machine, or with `behind_mesh`. Secret keys (`oct`) in it are passed over.
    #[schemars(extend("x-reload" = true))]
    pub url: Option<String>,
    /// As `verifier.behind_mesh`.
    #[schemars(extend("x-reload" = true))]
    pub behind_mesh: bool,
    /// The algorithm of keys that say none, and the only one: keys of another are passed over.
    /// With `any` each key must say its `alg`.
    #[schemars(extend("x-reload" = true, "enum" = ["any", "EdDSA", "ES256", "RS256"]))]
    pub algorithm: String,
    /// How often it is fetched.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub refresh: String,
    /// A token with an unknown key has it fetched at once, but not within this time after the last
    /// time.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub cool_down: String,
    /// How long a fetch may take.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub timeout: String,
    pub tls: OutboundTls,
}

impl Default for Jwks {
    fn default() -> Self {
        Self {
            url: None,
            behind_mesh: false,
            algorithm: "any".into(),
            refresh: "5m".into(),
            cool_down: "30s".into(),
            timeout: "5s".into(),
            tls: OutboundTls::default(),
        }
    }
}

/// A login server of your own, which is asked about credentials that mean something to it alone.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Verifier {
    /// `grpc`: it implements `meshgate.verifier.v1.Verifier`. `http`: it takes a POST of JSON. `off`:
    /// nobody is asked.
    #[schemars(extend("x-reload" = true, "enum" = ["off", "grpc", "http"]))]
    pub kind: String,
    /// Where it is: `https://login.internal:8443` by gRPC, with a path by HTTP. `http://` only to
    /// this machine, or with `behind_mesh`.
    #[schemars(extend("x-reload" = true))]
    pub url: Option<String>,
    /// The mesh encrypts what goes to a `http://` URL and lets nobody else be the login server.
    /// Nothing here can check that.
    #[schemars(extend("x-reload" = true))]
    pub behind_mesh: bool,
    /// Which credentials it is asked about: `others`, which are neither a MeshGate ticket nor a JSON
    /// Web Token, or `all`.
    #[schemars(extend("x-reload" = true, "enum" = ["others", "all"]))]
    pub takes: String,
    /// A file with a bearer token to show, read anew every ten seconds.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub token_file: Option<PathBuf>,
    /// How long an answer may take; then the client is told to try again. Together with the wait
    /// for its turn it should stay below what proxies let a login take
    /// (`session.login.handshake_timeout`, 3 s).
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub timeout: String,
    /// Questions under way at once; beyond, clients are told to try again.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 65536))]
    pub max_concurrent: u32,
    /// How many answers are remembered. 0: none.
    #[schemars(extend("x-reload" = true), range(max = 1000000))]
    pub cache_entries: u32,
    /// For how long an accepted credential is, from the same address; at most, and only if the
    /// answer says that it may be.
    #[schemars(extend("x-reload" = true, "format" = "duration-or-none"))]
    pub cache_accepted: String,
    /// For how long a refused credential is; less if the answer says so.
    #[schemars(extend("x-reload" = true, "format" = "duration-or-none"))]
    pub cache_refused: String,
    /// So many questions in a row without an answer, and it is not asked for a while.
    #[schemars(extend("x-reload" = true), range(min = 1, max = 1000000))]
    pub breaker_failures: u32,
    /// For how long. Then one question decides.
    #[schemars(extend("x-reload" = true, "format" = "duration"))]
    pub breaker_pause: String,
    pub tls: OutboundTls,
}

impl Default for Verifier {
    fn default() -> Self {
        Self {
            kind: "off".into(),
            url: None,
            behind_mesh: false,
            takes: "others".into(),
            token_file: None,
            timeout: "2s".into(),
            max_concurrent: 256,
            cache_entries: 10_000,
            cache_accepted: "60s".into(),
            cache_refused: "3s".into(),
            breaker_failures: 10,
            breaker_pause: "2s".into(),
            tls: OutboundTls::default(),
        }
    }
}

/// TLS to a server, whose certificate must be good for the name in its URL.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundTls {
    /// The authority that signs the server's certificate, PEM. Without it: those that the system
    /// trusts.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub ca: Option<PathBuf>,
    /// The certificate that the companion shows, PEM; needs `key`.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[schemars(extend("x-reload" = true, "x-path" = true))]
    pub key: Option<PathBuf>,
}

/// What is logged on standard error.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or targets with levels such as
    /// `info,meshgate_companion=debug`.
    #[schemars(extend("x-reload" = true))]
    pub filter: String,
    #[doc = "`text` for people, `json` for machines."]
    #[schemars(extend("enum" = ["text", "json"]))]
    pub format: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: "text".into() }
    }
}
