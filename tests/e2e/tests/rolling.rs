//! Proxies, services and the companion are replaced one after another, under clients that call all
//! the time and notice nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meshgate_client::{Client, Login, Move, Steady};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, Ledger, command};
use meshgate_game::demo::v1::{EchoReply, EchoRequest};
use prost::Message;

const CLIENTS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTED: &str = "wasmcustom.meshgate.companion_connected";
/// Envoy runs the plugin on its main thread too, beside the one worker of the tests.
const BOTH: u64 = 2;

const GAME: &str =
    "- endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 7700 } } }";

fn gate(
    node: &'static str,
    companion: &Companion,
    services: [SocketAddr; 2],
) -> Result<(Envoy, String)> {
    let endpoints = services.map(|service| GAME.replace("7700", &service.port().to_string()));
    let endpoints = endpoints.join("\n              ");
    // On a machine that does ten other things.
    let edits = [(GAME, &*endpoints), (r#""deadline": "2s""#, r#""deadline": "60s""#)];
    let backends =
        Backends { companion: Some(companion.address), node: Some(node), ..Backends::default() };
    let mut envoy = Envoy::start("noise.yaml", backends, &edits)?;
    envoy.wait_stat(CONNECTED, BOTH)?;
    let address = envoy.private()?.to_string();
    Ok((envoy, address))
}

/// What all clients did.
#[derive(Default)]
struct Score {
    stop: AtomicBool,
    calls: AtomicUsize,
    at_work: AtomicUsize,
}

/// One client: its calls, one after another; answers how many there were, and what went wrong.
async fn play(
    number: usize,
    gates: Vec<String>,
    login: Login,
    score: Arc<Score>,
) -> Result<(Steady, usize, Vec<String>)> {
    let client = Steady::starting_at(&gates, number, &login).await?;
    score.at_work.fetch_add(1, Ordering::Relaxed);
    let (mut calls, mut problems) = (0, Vec::new());
    while !score.stop.load(Ordering::Relaxed) {
        let body = format!("{number}-{calls}").into_bytes();
        let request = EchoRequest { body: body.clone() };
        calls += 1;
        match client.call(command::ECHO, &request.encode_to_vec()).await {
            Ok(reply) if EchoReply::decode(&reply[..])?.body == body => {}
            Ok(_) => problems.push(format!("{number}: another call's answer")),
            Err(error) => problems.push(format!("{number}: {error}")),
        }
        score.calls.fetch_add(1, Ordering::Relaxed);
    }
    Ok((client, calls, problems))
}

/// Waits until the condition holds.
async fn until(what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
    let waiting = async {
        while !condition()? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, waiting).await.context(what.to_owned())?
}

async fn everybody_has_called_again(score: &Score) -> Result<()> {
    let enough = score.calls.load(Ordering::Relaxed) + 3 * CLIENTS;
    until("calls go on", || Ok(score.calls.load(Ordering::Relaxed) >= enough)).await
}

/// Returns when the proxy has no client any more.
fn drained(companion: &Companion, proxy: &str, to: &str) -> Result<()> {
    let command = ["drain", "proxy", proxy, "--spread", "2s", "--within", "20s", "--wait"];
    tokio::task::block_in_place(|| companion.operate(&[&command[..], &["--address", to]].concat()))
        .map(drop)
}

/// The client was where it should be when it should be.
fn check(moved: &Move) -> Result<()> {
    let back = moved.back.as_ref().context("it was not told to come back")?;
    ensure!(moved.resumed, "its session was lost: {moved:?}");
    // On a machine that does ten other things.
    let slot = if back.served { back.until } else { back.after + Duration::from_secs(20) };
    ensure!(moved.waited + moved.took <= slot, "it came too late: {moved:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_two_services_and_the_companion_are_rolled_and_no_call_is_lost_or_made_twice()
-> Result<()> {
    let ledger = Ledger::default();
    let (first, second) = (ledger.replica(None).await?, ledger.replica(None).await?);
    let services = [first.address, second.address];
    let mut companion = Companion::start()?;
    let (mut one, at_one) = gate("gate-1", &companion, services)?;
    let (mut two, at_two) = gate("gate-2", &companion, services)?;

    let score = Arc::new(Score::default());
    let gates = vec![at_one, at_two.clone()];
    let players: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let login = companion.noise_login(&format!("player-{number}"), &[])?;
            Ok(tokio::spawn(play(number, gates.clone(), login, Arc::clone(&score))))
        })
        .collect::<Result<_>>()?;
    until("logins", || Ok(score.at_work.load(Ordering::Relaxed) == CLIENTS)).await?;
    everybody_has_called_again(&score).await?;

    // The services, one after the other.
    for service in [first, second] {
        let address = service.address;
        service.stop().await?;
        everybody_has_called_again(&score).await?;
        // For as long as the test goes on.
        std::mem::forget(ledger.replica(Some(address)).await?);
    }

    // The companion.
    companion.process.signal("TERM")?;
    tokio::task::block_in_place(|| companion.process.wait())?;
    tokio::task::block_in_place(|| companion.restart())?;
    for envoy in [&mut one, &mut two] {
        tokio::task::block_in_place(|| envoy.wait_stat(CONNECTED, BOTH))?;
    }

    // The Envoys.
    drained(&companion, "gate-1", &at_two)?;
    one.process().signal("TERM")?;
    tokio::task::block_in_place(|| one.process().wait())?;
    everybody_has_called_again(&score).await?;
    let (_new, at_new) = gate("gate-1", &companion, services)?;
    drained(&companion, "gate-2", &at_new)?;
    two.process().signal("TERM")?;
    tokio::task::block_in_place(|| two.process().wait())?;
    everybody_has_called_again(&score).await?;
    score.stop.store(true, Ordering::Relaxed);

    let mut wanted = HashMap::new();
    let (mut slots, mut problems) = (Vec::new(), Vec::new());
    for (number, player) in players.into_iter().enumerate() {
        let (client, calls, more) = player.await??;
        problems.extend(more);
        wanted.extend((0..calls).map(|call| (format!("{number}-{call}").into_bytes(), 1)));
        let moves = client.moves().await;
        assert!(moves.len() >= 2, "{moves:?}");
        for moved in &moves {
            check(moved).with_context(|| format!("client {number}"))?;
        }
        slots.extend(moves.into_iter().filter_map(|moved| moved.back).filter(|back| back.served));
    }
    assert_eq!(problems, Vec::<String>::new());
    let carried_out = ledger.entries();
    let wrong: Vec<_> = carried_out.iter().filter(|(_, count)| **count != 1).collect();
    assert_eq!(wrong, [], "carried out twice");
    assert!(carried_out == wanted, "{} carried out, {} called", carried_out.len(), wanted.len());
    // By the last step at least; and not all at once.
    assert!(slots.len() >= CLIENTS, "{}", slots.len());
    for half in [0..1000, 1000..2001] {
        let there = slots.iter().filter(|back| half.contains(&back.after.as_millis())).count();
        assert!(there > slots.len() / 5, "{there} of {} in {half:?}", slots.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_an_envoy_that_fails_its_health_check_are_asked_to_leave() -> Result<()> {
    let ledger = Ledger::default();
    let service = ledger.replica(None).await?;
    let companion = Companion::start()?;
    let (envoy, address) = gate("gate-1", &companion, [service.address; 2])?;
    let client = Client::connect(&address, &companion.noise_login("ann", &[])?).await?;
    let request = EchoRequest { body: b"1".to_vec() }.encode_to_vec();
    client.call(command::ECHO, request.clone()).await?;
    tokio::task::block_in_place(|| envoy.post("/healthcheck/fail"))?;
    let back = tokio::time::timeout(PATIENCE, client.asked_to_leave()).await?;
    assert!(back.served && back.after <= Duration::from_secs(10), "{back:?}");
    client.call(command::ECHO, request).await?;
    let asked = "wasmcustom.meshgate.asked_to_leave_total.reason.proxy";
    until("it is counted", || Ok(envoy.stat(asked)? == Some(1))).await
}
