//! Listeners: is the filter where it should be, set up as it needs, and is there a way around it?

use std::collections::BTreeSet;

use meshgate_filter::config::{Config, Connect};

use super::proxy::{Chain, Filter, Kind, Listener, Plugin, Proxy};
use super::report::Report;

/// Versions that the tests run.
const TESTED: [&str; 5] = ["1.36", "1.37", "1.38", "1.39", "1.40"];
/// Bytes; above it a slow service costs more memory than anybody expects of one client.
const LARGE_BUFFER: u64 = 4 << 20;

pub fn examine(proxy: &Proxy, expected: &[String], report: &mut Report) {
    version(proxy, report);
    for listener in &proxy.listeners {
        if let Some(error) = &listener.error {
            report
                .error("listener", &title(listener), &format!("an update was refused: {error}"))
                .remedy("what it had before is in force; correct what is named and send it again");
        }
        for chain in &listener.chains {
            placeholders(listener, chain, report);
        }
    }
    if proxy.plugins().next().is_none() {
        report
            .error("plugin", "envoy", "no listener has the filter")
            .remedy("look at the WasmPlugin's selector, match and url (with a scheme), and at the control plane's log");
    }
    for (listener, chain, filter, plugin) in proxy.plugins() {
        let subject = subject(listener, chain);
        place(&subject, chain, filter, report);
        failure_policy(&subject, plugin, report);
        match &plugin.config {
            Ok(config) => {
                let version = match &filter.discovered {
                    Some(version) => format!("version {version:?} of discovery, "),
                    None => String::new(),
                };
                report.ok(
                    "config",
                    &subject,
                    &format!(
                        "{version}document {}: layout `{}`, {} calls",
                        plugin.hash,
                        config.layout.name(),
                        config.routes.len(),
                    ),
                );
                connecting(&subject, chain, config, report);
                buffers(&subject, listener, config, report);
                guard(&subject, proxy, chain, filter, config, report);
            }
            Err(errors) => {
                for error in errors.iter().take(5) {
                    report
                        .error("config", &subject, &format!("the filter refuses document {}: {error}", plugin.hash))
                        .remedy("correct it (`meshgate check FILE` says the same); new connections are closed until then");
                }
            }
        }
    }
    ways_around(proxy, report);
    for wanted in expected {
        must_have(proxy, wanted, report);
    }
}

fn version(proxy: &Proxy, report: &mut Report) {
    if TESTED.iter().any(|tested| proxy.version.rsplit_once('.').is_some_and(|it| it.0 == *tested))
    {
        report.ok("envoy", "envoy", &format!("version {}", proxy.version));
    } else {
        report
            .warn(
                "envoy",
                "envoy",
                &format!("version {} is not among those that are tested", proxy.version),
            )
            .remedy(&format!("tested: {}", TESTED.join(", ")));
    }
}

/// Chains where a plugin should be and something else, or nothing, is.
fn placeholders(listener: &Listener, chain: &Chain, report: &mut Report) {
    for filter in &chain.filters {
        let subject = subject(listener, chain);
        match filter.kind {
            Kind::Missing => report
                .error("plugin", &subject, &format!("the plugin {:?} has not arrived; connections are closed", filter.name))
                .remedy("Envoy's log says why: the configuration was refused, or discovery has no such plugin"),
            Kind::Replaced { denies: true } => report
                .error("plugin", &subject, &format!("in the place of the plugin {:?} stands a filter that denies everybody", filter.name))
                .remedy("the module could not be fetched: correct its url or registry, then annotate the WasmPlugin, without which nothing is tried again"),
            Kind::Replaced { denies: false } => report
                .error("plugin", &subject, &format!("in the place of the plugin {:?} stands a filter that lets everything through", filter.name))
                .remedy("it failed open: set failStrategy: FAIL_RELOAD, and close the port until the filter is back"),
            _ => {}
        }
    }
}

