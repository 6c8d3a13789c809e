//! What can go wrong, told apart by who said it.

use std::io;

/// The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("input or output: {0}")]
    Io(#[from] io::Error),
    #[error("the server sent bytes that are no frame: {0}")]
    NotAFrame(&'static str),
    #[error("the server sent a frame that does not open: {0}")]
    Seal(&'static str),
    #[error("the server closed the connection{}", .goodbye.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Closed {
        /// The text of the goodbye frame, if there was one.
        goodbye: Option<String>,
    },
    #[error("login refused with status {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("handshake: {0}")]
    Handshake(String),
    #[error("the frame is longer than the layout allows")]
    TooLong,
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server, or MeshGate on its behalf, answered with an error frame.
    #[error("status {status}: {text}")]
    Status { status: u16, text: String },
    /// The connection ended before the answer came.
    #[error("the connection closed{}", .goodbye.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Closed { goodbye: Option<String> },
    #[error("the reply's body does not decompress")]
    Compression,
    #[error("the request is longer than the layout allows")]
    TooLong,
}

impl CallError {
    /// The status of an error frame.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}
