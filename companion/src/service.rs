//! The companion on the network: tonic adapters around the domain, and what serves them.

pub mod admin;
pub mod app;
pub mod edge;
pub mod exposure;
pub mod incoming;
pub mod outbox;
pub mod peer;
pub mod rights;
pub mod scrape;
pub mod server;
pub mod tls;
