//! On what terms commands call their methods, from what was written in `defaults`, an entry, or
//! `otherwise`.

use std::rc::Rc;
use std::time::Duration;

use super::command::CommandSpec;
use super::commands::{CodecSpec, KindSpec, LoginRule, Options, WhenFull};
use super::faults::Faults;
use super::metadata;
use super::table::Surroundings;
use super::units::{Size, Span};
use crate::call::Kind;
use crate::protocol::layout::OwnedCommand;
use crate::route::{Codec, StreamTerms};
use crate::session::Access;

/// On what terms commands call their methods.
#[derive(Clone)]
pub struct Terms {
    pub kind: Kind,
    /// Of calls that are no streams.
    pub deadline: Duration,
    pub stream_deadline: Option<Duration>,
    /// What carries a stream's messages.
    pub push: Option<OwnedCommand>,
    /// What has been written about streams.
    pub stream: Rc<StreamTerms>,
    pub access: Rc<Access>,
    pub max_request: Size,
    pub codec: Codec,
    pub compress_reply: bool,
    pub idempotent: bool,
    pub metadata: Rc<Vec<(String, String)>>,
    pub command_metadata: Option<Box<str>>,
}

impl Terms {
    pub fn base(around: Surroundings<'_>) -> Self {
        let access = Access { login: around.logins, ..Access::default() };
        Self {
            kind: Kind::Unary,
            deadline: Duration::from_secs(5),
            stream_deadline: None,
            push: None,
            stream: Rc::default(),
            access: Rc::new(access),
            max_request: around.limits.max_frame,
            codec: Codec::Protobuf,
            compress_reply: around.compression,
            idempotent: false,
            metadata: Rc::default(),
            command_metadata: None,
        }
    }
}

impl Terms {
    /// From a call's frame to its reply.
    pub fn deadline(&self) -> Option<Duration> {
        match self.kind {
            kind if kind.is_stream() => self.stream_deadline,
            _ => Some(self.deadline),
        }
    }
}

/// Reads terms, each over those that hold without it.
pub struct TermsReader<'a> {
    pub around: Surroundings<'a>,
    pub faults: &'a mut Faults,
}

