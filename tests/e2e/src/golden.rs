//! What a real control plane made of the examples of `istio/` (`tests/istio/golden/`), replayed in a
//! stock Envoy.
//!
//! The files are Istio's word for word: for Istio's own proxy, a mesh with mTLS and an agent that
//! fetches modules and certificates. [`EDITS`] is all that is changed so that an Envoy without these
//! takes them; it happens here, at load time, and nowhere else.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::Envoy;
use crate::envoy::Backends;
use crate::process::{prepared, root};

/// What stands where the golden files name pods, certificates and modules.
#[derive(Debug, Default)]
pub struct Stage {
    /// Addresses as the file has them, and who answers for them. Endpoints without one are left out.
    pub pods: Vec<(&'static str, SocketAddr)>,
    /// A certificate with its key, both PEM, for whatever Istio would fetch one.
    pub certificate: Option<(String, String)>,
}

/// A running Envoy with the resources of one scenario.
pub struct Replay {
    pub envoy: Envoy,
    _folder: TempDir,
    _ports: Vec<TcpSocket>,
}

/// The edits, in their order.
const EDITS: [(&str, Edit); 8] = [
    ("Istio's own filters, which a stock Envoy does not have, are left out", own_filters),
    ("connections to other pods are plain: nobody issues certificates for mTLS", mutual_tls),
    ("certificates that Istio's agent would fetch are written in", certificates),
    ("the module is a local file in place of the image that the agent would fetch", module),
    ("pods are the processes of the test", endpoints),
    ("listeners take free ports on loopback", ports),
    ("where a connection was going is told by the PROXY protocol, not by iptables", destinations),
    ("resources come from files in place of the control plane", sources),
];

type Edit = fn(&mut Golden, &Stage) -> Result<()>;

struct Golden {
    /// The file: lists of resources by their kind.
    document: Value,
    folder: TempDir,
    /// Ports that are taken for a listener until it has them.
    ports: Vec<TcpSocket>,
}

impl Replay {
    /// Runs `tests/istio/golden/SCENARIO.json`.
    pub fn start(scenario: &str, stage: &Stage) -> Result<Self> {
        let path = root().join("tests/istio/golden").join(scenario).with_extension("json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let document = serde_json::from_str(&text)?;
        let mut golden = Golden { document, folder: tempfile::tempdir()?, ports: Vec::new() };
        for (what, edit) in EDITS {
            edit(&mut golden, stage).with_context(|| format!("{scenario}: {what}"))?;
        }
        let bootstrap = golden.bootstrap()?;
        let envoy = Envoy::start_text(&bootstrap.to_string(), Backends::default(), &[])?;
        Ok(Self { envoy, _folder: golden.folder, _ports: golden.ports })
    }

    /// The number of connections that the cluster has opened, ever.
    pub fn connections(&self, cluster: &str) -> Result<u64> {
        let clusters: Value = serde_json::from_str(&self.envoy.get("/clusters?format=json")?)?;
        let all = clusters["cluster_statuses"].as_array().context("no clusters")?;
        let found = all.iter().find(|status| status["name"] == cluster);
        let hosts =
            found.with_context(|| format!("no cluster {cluster}"))?["host_statuses"].as_array();
        let mut total = 0;
        for stat in
            hosts.into_iter().flatten().filter_map(|host| host["stats"].as_array()).flatten()
        {
            if stat["name"] == "cx_total" {
                total += stat["value"].as_str().unwrap_or("0").parse::<u64>()?;
            }
        }
        Ok(total)
    }
}

impl Golden {
    fn resources(&mut self, kind: &str) -> Result<&mut Vec<Value>> {
        self.document[kind].as_array_mut().with_context(|| format!("the file has no {kind}"))
    }

