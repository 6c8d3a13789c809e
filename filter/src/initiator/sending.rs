//! What goes to the server.

use std::rc::Rc;

use crate::config::FixedFrame;
use crate::protocol::layout::{Command, FieldValue, Given, Request};
use crate::time::Moment;

use super::{Initiator, Who};

impl Initiator {
    /// The sequence of a call that is asked now. Its frame goes to [`requests`](Self::requests).
    pub fn ask(&mut self, who: Who, command: Command<'_>) -> u64 {
        let reply = Self::layout(&self.terms).reply_key(command);
        self.pending.add(who, reply)
    }

    /// Where request frames are written. They wait there for the login's reply.
    pub fn requests(&mut self) -> &mut Vec<u8> {
        if self.login.is_done() { &mut self.output } else { &mut self.held }
    }

    /// A request frame was written.
    pub const fn asked(&mut self) {
        self.counts.frames_out = self.counts.frames_out.saturating_add(1);
    }

    /// What was to be asked has not been.
    pub fn unask(&mut self, sequence: u64) {
        self.pending.remove(sequence);
    }

    /// Nobody waits for the reply any more. It may still come, and is known for a while.
    pub fn abandon(&mut self, now: Moment, sequence: u64) {
        let late = Self::config(&self.terms).map(|server| server.late_reply_timeout);
        self.pending.abandon(sequence, now.after(late.unwrap_or_default()));
    }

    /// The same, and the server is told, if it has a command for that.
    pub fn give_up(&mut self, now: Moment, sequence: u64) {
        self.abandon(now, sequence);
        let terms = Rc::clone(&self.terms);
        let Some(cancel) = Self::config(&terms).and_then(|server| server.cancel.as_ref()) else {
            return;
        };
        if self.gone {
            return;
        }
        let request = Request { one_way: true, ..Request::new(cancel.borrow(), sequence, &[]) };
        if Self::layout(&terms).encode_request(request, None, self.requests()).is_ok() {
            self.asked();
        }
    }

    /// Sends a frame of the filter's own.
    pub(super) fn send_own(&mut self, frame: &FixedFrame, who: Option<Who>) {
        let terms = Rc::clone(&self.terms);
        let fields: Vec<(&str, FieldValue<'_>)> = frame.fields.iter().map(Given::field).collect();
        let command = frame.command.borrow();
        let sequence = who.map_or(0, |who| self.ask(who, command));
        let parts = [&*frame.body];
        let request = Request { fields: &fields, ..Request::new(command, sequence, &parts) };
        match Self::layout(&terms).encode_request(request, None, &mut self.output) {
            Ok(()) => self.asked(),
            Err(error) => {
                self.pending.remove(sequence);
                log::warn!("meshgate: a frame to the server cannot be written: {error}");
            }
        }
    }

    /// Hands the tunnel what is to go through it. To be called after every input.
    pub fn fill_tunnel(&mut self) {
        let Some(tunnel) = &mut self.tunnel else { return };
        if std::mem::take(&mut self.drops_server) {
            tunnel.close();
        }
        if !self.output.is_empty() && tunnel.open() {
            tunnel.send(&self.output);
        }
        self.output.clear();
    }

    /// Bytes for the upstream. Whoever takes them clears the vector.
    pub fn output(&mut self) -> &mut Vec<u8> {
        match &mut self.tunnel {
            Some(tunnel) => tunnel.output(),
            None => &mut self.output,
        }
    }
}
