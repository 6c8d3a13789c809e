//! `meshgate place`

use clap::Args;
use meshgate_proto::app::v1::PlaceRequest;
use meshgate_proto::app::v1::app_client::AppClient;
use serde_json::json;

use super::block_on;
use super::connect::{ConnectApp, app_said};
use super::push::session_id;

/// Says by its exit code whether the session has ended.
#[derive(Args)]
pub struct Place {
    #[command(flatten)]
    connect: ConnectApp,
    /// The session, 32 hexadecimal digits as `session list` prints them
    #[arg(value_name = "SESSION")]
    session: String,
    /// The server that holds it from now on; without it none does
    #[arg(value_name = "PLACE", default_value = "")]
    place: String,
    /// Do not move its client: only its next connection leads there
    #[arg(long)]
    stay: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Place {
    pub fn run(self) -> anyhow::Result<()> {
        block_on(self.place())
    }

    async fn place(self) -> anyhow::Result<()> {
        let request = PlaceRequest {
            session_id: session_id(&self.session)?.as_bytes().to_vec(),
            place: self.place,
            stay: self.stay,
            within_ms: 0,
        };
        let mut app = AppClient::new(self.connect.connection().await?);
        let answer = app.place(request).await.map_err(app_said)?.into_inner();
        if self.json {
            println!(
                "{}",
                json!({
                    "changed": answer.changed, "asked": answer.asked, "reason": answer.reason,
                })
            );
            return Ok(());
        }
        println!("{}", if answer.changed { "placed" } else { "it was there already" });
        match (answer.asked, answer.reason.is_empty()) {
            (true, _) => println!("its client is asked to come back"),
            (false, false) => println!("its client is not asked: {}", answer.reason),
            (false, true) => {}
        }
        Ok(())
    }
}
