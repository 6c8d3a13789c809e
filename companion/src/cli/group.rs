//! `meshgate group`

use clap::{Args, Subcommand};
use meshgate_proto::app::v1::app_client::AppClient;
use meshgate_proto::app::v1::{
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListMembersRequest,
};
use serde_json::json;

use super::block_on;
use super::connect::{ConnectApp, Connection, app_said};
use super::push::session_id;
use crate::domain::key::hex;

const PAGE: u32 = 10_000;

#[derive(Subcommand)]
pub enum Group {
    /// List the groups of a session
    List(List),
    /// Let a session join a group
    Join(Membership),
    /// Let a session leave a group
    Leave(Membership),
    /// List the members of a group
    Members(Members),
}

impl Group {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => block_on(list.run()),
            Self::Join(join) => block_on(join.join()),
            Self::Leave(leave) => block_on(leave.leave()),
            Self::Members(members) => block_on(members.run()),
        }
    }
}

async fn app(connect: &ConnectApp) -> anyhow::Result<AppClient<Connection>> {
    Ok(AppClient::new(connect.connection().await?))
}

fn bytes(session: &str) -> anyhow::Result<Vec<u8>> {
    Ok(session_id(session)?.as_bytes().to_vec())
}

/// Results one a line, or as a JSON array.
fn print(results: &[String], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(results)?);
    } else {
        results.iter().for_each(|result| println!("{result}"));
    }
    Ok(())
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    connect: ConnectApp,
    /// 32 hexadecimal digits as `session list` prints them
    session: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let request = ListGroupsRequest { session_id: bytes(&self.session)? };
        let mut app = app(&self.connect).await?;
        let groups = app.list_groups(request).await.map_err(app_said)?.into_inner().groups;
        print(&groups, self.json)
    }
}

/// A session and a group that it joins or leaves.
#[derive(Args)]
pub struct Membership {
    #[command(flatten)]
    connect: ConnectApp,
    group: String,
    /// 32 hexadecimal digits as `session list` prints them
    session: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Membership {
    async fn join(self) -> anyhow::Result<()> {
        let request = JoinGroupRequest { session_id: bytes(&self.session)?, group: self.group };
        let mut app = app(&self.connect).await?;
        let joined = app.join_group(request).await.map_err(app_said)?.into_inner().joined;
        match (self.json, joined) {
            (true, _) => println!("{}", json!({ "joined": joined })),
            (_, true) => println!("joined"),
            (_, false) => println!("it was a member already"),
        }
        Ok(())
    }

    async fn leave(self) -> anyhow::Result<()> {
        let request = LeaveGroupRequest { session_id: bytes(&self.session)?, group: self.group };
        let mut app = app(&self.connect).await?;
        let left = app.leave_group(request).await.map_err(app_said)?.into_inner().left;
        match (self.json, left) {
            (true, _) => println!("{}", json!({ "left": left })),
            (_, true) => println!("left"),
            (_, false) => println!("it was no member"),
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Members {
    #[command(flatten)]
    connect: ConnectApp,
    group: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Members {
    async fn run(self) -> anyhow::Result<()> {
        let mut app = app(&self.connect).await?;
        let (mut members, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                ListMembersRequest { group: self.group.clone(), page_size: PAGE, page_token };
            let page = app.list_members(request).await.map_err(app_said)?.into_inner();
            members.extend(page.session_ids.iter().map(|id| hex(id)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return print(&members, self.json);
            }
        }
    }
}
