//! The MeshGate companion: what must outlive a connection or be shared between proxies.
//!
//! ```text
//!   proxies ──Attach──▶ service::edge ─┐                       ┌─ domain::credential (ticket, JWT)
//!                                      ├─▶ domain::login ──────┤
//!   operators ─Admin──▶ service::admin ┘       │               └─ domain::handshake (Noise)
//!                                              ▼
//!                                       domain::sessions ──▶ store (redb)
//! ```
//!
//! `service` turns gRPC into calls of `domain` and back; `domain` holds the rules and knows no
//! gRPC; `store` keeps what survives a restart. `cli` is the operator's tool.

pub mod cli;
pub mod domain;
pub mod service;
pub mod store;
