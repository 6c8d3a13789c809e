//! Whether this proxy goes away. Envoy does not tell a network filter, so a page of the proxy is
//! looked at; see `drain.watch`.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proxy_wasm::hostcalls;

use crate::companion::push::Leave;
use crate::config::DrainConfig;
use crate::config::drain::WatchConfig;
use crate::time::Moment;

/// A page of the same proxy answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// What it answers when the proxy goes away.
const GOING_AWAY: &[u8] = b"503";
/// In a row: a single one may come from a connection that could not be made.
const ENOUGH: u32 = 2;
const REASON: &str = "this proxy goes away, come back";

#[derive(Default)]
pub struct Watch {
    next: Cell<Option<Moment>>,
    /// It has said that the proxy is to be used: what never did is no such page, or cannot be
    /// reached from this thread.
    was_ready: Cell<bool>,
    /// Answers in a row that say otherwise.
    away: Cell<u32>,
    /// What clients are told, once the proxy goes away.
    leave: RefCell<Option<Leave>>,
}

impl Watch {
    /// Looks, if it is time to. From the root context alone, which gets the answer.
    pub fn look(&self, now: Moment, watch: &WatchConfig) {
        if self.next.get().is_some_and(|next| now < next) {
            return;
        }
        self.next.set(Some(now.after(watch.interval)));
        let headers = vec![(":method", "GET"), (":path", &*watch.path), (":authority", "meshgate")];
        let looked =
            hostcalls::dispatch_http_call(&watch.cluster, headers, None, vec![], ANSWER_WITHIN);
        if let Err(status) = looked {
            log::debug!("meshgate: cannot look at cluster {:?}: {status:?}", watch.cluster);
        }
    }

    /// An answer came: what clients are to be told, if it says that the proxy goes away.
    pub fn answered(&self, drain: &DrainConfig) -> Option<Leave> {
        let status = hostcalls::get_map_value_bytes(
            proxy_wasm::types::MapType::HttpCallResponseHeaders,
            ":status",
        );
        let status = status.ok().flatten().unwrap_or_default();
        self.was_ready.set(self.was_ready.get() || status == b"200");
        let in_row = if status == GOING_AWAY { self.away.get().saturating_add(1) } else { 0 };
        self.away.set(in_row);
        let goes = self.was_ready.get() && in_row >= ENOUGH;
        let mut leave = self.leave.borrow_mut();
        if goes != leave.is_some() {
            log::info!("meshgate: this proxy {}", if goes { "goes away" } else { "stays" });
            *leave = goes.then(|| Leave {
                reason: REASON.into(),
                spread: drain.watch.as_ref().map_or(Duration::ZERO, |watch| watch.spread),
                within: drain.within,
                ..Leave::default()
            });
        }
        leave.clone()
    }
}
