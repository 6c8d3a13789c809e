//! What operators look at, against a real run: a real Prometheus scrapes Envoy and the companion
//! while clients do well and badly, and every query of the dashboard has data.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use meshgate_client::{Client, Connection, Credential, Frame, Login};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::process::root;
use meshgate_e2e::{Companion, Envoy, GameServer, Prometheus, command};
use meshgate_game::demo::v1::{EchoRequest, FailRequest, RepeatRequest, SlowRequest};
use prost::Message;
use serde_json::Value;

/// How long all of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// A few scrapes.
const WINDOW: &str = "5s";

/// Small limits, so that a run reaches them.
const LIMITS: &str = concat!(
    r#""limits": { "max_in_flight": 2, "refusals_per_second": 10, "frames_per_second": 50, "#,
    r#""frames_burst": 60 }, "statuses":"#
);

/// Panels that show zero in a run where no machine, disk or service fails. Their series are there.
const QUIET: [&str; 11] = [
    "Workers without a companion",
    "Waiting for a slow service",
    "What services do wrong",
    "Streams opened and cut",
    "Logins under way",
    "Store: errors",
    "Operators and services",
    "News between companions",
    "Connections that Envoy turned away",
    "Connections to services that failed",
    "Log lines held back",
];

/// The companion here listens on loopback without TLS.
const WITH_TLS_ALONE: &str = "meshgate_companion_certificate_expiry_seconds";

struct Scene {
    envoy: Envoy,
    companion: Companion,
    _game: GameServer,
}

