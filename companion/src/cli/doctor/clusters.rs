//! Clusters: are those there that the filter names, alive, and of the protocol that they need?

use std::collections::BTreeSet;

use super::proxy::{Chain, Cluster, MAX_CONNECTIONS, Plugin, Proxy, list, text};
use super::report::Report;

pub fn examine(proxy: &Proxy, report: &mut Report) {
    // Several chains have the same plugin; each cluster is told once.
    let mut told = BTreeSet::new();
    for (_, chain, _, plugin) in proxy.plugins() {
        for (role, name) in named(chain, plugin) {
            if told.insert((role, name.clone())) {
                examine_cluster(proxy, role, &name, report);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Companion,
    Upstream,
    Refusals,
}

fn named(chain: &Chain, plugin: &Plugin) -> Vec<(Role, String)> {
    let Ok(config) = &plugin.config else { return Vec::new() };
    let mut named = Vec::new();
    named.extend(config.companion.as_ref().map(|it| (Role::Companion, it.cluster.to_string())));
    match (&config.upstream.cluster, chain.tcp_proxy()) {
        (Some(cluster), _) => named.push((Role::Upstream, cluster.to_string())),
        (None, Some((_, tcp))) => {
            named.extend(tcp.clusters.iter().map(|name| (Role::Upstream, name.clone())));
        }
        (None, None) => {}
    }
    named.extend(
        config.upstream.refusal_cluster.as_ref().map(|it| (Role::Refusals, it.to_string())),
    );
    named
}

fn examine_cluster(proxy: &Proxy, role: Role, name: &str, report: &mut Report) {
    let check = match role {
        Role::Companion => "companion",
        Role::Upstream => "upstream",
        Role::Refusals => "refusals",
    };
    let Some(cluster) = proxy.clusters.get(name) else {
        report.error(check, name, "there is no such cluster").remedy(
            "on Istio it is outbound|PORT||HOST; a Sidecar resource must name the host, and the Service must exist",
        );
        return;
    };
    match (cluster.hosts.len(), cluster.healthy()) {
        (0, _) => report
            .error(check, name, "has no endpoint")
            .remedy("are the pods there and ready, and does the Service select them?"),
        (all, 0) => report
            .error(check, name, &format!("none of its {all} endpoints may be used"))
            .remedy("they fail health checks or were ejected as outliers: look at them"),
        (all, healthy) if healthy < all => report
            .warn(check, name, &format!("{healthy} of {all} endpoints may be used"))
            .remedy("the others fail health checks or were ejected as outliers"),
        (all, _) => report.ok(check, name, &format!("{all} endpoints")),
    }
    match role {
        Role::Companion if !cluster.http2 => {
            report.error(check, name, "does not speak HTTP/2: every login fails").remedy(
                "http2_protocol_options; on Istio the Service's port must be named grpc-…, or have appProtocol: grpc",
            );
        }
        Role::Upstream => {
            connections(check, name, cluster, report);
            routed(proxy, name, cluster, report);
        }
        _ => {}
    }
}

/// On both paths each client has a connection of its own to this cluster.
fn connections(check: &'static str, name: &str, cluster: &Cluster, report: &mut Report) {
    if cluster.max_connections <= MAX_CONNECTIONS {
        let limit = cluster.max_connections;
        report
            .warn(check, name, &format!("the circuit breaker lets {limit} clients in, one connection each"))
            .remedy("circuit_breakers.max_connections (on Istio connectionPool.tcp.maxConnections of a DestinationRule) as many as a proxy shall serve");
    }
}

/// If the upstream is a listener of the same Envoy, its HTTP connection manager and the clusters
/// behind it have to speak HTTP/2.
fn routed(proxy: &Proxy, name: &str, cluster: &Cluster, report: &mut Report) {
    let leads_to = |listener: &&super::proxy::Listener| {
        cluster.hosts.iter().any(|(host, _)| {
            let loopback = listener.port.map(|port| format!("127.0.0.1:{port}"));
            *host == listener.name || *host == listener.address || Some(host) == loopback.as_ref()
        })
    };
    let Some(listener) = proxy.listeners.iter().find(leads_to) else { return };
    let managers: Vec<_> = listener.chains.iter().filter_map(Chain::http).collect();
    if managers.is_empty() {
        return;
    }
    for manager in managers {
        let codec = text(manager, "/codec_type");
        if !["HTTP2", "AUTO", ""].contains(&codec.as_str()) {
            report
                .error(
                    "routed",
                    &listener.name,
                    &format!("its HTTP connection manager speaks {codec} alone"),
                )
                .remedy(
                    "codec_type: HTTP2, or AUTO; on Istio the Gateway server's protocol is HTTP2",
                );
        }
        let by_name = text(manager, "/rds/route_config_name");
        let routes = manager.get("route_config").or_else(|| proxy.routes.get(&by_name));
        let Some(routes) = routes else {
            report
                .error(
                    "routed",
                    &listener.name,
                    &format!("its routes {by_name:?} have not arrived"),
                )
                .remedy("on Istio a VirtualService must name the loopback Gateway");
            continue;
        };
        let mut found = BTreeSet::new();
        for route in list(routes, "/virtual_hosts").flat_map(|host| list(host, "/routes")) {
            let one = route.pointer("/route/cluster").and_then(|name| name.as_str());
            found.extend(one.map(str::to_owned));
            let several = list(route, "/route/weighted_clusters/clusters");
            found.extend(several.map(|entry| text(entry, "/name")));
        }
        if found.is_empty() {
            report
                .error(
                    "routed",
                    &listener.name,
                    "has no route to a service: every call is UNIMPLEMENTED",
                )
                .remedy("routes by method path, with upstream.authority as their host");
        }
        for target in found {
            match proxy.clusters.get(&target) {
                None => report
                    .error("routed", &target, "a route leads to a cluster that does not exist")
                    .remedy("does the Service exist, and the DestinationRule's subset?"),
                Some(cluster) if !cluster.http2 => report
                    .error("routed", &target, "does not speak HTTP/2: calls to it fail")
                    .remedy("http2_protocol_options; on Istio a port named grpc-…, or appProtocol: grpc"),
                Some(cluster) if cluster.healthy() == 0 => report
                    .error("routed", &target, "has no endpoint that may be used")
                    .remedy("are the pods there and ready?"),
                Some(cluster) => {
                    let endpoints = cluster.hosts.len();
                    report.ok("routed", &target, &format!("{endpoints} endpoints, by {name}"));
                }
            }
        }
    }
}
