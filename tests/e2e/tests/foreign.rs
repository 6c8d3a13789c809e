//! The filter's HTTP/2 leg directly against the gRPC libraries that it meets most, with their
//! default keep-alive enforcement. A language that is not installed is skipped, except in CI.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use meshgate_client::{CallError, Client, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::process::{Process, root};
use meshgate_e2e::{Envoy, command};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Foreign {
    _process: Process,
    address: SocketAddr,
}

/// `None` if the language is not installed on this machine.
fn start(language: &str, options: &[&str]) -> Result<Option<Foreign>> {
    let script = root().join("tests/foreign").join(language).join("start");
    let build = Command::new(&script).arg("--build").status()?;
    if build.code() == Some(77) && std::env::var_os("CI").is_none() {
        eprintln!("skipped: {language} is not installed");
        return Ok(None);
    }
    assert!(build.success(), "{} --build", script.display());
    let (process, address) = Process::listening(language, Command::new(&script).args(options))?;
    Ok(Some(Foreign { _process: process, address }))
}

fn envoy(foreign: &Foreign) -> Result<Envoy> {
    let backends = Backends { game: Some(foreign.address), ..Backends::default() };
    Envoy::start("direct.yaml", backends, &[])
}

async fn connect(envoy: &Envoy) -> Result<Client> {
    Ok(Client::connect(envoy.private()?, &Login::None).await?)
}

/// Calls of many sizes, several in flight, and then one refusal after another with no call
/// running: each rings the bell, which keep-alive enforcement must not mind.
async fn is_served(language: &str) -> Result<()> {
    let Some(foreign) = start(language, &[])? else { return Ok(()) };
    let envoy = envoy(&foreign)?;
    let client = connect(&envoy).await?;
    for size in [0, 1, 1000, 16_384, 60_000] {
        let body = vec![7; size];
        assert_eq!(client.call(command::ECHO_BYTES, body.clone()).await?, body, "size {size}");
    }
    for _ in 0..15 {
        let error = client.call(4711, vec![]).await.unwrap_err();
        assert_eq!(error.status(), Some(12), "UNIMPLEMENTED: {error}");
    }
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200u32 {
        if calls.len() >= 50 {
            calls.join_next().await.expect("a call")??;
        }
        let client = client.clone();
        calls.spawn(async move {
            let body = n.to_be_bytes().to_vec();
            assert_eq!(client.call(command::ECHO_BYTES, body.clone()).await?, body);
            anyhow::Ok(())
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    let error = client.call(command::WHOAMI, vec![]).await.unwrap_err();
    assert_eq!(error.status(), Some(12), "the library's own UNIMPLEMENTED: {error}");
    Ok(())
}

/// A connection that the server ends by age: clients hear it and come back, and no call that
/// was taken is lost.
async fn is_served_across_goaway(language: &str) -> Result<()> {
    let options = ["--max-connection-age", "300", "--delay", "20"];
    let Some(foreign) = start(language, &options)? else { return Ok(()) };
    let envoy = envoy(&foreign)?;
    let mut goodbyes = 0;
    while goodbyes < 2 {
        let client = connect(&envoy).await?;
        let ended = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                // UNAVAILABLE is for calls that came too late to be taken.
                match client.call(command::ECHO_BYTES, b"on".to_vec()).await {
                    Ok(reply) => assert_eq!(reply, b"on"),
                    Err(error) if error.status() == Some(14) => {}
                    Err(_) => break,
                }
            }
            client.closed().await
        });
        let goodbye = ended.await?.goodbye;
        assert!(goodbye.is_some_and(|text| text.contains("service")), "why the connection ended");
        goodbyes += 1;
    }
    Ok(())
}

/// What a call may come to when its connection ends: its reply, UNAVAILABLE, or a goodbye.
fn is_definite(outcome: &Result<Vec<u8>, CallError>) -> bool {
    match outcome {
        Ok(reply) => **reply == *b"on",
        Err(CallError::Closed { goodbye }) => goodbye.is_some(),
        Err(error) => error.status() == Some(14),
    }
}

