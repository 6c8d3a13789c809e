//! What the connections of one worker share: the link to the companion, the counters, a source
//! of identifiers, and buffers to work in.

use crate::bridge::{Calls, Terms};
use crate::companion::{Link, LinkConfig};
use crate::metrics::Metrics;
use crate::trace::Random;

#[derive(Debug)]
pub struct Worker {
    pub link: Link,
    pub metrics: Metrics,
    pub random: Random,
    pub scratch: Scratch,
}

/// Buffers that one callback after another works in, so that a connection which is idle holds
/// none of its own and a busy one allocates none.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A body that is being opened or decompressed.
    pub body: Vec<u8>,
    pub plain: Vec<u8>,
    /// Associated data of a sealed frame.
    pub associated: Vec<u8>,
    /// The part of a request's header block that differs from call to call.
    pub headers: Vec<u8>,
    /// Lent to a connection for what it has to say upstream, and to the client.
    pub upstream: Vec<u8>,
    pub client: Vec<u8>,
    /// Lent to a connection that has calls.
    pub calls: Calls,
    /// Messages that wait for their status, to be used again.
    pub messages: Vec<Vec<u8>>,
}

impl Scratch {
    /// What a buffer may keep of its size between two callbacks: a worker has a few of them,
    /// a rare large frame should not be held for ever.
    const KEPT: usize = 256 * 1024;

    /// How many message buffers are kept.
    const MESSAGES: usize = 64;

    pub fn message(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.messages.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    pub fn recycle(&mut self, message: Vec<u8>) {
        if self.messages.len() < Self::MESSAGES && message.capacity() <= Self::KEPT / 4 {
            self.messages.push(message);
        }
    }

    /// Takes back a buffer that was lent.
    pub fn keep(slot: &mut Vec<u8>, mut buffer: Vec<u8>) {
        if buffer.capacity() <= Self::KEPT {
            buffer.clear();
            *slot = buffer;
        }
    }
}

impl Worker {
    /// `seed` comes from the host's randomness; `proxy` names the Envoy to the companion.
    pub fn new(terms: &Terms, seed: u64, proxy: String) -> Self {
        let link = LinkConfig {
            answer_within: terms.answer_within,
            max_pending: terms.config.limits.max_pending_logins.into(),
            ..LinkConfig::new(proxy, seed)
        };
        Self {
            link: Link::new(link),
            metrics: Metrics::new(terms.config.routes.len(), terms.config.metrics.commands.into())
                .with_companion(terms.config.companion.is_some()),
            random: Random::new(seed),
            scratch: Scratch::default(),
        }
    }
}
