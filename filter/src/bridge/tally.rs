//! What one connection did, for its line in the log.

use std::fmt::Write as _;

use crate::session::SessionId;
use crate::time::Moment;

#[derive(Debug)]
pub struct Tally {
    opened: Moment,
    reason: Option<&'static str>,
    pub calls: u64,
    pub errors: u64,
    pub pushes: u64,
    pub frames_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub session: Option<SessionId>,
    pub user: Option<String>,
    /// The companion has been told of the session's end.
    pub session_ended: bool,
}

impl Tally {
    pub const fn new(opened: Moment) -> Self {
        Self {
            opened,
            reason: None,
            calls: 0,
            errors: 0,
            pushes: 0,
            frames_in: 0,
            bytes_in: 0,
            bytes_out: 0,
            session: None,
            user: None,
            session_ended: false,
        }
    }

    /// Notes why the connection ends; the first reason counts.
    pub fn end(&mut self, reason: &'static str) {
        self.reason.get_or_insert(reason);
    }

    pub fn reason(&self) -> &'static str {
        self.reason.unwrap_or("closed")
    }

    /// One line of `key=value` pairs. It names the user and the session, nothing secret.
    pub fn line(&self, now: Moment, peer: &str) -> String {
        let mut line = format!(
            "meshgate: connection closed reason={} peer={} duration_ms={} calls={} errors={} \
             pushes={} frames_in={} bytes_in={} bytes_out={}",
            self.reason(),
            peer,
            now.since(self.opened).as_millis(),
            self.calls,
            self.errors,
            self.pushes,
            self.frames_in,
            self.bytes_in,
            self.bytes_out,
        );
        if let Some(session) = self.session {
            let _ = write!(line, " session={session}");
        }
        if let Some(user) = &self.user {
            let _ = write!(line, " user={user:?}");
        }
        line
    }
}
