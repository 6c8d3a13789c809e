//! What a login is made of: its mode, its limits, and how it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::call::{Code, Status};

use super::identity::MetadataPolicy;
use super::seal::TrafficKeys;

/// How clients of a listener log in. Fixed by its configuration: nothing that a client sends
/// can change it, so nothing can be negotiated down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody logs in: for trusted networks.
    None,
    /// The login frame's body is the credential; frames stay as they are.
    Ticket,
    /// A Noise handshake; every frame after it is sealed.
    Noise,
}

/// What a listener's configuration says about logins.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// From the connection's start to its login frame.
    pub login_within: Duration,
    /// From the login's reply to the client's first sealed frame.
    pub first_frame_within: Duration,
    /// The longest login message, in bytes.
    pub max_login_bytes: usize,
    pub metadata: MetadataPolicy,
}

impl Settings {
    /// Long enough for a client on a slow line that shows a login screen first; short enough
    /// that connections which say nothing do not pile up.
    pub const LOGIN_WITHIN: Duration = Duration::from_secs(10);
    /// A client has its first frame ready; this is for its line.
    pub const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(10);
    /// A credential of 8 KiB and the handshake around it: what the companion takes.
    pub const MAX_LOGIN_BYTES: usize = 8 * 1024 + 512;

    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            login_within: Self::LOGIN_WITHIN,
            first_frame_within: Self::FIRST_FRAME_WITHIN,
            max_login_bytes: Self::MAX_LOGIN_BYTES,
            metadata: MetadataPolicy::default(),
        }
    }
}

/// Names a session, among all of a companion's; given by the companion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; Self::LEN]);

impl SessionId {
    pub const LEN: usize = 16;

    /// `None` unless `bytes` are exactly 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        <[u8; Self::LEN]>::try_from(bytes).ok().map(Self)
    }

    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// 32 lower-case hexadecimal digits, as logs and `x-meshgate-session` show it.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One connection's hold on a session, which may go on over another connection, on another worker
/// or on this one: only with its number is it clear which connection is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    pub session: SessionId,
    pub number: u64,
}

/// The companion let a client in.
pub struct Accepted {
    pub session: SessionId,
    /// The number of this connection's hold on it.
    pub hold: u64,
    /// The session is pending until the client's first frame, as it always is in mode `noise`.
    pub activate: bool,
    /// The login reply frame's body. In mode `ticket` it holds the secret of a resume token.
    pub reply: Vec<u8>,
    pub user: String,
    pub claims: BTreeMap<String, String>,
    pub roles: Vec<String>,
    /// In mode `noise` alone.
    pub keys: Option<TrafficKeys>,
}

impl Accepted {
    pub const fn hold(&self) -> Hold {
        Hold { session: self.session, number: self.hold }
    }
}

/// Neither the reply, nor what the credential says.
impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("hold", &self.hold())
            .field("user", &self.user)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Why a login did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Credential or handshake wrong: forged, unknown, for another audience.
    Unauthenticated,
    /// The credential was good once.
    Expired,
    /// Good or not, nobody could tell in time: come again.
    TryAgain,
    /// Nobody knows yet: come back with the cookie that the text is.
    ComeBack,
    /// The login message does not parse, speaks another version, or is too long.
    Malformed,
    /// A login on a connection that has logged in, or is about to.
    Repeated,
}

impl Refusal {
    /// A stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unauthenticated => "refused",
            Self::Expired => "expired",
            Self::TryAgain => "try_again",
            Self::ComeBack => "cookie",
            Self::Malformed => "malformed",
            Self::Repeated => "repeated",
        }
    }

    /// What the refusal is called in the login reply's status.
    pub const fn code(self) -> Code {
        match self {
            Self::Unauthenticated | Self::Expired => Code::Unauthenticated,
            Self::TryAgain => Code::Unavailable,
            Self::ComeBack => Code::Aborted,
            Self::Malformed => Code::InvalidArgument,
            Self::Repeated => Code::FailedPrecondition,
        }
    }

    /// What the client is told where the companion says nothing of its own.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unauthenticated => "login refused",
            Self::Expired => "the credential has expired",
            Self::ComeBack | Self::TryAgain => "login is not possible right now, try again",
            Self::Malformed => "the login message is not valid",
            Self::Repeated => "already logged in",
        }
    }

    /// The refusal as a status, with `text` in place of the usual one unless it is empty.
    pub fn status(self, text: &str) -> Status {
        Status::new(self.code(), if text.is_empty() { self.text() } else { text })
    }
}
