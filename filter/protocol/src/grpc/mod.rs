//! gRPC over HTTP/2: the client leg, and what a server leg shares with it.
//!
//! ```text
//!   request::Head ─ header fields, encoded once per route ─────┐
//!   bridge ── start / cancel / ring ──▶ client::ClientLeg ── output ──▶ upstream
//!   bridge ◀── Event ── poll ────────── client::ClientLeg ◀── input ─── upstream
//!                                         │ frame, settings, hpack
//! ```

pub mod client;
pub mod frame;
pub mod hpack;
pub mod reason;
pub mod request;
pub mod settings;
