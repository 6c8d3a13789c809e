//! Manifests: could a WasmPlugin here leave a private port without its filter, or never work?

use meshgate_filter::config::{Config, Connect};
use serde_json::Value;

use super::manifests::Object;
use super::proxy::{list, text};
use super::report::Report;

const DIGEST_LENGTH: usize = 64;

pub fn examine(objects: &[Object], report: &mut Report) {
    let is_network = |object: &&Object| {
        object.kind == "WasmPlugin" && text(&object.value, "/spec/type") == "NETWORK"
    };
    let mut found = false;
    for plugin in objects.iter().filter(is_network) {
        found = true;
        let before = report.findings().len();
        module(plugin, report);
        place(plugin, report);
        let document = plugin.at("/spec/pluginConfig").to_string();
        match Config::check(document.as_bytes()) {
            Ok(config) => configured(objects, plugin, &config, report),
            Err(errors) => {
                for error in errors.iter().take(5) {
                    report
                        .error(
                            "config",
                            &plugin.title(),
                            &format!("the filter refuses it: {error}"),
                        )
                        .remedy("correct pluginConfig; `meshgate check` says the same");
                }
            }
        }
        for port in ports(plugin) {
            way(objects, plugin, port, report);
        }
        if report.findings().len() == before {
            report.ok("plugin", &plugin.title(), &format!("is safe ({})", plugin.source.display()));
        }
    }
    if !found {
        report
            .error("plugin", "manifests", "no WasmPlugin of type NETWORK is here")
            .remedy("give the file or folder that has it; of a chart what `helm template` prints");
        return;
    }
    if !objects.iter().any(is_admission) {
        report
            .warn("admission", "manifests", "nothing refuses unsafe plugins when they are applied")
            .remedy("istio/base/admission.yaml, or admission.create of the chart");
    }
}

fn is_admission(object: &Object) -> bool {
    let rules = list(&object.value, "/spec/matchConstraints/resourceRules");
    object.kind == "ValidatingAdmissionPolicy"
        && rules.flat_map(|rule| list(rule, "/resources")).any(|resource| resource == "wasmplugins")
}

/// What is loaded, and what stands in its place if it cannot be.
fn module(plugin: &Object, report: &mut Report) {
    let title = plugin.title();
    match text(&plugin.value, "/spec/failStrategy").as_str() {
        "FAIL_RELOAD" => {}
        "FAIL_OPEN" => report
            .error("failure", &title, "fails open: raw client bytes reach the back end")
            .remedy("failStrategy: FAIL_RELOAD"),
        _ => report
            .warn("failure", &title, "fails closed for good: a crashed thread serves nobody again")
            .remedy("failStrategy: FAIL_RELOAD"),
    }
    let url = text(&plugin.value, "/spec/url");
    if !["oci://", "https://", "http://", "file://"].iter().any(|scheme| url.starts_with(scheme)) {
        report
            .error("module", &title, &format!("the url {url:?} has no scheme: Istio drops the plugin, and the listener comes without it"))
            .remedy("oci://REGISTRY/IMAGE@sha256:DIGEST");
        return;
    }
    if url.starts_with("file://") {
        return;
    }
    let sum = text(&plugin.value, "/spec/sha256");
    let digest = url.rsplit_once("@sha256:").map_or(sum.as_str(), |(_, digest)| digest);
    if digest.len() != DIGEST_LENGTH {
        report
            .error(
                "module",
                &title,
                "is not pinned: whoever moves the tag changes the filter, and it is not polled",
            )
            .remedy("url: oci://REGISTRY/IMAGE@sha256:DIGEST");
    } else if digest.bytes().all(|digit| digit == b'0') {
        report
            .error(
                "module",
                &title,
                "the digest is a placeholder: every connection would be denied",
            )
            .remedy("put in the digest that scripts/image printed");
    }
}

/// Where it goes.
fn place(plugin: &Object, report: &mut Report) {
    let title = plugin.title();
    let labels = plugin.at("/spec/selector/matchLabels").as_object();
    let targets = list(&plugin.value, "/spec/targetRefs").count();
    if labels.is_none_or(serde_json::Map::is_empty)
        && targets == 0
        && plugin.at("/spec/targetRef").is_null()
    {
        report
            .error("place", &title, "is for every workload of its namespace")
            .remedy("selector.matchLabels, or targetRefs");
    }
    let matches = || list(&plugin.value, "/spec/match");
    if matches().next().is_none() || matches().any(|entry| list(entry, "/ports").next().is_none()) {
        report
            .error(
                "place",
                &title,
                "has a match without ports: it stands in front of HTTP connection managers too",
            )
            .remedy("match: [{ mode: …, ports: [{ number: … }] }]");
    }
}

