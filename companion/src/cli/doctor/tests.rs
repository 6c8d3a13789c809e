//! The doctor before what a real Envoy said of itself (recorded, made small), healthy and with one
//! thing changed; and before the project's own manifests, likewise.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::admin::Snapshot;
use super::proxy::Proxy;
use super::report::{Level, Report};
use super::{examine, manifests, plugins};

/// noise.yaml, the filter by discovery, with a companion and a game.
const DISCOVERED: &str = include_str!("recorded/discovered.json");
/// routed.yaml.
const ROUTED: &str = include_str!("recorded/routed.json");

fn diagnosis(snapshot: &Value, expected: &[&str]) -> Report {
    let snapshot: Snapshot = serde_json::from_value(snapshot.clone()).unwrap();
    let expected: Vec<_> = expected.iter().map(|&name| name.to_owned()).collect();
    let mut report = Report::default();
    examine(&Proxy::read(&snapshot), &expected, &mut report);
    report
}

#[track_caller]
fn finds(report: &Report, level: Level, check: &str, what: &str) {
    let found = report.findings().iter().any(|finding| {
        finding.level == level && finding.check == check && finding.what.contains(what)
    });
    assert!(found, "expected {level:?} {check} {what:?} in {:#?}", report.findings());
}

#[track_caller]
fn is_clean(report: &Report) {
    let wrong: Vec<_> = report.findings().iter().filter(|it| it.level != Level::Ok).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!report.findings().is_empty());
}

#[test]
fn healthy_proxies_are_clean() {
    for recorded in [DISCOVERED, ROUTED] {
        is_clean(&diagnosis(&serde_json::from_str(recorded).unwrap(), &["private", "7000"]));
    }
    let report = diagnosis(&serde_json::from_str(DISCOVERED).unwrap(), &[]);
    finds(&report, Level::Ok, "config", "version \"v7\" of discovery");
    finds(&report, Level::Ok, "companion", "2 streams");
}

/// The recorded proxy with something changed by `change`.
fn changed(recorded: &str, change: impl FnOnce(&mut Value)) -> Report {
    let mut snapshot = serde_json::from_str(recorded).unwrap();
    change(&mut snapshot);
    diagnosis(&snapshot, &[])
}

fn section<'a>(snapshot: &'a mut Value, kind: &str) -> &'a mut Value {
    let sections = snapshot["config_dump"]["configs"].as_array_mut().unwrap();
    sections.iter_mut().find(|it| it["@type"].as_str().unwrap().contains(kind)).unwrap()
}

fn listener(snapshot: &mut Value) -> &mut Value {
    let all = section(snapshot, "Listeners")["static_listeners"].as_array_mut().unwrap();
    all.iter_mut().map(|it| &mut it["listener"]).find(|it| it["name"] == "private").unwrap()
}

fn filters(snapshot: &mut Value) -> &mut Vec<Value> {
    listener(snapshot)["filter_chains"][0]["filters"].as_array_mut().unwrap()
}

fn tcp_proxy(snapshot: &mut Value) -> &mut Value {
    &mut filters(snapshot).last_mut().unwrap()["typed_config"]
}

fn plugin(snapshot: &mut Value) -> &mut Value {
    &mut section(snapshot, "Ecds")["ecds_filters"][0]["ecds_filter"]["typed_config"]
}

fn cluster<'a>(snapshot: &'a mut Value, name: &str) -> &'a mut Value {
    let all = section(snapshot, "Clusters")["static_clusters"].as_array_mut().unwrap();
    all.iter_mut().map(|it| &mut it["cluster"]).find(|it| it["name"] == name).unwrap()
}

fn status<'a>(snapshot: &'a mut Value, name: &str) -> &'a mut Value {
    let all = snapshot["clusters"]["cluster_statuses"].as_array_mut().unwrap();
    all.iter_mut().find(|it| it["name"] == name).unwrap()
}

#[test]
fn the_filter_has_to_be_there_and_in_its_place() {
    let gone = changed(DISCOVERED, |it| drop(filters(it).remove(0)));
    finds(&gone, Level::Error, "plugin", "no listener has the filter");
    let behind = changed(DISCOVERED, |it| filters(it).swap(0, 1));
    finds(&behind, Level::Error, "plugin", "behind tcp_proxy");
    let alone = changed(DISCOVERED, |it| drop(filters(it).pop()));
    finds(&alone, Level::Error, "plugin", "no tcp_proxy follows");
    let twice = changed(DISCOVERED, |it| {
        let filter = filters(it)[0].clone();
        filters(it).insert(0, filter);
    });
    finds(&twice, Level::Error, "plugin", "stands twice");
    let http = changed(DISCOVERED, |it| {
        let kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        *tcp_proxy(it) = json!({ "@type": kind });
    });
    finds(&http, Level::Error, "plugin", "in front of an HTTP connection manager");
    let snapshot = serde_json::from_str(DISCOVERED).unwrap();
    let report = diagnosis(&snapshot, &["7001", "refusals"]);
    finds(&report, Level::Error, "plugin", "there is no such listener");
    finds(&report, Level::Error, "plugin", "the filter is not in this chain");
}

