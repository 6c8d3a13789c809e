//! A connection in either direction: what the host calls, whoever calls whom.

use std::rc::Rc;

use crate::bridge::{Bridge, Ending, Terms};
use crate::companion::Answer;
use crate::companion::push::{Delivery, Leave, NotPushed};
use crate::egress::Egress;
use crate::time::Moment;
use crate::worker::Worker;

/// One connection. The methods are those of [`Bridge`], which says what they mean.
pub enum Connection {
    Ingress(Box<Bridge>),
    Egress(Box<Egress>),
}

use Connection::{Egress as ToServer, Ingress as ToService};

impl Connection {
    pub fn new(id: u32, terms: &Rc<Terms>, now: Moment, peer: String, worker: &mut Worker) -> Self {
        match Egress::new(terms, now, &peer, worker) {
            Some(egress) => ToServer(Box::new(egress)),
            None => ToService(Box::new(Bridge::new(id, Rc::clone(terms), now, peer, worker))),
        }
    }

    pub fn opens_at_once(&self) -> bool {
        match self {
            ToService(bridge) => bridge.opens_at_once(),
            ToServer(_) => true,
        }
    }

    pub fn wants_input(&self) -> bool {
        match self {
            ToService(bridge) => bridge.wants_input(),
            ToServer(_) => false,
        }
    }

    pub fn holds_rest(&self) -> bool {
        match self {
            ToService(bridge) => bridge.holds_rest(),
            ToServer(_) => false,
        }
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        match self {
            ToService(bridge) => bridge.poll_timeout(),
            ToServer(egress) => egress.poll_timeout(),
        }
    }

    pub fn poll_close(&self, now: Moment) -> bool {
        match self {
            ToService(bridge) => bridge.poll_close(now),
            ToServer(egress) => egress.poll_close(now),
        }
    }

    pub fn handle_downstream(
        &mut self,
        now: Moment,
        data: &[u8],
        end: bool,
        worker: &mut Worker,
    ) -> usize {
        match self {
            ToService(bridge) => bridge.handle_downstream(now, data, end, worker),
            ToServer(egress) => {
                egress.handle_downstream(now, data, end, worker);
                data.len()
            }
        }
    }

    pub fn handle_upstream(&mut self, now: Moment, data: &[u8], end: bool, worker: &mut Worker) {
        match self {
            ToService(bridge) => bridge.handle_upstream(now, data, end, worker),
            ToServer(egress) => egress.handle_upstream(now, data, end, worker),
        }
    }

    pub fn handle_companion(&mut self, now: Moment, answer: Answer, worker: &mut Worker) {
        if let ToService(bridge) = self {
            bridge.handle_companion(now, answer, worker);
        }
    }

    pub fn handle_push(&mut self, now: Moment, delivery: &Delivery, worker: &mut Worker) {
        match self {
            ToService(bridge) => bridge.handle_push(now, delivery, worker),
            // It has no session that could be pushed to.
            ToServer(_) => worker.link.pushed(delivery.ticket, Err(NotPushed::Gone)),
        }
    }

    pub fn handle_leave(&mut self, now: Moment, leave: &Leave, worker: &mut Worker) {
        if let ToService(bridge) = self {
            bridge.handle_leave(now, leave, worker);
        }
    }

    pub fn handle_timeout(&mut self, now: Moment, worker: &mut Worker) {
        match self {
            ToService(bridge) => bridge.handle_timeout(now, worker),
            ToServer(egress) => egress.handle_timeout(now, worker),
        }
    }

    pub fn handle_ending(&mut self, now: Moment, ending: Ending) {
        match self {
            ToService(bridge) => bridge.handle_ending(now, ending),
            ToServer(egress) => egress.handle_ending(ending),
        }
    }

    pub fn handle_closed(&mut self, now: Moment, worker: &mut Worker) -> Option<String> {
        match self {
            ToService(bridge) => bridge.handle_closed(now, worker),
            ToServer(egress) => egress.handle_closed(now, worker),
        }
    }

    pub fn upstream_output(&mut self) -> &[u8] {
        match self {
            ToService(bridge) => bridge.upstream_output(),
            ToServer(egress) => egress.upstream_output(),
        }
    }

    pub fn wants_resume(&self) -> bool {
        match self {
            ToService(bridge) => bridge.wants_resume(),
            ToServer(egress) => egress.wants_resume(),
        }
    }

    pub fn upstream_output_sent(&mut self, worker: &mut Worker) {
        match self {
            ToService(bridge) => bridge.upstream_output_sent(worker),
            ToServer(egress) => egress.upstream_output_sent(worker),
        }
    }

    pub fn client_output(&mut self) -> &[u8] {
        match self {
            ToService(bridge) => bridge.client_output(),
            ToServer(egress) => egress.client_output(),
        }
    }

    pub fn client_output_sent(&mut self, now: Moment, worker: &mut Worker) {
        match self {
            ToService(bridge) => bridge.client_output_sent(now, worker),
            ToServer(egress) => egress.client_output_sent(now, worker),
        }
    }

    pub fn take_rest(&mut self) -> Vec<u8> {
        match self {
            ToService(bridge) => bridge.take_rest(),
            ToServer(_) => Vec::new(),
        }
    }

    pub fn take_cluster(&mut self) -> Option<Box<str>> {
        match self {
            ToService(bridge) => bridge.take_cluster(),
            ToServer(_) => None,
        }
    }
}
