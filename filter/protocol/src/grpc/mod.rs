//! gRPC over HTTP/2: the client leg, the server leg, and what they share.
//!
//! ```text
//!   request::Head ─ header fields, encoded once per route ─────┐
//!   bridge ── start / cancel / ring ──▶ client::ClientLeg ── output ──▶ upstream
//!   bridge ◀── Event ── poll ────────── client::ClientLeg ◀── input ─── upstream
//!                                         │ frame, settings, hpack, field
//!   bridge ── respond / finish ───────▶ server::ServerLeg ── output ──▶ caller
//!   bridge ◀── Event ── poll ────────── server::ServerLeg ◀── input ─── caller
//! ```

pub mod client;
mod field;
pub mod frame;
pub mod hpack;
pub mod reason;
pub mod request;
mod resets;
pub mod server;
pub mod settings;
pub mod tunnel;
