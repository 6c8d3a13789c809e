//! HTTP/1.1 to others: a login server, an issuer's key set. TLS by the authorities that the system
//! trusts or by one that is named, answers of bounded size, no redirect followed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

/// Connections that wait for their next request.
const IDLE: usize = 64;
/// Less than servers and what stands before them commonly allow.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Of an answer's head.
const MAX_HEAD: usize = 64 << 10;

/// What TLS to the other side needs, by files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundTls {
    /// The authority that signs the server's certificate; without it, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The same, read.
pub struct TlsContents {
    pub ca: Option<Vec<u8>>,
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl OutboundTls {
    pub fn read(&self) -> anyhow::Result<TlsContents> {
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let identity = match &self.identity {
            Some((cert, key)) => Some((read(cert)?, Zeroizing::new(read(key)?))),
            None => None,
        };
        Ok(TlsContents { ca: self.ca.as_deref().map(read).transpose()?, identity })
    }

    fn client(&self) -> anyhow::Result<ClientConfig> {
        let contents = self.read()?;
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()?;
        let config = match &contents.ca {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem).context("the authority's certificate")? {
                    roots.add(certificate)?;
                }
                config.with_root_certificates(roots)
            }
            None => config.with_native_roots().context("the authorities of the system")?,
        };
        match &contents.identity {
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).context("no private key in PEM")?;
                let chain = certificates(cert).context("the certificate")?;
                config.with_client_auth_cert(chain, key).context("certificate and key")
            }
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        bail!("no certificate in PEM");
    }
    Ok(certificates)
}

/// What is wrong with an answer. Tells nothing of the question.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0}")]
    Unreachable(String),
    #[error("HTTP {0}")]
    Status(StatusCode),
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    #[error("it breaks off: {0}")]
    Broken(String),
}

#[derive(Clone)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub fn new(tls: &OutboundTls) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.client()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE)
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        Ok(Self(client))
    }

    /// The body of an answer with the status 200, of at most `most` bytes. Any other status,
    /// redirects too, is an error.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Bytes, HttpError> {
        let answer = self.0.request(request).await;
        let answer = answer.map_err(|error| HttpError::Unreachable(causes(&error)))?;
        if answer.status() != StatusCode::OK {
            return Err(HttpError::Status(answer.status()));
        }
        match Limited::new(answer.into_body(), most).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge(most)),
            Err(error) => Err(HttpError::Broken(causes(error.as_ref()))),
        }
    }
}

/// An error with what caused it, in one line.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Whether what goes there can be read on the way by nobody but this machine: `https`, or a
/// loopback address.
pub fn is_private(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    uri.scheme_str() == Some("https") || loopback || host == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_private() {
        let private = |text: &str| is_private(&text.parse().unwrap());
        assert!(private("https://login.example/verify") && private("http://127.0.0.9:1/x"));
        assert!(private("http://[::1]:7/x") && private("http://localhost/x"));
        assert!(!private("http://login.example/verify") && !private("http://10.0.0.1/"));
        assert!(!private("http://localhost.example/") && !private("http://127.0.0.1.example/"));
    }
}
