//! The document's top level, and what holds between its parts.

use super::Config;
use super::command::CommandShape;
use super::commands::{Defaults, Entry, Otherwise};
use super::drain::DrainSpec;
use super::egress;
use super::faults::Faults;
use super::identity::IdentitySpec;
use super::limits::Limits;
use super::metadata;
use super::observe::{LogConfig, MetricsConfig};
use super::push::{self, PushSpec};
use super::read::Attempt;
use super::relay;
use super::server::{Direction, FixedFrame, ServerConfig, ServerSpec};
use super::session::{Mode, SessionConfig, SessionSpec};
use super::signals::{CancelSpec, HeartbeatConfig, HeartbeatSpec};
use super::statuses::StatusesSpec;
use super::table::{self, Surroundings};
use super::upstream::{CompanionSpec, UpstreamConfig, UpstreamSpec};
use crate::protocol::layout::{Correlation, Layout, LayoutSpec, OwnedCommand};

/// A companion is there if, and only if, clients log in; for the schema.
#[cfg(feature = "schema")]
fn companion_with_logins() -> serde_json::Value {
    serde_json::json!({
        "if": { "properties": { "session": { "properties": { "mode": { "const": "none" } } } } },
        "then": { "properties": { "companion": false } },
        "else": { "required": ["companion"] }
    })
}

/// What each direction needs and refuses; for the schema.
#[cfg(feature = "schema")]
fn by_direction() -> [serde_json::Value; 3] {
    let is = |names: &[&str]| {
        serde_json::json!({
            "properties": { "direction": { "enum": names } }, "required": ["direction"]
        })
    };
    let method = serde_json::json!({ "items": { "anyOf": [
        { "required": ["method"] }, { "required": ["methods"] }
    ] } });
    let otherwise = serde_json::json!({ "required": ["method", "command_metadata"] });
    let authority = serde_json::json!({ "required": ["authority"] });
    let own = serde_json::json!({ "properties": {
        "layout": false, "cancel": false, "identity": false, "pushes": false
    } });
    [
        serde_json::json!({
            "if": is(&["egress"]),
            "then": {
                "properties": {
                    "session": false, "heartbeat": false, "companion": false, "upstream": false,
                    "otherwise": false, "identity": false, "push": false, "drain": false,
                    "server": own
                }
            },
            "else": { "required": ["session"] }
        }),
        serde_json::json!({
            "if": is(&["relay"]),
            "then": { "required": ["server"], "properties": { "identity": false } },
            "else": { "properties": { "commands": method, "otherwise": otherwise } }
        }),
        serde_json::json!({
            "if": is(&["egress", "relay"]),
            "then": true,
            "else": {
                "required": ["upstream"],
                "properties": { "server": false, "upstream": authority }
            }
        }),
    ]
}

#[cfg(feature = "schema")]
fn conditions() -> Vec<serde_json::Value> {
    std::iter::once(companion_with_logins()).chain(by_direction()).collect()
}

