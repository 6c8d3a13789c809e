//! Clients that come back: at another Envoy, with another companion behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_client::{Client, Connection, Error, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, GameServer, RedisServer, command};
use meshgate_game::demo::v1::WhoamiReply;
use prost::Message;

const CONNECTED: &str = "wasmcustom.meshgate.companion_connected";
/// Envoy runs the plugin on its main thread too, beside the one worker of the tests.
const BOTH: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(20);
const MOVED: &str = "the session goes on over another connection";

/// An Envoy and its companion.
struct Gate {
    envoy: Envoy,
    companion: Companion,
}

impl Gate {
    fn start(
        bootstrap: &str,
        game: &GameServer,
        companion: Companion,
        edits: &[(&str, &str)],
    ) -> Result<Self> {
        let backends = Backends {
            game: Some(game.address),
            companion: Some(companion.address),
            ..Backends::default()
        };
        let mut envoy = Envoy::start(bootstrap, backends, edits)?;
        envoy.wait_stat(CONNECTED, BOTH)?;
        Ok(Self { envoy, companion })
    }

    async fn client(&self, login: &Login) -> Result<Client, Error> {
        Client::connect(self.envoy.private().expect("a listener"), login).await
    }

    /// Waits until the companion's list of sessions is as wanted.
    async fn lists(&self, wanted: impl Fn(&[serde_json::Value]) -> bool) -> Result<()> {
        let waiting = async {
            loop {
                let list = self.companion.operate(&["session", "list", "--json"])?;
                let list: Vec<serde_json::Value> = serde_json::from_str(&list)?;
                if wanted(&list) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("the list never was as wanted")?
    }

    async fn one_in_state(&self, state: &str) -> Result<()> {
        self.lists(|list| list.len() == 1 && list[0]["state"] == state).await
    }
}

/// Two gates that share their sessions; `None` without a Redis server.
fn two(bootstrap: &str, game: &GameServer) -> Result<Option<(RedisServer, Gate, Gate)>> {
    let Some(redis) = RedisServer::start(&[]) else { return Ok(None) };
    let port = format!("store.redis.port={}", redis.port);
    let companion = Companion::with(&["store.kind=redis", &port, "login.same_user=refuse"])?;
    let other = companion.another()?;
    let one = Gate::start(bootstrap, game, companion, &[])?;
    Ok(Some((redis, one, Gate::start(bootstrap, game, other, &[])?)))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_out_is_gone_at_once_and_comes_back_by_a_login_alone() -> Result<()> {
    for bootstrap in ["noise.yaml", "ticket.yaml"] {
        let game = GameServer::start()?;
        let gate = Gate::start(bootstrap, &game, Companion::start()?, &[])?;
        let login = match bootstrap {
            "noise.yaml" => gate.companion.noise_login("ann", &[])?,
            _ => gate.companion.ticket_login("ann", &[])?,
        };
        let client = gate.client(&login).await?;
        whoami(&client).await?;
        let back = client.resumption(&login).context("a token")?;
        client.log_out().await?;
        let closed = tokio::time::timeout(PATIENCE, client.closed()).await?;
        assert_eq!((closed.goodbye, closed.error), (None, None));
        gate.lists(|list| list.is_empty()).await?;
        // Its first frame would be the resume's proof; it does not get as far.
        let Err(Error::Refused { status, .. }) = gate.client(&back).await else {
            panic!("a session went on that had ended")
        };
        assert_eq!(status, 16, "UNAUTHENTICATED");
    }
    Ok(())
}

async fn whoami(client: &Client) -> Result<WhoamiReply> {
    Ok(WhoamiReply::decode(&client.call(command::WHOAMI, vec![]).await?[..])?)
}

fn is_refused(result: Result<Client, Error>) -> Result<()> {
    let Err(Error::Refused { status, text }) = result else { panic!("it was resumed") };
    assert_eq!((status, text.as_str()), (16, "the session cannot be resumed, log in"));
    Ok(())
}

async fn comes_back(bootstrap: &str, log_in: fn(&Companion) -> Result<Login>) -> Result<()> {
    let game = GameServer::start()?;
    let Some((_redis, one, two)) = two(bootstrap, &game)? else { return Ok(()) };
    let login = log_in(&one.companion)?;
    let client = one.client(&login).await?;
    let before = whoami(&client).await?;
    let first = client.resumption(&login).context("a token")?;
    // The line is cut.
    drop(client);
    two.one_in_state("away").await?;

    let client = two.client(&first).await?;
    let session = client.session().context("a reply")?.clone();
    assert_eq!((session.user.as_str(), session.generation, session.lost_up_to), ("ann", 2, 1));
    let after = whoami(&client).await?;
    for field in ["x-meshgate-user", "x-meshgate-session"] {
        assert_eq!(after.metadata[field], before.metadata[field]);
    }
    one.one_in_state("live").await?;
    is_refused(one.client(&first).await)?;
    is_refused(two.client(&first).await)?;

    // From a connection that is there still; it is told.
    let second = client.resumption(&first).context("a token")?;
    let newest = one.client(&second).await?;
    assert_eq!(whoami(&client).await?.metadata["x-meshgate-user"], "ann", "not before a frame");
    whoami(&newest).await?;
    let closed = tokio::time::timeout(PATIENCE, client.closed()).await?;
    assert_eq!(closed.goodbye.as_deref(), Some(MOVED));
    // On the same Envoy, too.
    let third = newest.resumption(&second).context("a token")?;
    let again = one.client(&third).await?;
    whoami(&again).await?;
    let closed = tokio::time::timeout(PATIENCE, newest.closed()).await?;
    assert_eq!(closed.goodbye.as_deref(), Some(MOVED));
    one.lists(|list| list.len() == 1 && list[0]["generation"] == 4).await?;

    two.companion.operate(&["session", "kick", "--user", "ann", "--reason", "good night"])?;
    let closed = tokio::time::timeout(PATIENCE, again.closed()).await?;
    assert_eq!(closed.goodbye.as_deref(), Some("good night"));
    is_refused(two.client(&again.resumption(&third).context("a token")?).await)?;
    two.client(&log_in(&two.companion)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_session_goes_on_at_another_envoy_and_companion() -> Result<()> {
    comes_back("noise.yaml", |companion| companion.noise_login("ann", &[])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_session_goes_on_at_another_envoy_and_companion() -> Result<()> {
    comes_back("ticket.yaml", |companion| companion.ticket_login("ann", &[])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_envoy_died_is_not_locked_out() -> Result<()> {
    let game = GameServer::start()?;
    let companion = Companion::with(&["login.same_user=refuse", "session.proxy_timeout=2s"])?;
    let mut dying = Gate::start("noise.yaml", &game, companion, &[])?;
    let client = dying.client(&dying.companion.noise_login("ann", &[])?).await?;
    whoami(&client).await?;
    // Without a word to anybody: nobody says that the session's client is gone.
    dying.envoy.process().kill();
    dying.one_in_state("away").await?;
    let backends = Backends {
        game: Some(game.address),
        companion: Some(dying.companion.address),
        ..Backends::default()
    };
    let mut envoy = Envoy::start("noise.yaml", backends, &[])?;
    envoy.wait_stat(CONNECTED, BOTH)?;
    let login = dying.companion.noise_login("ann", &[])?;
    let client = Client::connect(envoy.private()?, &login).await?;
    whoami(&client).await?;
    dying.lists(|list| list.len() == 1 && list[0]["state"] == "live").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_whose_first_frame_does_not_come_leaves_everything_as_it_was() -> Result<()> {
    let game = GameServer::start()?;
    let gate = Gate::start("noise.yaml", &game, Companion::start()?, &[])?;
    let login = gate.companion.noise_login("ann", &[])?;
    let client = gate.client(&login).await?;
    whoami(&client).await?;
    let resume = client.resumption(&login).context("a token")?;
    // Sent again by somebody who saw it: answered, and of no use to him.
    let Login::ResumeNoise { server, token } = &resume else { panic!("{resume:?}") };
    let (_, message) = meshgate_client::Handshake::resume(server, token)?;
    for _ in 0..2 {
        let mut thief = Connection::connect(gate.envoy.private()?).await?;
        thief.exchange(message.clone()).await?;
        thief.send(&Frame::request(command::WHOAMI, 1, vec![])).await?;
        assert_eq!(thief.receive().await?, None, "an unsealed frame closes it");
    }
    whoami(&client).await?;
    // The client's own attempt, whose reply is lost.
    drop(gate.client(&resume).await?);
    whoami(&client).await?;
    whoami(&gate.client(&resume).await?).await?;
    Ok(())
}

const COMPANION_ENDPOINT: &str =
    "- endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 7600 } } }";

/// Logs in and calls, again and again, counting what goes well; answers what does not.
async fn keep_logging_in(
    address: SocketAddr,
    companion: Arc<Companion>,
    good: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let mut problems = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let attempt = async {
            let client = Client::connect(address, &companion.noise_login("ann", &[])?).await?;
            whoami(&client).await
        };
        match attempt.await {
            Ok(_) => drop(good.fetch_add(1, Ordering::Relaxed)),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    problems
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_fails_while_two_companions_are_restarted_one_after_the_other() -> Result<()> {
    let Some(redis) = RedisServer::start(&[]) else { return Ok(()) };
    let port = format!("store.redis.port={}", redis.port);
    let mut one = Companion::with(&["store.kind=redis", &port])?;
    let mut two = one.another()?;
    let issuer = Arc::new(one.another()?);
    let game = GameServer::start()?;
    let backends = Backends { game: Some(game.address), ..Backends::default() };
    let endpoint = |companion: &Companion| {
        let port = companion.address.port();
        format!(
            "- endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}"
        )
    };
    let both = format!("{0}\n              {1}", endpoint(&one), endpoint(&two));
    let mut envoy = Envoy::start("noise.yaml", backends, &[(COMPANION_ENDPOINT, &both)])?;
    envoy.wait_stat(CONNECTED, BOTH)?;
    let stays = Client::connect(envoy.private()?, &issuer.noise_login("ben", &[])?).await?;
    whoami(&stays).await?;

    let (good, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let address = envoy.private()?;
    let logins: Vec<_> = (0..3)
        .map(|_| {
            let (good, stop) = (Arc::clone(&good), Arc::clone(&stop));
            tokio::spawn(keep_logging_in(address, Arc::clone(&issuer), good, stop))
        })
        .collect();
    let some_more = async || {
        let enough = good.load(Ordering::Relaxed) + 10;
        let waiting = async {
            while good.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await
    };
    for companion in [&mut one, &mut two] {
        some_more().await?;
        // At either of the two: one that has its reply and has not sent a frame yet.
        let mut slow = Vec::new();
        for _ in 0..2 {
            let mut connection = Connection::connect(address).await?;
            connection.login(&issuer.noise_login("cid", &[])?).await?;
            slow.push(connection);
        }
        companion.process.signal("TERM")?;
        while !companion.log().contains("stopping") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for mut connection in slow {
            connection.send(&Frame::request(command::WHOAMI, 1, vec![])).await?;
            let reply = connection.receive().await?.context("closed")?;
            assert_eq!((reply.command, reply.status), (command::WHOAMI, 0), "{reply:?}");
        }
        assert_eq!(tokio::task::block_in_place(|| companion.process.wait())?, Some(0));
        // The other one is enough.
        some_more().await?;
        tokio::task::block_in_place(|| companion.restart())?;
    }
    some_more().await?;
    stop.store(true, Ordering::Relaxed);
    for task in logins {
        assert_eq!(task.await?, Vec::<String>::new());
    }
    whoami(&stays).await?;
    issuer.operate(&["session", "kick", "--user", "ben", "--reason", "good night"])?;
    let closed = tokio::time::timeout(PATIENCE, stays.closed()).await?;
    assert_eq!(closed.goodbye.as_deref(), Some("good night"));
    Ok(())
}

/// The reserved bytes of the demo's header as a key that the service gets with each request.
const KEY: (&str, &str) = (
    r#"{"name": "reserved", "type": "u16"}"#,
    r#"{"name": "reserved", "type": "u16", "metadata": "idempotency-key"}"#,
);

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_lost_is_sent_again_with_its_key() -> Result<()> {
    let game = GameServer::start()?;
    let gate = Gate::start("ticket.yaml", &game, Companion::start()?, &[KEY])?;
    let ask = async |login: &Login, sequence| -> Result<(String, Login)> {
        let mut connection = Connection::connect(gate.envoy.private()?).await?;
        let reply = connection.login(login).await?.context("a reply")?;
        let mut bytes = Frame::request(command::WHOAMI, sequence, vec![]).encode();
        bytes[18..20].copy_from_slice(&4711_u16.to_be_bytes());
        connection.send_raw(&bytes).await?;
        let answer = connection.receive().await?.context("an answer")?;
        assert_eq!((answer.sequence, answer.status), (sequence, 0));
        let who = WhoamiReply::decode(&answer.body[..])?;
        let (Login::Ticket(credential) | Login::ResumeTicket { credential, .. }) = login.clone()
        else {
            panic!("another login")
        };
        let token = reply.resume.context("a token")?;
        Ok((who.metadata["idempotency-key"].clone(), Login::ResumeTicket { credential, token }))
    };
    let (first, resume) = ask(&gate.companion.ticket_login("ann", &[])?, 1).await?;
    let (again, _) = ask(&resume, 9).await?;
    assert_eq!((first.as_str(), again.as_str()), ("4711", "4711"));
    Ok(())
}
