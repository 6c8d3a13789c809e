//! The side toward the service: gRPC calls, or the frames of a private server.

use std::rc::Rc;

use crate::protocol::grpc::client::{ClientLeg, Event, StreamId};
use crate::protocol::grpc::reason::LegError;
use crate::relay::Relay;
use crate::time::Moment;

use super::Terms;

#[expect(clippy::large_enum_variant, reason = "most connections have the larger one")]
pub(super) enum Leg {
    Grpc(ClientLeg),
    Private(Box<Relay>),
}

/// What a call is to the leg that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    Grpc(StreamId),
    /// By this sequence; none if the server does not reply to it.
    Private(Option<u64>),
}

/// The methods are those of [`ClientLeg`], which says what they mean.
impl Leg {
    pub fn new(terms: &Rc<Terms>, now: Moment) -> Self {
        match Relay::new(terms, now) {
            Some(relay) => Self::Private(Box::new(relay)),
            None => Self::Grpc(ClientLeg::new(&terms.leg)),
        }
    }

    pub fn relay(&mut self) -> Option<&mut Relay> {
        match self {
            Self::Grpc(_) => None,
            Self::Private(relay) => Some(relay),
        }
    }

    pub fn has_room(&self, terms: &Terms) -> bool {
        match self {
            Self::Grpc(leg) => leg.has_room(),
            Self::Private(relay) => relay.has_room(terms),
        }
    }

    /// A server that is gone takes no calls either, and none has to wait for that.
    pub fn is_draining(&self) -> bool {
        match self {
            Self::Grpc(leg) => leg.is_draining(),
            Self::Private(relay) => relay.server.is_gone(),
        }
    }

    /// The stream of a call that is a gRPC one.
    pub fn stream(&mut self, call: Carried) -> Option<(&mut ClientLeg, StreamId)> {
        match (self, call) {
            (Self::Grpc(leg), Carried::Grpc(stream)) => Some((leg, stream)),
            _ => None,
        }
    }

    pub fn is_full(&self, call: Carried) -> bool {
        match (self, call) {
            (Self::Grpc(leg), Carried::Grpc(stream)) => leg.is_full(stream),
            _ => false,
        }
    }

    pub fn is_sent(&self, call: Carried) -> bool {
        match (self, call) {
            (Self::Grpc(leg), Carried::Grpc(stream)) => leg.is_sent(stream),
            _ => true,
        }
    }

    /// When the server wants to be looked after.
    pub fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Grpc(_) => None,
            Self::Private(relay) => relay.server.poll_timeout(),
        }
    }

    pub fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Grpc(leg) => leg.output(),
            Self::Private(relay) => relay.server.output(),
        }
    }

    pub fn cancel(&mut self, call: Carried, now: Moment) {
        match (self, call) {
            (Self::Grpc(leg), Carried::Grpc(stream)) => leg.cancel(stream),
            (Self::Private(relay), Carried::Private(Some(sequence))) => {
                relay.server.give_up(now, sequence);
            }
            _ => {}
        }
    }

    pub fn upstream_closed(&mut self) {
        match self {
            Self::Grpc(leg) => leg.upstream_closed(),
            Self::Private(relay) => relay.server.closed(),
        }
    }

    /// Of a gRPC service; a private server's events are [`Initiator`](crate::initiator::Initiator)'s.
    pub fn poll<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'a>>, LegError> {
        match self {
            Self::Grpc(leg) => leg.poll(input),
            Self::Private(_) => Ok(None),
        }
    }
}
