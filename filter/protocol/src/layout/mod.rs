//! Frame layouts: private binary protocols described in configuration.
//!
//! ```text
//!   JSON -> spec::LayoutSpec -> compile -> plan::Layout -> decode, encode
//! ```
//!
//! A layout names the fields of a header in the order of the wire, the body's compression and
//! a trailer. It is compiled once into a plan. Layouts whose header fields all have a fixed
//! width are read by offset; LEB128 integers and sized text cost a walk over the header.
//! `README.md` beside this file is the reference of the language.

mod checksum;
mod compile;
mod compression;
mod crc;
mod decode;
mod encode;
mod error;
mod frame;
mod initiator;
mod metadata;
mod plan;
mod seed;
mod slot;
pub mod spec;
#[cfg(test)]
mod tests;

pub use encode::{Onward, Stamp};
pub use error::{EncodeError, FrameError, SealError};
pub use frame::{
    Command, Decoded, FieldValue, Flags, Frame, FrameSeal, OwnedCommand, Push, Reply, Request,
};
pub use initiator::Given;
pub use plan::Layout;
pub use seed::ReplySeed;
pub use spec::{Correlation, LayoutSpec};
