//! Clients that stay with the server that holds them, and change it without losing a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::Steady;
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, Ledger, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest};
use prost::Message;

const PATIENCE: Duration = Duration::from_secs(30);
const CONNECTED: &str = "wasmcustom.meshgate.companion_connected";
/// Envoy runs the plugin on its main thread too, beside the one worker of the tests.
const BOTH: u64 = 2;

/// The cluster of one room's server.
fn cluster(name: &str, port: u16) -> String {
    format!(
        "    - name: {name}\n      type: STATIC\n      connect_timeout: 1s\n      load_assignment:\n        cluster_name: {name}\n        endpoints:\n          - lb_endpoints:\n              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}\n\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reaches_the_server_of_its_place_and_moves_with_it() -> Result<()> {
    let (lobby, red, blue) = (Ledger::default(), Ledger::default(), Ledger::default());
    let in_lobby = lobby.replica(None).await?;
    let (in_red, in_blue) = (red.replica(None).await?, blue.replica(None).await?);
    let companion = Companion::start()?;
    let rooms = [("room-red", &in_red), ("room-blue", &in_blue)];
    let rooms: String =
        rooms.iter().map(|(name, replica)| cluster(name, replica.address.port())).collect();
    let before = "    - name: game\n      type: STATIC";
    let clusters = format!("{rooms}{before}");
    let place = r#""cluster": "game", "place": { "cluster_prefix": "room-" },"#;
    let edits = [
        (before, &*clusters),
        (r#""cluster": "game","#, place),
        (r#""deadline": "2s""#, r#""deadline": "60s""#),
    ];
    let backends = Backends {
        game: Some(in_lobby.address),
        companion: Some(companion.address),
        ..Backends::default()
    };
    let mut envoy = Envoy::start("noise.yaml", backends, &edits)?;
    envoy.wait_stat(CONNECTED, BOTH)?;
    let gates = [envoy.private()?.to_string()];

    // Without a place; and with one that its ticket names.
    let ann = Steady::connect(&gates, &companion.noise_login("ann", &[])?).await?;
    let ben = companion.noise_login("ben", &["--claim", "place=blue"])?;
    let ben = Steady::connect(&gates, &ben).await?;
    let call = async |client: &Steady, body: String| -> Result<()> {
        let request = EchoRequest { body: body.clone().into() }.encode_to_vec();
        let reply = client.call(command::ECHO, &request).await?;
        assert_eq!(EchoReply::decode(&reply[..])?.body, body.as_bytes());
        Ok(())
    };
    call(&ann, "ann".into()).await?;
    call(&ben, "ben".into()).await?;
    assert_eq!(lobby.entries().into_keys().collect::<Vec<_>>(), [b"ann"]);
    assert_eq!(blue.entries().into_keys().collect::<Vec<_>>(), [b"ben"]);

    // Ann goes from room to room, and calls all the time.
    let id = ann.client().await.session().context("a session")?.session_id.clone();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let calling = tokio::spawn({
        let (ann, stop, calls) = (ann.clone(), Arc::clone(&stop), Arc::clone(&calls));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let number = calls.fetch_add(1, Ordering::Relaxed);
                let request = EchoRequest { body: number.to_string().into() }.encode_to_vec();
                ann.call(command::ECHO, &request).await?;
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    for (place, ledger) in [("red", &red), ("blue", &blue), ("red", &red), ("", &lobby)] {
        let said =
            tokio::task::block_in_place(|| companion.serve_app(&["place", &id, place, "--json"]))?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        assert_eq!((&said["changed"], &said["asked"]), (&true.into(), &true.into()), "{said}");
        let moved = tokio::time::timeout(PATIENCE, ann.next_move()).await?.context("a move")?;
        assert!(moved.resumed && moved.back.is_some_and(|back| back.served));
        let had = ledger.entries().len();
        let there = async {
            while ledger.entries().len() == had {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.with_context(|| format!("in {place:?}"))?;
    }
    stop.store(true, Ordering::Relaxed);
    calling.await??;
    // Each call was carried out once, wherever.
    let mut all: Vec<usize> = Vec::new();
    for ledger in [lobby, red, blue] {
        for (body, count) in ledger.entries() {
            assert_eq!(count, 1);
            all.extend(String::from_utf8(body)?.parse::<usize>());
        }
    }
    all.sort_unstable();
    assert_eq!(all, (0..calls.load(Ordering::Relaxed)).collect::<Vec<_>>());
    // It was there already: nobody is asked.
    let said = companion.serve_app(&["place", &id, "--json"])?;
    assert!(said.contains(r#""changed":false"#), "{said}");
    Ok(())
}
