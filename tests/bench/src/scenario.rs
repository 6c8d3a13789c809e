//! The ways from a client to a service that are compared.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use meshgate_game::demo::v1::EchoRequest;
use meshgate_game::private::command;
use prost::Message;
use serde_json::{Value, json};

use crate::companion::{AUDIENCE, Companion, Visitors};
use crate::envoy::Envoy;
use crate::grpc_client::GrpcClient;
use crate::leg::{Commands, Frames, Leg, Sealed};
use crate::load::connect;
use crate::process::Process;

pub const ECHO_PATH: &str = "/demo.v1.Echo/Echo";

/// One way from a client to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    pub speaks: Speaks,
    pub through: Through,
    /// Envoy's worker threads.
    pub workers: usize,
}

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Frames,
    /// Frames, sealed after a Noise login.
    SealedFrames,
    Grpc,
}

/// What lies between client and service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    Nothing,
    /// An Envoy with this bootstrap of `envoy/`.
    Envoy(&'static str),
    /// The bridge process, and an Envoy with this bootstrap behind it.
    Bridge(&'static str),
}

const fn frames(name: &'static str, through: Through) -> Scenario {
    Scenario { name, speaks: Speaks::Frames, through, workers: 1 }
}

pub const ENVOY_TCP: Scenario = frames("envoy-tcp", Through::Envoy("tcp"));
pub const DIRECT: Scenario = frames("meshgate-direct", Through::Envoy("direct"));
pub const ROUTED: Scenario = frames("meshgate-routed", Through::Envoy("routed"));
pub const LOOPBACK: Scenario =
    frames("meshgate-routed-loopback", Through::Envoy("routed-loopback"));
pub const SEALED: Scenario = Scenario {
    name: "meshgate-direct-sealed",
    speaks: Speaks::SealedFrames,
    through: Through::Envoy("sealed"),
    workers: 1,
};
pub const RELAY: Scenario = frames("meshgate-relay", Through::Envoy("relay"));
pub const EGRESS_DIRECT: Scenario = Scenario {
    name: "meshgate-egress-direct",
    speaks: Speaks::Grpc,
    through: Through::Envoy("relay"),
    workers: 1,
};
pub const EGRESS: Scenario = Scenario {
    name: "meshgate-egress",
    speaks: Speaks::Grpc,
    through: Through::Envoy("egress"),
    workers: 1,
};
pub const ENVOY_GRPC: Scenario = Scenario {
    name: "envoy-grpc",
    speaks: Speaks::Grpc,
    through: Through::Envoy("grpc"),
    workers: 1,
};

/// All of them, in the order in which they run.
pub const ALL: [Scenario; 14] = [
    frames("direct-tcp", Through::Nothing),
    ENVOY_TCP,
    DIRECT,
    SEALED,
    ROUTED,
    LOOPBACK,
    RELAY,
    EGRESS_DIRECT,
    EGRESS,
    ENVOY_GRPC,
    frames("native-bridge", Through::Bridge("grpc")),
    Scenario { name: "grpc-server", speaks: Speaks::Grpc, through: Through::Nothing, workers: 1 },
    Scenario { name: "envoy-tcp-2-workers", workers: 2, ..ENVOY_TCP },
    Scenario { name: "meshgate-direct-2-workers", workers: 2, ..DIRECT },
];

/// What scenarios are made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The project's root folder.
    pub root: PathBuf,
    pub envoy: PathBuf,
    pub wasm: PathBuf,
    /// The binary `meshgate`.
    pub companion: PathBuf,
}

/// The two servers that everything ends at, one process each, and the companion.
pub struct Servers {
    frames: (Process, SocketAddr),
    grpc: (Process, SocketAddr),
    companion: Option<Companion>,
}

/// A scenario that is up.
pub struct Running {
    pub scenario: Scenario,
    pub address: SocketAddr,
    envoy: Option<Envoy>,
    bridge: Option<Process>,
    visitors: Option<Visitors>,
}

