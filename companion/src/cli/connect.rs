//! How the tool reaches a companion.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::files;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

#[derive(Args)]
pub struct Connect {
    /// The address of the companion's admin service
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7601",
        env = "MESHGATE_SERVER"
    )]
    server: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
pub struct ConnectApp {
    /// The address of the companion's app service
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7602",
        env = "MESHGATE_APP_SERVER"
    )]
    server: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct How {
    /// A file with a bearer token, as `meshgate token new` prints it; or MESHGATE_TOKEN
    #[arg(long, value_name = "FILE", env = "MESHGATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The certificate authority that signed the companion's certificate; switches TLS on
    #[arg(long, value_name = "PEM", env = "MESHGATE_CA")]
    ca: Option<PathBuf>,
    /// This client's certificate
    #[arg(long, value_name = "PEM", requires_all = ["ca", "key"], env = "MESHGATE_CERT")]
    cert: Option<PathBuf>,
    /// The key of this client's certificate
    #[arg(long, value_name = "PEM", requires = "cert", env = "MESHGATE_KEY")]
    key: Option<PathBuf>,
    /// The name in the companion's certificate, where it is not the address
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
}

/// A connection on which every call shows the token, where there is one.
pub type Connection = InterceptedService<Channel, Bearer>;

/// Adds the token to calls.
#[derive(Clone)]
pub struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Connect {
    pub async fn connection(&self) -> anyhow::Result<Connection> {
        self.how.connection(&self.server).await
    }
}

impl ConnectApp {
    pub async fn connection(&self) -> anyhow::Result<Connection> {
        self.how.connection(&self.server).await
    }
}

impl How {
    async fn connection(&self, server: &str) -> anyhow::Result<Connection> {
        let bearer = self.bearer()?;
        Ok(InterceptedService::new(self.channel(server).await?, bearer))
    }

    fn bearer(&self) -> anyhow::Result<Bearer> {
        let token = match &self.token_file {
            Some(path) => Some(Zeroizing::new(String::from_utf8_lossy(&files::read(path)?).into())),
            None => std::env::var("MESHGATE_TOKEN").ok().map(Zeroizing::new),
        };
        let Some(token): Option<Zeroizing<String>> = token else { return Ok(Bearer(None)) };
        let header = Zeroizing::new(format!("Bearer {}", token.trim()));
        let mut value: AsciiMetadataValue =
            header.parse().context("the token holds what no token holds")?;
        // Never in any output for debugging.
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    async fn channel(&self, server: &str) -> anyhow::Result<Channel> {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{server}"))
            .with_context(|| format!("`{server}` is no HOST:PORT"))?
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN);
        if let Some(ca) = &self.ca {
            let mut tls =
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(files::read(ca)?));
            if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
                tls = tls.identity(Identity::from_pem(files::read(cert)?, files::read(key)?));
            }
            if let Some(name) = &self.server_name {
                tls = tls.domain_name(name);
            }
            endpoint = endpoint.tls_config(tls).context("the TLS files cannot be used")?;
        }
        endpoint.connect().await.with_context(|| {
            let hint = if self.ca.is_some() {
                "is it running, and does it accept this certificate?"
            } else {
                "is it running there, and without TLS (else give --ca, --cert and --key)?"
            };
            format!("cannot reach the companion at {server}; {hint}")
        })
    }
}

/// A failed call of the app service as a person reads it.
pub fn app_said(status: Status) -> anyhow::Error {
    if status.code() == Code::Unimplemented {
        return anyhow::anyhow!(
            "this is not the companion's app service: that is where `app.listen` says"
        );
    }
    said(status)
}

/// A failed call of the admin service as a person reads it.
pub fn said(status: Status) -> anyhow::Error {
    if status.code() == Code::Unimplemented {
        return anyhow::anyhow!(
            "this is not the companion's admin service: by default it is on the port after the one \
             that proxies attach to"
        );
    }
    anyhow::anyhow!("the companion says: {} ({:?})", status.message(), status.code())
}
