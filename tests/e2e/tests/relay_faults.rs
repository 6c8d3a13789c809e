//! What a private server can do wrong to private clients, row by row of the README's table, on a
//! real Envoy. After each, a well-behaved client is served as before.

use std::time::{Duration, Instant};

use anyhow::Result;
use meshgate_client::{CallError, Client, Login};
use meshgate_e2e::faulty::{Faulty, fault};
use meshgate_e2e::{Envoy, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest};
use prost::Message;

/// Small limits, so that a test reaches them.
const LIMITS: (&str, &str) = (
    r#""cancel": { "command": 4 },"#,
    concat!(
        r#""cancel": { "command": 4 }, "#,
        r#""limits": { "bell_timeout": "2s", "partial_frame_timeout": "1s", "max_in_flight": 4 },"#
    ),
);

struct Scene {
    envoy: Envoy,
    server: Faulty,
}

/// How a client reaches the server. By heartbeat its connection is the server's; by the tunnel it
/// outlives the server's.
const WAYS: [&str; 2] = ["private", "trusted"];
const HEARTBEAT: &str = WAYS[0];
const TUNNEL: &str = WAYS[1];

impl Scene {
    async fn start(edits: &[(&str, &str)]) -> Result<Self> {
        let server = Faulty::start().await?;
        let envoy = Envoy::relay_without_logins(server.address, edits)?;
        Ok(Self { envoy, server })
    }

    async fn client(&self, way: &str) -> Result<Client> {
        Ok(Client::connect(self.envoy.listener(way)?, &Login::None).await?)
    }

    /// The counter, and a well-behaved client, who notices nothing.
    async fn seen(&mut self, way: &str, counter: &str) -> Result<()> {
        let name = format!("wasmcustom.meshgate.{counter}");
        self.envoy.wait_for(&name, |envoy| Ok(envoy.stat(&name)?.unwrap_or(0) > 0))?;
        serves(&self.client(way).await?).await
    }
}

fn asking(body: &str) -> Vec<u8> {
    EchoRequest { body: body.into() }.encode_to_vec()
}

async fn serves(client: &Client) -> Result<()> {
    let reply = client.call(command::ECHO, asking("well")).await?;
    assert_eq!(EchoReply::decode(&reply[..])?.body, b"well");
    Ok(())
}

/// Status and text of a call that asks for a fault.
async fn suffers(client: &Client, fault: &str) -> (u16, String) {
    match client.call(command::ECHO, asking(fault)).await {
        Err(CallError::Status { status, text }) => (status, text),
        other => panic!("{fault}: {other:?}"),
    }
}

/// The client stays behind a tunnel; without one it hears why it goes.
async fn is_left(way: &str, client: &Client, goodbye: &str) -> Result<()> {
    if way == TUNNEL {
        return serves(client).await;
    }
    assert_eq!(client.closed().await.goodbye.as_deref(), Some(goodbye));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frame_fail_calls_and_end_the_servers_connection() -> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    let text = "the server's answer cannot be understood";
    for way in WAYS {
        for (fault, kind) in
            [(fault::GARBAGE, "bad_magic"), (fault::WRONG_LENGTH, "length_too_small")]
        {
            let client = scene.client(way).await?;
            assert_eq!(suffers(&client, fault).await, (14, text.into()), "{way}");
            is_left(way, &client, text).await?;
            scene.seen(way, &format!("upstream_errors_total.kind.{kind}")).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_fails_its_calls_once() -> Result<()> {
    let scene = Scene::start(&[]).await?;
    let text = "closed the connection";
    for way in WAYS {
        for fault in [fault::CLOSE, fault::CUT] {
            let client = scene.client(way).await?;
            let before = scene.server.echoes();
            let (status, said) = suffers(&client, fault).await;
            assert!(status == 14 && said.ends_with(text), "{way}: {said}");
            assert_eq!(scene.server.echoes() - before, 1, "nothing is tried again");
            is_left(way, &client, &said).await?;
        }
    }
    // A reset shows as nothing at all, but in a tunnel.
    let client = scene.client(HEARTBEAT).await?;
    let lost = client.call(command::ECHO, asking(fault::ABORT)).await;
    assert!(matches!(lost, Err(CallError::Closed { goodbye: None })), "{lost:?}");
    let client = scene.client(TUNNEL).await?;
    assert_eq!(suffers(&client, fault::ABORT).await.0, 14);
    serves(&client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_wrong_fail_their_call_alone() -> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    for way in WAYS {
        let client = scene.client(way).await?;
        let found = suffers(&client, fault::WRONG_COMMAND).await;
        assert_eq!(found, (13, "the server answered another command".into()), "{way}");
        let began = Instant::now();
        assert_eq!(suffers(&client, fault::WRONG_SEQUENCE).await.0, 4, "{way}");
        assert_eq!(suffers(&client, fault::SILENCE).await.0, 4, "{way}");
        assert!(began.elapsed() > Duration::from_millis(3990), "{way}");
        serves(&client).await?;
        scene.seen(way, "upstream_errors_total.kind.unknown_sequence").await?;
    }
    // The server was told of each that was given up.
    assert_eq!(scene.server.cancels(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_stops_in_a_frame_is_left() -> Result<()> {
    let mut scene = Scene::start(&[LIMITS]).await?;
    let client = scene.client(TUNNEL).await?;
    assert_eq!(suffers(&client, fault::HANG).await.0, 4, "told in time whatever the server does");
    let client = scene.client(TUNNEL).await?;
    let found = suffers(&client, fault::HALF).await;
    assert_eq!(found, (14, "the rest of the server's frame did not come in time".into()));
    serves(&client).await?;
    scene.seen(TUNNEL, "upstream_errors_total.kind.partial_frame_timeout").await?;
    for fault in [fault::HANG, fault::HALF] {
        let client = scene.client(HEARTBEAT).await?;
        let lost = client.call(command::ECHO, asking(fault)).await;
        let told = matches!(lost, Err(CallError::Closed { goodbye: None }));
        assert!(told, "nothing can be said any more: {lost:?}");
    }
    scene.seen(HEARTBEAT, "upstream_errors_total.kind.bell_unanswered").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_the_login_gets_no_requests() -> Result<()> {
    let stranger = (r#""body": "relay""#, r#""body": "stranger""#);
    let mut scene = Scene::start(&[stranger]).await?;
    for way in WAYS {
        let client = scene.client(way).await?;
        assert_eq!(suffers(&client, "hello").await.0, 14, "{way}");
    }
    assert_eq!(scene.server.echoes(), 0);
    scene.envoy.wait_stat("wasmcustom.meshgate.logins_total.result.server_refused", 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_told_so() -> Result<()> {
    let mut scene = Scene::start(&[]).await?;
    let client = scene.client(TUNNEL).await?;
    serves(&client).await?;
    scene.server.stop_listening().await;
    assert_eq!(suffers(&client, fault::CLOSE).await.0, 14);
    assert_eq!(suffers(&client, "anybody there").await.0, 14);
    Ok(())
}
