//! The terms on which connections are served: the configuration, in the types of the parts that
//! a connection is made of. Made once for each configuration and worker.

use std::rc::Rc;
use std::time::Duration;

use crate::config::{Config, LoginMode};
use crate::protocol::grpc::client::Limits;
use crate::protocol::grpc::server;
use crate::protocol::layout::Command;
use crate::session::rate::Rate;
use crate::session::{Access, MetadataPolicy, Mode, Settings};

#[derive(Debug)]
pub struct Terms {
    pub config: Config,
    pub session: Settings,
    pub leg: Limits,
    /// The same for callers, with the direction `egress`.
    pub callers: Rc<server::Limits>,
    /// How long the companion may take to answer.
    pub answer_within: Duration,
    pub frame_rate: Option<Rate>,
    pub refusal_rate: Option<Rate>,
    pub idle_timeout: Option<Duration>,
    /// How long a client may send nothing at all.
    pub silence: Option<Duration>,
    /// Who may send heartbeats.
    pub signals: Access,
}

impl Terms {
    pub fn new(config: Config) -> Self {
        let limits = &config.limits;
        let login = config.session.login.as_ref();
        let mode = login.map_or(Mode::None, |login| match login.mode {
            LoginMode::Ticket => Mode::Ticket,
            LoginMode::Noise => Mode::Noise,
        });
        let mut session = Settings::new(mode);
        session.metadata = metadata_policy(&config);
        if let Some(login) = login {
            session.login_within = login.timeout;
            session.first_frame_within = login.timeout;
        }
        let rate =
            |per_second: u32, burst: u32| (per_second > 0).then_some(Rate { per_second, burst });
        Self {
            session,
            leg: Limits {
                max_message: limits.max_response.get(),
                max_header_block: limits.max_response_headers.get(),
                max_queued_calls: limits.max_queued.into(),
                max_queued_bytes: limits.max_unsent.get(),
                max_open_bytes: limits.max_stream_unsent.get(),
                max_all_open_bytes: limits.max_unsent.get(),
                ..Limits::default()
            },
            callers: Rc::new(callers(&config)),
            answer_within: login.map_or(Duration::ZERO, |login| login.handshake_timeout),
            frame_rate: rate(limits.frames_per_second, limits.burst()),
            refusal_rate: rate(limits.refusals_per_second, limits.refusals_per_second),
            idle_timeout: limits.idle_timeout.unless_zero(),
            silence: config.heartbeat.as_ref().and_then(|heartbeat| heartbeat.timeout),
            signals: Access { login: login.is_some(), ..Access::default() },
            config,
        }
    }

    /// Whether this is the command of login frames.
    pub fn is_login(&self, command: Command<'_>) -> bool {
        let login = self.config.session.login.as_ref();
        login.is_some_and(|login| login.command.borrow() == command)
    }

    pub fn is_heartbeat(&self, command: Command<'_>) -> bool {
        let heartbeat = self.config.heartbeat.as_ref();
        heartbeat.is_some_and(|heartbeat| heartbeat.command.borrow() == command)
    }

    /// What the session is for.
    pub fn audience(&self) -> &str {
        self.config.session.login.as_ref().map_or("", |login| &login.audience)
    }
}

/// What gRPC callers may take of a connection.
fn callers(config: &Config) -> server::Limits {
    let limits = &config.limits;
    let names = config.layout.metadata_names().map(Into::into).take(255);
    server::Limits {
        max_streams: limits.max_in_flight.into(),
        max_header_block: limits.max_response_headers.get(),
        metadata: names.collect(),
        ..server::Limits::default()
    }
    .valid()
}

fn metadata_policy(config: &Config) -> MetadataPolicy {
    let identity = &config.identity;
    let claims = identity.claims.iter().map(|claim| &claim.claim);
    // The configuration has checked the names by the same rules.
    let mut policy = MetadataPolicy::new(claims).unwrap_or_default();
    policy.peer = identity.peer;
    policy.session = identity.session;
    policy.user = identity.user;
    policy.roles = identity.roles;
    policy
}
