//! `meshgate session`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use meshgate_proto::admin::v1::admin_client::AdminClient;
use meshgate_proto::admin::v1::{
    CountSessionsRequest, CountSessionsResponse, Filter, KickSessionsRequest, ListSessionsRequest,
    Session as SessionMessage, State, kick_sessions_request::Whom,
};
use serde_json::json;

use super::block_on;
use super::connect::{Connect, said};
use super::session_watch::Watch;
use crate::config::duration;
use crate::domain::key::hex;
use crate::domain::session::SessionId;
use crate::domain::time::{Clock as _, SystemClock};

const PAGE: u32 = 1000;

#[derive(Subcommand)]
pub enum Session {
    /// List sessions: pending, live and away
    List(List),
    /// Count sessions by state
    Count(Count),
    /// Throw out a session, or all that match
    Kick(Kick),
    /// Watch sessions begin and end, by the app service
    Watch(Watch),
}

impl Session {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => block_on(list.run()),
            Self::Count(count) => block_on(count.run()),
            Self::Kick(kick) => block_on(kick.run()),
            Self::Watch(watch) => block_on(watch.run()),
        }
    }
}

/// Which sessions are meant: all that is given must be true of one
#[derive(Args, Clone)]
#[group(id = "matching", multiple = true)]
struct Matching {
    /// Of this user
    #[arg(long)]
    user: Option<String>,
    /// With this claim in their credential; may be given several times
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// With this role
    #[arg(long)]
    role: Option<String>,
    /// Of this audience
    #[arg(long)]
    audience: Option<String>,
    /// Held by this proxy
    #[arg(long)]
    proxy: Option<String>,
    /// In this state
    #[arg(long, value_parser = PossibleValuesParser::new(["pending", "live", "away"]))]
    state: Option<String>,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("`{text}`: write CLAIM=VALUE"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

impl Matching {
    /// An error where a filter's empty text, which means "any", would stand for something else.
    fn filter(self) -> anyhow::Result<Filter> {
        let Self { user, label, role, audience, proxy, state } = self;
        let given = |name: &str, value: Option<String>| {
            anyhow::ensure!(value.as_deref() != Some(""), "--{name} must not be empty");
            Ok(value.unwrap_or_default())
        };
        let state = match state.as_deref() {
            Some("pending") => State::Pending,
            Some("live") => State::Live,
            Some("away") => State::Away,
            _ => State::Unspecified,
        };
        let count = label.len();
        let claims: BTreeMap<_, _> = label.into_iter().collect();
        anyhow::ensure!(claims.len() == count, "--label names a claim twice");
        Ok(Filter {
            user: given("user", user)?,
            claims,
            role: given("role", role)?,
            audience: given("audience", audience)?,
            proxy: given("proxy", proxy)?,
            state: state.into(),
        })
    }
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    matching: Matching,
    /// At most so many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Go on after this session, the last one of the list before
    #[arg(long, value_name = "SESSION", default_value = "")]
    after: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let filter = self.matching.filter()?;
        let mut admin = AdminClient::new(self.connect.connection().await?);
        let mut sessions = Vec::new();
        let mut page_token = self.after;
        let more = loop {
            let request = ListSessionsRequest {
                user: String::new(),
                page_size: PAGE,
                page_token,
                filter: Some(filter.clone()),
            };
            let page = admin.list_sessions(request).await.map_err(said)?.into_inner();
            sessions.extend(page.sessions);
            page_token = page.next_page_token;
            if sessions.len() >= self.limit || page_token.is_empty() {
                break sessions.len() > self.limit || !page_token.is_empty();
            }
        };
        sessions.truncate(self.limit);
        if self.json {
            let all: Vec<_> = sessions.iter().map(to_json).collect();
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            print_table(&sessions);
        }
        if more && let Some(last) = sessions.last() {
            let last = hex(&last.session_id);
            eprintln!("there are more: --after {last} goes on, --user and --label narrow it down");
        }
        Ok(())
    }
}

fn to_json(session: &SessionMessage) -> serde_json::Value {
    json!({
        "session": hex(&session.session_id),
        "user": session.user,
        "state": state(session),
        "proxy": session.proxy,
        "peer": session.peer,
        "audience": session.audience,
        "created_at_ms": session.created_at_ms,
        "expires_at_ms": session.expires_at_ms,
        "claims": session.claims,
        "roles": session.roles,
        "client": session.client,
        "generation": session.generation,
        "away_until_ms": (session.away_until_ms > 0).then_some(session.away_until_ms),
    })
}

fn print_table(sessions: &[SessionMessage]) {
    let now = SystemClock.now().0;
    let mut rows = vec![
        ["SESSION", "USER", "STATE", "PROXY", "PEER", "AUDIENCE", "AGE", "EXPIRES IN"]
            .map(str::to_owned),
    ];
    for session in sessions {
        let age = Duration::from_millis(now.saturating_sub(session.created_at_ms));
        let left = Duration::from_millis(session.expires_at_ms.saturating_sub(now));
        rows.push([
            hex(&session.session_id),
            session.user.clone(),
            state(session).to_owned(),
            session.proxy.clone(),
            session.peer.clone(),
            session.audience.clone(),
            duration::show(age),
            duration::show(left),
        ]);
    }
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let line = row
            .iter()
            .zip(widths)
            .fold(String::new(), |line, (cell, width)| format!("{line}{cell:<width$}  "));
        println!("{}", line.trim_end());
    }
}

