//! A listener's TLS, with certificates that are read anew while it serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::peer;
use crate::live::Live;

/// Where a listener's certificates are, and what it asks of those who call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Signs the certificates of callers. Without it nobody is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whoever has no certificate gets in as well, to show something else.
    pub client_optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TlsError {
    pub path: String,
    pub problem: String,
}

/// The TLS of one listener, as it is now.
pub struct Tls {
    acceptor: Live<TlsAcceptor>,
    state: Mutex<State>,
}

struct State {
    files: TlsFiles,
    /// Of the files' contents.
    digest: [u8; 32],
    expiry: Option<u64>,
}

struct Contents {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let digest = contents.digest();
        let (acceptor, expiry) = contents.acceptor(&files)?;
        let state = Mutex::new(State { files, digest, expiry });
        Ok(Self { acceptor: Live::new(acceptor), state })
    }

    /// Takes other files, or the same with other contents, for the connections that come; `true`
    /// if anything is new. After an error everything is as it was.
    pub fn reload(&self, files: TlsFiles) -> Result<bool, TlsError> {
        let contents = Contents::read(&files)?;
        let digest = contents.digest();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.digest == digest && state.files == files {
            return Ok(false);
        }
        let (acceptor, expiry) = contents.acceptor(&files)?;
        *state = State { files, digest, expiry };
        self.acceptor.set(acceptor);
        Ok(true)
    }

    /// The files that are in use.
    pub fn files(&self) -> TlsFiles {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    /// When the certificate expires, in seconds since the Unix epoch.
    pub fn expiry(&self) -> Option<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).expiry
    }

    pub fn acceptor(&self) -> Arc<TlsAcceptor> {
        self.acceptor.get()
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| wrong(path, error));
        Ok(Self {
            cert: read(&files.cert)?,
            key: Zeroizing::new(read(&files.key)?),
            client_ca: files.client_ca.as_ref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.cert, &*self.key, self.client_ca.as_ref().unwrap_or(&Vec::new())] {
            hash.update(Sha256::digest(part));
        }
        hash.finalize().into()
    }

    fn acceptor(&self, files: &TlsFiles) -> Result<(TlsAcceptor, Option<u64>), TlsError> {
        let chain = certificates(&files.cert, &self.cert)?;
        let expiry = chain.first().and_then(peer::expiry);
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| wrong(&files.key, format!("no private key in PEM: {error}")))?;
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&files.cert, error))?;
        let config = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, pem)? {
                    roots.add(certificate).map_err(|error| wrong(path, error))?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier =
                    if files.client_optional { verifier.allow_unauthenticated() } else { verifier };
                let verifier = verifier.build().map_err(|error| wrong(path, error))?;
                config.with_client_cert_verifier(verifier)
            }
            _ => config.with_no_client_auth(),
        };
        let mut config = config
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&files.cert, format!("certificate and key: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((TlsAcceptor::from(Arc::new(config)), expiry))
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong(path, "no certificate in PEM")),
        Err(error) => Err(wrong(path, format!("no certificate in PEM: {error}"))),
    }
}

fn wrong(path: &Path, problem: impl ToString) -> TlsError {
    TlsError { path: path.display().to_string(), problem: problem.to_string() }
}
