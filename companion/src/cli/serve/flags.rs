//! The flags of `meshgate serve`: each stands for a key of the configuration and overrides it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::config::duration;
use crate::config::load::{Override, load};
use crate::config::settings::Settings;

#[derive(Args, Clone)]
pub struct Flags {
    /// The configuration file (TOML); `meshgate config reference` lists its keys
    #[arg(long, value_name = "FILE", env = "MESHGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Override any key of the configuration, such as `--set login.max_under_way=100`; lists with
    /// commas
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,

    /// `edge.listen`: where proxies attach [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// `admin.listen`: where operators call [default: 127.0.0.1, the port after the edge's]
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<SocketAddr>,
    /// `app.listen`: where services of the game call [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    app_listen: Option<SocketAddr>,
    /// `metrics.listen`: where Prometheus scrapes [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// `store.path`: the file that holds sessions and used credentials [default: meshgate.redb]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// `name`: names this replica to proxies and in logs [default: the host's name]
    #[arg(long)]
    name: Option<String>,

    /// `keys.noise`: a static key of Noise logins; several are valid at once
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Credentials")]
    noise_key: Vec<PathBuf>,
    /// `keys.tickets`: a key that tickets are checked with; several are valid at once
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Credentials")]
    ticket_key: Vec<PathBuf>,
    /// `keys.ring`: a ring of sealed keys, as `meshgate key` keeps it
    #[arg(long, value_name = "FILE", help_heading = "Credentials")]
    key_ring: Option<PathBuf>,
    /// `keys.master_files`: a master key that opens the ring; several may be given
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Credentials")]
    master_file: Vec<PathBuf>,
    /// `keys.jwks`: a JWK or JWK set that JSON Web Tokens are checked with
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Credentials")]
    jwt_key: Vec<PathBuf>,
    /// `keys.jwt_issuers`: an `iss` that JSON Web Tokens may have [default: any whose key signed]
    #[arg(long, value_name = "ISSUER", value_delimiter = ',', help_heading = "Credentials")]
    jwt_issuer: Vec<String>,
    /// `login.audiences`: an audience that is served [default: whichever the credential is for]
    #[arg(long, value_delimiter = ',', help_heading = "Credentials")]
    audience: Vec<String>,
    /// `login.single_use`: when a credential works a single time [default: noise]
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(["noise", "always", "never"]),
        help_heading = "Credentials"
    )]
    single_use: Option<String>,
    /// `login.session_lifetime`: how long a session lives at most [default: 12h]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    session_lifetime: Option<String>,
    /// `login.max_under_way`: logins under way at once; more are told to try again [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_logins: Option<u32>,

    /// `edge.tls.cert`: the certificate chain that proxies see
    #[arg(
        long,
        value_name = "PEM",
        requires_all = ["tls_key", "client_ca"],
        help_heading = "Protection"
    )]
    tls_cert: Option<PathBuf>,
    /// `edge.tls.key`: the key of that certificate
    #[arg(long, value_name = "PEM", requires = "tls_cert", help_heading = "Protection")]
    tls_key: Option<PathBuf>,
    /// `edge.tls.client_ca`: the authority that signs the certificates of proxies
    #[arg(long, value_name = "PEM", requires = "tls_cert", help_heading = "Protection")]
    client_ca: Option<PathBuf>,
    /// `edge.behind_mesh`: only workloads that the mesh has authenticated reach this port (Istio:
    /// PeerAuthentication STRICT and an AuthorizationPolicy). Nothing here can check that
    #[arg(long, conflicts_with = "tls_cert", help_heading = "Protection")]
    behind_mesh_mtls: bool,
    /// `admin.tokens`: the file of operators' bearer tokens, as `meshgate token new` writes it
    #[arg(long, value_name = "FILE", help_heading = "Protection")]
    admin_tokens: Option<PathBuf>,

    /// `log.filter`: a level, or targets with levels such as `info,meshgate_companion=debug`
    #[arg(long = "log", value_name = "FILTER")]
    filter: Option<String>,
    /// `log.format`: for people or for machines [default: text]
    #[arg(long = "log-format", value_parser = PossibleValuesParser::new(["text", "json"]))]
    format: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("`{text}`: write KEY=VALUE"))?;
    Ok((pair.0.trim().to_owned(), pair.1.to_owned()))
}

fn span(text: &str) -> Result<String, String> {
    duration::parse(text).map(|_| text.to_owned())
}

impl Flags {
    /// Reads file and environment, and puts the flags on top. To be called again for a reload.
    pub fn read(&self) -> anyhow::Result<Settings> {
        let text = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?;
                Some((path.as_path(), text))
            }
            None => None,
        };
        let file: Option<(&Path, &str)> = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        let variable = |name: &str| std::env::var(name).ok();
        Ok(Settings::new(load(file, variable, &self.overrides())?)?)
    }

    fn overrides(&self) -> Vec<Override> {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let list = |paths: &[PathBuf]| {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            (!paths.is_empty()).then(|| paths.join(","))
        };
        let texts = |texts: &[String]| (!texts.is_empty()).then(|| texts.join(","));
        let given = [
            ("--listen", "edge.listen", self.listen.map(|address| address.to_string())),
            ("--admin-listen", "admin.listen", self.admin_listen.map(|a| a.to_string())),
            ("--app-listen", "app.listen", self.app_listen.map(|a| a.to_string())),
            ("--metrics-listen", "metrics.listen", self.metrics_listen.map(|a| a.to_string())),
            ("--store", "store.path", text(&self.store)),
            ("--name", "name", self.name.clone()),
            ("--noise-key", "keys.noise", list(&self.noise_key)),
            ("--ticket-key", "keys.tickets", list(&self.ticket_key)),
            ("--key-ring", "keys.ring", text(&self.key_ring)),
            ("--master-file", "keys.master_files", list(&self.master_file)),
            ("--jwt-key", "keys.jwks", list(&self.jwt_key)),
            ("--jwt-issuer", "keys.jwt_issuers", texts(&self.jwt_issuer)),
            ("--audience", "login.audiences", texts(&self.audience)),
            ("--single-use", "login.single_use", self.single_use.clone()),
            ("--session-lifetime", "login.session_lifetime", self.session_lifetime.clone()),
            ("--max-logins", "login.max_under_way", self.max_logins.map(|n| n.to_string())),
            ("--tls-cert", "edge.tls.cert", text(&self.tls_cert)),
            ("--tls-key", "edge.tls.key", text(&self.tls_key)),
            ("--client-ca", "edge.tls.client_ca", text(&self.client_ca)),
            (
                "--behind-mesh-mtls",
                "edge.behind_mesh",
                self.behind_mesh_mtls.then(|| "true".to_owned()),
            ),
            ("--admin-tokens", "admin.tokens", text(&self.admin_tokens)),
            ("--log", "log.filter", self.filter.clone()),
            ("--log-format", "log.format", self.format.clone()),
        ];
        let named = given.into_iter().filter_map(|(from, path, value)| {
            value.map(|value| Override { from: from.into(), path: path.into(), value })
        });
        let set = self.set.iter().map(|(path, value)| Override {
            from: "--set".into(),
            path: path.clone(),
            value: value.clone(),
        });
        named.chain(set).collect()
    }
}