fn state(session: &SessionMessage) -> &'static str {
    match session.state() {
        State::Pending => "pending",
        State::Live => "live",
        State::Away => "away",
        State::Unspecified => "?",
    }
}

#[derive(Args)]
pub struct Kick {
    #[command(flatten)]
    connect: Connect,
    /// The session, 32 hexadecimal digits as `session list` prints them
    #[arg(
        value_name = "SESSION",
        conflicts_with = "matching",
        required_unless_present = "matching"
    )]
    session: Option<String>,
    #[command(flatten)]
    matching: Matching,
    /// Goes to the client
    #[arg(long, default_value = "ended by an operator")]
    reason: String,
    /// Goes to the client: a number that the game gives a meaning
    #[arg(long, default_value_t = 0)]
    code: u32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Kick {
    async fn run(self) -> anyhow::Result<()> {
        let filter = self.matching.filter()?;
        let whom = match self.session {
            Some(text) => {
                let id = SessionId::from_hex(&text).ok_or_else(|| {
                    anyhow::anyhow!("`{text}` is no session id: they have 32 hexadecimal digits")
                })?;
                Whom::SessionId(id.as_bytes().to_vec())
            }
            None => Whom::Matching(filter),
        };
        let request =
            KickSessionsRequest { whom: Some(whom), reason: self.reason, code: self.code };
        let mut admin = AdminClient::new(self.connect.connection().await?);
        let ended = admin.kick_sessions(request).await.map_err(said)?.into_inner().ended;
        if self.json {
            println!("{}", json!({ "ended": ended }));
        } else if ended > 0 {
            println!("{ended} ended");
        }
        anyhow::ensure!(ended > 0, "no session to end: none matches");
        Ok(())
    }
}

#[derive(Args)]
pub struct Count {
    #[command(flatten)]
    connect: Connect,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Count {
    async fn run(self) -> anyhow::Result<()> {
        let mut admin = AdminClient::new(self.connect.connection().await?);
        let count = admin.count_sessions(CountSessionsRequest {}).await.map_err(said)?.into_inner();
        let CountSessionsResponse { live, live_here, pending_here, away } = count;
        if self.json {
            let count = json!({
                "live": live, "live_here": live_here, "pending_here": pending_here, "away": away,
            });
            println!("{count}");
        } else {
            println!("{live} live, {live_here} of them on proxies that are attached here");
            println!("{away} away");
            println!("{pending_here} pending here");
        }
        Ok(())
    }
}
