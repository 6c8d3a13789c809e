//! The 61 fields that both sides know from the start (RFC 7541 appendix A).

/// Field number `i` is at `i - 1`: indices on the wire begin with 1.
pub const FIELDS: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The field of an index on the wire, 1 to 61.
pub fn field(index: usize) -> Option<(&'static str, &'static str)> {
    FIELDS.get(index.checked_sub(1)?).copied()
}

/// What the table has for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Name and value; the index says it all.
    Field(usize),
    /// The name alone.
    Name(usize),
}

/// Looks for a field; the first index of a name that occurs several times. It walks the table:
/// for blocks that are encoded once, not for every call.
pub fn find(name: &str, value: &[u8]) -> Option<Match> {
    let named = || (1usize..).zip(FIELDS).filter(|(_, field)| field.0 == name);
    named()
        .find(|(_, field)| field.1.as_bytes() == value)
        .map(|(index, _)| Match::Field(index))
        .or_else(|| named().next().map(|(index, _)| Match::Name(index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_the_rfc() {
        assert_eq!(field(0), None);
        assert_eq!(field(1), Some((":authority", "")));
        assert_eq!(field(8), Some((":status", "200")));
        assert_eq!(field(16), Some(("accept-encoding", "gzip, deflate")));
        assert_eq!(field(31), Some(("content-type", "")));
        assert_eq!(field(58), Some(("user-agent", "")));
        assert_eq!(field(61), Some(("www-authenticate", "")));
        assert_eq!(field(62), None);
    }

    #[test]
    fn fields_are_found_whole_or_by_name() {
        assert_eq!(find(":method", b"POST"), Some(Match::Field(3)));
        assert_eq!(find(":method", b"PUT"), Some(Match::Name(2)));
        assert_eq!(find(":path", b"/a.B/C"), Some(Match::Name(4)));
        assert_eq!(find("te", b"trailers"), None);
    }
}
