//! The protocols that a bridge can join: acceptors on the caller's side, initiators on the callee's.

pub mod grpc;
pub mod layout;
