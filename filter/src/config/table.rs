//! Compiles the command table: every entry becomes routes, every command belongs to one.

use std::fmt::Display;
use std::rc::Rc;

use super::claims::Claims;
use super::command::{CommandShape, CommandSpec, resolve_text};
use super::commands::{Defaults, Entry, Form, Methods, Options, Otherwise};
use super::faults::Faults;
use super::limits::Limits;
use super::terms::{Terms, TermsReader};
use super::upstream::UpstreamConfig;
use crate::call::Kind;
use crate::protocol::grpc::request::{FieldError, Head, Heads};
use crate::protocol::layout::OwnedCommand;
use crate::route::{Part, ROUTES_MAX, Route, Routes, STREAM_COMMANDS_MAX, Span};

/// What the rest of the document says that matters to the table.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub shape: CommandShape,
    /// Clients log in.
    pub logins: bool,
    /// Commands that the filter takes itself, with where they were written.
    pub reserved: &'a [(&'static str, OwnedCommand)],
    pub limits: &'a Limits,
    pub upstream: &'a UpstreamConfig,
    /// The direction is `egress`: methods are looked up, not commands.
    pub to_server: bool,
    /// The direction is `relay`: the shape of the server's commands.
    pub relay: Option<CommandShape>,
    /// Frames have no sequence: replies come in the order of their requests.
    pub in_order: bool,
    /// The layout can compress bodies.
    pub compression: bool,
    /// The metadata names that header fields are handed on under.
    pub field_names: &'a [&'a str],
}

/// Paths in `faults` are those of the document.
pub fn compile(
    around: Surroundings<'_>,
    defaults: &Defaults,
    entries: &[Option<Entry>],
    otherwise: Option<&Otherwise>,
    faults: &mut Faults,
) -> Routes {
    let heads = Heads::new(&around.upstream.authority);
    let claims = Claims::new(around.shape);
    let parts = Vec::new();
    let mut table = Table { around, heads, routes: Vec::new(), parts, claims, faults };
    for (path, command) in around.reserved {
        table.claims.add((*path).into(), Span::of(command), None);
    }
    let base = table.terms(&Terms::base(around), defaults.options(), None, "defaults");
    for (index, entry) in entries.iter().enumerate() {
        if let Some(entry) = entry {
            table.entry(&base, entry, &format!("commands[{index}]"));
        }
    }
    let otherwise = otherwise.and_then(|otherwise| {
        let name = otherwise.command_metadata.as_deref();
        let terms = table.terms(&base, otherwise.options(), name, "otherwise");
        table.check_stream(&terms, otherwise.options(), "otherwise");
        table.claim_parts(&terms, otherwise.options(), "otherwise");
        if around.relay.is_none() {
            for (key, present) in
                [("method", otherwise.method.is_some()), ("command_metadata", name.is_some())]
            {
                if !present {
                    table.fault("otherwise", &format_args!("the key {key:?} is missing"));
                }
            }
        }
        let method = otherwise.method.as_deref().unwrap_or_default();
        table.check_method(method, "otherwise.method");
        table.same_shape("otherwise");
        table.route(&terms, "otherwise".into(), method)
    });
    if entries.is_empty() && otherwise.is_none() {
        let problem = "no command leads anywhere, expected one such as {\"command\": 1001, \
                       \"method\": \"/package.Service/Method\"}";
        table.fault("commands", &problem);
    }
    table.claims.refuse_overlaps(table.faults);
    Routes::new(table.routes, table.claims.into_commands(), otherwise)
}

struct Table<'a> {
    around: Surroundings<'a>,
    heads: Result<Heads, FieldError>,
    routes: Vec<Route>,
    /// The commands of frames of open streams, each once.
    parts: Vec<(OwnedCommand, Part)>,
    claims: Claims,
    faults: &'a mut Faults,
}