#[test]
fn what_stands_in_for_a_plugin_is_told() {
    let rbac = |rules: Option<Value>| {
        changed(DISCOVERED, |it| {
            let kind = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
            *plugin(it) = json!({ "@type": kind, "stat_prefix": "wasm-default-deny." });
            plugin(it)["rules"] = rules.unwrap_or(Value::Null);
            if plugin(it)["rules"].is_null() {
                plugin(it).as_object_mut().unwrap().remove("rules");
            }
        })
    };
    let denied = "stands a filter that denies everybody";
    finds(&rbac(Some(json!({}))), Level::Error, "plugin", denied);
    let all = json!({ "action": "DENY", "policies": { "all": {} } });
    finds(&rbac(Some(all)), Level::Error, "plugin", denied);
    finds(&rbac(None), Level::Error, "plugin", "lets everything through");
    finds(
        &rbac(Some(json!({ "action": "DENY" }))),
        Level::Error,
        "plugin",
        "lets everything through",
    );
    let missing = changed(DISCOVERED, |it| section(it, "Ecds")["ecds_filters"] = json!([]));
    finds(&missing, Level::Error, "plugin", "has not arrived");
}

#[test]
fn a_plugin_must_fail_closed_and_come_back() {
    let policy = |policy: &str| {
        changed(DISCOVERED, |it| plugin(it)["config"]["failure_policy"] = policy.into())
    };
    finds(&policy("FAIL_OPEN"), Level::Error, "failure", "fails open");
    finds(&policy("FAIL_CLOSED"), Level::Warn, "failure", "for good");
    let old = changed(DISCOVERED, |it| plugin(it)["config"]["fail_open"] = true.into());
    finds(&old, Level::Error, "failure", "fails open");
}

#[test]
fn a_document_that_the_filter_refuses_is_told_in_its_words() {
    let report = changed(DISCOVERED, |it| {
        let value = &mut plugin(it)["config"]["configuration"]["value"];
        *value = value.as_str().unwrap().replace("\"noise\"", "\"noisy\"").into();
    });
    finds(&report, Level::Error, "config", "session.mode");
}

#[test]
fn tcp_proxy_has_to_wait_for_the_login() {
    for key in ["upstream_connect_mode", "max_early_data_bytes"] {
        let report =
            changed(DISCOVERED, |it| drop(tcp_proxy(it).as_object_mut().unwrap().remove(key)));
        finds(&report, Level::Error, "connect", "does not wait for the login");
    }
    let weighted = changed(DISCOVERED, |it| {
        tcp_proxy(it)["weighted_clusters"] = json!({ "clusters": [{ "name": "nobody" }] });
    });
    finds(&weighted, Level::Error, "connect", "is ignored");
}

#[test]
fn a_listener_buffers_a_frame_and_not_much_more() {
    let limit = |bytes: u64| {
        changed(DISCOVERED, |it| listener(it)["per_connection_buffer_limit_bytes"] = bytes.into())
    };
    finds(&limit(65_535), Level::Error, "buffer", "a frame may have 65536");
    finds(&limit(8 << 20), Level::Warn, "buffer", "8388608 bytes in each direction");
}

