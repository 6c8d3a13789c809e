//! What a session's steps come to where they do not simply succeed.

use std::fmt;

use crate::call::{Code, Status};

use super::identity::IdentityError;
use super::login::Hold;

/// Why a frame may not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The command asks for a login.
    LoginFirst,
    /// A login is under way: keep the frame and ask again when it is decided.
    NotYet,
    /// The client has none of the roles, or lacks a claim, that the command asks for.
    NotAllowed,
    /// The session has ended.
    Over,
}

impl Denied {
    pub fn status(self) -> Status {
        match self {
            Self::LoginFirst => Status::new(Code::Unauthenticated, "log in first"),
            Self::NotYet => Status::new(Code::Unavailable, "login is under way"),
            Self::NotAllowed => Status::new(Code::PermissionDenied, "not allowed"),
            Self::Over => Status::new(Code::Unauthenticated, "the session has ended"),
        }
    }
}

/// A time that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// No login frame came.
    Login,
    /// No frame came after the login.
    FirstFrame,
}

impl Expired {
    pub fn status(self) -> Status {
        Status::new(
            Code::Unauthenticated,
            match self {
                Self::Login => "no login in time",
                Self::FirstFrame => "no frame after the login in time",
            },
        )
    }
}

/// What a login that the companion accepted still failed on. The client may try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// Something about the client cannot be told to a service.
    Identity(IdentityError),
    /// Keys in mode `ticket`, or none in mode `noise`: the companion's mistake.
    Keys,
    /// No login is under way. The caller's mistake.
    NotLoggingIn,
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => error.fmt(f),
            Self::Keys => f.write_str("the companion's keys do not match the login mode"),
            Self::NotLoggingIn => f.write_str("no login is under way"),
        }
    }
}

impl std::error::Error for AcceptError {}

/// A body that opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'b> {
    pub body: &'b mut [u8],
    /// Set by the first genuine frame: the session that the companion has to activate. Keep the
    /// frame, and take no further one, until it has answered.
    pub activate: Option<Hold>,
}
