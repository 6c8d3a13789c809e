//! What Envoy's own access logs can say of private clients: the fields that the documentation names.

use std::fs;

use anyhow::{Context, Result};
use meshgate_client::Client;
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::{Companion, Envoy, GameServer, command};
use meshgate_game::demo::v1::EchoRequest;
use prost::Message;

/// An access log in a filter's configuration, at the bootstraps' depth.
fn access_log(path: &str, format: &str) -> String {
    let pad = " ".repeat(16);
    format!(
        "\n{pad}access_log:\n{pad}  - name: file\n{pad}    typed_config:\n{pad}      \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n{pad}      \
         path: {path}\n{pad}      \
         log_format: {{ text_format_source: {{ inline_string: \"{format}\\n\" }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn access_logs_name_the_cluster_of_a_connection_and_the_user_of_a_call() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("access.log");
    let log = |format: &str| access_log(&path.display().to_string(), format);
    let private = "stat_prefix: private\n";
    let by_connection = "tcp %FILTER_STATE(envoy.tcp_proxy.cluster:PLAIN)% %UPSTREAM_CLUSTER% \
                         %DOWNSTREAM_REMOTE_ADDRESS% %BYTES_RECEIVED%";
    let routed = "stat_prefix: refusals\n";
    let by_call = "http %REQ(:PATH)% %REQ(X-MESHGATE-USER)% %REQ(X-MESHGATE-SESSION)% \
                   %REQ(X-MESHGATE-CLAIM-LEVEL)% %REQ(TRACEPARENT)% %GRPC_STATUS%";
    // The routed path behind a login: the refusals' listener routes calls as well.
    let (game, companion) = (GameServer::start()?, Companion::start()?);
    let backends = Backends {
        game: Some(game.address),
        companion: Some(companion.address),
        ..Backends::default()
    };
    let http2 = "    - name: game\n      type: STATIC\n      typed_extension_protocol_options:\n        \
                 envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n          \
                 \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n          \
                 explicit_http_config: { http2_protocol_options: {} }\n";
    let edits = [
        (private, &*format!("{}{}", private.trim_end(), log(by_connection))),
        (routed, &*format!("{}{}", routed.trim_end(), log(by_call))),
        (r#""cluster": "game","#, r#""cluster": "refusals","#),
        ("direct_response: { status: 404 }", "route: { cluster: game, timeout: 0s }"),
        ("    - name: game\n      type: STATIC\n", http2),
    ];
    let mut envoy = Envoy::start("noise.yaml", backends, &edits)?;
    envoy.wait_stat("wasmcustom.meshgate.companion_connected", 2)?;
    let login = companion.noise_login("ann", &["--claim", "level=7"])?;
    let client = Client::connect(envoy.private()?, &login).await?;
    client.call(command::ECHO, EchoRequest { body: b"x".to_vec() }.encode_to_vec()).await?;
    drop(client);

    let mut lines = String::new();
    envoy.wait_for("both lines", |envoy| {
        // Envoy writes access logs every ten seconds, or now.
        envoy.post("/reopen_logs")?;
        lines = fs::read_to_string(&path).unwrap_or_default();
        Ok(lines.contains("tcp ") && lines.contains("http /demo"))
    })?;
    let fields = |kind: &str| {
        let line = lines.lines().find(|line| line.starts_with(kind));
        let words = line.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        words.with_context(|| format!("no {kind} in {lines}"))
    };
    let tcp = fields("tcp ")?;
    assert_eq!((&*tcp[1], &*tcp[2]), ("refusals", "refusals"), "{lines}");
    assert!(tcp[3].starts_with("127.0.0.1:") && tcp[4].parse::<u64>()? > 0, "{lines}");
    let call = fields("http /demo")?;
    assert_eq!((&*call[1], &*call[2], &*call[4]), ("/demo.v1.Echo/Echo", "ann", "7"), "{lines}");
    assert_eq!((call[3].len(), call[5].len(), &*call[6]), (32, 55, "OK"), "{lines}");
    // The filter's own line of that connection has the same address, and who it was.
    let peer = format!("peer={}", tcp[3]);
    envoy.wait_for("the filter's line", |envoy| {
        Ok(envoy.log().lines().any(|line| line.contains(&peer) && line.contains("user=\"ann\"")))
    })
}
