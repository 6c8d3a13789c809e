//! `meshgate push`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::app::v1::push_request::{Command, Target};
use meshgate_proto::app::v1::{PushRequest, PushResponse};
use serde_json::json;

use super::call::body;
use super::connect::{ConnectApp, app_said};
use super::{block_on, files};
use crate::domain::session::SessionId;

/// Says by its exit code whether it reached anybody.
#[derive(Args)]
pub struct Push {
    #[command(flatten)]
    connect: ConnectApp,
    #[command(flatten)]
    whom: Whom,
    /// Only sessions of this audience
    #[arg(long, conflicts_with = "group")]
    audience: Option<String>,
    /// Only sessions with this claim in their credential; may be given several times
    #[arg(
        long,
        value_name = "CLAIM=VALUE",
        value_parser = super::session::label,
        conflicts_with = "group"
    )]
    label: Vec<(String, String)>,
    /// The command of the frame: a number, or a name in layouts with names
    #[arg(long, allow_hyphen_values = true)]
    command: String,
    #[command(flatten)]
    body: Body,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// To this session, 32 hexadecimal digits as `session list` prints them
    #[arg(long)]
    session: Option<String>,
    /// To all sessions of this user
    #[arg(long)]
    user: Option<String>,
    /// To all members of this group
    #[arg(long)]
    group: Option<String>,
}

#[derive(Args)]
struct Body {
    /// The body as text
    #[arg(long, group = "body", help_heading = "Body")]
    text: Option<String>,
    /// The body in hexadecimal
    #[arg(long, group = "body", help_heading = "Body")]
    hex: Option<String>,
    /// The body from a file
    #[arg(long, value_name = "FILE", group = "body", help_heading = "Body")]
    file: Option<PathBuf>,
    /// The body as JSON of a protobuf message; needs --proto and --type
    #[arg(
        long,
        value_name = "JSON",
        group = "body",
        requires_all = ["proto", "type_name"],
        help_heading = "Body"
    )]
    message: Option<String>,
    /// Where the message is defined: a .proto file, or an encoded FileDescriptorSet
    #[arg(long, value_name = "FILE", help_heading = "Body")]
    proto: Option<PathBuf>,
    /// Where the .proto file's imports are [default: beside it]
    #[arg(long, value_name = "FOLDER", requires = "proto", help_heading = "Body")]
    proto_path: Vec<PathBuf>,
    /// The message's full name, package.Message
    #[arg(long = "type", value_name = "NAME", requires = "proto", help_heading = "Body")]
    type_name: Option<String>,
}

impl Push {
    pub fn run(self) -> anyhow::Result<()> {
        let json = self.json;
        let response = block_on(self.push())?;
        if json {
            println!("{}", to_json(&response));
        } else {
            println!("{}", in_words(&response));
        }
        anyhow::ensure!(response.delivered > 0 || response.queued > 0, "nobody was reached");
        Ok(())
    }

    async fn push(self) -> anyhow::Result<PushResponse> {
        let target = match self.whom {
            Whom { session: Some(text), .. } => {
                Target::SessionId(session_id(&text)?.as_bytes().to_vec())
            }
            Whom { user: Some(user), .. } => Target::User(user),
            Whom { group: Some(group), .. } => Target::Group(group),
            _ => bail!("give --session, --user or --group"),
        };
        let claims: BTreeMap<_, _> = self.label.into_iter().collect();
        let request = PushRequest {
            target: Some(target),
            audience: self.audience.unwrap_or_default(),
            claims,
            command: Some(match self.command.parse() {
                Ok(number) => Command::Number(number),
                Err(_) => Command::Name(self.command),
            }),
            body: self.body.read()?,
        };
        let mut app = AppClient::new(self.connect.connection().await?);
        Ok(app.push(request).await.map_err(app_said)?.into_inner())
    }
}

impl Body {
    fn read(self) -> anyhow::Result<Vec<u8>> {
        let Self { text, hex, file, message, proto, proto_path, type_name } = self;
        match (text, hex, file, message, proto, type_name) {
            (Some(text), ..) => Ok(text.into_bytes()),
            (_, Some(hex), ..) => body::from_hex(&hex),
            (_, _, Some(file), ..) => Ok(files::read(&file)?.to_vec()),
            (_, _, _, Some(json), Some(proto), Some(name)) => {
                body::message(&proto, &proto_path, &name, &json)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The session that a text names.
pub fn session_id(text: &str) -> anyhow::Result<SessionId> {
    SessionId::from_hex(text).ok_or_else(|| {
        anyhow::anyhow!("`{text}` is no session id: they have 32 hexadecimal digits")
    })
}

fn counts(response: &PushResponse) -> [(&'static str, u32); 7] {
    [
        ("delivered", response.delivered),
        ("away", response.away),
        ("queued", response.queued),
        ("gone", response.gone),
        ("slow", response.slow),
        ("refused", response.refused),
        ("unconfirmed", response.unconfirmed),
    ]
}

fn to_json(response: &PushResponse) -> serde_json::Value {
    let mut object: serde_json::Map<_, _> =
        counts(response).map(|(name, count)| (name.to_owned(), json!(count))).into_iter().collect();
    object.insert("reason".into(), json!(response.reason));
    object.into()
}

fn in_words(response: &PushResponse) -> String {
    let some = counts(response).into_iter().filter(|(_, count)| *count > 0);
    let words: Vec<_> = some.map(|(name, count)| format!("{count} {name}")).collect();
    match (words.is_empty(), response.reason.as_str()) {
        (true, _) => "no session is meant".into(),
        (false, "") => words.join(", "),
        (false, reason) => format!("{}: {reason}", words.join(", ")),
    }
}
