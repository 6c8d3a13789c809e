//! MeshGate's filter: private frames in, gRPC out, inside Envoy.
//!
//! ```text
//!   client bytes -> protocol::layout -> session -> route -> bridge -> protocol::grpc -> service
//!   client bytes <- protocol::layout <- session <---------- bridge <- protocol::grpc <- service
//! ```
//!
//! Everything but `host` is sans-I/O and runs natively: inputs are `handle_*`, outputs are
//! drained by `poll_*` and `take_*`, time and randomness are passed in.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub use meshgate_protocol::{call, error};

/// The protocols that a bridge can join, in a crate of their own.
pub mod protocol {
    pub use meshgate_protocol::{grpc, layout};
}

pub mod bridge;
pub mod companion;
pub mod config;
pub mod connection;
pub mod egress;
#[cfg(target_os = "wasi")]
mod host;
pub mod initiator;
pub mod metrics;
pub mod relay;
pub mod route;
pub mod session;
pub mod time;
pub mod trace;
pub mod transcode;
pub mod worker;
