//! An Envoy as its configuration dump describes it, as far as the doctor is interested.

use std::collections::BTreeMap;

use meshgate_filter::config::Config;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::admin::Snapshot;

#[derive(Debug, Default)]
pub struct Proxy {
    pub version: String,
    /// Workers and the main thread: each runs the plugin.
    pub threads: u64,
    pub listeners: Vec<Listener>,
    pub clusters: BTreeMap<String, Cluster>,
    /// Route configurations by name, those of discovery and of files.
    pub routes: BTreeMap<String, Value>,
    pub stats: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub struct Listener {
    pub name: String,
    pub address: String,
    pub port: Option<u64>,
    /// Bytes; Envoy's default is 1 MiB.
    pub buffer_limit: u64,
    pub chains: Vec<Chain>,
    /// Why an update was refused.
    pub error: Option<String>,
}

#[derive(Debug)]
pub struct Chain {
    pub name: String,
    pub destination_port: Option<u64>,
    pub filters: Vec<Filter>,
}

#[derive(Debug)]
pub struct Filter {
    pub name: String,
    /// Came by discovery (ECDS, as Istio delivers it), and which version.
    pub discovered: Option<String>,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    MeshGate(Box<Plugin>),
    TcpProxy(TcpProxy),
    HttpConnectionManager(Value),
    /// A Wasm plugin was to be here, and this is what stands in its place: whether it denies all.
    Replaced {
        denies: bool,
    },
    /// A Wasm plugin was to be here and has not arrived.
    Missing,
    Other,
}

#[derive(Debug)]
pub struct Plugin {
    pub failure_policy: String,
    /// As the filter reads it, or what it would say.
    pub config: Result<Config, Vec<String>>,
    /// The beginning of the document's SHA-256, to tell versions apart.
    pub hash: String,
}

#[derive(Debug)]
pub struct TcpProxy {
    pub clusters: Vec<String>,
    pub weighted: bool,
    pub waits_for_data: bool,
    pub max_early_data: u64,
}

#[derive(Debug, Default)]
pub struct Cluster {
    pub http2: bool,
    /// Address and whether it may be used.
    pub hosts: Vec<(String, bool)>,
    pub max_connections: u64,
}

/// Envoy's default, <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener.proto>.
const BUFFER_LIMIT: u64 = 1 << 20;
/// Envoy's default of `circuit_breakers`.
pub const MAX_CONNECTIONS: u64 = 1024;

impl Proxy {
    pub fn read(snapshot: &Snapshot) -> Self {
        let mut discovered = BTreeMap::new();
        let mut proxy = Self {
            version: version(&snapshot.server_info),
            threads: snapshot
                .stats
                .get("server.concurrency")
                .copied()
                .unwrap_or(1)
                .saturating_add(1),
            stats: snapshot.stats.clone(),
            ..Self::default()
        };
        let sections = || list(&snapshot.config_dump, "/configs");
        for entry in sections().flat_map(|section| list(section, "/ecds_filters")) {
            let filter = entry.get("ecds_filter").unwrap_or(&Value::Null);
            discovered
                .insert(text(filter, "/name"), (text(entry, "/version_info"), filter.clone()));
        }
        for section in sections() {
            for kind in ["/static_listeners", "/dynamic_listeners"] {
                for entry in list(section, kind) {
                    proxy.listeners.push(Listener::read(entry, &discovered));
                }
            }
            for kind in ["/static_clusters", "/dynamic_active_clusters"] {
                for cluster in list(section, kind).filter_map(|entry| entry.get("cluster")) {
                    proxy.clusters.insert(text(cluster, "/name"), Cluster::read(cluster));
                }
            }
            for kind in ["/static_route_configs", "/dynamic_route_configs"] {
                for routes in list(section, kind).filter_map(|entry| entry.get("route_config")) {
                    proxy.routes.insert(text(routes, "/name"), routes.clone());
                }
            }
        }
        for status in list(&snapshot.clusters, "/cluster_statuses") {
            if let Some(cluster) = proxy.clusters.get_mut(&text(status, "/name")) {
                cluster.hosts = list(status, "/host_statuses").map(host).collect();
            }
        }
        proxy
    }

    /// Every place where the filter runs: its listener, its chain, itself.
    pub fn plugins(&self) -> impl Iterator<Item = (&Listener, &Chain, &Filter, &Plugin)> {
        let chains = self
            .listeners
            .iter()
            .flat_map(|listener| listener.chains.iter().map(move |chain| (listener, chain)));
        chains.flat_map(|(listener, chain)| {
            chain.filters.iter().filter_map(move |filter| match &filter.kind {
                Kind::MeshGate(plugin) => Some((listener, chain, filter, plugin.as_ref())),
                _ => None,
            })
        })
    }

