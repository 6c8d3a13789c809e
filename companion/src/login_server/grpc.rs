//! By gRPC: `meshgate.verifier.v1.Verifier`, over one HTTP/2 connection that is opened when it is
//! needed first and again after a loss.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Uri;
use meshgate_proto::verifier::v1::verifier_client::VerifierClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::{MAX_ANSWER_BYTES, Token, reply, request};
use crate::domain::verifier::{Ask, Question, Reply, Trouble};
use crate::outbound::{OutboundTls, causes};

/// A connection that is dead without a word is found out in at most twice this.
const PING_EVERY: Duration = Duration::from_secs(5);

pub struct Grpc {
    endpoint: Endpoint,
    channel: OnceLock<Channel>,
    token: Option<Token>,
}

impl Grpc {
    pub fn new(uri: &Uri, tls: &OutboundTls, token: Option<Token>) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::from(uri.clone())
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY);
        if uri.scheme_str() == Some("https") {
            let contents = tls.read()?;
            let config = match contents.ca {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            let config = match contents.identity {
                Some((cert, key)) => config.identity(Identity::from_pem(cert, &*key)),
                None => config,
            };
            endpoint = endpoint.tls_config(config).context("TLS to the login server")?;
        }
        Ok(Self { endpoint, channel: OnceLock::new(), token })
    }

    fn client(&self) -> VerifierClient<Channel> {
        let channel = self.channel.get_or_init(|| self.endpoint.connect_lazy()).clone();
        VerifierClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

#[tonic::async_trait]
impl Ask for Grpc {
    async fn ask(&self, question: &Question) -> Result<Reply, Trouble> {
        let mut asked = Request::new(request(question));
        if let Some(token) = &self.token {
            // What may stand in a header may stand in metadata.
            let value = MetadataValue::<Ascii>::try_from(token.header().as_bytes());
            let mut value = value.map_err(|_| Trouble::Failed("no token".into()))?;
            value.set_sensitive(true);
            asked.metadata_mut().insert("authorization", value);
        }
        let answer = self.client().verify(asked).await.map_err(|status| trouble(&status))?;
        reply(answer.into_inner())
    }
}

/// Any status is the login server's fault: what is wrong with a credential it says by `refused`.
fn trouble(status: &Status) -> Trouble {
    use std::error::Error as _;
    match (status.code(), status.source()) {
        // Made here, not heard: there is no connection.
        (Code::Unavailable | Code::Unknown, Some(cause)) => Trouble::Unreachable(causes(cause)),
        (Code::OutOfRange, _) => Trouble::Garbage(format!("more than {MAX_ANSWER_BYTES} bytes")),
        (code, _) => Trouble::Failed(format!("{code:?}")),
    }
}
