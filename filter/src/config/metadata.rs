//! Which metadata a configuration may give to a call. Names that say who calls, where from, or
//! how the call is carried are made by the filter alone.

use crate::session::identity::RESERVED_PREFIX;

const PREFIXES: [(&str, &str); 4] = [
    (RESERVED_PREFIX, "names under \"x-meshgate-\" are the filter's own word about the client"),
    ("x-envoy-", "names under \"x-envoy-\" steer Envoy"),
    ("x-forwarded-", "names under \"x-forwarded-\" say where a call comes from"),
    ("grpc-", "names under \"grpc-\" belong to gRPC itself"),
];

const NAMES: [(&str, &str); 16] = [
    ("authorization", "a credential does not come from a configuration or a header field"),
    ("connection", "it belongs to HTTP/1"),
    ("content-encoding", "the filter sets it"),
    ("content-length", "the filter sets it"),
    ("content-type", "the filter sets it"),
    ("cookie", "a credential does not come from a configuration or a header field"),
    ("host", "the key \"upstream.authority\" sets it"),
    ("keep-alive", "it belongs to HTTP/1"),
    ("proxy-authorization", "a credential does not come from a configuration or a header field"),
    ("proxy-connection", "it belongs to HTTP/1"),
    ("te", "the filter sets it"),
    ("traceparent", "the key \"identity.traceparent\" sets it"),
    ("trailer", "it belongs to HTTP/1"),
    ("transfer-encoding", "it belongs to HTTP/1"),
    ("upgrade", "it belongs to HTTP/1"),
    ("user-agent", "the filter sets it"),
];

/// The longest name and the longest value, in bytes: heads are kept for every command.
const NAME_MAX: usize = 128;
const VALUE_MAX: usize = 1024;

/// Whether `name` may be given to a call; else what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_name_byte) {
        return Err(format!(
            "{name:?} is not a metadata name, expected lower-case letters, digits, \"-\", \"_\" \
             and \".\", at most {NAME_MAX}"
        ));
    }
    let prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    let exact = NAMES.iter().find(|(reserved, _)| name == *reserved);
    match prefix.or(exact) {
        Some((_, why)) => Err(format!("{name:?} is reserved: {why}")),
        None => Ok(()),
    }
}

/// Whether `name` may be given to a call with a value that is text.
pub fn check_text_name(name: &str) -> Result<(), String> {
    check_name(name)?;
    if name.ends_with("-bin") {
        return Err(format!("{name:?} would carry binary data, expected a name without \"-bin\""));
    }
    Ok(())
}

/// Whether `value` may be the value of metadata; else what is wrong with it.
pub fn check_value(value: &str) -> Result<(), String> {
    if value.len() > VALUE_MAX {
        return Err(format!("the value has {} bytes, expected at most {VALUE_MAX}", value.len()));
    }
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || value.trim() != value {
        return Err(format!(
            "{value:?} is not a metadata value, expected printable ASCII without outer spaces"
        ));
    }
    Ok(())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_filter_or_the_transport_own_are_refused() {
        let refused = [
            ":path",
            "",
            "X-Game",
            "x game",
            "x-meshgate-user",
            "x-envoy-retry-on",
            "grpc-timeout",
            "x-forwarded-for",
            "authorization",
            "te",
            "content-type",
            "connection",
            "x\n",
        ];
        for name in refused {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["x-game", "x_game.v1", "x-token-bin", "meshgate"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn reserved_names_are_sorted_so_that_none_is_there_twice() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn values_cannot_smuggle_control_bytes() {
        for value in ["a\r\nb", "a\0", "\u{7f}", "é", " a", "a "] {
            assert!(check_value(value).is_err(), "{value:?}");
        }
        assert_eq!(check_value("demo one"), Ok(()));
        assert!(check_value(&"a".repeat(1025)).is_err());
    }
}
