//! What holds for header fields in either direction.

/// What SETTINGS_MAX_HEADER_LIST_SIZE counts for each field beyond its bytes
/// (RFC 9113 section 6.5.2).
const OVERHEAD: usize = 32;

/// The size of a field as SETTINGS_MAX_HEADER_LIST_SIZE counts, in bytes.
pub(super) fn size(name: &[u8], value: &[u8]) -> usize {
    name.len().saturating_add(value.len()).saturating_add(OVERHEAD)
}

/// What makes a message with this field malformed (RFC 9113 section 8.2). The field is no
/// pseudo-header field.
pub(super) fn flaw(name: &[u8], value: &[u8]) -> Option<&'static str> {
    if name.iter().any(|byte| matches!(byte, 0..=0x20 | b'A'..=b'Z' | b':' | 0x7f..=0xff)) {
        return Some("header field name with a forbidden character");
    }
    if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Some("header field value with a forbidden character");
    }
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Some("header field of HTTP/1.1 connections")
        }
        _ => None,
    }
}

/// `application/grpc`, and with a format (`application/grpc+proto`) or parameters.
pub(super) fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A number in decimal, of at most so many digits.
pub(super) fn decimal(text: &[u8], most_digits: usize) -> Option<u64> {
    if text.is_empty() || text.len() > most_digits || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
    }))
}
