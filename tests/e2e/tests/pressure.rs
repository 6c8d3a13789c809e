//! Who is slow makes the other side wait, and nobody's memory grow.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::{Client, Connection, Frame, Login, Receiver};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::reluctant::Sleep;
use meshgate_e2e::{Envoy, Reluctant, command};
use tokio::net::TcpSocket;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

const RECEIVED: &str = "tcp.private.downstream_cx_rx_bytes_total";
const ANSWERED: &str = "cluster.game.upstream_cx_rx_bytes_total";
const PAUSED: &str = "wasmcustom.meshgate.connections_paused";

fn envoy(service: &Reluctant) -> Result<Envoy> {
    let backends = Backends { game: Some(service.address), ..Backends::default() };
    // No call may end for another reason than its answer.
    let limits = concat!(
        r#""limits": { "max_in_flight": 2000, "max_queued": 2000, "bell_timeout": "60s" }, "#,
        r#""statuses":"#
    );
    let edits = [(r#""deadline": "2s""#, r#""deadline": "300s""#), (r#""statuses":"#, limits)];
    Envoy::start("direct.yaml", backends, &edits)
}

/// Bytes that Envoy's process has in memory.
fn resident(envoy: &mut Envoy) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", envoy.process().id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Waits until a counter has stood still for half a second, and gives its value.
async fn settled(envoy: &Envoy, counter: &str) -> Result<u64> {
    let (mut value, mut still) = (0, 0);
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = envoy.stat(counter)?.context("no such counter")?;
        still = if now == value && now > 0 { still + 1 } else { 0 };
        value = now;
    }
    Ok(value)
}

fn body(sequence: u32) -> Vec<u8> {
    vec![sequence as u8; 60_000]
}

async fn next(receiver: &mut Receiver) -> Result<Frame> {
    let answer = tokio::time::timeout(PATIENCE, receiver.receive()).await;
    answer.context("no answer")??.context("closed")
}

/// Eight clients offer 48 MB to a service that sleeps.
async fn a_slow_service(sleep: Sleep) -> Result<()> {
    const CLIENTS: u64 = 8;
    const CALLS: u32 = 100;
    let service = Reluctant::asleep(sleep).await?;
    let mut envoy = envoy(&service)?;
    let mut clients = Vec::new();
    let before = resident(&mut envoy)?;
    for _ in 0..CLIENTS {
        let Connection { mut sender, receiver } = Connection::connect(envoy.private()?).await?;
        clients.push(receiver);
        tokio::spawn(async move {
            for sequence in 0..CALLS {
                sender.send(&Frame::request(command::ECHO_BYTES, sequence, body(sequence))).await?;
            }
            // Kept: a client that closes this direction is another matter.
            std::future::pending::<()>().await;
            anyhow::Ok(())
        });
    }
    envoy.wait_stat(PAUSED, CLIENTS)?;
    if sleep == Sleep::Full {
        // Each PING makes the filter write, and thereby empty the buffer that its client's
        // requests wait in.
        envoy.wait_for("PINGs", |_| Ok(service.pings() > 2000))?;
    }
    let received = settled(&envoy, RECEIVED).await?;
    assert!(received < CLIENTS * MIB, "{received} bytes were read");
    let grown = resident(&mut envoy)?.saturating_sub(before);
    assert!(grown < 40 * MIB, "Envoy grew by {grown} bytes");
    eprintln!("{sleep:?}: read {received} bytes, Envoy grew by {grown}");

    service.wake();
    for mut receiver in clients {
        let mut seen = vec![false; CALLS as usize];
        for _ in 0..CALLS {
            let answer = next(&mut receiver).await?;
            let sequence = answer.sequence;
            assert_eq!(answer.status, 0);
            assert!(answer.into_body() == Some(body(sequence)), "the answer to {sequence}");
            assert!(!std::mem::replace(&mut seen[sequence as usize], true));
        }
    }
    envoy.wait_stat(PAUSED, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_service_without_room_wait_until_it_has_some() -> Result<()> {
    a_slow_service(Sleep::Full).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_service_that_does_not_read_wait_until_it_does() -> Result<()> {
    a_slow_service(Sleep::Deaf).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_its_service_and_nobody_else() -> Result<()> {
    const CALLS: u32 = 1000;
    const SIZE: usize = 64 << 10;
    let service = Reluctant::verbose(SIZE).await?;
    let mut envoy = envoy(&service)?;
    let neighbour = Client::connect(envoy.private()?, &Login::None).await?;
    assert_eq!(neighbour.call(command::ECHO_BYTES, vec![]).await?.len(), SIZE);
    let before = resident(&mut envoy)?;

    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(32 << 10)?;
    let (reader, writer) = socket.connect(envoy.private()?).await?.into_split();
    let mut client = Connection::over(reader, writer);
    // By its answer the service's limit of streams is known too.
    client.send(&Frame::request(command::ECHO_BYTES, 0, vec![])).await?;
    assert_eq!(next(&mut client.receiver).await?.status, 0);
    for sequence in 0..CALLS {
        client.send(&Frame::request(command::ECHO_BYTES, sequence, vec![])).await?;
    }
    let answered = settled(&envoy, ANSWERED).await?;
    assert!(answered < 16 * MIB, "{answered} bytes of 64 MiB were read");
    let grown = resident(&mut envoy)?.saturating_sub(before);
    assert!(grown < 24 * MIB, "Envoy grew by {grown} bytes");
    eprintln!("read {answered} bytes of the service, Envoy grew by {grown}");
    assert_eq!(neighbour.call(command::ECHO_BYTES, vec![]).await?.len(), SIZE);

    let mut seen = vec![false; CALLS as usize];
    for _ in 0..CALLS {
        let answer = next(&mut client.receiver).await?;
        assert_eq!((answer.status, answer.body.len()), (0, SIZE));
        assert!(!std::mem::replace(&mut seen[answer.sequence as usize], true));
    }
    Ok(())
}