object! {
    /// The configuration of MeshGate's filter for one listener (Istio's `pluginConfig`).
    #[derive(Clone, Debug, PartialEq)]
    #[cfg_attr(feature = "schema", schemars(extend("allOf" = conditions())))]
    pub struct Document {
        /// Where the JSON Schema lies, for editors; not used by MeshGate.
        pub schema as "$schema": Option<String>,
        /// Who calls whom.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub direction: Direction = Direction::Ingress,
        /// The frames that clients, or the private server, speak.
        pub layout: Attempt<LayoutSpec>,
        /// How clients log in, and how they are told to go. Needed with the directions `ingress` and
        /// `relay`.
        pub session: Option<Attempt<SessionSpec>>,
        /// What a private server is told besides calls. With the directions `egress` and `relay`.
        pub server: Option<Attempt<ServerSpec>>,
        /// The frame by which a client shows that it is alive, answered by the filter itself.
        pub heartbeat: Option<Attempt<HeartbeatSpec>>,
        /// The frame by which a client gives up a call or ends a stream; with the direction
        /// `egress`, the one that tells the server that a call is given up; with `relay` it is both.
        pub cancel: Option<Attempt<CancelSpec>>,
        /// What services may push to clients through the companion, without a stream to them.
        /// Without it no push is taken.
        pub push: Option<Attempt<PushSpec>>,
        /// How clients are asked to leave, when their service or this proxy goes away, and to come
        /// back. Without it they are not asked.
        pub drain: Option<Attempt<DrainSpec>>,
        /// The companion that decides logins and keeps sessions. Needed for the session modes
        /// `ticket` and `noise`.
        pub companion: Option<Attempt<CompanionSpec>>,
        /// Where calls go. Needed with the direction `ingress`.
        pub upstream: Option<Attempt<UpstreamSpec>>,
        /// What holds for every command that does not say otherwise.
        pub defaults: Option<Attempt<Defaults>>,
        /// The command table: which method each command calls, or which command a method is. A
        /// command has one place in it, and so has a method with the direction `egress`.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub commands: Vec<Attempt<Entry>> = Vec::new(),
        /// Where commands go that the table does not name. Without it they are answered with
        /// UNIMPLEMENTED.
        pub otherwise: Option<Attempt<Otherwise>>,
        /// The number that a client sees for each gRPC status; with the direction `egress`, the
        /// gRPC status that a caller sees for each number.
        pub statuses: Option<Attempt<StatusesSpec>>,
        /// What one peer may cost at most.
        pub limits: Option<Attempt<Limits>>,
        /// What services learn about the client.
        pub identity: Option<Attempt<IdentitySpec>>,
        /// What goes to Envoy's log.
        pub log: Option<Attempt<LogConfig>>,
        /// What goes to Envoy's statistics.
        pub metrics: Option<Attempt<MetricsConfig>>,
    }
}