fn place(subject: &str, chain: &Chain, filter: &Filter, report: &mut Report) {
    let plugins = chain.filters.iter().filter(|filter| matches!(filter.kind, Kind::MeshGate(_)));
    if plugins.count() > 1 {
        report
            .error("plugin", subject, "the filter stands twice in one chain")
            .remedy("two plugins match this port: narrow one's selector or match");
    }
    if chain.http().is_some() {
        report
            .error("plugin", subject, "the filter stands in front of an HTTP connection manager")
            .remedy("name the private ports in the plugin's match; a network plugin without ports goes everywhere");
        return;
    }
    let of = |wanted: &Filter| chain.filters.iter().position(|found| std::ptr::eq(found, wanted));
    match chain.tcp_proxy() {
        None => report
            .error(
                "plugin",
                subject,
                "no tcp_proxy follows the filter: nothing carries what it writes",
            )
            .remedy(
                "make the port TCP; the filter stands in front of envoy.filters.network.tcp_proxy",
            ),
        Some((proxy, _)) if of(filter).is_none_or(|filter| filter > proxy) => report
            .error("plugin", subject, "the filter stands behind tcp_proxy and never sees a byte")
            .remedy("put it in front of envoy.filters.network.tcp_proxy"),
        Some(_) => {
            report.ok("plugin", subject, &format!("{} stands in front of tcp_proxy", filter.name))
        }
    }
}

fn failure_policy(subject: &str, plugin: &Plugin, report: &mut Report) {
    match plugin.failure_policy.as_str() {
        "FAIL_RELOAD" => report.ok("failure", subject, "fails closed, and starts anew"),
        "FAIL_OPEN" => report
            .error(
                "failure",
                subject,
                "fails open: after a crash raw client bytes reach the back end",
            )
            .remedy("failure_policy: FAIL_RELOAD (of a WasmPlugin: failStrategy: FAIL_RELOAD)"),
        _ => report
            .warn(
                "failure",
                subject,
                "fails closed for good: after a crash that thread serves nobody again",
            )
            .remedy("failure_policy: FAIL_RELOAD (of a WasmPlugin: failStrategy: FAIL_RELOAD)"),
    }
}

/// Whether tcp_proxy waits for the login, where the filter counts on it.
fn connecting(subject: &str, chain: &Chain, config: &Config, report: &mut Report) {
    let Some((_, tcp)) = chain.tcp_proxy() else { return };
    let after_login = config.upstream.connect == Connect::AfterLogin;
    if after_login && !(tcp.waits_for_data && tcp.max_early_data > 0) {
        report
            .error("connect", subject, "tcp_proxy does not wait for the login: no byte of a client arrives")
            .remedy("upstream_connect_mode: ON_DOWNSTREAM_DATA and max_early_data_bytes: 65536 in tcp_proxy (on Istio by an EnvoyFilter; its portNumber is the listener's)");
    } else if config.session.login.is_some() && !after_login {
        report
            .warn("connect", subject, "strangers are connected to the service before they log in")
            .remedy("upstream.connect: after_login, with upstream_connect_mode: ON_DOWNSTREAM_DATA in tcp_proxy");
    } else {
        report.ok("connect", subject, if after_login { "after the login" } else { "at once" });
    }
    if tcp.weighted && config.upstream.cluster.is_some() {
        report
            .error(
                "connect",
                subject,
                "weighted_clusters in tcp_proxy: the cluster that the filter chooses is ignored",
            )
            .remedy("one cluster in tcp_proxy, and weights on the routed path's HTTP routes");
    }
}

fn buffers(subject: &str, listener: &Listener, config: &Config, report: &mut Report) {
    let (limit, frame) = (listener.buffer_limit, config.limits.max_frame.get());
    let frame = u64::try_from(frame).unwrap_or(u64::MAX);
    if limit < frame {
        report
            .error(
                "buffer",
                subject,
                &format!("the listener buffers {limit} bytes, and a frame may have {frame}"),
            )
            .remedy("per_connection_buffer_limit_bytes not below limits.max_frame");
    } else if limit > LARGE_BUFFER {
        report
            .warn(
                "buffer",
                subject,
                &format!("one slow client may hold {limit} bytes in each direction"),
            )
            .remedy(
                "per_connection_buffer_limit_bytes: 65536, or a little more than limits.max_frame",
            );
    } else {
        report.ok("buffer", subject, &format!("{limit} bytes, frames up to {frame}"));
    }
}