/// Many calls at once on connections that the server ends by age: each gets a definite answer.
async fn is_served_busily_across_goaway(language: &str) -> Result<()> {
    let options = ["--max-connection-age", "300", "--delay", "20"];
    let Some(foreign) = start(language, &options)? else { return Ok(()) };
    let envoy = envoy(&foreign)?;
    let mut answered = 0;
    for _ in 0..3 {
        let client = connect(&envoy).await?;
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let client = client.clone();
            callers.spawn(async move {
                let mut replies = 0;
                loop {
                    let outcome = client.call(command::ECHO_BYTES, b"on".to_vec()).await;
                    let (ok, over) = match &outcome {
                        Ok(_) => (1, false),
                        Err(error) => (0, matches!(error, CallError::Closed { .. })),
                    };
                    assert!(is_definite(&outcome), "a call was lost: {outcome:?}");
                    replies += ok;
                    if over {
                        return replies;
                    }
                }
            });
        }
        while let Some(replies) = tokio::time::timeout(PATIENCE, callers.join_next()).await? {
            answered += replies?;
        }
    }
    assert!(answered > 16 * 3, "connections lived for {answered} calls only");
    Ok(())
}

/// Connections that the server ends because nothing happens on them; the calls come when it does.
async fn is_served_across_idleness(language: &str) -> Result<()> {
    const IDLE: u64 = 300;
    let Some(foreign) = start(language, &["--max-connection-idle", "300"])? else { return Ok(()) };
    let mut envoy = envoy(&foreign)?;
    let client = connect(&envoy).await?;
    assert_eq!(client.call(command::ECHO_BYTES, b"on".to_vec()).await?, b"on");
    let goodbye = tokio::time::timeout(PATIENCE, client.closed()).await?.goodbye;
    assert!(goodbye.is_some_and(|text| text.contains("service")), "why the connection ended");
    // Around the moment of the end: in time, or too late, and never nothing.
    for late in (0..30).map(|n| IDLE - 30 + 2 * n) {
        let client = connect(&envoy).await?;
        assert_eq!(client.call(command::ECHO_BYTES, b"on".to_vec()).await?, b"on");
        tokio::time::sleep(Duration::from_millis(late)).await;
        let call = client.call(command::ECHO_BYTES, b"on".to_vec());
        let outcome = tokio::time::timeout(PATIENCE, call).await?;
        assert!(is_definite(&outcome), "a call {late} ms after the last was lost");
    }
    envoy.wait_stat("cluster.game.upstream_cx_active", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_go() -> Result<()> {
    is_served("go").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_go_streams_both_ways() -> Result<()> {
    let Some(foreign) = start("go", &[])? else { return Ok(()) };
    let envoy = envoy(&foreign)?;
    let client = connect(&envoy).await?;
    let open = || client.open(command::CONVERSE, command::SEND, command::CLOSE, vec![]);
    let mut streams = [open().await?, open().await?];
    for size in [0, 1, 1000, 16_384, 60_000] {
        for (n, stream) in streams.iter_mut().enumerate() {
            let body = vec![n as u8; size];
            stream.send(body.clone()).await?;
            let push = tokio::time::timeout(PATIENCE, stream.next()).await??;
            assert_eq!(push.command, command::CONVERSED);
            assert!(push.into_body() == Some(body), "size {size}");
        }
    }
    for stream in &mut streams {
        stream.close(b"last".to_vec()).await?;
        let last = tokio::time::timeout(PATIENCE, stream.next()).await??;
        assert_eq!(last.body, b"last");
        let end = tokio::time::timeout(PATIENCE, stream.next()).await??;
        assert_eq!((end.command, end.status), (command::CONVERSE, 0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_java() -> Result<()> {
    is_served("java").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio() -> Result<()> {
    is_served("python").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_js() -> Result<()> {
    is_served("node").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_go_ends_connections_by_age() -> Result<()> {
    is_served_across_goaway("go").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_java_ends_connections_by_age() -> Result<()> {
    is_served_across_goaway("java").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_go_ends_busy_connections_by_age() -> Result<()> {
    is_served_busily_across_goaway("go").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_java_ends_busy_connections_by_age() -> Result<()> {
    is_served_busily_across_goaway("java").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_go_ends_connections_by_idleness() -> Result<()> {
    is_served_across_idleness("go").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_java_ends_connections_by_idleness() -> Result<()> {
    is_served_across_idleness("java").await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_ends_connections_by_age() -> Result<()> {
    is_served_across_goaway("python").await
}