impl Servers {
    /// With a companion if there will be logins.
    pub fn start(parts: &Parts, logins: bool) -> Result<Self> {
        Ok(Self {
            frames: Process::this(&["serve-frames"])?,
            grpc: Process::this(&["serve-grpc"])?,
            companion: logins.then(|| Companion::start(&parts.companion)).transpose()?,
        })
    }

    pub fn companion(&self) -> Result<&Companion> {
        self.companion.as_ref().context("no companion was started")
    }

    /// Who logs in.
    pub fn visitors(&self) -> Result<&Visitors> {
        Ok(&self.companion()?.visitors)
    }
}

impl Scenario {
    pub fn is_meshgate(&self) -> bool {
        self.name.starts_with("meshgate")
    }

    /// Starts it with a table of `commands` commands, of which the first is the echo.
    pub fn start(&self, parts: &Parts, servers: &Servers, commands: u32) -> Result<Running> {
        let visitors = match self.speaks {
            Speaks::SealedFrames => Some(servers.visitors()?.clone()),
            Speaks::Frames | Speaks::Grpc => None,
        };
        let running = |address| Running {
            scenario: *self,
            address,
            envoy: None,
            bridge: None,
            visitors: visitors.clone(),
        };
        let envoy = |template| self.start_envoy(parts, servers, template, commands);
        match self.through {
            Through::Nothing => Ok(running(match self.speaks {
                Speaks::Frames | Speaks::SealedFrames => servers.frames.1,
                Speaks::Grpc => servers.grpc.1,
            })),
            Through::Envoy(template) => {
                let envoy = envoy(template)?;
                Ok(Running { envoy: Some(envoy.0), ..running(envoy.1) })
            }
            Through::Bridge(template) => {
                let (envoy, address) = envoy(template)?;
                let arguments = ["bridge", "--upstream", &address.to_string()];
                let (bridge, address) = Process::this(&arguments)?;
                Ok(Running { envoy: Some(envoy), bridge: Some(bridge), ..running(address) })
            }
        }
    }

    fn start_envoy(
        &self,
        parts: &Parts,
        servers: &Servers,
        template_name: &str,
        commands: u32,
    ) -> Result<(Envoy, SocketAddr)> {
        let template = Path::new("tests/bench/envoy").join(template_name).with_extension("yaml");
        let template = parts.read(&template)?;
        let mut values = vec![
            ("frames_port", servers.frames.1.port().to_string()),
            ("grpc_port", servers.grpc.1.port().to_string()),
            ("routing_port", free_port()?.to_string()),
        ];
        if self.is_meshgate() {
            ensure!(parts.wasm.exists(), "{} is missing: run scripts/build", parts.wasm.display());
            let mut configuration = parts.configuration(commands)?;
            match (template_name, self.speaks) {
                ("relay", Speaks::Frames) => to_private_server(&mut configuration),
                ("relay" | "egress", Speaks::Grpc) => from_grpc(&mut configuration),
                _ => {}
            }
            if self.speaks == Speaks::SealedFrames {
                let port = servers.companion()?.address.port();
                values.push(("companion_port", port.to_string()));
                log_in_by_noise(&mut configuration);
            }
            values.push(("wasm", parts.wasm.display().to_string()));
            // A JSON string is a YAML string.
            values.push(("configuration", Value::from(configuration.to_string()).to_string()));
        }
        let envoy = Envoy::start(&parts.envoy, &template, &values, self.workers)?;
        let address = envoy.address()?;
        if self.speaks == Speaks::SealedFrames {
            let visitors = servers.visitors()?;
            visitors.first_login(address).with_context(|| envoy.log())?;
        }
        Ok((envoy, address))
    }
}

