//! What a running Envoy says of itself, by its admin interface (HTTP/1.1, GET only).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::Request;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

/// A configuration of a sidecar that knows a whole large mesh has tens of megabytes.
const MAX_BYTES: usize = 512 << 20;
const WITHIN: Duration = Duration::from_secs(30);

/// The answers to the questions that the doctor asks.
#[derive(Debug, Default, Deserialize)]
pub struct Snapshot {
    /// `/config_dump`: listeners, clusters, routes, discovered extensions.
    pub config_dump: Value,
    /// `/clusters?format=json`: the endpoints and their health.
    pub clusters: Value,
    /// `/stats`: counters and gauges by name.
    pub stats: BTreeMap<String, u64>,
    /// `/server_info`.
    pub server_info: Value,
}

impl Snapshot {
    pub async fn fetch(url: &str) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        if authority.contains("://") || authority.contains('/') {
            bail!("{url:?} is not an address such as http://127.0.0.1:9901");
        }
        let json = async |path: &str| {
            let body = get(authority, path).await?;
            serde_json::from_slice(&body).with_context(|| format!("{path} is not JSON"))
        };
        let stats = get(authority, "/stats").await?;
        Ok(Self {
            config_dump: json("/config_dump").await?,
            clusters: json("/clusters?format=json").await?,
            stats: numbers(&String::from_utf8_lossy(&stats)),
            server_info: json("/server_info").await?,
        })
    }
}

/// Lines of `name: value`; histograms and texts are passed over.
fn numbers(text: &str) -> BTreeMap<String, u64> {
    let number = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(number).collect()
}

async fn get(authority: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let asked = async {
        let stream = TcpStream::connect(authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", authority).body(String::new())?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            bail!("{path}: {}", response.status());
        }
        read(response.into_body()).await
    };
    tokio::time::timeout(WITHIN, asked).await.context("no answer in time")?
}

async fn read(mut body: Incoming) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let bytes: Bytes = frame?.into_data().unwrap_or_default();
        if whole.len().saturating_add(bytes.len()) > MAX_BYTES {
            bail!("the answer has more than {MAX_BYTES} bytes");
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_read_line_by_line() {
        let found = numbers("a.b: 7\nwasmcustom.x=.=y;.;z: 1\nh: P0(nan,1)\nt: \"v2\"\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found["wasmcustom.x=.=y;.;z"], 1);
    }
}