impl Document {
    /// Everything that is wrong goes to `faults`; `None` if there cannot be a configuration.
    /// Parts that could not be read have told so already, and what depends on them is left out.
    pub fn compile(self, faults: &mut Faults) -> Option<Config> {
        let to_server = self.direction == Direction::Egress;
        match self.direction {
            Direction::Egress => egress::refuse_keys(&self, faults),
            Direction::Relay => {
                self.check_present(&["session", "server"], faults);
                relay::refuse_keys(&self, faults);
            }
            Direction::Ingress => self.check_ingress(faults),
        }
        let layout_spec = self.layout.0;
        let shape = layout_spec.as_ref().and_then(CommandShape::of);
        let field_names = layout_spec.as_ref().map(|layout| field_names(layout, faults));
        let layout = layout_spec.as_ref().and_then(|spec| {
            let compiled = Layout::compile(spec.clone()).map_err(|fault| fault.under("layout"));
            compiled.map_err(|fault| faults.add_once(fault)).ok()
        });

        let session = self.session.and_then(|session| session.0);
        let mode = if to_server { Some(Mode::None) } else { session.as_ref().map(|s| s.mode) };
        let session = session.filter(|_| !to_server).zip(shape).map(|(session, shape)| {
            faults.under("session", |faults| session.compile(shape, faults))
        });
        let companion = self.companion.map(|companion| companion.0);
        if !to_server {
            check_companion(mode, companion.is_some(), faults);
        }
        let companion = companion
            .flatten()
            .map(|companion| faults.under("companion", |faults| companion.compile(faults)));
        let upstream = self
            .upstream
            .and_then(|upstream| upstream.0)
            .filter(|_| !to_server)
            .map(|upstream| faults.under("upstream", |faults| upstream.compile(mode, faults)));

        let limits: Limits = part(self.limits);
        faults.under("limits", |faults| limits.check(layout.as_ref(), faults));
        let metrics: MetricsConfig = part(self.metrics);
        faults.under("metrics", |faults| metrics.check(faults));
        let statuses = faults
            .under("statuses", |faults| part(self.statuses).compile(layout_spec.as_ref(), faults));
        let identity = faults
            .under("identity", |faults| part(self.identity).compile(layout_spec.as_ref(), faults));

        let in_order =
            layout_spec.as_ref().is_some_and(|spec| spec.correlation == Correlation::Order);
        let heartbeat = self.heartbeat.and_then(|heartbeat| heartbeat.0).zip(shape);
        let heartbeat = heartbeat.and_then(|(heartbeat, shape)| {
            faults.under("heartbeat", |faults| heartbeat.compile(shape, faults))
        });
        let cancel = self.cancel.and_then(|cancel| cancel.0).zip(shape);
        let cancel = cancel.and_then(|(cancel, shape)| {
            faults.under("cancel", |faults| cancel.compile(shape, in_order, faults))
        });

        let mut server = None;
        let mut own = None;
        let (session, upstream, shape) = match self.direction {
            Direction::Egress => (SessionConfig::none(), UpstreamConfig::none(), shape?),
            Direction::Relay => (session?, upstream.unwrap_or_else(UpstreamConfig::none), shape?),
            Direction::Ingress => (session?, upstream?, shape?),
        };
        let mut relay = None;
        if self.direction != Direction::Ingress {
            let read = self.server.and_then(|server| server.0);
            if let Some(spec) = read.as_ref().filter(|_| self.direction == Direction::Relay) {
                faults.under("server", |faults| relay::check_bell(spec, faults));
            }
            let spec = read.unwrap_or_default();
            let relays = self.direction == Direction::Relay;
            faults.under("server", |faults| {
                if relays {
                    own = relay::own_layout(&spec, faults);
                } else {
                    relay::refuse_server_keys(&spec, faults);
                }
                let of_server = own.as_ref().map(|(layout, _)| layout).or(layout.as_ref());
                let its_shape = own.as_ref().map_or(shape, |(_, shape)| *shape);
                let mut compiled = spec.compile(its_shape, of_server, faults);
                if let (true, Some(layout_spec)) = (relays, layout_spec.as_ref()) {
                    let around = relay::Surroundings {
                        mode,
                        layout: layout_spec,
                        shape,
                        compiled: layout.as_ref(),
                        cancel: cancel.as_ref(),
                        reserved: &meant_otherwise(&session, heartbeat.as_ref(), cancel.as_ref()),
                    };
                    let shape_of_server = own.as_ref().map(|(_, shape)| *shape);
                    relay = Some((
                        relay::compile(spec, own.take(), &around, &mut compiled, faults),
                        shape_of_server,
                    ));
                }
                server = Some(compiled);
            });
            let relayed = relay.as_ref().and_then(|(relay, _)| relay.layout.as_ref());
            if let Some(layout) = relayed.or(layout.as_ref()) {
                egress::check_sequences(layout, &limits, faults);
            }
        }
        let relay_shape = relay.as_ref().map(|(_, own)| own.unwrap_or(shape));
        let server_frame = |frame: fn(&ServerConfig) -> Option<&FixedFrame>| {
            let server = server.as_ref().filter(|_| to_server);
            server.and_then(frame).map(|frame| &frame.command)
        };
        let push = self.push.filter(|_| !to_server).and_then(|push| push.0);
        let push = push.zip(layout_spec.as_ref());
        let push = push.map(|(push, layout)| {
            let around = push::Surroundings {
                shape,
                layout,
                logins: mode != Some(Mode::None),
                reserved: &meant_otherwise(&session, heartbeat.as_ref(), cancel.as_ref()),
            };
            faults.under("push", |faults| push.compile(around, faults))
        });
        let drain = self.drain.filter(|_| !to_server).and_then(|drain| drain.0).map(|drain| {
            let says_goodbye = session.goodbye.is_some();
            faults.under("drain", |faults| drain.compile(says_goodbye, faults))
        });
        let reserved = [
            ("server.login.command", server_frame(|server| server.login.as_ref())),
            ("server.heartbeat.command", server_frame(|server| server.heartbeat.as_ref())),
            ("session.login.command", session.login.as_ref().map(|login| &login.command)),
            ("heartbeat.command", heartbeat.as_ref().map(|heartbeat| &heartbeat.command)),
            ("cancel.command", cancel.as_ref()),
        ];
        let reserved: Vec<_> = reserved
            .into_iter()
            .filter_map(|(path, command)| command.map(|command| (path, command.clone())))
            .collect();
        let around = Surroundings {
            shape,
            logins: mode != Some(Mode::None),
            reserved: &reserved,
            in_order,
            limits: &limits,
            upstream: &upstream,
            to_server,
            relay: relay_shape,
            compression: layout_spec.as_ref().is_some_and(|spec| spec.compression.is_some()),
            field_names: &field_names.unwrap_or_default(),
        };
        let entries: Vec<Option<Entry>> = self.commands.into_iter().map(|entry| entry.0).collect();
        let otherwise = self.otherwise.and_then(|otherwise| otherwise.0);
        let routes =
            table::compile(around, &part(self.defaults), &entries, otherwise.as_ref(), faults);
        if let Some(server) = server.as_mut().filter(|_| to_server) {
            server.methods = egress::methods(&routes, faults);
            server.cancel.clone_from(&cancel);
        }
        Some(Config {
            layout: layout?,
            command_shape: shape,
            session,
            heartbeat,
            cancel,
            push,
            drain,
            companion,
            upstream,
            direction: self.direction,
            server,
            relay: relay.map(|(relay, _)| relay),
            routes,
            limits,
            identity,
            statuses,
            log: part(self.log),
            metrics,
        })
    }
}

