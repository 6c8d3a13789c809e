//! The MeshGate companion: what must outlive a connection or be shared between proxies.
//!
//! ```text
//!   proxies ──Attach──▶ service::edge ─┐                       ┌─ domain::credential (ticket, JWT)
//!                                      ├─▶ domain::login ──────┤
//!   operators ─Admin──▶ service::admin ┘       │               └─ domain::handshake (Noise)
//!                                              ▼
//!                                       domain::sessions ──▶ store (redb, Redis)
//! ```
//!
//! `service` turns gRPC into calls of `domain` and back; `domain` holds the rules and knows no
//! gRPC; `store` keeps what survives a restart; `login_server` and `jwks` are the ways to what is
//! asked about credentials. `config` is what an operator writes, `metrics` what
//! he sees. `cli` is the operator's tool.

pub mod cli;
pub mod config;
pub mod domain;
pub mod jwks;
pub mod live;
pub mod login_server;
pub mod metrics;
pub mod outbound;
pub mod service;
pub mod store;
