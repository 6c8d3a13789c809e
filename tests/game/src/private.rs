//! The private-protocol ancestor of the game: 20-byte frames over TCP, one thread.

mod frame;
mod server;

pub use frame::{Flags, HEADER, Header, MAX_FRAME, command};
pub use server::Server;
