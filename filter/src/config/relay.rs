//! Private clients in front of a server that speaks private frames: what only this direction has.

use super::command::CommandShape;
use super::document::Document;
use super::faults::Faults;
use super::push::{self, PushConfig, PushSpec, WhenUnread};
use super::server::{ServerConfig, ServerPushSpec, ServerSpec};
use super::session::Mode;
use crate::protocol::layout::spec::LayoutSpec;
use crate::protocol::layout::{Correlation, Layout, OwnedCommand, Stamp};

/// Who the client is, in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(serde::Serialize, schemars::JsonSchema))]
#[cfg_attr(feature = "schema", serde(rename_all = "snake_case"))]
pub enum IdentityField {
    /// The user's name. In an integer, the number that it is in decimal.
    User,
    /// The session's id: 32 hexadecimal digits, or 16 bytes.
    Session,
    /// The client's address and port.
    Peer,
    /// The session's roles, joined by commas.
    Roles,
    /// The claim of this name.
    Claim(String),
}

read_choice!(
    IdentityField { "user" => User, "session" => Session, "peer" => Peer, "roles" => Roles }
    { "claim" => Claim }
);

/// What only this direction has.
#[derive(Debug)]
pub struct RelayConfig {
    /// The server's, if it is not that of the clients.
    pub layout: Option<Layout>,
    pub identity: Box<[(Box<str>, IdentityField)]>,
    /// The defaults of those fields: what the server says in them is not the client's to read.
    pub blank: Box<[Stamp]>,
    pub pushes: Option<PushConfig>,
    /// Header fields that are handed on, by their places in the layouts' metadata names: the
    /// client's, the server's. None where there is one layout.
    pub fields: Box<[(u8, u8)]>,
}

/// What the direction has to do with beside its own keys.
pub struct Surroundings<'a> {
    pub mode: Option<Mode>,
    pub layout: &'a LayoutSpec,
    pub shape: CommandShape,
    pub compiled: Option<&'a Layout>,
    pub cancel: Option<&'a OwnedCommand>,
    pub reserved: &'a [(&'static str, OwnedCommand)],
}

/// The layout of the server, and the shape of its commands, if they are its own. Paths in `faults`
/// start below `server`.
pub fn own_layout(spec: &ServerSpec, faults: &mut Faults) -> Option<(Layout, CommandShape)> {
    let layout = spec.layout.as_ref()?.0.as_ref()?;
    let shape = CommandShape::of(layout);
    let compiled = Layout::compile(layout.clone()).map_err(|fault| fault.under("server.layout"));
    compiled.map_err(|fault| faults.add_once(fault)).ok().zip(shape)
}

/// Refuses a server over which nothing can be said to a client. Paths in `faults` start below
/// `server`.
pub fn check_bell(spec: &ServerSpec, faults: &mut Faults) {
    if spec.heartbeat.is_none() && spec.tunnel.is_none() {
        let problem = "a client can be told something only while the server says something: \
                       expected a \"heartbeat\" that the server answers, or a \"tunnel\"";
        faults.add("", &problem);
    }
}

