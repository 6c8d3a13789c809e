//! What leaves: bytes upstream and to the client, the bell, the client's half-close.

use crate::metrics::Metric;
use crate::time::Moment;
use crate::worker::{Scratch, Worker};

use super::leg::Leg;
use super::{Bridge, Upstream};

/// How far the client's half-close has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfClose {
    No,
    /// The client sent its last byte; calls are in flight, and get their answers first.
    Waiting,
    /// The next write upstream carries the end.
    Passing,
    Passed,
}

/// # Poll
impl Bridge {
    /// What is to go upstream now. Empty while the upstream is not open, and while calls of a
    /// client that half-closed are in flight: whatever goes upstream then takes the end with it.
    pub fn upstream_output(&mut self) -> &[u8] {
        let speaks = self.upstream == Upstream::Open && self.half_closed != HalfClose::Waiting;
        if speaks { self.leg.output() } else { &[] }
    }

    /// tcp_proxy has to be resumed even if there are no bytes for it.
    pub fn wants_resume(&self) -> bool {
        self.half_closed == HalfClose::Passing
    }

    /// What is to go to the client with the bytes from upstream that are being handled.
    pub fn client_output(&self) -> &[u8] {
        &self.to_client
    }

    /// What `upstream_output` gave is on its way.
    pub fn upstream_output_sent(&mut self, worker: &mut Worker) {
        if self.half_closed == HalfClose::Passing {
            self.half_closed = HalfClose::Passed;
        }
        if self.upstream == Upstream::Open {
            let output = std::mem::take(self.leg.output());
            Scratch::keep(&mut worker.scratch.upstream, output);
        }
    }

    /// What `client_output` gave is on its way.
    pub fn client_output_sent(&mut self, now: Moment, worker: &mut Worker) {
        let output = std::mem::take(&mut self.to_client);
        worker.metrics.add(Metric::BytesOut, output.len() as i64);
        self.tally.bytes_out = self.tally.bytes_out.saturating_add(output.len() as u64);
        Scratch::keep(&mut worker.scratch.client, output);
        if !self.pushes.unsaid.is_empty() {
            self.pushes_said(worker);
        }
        if let Some(closing) = &mut self.closing {
            closing.said(now);
        }
    }

    /// Bytes for the front of Envoy's buffer, where its read limit sees them.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// The cluster that tcp_proxy is to take, once.
    pub fn take_cluster(&mut self) -> Option<Box<str>> {
        self.cluster.take()
    }
}

impl Bridge {
    /// Gives the connection the worker's buffers to write in.
    pub(super) fn lend(&mut self, worker: &mut Worker) {
        let output = self.leg.output();
        if output.capacity() == 0 {
            *output = std::mem::take(&mut worker.scratch.upstream);
        }
        if self.to_client.capacity() == 0 {
            self.to_client = std::mem::take(&mut worker.scratch.client);
        }
        self.calls.lend(&mut worker.scratch.calls);
    }

    /// Rings when something waits for the client that cannot leave by itself.
    pub(super) fn ring(&mut self, now: Moment, worker: &mut Worker) {
        self.reach_server(now);
        let waits = !self.to_client.is_empty() || !self.pushes.is_empty();
        let waits = waits && self.upstream == Upstream::Open;
        if waits && !self.is_answered_soon() {
            let timeout = self.terms.config.limits.bell_timeout.get();
            match &mut self.leg {
                Leg::Grpc(leg) => {
                    let rang = self.bell.ring(leg, now, timeout);
                    worker.metrics.add(Metric::Bells, i64::from(rang));
                }
                Leg::Private(relay) => {
                    relay.server.ring(now, self.calls.last_deadline(), worker);
                }
            }
        }
    }

    /// A service that is going away still owes answers, with which everything else leaves. It
    /// closes after the last of them, and what it has not read by then makes that close a reset,
    /// with which Envoy resets the client's connection too, unsaid words and all.
    fn is_answered_soon(&self) -> bool {
        self.leg.is_draining() && self.calls.len() > self.calls.streams()
    }

    /// After every input: passes a half-close on, and gives back buffers that were not needed.
    pub(super) fn wrap_up(&mut self, worker: &mut Worker) {
        if let Leg::Private(relay) = &mut self.leg {
            relay.server.fill_tunnel();
        }
        if self.half_closed == HalfClose::Waiting && self.calls.is_empty() {
            // What still waits for the client leaves when the service closes in turn.
            self.half_closed = HalfClose::Passing;
        }
        if self.to_client.is_empty() && self.to_client.capacity() > 0 {
            Scratch::keep(&mut worker.scratch.client, std::mem::take(&mut self.to_client));
        }
        self.calls.give_back(&mut worker.scratch.calls);
        let output = self.leg.output();
        if output.is_empty() && output.capacity() > 0 {
            Scratch::keep(&mut worker.scratch.upstream, std::mem::take(output));
        }
    }
}