impl Parts {
    fn read(&self, path: &Path) -> Result<String> {
        let path = self.root.join(path);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The filter's configuration: layout `game`, and so many commands that all are an echo, each
    /// by a method name of its own.
    fn configuration(&self, commands: u32) -> Result<Value> {
        let layout: Value =
            serde_json::from_str(&self.read(Path::new("envoy-config/layouts/game.json"))?)?;
        let others = (1..commands).map(|number| format!("Echo{number}"));
        let methods: Vec<String> = std::iter::once("Echo".to_owned()).chain(others).collect();
        Ok(json!({
            "layout": layout,
            "session": { "mode": "none" },
            "upstream": { "authority": "demo.example:50051" },
            "heartbeat": { "command": command::HEARTBEAT },
            // The other ways do not compress either.
            "defaults": { "compress_reply": false },
            "commands": [
                { "service": "demo.v1.Echo", "first": command::ECHO, "methods": methods }
            ],
        }))
    }
}

/// Private clients of a private server.
fn to_private_server(configuration: &mut Value) {
    configuration["direction"] = "relay".into();
    configuration["server"] = json!({ "heartbeat": { "command": command::HEARTBEAT } });
    configuration["upstream"] = json!({});
}

/// gRPC callers of a private server.
fn from_grpc(configuration: &mut Value) {
    configuration["direction"] = "egress".into();
    configuration["server"] = json!({ "heartbeat": { "command": command::HEARTBEAT } });
    if let Some(document) = configuration.as_object_mut() {
        document.remove("session");
        document.remove("heartbeat");
        document.remove("upstream");
    }
}

fn log_in_by_noise(configuration: &mut Value) {
    configuration["session"] = json!({
        "mode": "noise",
        "audience": AUDIENCE,
        "login": { "command": command::LOGIN },
        "goodbye": { "command": command::GOODBYE },
    });
    configuration["companion"] = json!({ "cluster": "companion" });
    configuration["upstream"]["connect"] = "after_login".into();
    configuration["upstream"]["cluster"] = "grpc".into();
}

impl Running {
    /// The processes between client and service.
    pub fn proxies(&self) -> impl Iterator<Item = &Process> {
        self.envoy.iter().map(|envoy| &envoy.process).chain(&self.bridge)
    }

    /// What Envoy wrote to its log.
    pub fn log(&self) -> String {
        self.envoy.as_ref().map(Envoy::log).unwrap_or_default()
    }

    /// Makes connections that send heartbeats, which the filter answers itself.
    pub fn heartbeats(&self) -> impl FnMut() -> io::Result<(TcpStream, Leg)> + use<> {
        let address = self.address;
        let commands = Commands { first: command::HEARTBEAT, count: 1 };
        move || Ok((connect(address)?, Leg::Frames(Frames::new(commands, b"alive"))))
    }

    /// Makes connections that call an echo of `size` bytes, with so many different commands.
    pub fn connector(
        &self,
        size: usize,
        commands: u32,
    ) -> impl FnMut() -> io::Result<(TcpStream, Leg)> + use<> {
        let (address, speaks) = (self.address, self.scenario.speaks);
        let visitors = self.visitors.clone();
        let message = EchoRequest { body: vec![b'x'; size] }.encode_to_vec();
        let commands = Commands { first: command::ECHO, count: commands };
        move || {
            let mut stream = connect(address)?;
            let frames = || Frames::new(commands, &message);
            let leg = match speaks {
                Speaks::Frames => Leg::Frames(frames()),
                Speaks::SealedFrames => {
                    let visitors = visitors.as_ref().ok_or(io::ErrorKind::NotConnected)?;
                    let (_, to_server, to_client) = visitors.login(&mut stream)?;
                    Leg::Sealed(Box::new(Sealed::new(frames(), to_server, to_client)))
                }
                Speaks::Grpc => {
                    let client = GrpcClient::new("demo.example:50051", ECHO_PATH, &message);
                    Leg::Grpc(Box::new(client))
                }
            };
            Ok((stream, leg))
        }
    }
}

/// A port that nobody listens at now. Envoy cannot tell a cluster which port a listener took.
fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
