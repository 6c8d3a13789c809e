//! The filter inside Envoy: the only user of proxy-wasm. Callbacks in, host calls out, no
//! decisions; those are the bridge's and the link's.
//!
//! How bytes leave (seen on Envoy 1.40):
//! - upstream, at any time: the downstream buffer is set to them, `resume_downstream` is
//!   called, and the downstream callback always answers Pause;
//! - to the client, only inside `on_upstream_data`: the bridge rings the upstream's bell.
//!
//! A host call may fail or come late; none of their results is ever unwrapped.

// `proxy_wasm::main!` exports a symbol, which the lint counts as unsafe code.
#![allow(unsafe_code)]

mod connection;
mod metrics;
mod root;
mod timers;
mod watch;

use log::Level;
use proxy_wasm::types::LogLevel;

use root::Root;

proxy_wasm::main! {{
    // Envoy's own log level decides what is printed; this is what is handed to it.
    proxy_wasm::set_log_level(LogLevel::Debug);
    log::set_max_level(Level::Debug.to_level_filter());
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
}}
