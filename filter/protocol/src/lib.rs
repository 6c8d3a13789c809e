//! The protocols that the filter joins: acceptors on the caller's side, initiators on the
//! callee's, and the neutral call between them.
//!
//! Knows bytes alone: no configuration but a layout's, no session, no Envoy. Compiled for speed,
//! as every byte of a connection passes here; the rest of the filter is compiled for size.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod call;
pub mod error;
pub mod grpc;
pub mod layout;