impl Scene {
    fn start() -> Result<Self> {
        let (game, companion) = (GameServer::start()?, Companion::start()?);
        let backends = Backends {
            game: Some(game.address),
            companion: Some(companion.address),
            ..Backends::default()
        };
        let mut envoy = Envoy::start("noise.yaml", backends, &[(r#""statuses":"#, LIMITS)])?;
        envoy.wait_stat("wasmcustom.meshgate.companion_connected", 2)?;
        Ok(Self { envoy, companion, _game: game })
    }

    async fn client(&self, user: &str) -> Result<Client> {
        let login = self.companion.noise_login(user, &[])?;
        Ok(Client::connect(self.envoy.private()?, &login).await?)
    }

    /// One of each thing that clients and operators do.
    async fn round(&self) -> Result<()> {
        self.calls().await?;
        self.refused_login().await?;
        self.broken_seal(false).await?;
        self.broken_seal(true).await?;
        self.flood().await?;
        // One that the configuration names as a push, and one that it does not.
        self.companion.serve_app(&["push", "--user", "wim", "--command", "1300"])?;
        self.companion.serve_app(&["push", "--user", "wim", "--command", "1299"]).ok();
        let kicked = self.client("kicked").await?;
        kicked.call(command::ECHO_BYTES, b"x".to_vec()).await?;
        self.companion.operate(&["session", "kick", "--user", "kicked"])?;
        kicked.closed().await;
        self.companion.process.signal("HUP")
    }

    async fn calls(&self) -> Result<()> {
        let client = self.client("ann").await?;
        let echo = EchoRequest { body: b"x".to_vec() }.encode_to_vec();
        client.call(command::ECHO, echo).await?;
        client.call_frame(Frame::request(command::HEARTBEAT, 0, *b"now")).await?;
        let fail = FailRequest { code: 5, ..FailRequest::default() }.encode_to_vec();
        client.call(command::FAIL, fail).await.expect_err("a failure");
        client.call(4711, Vec::new()).await.expect_err("an unknown command");
        let repeat = RepeatRequest { body: b"tick".to_vec(), times: 3, millis: 1, code: 0 };
        client.send(&Frame::request(command::REPEAT, 900, repeat.encode_to_vec())).await?;
        for _ in 0..3 {
            client.next_push().await.context("a push")?;
        }
        Ok(())
    }

    async fn refused_login(&self) -> Result<()> {
        let server = self.companion.noise_server();
        let Credential::Ticket(mut forged) = self.companion.ticket("eve", &[])? else {
            bail!("no ticket")
        };
        let at = forged.len() - 20;
        let other = if forged.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.replace_range(at..=at, other);
        let forged = Login::Noise { server, credential: Credential::Ticket(forged) };
        assert!(Client::connect(self.envoy.private()?, &forged).await.is_err());
        Ok(())
    }

    /// A frame that was tampered with, or one without a seal.
    async fn broken_seal(&self, unsealed: bool) -> Result<()> {
        let login = self.companion.noise_login("mallory", &[])?;
        let mut connection = Connection::connect(self.envoy.private()?).await?;
        connection.login(&login).await?;
        let frame = Frame::request(command::ECHO_BYTES, 1, b"hello".to_vec());
        connection.send(&frame).await?;
        connection.receive().await?.context("an echo")?;
        let mut bytes = connection.sender.encode(&frame);
        if unsealed {
            bytes = frame.encode();
        } else {
            *bytes.last_mut().context("a frame")? ^= 1;
        }
        connection.send_raw(&bytes).await?;
        assert_eq!(connection.receive().await?, None, "it closes");
        Ok(())
    }

    /// More calls at once than one connection may have.
    async fn flood(&self) -> Result<()> {
        let client = self.client("flo").await?;
        let slow = SlowRequest { millis: 200, body: Vec::new() }.encode_to_vec();
        let call = || client.call(command::SLOW, slow.clone());
        let (one, two, three) = tokio::join!(call(), call(), call());
        assert!([one, two, three].iter().any(Result::is_err), "two in flight is the limit");
        Ok(())
    }
}

/// A panel's title and queries, ready to be asked.
fn panels() -> Result<Vec<(String, Vec<String>)>> {
    let text = std::fs::read_to_string(root().join("istio/chart/dashboards/meshgate.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().context("no title")?.to_owned();
        let mut queries = Vec::new();
        for target in panel["targets"].as_array().context("no targets")? {
            let mut query = target["expr"].as_str().context("no expr")?.to_owned();
            for variable in ["$namespace", "$pod", "$instance"] {
                query = query.replace(variable, ".*");
            }
            query = query.replace("$__rate_interval", WINDOW);
            assert!(!query.contains('$'), "{title}: an unknown variable in {query}");
            queries.push(query);
        }
        found.push((title, queries));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_alert_has_its_metrics_in_a_real_run() -> Result<()> {
    let scene = Scene::start()?;
    let targets = [
        ("envoy", scene.envoy.admin(), "/stats/prometheus"),
        ("companion", scene.companion.metrics, "/metrics"),
    ];
    let rules = root().join("istio/chart/alerts/meshgate.yaml");
    let Some(prometheus) = Prometheus::start(&targets, &rules)? else { return Ok(()) };
    let panels = panels()?;
    assert!(panels.len() > 30, "{} panels", panels.len());
    for title in QUIET {
        assert!(panels.iter().any(|(found, _)| found == title), "there is no panel {title}");
    }
    // Somebody who stays, with a stream in flight.
    let watcher = scene.client("wim").await?;
    watcher.send(&Frame::request(command::LISTEN, 500, Vec::new())).await?;
    watcher.call(command::ECHO_BYTES, b"here".to_vec()).await?;

    let mut waiting: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (title, queries) in &panels {
        waiting.extend(queries.iter().map(|query| (title.as_str(), query.as_str())));
    }
    let until = Instant::now() + PATIENCE;
    while !waiting.is_empty() {
        scene.round().await?;
        let mut left = BTreeSet::new();
        for (title, query) in waiting {
            let values = prometheus.query(query)?;
            let good = match QUIET.contains(&title) {
                true => !values.is_empty(),
                false => values.iter().any(|value| *value > 0.0),
            };
            if !good {
                left.insert((title, query));
            }
        }
        waiting = left;
        if Instant::now() > until {
            bail!("no data for {waiting:#?}");
        }
    }
    // What Envoy could not take apart into labels would have `=.=` in its name.
    let whole = prometheus.query(r#"{__name__=~"meshgate_.*___.*"}"#)?;
    assert!(whole.is_empty(), "the bootstrap's stats_tags lack a label of the filter");
    alerts_are_evaluated(&prometheus)
}

#[test]
fn every_bootstrap_with_the_filter_takes_its_labels_apart() -> Result<()> {
    let tags = |text: &str| text.split_once("\nstats_config:").map(|(_, tags)| tags.to_owned());
    let folder = root().join("envoy-config");
    let expected = tags(&std::fs::read_to_string(folder.join("direct.yaml"))?);
    assert!(expected.as_ref().is_some_and(|tags| tags.contains("tag_name: limit")));
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        if text.contains("network.wasm.v3.Wasm") {
            assert_eq!(tags(&text), expected, "{}", path.display());
        }
    }
    Ok(())
}

/// No rule fails, and of the metrics that they look at each is there, but for those of Istio.
fn alerts_are_evaluated(prometheus: &Prometheus) -> Result<()> {
    let rules = prometheus.rules()?;
    assert!(rules.len() > 5, "{} rules", rules.len());
    let text = std::fs::read_to_string(root().join("istio/chart/alerts/meshgate.yaml"))?;
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    let names: BTreeSet<&str> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("meshgate_"))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names.into_iter().filter(|name| *name != WITH_TLS_ALONE) {
        assert!(!prometheus.query(name)?.is_empty(), "nothing exposes {name}");
    }
    Ok(())
}