struct Port {
    number: u64,
    /// Of pods themselves, not of a gateway.
    inbound: bool,
}

fn ports(plugin: &Object) -> Vec<Port> {
    let entries = list(&plugin.value, "/spec/match").flat_map(|entry| {
        let inbound = text(entry, "/mode") == "SERVER";
        let numbers = list(entry, "/ports").filter_map(|port| port.get("number")?.as_u64());
        numbers.map(move |number| Port { number, inbound })
    });
    entries.collect()
}

fn configured(objects: &[Object], plugin: &Object, config: &Config, report: &mut Report) {
    let title = plugin.title();
    if config.upstream.cluster.is_none() {
        report
            .error("guard", &title, "leaves the cluster to tcp_proxy: without the filter raw bytes go there")
            .remedy("upstream.cluster in pluginConfig, and a listener whose own route leads to a Service without pods");
    }
    let patches: Vec<_> = patches(objects, plugin).collect();
    if config.upstream.connect == Connect::AfterLogin {
        let waits = |patch: &&Value| {
            text(patch, "/patch/value/typed_config/upstream_connect_mode") == "ON_DOWNSTREAM_DATA"
                && patch.pointer("/patch/value/typed_config/max_early_data_bytes").is_some()
        };
        for port in ports(plugin) {
            if !patches.iter().filter(|patch| is_for(patch, &port)).any(waits) {
                report
                    .error("connect", &title, &format!("no EnvoyFilter lets tcp_proxy of port {} wait for the login: no byte of a client would arrive", port.number))
                    .remedy("upstream_connect_mode: ON_DOWNSTREAM_DATA and max_early_data_bytes: 65536, merged into tcp_proxy; portNumber is the listener's");
            }
        }
    }
    let frame = u64::try_from(config.limits.max_frame.get()).unwrap_or(u64::MAX);
    for patch in &patches {
        let limit =
            patch.pointer("/patch/value/per_connection_buffer_limit_bytes").and_then(Value::as_u64);
        if limit.is_some_and(|limit| limit < frame) {
            report
                .error(
                    "buffer",
                    &title,
                    &format!("an EnvoyFilter sets a buffer below limits.max_frame ({frame} bytes)"),
                )
                .remedy("per_connection_buffer_limit_bytes not below limits.max_frame");
        }
    }
    if let Some(companion) = &config.companion {
        reachable(objects, &title, &companion.cluster, report);
    }
}

/// The patches of EnvoyFilters for the plugin's workload.
fn patches<'a>(objects: &'a [Object], plugin: &'a Object) -> impl Iterator<Item = &'a Value> {
    let wanted = plugin.at("/spec/selector/matchLabels");
    let same = move |object: &&Object| {
        let labels = object.at("/spec/workloadSelector/labels");
        object.kind == "EnvoyFilter"
            && object.namespace == plugin.namespace
            && (labels.is_null() || has_labels(wanted, labels))
    };
    objects.iter().filter(same).flat_map(|object| list(&object.value, "/spec/configPatches"))
}

fn is_for(patch: &Value, port: &Port) -> bool {
    let paths = ["/match/listener/portNumber", "/match/listener/filterChain/destinationPort"];
    let numbers: Vec<_> = paths.iter().filter_map(|path| patch.pointer(path)?.as_u64()).collect();
    numbers.is_empty() || numbers.contains(&port.number)
}

/// Whether `labels` has each of `wanted`.
fn has_labels(labels: &Value, wanted: &Value) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The companion's Service, and who may speak to it. Its cluster is `outbound|PORT||HOST`.
fn reachable(objects: &[Object], title: &str, cluster: &str, report: &mut Report) {
    let mut parts = cluster.split('|').skip(1);
    let (port, host) = (parts.next(), parts.nth(1));
    let (Some(port), Some(host)) = (port.and_then(|port| port.parse::<u64>().ok()), host) else {
        report
            .warn(
                "companion",
                title,
                &format!("{cluster:?} is no cluster that Istio makes of a Service"),
            )
            .remedy("outbound|PORT||NAME.NAMESPACE.svc.cluster.local");
        return;
    };
    let is = |object: &&Object| {
        object.kind == "Service"
            && host.starts_with(&format!("{}.{}.", object.name, object.namespace))
    };
    let Some(service) = objects.iter().find(is) else {
        report
            .warn(
                "companion",
                title,
                &format!("the companion's Service {host} is not among these manifests"),
            )
            .remedy("make sure that it exists, with a port named grpc-…");
        return;
    };
    let entry = list(&service.value, "/spec/ports")
        .find(|entry| entry.get("port").and_then(Value::as_u64) == Some(port));
    let Some(entry) = entry else {
        report
            .error("companion", &service.title(), &format!("has no port {port}: every login fails"))
            .remedy("give the Service that port, or correct companion.cluster");
        return;
    };
    let says = [text(entry, "/name"), text(entry, "/appProtocol")];
    if !says.iter().any(|word| word.starts_with("grpc") || word.starts_with("http2")) {
        report
            .error(
                "companion",
                &service.title(),
                &format!(
                    "port {port} is not known to speak HTTP/2: every login fails with status 14"
                ),
            )
            .remedy("name it grpc-…, or give it appProtocol: grpc");
    }
    let selector = service.at("/spec/selector");
    let guards = |kind: &str, path: &str| {
        objects.iter().any(|object| {
            let labels = object.at(path);
            object.kind == kind
                && object.namespace == service.namespace
                && (labels.is_null() || has_labels(selector, labels))
        })
    };
    if !guards("PeerAuthentication", "/spec/selector/matchLabels")
        || !guards("AuthorizationPolicy", "/spec/selector/matchLabels")
    {
        report
            .error("companion", &service.title(), "hands out traffic keys, and no PeerAuthentication with an AuthorizationPolicy says to whom")
            .remedy("both for its pods, as in istio/base/companion.yaml");
    }
}