/// Paths in `faults` start below `server`. `server` is completed.
pub fn compile(
    spec: ServerSpec,
    own: Option<(Layout, CommandShape)>,
    around: &Surroundings<'_>,
    server: &mut ServerConfig,
    faults: &mut Faults,
) -> RelayConfig {
    let translates = spec.layout.is_some();
    server.cancel = match (&spec.cancel, &own) {
        (Some(cancel), Some((layout, shape))) => {
            let in_order = layout.correlation() == Correlation::Order;
            faults.under("server.cancel", |faults| cancel.compile(*shape, in_order, faults))
        }
        (Some(_), None) => {
            if !translates {
                let problem = "the server has the layout of the clients, and hears of their \
                               \"cancel\": leave this key out";
                faults.add("cancel", &problem);
            }
            None
        }
        (None, _) => around.cancel.filter(|_| !translates).cloned(),
    };
    let layout = own.as_ref().map(|(layout, _)| layout).or(around.compiled);
    let (mut identity, mut blank) = (Vec::new(), Vec::new());
    for (name, field) in spec.identity.into_iter().flat_map(|fields| fields.0) {
        let path = format!("identity.{name}");
        match layout.map(|layout| layout.stamp(&name, None)) {
            Some(Ok(stamp)) => blank.push(stamp),
            Some(Err(problem)) => faults.add(&path, &problem),
            None => {}
        }
        if around.mode == Some(Mode::None) && field != IdentityField::Peer {
            let problem = "nobody logs in with the session mode \"none\", expected \"peer\"";
            faults.add(&path, &problem);
        }
        identity.push((name.into(), field));
    }
    let pushes = spec.pushes.map(|pushes| {
        let around = push::Surroundings {
            shape: around.shape,
            layout: around.layout,
            logins: true,
            reserved: around.reserved,
        };
        let ServerPushSpec { commands, ranges } = pushes;
        let when_full = WhenUnread::Refuse;
        let spec = PushSpec { commands, ranges, compress: None, when_full };
        faults.under("server.pushes", |faults| spec.compile(around, faults))
    });
    let fields = match (&own, around.compiled) {
        (Some((server, _)), Some(client)) => shared(client, server),
        _ => Vec::new(),
    };
    RelayConfig {
        layout: own.map(|(layout, _)| layout),
        identity: identity.into(),
        blank: blank.into(),
        pushes,
        fields: fields.into(),
    }
}

/// The fields that both layouts hand on under one name, where the server's can be given a value.
fn shared(client: &Layout, server: &Layout) -> Vec<(u8, u8)> {
    let mut fields = Vec::new();
    for (from, name) in (0_u8..).zip(client.metadata_names()) {
        let to = (0_u8..).zip(server.metadata_names()).find(|(_, other)| *other == name);
        if let Some((to, _)) = to.filter(|(to, _)| server.can_be_given(usize::from(*to))) {
            fields.push((from, to));
        }
    }
    fields
}

const ELSEWHERE: &str = "it belongs to the other directions, leave this key out";

/// Refuses what has no meaning in this direction.
pub fn refuse_keys(document: &Document, faults: &mut Faults) {
    if document.identity.is_some() {
        let problem = "it belongs to the direction \"ingress\", leave this key out: \
                       \"server.identity\" says it here";
        faults.add("identity", &problem);
    }
    let upstream = document.upstream.as_ref().and_then(|upstream| upstream.0.as_ref());
    if upstream.is_some_and(|upstream| upstream.authority.is_some()) {
        faults.add("upstream.authority", &ELSEWHERE);
    }
    let mut options = Vec::new();
    let defaults = document.defaults.as_ref().and_then(|defaults| defaults.0.as_ref());
    options.extend(defaults.map(|defaults| ("defaults".to_owned(), defaults.options(), None)));
    for (index, entry) in document.commands.iter().enumerate() {
        let Some(entry) = &entry.0 else { continue };
        let name = entry.command_metadata.as_ref();
        options.push((format!("commands[{index}]"), entry.options(), name));
    }
    let otherwise = document.otherwise.as_ref().and_then(|otherwise| otherwise.0.as_ref());
    options.extend(otherwise.map(|otherwise| {
        ("otherwise".to_owned(), otherwise.options(), otherwise.command_metadata.as_ref())
    }));
    for (path, options, command_metadata) in options {
        for (key, present) in [
            ("metadata", options.metadata.is_some()),
            ("codec", options.codec.is_some()),
            ("command_metadata", command_metadata.is_some()),
        ] {
            if present {
                faults.add(&format!("{path}.{key}"), &ELSEWHERE);
            }
        }
    }
}

/// Refuses the keys of `server` that only this direction has.
pub fn refuse_server_keys(server: &ServerSpec, faults: &mut Faults) {
    for (key, present) in [
        ("layout", server.layout.is_some()),
        ("cancel", server.cancel.is_some()),
        ("identity", server.identity.is_some()),
        ("pushes", server.pushes.is_some()),
    ] {
        if present {
            faults.add(key, &"it belongs to the direction \"relay\", leave this key out");
        }
    }
}