#[test]
fn without_the_filter_no_listener_may_lead_to_a_back_end() {
    let open = changed(DISCOVERED, |it| tcp_proxy(it)["cluster"] = "game".into());
    finds(&open, Level::Error, "guard", "leaves raw client bytes a way to game");
    let beside = changed(DISCOVERED, |it| {
        let mut raw = section(it, "Listeners")["static_listeners"][0].clone();
        raw["listener"]["name"] = "raw".into();
        let chain = &mut raw["listener"]["filter_chains"][0]["filters"];
        *chain = json!([{ "name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "cluster": "game" } }]);
        section(it, "Listeners")["static_listeners"].as_array_mut().unwrap().push(raw);
    });
    finds(&beside, Level::Error, "guard", "leads to game without the filter");
    let chain = changed(DISCOVERED, |it| {
        let mut chain = listener(it)["filter_chains"][0].clone();
        chain["filters"].as_array_mut().unwrap().remove(0);
        listener(it)["filter_chains"].as_array_mut().unwrap().push(chain);
    });
    finds(&chain, Level::Error, "guard", "leads to nobody without the filter");
}

#[test]
fn the_clusters_that_the_filter_names_have_to_be_there_and_alive() {
    let gone = changed(DISCOVERED, |it| cluster(it, "companion")["name"] = "compagnon".into());
    finds(&gone, Level::Error, "companion", "there is no such cluster");
    let http1 = changed(DISCOVERED, |it| {
        cluster(it, "companion")
            .as_object_mut()
            .unwrap()
            .remove("typed_extension_protocol_options");
    });
    finds(&http1, Level::Error, "companion", "does not speak HTTP/2");
    let empty = changed(DISCOVERED, |it| status(it, "game")["host_statuses"] = json!([]));
    finds(&empty, Level::Error, "upstream", "has no endpoint");
    let ill = changed(DISCOVERED, |it| {
        status(it, "game")["host_statuses"][0]["health_status"]["failed_outlier_check"] =
            true.into();
    });
    finds(&ill, Level::Error, "upstream", "none of its 1 endpoints may be used");
    let half = changed(DISCOVERED, |it| {
        let mut other = status(it, "game")["host_statuses"][0].clone();
        other["health_status"]["eds_health_status"] = "UNHEALTHY".into();
        status(it, "game")["host_statuses"].as_array_mut().unwrap().push(other);
    });
    finds(&half, Level::Warn, "upstream", "1 of 2 endpoints");
    let breaker = changed(DISCOVERED, |it| {
        cluster(it, "game").as_object_mut().unwrap().remove("circuit_breakers");
    });
    finds(&breaker, Level::Warn, "upstream", "lets 1024 clients in");
}

#[test]
fn the_routed_path_speaks_http2_to_clusters_that_are_there() {
    let http1 = changed(ROUTED, |it| {
        cluster(it, "hall").as_object_mut().unwrap().remove("typed_extension_protocol_options");
    });
    finds(&http1, Level::Error, "routed", "does not speak HTTP/2");
    let gone = changed(ROUTED, |it| cluster(it, "echo")["name"] = "ohce".into());
    finds(&gone, Level::Error, "routed", "a cluster that does not exist");
    let dead = changed(ROUTED, |it| status(it, "echo")["host_statuses"] = json!([]));
    finds(&dead, Level::Error, "routed", "no endpoint that may be used");
}

#[test]
fn counters_tell_what_went_wrong() {
    let stat = |name: &str, value: u64| changed(DISCOVERED, |it| it["stats"][name] = value.into());
    let connected = "wasmcustom.meshgate.companion_connected";
    finds(&stat(connected, 0), Level::Error, "companion", "nobody can log in");
    finds(&stat(connected, 1), Level::Warn, "companion", "1 of 2 threads");
    let fail = "extension_config_discovery.network_filter.game.meshgate.config_fail";
    finds(&stat(fail, 1), Level::Warn, "config", "was refused");
    finds(&stat("listener_manager.lds.update_rejected", 1), Level::Warn, "config", "was refused");
    finds(
        &stat("wasm.remote_load_fetch_failures", 1),
        Level::Error,
        "module",
        "could not be fetched",
    );
    finds(&stat("wasm-default-deny.rbac.denied", 1), Level::Error, "module", "turned away");
    finds(&stat("wasm.meshgate.vm_reload", 1), Level::Warn, "crash", "started anew");
    finds(
        &stat("wasm.meshgate.vm_reload_failure", 1),
        Level::Error,
        "crash",
        "could not be started",
    );
    let limit = "wasmcustom.meshgate.limit=.=frames_per_second;.;limits_hit_total";
    finds(&stat(limit, 9), Level::Warn, "limits", "frames_per_second: 9 times");
    let seal = "wasmcustom.meshgate.kind=.=seal_broken;.;peer_errors_total";
    finds(&stat(seal, 2), Level::Warn, "seals", "seal_broken: 2 times");
    let missing = "listener.0.0.0.0_7000.network_extension_config_missing";
    finds(&stat(missing, 3), Level::Warn, "plugin", "had not arrived");
}

#[test]
fn a_refused_listener_and_an_untested_envoy_are_told() {
    let refused = changed(DISCOVERED, |it| {
        let entry = json!({ "name": "private", "error_state": { "details": "no such filter" } });
        section(it, "Listeners")["dynamic_listeners"] = json!([entry]);
    });
    finds(&refused, Level::Error, "listener", "no such filter");
    let old = changed(DISCOVERED, |it| it["server_info"]["version"] = "a/1.30.1/b".into());
    finds(&old, Level::Warn, "envoy", "1.30.1");
}

/// The manifests of these folders of istio/, with the digests filled in and `edits` made.
fn manifests_with(folders: &[&str], edits: &[(&str, &str)]) -> Report {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../istio");
    let mut objects = Vec::new();
    let mut made = 0;
    for folder in folders {
        let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let mut text =
                std::fs::read_to_string(&file).unwrap().replace("sha256:0000", "sha256:1234");
            for (from, to) in edits {
                made += text.matches(from).count();
                text = text.replace(from, to);
            }
            objects.extend(manifests::parse(&text, &file).unwrap());
        }
    }
    assert!(edits.is_empty() || made > 0, "nothing to edit: {edits:?}");
    let mut report = Report::default();
    plugins::examine(&objects, &mut report);
    report
}

#[test]
fn the_projects_own_manifests_are_clean() {
    for scenario in ["gateway-direct", "gateway-routed", "gateway-tls", "sidecar-inbound"] {
        is_clean(&manifests_with(&["base", scenario], &[]));
    }
}

#[test]
fn unsafe_manifests_are_told_with_a_remedy() {
    let direct = |edits: &[(&str, &str)]| manifests_with(&["base", "gateway-direct"], edits);
    let sidecar = |edits: &[(&str, &str)]| manifests_with(&["base", "sidecar-inbound"], edits);
    let error = Level::Error;
    let report = direct(&[("FAIL_RELOAD\n", "FAIL_OPEN\n")]);
    finds(&report, error, "failure", "fails open");
    assert!(report.findings().iter().filter(|it| it.level == error).all(|it| it.remedy.is_some()));
    finds(&direct(&[("url: oci://", "url: ")]), error, "module", "no scheme");
    finds(&direct(&[("filter@sha256:1234", "filter:latest # ")]), error, "module", "not pinned");
    finds(&direct(&[("filter@sha256:1234", "filter@sha256:0000")]), error, "module", "placeholder");
    finds(&direct(&[("      ports: [{ number: 7000 }]\n", "")]), error, "place", "without ports");
    finds(
        &direct(&[("session:\n      mode: noise", "session:\n      mode: noisy")]),
        error,
        "config",
        "session.mode",
    );
    finds(
        &direct(&[("host: dead-end.meshgate.", "host: private-gateway.meshgate.")]),
        error,
        "guard",
        "reach its pods",
    );
    finds(
        &direct(&[("host: dead-end.meshgate.", "host: elsewhere.meshgate.")]),
        Level::Warn,
        "guard",
        "not among these",
    );
    finds(
        &direct(&[("      cluster: outbound|50051||game.game.svc.cluster.local\n", "")]),
        error,
        "guard",
        "to tcp_proxy",
    );
    finds(&direct(&[("ON_DOWNSTREAM_DATA", "IMMEDIATE")]), error, "connect", "wait for the login");
    finds(
        &direct(&[(
            "per_connection_buffer_limit_bytes: 65536",
            "per_connection_buffer_limit_bytes: 1024",
        )]),
        error,
        "buffer",
        "below limits.max_frame",
    );
    finds(
        &direct(&[(
            "name: grpc-edge, port: 9443, targetPort: 9443, appProtocol: grpc",
            "name: edge, port: 9443",
        )]),
        error,
        "companion",
        "status 14",
    );
    finds(
        &direct(&[("cluster: outbound|9443||companion", "cluster: outbound|9444||companion")]),
        error,
        "companion",
        "no port 9444",
    );
    finds(
        &direct(&[("kind: PeerAuthentication", "kind: Nothing")]),
        error,
        "companion",
        "traffic keys",
    );
    finds(
        &direct(&[("resources: [wasmplugins]", "resources: [pods]")]),
        Level::Warn,
        "admission",
        "nothing refuses",
    );
    finds(
        &direct(&[("port: 7000, targetPort: 7000", "port: 7000, targetPort: 17000")]),
        Level::Warn,
        "place",
        "another targetPort",
    );
    finds(
        &sidecar(&[("containerPort: 50051", "containerPort: 7000")]),
        error,
        "guard",
        "listens on 7000 itself",
    );
    finds(&manifests_with(&["base"], &[]), error, "plugin", "no WasmPlugin");
}
