//! What a client can do wrong, row by row of the README's table, on a real Envoy. After each the
//! neighbour, who behaves well, is served as before.

use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::{Client, Connection, Credential, Error, Flags, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, GameServer, command};
use meshgate_game::demo::v1::SlowRequest;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    envoy: Envoy,
    neighbour: Client,
    _game: GameServer,
    companion: Option<Companion>,
}

/// Small limits, so that a test reaches them: put in front of `statuses` in the configuration.
const LIMITS: &str = concat!(
    r#""limits": { "max_frame": "16KiB", "max_in_flight": 4, "refusals_per_second": 10, "#,
    r#""frames_per_second": 50, "frames_burst": 60, "partial_frame_timeout": "500ms" }, "#,
    r#""statuses":"#
);

impl Scene {
    async fn start() -> Result<Self> {
        Self::edited(&[(r#""statuses":"#, LIMITS)]).await
    }

    async fn edited(edits: &[(&str, &str)]) -> Result<Self> {
        let game = GameServer::start()?;
        let backends = Backends { game: Some(game.address), ..Backends::default() };
        let envoy = Envoy::start("direct.yaml", backends, edits)?;
        let neighbour = Client::connect(envoy.private()?, &Login::None).await?;
        Ok(Self { envoy, neighbour, _game: game, companion: None })
    }

    async fn with_login(bootstrap: &str) -> Result<Self> {
        let (game, companion) = (GameServer::start()?, Companion::start()?);
        let backends = Backends {
            game: Some(game.address),
            companion: Some(companion.address),
            ..Backends::default()
        };
        let short = r#""login": { "command": 1, "timeout": "1s", "handshake_timeout": "900ms" }"#;
        let edits = [(r#""login": { "command": 1 }"#, short)];
        let mut envoy = Envoy::start(bootstrap, backends, &edits)?;
        envoy.wait_stat("wasmcustom.meshgate.companion_connected", 2)?;
        let login = match bootstrap {
            "noise.yaml" => companion.noise_login("neighbour", &[])?,
            _ => companion.ticket_login("neighbour", &[])?,
        };
        let neighbour = Client::connect(envoy.private()?, &login).await?;
        // A session is pending until its first sealed frame.
        neighbour.call(command::ECHO_BYTES, b"hello".to_vec()).await?;
        Ok(Self { envoy, neighbour, _game: game, companion: Some(companion) })
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(Connection::connect(self.envoy.private()?).await?)
    }

    /// The counter that the row is told by, and the neighbour, who notices nothing.
    async fn seen(&mut self, counter: &str) -> Result<()> {
        let name = format!("wasmcustom.meshgate.{counter}");
        self.envoy.wait_for(&name, |envoy| Ok(envoy.stat(&name)?.unwrap_or(0) > 0))?;
        let reply = self.neighbour.call(command::ECHO_BYTES, b"well".to_vec()).await?;
        assert_eq!(reply, b"well");
        Ok(())
    }
}

async fn next(connection: &mut Connection) -> Result<Option<Frame>> {
    Ok(tokio::time::timeout(PATIENCE, connection.receive()).await.context("nothing came")??)
}

/// The connection says goodbye with this status and then closes.
async fn says_goodbye(connection: &mut Connection, status: u16) -> Result<String> {
    let frame = next(connection).await?.context("closed without a goodbye")?;
    assert_eq!((frame.command, frame.status), (command::GOODBYE, status), "{frame:?}");
    assert!(frame.flags.has(Flags::PUSH));
    assert_eq!(next(connection).await?, None, "then it closes");
    Ok(String::from_utf8(frame.body)?)
}

/// Calls with `frame` and expects an error reply with this status; the connection lives on.
async fn refused(connection: &mut Connection, frame: Frame, status: u16) -> Result<String> {
    connection.send(&frame).await?;
    let reply = next(connection).await?.context("closed")?;
    assert_eq!((reply.sequence, reply.status), (frame.sequence, status), "{reply:?}");
    assert!(reply.flags.has(Flags::REPLY.with(Flags::ERROR)));
    Ok(String::from_utf8(reply.body)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frame_get_a_goodbye() -> Result<()> {
    let mut scene = Scene::start().await?;
    let good = Frame::request(command::ECHO_BYTES, 1, b"x".to_vec()).encode();
    for (at, value, counter) in [
        (0, 0x00, "peer_errors_total.kind.bad_magic"),
        (2, 0x09, "peer_errors_total.kind.bad_version"),
        (4, 0x7f, "peer_errors_total.kind.frame_too_large"),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        let mut connection = scene.connect().await?;
        connection.send_raw(&bad).await?;
        says_goodbye(&mut connection, 3).await?;
        scene.seen(counter).await?;
    }
    let mut short = good.clone();
    short[4..8].copy_from_slice(&19u32.to_be_bytes());
    let mut connection = scene.connect().await?;
    connection.send_raw(&short).await?;
    says_goodbye(&mut connection, 3).await?;
    scene.seen("peer_errors_total.kind.length_too_small").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_request_gets_a_goodbye() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    connection.send_raw(b"GET / HTTP/1.1\r\nHost: game\r\n\r\n").await?;
    says_goodbye(&mut connection, 3).await?;
    scene.seen("peer_errors_total.kind.bad_magic").await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_served_are_refused_one_by_one() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    let text = refused(&mut connection, Frame::request(4711, 1, vec![]), 12).await?;
    assert!(text.contains("4711"), "{text}");
    scene.seen("peer_errors_total.kind.unknown_command").await?;

    let reply = Frame { flags: Flags::REPLY, ..Frame::request(command::ECHO, 2, vec![]) };
    refused(&mut connection, reply, 3).await?;
    scene.seen("peer_errors_total.kind.not_a_request").await?;

    let bad = Frame::request(command::ECHO, 3, b"not zlib".to_vec());
    refused(&mut connection, Frame { flags: Flags::COMPRESSED, ..bad }, 3).await?;
    scene.seen("peer_errors_total.kind.bad_compression").await?;

    let bomb = Frame::request(command::ECHO_BYTES, 4, vec![0; 400_000]).compress();
    assert!(bomb.body.len() < 16_000, "the bomb fits a frame");
    refused(&mut connection, bomb, 8).await?;
    scene.seen("peer_errors_total.kind.body_too_large").await?;

    connection.send(&Frame::request(command::ECHO_BYTES, 5, b"still".to_vec())).await?;
    assert_eq!(next(&mut connection).await?.context("closed")?.status, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_and_repeated_sequences_are_refused() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    let slow = SlowRequest { millis: 1500, body: Vec::new() }.encode_to_vec();
    connection.send(&Frame::request(command::SLOW, 1, slow.clone())).await?;
    refused(&mut connection, Frame::request(command::ECHO, 1, vec![]), 6).await?;
    scene.seen("peer_errors_total.kind.duplicate_sequence").await?;
    for sequence in 2..=4 {
        connection.send(&Frame::request(command::SLOW, sequence, slow.clone())).await?;
    }
    refused(&mut connection, Frame::request(command::ECHO, 5, vec![]), 8).await?;
    scene.seen("peer_errors_total.kind.too_many_in_flight").await?;
    for _ in 0..4 {
        let reply = next(&mut connection).await?.context("closed")?;
        assert_eq!(reply.status, 0, "those in flight are answered: {reply:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_refusals_close_without_a_word() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    let frame = Frame::request(command::SAY, 0, vec![]);
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.extend(Frame { flags: Flags::ONE_WAY, ..frame.clone() }.encode());
    }
    connection.send_raw(&flood).await?;
    while let Some(frame) = next(&mut connection).await? {
        assert_ne!(frame.command, command::GOODBYE, "no word for a flood");
    }
    scene.seen("limits_hit_total.limit.refusals_per_second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_above_the_rate_are_refused() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    let mut refusal = None;
    for sequence in 0..1000 {
        connection.send(&Frame::request(command::ECHO_BYTES, sequence, vec![])).await?;
        let reply = next(&mut connection).await?.context("closed")?;
        if reply.status != 0 {
            refusal = Some(reply);
            break;
        }
    }
    let refusal = refusal.context("no frame was above the rate")?;
    assert_eq!(refusal.status, 8, "RESOURCE_EXHAUSTED");
    assert!(String::from_utf8_lossy(&refusal.body).contains("too many frames"));
    scene.seen("limits_hit_total.limit.frames_per_second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_held_too_long_gets_a_goodbye() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    let whole = Frame::request(command::ECHO_BYTES, 1, b"x".to_vec()).encode();
    connection.send_raw(&whole[..whole.len() - 1]).await?;
    says_goodbye(&mut connection, 4).await?;
    scene.seen("peer_errors_total.kind.partial_frame_timeout").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_in_many_pieces_is_a_frame() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    for byte in Frame::request(command::ECHO_BYTES, 1, b"slowly".to_vec()).encode() {
        connection.send_raw(&[byte]).await?;
        tokio::task::yield_now().await;
    }
    let reply = next(&mut connection).await?.context("closed")?;
    assert_eq!(reply.body, b"slowly");
    scene.seen("frames_in_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_in_time_closes() -> Result<()> {
    let mut scene = Scene::with_login("ticket.yaml").await?;
    // Silent from the start: there is no bell to reach, so no goodbye either.
    let mut silent = scene.connect().await?;
    assert_eq!(next(&mut silent).await?, None);
    scene.seen("logins_total.result.timeout").await?;
    // One who begins with something else hears why, from a cluster that serves nothing, which
    // is the only one that this connection can reach then.
    let mut early = scene.connect().await?;
    refused(&mut early, Frame::request(command::ECHO, 1, vec![]), 16).await?;
    assert_eq!(next(&mut early).await?, None);
    scene.seen("peer_errors_total.kind.denied").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_ticket_is_refused_as_expired() -> Result<()> {
    let mut scene = Scene::with_login("ticket.yaml").await?;
    let companion = scene.companion.as_ref().context("a companion")?;
    let login = companion.ticket_login("late", &["--ttl", "1s"])?;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(Client::connect(scene.envoy.private()?, &login).await.is_err());
    scene.seen("logins_total.result.expired").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_forged_or_was_used_is_refused() -> Result<()> {
    let mut scene = Scene::with_login("noise.yaml").await?;
    let companion = scene.companion.as_ref().context("a companion")?;
    let used = companion.noise_login("ann", &[])?;
    let client = Client::connect(scene.envoy.private()?, &used).await?;
    client.call(command::ECHO_BYTES, b"mine".to_vec()).await?;
    let refused = Client::connect(scene.envoy.private()?, &used).await;
    assert!(matches!(refused, Err(Error::Refused { status: 16, .. })), "UNAUTHENTICATED");

    let Credential::Ticket(mut forged) = companion.ticket("ann", &[])? else { unreachable!() };
    // The last digit of a signature carries bits that do not count; one in its middle does.
    let at = forged.len() - 20;
    let other = if forged.as_bytes()[at] == b'A' { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    let server = companion.noise_server();
    let forged = Login::Noise { server, credential: Credential::Ticket(forged) };
    let refused = Client::connect(scene.envoy.private()?, &forged).await;
    assert!(matches!(refused, Err(Error::Refused { status: 16, .. })), "UNAUTHENTICATED");
    scene.seen("logins_total.result.refused").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_a_companion_that_does_not_answer_is_to_be_tried_again() -> Result<()> {
    let mut scene = Scene::with_login("ticket.yaml").await?;
    let companion = scene.companion.as_ref().context("a companion")?;
    let login = companion.ticket_login("late", &[])?;
    companion.process.signal("STOP")?;
    let refused = Client::connect(scene.envoy.private()?, &login).await;
    assert!(matches!(refused, Err(Error::Refused { status: 14, .. })), "UNAVAILABLE");
    scene.seen("logins_total.result.try_again").await?;
    scene.companion.as_ref().context("a companion")?.process.signal("CONT")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_in_time_fails_that_call_alone() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut connection = scene.connect().await?;
    let slow = SlowRequest { millis: 60_000, body: Vec::new() }.encode_to_vec();
    refused(&mut connection, Frame::request(command::SLOW, 1, slow), 4).await?;
    scene.seen("calls_total.command.1102_Slow.code.DEADLINE_EXCEEDED").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_together_with_the_half_close_is_answered_or_refused() -> Result<()> {
    let mut scene = Scene::start().await?;
    for sequence in 0..20 {
        let mut connection = scene.connect().await?;
        connection.send(&Frame::request(command::ECHO_BYTES, sequence, b"x".to_vec())).await?;
        connection.sender.finish().await?;
        let reply = next(&mut connection).await?.context("closed without an answer")?;
        assert!(reply.sequence == sequence && [0, 14].contains(&reply.status), "{reply:?}");
    }
    scene.seen("frames_in_total").await
}

/// What the service says waits for its reader; what the filter has to say does for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_once_it_has_to_be_told_something() -> Result<()> {
    let edits = [(r#""statuses":"#, r#""limits": { "bell_timeout": "1s" }, "statuses":"#)];
    let mut scene = Scene::edited(&edits).await?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let (reader, mut writer) = socket.connect(scene.envoy.private()?).await?.into_split();
    // 7 MB of replies that do not compress; what the kernel takes of them is 4 MB.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(60_000)
    .collect();
    for sequence in 0..120 {
        let frame = Frame::request(command::ECHO_BYTES, sequence, noise.clone());
        if writer.write_all(&frame.encode()).await.is_err() {
            break;
        }
    }
    scene.seen("upstream_errors_total.kind.bell_unanswered").await?;
    drop(reader);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_login_on_a_connection_is_refused() -> Result<()> {
    let mut scene = Scene::with_login("ticket.yaml").await?;
    let login = scene.companion.as_ref().context("a companion")?.ticket_login("ann", &[])?;
    let mut connection = scene.connect().await?;
    connection.login(&login).await?;
    refused(&mut connection, Frame::request(command::LOGIN, 9, b"again".to_vec()), 9).await?;
    scene.seen("peer_errors_total.kind.repeated_login").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_token_that_is_wrong_or_was_overtaken_is_refused() -> Result<()> {
    for bootstrap in ["noise.yaml", "ticket.yaml"] {
        let mut scene = Scene::with_login(bootstrap).await?;
        let companion = scene.companion.as_ref().context("a companion")?;
        let login = match bootstrap {
            "noise.yaml" => companion.noise_login("ann", &[])?,
            _ => companion.ticket_login("ann", &[])?,
        };
        let client = Client::connect(scene.envoy.private()?, &login).await?;
        client.call(command::ECHO_BYTES, b"hello".to_vec()).await?;
        let good = client.resumption(&login).context("a token")?;
        let mut wrong = good.clone();
        if let Login::ResumeNoise { token, .. } | Login::ResumeTicket { token, .. } = &mut wrong {
            token.secret[0] ^= 1;
        }
        let resumed = Client::connect(scene.envoy.private()?, &good).await?;
        resumed.call(command::ECHO_BYTES, b"hello".to_vec()).await?;
        for bad in [wrong, good] {
            let refused = Client::connect(scene.envoy.private()?, &bad).await.err();
            assert!(
                matches!(&refused, Some(Error::Refused { status: 16, text })
                    if text == "the session cannot be resumed, log in"),
                "{refused:?}"
            );
        }
        let mut connection = scene.connect().await?;
        let refused = connection.exchange(vec![1, 2, 200, 0]).await.err();
        assert!(matches!(refused, Some(Error::Refused { status: 3, .. })), "{refused:?}");
        scene.seen("logins_total.result.refused").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_session_that_goes_on_elsewhere_gets_a_goodbye() -> Result<()> {
    let mut scene = Scene::with_login("noise.yaml").await?;
    let login = scene.companion.as_ref().context("a companion")?.noise_login("ann", &[])?;
    let mut old = scene.connect().await?;
    let token = old.login(&login).await?.and_then(|reply| reply.resume).context("a token")?;
    old.send(&Frame::request(command::ECHO_BYTES, 1, b"hello".to_vec())).await?;
    assert_eq!(next(&mut old).await?.context("closed")?.body, b"hello");
    let server = scene.companion.as_ref().context("a companion")?.noise_server();
    let resume = Login::ResumeNoise { server, token };
    let new = Client::connect(scene.envoy.private()?, &resume).await?;
    new.call(command::ECHO_BYTES, b"hello".to_vec()).await?;
    let said = says_goodbye(&mut old, 10).await?;
    assert_eq!(said, "the session goes on over another connection");
    scene.seen("connections_closed_total.reason.kicked").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_replayed_left_out_or_unsealed_frame_closes_without_a_word() -> Result<()> {
    let mut scene = Scene::with_login("noise.yaml").await?;
    for how in ["tampered", "replayed", "left out", "unsealed"] {
        let companion = scene.companion.as_ref().context("a companion")?;
        let login = companion.noise_login("ann", &[])?;
        let mut connection = scene.connect().await?;
        connection.login(&login).await?;
        let frame = Frame::request(command::ECHO_BYTES, 1, b"hello".to_vec());
        connection.send(&frame).await?;
        assert_eq!(next(&mut connection).await?.context("closed")?.body, b"hello");
        let mut bytes = connection.sender.encode(&frame);
        match how {
            "tampered" => *bytes.last_mut().context("a frame")? ^= 1,
            "replayed" => bytes.extend(bytes.clone()),
            "left out" => bytes = connection.sender.encode(&frame),
            _ => bytes = frame.encode(),
        }
        connection.send_raw(&bytes).await?;
        // A replayed frame comes after a good one, whose reply may have got through.
        while let Some(frame) = next(&mut connection).await? {
            assert!(how == "replayed" && frame.body == b"hello", "{how}: {frame:?}");
        }
    }
    scene.seen("peer_errors_total.kind.seal_broken").await?;
    scene.seen("peer_errors_total.kind.unsealed_frame").await
}