impl TermsReader<'_> {
    /// `terms` with what was written over them.
    pub fn refine(&mut self, terms: &Terms, options: Options<'_>, path: &str) -> Terms {
        let mut terms = terms.clone();
        if let Some(kind) = options.kind {
            terms.kind = match kind {
                KindSpec::Unary => Kind::Unary,
                KindSpec::OneWay => Kind::OneWay,
                KindSpec::ServerStream => Kind::ServerStream,
                KindSpec::ClientStream => Kind::ClientStream,
                KindSpec::BidiStream => Kind::BidiStream,
                KindSpec::Subscribe => Kind::Subscribe,
            };
        }
        self.command(&mut terms.push, options.push, path, "push");
        self.stream(&mut terms.stream, options, path);
        if let Some(deadline) = options.deadline {
            let deadline = self.span(deadline, path, "deadline");
            if terms.kind.is_stream() {
                terms.stream_deadline = Some(deadline);
            } else {
                terms.deadline = deadline;
            }
        }
        if let Some(max_request) = options.max_request {
            let max_frame = self.around.limits.max_frame;
            if max_request > max_frame {
                let problem = format_args!(
                    "{max_request} is more than a frame can carry, expected at most \
                     limits.max_frame, {max_frame}"
                );
                self.faults.add(&format!("{path}.max_request"), &problem);
            }
            terms.max_request = max_request;
        }
        if let Some(codec) = options.codec {
            terms.codec = match codec {
                CodecSpec::Protobuf => Codec::Protobuf,
                CodecSpec::Bytes => Codec::Bytes,
            };
        }
        if let Some(compress) = options.compress_reply {
            if compress && !self.around.compression {
                let problem = "the layout has no \"compression\", leave this key out";
                self.faults.add(&format!("{path}.compress_reply"), &problem);
            }
            terms.compress_reply = compress;
        }
        if let Some(idempotent) = options.idempotent {
            if !self.around.to_server {
                let problem = "it belongs to the direction \"egress\", leave this key out";
                self.faults.add(&format!("{path}.idempotent"), &problem);
            }
            terms.idempotent = idempotent;
        }
        if options.login.is_some() || options.roles.is_some() || options.claims.is_some() {
            terms.access = Rc::new(self.access(&terms.access, options, path));
        }
        if let Some(metadata) = options.metadata {
            let mut all = Vec::clone(&terms.metadata);
            for (name, value) in &metadata.0 {
                self.check_metadata(name, value, path);
                all.retain(|(other, _)| other != name);
                all.push((name.clone(), value.clone()));
            }
            terms.metadata = Rc::new(all);
        }
        terms
    }

    /// Refuses a stream that a client could not tell from what else it gets.
    pub fn check_stream(&mut self, terms: &Terms, options: Options<'_>, path: &str) {
        let kind = terms.kind;
        let pushes = kind == Kind::ServerStream || kind == Kind::BidiStream;
        if kind.stays_open() && (self.around.to_server || self.around.relay.is_some()) {
            let problem = "a client's streams do not reach private servers, expected \"unary\", \
                           \"one_way\" or a stream of the server's";
            self.faults.add(&format!("{path}.kind"), &problem);
        } else if terms.kind == Kind::Subscribe && !self.around.to_server {
            let problem = "it belongs to the direction \"egress\", expected \"unary\", \"one_way\", \
                           \"server_stream\", \"client_stream\" or \"bidi_stream\"";
            self.faults.add(&format!("{path}.kind"), &problem);
        } else if (pushes || kind.stays_open()) && self.around.in_order {
            let problem = "the layout has no sequence to tell a stream's messages by, expected \
                           \"unary\" or \"one_way\"";
            self.faults.add(&format!("{path}.kind"), &problem);
        } else if pushes && terms.push.is_none() && options.push.is_none() {
            let problem = "a stream's messages need a command of their own, such as \"push\": 1200";
            self.faults.add(path, &problem);
        } else if !pushes && options.push.is_some() {
            let problem = "only a stream pushes, expected \"kind\": \"server_stream\" beside it";
            self.faults.add(&format!("{path}.push"), &problem);
        }
        for (key, written, known) in [
            ("send", options.send.is_some(), terms.stream.send.is_some()),
            ("close", options.close.is_some(), terms.stream.close.is_some()),
            ("when_full", options.when_full.is_some(), true),
        ] {
            if kind.stays_open() && !known && !written {
                let problem = format_args!(
                    "a client's stream needs a command to {key} with, such as \"{key}\": 1300"
                );
                self.faults.add(path, &problem);
            } else if !kind.stays_open() && written {
                let problem = "only a client's stream has it, expected \"kind\": \
                               \"client_stream\" or \"bidi_stream\" beside it";
                self.faults.add(&format!("{path}.{key}"), &problem);
            }
        }
        if options.stream_idle.is_some() && (!kind.is_stream() || self.around.to_server) {
            let problem = "only a stream of the direction \"ingress\" has it, leave this key out";
            self.faults.add(&format!("{path}.stream_idle"), &problem);
        }
    }

    /// What holds for streams, if something was written about them.
    fn stream(&mut self, terms: &mut Rc<StreamTerms>, options: Options<'_>, path: &str) {
        let Options { send, close, when_full, stream_idle, .. } = options;
        if send.is_none() && close.is_none() && when_full.is_none() && stream_idle.is_none() {
            return;
        }
        let stream = Rc::make_mut(terms);
        self.command(&mut stream.send, send, path, "send");
        self.command(&mut stream.close, close, path, "close");
        if let Some(when_full) = when_full {
            stream.pauses = when_full == WhenFull::Pause;
        }
        if let Some(idle) = stream_idle {
            stream.idle = Some(self.span(idle, path, "stream_idle"));
        }
    }

    fn command(
        &mut self,
        place: &mut Option<OwnedCommand>,
        written: Option<&CommandSpec>,
        path: &str,
        key: &str,
    ) {
        match written.map(|spec| spec.resolve(self.around.shape)) {
            Some(Ok(command)) => *place = Some(command),
            Some(Err(problem)) => self.faults.add(&format!("{path}.{key}"), &problem),
            None => {}
        }
    }

    /// A time from a millisecond to a day.
    fn span(&mut self, written: Span, path: &str, key: &str) -> Duration {
        let (least, day) = (Span::from_millis(1), Span::from_millis(86_400_000));
        if let Err(problem) = written.within(least, day) {
            self.faults.add(&format!("{path}.{key}"), &problem);
        }
        written.get()
    }

    fn access(&mut self, inherited: &Access, options: Options<'_>, path: &str) -> Access {
        let mut access = inherited.clone();
        match options.login {
            Some(LoginRule::NotRequired) => access = Access::default(),
            Some(LoginRule::Required) => access.login = true,
            None => {}
        }
        if access.login && !self.around.logins {
            let problem = "nobody logs in with the session mode \"none\", leave this key out";
            self.faults.add(&format!("{path}.login"), &problem);
        }
        for (key, present) in
            [("roles", options.roles.is_some()), ("claims", options.claims.is_some())]
        {
            if present && !self.around.logins {
                let problem =
                    format!("nobody has {key} with the session mode \"none\", leave this key out");
                self.faults.add(&format!("{path}.{key}"), &problem);
            } else if present && !access.login {
                let problem = format_args!(
                    "nobody has {key} before the login, set \"login\": \"required\" or leave \
                     this key out"
                );
                self.faults.add(&format!("{path}.{key}"), &problem);
            }
        }
        if let Some(roles) = options.roles {
            for (index, role) in roles.iter().enumerate() {
                if role.is_empty() {
                    self.faults.add(&format!("{path}.roles[{index}]"), &"a role has a name");
                }
            }
            access.roles = roles.iter().map(|role| role.as_str().into()).collect();
        }
        if let Some(claims) = options.claims {
            access.claims.clear();
            for (name, values) in &claims.0 {
                if values.is_empty() {
                    let problem = "no value would do, expected at least one";
                    self.faults.add(&format!("{path}.claims.{name}"), &problem);
                }
                let values = values.iter().map(|value| value.as_str().into()).collect();
                access.claims.insert(name.as_str().into(), values);
            }
        }
        access
    }

    fn check_metadata(&mut self, name: &str, value: &str, path: &str) {
        let path = format!("{path}.metadata.{name}");
        let checked = metadata::check_text_name(name).and_then(|()| metadata::check_value(value));
        if let Err(problem) = checked {
            self.faults.add(&path, &problem);
        } else if self.around.field_names.contains(&name) {
            let problem = format_args!("{name:?} is the name of a header field's metadata already");
            self.faults.add(&path, &problem);
        }
    }

    pub fn with_command_metadata(
        &mut self,
        mut terms: Terms,
        name: Option<&str>,
        path: &str,
    ) -> Terms {
        let Some(name) = name else { return terms };
        let path = format!("{path}.command_metadata");
        if let Err(problem) = metadata::check_text_name(name) {
            self.faults.add(&path, &problem);
        } else if terms.metadata.iter().any(|(other, _)| other == name)
            || self.around.field_names.contains(&name)
        {
            self.faults.add(&path, &format_args!("{name:?} is the name of other metadata already"));
        }
        terms.command_metadata = Some(name.into());
        terms
    }
}
