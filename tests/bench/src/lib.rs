//! The benchmark: what MeshGate costs, beside what it replaces and what it is built on.
//!
//! ```text
//!   generator ──────────────────────────────────────> private server    direct-tcp
//!   generator ──> Envoy: tcp_proxy ─────────────────> private server    envoy-tcp
//!   generator ──> Envoy: filter, tcp_proxy ─────────> gRPC server       meshgate-direct
//!   generator ──> Envoy: filter, internal HTTP ─────> gRPC server       meshgate-routed
//!   generator ──> bridge process ──> Envoy: HTTP ───> gRPC server       native-bridge
//!   generator (gRPC) ──> Envoy: HTTP ───────────────> gRPC server       envoy-grpc
//!   generator (gRPC) ───────────────────────────────> gRPC server       grpc-server
//! ```
//!
//! Generator and servers are as lean as they can be, because on a small machine they share the
//! cores with what is measured: one thread, one read and one write for all that is ready
//! ([`meshgate_game::reactor`]), requests made by patching a template.

pub mod bench;
pub mod bridge;
pub mod chart;
pub mod companion;
pub mod crowd;
pub mod echo;
pub mod envoy;
pub mod grpc_client;
pub mod grpc_server;
pub mod histogram;
pub mod http2;
pub mod leg;
pub mod load;
pub mod login;
pub mod machine;
pub mod process;
pub mod report;
pub mod run;
pub mod scenario;
