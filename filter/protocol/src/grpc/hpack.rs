//! HPACK: header fields as bytes, for both legs.
//!
//! ```text
//! 1xxxxxxx  indexed field                      index in 7 bits
//! 01xxxxxx  literal, to be indexed             name's index in 6 bits, 0: a literal name
//! 001xxxxx  new size of the dynamic table      in 5 bits, only before the first field
//! 0001xxxx  literal, never to be indexed       name's index in 4 bits
//! 0000xxxx  literal, not indexed               name's index in 4 bits
//! ```
//!
//! Fields are encoded once, as literals that are right on any connection; [`PeerTable`] makes
//! short what a connection's peer remembers. Source: RFC 7541.

pub mod decoder;
mod dynamic_table;
pub mod encoder;
mod huffman;
mod integer;
pub mod peer_table;
pub mod static_table;

use std::fmt;

pub use decoder::Decoder;
pub use peer_table::{Part, PartKey, PeerTable};

/// A header block that cannot be read. It ends the connection with COMPRESSION_ERROR, because
/// the two sides no longer agree on what the tables hold (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends in the middle of a field.
    Truncated,
    /// A number above 2^32-1, or written with more bytes than any number needs.
    IntegerTooLarge,
    /// An index that neither table has.
    BadIndex,
    /// A Huffman code that does not exist, or wrong padding after the last one.
    BadHuffman,
    /// A table size above the one that we announced, or not at the front of the block.
    BadTableSize,
}

impl HpackError {
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "header block ends in the middle of a field",
            Self::IntegerTooLarge => "header block with an integer too large",
            Self::BadIndex => "header block with an index that no table has",
            Self::BadHuffman => "header block with wrong Huffman coding",
            Self::BadTableSize => "header block with a table size that was not offered",
        }
    }
}

impl fmt::Display for HpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HpackError {}