/// The commands of frames that are no pushes of a service, and where they stand.
fn meant_otherwise(
    session: &SessionConfig,
    heartbeat: Option<&HeartbeatConfig>,
    cancel: Option<&OwnedCommand>,
) -> Vec<(&'static str, OwnedCommand)> {
    let commands = [
        ("session.login", session.login.as_ref().map(|login| &login.command)),
        ("session.goodbye", session.goodbye.as_ref()),
        ("heartbeat", heartbeat.map(|heartbeat| &heartbeat.command)),
        ("cancel", cancel),
    ];
    let given = commands.into_iter();
    given.filter_map(|(path, command)| command.map(|command| (path, command.clone()))).collect()
}

impl Document {
    /// What only the direction `ingress` needs, and what it refuses.
    fn check_ingress(&self, faults: &mut Faults) {
        self.check_present(&["session", "upstream"], faults);
        let upstream = self.upstream.as_ref().and_then(|upstream| upstream.0.as_ref());
        if upstream.is_some_and(|upstream| upstream.authority.is_none()) {
            faults.add("upstream", &"the key \"authority\" is missing");
        }
        if self.server.is_some() {
            let problem =
                "it belongs to the directions \"egress\" and \"relay\", leave this key out";
            faults.add("server", &problem);
        }
    }

    fn check_present(&self, keys: &[&str], faults: &mut Faults) {
        for (key, present) in [
            ("session", self.session.is_some()),
            ("server", self.server.is_some()),
            ("upstream", self.upstream.is_some()),
        ] {
            if !present && keys.contains(&key) {
                faults.add("", &format_args!("the key {key:?} is missing"));
            }
        }
    }
}

/// What was written, or the default.
fn part<T: Default>(attempt: Option<Attempt<T>>) -> T {
    attempt.and_then(|attempt| attempt.0).unwrap_or_default()
}

/// The metadata names that header fields are handed on under: none may pass for the filter's word.
fn field_names<'a>(layout: &'a LayoutSpec, faults: &mut Faults) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (part, fields) in [("header", &layout.header), ("trailer", &layout.trailer)] {
        for (index, field) in fields.iter().enumerate() {
            let Some(name) = field.metadata.as_deref() else { continue };
            if let Err(problem) = metadata::check_name(name) {
                let path = format!("layout.{part}[{index}].metadata");
                faults.add(&path, &problem);
            }
            names.push(name);
        }
    }
    names
}

fn check_companion(mode: Option<Mode>, present: bool, faults: &mut Faults) {
    match (mode, present) {
        (Some(mode @ (Mode::Ticket | Mode::Noise)), false) => {
            let name = mode.name();
            let problem = format_args!(
                "the session mode {name:?} needs a companion that decides logins: \
                 {{\"cluster\": \"companion\"}}"
            );
            faults.add("companion", &problem);
        }
        (Some(Mode::None), true) => {
            let problem = "nobody logs in with the session mode \"none\", leave this key out";
            faults.add("companion", &problem);
        }
        _ => {}
    }
}