    fn bootstrap(&mut self) -> Result<Value> {
        let listeners = self.document["listeners"].take();
        let clusters = self.document["clusters"].take();
        let node = self.document["node"].take();
        Ok(json!({
            "node": { "id": node, "cluster": "golden" },
            "admin": { "address": loopback(0) },
            "dynamic_resources": {
                "lds_config": file(self.folder.path(), "listeners", listeners)?,
                "cds_config": file(self.folder.path(), "clusters", clusters)?,
            },
        }))
    }
}

fn loopback(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// Writes resources to a file, and says where they are to be had.
fn file(folder: &Path, name: &str, resources: Value) -> Result<Value> {
    let path = folder.join(name).with_extension("json");
    fs::write(&path, json!({ "version_info": "1", "resources": resources }).to_string())?;
    Ok(json!({ "path_config_source": { "path": path }, "resource_api_version": "V3" }))
}

/// Calls `change` with every object of the value, the outer ones first.
fn each_object(
    value: &mut Value,
    change: &mut dyn FnMut(&mut Map<String, Value>) -> Result<()>,
) -> Result<()> {
    match value {
        Value::Object(fields) => {
            change(fields)?;
            fields.values_mut().try_for_each(|inner| each_object(inner, change))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|inner| each_object(inner, change)),
        _ => Ok(()),
    }
}

fn own_filters(golden: &mut Golden, _: &Stage) -> Result<()> {
    each_object(&mut golden.document, &mut |fields| {
        for list in ["filters", "httpFilters"] {
            if let Some(filters) = fields.get_mut(list).and_then(Value::as_array_mut) {
                let own = |filter: &Value| {
                    filter["name"].as_str().is_some_and(|n| n.starts_with("istio."))
                };
                filters.retain(|filter| !own(filter));
            }
        }
        Ok(())
    })
}

fn mutual_tls(golden: &mut Golden, _: &Stage) -> Result<()> {
    for cluster in golden.resources("clusters")? {
        let cluster = cluster.as_object_mut().context("a cluster")?;
        cluster.remove("transportSocketMatches");
        cluster.remove("transportSocket");
    }
    Ok(())
}

fn certificates(golden: &mut Golden, stage: &Stage) -> Result<()> {
    each_object(&mut golden.document["listeners"], &mut |fields| {
        if fields.remove("tlsCertificateSdsSecretConfigs").is_some() {
            let (chain, key) = stage.certificate.as_ref().context("no certificate on the stage")?;
            let inline = json!([{
                "certificateChain": { "inlineString": chain }, "privateKey": { "inlineString": key }
            }]);
            fields.insert("tlsCertificates".into(), inline);
            if fields.remove("combinedValidationContext").is_some() {
                let trusted = json!({ "trustedCa": { "inlineString": chain } });
                fields.insert("validationContext".into(), trusted);
            }
        }
        Ok(())
    })
}

fn module(golden: &mut Golden, _: &Stage) -> Result<()> {
    let path = prepared("MESHGATE_WASM", ".meshgate/meshgate.wasm")?;
    let mut replaced = 0;
    each_object(&mut golden.document["extensions"], &mut |fields| {
        if fields.contains_key("code") {
            fields.insert("code".into(), json!({ "local": { "filename": path } }));
            replaced += 1;
        }
        Ok(())
    })?;
    if replaced != 1 {
        bail!("{replaced} modules");
    }
    Ok(())
}

fn endpoints(golden: &mut Golden, stage: &Stage) -> Result<()> {
    let lists = ["endpoints", "clusters"];
    for list in lists {
        each_object(&mut golden.document[list], &mut |fields| {
            let Some(hosts) = fields.get_mut("lbEndpoints").and_then(Value::as_array_mut) else {
                return Ok(());
            };
            hosts.retain_mut(|host| {
                let address = &mut host["endpoint"]["address"];
                let place = place(address);
                // What is on loopback is the proxy's own; `ports` sees to it.
                let Some((_, stand_in)) = stage.pods.iter().find(|(pod, _)| *pod == place) else {
                    return place.starts_with("127.0.0.1:");
                };
                *address = loopback(stand_in.port());
                true
            });
            Ok(())
        })?;
    }
    Ok(())
}

/// ADDRESS:PORT of a socketAddress.
fn place(address: &Value) -> String {
    let socket = &address["socketAddress"];
    format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["portValue"])
}

fn ports(golden: &mut Golden, _: &Stage) -> Result<()> {
    let mut moved = Vec::new();
    let mut taken = Vec::new();
    for listener in golden.resources("listeners")? {
        // What is not bound is entered by another listener.
        if listener["bindToPort"] == false {
            continue;
        }
        let place = place(&listener["address"]);
        let mut port = 0;
        if place.starts_with("127.0.0.1:") {
            // A cluster leads here, so the port has to be known before Envoy runs. Bound without
            // being listened on, it is nobody else's, and Envoy, which shares ports, gets it.
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseport(true)?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            port = socket.local_addr()?.port();
            taken.push(socket);
            moved.push((place, port));
        }
        listener["address"] = loopback(port);
    }
    golden.ports = taken;
    each_object(&mut golden.document["endpoints"], &mut |fields| {
        let Some(address) = fields.get_mut("address").filter(|inner| inner.is_object()) else {
            return Ok(());
        };
        let place = place(address);
        if let Some((_, port)) = moved.iter().find(|(from, _)| *from == place) {
            *address = loopback(*port);
        }
        Ok(())
    })
}

fn destinations(golden: &mut Golden, _: &Stage) -> Result<()> {
    each_object(&mut golden.document["listeners"], &mut |fields| {
        if fields.get("name").is_some_and(|name| name == "envoy.filters.listener.original_dst") {
            const PROXY: &str = "envoy.filters.listener.proxy_protocol";
            let kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
            fields.insert("name".into(), PROXY.into());
            fields.insert("typedConfig".into(), json!({ "@type": kind }));
        }
        // Who is there is told by the same header, and so is not who connects.
        if let Some(source) = fields.remove("directRemoteIp") {
            fields.insert("remoteIp".into(), source);
        }
        Ok(())
    })
}

fn sources(golden: &mut Golden, _: &Stage) -> Result<()> {
    let mut files = Vec::new();
    for (kind, title) in [("routes", "name"), ("endpoints", "clusterName"), ("extensions", "name")]
    {
        // A subscription to a file takes exactly what is in it: each resource has one of its own.
        let resources = std::mem::take(golden.resources(kind)?);
        for (index, resource) in resources.into_iter().enumerate() {
            let name = resource[title].as_str().context("a resource without a name")?.to_owned();
            let source = file(golden.folder.path(), &format!("{kind}-{index}"), json!([resource]))?;
            files.push((kind, name, source));
        }
    }
    let find = |kind: &str, name: &Value| {
        let found = files.iter().find(|(of, title, _)| *of == kind && *name == **title);
        found.map(|(_, _, source)| source.clone()).with_context(|| format!("{kind}: no {name}"))
    };
    for list in ["listeners", "clusters"] {
        each_object(&mut golden.document[list], &mut |fields| {
            if let Some(rds) = fields.get_mut("rds") {
                rds["configSource"] = find("routes", &rds["routeConfigName"])?;
            }
            if let Some(eds) = fields.get_mut("edsClusterConfig") {
                eds["edsConfig"] = find("endpoints", &eds["serviceName"])?;
            }
            let name = fields.get("name").cloned();
            if let (Some(discovery), Some(name)) = (fields.get_mut("configDiscovery"), name) {
                discovery["configSource"] = find("extensions", &name)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
