//! Private clients in front of a server that speaks private frames: a request that may pass, and
//! what comes back, without gRPC between.
//!
//! ```text
//!   client -> frames -> session -> command table -> stamp, renumber -> initiator -> private server
//!   client <- frames <- sealer  <------------------ renumber        <- initiator <- private server
//! ```
//!
//! The client's side is the [`Bridge`](crate::bridge::Bridge)'s, the server's the [`Initiator`]'s.
//! Here is what stands between: who the server is told that the client is, and frames that go on
//! in one layout, byte for byte but for what has to differ, or are translated into another.
//!
//! Sequences toward the server are the filter's own. So the client's may repeat as soon as it has
//! its answer, although a reply that is late may still come; and frames of the filter (its heartbeat,
//! its login) are never taken for the client's.

mod identity;
mod request;

use std::rc::Rc;

use crate::bridge::Terms;
use crate::config::{Direction, RelayConfig};
use crate::initiator::Initiator;
use crate::protocol::layout::Stamp;
use crate::time::Moment;

use identity::Stamps;
pub use request::Passing;

/// The side toward the private server of one client.
pub struct Relay {
    pub server: Initiator,
    stamps: Stamps,
}

impl Relay {
    /// `None` if the configuration is for another direction.
    pub fn new(terms: &Rc<Terms>, now: Moment) -> Option<Self> {
        if terms.config.direction != Direction::Relay {
            return None;
        }
        // Late replies must not use up what calls may.
        let max_calls = usize::from(terms.config.limits.max_in_flight).saturating_mul(2);
        let server = Initiator::new(terms, now, max_calls)?;
        Some(Self { server, stamps: Stamps::default() })
    }

    /// One more request may be sent.
    pub fn has_room(&self, terms: &Terms) -> bool {
        self.server.has_room() && self.server.unsent() <= terms.config.limits.max_unsent.get()
    }
}

/// What only this direction has. There is one: `Relay::new` has looked.
pub fn config(terms: &Terms) -> Option<&RelayConfig> {
    terms.config.relay.as_ref()
}

/// What the fields that say who the client is hold on the way to the client.
pub fn blank(terms: &Terms) -> &[Stamp] {
    config(terms).map_or(&[], |relay| &relay.blank)
}

/// Whether frames go on in the layout in which they come.
pub fn is_verbatim(terms: &Terms) -> bool {
    config(terms).is_none_or(|relay| relay.layout.is_none())
}

#[cfg(test)]
mod tests;
