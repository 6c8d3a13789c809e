//! `meshgate drain`

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use meshgate_proto::admin::v1::admin_client::AdminClient;
use meshgate_proto::admin::v1::{
    DrainSessionsRequest, DrainSessionsResponse, Filter, ListSessionsRequest, State,
};
use serde_json::json;

use super::block_on;
use super::connect::{Connect, Connection, said};
use super::session::label;
use crate::config::duration;

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(250);
/// How often it asks those who have come meanwhile.
const ASK: Duration = Duration::from_secs(2);
/// What `--wait` gives clients over the time that they have.
const LATE: Duration = Duration::from_secs(10);

/// Each client gets a goodbye that says when to leave and where to, finishes its calls, and comes
/// back into the same session. Clients that log in later are not asked: take the proxy out of the
/// load balancer first.
#[derive(Subcommand)]
pub enum Drain {
    /// The clients of a proxy, before it stops
    Proxy(Proxy),
    /// The clients of a service, before it stops
    Service(Service),
    /// A share of all clients, to balance them anew
    Percent(Percent),
}

impl Drain {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Proxy(proxy) => block_on(proxy.run()),
            Self::Service(service) => {
                let Service { service, percent, manner } = service;
                block_on(manner.run(Meant { service, percent, ..Meant::default() }, false))
            }
            Self::Percent(Percent { percent, manner }) => {
                block_on(manner.run(Meant { percent, ..Meant::default() }, false))
            }
        }
    }
}

#[derive(Args)]
pub struct Proxy {
    /// Its name, as `session list` shows it: Envoy's node id
    #[arg(value_name = "PROXY")]
    proxy: String,
    /// Only so many of a hundred
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: u32,
    /// Return when no client is left, asking those too who come meanwhile; fail if any are left
    /// when all have had their time
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Args)]
pub struct Service {
    /// The name of its cluster in the proxies
    #[arg(value_name = "CLUSTER")]
    service: String,
    /// Only so many of a hundred
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: u32,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Args)]
pub struct Percent {
    /// So many of a hundred, the same ones each time
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: u32,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Args)]
struct Manner {
    #[command(flatten)]
    connect: Connect,
    /// Over how long clients are spread
    #[arg(long, default_value = "30s", value_parser = duration::parse_or_none)]
    spread: Duration,
    /// How long a client that does not leave is served on
    #[arg(long, default_value = "60s", value_parser = duration::parse_or_none)]
    within: Duration,
    /// Where they come back to [default: as the proxy is configured, or where they came from]
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    address: String,
    /// Goes to the clients
    #[arg(long, default_value = "this connection is needed elsewhere, come back")]
    reason: String,
    /// Only sessions of this audience
    #[arg(long, default_value = "")]
    audience: String,
    /// Only sessions with this claim in their credential; may be given several times
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Who is to leave.
#[derive(Default)]
struct Meant {
    proxy: String,
    service: String,
    percent: u32,
}

impl Proxy {
    async fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.proxy.is_empty(), "the proxy's name must not be empty");
        let Self { proxy, percent, wait, manner } = self;
        manner.run(Meant { proxy, percent, ..Meant::default() }, wait).await
    }
}

impl Manner {
    async fn run(self, meant: Meant, waits: bool) -> anyhow::Result<()> {
        let Meant { proxy, service, percent } = meant;
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let matching = Filter {
            proxy,
            audience: self.audience,
            claims: self.label.into_iter().collect(),
            ..Filter::default()
        };
        let request = DrainSessionsRequest {
            matching: Some(matching),
            service,
            percent,
            reason: self.reason,
            spread_ms: millis(self.spread),
            within_ms: millis(self.within),
            address: self.address,
        };
        let mut admin = AdminClient::new(self.connect.connection().await?);
        let answer = admin.drain_sessions(request.clone()).await.map_err(said)?.into_inner();
        if self.json {
            println!("{}", to_json(&answer));
        } else {
            print(&answer);
        }
        if waits {
            let last = self.spread.saturating_add(self.within).saturating_add(LATE);
            return wait(&mut admin, request, last).await;
        }
        let DrainSessionsResponse { refused, unconfirmed, refused_because, .. } = answer;
        anyhow::ensure!(refused == 0, "{refused} cannot be asked: {refused_because}");
        anyhow::ensure!(unconfirmed == 0, "of {unconfirmed} nothing is known: ask again");
        Ok(())
    }
}

/// Until none of these sessions is live any more.
async fn wait(
    admin: &mut AdminClient<Connection>,
    request: DrainSessionsRequest,
    last: Duration,
) -> anyhow::Result<()> {
    let matching = request.matching.clone().unwrap_or_default();
    let begun = Instant::now();
    let mut asked = begun;
    let mut page_token = String::new();
    loop {
        let filter = Some(Filter { state: State::Live.into(), ..matching.clone() });
        let list = ListSessionsRequest { page_size: 1, page_token, filter, ..Default::default() };
        let page = admin.list_sessions(list).await.map_err(said)?.into_inner();
        // A page may be empty before the last one.
        page_token = page.next_page_token;
        if page.sessions.is_empty() && page_token.is_empty() {
            return Ok(());
        }
        if !page.sessions.is_empty() {
            page_token.clear();
            anyhow::ensure!(begun.elapsed() < last, "clients are left");
            if asked.elapsed() >= ASK {
                // Who was asked before keeps its time.
                admin.drain_sessions(request.clone()).await.map_err(said)?;
                asked = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn to_json(answer: &DrainSessionsResponse) -> serde_json::Value {
    json!({
        "asked": answer.asked,
        "not_meant": answer.not_meant,
        "refused": answer.refused,
        "refused_because": answer.refused_because,
        "unconfirmed": answer.unconfirmed,
    })
}

fn print(answer: &DrainSessionsResponse) {
    println!("{} asked to leave", answer.asked);
    if answer.not_meant > 0 {
        println!("{} not meant: of another service, or gone meanwhile", answer.not_meant);
    }
}
