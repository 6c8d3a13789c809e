//! The way to an issuer's key set: `GET`, over HTTP/1.1.
//! [`crate::domain::jwt::fetched`] says when it is taken.

use http_body_util::Full;
use hyper::header::ACCEPT;
use hyper::{Request, Uri};

use crate::domain::jwt::fetched::{Fetch, MAX_DOCUMENT_BYTES};
use crate::outbound::{HttpClient, OutboundTls};

pub struct Url {
    client: HttpClient,
    uri: Uri,
}

impl Url {
    pub fn new(uri: Uri, tls: &OutboundTls) -> anyhow::Result<Self> {
        Ok(Self { client: HttpClient::new(tls)?, uri })
    }
}

#[tonic::async_trait]
impl Fetch for Url {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let request = Request::get(&self.uri)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let answer = self.client.send(request, MAX_DOCUMENT_BYTES).await;
        answer.map(|document| document.to_vec()).map_err(|error| error.to_string())
    }
}
