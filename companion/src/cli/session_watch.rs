//! `meshgate session watch`

use clap::Args;
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::app::v1::watch_response::Kind;
use meshgate_proto::app::v1::{Cause, Happened, Session, SessionEvent, WatchRequest};
use serde_json::{Value, json};

use super::connect::{ConnectApp, app_said};
use crate::domain::key::hex;

/// Prints a line for each until it is interrupted; the revision in it goes on with --after
#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    connect: ConnectApp,
    /// Only sessions of this audience
    #[arg(long)]
    audience: Option<String>,
    /// Go on after this revision, as an event printed it
    #[arg(long, value_name = "REVISION")]
    after: Option<String>,
    /// Begin with those who are there already
    #[arg(long, conflicts_with = "after")]
    snapshot: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print a JSON object for each
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub async fn run(self) -> anyhow::Result<()> {
        let request = WatchRequest {
            only_new: !self.snapshot && self.after.is_none(),
            after: self.after.unwrap_or_default(),
            audience: self.audience.unwrap_or_default(),
        };
        let mut app = AppClient::new(self.connect.connection().await?);
        let mut told = app.watch(request).await.map_err(app_said)?.into_inner();
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(message) = told.message().await.map_err(app_said)? else { break };
            let line = match message.kind {
                Some(Kind::Session(session)) => there(&session),
                Some(Kind::Event(event)) => {
                    left = left.saturating_sub(1);
                    happened(&event)
                }
                _ => continue,
            };
            if self.json {
                println!("{line}");
            } else {
                println!("{}", in_words(&line));
            }
        }
        Ok(())
    }
}

fn there(session: &Session) -> Value {
    json!({ "happened": "there", "session": named(session) })
}

fn happened(event: &SessionEvent) -> Value {
    let happened = match event.happened() {
        Happened::Login => "login",
        Happened::End => "end",
        Happened::Away => "away",
        Happened::Back => "back",
        Happened::Unspecified => "?",
    };
    let cause = match event.cause() {
        Cause::Closed => "closed",
        Cause::Kicked => "kicked",
        Cause::Replaced => "replaced",
        Cause::Expired => "expired",
        Cause::GivenUp => "given_up",
        Cause::Unspecified => "",
    };
    json!({
        "happened": happened,
        "session": event.session.as_ref().map(named),
        "cause": cause,
        "reason": event.reason,
        "code": event.code,
        "at_ms": event.at_ms,
        "revision": event.revision,
    })
}

fn named(session: &Session) -> Value {
    json!({
        "session": hex(&session.session_id),
        "user": session.user,
        "audience": session.audience,
        "proxy": session.proxy,
        "peer": session.peer,
        "claims": session.claims,
        "roles": session.roles,
        "client": session.client,
    })
}

fn in_words(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let session = event.get("session").unwrap_or(&Value::Null);
    let of = |key: &str| session.get(key).map(text).unwrap_or_default();
    let about = |key: &str| event.get(key).map(text).unwrap_or_default();
    let line = format!(
        "{:<6} {}  {:<16} {:<12} {:<16} {}",
        about("happened"),
        of("session"),
        of("user"),
        of("audience"),
        of("proxy"),
        about("cause")
    );
    let code = event.get("code").and_then(Value::as_u64).filter(|code| *code != 0);
    let reason = about("reason");
    let mut line = line.trim_end().to_owned();
    if !reason.is_empty() {
        line.push_str(&format!(" ({reason})"));
    }
    if let Some(code) = code {
        line.push_str(&format!(" code {code}"));
    }
    let revision = about("revision");
    if !revision.is_empty() {
        line.push_str(&format!("  {revision}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_who_what_why_and_where_to_go_on() {
        let session = Session { user: "ada".into(), session_id: vec![1; 16], ..Session::default() };
        let event = SessionEvent {
            revision: "00-7".into(),
            happened: Happened::End.into(),
            cause: Cause::Kicked.into(),
            reason: "cheating".into(),
            code: 3,
            session: Some(session.clone()),
            ..SessionEvent::default()
        };
        let line = in_words(&happened(&event));
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[0], "end");
        assert_eq!(words[1], "01".repeat(16));
        assert_eq!(words[2..], ["ada", "kicked", "(cheating)", "code", "3", "00-7"]);
        assert!(in_words(&there(&session)).starts_with("there "));
    }
}
