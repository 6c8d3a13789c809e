//! `meshgate session`

use std::time::Duration;

use clap::{Args, Subcommand};
use meshgate_proto::admin::v1::admin_client::AdminClient;
use meshgate_proto::admin::v1::{
    KickSessionsRequest, ListSessionsRequest, Session as SessionMessage, State,
    kick_sessions_request::Whom,
};
use serde_json::json;

use super::block_on;
use super::connect::{Connect, said};
use crate::config::duration;
use crate::domain::key::hex;
use crate::domain::session::SessionId;
use crate::domain::time::{Clock as _, SystemClock};

const PAGE: u32 = 1000;

#[derive(Subcommand)]
pub enum Session {
    /// List pending and live sessions
    List(List),
    /// Throw out a session, or all sessions of a user
    Kick(Kick),
}

impl Session {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => block_on(list.run()),
            Self::Kick(kick) => block_on(kick.run()),
        }
    }
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    connect: Connect,
    /// Only this user's sessions
    #[arg(long)]
    user: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let mut admin = AdminClient::new(self.connect.connection().await?);
        let mut sessions = Vec::new();
        let mut page_token = String::new();
        let more = loop {
            let request = ListSessionsRequest {
                user: self.user.clone().unwrap_or_default(),
                page_size: PAGE,
                page_token,
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
        if more {
            eprintln!("there are more: raise --limit, or choose a --user");
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
        State::Unspecified => "?",
    }
}

#[derive(Args)]
pub struct Kick {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    whom: WhomArgs,
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

#[derive(Args)]
#[group(required = true, multiple = false)]
struct WhomArgs {
    /// The session, 32 hexadecimal digits as `session list` prints them
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// All sessions of this user
    #[arg(long)]
    user: Option<String>,
}

impl Kick {
    async fn run(self) -> anyhow::Result<()> {
        let (whom, name) = match (self.whom.session, self.whom.user) {
            (Some(text), _) => {
                let id = SessionId::from_hex(&text).ok_or_else(|| {
                    anyhow::anyhow!("`{text}` is no session id: they have 32 hexadecimal digits")
                })?;
                (Whom::SessionId(id.as_bytes().to_vec()), format!("session {text}"))
            }
            (None, user) => {
                let user = user.unwrap_or_default();
                (Whom::User(user.clone()), format!("user `{user}`"))
            }
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
        anyhow::ensure!(ended > 0, "{name}: no session to end");
        Ok(())
    }
}