    pub fn stat(&self, name: &str) -> Option<u64> {
        self.stats.get(name).copied()
    }
}

type Discovered = BTreeMap<String, (String, Value)>;

impl Listener {
    fn read(entry: &Value, discovered: &Discovered) -> Self {
        // A dynamic one may have an active state, a warming one, or only an error.
        let states = ["/listener", "/active_state/listener", "/warming_state/listener"];
        let found = states.iter().find_map(|path| entry.pointer(path));
        let listener = found.unwrap_or(&Value::Null);
        let socket = listener.pointer("/address/socket_address").unwrap_or(&Value::Null);
        let port = number(socket, "/port_value");
        let mut name = text(listener, "/name");
        if name.is_empty() {
            name = text(entry, "/name");
        }
        let mut chains: Vec<_> =
            list(listener, "/filter_chains").map(|chain| Chain::read(chain, discovered)).collect();
        chains.extend(
            listener.get("default_filter_chain").map(|chain| Chain::read(chain, discovered)),
        );
        let error = entry.pointer("/error_state/details").and_then(Value::as_str);
        Self {
            name,
            address: match port {
                Some(port) => format!("{}:{port}", text(socket, "/address")),
                None => "internal".to_owned(),
            },
            port,
            buffer_limit: number(listener, "/per_connection_buffer_limit_bytes")
                .unwrap_or(BUFFER_LIMIT),
            chains,
            error: error.map(str::to_owned),
        }
    }
}

impl Chain {
    fn read(chain: &Value, discovered: &Discovered) -> Self {
        Self {
            name: text(chain, "/name"),
            destination_port: number(chain, "/filter_chain_match/destination_port"),
            filters: list(chain, "/filters")
                .map(|filter| Filter::read(filter, discovered))
                .collect(),
        }
    }

    pub fn tcp_proxy(&self) -> Option<(usize, &TcpProxy)> {
        self.filters.iter().enumerate().find_map(|(index, filter)| match &filter.kind {
            Kind::TcpProxy(proxy) => Some((index, proxy)),
            _ => None,
        })
    }

    pub fn has_plugin(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter.kind, Kind::MeshGate(_)))
    }

    pub fn http(&self) -> Option<&Value> {
        self.filters.iter().find_map(|filter| match &filter.kind {
            Kind::HttpConnectionManager(manager) => Some(manager),
            _ => None,
        })
    }
}

const WASM: &str = "envoy.extensions.filters.network.wasm.v3.Wasm";

impl Filter {
    fn read(filter: &Value, discovered: &Discovered) -> Self {
        let name = text(filter, "/name");
        let is_wasm = |url: &Value| url.as_str().is_some_and(|url| url.ends_with(WASM));
        let wanted = list(filter, "/config_discovery/type_urls").any(is_wasm);
        match discovered.get(&name) {
            _ if filter.get("config_discovery").is_none() => {
                let kind = Kind::read(filter.get("typed_config").unwrap_or(&Value::Null), &name);
                Self { name, discovered: None, kind }
            }
            Some((version, found)) => {
                let kind = Kind::read(found.get("typed_config").unwrap_or(&Value::Null), &name);
                let kind = match kind {
                    Kind::Other if wanted => replaced(found),
                    kind => kind,
                };
                Self { name, discovered: Some(version.clone()), kind }
            }
            None => {
                let kind = if wanted { Kind::Missing } else { Kind::Other };
                Self { name, discovered: Some(String::new()), kind }
            }
        }
    }
}

/// RBAC stands in for a plugin that could not be fetched. Its rules allow what a policy matches
/// (without a policy nothing), or deny it; without rules it does nothing at all.
fn replaced(found: &Value) -> Kind {
    let config = found.get("typed_config").unwrap_or(&Value::Null);
    if !text(config, "/@type").ends_with("rbac.v3.RBAC") {
        return Kind::Other;
    }
    let rules = config.get("rules");
    let denies_matches = rules.is_some_and(|rules| text(rules, "/action") == "DENY");
    let policies = rules.and_then(|rules| rules.get("policies")).and_then(Value::as_object);
    let has_policies = policies.is_some_and(|policies| !policies.is_empty());
    Kind::Replaced { denies: rules.is_some() && denies_matches == has_policies }
}