/// Where raw bytes would go if the filter were not there.
fn guard(
    subject: &str,
    proxy: &Proxy,
    chain: &Chain,
    filter: &Filter,
    config: &Config,
    report: &mut Report,
) {
    let Some((_, tcp)) = chain.tcp_proxy() else { return };
    let alive = tcp
        .clusters
        .iter()
        .find(|name| proxy.clusters.get(*name).is_some_and(|cluster| !cluster.hosts.is_empty()));
    match (alive, &filter.discovered) {
        (None, _) => report.ok("guard", subject, "without the filter the listener leads nowhere"),
        (Some(_), None) => {
            report.ok("guard", subject, "the filter is part of the listener and cannot get lost")
        }
        (Some(cluster), Some(_)) => {
            let how = match config.upstream.cluster {
                Some(_) => {
                    "lead the listener's own route to a Service without pods; the filter names the real cluster"
                }
                None => {
                    "set upstream.cluster in the filter's configuration, and lead the listener's own route to a Service without pods"
                }
            };
            report
                .error("guard", subject, &format!("a plugin that gets lost or fails leaves raw client bytes a way to {cluster}"))
                .remedy(how);
        }
    }
}

/// Chains without the filter that reach what it stands in front of.
fn ways_around(proxy: &Proxy, report: &mut Report) {
    let mut protected = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (listener, chain, _, plugin) in proxy.plugins() {
        ports.insert((listener.name.as_str(), chain.destination_port));
        let Ok(config) = &plugin.config else { continue };
        match (&config.upstream.cluster, chain.tcp_proxy()) {
            (Some(cluster), _) => protected.extend([cluster.to_string()]),
            (None, Some((_, tcp))) => protected.extend(tcp.clusters.clone()),
            (None, None) => {}
        }
    }
    for listener in &proxy.listeners {
        for chain in listener.chains.iter().filter(|chain| !chain.has_plugin()) {
            let Some((_, tcp)) = chain.tcp_proxy() else { continue };
            let guarded = |filter: &Filter| {
                matches!(filter.kind, Kind::Missing | Kind::Replaced { denies: true })
            };
            if chain.filters.iter().any(guarded) {
                continue;
            }
            let beside = ports.contains(&(listener.name.as_str(), chain.destination_port));
            let around = tcp.clusters.iter().find(|cluster| protected.contains(*cluster));
            if beside || around.is_some() {
                let to = tcp.clusters.join(", ");
                report
                    .error("guard", &subject(listener, chain), &format!("leads to {to} without the filter"))
                    .remedy("give this chain the filter too, or take it away: whoever reaches it speaks to the back end as he likes");
            }
        }
    }
}

fn must_have(proxy: &Proxy, wanted: &str, report: &mut Report) {
    let is = |listener: &&Listener| {
        listener.name == wanted || listener.port.is_some_and(|port| port.to_string() == wanted)
    };
    let Some(listener) = proxy.listeners.iter().find(is) else {
        report
            .error("plugin", wanted, "there is no such listener")
            .remedy("of a gateway: a Service whose selector matches its pods must exist, otherwise Istio makes no listener");
        return;
    };
    for chain in listener.chains.iter().filter(|chain| !chain.has_plugin()) {
        report
            .error("plugin", &subject(listener, chain), "the filter is not in this chain")
            .remedy("look at the WasmPlugin's selector and match; ports are the Service's, mode CLIENT on gateways");
    }
}

fn title(listener: &Listener) -> String {
    format!("{} ({})", listener.name, listener.address)
}

fn subject(listener: &Listener, chain: &Chain) -> String {
    match (chain.destination_port, chain.name.as_str()) {
        (None, "") => title(listener),
        (Some(port), _) => format!("{} port {port}", listener.name),
        (None, name) => format!("{} {name}", listener.name),
    }
}
