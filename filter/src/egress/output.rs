//! What leaves: frames to the server, HTTP/2 to the caller, the caller's half-close.

use crate::bridge::HalfClose;
use crate::metrics::Metric;
use crate::time::Moment;
use crate::worker::Worker;

use super::Egress;

/// What may wait for the caller while the server says nothing, in bytes: answers to what the caller
/// sends are shorter than what they answer, so only one that floods gets here.
const MAX_UNSAID: usize = 1 << 20;

/// # Poll
impl Egress {
    /// What is to go to the server now. Empty while calls of a caller that half-closed are in
    /// flight: whatever goes there then takes the end with it.
    pub fn upstream_output(&mut self) -> &[u8] {
        let speaks = !self.server.is_gone() && self.half_closed != HalfClose::Waiting;
        if speaks { self.server.output() } else { &[] }
    }

    /// tcp_proxy has to be resumed even if there are no bytes for it.
    pub fn wants_resume(&self) -> bool {
        self.half_closed == HalfClose::Passing
    }

    /// What `upstream_output` gave is on its way.
    pub fn upstream_output_sent(&mut self, worker: &mut Worker) {
        if self.half_closed == HalfClose::Passing {
            self.half_closed = HalfClose::Passed;
        }
        let output = self.server.output();
        worker.metrics.add(Metric::BytesOut, output.len() as i64);
        self.tally.bytes_out = self.tally.bytes_out.saturating_add(output.len() as u64);
        keep_little(output);
    }

    /// What is to go to the caller with the bytes from the server that are being handled.
    pub fn client_output(&mut self) -> &[u8] {
        self.leg.output()
    }

    /// What `client_output` gave is on its way.
    pub fn client_output_sent(&mut self, now: Moment, _worker: &mut Worker) {
        keep_little(self.leg.output());
        if let Some(closing) = &mut self.closing {
            closing.said(now);
        }
    }
}

impl Egress {
    /// More waits for the caller than a server that is merely slow explains.
    pub(super) fn is_flooded(&mut self) -> bool {
        self.leg.output().len() > MAX_UNSAID
    }

    /// After every input.
    pub(super) fn wrap_up(&mut self, worker: &mut Worker) {
        self.server.fill_tunnel();
        self.count(worker);
        if self.half_closed == HalfClose::Waiting && self.calls.is_empty() {
            self.half_closed = HalfClose::Passing;
        }
    }
}

/// An idle connection holds little memory for what it has to say.
fn keep_little(output: &mut Vec<u8>) {
    const KEPT: usize = 4096;
    output.clear();
    if output.capacity() > KEPT {
        *output = Vec::new();
    }
}