impl Kind {
    fn read(config: &Value, name: &str) -> Self {
        // Istio writes some filters as a TypedStruct: the type beside the value.
        let (kind, config) = match config.get("type_url").and_then(Value::as_str) {
            Some(url) => (url.to_owned(), config.get("value").unwrap_or(&Value::Null)),
            None => (text(config, "/@type"), config),
        };
        if kind.ends_with(WASM) {
            Plugin::read(config, name)
                .map_or(Self::Other, |plugin| Self::MeshGate(Box::new(plugin)))
        } else if kind.ends_with("tcp_proxy.v3.TcpProxy") {
            Self::TcpProxy(TcpProxy::read(config))
        } else if kind.ends_with("http_connection_manager.v3.HttpConnectionManager") {
            Self::HttpConnectionManager(config.clone())
        } else {
            Self::Other
        }
    }
}

impl Plugin {
    /// `None` if it is somebody else's plugin.
    fn read(config: &Value, name: &str) -> Option<Self> {
        let document = config.pointer("/config/configuration/value").unwrap_or(&Value::Null);
        let document = match document {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let parsed: Value = serde_json::from_str(&document).unwrap_or(Value::Null);
        let ours = ["layout", "commands", "upstream"].iter().any(|key| parsed.get(key).is_some());
        let plugin = text(config, "/config/name");
        if !ours && !name.contains("meshgate") && !plugin.contains("meshgate") {
            return None;
        }
        let open = config.pointer("/config/fail_open").and_then(Value::as_bool) == Some(true);
        let digest = Sha256::digest(document.as_bytes());
        Some(Self {
            failure_policy: if open {
                "FAIL_OPEN".into()
            } else {
                text(config, "/config/failure_policy")
            },
            config: Config::check(document.as_bytes())
                .map_err(|errors| errors.iter().map(ToString::to_string).collect()),
            hash: digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

impl TcpProxy {
    fn read(config: &Value) -> Self {
        let one = config.get("cluster").and_then(Value::as_str).map(str::to_owned);
        let several = list(config, "/weighted_clusters/clusters").map(|entry| text(entry, "/name"));
        Self {
            weighted: config.get("weighted_clusters").is_some(),
            clusters: one.into_iter().chain(several).collect(),
            waits_for_data: text(config, "/upstream_connect_mode") == "ON_DOWNSTREAM_DATA",
            max_early_data: number(config, "/max_early_data_bytes").unwrap_or(0),
        }
    }
}

impl Cluster {
    fn read(cluster: &Value) -> Self {
        let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options = cluster.pointer(options).unwrap_or(&Value::Null);
        let http2 = [
            "/explicit_http_config/http2_protocol_options",
            "/use_downstream_protocol_config",
            "/auto_config",
        ];
        let thresholds = list(cluster, "/circuit_breakers/thresholds");
        let of_default =
            |threshold: &&Value| threshold.get("priority").is_none_or(|it| it == "DEFAULT");
        let limit = thresholds
            .filter(of_default)
            .find_map(|threshold| number(threshold, "/max_connections"));
        Self {
            http2: cluster.get("http2_protocol_options").is_some()
                || http2.iter().any(|path| options.pointer(path).is_some()),
            hosts: list(cluster, "/load_assignment/endpoints")
                .flat_map(|group| list(group, "/lb_endpoints"))
                .map(|endpoint| (address(endpoint.pointer("/endpoint/address")), true))
                .collect(),
            max_connections: limit.unwrap_or(MAX_CONNECTIONS),
        }
    }

    pub fn healthy(&self) -> usize {
        self.hosts.iter().filter(|(_, healthy)| *healthy).count()
    }
}

fn host(status: &Value) -> (String, bool) {
    let health = status.get("health_status").unwrap_or(&Value::Null);
    let failed =
        ["failed_active_health_check", "failed_outlier_check", "failed_active_degraded_check"];
    let failed = failed.iter().any(|key| health.get(key).and_then(Value::as_bool) == Some(true));
    let by_discovery = text(health, "/eds_health_status");
    let unhealthy = ["UNHEALTHY", "DRAINING", "TIMEOUT"].contains(&by_discovery.as_str());
    (address(status.get("address")), !failed && !unhealthy)
}

fn address(address: Option<&Value>) -> String {
    let address = address.unwrap_or(&Value::Null);
    if let Some(name) = address.pointer("/envoy_internal_address/server_listener_name") {
        return name.as_str().unwrap_or_default().to_owned();
    }
    let socket = address.get("socket_address").unwrap_or(&Value::Null);
    match number(socket, "/port_value") {
        Some(port) => format!("{}:{port}", text(socket, "/address")),
        None => text(address, "/pipe/path"),
    }
}

fn version(server_info: &Value) -> String {
    // Commit, version, state, build, TLS library.
    text(server_info, "/version").split('/').nth(1).unwrap_or_default().to_owned()
}

/// The list at a JSON pointer, empty where there is none.
pub fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

/// The text at a JSON pointer, empty where there is none.
pub fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, path: &str) -> Option<u64> {
    value.pointer(path).and_then(Value::as_u64)
}