impl Table<'_> {
    fn fault(&mut self, path: &str, problem: &dyn Display) {
        self.faults.add(path, &problem);
    }

    /// `base` with what was written over it.
    fn terms(
        &mut self,
        base: &Terms,
        options: Options<'_>,
        command_metadata: Option<&str>,
        path: &str,
    ) -> Terms {
        let mut reader = TermsReader { around: self.around, faults: self.faults };
        let terms = reader.refine(base, options, path);
        reader.with_command_metadata(terms, command_metadata, path)
    }

    fn check_stream(&mut self, terms: &Terms, options: Options<'_>, path: &str) {
        TermsReader { around: self.around, faults: self.faults }.check_stream(terms, options, path);
    }

    /// The commands of frames that belong to a stream which is open. Streams may share them: it is
    /// their sequence that tells them apart.
    fn claim_parts(&mut self, terms: &Terms, options: Options<'_>, path: &str) {
        if !terms.kind.stays_open() {
            return;
        }
        let stream = &terms.stream;
        for (command, part, written, key) in [
            (&stream.send, Part::Message, options.send.is_some(), "send"),
            (&stream.close, Part::Close, options.close.is_some(), "close"),
        ] {
            let Some(command) = command else { continue };
            let known = (command.clone(), part);
            if self.parts.contains(&known) {
                continue;
            }
            let path = format!("{}.{key}", if written { path } else { "defaults" });
            if self.parts.len() >= STREAM_COMMANDS_MAX {
                let problem = format_args!(
                    "more than {STREAM_COMMANDS_MAX} such commands, share some: streams are told \
                     apart by their sequence"
                );
                return self.fault(&path, &problem);
            }
            self.claims.add(path, Span::of(command), Some(part.index()));
            self.parts.push(known);
        }
    }

    fn entry(&mut self, base: &Terms, entry: &Entry, path: &str) {
        let name = entry.command_metadata.as_deref();
        let terms = self.terms(base, entry.options(), name, path);
        self.check_stream(&terms, entry.options(), path);
        self.claim_parts(&terms, entry.options(), path);
        let Some(form) = Form::of(entry) else {
            let problem = "names no command, expected \"command\" and \"method\", \"service\" and \
                           \"methods\", or \"from\", \"to\" and \"method\"";
            return self.fault(path, &problem);
        };
        if !self.keys_fit(form, entry, path) {
            return;
        }
        let method = entry.method.as_deref().unwrap_or_default();
        match (form, entry) {
            (Form::Single, Entry { command: Some(command), .. }) => {
                self.single(&terms, command, method, path);
                self.server_command(entry, path);
            }
            (Form::Group, Entry { service: Some(service), methods: Some(methods), .. }) => {
                let service_path = format!("{path}.service");
                if !is_service(service) {
                    let problem = format_args!(
                        "{service:?} is not a service, expected \"package.Service\" without \
                         slashes"
                    );
                    return self.fault(&service_path, &problem);
                }
                self.group(&terms, service, methods, entry.first.as_ref(), path);
                self.same_shape(path);
            }
            (Form::Range, Entry { from: Some(from), to: Some(to), .. }) => {
                self.range(&terms, from, to, method, path);
                self.same_shape(path);
            }
            // keys_fit has told what is missing.
            _ => {}
        }
    }

    /// Whether the entry has the keys of its form and no others.
    fn keys_fit(&mut self, form: Form, entry: &Entry, path: &str) -> bool {
        let before = self.faults.count();
        let in_order = form == Form::Group && matches!(entry.methods, Some(Methods::InOrder(_)));
        let named = form.named();
        for (key, present) in [
            ("command", entry.command.is_some()),
            ("method", entry.method.is_some()),
            ("service", entry.service.is_some()),
            ("methods", entry.methods.is_some()),
            ("first", entry.first.is_some()),
            ("from", entry.from.is_some()),
            ("to", entry.to.is_some()),
            ("server_command", entry.server_command.is_some()),
        ] {
            let needed = form.keys().contains(&key) || (key == "first" && in_order);
            let optional = key == "method" && self.around.relay.is_some()
                || key == "server_command" && form == Form::Single;
            if needed && !present && !optional {
                let problem = if key == "first" {
                    "the key \"first\" is missing: methods in a list need the command of the \
                     first one"
                        .into()
                } else {
                    format!("the key {key:?} is missing: {named}")
                };
                self.fault(path, &problem);
            } else if present && !needed && !optional {
                let problem = if key == "first" && form == Form::Group {
                    "methods in an object name their commands themselves, leave this key out".into()
                } else {
                    format!("not a key of this entry: {named}")
                };
                self.fault(&format!("{path}.{key}"), &problem);
            }
        }
        self.faults.count() == before
    }

    fn single(&mut self, terms: &Terms, command: &CommandSpec, method: &str, path: &str) {
        self.check_method(method, &format!("{path}.method"));
        let at = format!("{path}.command");
        self.command(terms, command.resolve(self.around.shape), method, at);
    }

    fn group(
        &mut self,
        terms: &Terms,
        service: &str,
        methods: &Methods,
        first: Option<&CommandSpec>,
        path: &str,
    ) {
        let shape = self.around.shape;
        let full = |name: &str| format!("/{service}/{name}");
        match methods {
            Methods::ByCommand(methods) => {
                for (key, name) in methods {
                    let at = format!("{path}.methods.{key}");
                    self.check_name(name, &at);
                    self.command(terms, resolve_text(key, shape), &full(name), at);
                }
            }
            Methods::InOrder(methods) => {
                let first = match self.number(first, &format!("{path}.first")) {
                    Some(first) => first,
                    None => return,
                };
                for (number, (index, name)) in (first..).zip(methods.iter().enumerate()) {
                    let at = format!("{path}.methods[{index}]");
                    self.check_name(name, &at);
                    let command = CommandSpec::Number(number).resolve(shape);
                    self.command(terms, command, &full(name), at);
                }
            }
        }
        let empty = match methods {
            Methods::ByCommand(methods) => methods.is_empty(),
            Methods::InOrder(methods) => methods.is_empty(),
        };
        if empty {
            self.fault(&format!("{path}.methods"), &"names no method, expected at least one");
        }
    }

    fn range(
        &mut self,
        terms: &Terms,
        from: &CommandSpec,
        to: &CommandSpec,
        method: &str,
        path: &str,
    ) {
        self.check_method(method, &format!("{path}.method"));
        let from = self.number(Some(from), &format!("{path}.from"));
        let to = self.number(Some(to), &format!("{path}.to"));
        let (Some(from), Some(to)) = (from, to) else { return };
        if from > to {
            let problem = format_args!("{to} is below \"from\", expected {from} or more");
            return self.fault(&format!("{path}.to"), &problem);
        }
        let name = joined(&format!("{from}_{to}"), last_name(method));
        let Some(route) = self.route(terms, name, method) else { return };
        // Numbers below zero are the upper half of the field's bits.
        for (first, last) in [(from, to.min(-1)), (from.max(0), to)] {
            if first <= last {
                let bits = |number| self.around.shape.bits(number);
                let span = Span::Numbers(bits(first), bits(last));
                self.claims.add(path.into(), span, Some(route));
            }
        }
    }

    /// One command and its route.
    fn command(
        &mut self,
        terms: &Terms,
        command: Result<OwnedCommand, String>,
        method: &str,
        path: String,
    ) {
        let command = match command {
            Ok(command) => command,
            Err(problem) => return self.fault(&path, &problem),
        };
        let method_name = last_name(method);
        let (span, name) = match command {
            OwnedCommand::Number(bits) => {
                let number = self.around.shape.number(bits);
                (Span::Numbers(bits, bits), joined(&number.to_string(), method_name))
            }
            OwnedCommand::Text(text) => {
                let plain = |byte: &u8| match byte {
                    byte if byte.is_ascii_alphanumeric() || *byte == b'-' => char::from(*byte),
                    _ => '_',
                };
                let command: String = text.iter().map(plain).collect();
                (Span::Text(text), joined(&command, method_name))
            }
        };
        let own = match &span {
            Span::Numbers(number, _) => OwnedCommand::Number(*number),
            Span::Text(text) => OwnedCommand::Text(text.clone()),
        };
        if let Some(route) = self.route(terms, name, method) {
            if let Some(made) = self.routes.last_mut().filter(|_| self.around.to_server) {
                if made.kind == Kind::Subscribe {
                    made.push = Some(own);
                } else {
                    made.command = Some(own);
                }
            }
            self.claims.add(path, span, Some(route));
        }
    }

    /// A number that fits the command field, as it was written.
    fn number(&mut self, command: Option<&CommandSpec>, path: &str) -> Option<i128> {
        let shape = self.around.shape;
        if shape.range().is_none() {
            let problem = "the layout's commands are names, which have no order: name each";
            self.fault(path, &problem);
            return None;
        }
        match command?.resolve(shape) {
            Ok(OwnedCommand::Number(bits)) => Some(shape.number(bits)),
            Ok(OwnedCommand::Text(_)) => None,
            Err(problem) => {
                self.fault(path, &problem);
                None
            }
        }
    }

    fn route(&mut self, terms: &Terms, name: String, method: &str) -> Option<u16> {
        let index = u16::try_from(self.routes.len()).ok();
        let Some(index) = index.filter(|index| usize::from(*index) < ROUTES_MAX) else {
            // Once is enough.
            if self.routes.len() == ROUTES_MAX {
                let problem =
                    format_args!("more than {ROUTES_MAX} commands, expected at most so many");
                if !self.faults.has("commands") {
                    self.fault("commands", &problem);
                }
            }
            return None;
        };
        let head = match self.head(index, terms, method) {
            Ok(head) => head,
            // What it was made of has been refused already, where it was written; this is for
            // what only the encoder objects to.
            Err(problem) => {
                if self.faults.is_empty() {
                    self.fault("commands", &format_args!("{method:?} cannot be called: {problem}"));
                }
                return None;
            }
        };
        self.routes.push(Route {
            index,
            name: name.into(),
            method: method.into(),
            head,
            kind: terms.kind,
            command: None,
            push: terms.push.clone(),
            stream: terms.kind.is_stream().then(|| Rc::clone(&terms.stream)),
            deadline: terms.deadline(),
            access: Rc::clone(&terms.access),
            max_request: terms.max_request.get(),
            codec: terms.codec,
            compress_reply: terms.compress_reply,
            idempotent: terms.idempotent,
            command_metadata: terms.command_metadata.clone(),
        });
        Some(index)
    }

    /// All of the header block that does not differ from call to call.
    fn head(&mut self, route: u16, terms: &Terms, method: &str) -> Result<Head, FieldError> {
        let heads = self.heads.as_mut().map_err(|error| *error)?;
        // Nothing is called by it.
        let method = if method.is_empty() { "/private.Server/Frame" } else { method };
        let metadata = terms.metadata.iter().map(|(name, value)| (&**name, &**value));
        heads.head(route, method, metadata, terms.deadline())
    }

    /// What a command is to a server whose commands may be others.
    fn server_command(&mut self, entry: &Entry, path: &str) {
        let path = format!("{path}.server_command");
        match (&entry.server_command, self.around.relay) {
            (None, _) => self.same_shape(path.trim_end_matches(".server_command")),
            (Some(_), None) => {
                let problem = "it belongs to the direction \"relay\", leave this key out";
                self.fault(&path, &problem);
            }
            (Some(command), Some(shape)) => match command.resolve(shape) {
                Ok(command) => {
                    if let Some(made) = self.routes.last_mut() {
                        made.command = Some(command);
                    }
                }
                Err(problem) => self.fault(&path, &problem),
            },
        }
    }

    /// Refuses commands that a server cannot be asked by the same: numbers are no names.
    fn same_shape(&mut self, path: &str) {
        let Some(shape) = self.around.relay else { return };
        if shape.range().is_some() != self.around.shape.range().is_some() {
            let problem = "the server's commands are of another type than the clients', expected \
                           single commands with a \"server_command\"";
            self.fault(path, &problem);
        }
    }

    fn check_method(&mut self, method: &str, path: &str) {
        if method.is_empty() && self.around.relay.is_some() {
            return;
        }
        let full = method.strip_prefix('/').and_then(|rest| rest.split_once('/'));
        if !full.is_some_and(|(service, name)| is_service(service) && is_identifier(name)) {
            let problem =
                format!("{method:?} is not a full method, expected \"/package.Service/Method\"");
            self.fault(path, &problem);
        }
    }

    fn check_name(&mut self, name: &str, path: &str) {
        if !is_identifier(name) {
            let problem = format_args!("{name:?} is not the name of a method, expected \"Method\"");
            self.fault(path, &problem);
        }
    }
}

fn last_name(method: &str) -> &str {
    method.rsplit('/').next().unwrap_or(method)
}

/// A command and its method's name, if it has one.
fn joined(command: &str, method: &str) -> String {
    if method.is_empty() { command.to_owned() } else { format!("{command}_{method}") }
}

/// Identifiers with dots between them.
fn is_service(text: &str) -> bool {
    text.split('.').all(is_identifier)
}

/// As protobuf has them.
fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