/// Where the port's own route leads, without the filter.
fn way(objects: &[Object], plugin: &Object, port: Port, report: &mut Report) {
    if port.inbound {
        inbound(objects, plugin, &port, report);
        return;
    }
    let number = port.number;
    let mut routes = 0_usize;
    for object in objects.iter().filter(|object| object.kind == "VirtualService") {
        for rule in list(&object.value, "/spec/tcp") {
            let ports: Vec<_> = list(rule, "/match")
                .map(|entry| entry.get("port").and_then(Value::as_u64))
                .collect();
            if !ports.is_empty()
                && !ports.iter().any(|found| found.is_none_or(|found| found == number))
            {
                continue;
            }
            for route in list(rule, "/route") {
                routes = routes.saturating_add(1);
                let host = text(route, "/destination/host");
                destination(objects, object, &host, number, report);
            }
        }
    }
    if routes == 0 {
        report
            .warn("guard", &plugin.title(), &format!("no VirtualService here routes port {number}"))
            .remedy("if its route stands elsewhere, let it lead to a Service without pods; without a route Istio makes no listener");
    }
    for service in objects.iter().filter(|object| object.kind == "Service") {
        let selects = service.at("/spec/selector");
        if service.namespace != plugin.namespace
            || !has_labels(plugin.at("/spec/selector/matchLabels"), selects)
        {
            continue;
        }
        for entry in list(&service.value, "/spec/ports") {
            let target = entry.get("targetPort").and_then(Value::as_u64);
            if entry.get("port").and_then(Value::as_u64) == Some(number)
                && target.is_some_and(|target| target != number)
            {
                report
                    .warn("place", &service.title(), &format!("port {number} has another targetPort: the plugin goes by the one, EnvoyFilters by the other"))
                    .remedy("the same number for both");
            }
        }
    }
}

fn destination(objects: &[Object], rule: &Object, host: &str, port: u64, report: &mut Report) {
    let is = |object: &&Object| {
        let full = format!("{}.{}.", object.name, object.namespace);
        object.kind == "Service"
            && (host.starts_with(&full)
                || host == object.name && object.namespace == rule.namespace)
    };
    match objects.iter().find(is) {
        None => report
            .warn("guard", &rule.title(), &format!("port {port} leads to {host}, which is not among these manifests"))
            .remedy("it must be a Service without a selector: a dead end"),
        Some(service) if service.at("/spec/selector").as_object().is_some_and(|it| !it.is_empty()) => report
            .error("guard", &rule.title(), &format!("port {port} leads to {host}: without the filter raw client bytes reach its pods"))
            .remedy("lead it to a Service without a selector; the filter's upstream.cluster names the real one"),
        Some(_) => {}
    }
}

/// In a sidecar the port itself is the dead end: nothing may listen on it in the pod.
fn inbound(objects: &[Object], plugin: &Object, port: &Port, report: &mut Report) {
    let wanted = plugin.at("/spec/selector/matchLabels");
    for object in objects {
        let labels = object.at("/spec/template/metadata/labels");
        if object.namespace != plugin.namespace
            || !labels.is_object()
            || !has_labels(labels, wanted)
        {
            continue;
        }
        let containers = list(&object.value, "/spec/template/spec/containers");
        let mut declared = containers.flat_map(|container| list(container, "/ports"));
        if declared
            .any(|entry| entry.get("containerPort").and_then(Value::as_u64) == Some(port.number))
        {
            report
                .error("guard", &object.title(), &format!("listens on {} itself: without the filter raw bytes reach it", port.number))
                .remedy("let the server listen on another port; upstream.cluster names a cluster that leads there");
        }
    }
}
