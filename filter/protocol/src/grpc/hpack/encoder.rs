//! Header fields to bytes, without state and without Huffman coding.
//!
//! Strings go out as they are: a block is encoded once and sent many times, and the reader of
//! plain strings has less to do.

use super::integer;
use super::static_table::{self, Match};

/// A field of the static table as a whole: [`static_table::FIELDS`], from 1.
pub fn encode_indexed(index: usize, out: &mut Vec<u8>) {
    integer::encode(index, 7, 0x80, out);
}

/// Any field, name and value in full, not to be indexed.
pub fn encode_literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0x00);
    string(name, out);
    string(value, out);
}

/// A field whose name is in the static table, not to be indexed.
pub fn encode_named(index: usize, value: &[u8], out: &mut Vec<u8>) {
    integer::encode(index, 4, 0x00, out);
    string(value, out);
}

/// The beginning of a literal that the peer is to remember: its name's index in the static table,
/// or 0 if the name itself follows.
pub fn encode_name_remembered(index: usize, out: &mut Vec<u8>) {
    integer::encode(index, 6, 0x40, out);
}

/// The size of the dynamic table from here on, within what the peer allows. It stands before a
/// block's first field.
pub fn encode_table_size(size: usize, out: &mut Vec<u8>) {
    integer::encode(size, 5, 0x20, out);
}

/// A field whose value no intermediary may put into a table either: credentials
/// (RFC 7541 section 7.1.3).
pub fn encode_secret(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0x10);
    string(name, out);
    string(value, out);
}

/// A field in the shortest form that the static table allows; it searches the table.
pub fn encode_shortest(name: &str, value: &[u8], out: &mut Vec<u8>) {
    match static_table::find(name, value) {
        Some(Match::Field(index)) => encode_indexed(index, out),
        Some(Match::Name(index)) => encode_named(index, value, out),
        None => encode_literal(name.as_bytes(), value, out),
    }
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer::encode(text.len(), 7, 0x00, out);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        out
    }

    /// RFC 7541 appendices C.2.1 to C.2.4.
    #[test]
    fn the_examples_of_the_rfc() {
        let custom = encoded(|out| {
            encode_name_remembered(0, out);
            string(b"custom-key", out);
            string(b"custom-header", out);
        });
        assert_eq!(custom, b"\x40\x0acustom-key\x0dcustom-header");
        let path = encoded(|out| encode_named(4, b"/sample/path", out));
        assert_eq!(path, b"\x04\x0c/sample/path");
        let password = encoded(|out| encode_secret(b"password", b"secret", out));
        assert_eq!(password, b"\x10\x08password\x06secret");
        assert_eq!(encoded(|out| encode_indexed(2, out)), [0x82]);
    }

    #[test]
    fn the_static_table_shortens_what_it_knows() {
        assert_eq!(encoded(|out| encode_shortest(":method", b"POST", out)), [0x83]);
        let kind = encoded(|out| encode_shortest("content-type", b"application/grpc", out));
        assert_eq!(kind, b"\x0f\x10\x10application/grpc");
        let te = encoded(|out| encode_shortest("te", b"trailers", out));
        assert_eq!(te, b"\x00\x02te\x08trailers");
    }
}
