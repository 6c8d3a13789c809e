//! The header block of a gRPC request.
//!
//! What does not change from call to call is encoded once, as the [`Head`] of a route: three parts,
//! so that an upstream remembers what the routes have in common only once. The client's identity
//! is a fourth; what differs in each call (a trace) is appended as further literals. All of it
//! goes to [`ClientLeg::start`](super::client::ClientLeg::start).
//!
//! Source: "Requests" in gRPC's PROTOCOL-HTTP2.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::hpack::{Part, PartKey, encoder, static_table};

/// A field that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// Not `/package.Service/Method` in visible ASCII.
    Path,
    /// Not a host, with or without port, in visible ASCII.
    Authority,
    /// Not of gRPC's alphabet: lower-case letters, digits, `-`, `_`, `.`.
    Name,
    /// HTTP/2 or gRPC itself owns the name.
    Reserved,
    /// Not printable ASCII, or with a space at an end.
    Value,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "a method is written /package.Service/Method",
            Self::Authority => "an authority is a host in visible ASCII, with or without port",
            Self::Name => "a metadata name consists of lower-case letters, digits, '-', '_', '.'",
            Self::Reserved => "the metadata name belongs to HTTP/2 or to gRPC",
            Self::Value => "a metadata value is printable ASCII without space at its ends",
        })
    }
}

impl std::error::Error for FieldError {}

/// The start of a route's blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    route: u16,
    /// Comes first, so that the parts after it need not be cut in two: `:path` has to stand
    /// before what is no pseudo-header field.
    path: Box<[u8]>,
    common: Rc<[u8]>,
    terms: (u16, Rc<[u8]>),
}

/// Makes heads; what they have in common is held once.
#[derive(Clone, Debug)]
pub struct Heads {
    common: Rc<[u8]>,
    /// The latest of the different terms.
    terms: Vec<(u16, Rc<[u8]>)>,
    /// How many different ones there were.
    count: u16,
}

/// The keys of parts, by kind.
const PATHS: u32 = 0;
const TERMS: u32 = 1 << 16;
const COMMON: PartKey = PartKey(2 << 16);
const ANONYMOUS: PartKey = PartKey(3 << 16);
const NAMED: PartKey = PartKey((3 << 16) | 1);

impl Heads {
    /// How many different terms are compared with the next: those that are equal stand together
    /// in a table.
    const COMPARED: usize = 16;

    pub fn new(authority: &str) -> Result<Self, FieldError> {
        if authority.is_empty() || !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FieldError::Authority);
        }
        let mut block = Vec::with_capacity(128);
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", concat!("meshgate/", env!("CARGO_PKG_VERSION"))),
        ] {
            encoder::encode_shortest(name, value.as_bytes(), &mut block);
        }
        Ok(Self { common: block.into(), terms: Vec::new(), count: 0 })
    }

    /// The head of a route. `path` is the full method, `/package.Service/Method`; each call of the
    /// route carries the metadata and says how long it may take, if that is limited.
    pub fn head<'m>(
        &mut self,
        route: u16,
        path: &str,
        metadata: impl IntoIterator<Item = (&'m str, &'m str)>,
        timeout: Option<Duration>,
    ) -> Result<Head, FieldError> {
        if !is_full_method(path) {
            return Err(FieldError::Path);
        }
        let mut field = Vec::new();
        encoder::encode_shortest(":path", path.as_bytes(), &mut field);
        let mut block = Vec::new();
        for (name, value) in metadata {
            MetadataName::new(name)?.encode(value.as_bytes(), &mut block)?;
        }
        if let Some(timeout) = timeout {
            encode_timeout(timeout, &mut block);
        }
        let terms = self.intern(&block);
        Ok(Head { route, path: field.into(), common: Rc::clone(&self.common), terms })
    }

    fn intern(&mut self, block: &[u8]) -> (u16, Rc<[u8]>) {
        if let Some(terms) = self.terms.iter().find(|(_, known)| **known == *block) {
            return terms.clone();
        }
        let terms: (u16, Rc<[u8]>) = (self.count, block.into());
        // There are no more terms than routes, whose numbers have 16 bits.
        self.count = self.count.saturating_add(1);
        if self.terms.len() >= Self::COMPARED {
            self.terms.remove(0);
        }
        self.terms.push(terms.clone());
        terms
    }
}

impl Head {
    pub fn parts(&self) -> [Part<'_>; 3] {
        let (terms, fields) = &self.terms;
        [
            Part { key: PartKey(PATHS | u32::from(self.route)), fields: &self.path },
            Part { key: COMMON, fields: &self.common },
            Part { key: PartKey(TERMS | u32::from(*terms)), fields },
        ]
    }
}

/// The fields that tell who calls. A connection's client is anonymous until a login names it, and
/// there is one login at most.
pub fn identity_part(is_anonymous: bool, fields: &[u8]) -> Part<'_> {
    Part { key: if is_anonymous { ANONYMOUS } else { NAMED }, fields }
}

/// A name under which metadata may be sent. Checked once, so that only values are to be checked
/// in each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataName {
    name: Box<str>,
    /// Its index, if the static table knows it.
    index: Option<usize>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// Credentials: no intermediary may put them into a table.
    Secret,
    /// `-bin`: any bytes, sent as base64.
    Binary,
}

impl MetadataName {
    pub fn new(name: &str) -> Result<Self, FieldError> {
        let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(FieldError::Name);
        }
        if is_reserved(name) {
            return Err(FieldError::Reserved);
        }
        let form = match name {
            "authorization" | "cookie" | "proxy-authorization" => Form::Secret,
            _ if name.ends_with("-bin") => Form::Binary,
            _ => Form::Text,
        };
        let index = static_table::find(name, b"").map(|found| match found {
            static_table::Match::Field(index) | static_table::Match::Name(index) => index,
        });
        Ok(Self { name: name.into(), index, form })
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Appends the field. The value of a `-bin` name may be any bytes; others are refused, and
    /// nothing is written, if they could be taken for something else on the way.
    pub fn encode(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), FieldError> {
        match (self.form, self.index) {
            (Form::Binary, _) => {
                encoder::encode_literal(self.name.as_bytes(), &base64(value), out);
                return Ok(());
            }
            _ if !is_text(value) => return Err(FieldError::Value),
            (Form::Secret, _) => encoder::encode_secret(self.name.as_bytes(), value, out),
            (Form::Text, Some(index)) => encoder::encode_named(index, value, out),
            (Form::Text, None) => encoder::encode_literal(self.name.as_bytes(), value, out),
        }
        Ok(())
    }
}

/// Appends `grpc-timeout`: at most eight digits and a unit, rounded up.
pub fn encode_timeout(timeout: Duration, out: &mut Vec<u8>) {
    let (count, unit) = timeout_parts(timeout);
    // Digits from the right, then the unit behind them.
    let mut text = [0u8; 9];
    let mut first = 8usize;
    let mut left = count;
    for (place, digit) in text.iter_mut().enumerate().take(8).rev() {
        *digit = b'0'.saturating_add((left % 10) as u8);
        first = place;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if let Some(last) = text.last_mut() {
        *last = unit;
    }
    encoder::encode_literal(b"grpc-timeout", text.get(first..).unwrap_or_default(), out);
}

/// A count of at most eight digits, and the finest unit that allows it.
///
/// In 64 bits throughout: 128-bit division is slow in Wasm, and this runs for every call.
fn timeout_parts(timeout: Duration) -> (u32, u8) {
    const MOST: u64 = 99_999_999;
    let seconds = timeout.as_secs();
    let nanos = timeout.subsec_nanos();
    let fine = |per_second: u64, nanos_each: u32| {
        let whole = seconds.saturating_mul(per_second);
        whole.saturating_add(u64::from(nanos.div_ceil(nanos_each)))
    };
    let up = seconds.saturating_add(u64::from(nanos > 0));
    let candidates: [(u64, u8); 5] = [
        (fine(1_000_000, 1_000), b'u'),
        (fine(1_000, 1_000_000), b'm'),
        (up, b'S'),
        (up.div_ceil(60), b'M'),
        (up.div_ceil(3600), b'H'),
    ];
    let (count, unit) =
        candidates.into_iter().find(|(count, _)| *count <= MOST).unwrap_or((MOST, b'H'));
    (u32::try_from(count).unwrap_or(u32::MAX), unit)
}

fn is_full_method(path: &str) -> bool {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'))
    else {
        return false;
    };
    let named = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    named(service) && named(method)
}

/// Names whose meaning is fixed: a field of the caller's under one of them would contradict ours
/// or break the framing.
fn is_reserved(name: &str) -> bool {
    name.starts_with("grpc-")
        || matches!(
            name,
            "connection"
                | "content-length"
                | "content-type"
                | "host"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "user-agent"
        )
}

fn is_text(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~'))
        && value.first() != Some(&b' ')
        && value.last() != Some(&b' ')
}

/// Standard alphabet, no padding, as gRPC wants binary metadata.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for group in bytes.chunks(3) {
        let byte = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = [bits >> 18, bits >> 12, bits >> 6, bits];
        for digit in digits.into_iter().take(group.len().saturating_add(1)) {
            out.extend(ALPHABET.get((digit & 0x3f) as usize));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::hpack::Decoder;

    fn fields(block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        Decoder::new(0)
            .decode(block, |name, value| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                fields.push(format!("{}: {}", text(name), text(value)));
            })
            .unwrap();
        fields
    }

    #[test]
    fn a_head_has_what_grpc_wants_in_its_order() {
        let mut heads = Heads::new("world:8080").unwrap();
        let second = Some(Duration::from_secs(1));
        let head = heads.head(7, "/game.v1.World/Move", [("x-realm", "7")], second).unwrap();
        let agent = concat!("user-agent: meshgate/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            fields(&head.parts().map(|part| part.fields).concat()),
            [
                ":path: /game.v1.World/Move",
                ":method: POST",
                ":scheme: http",
                ":authority: world:8080",
                "te: trailers",
                "content-type: application/grpc",
                agent,
                "x-realm: 7",
                "grpc-timeout: 1000000u",
            ]
        );
    }

    #[test]
    fn equal_parts_have_equal_keys_and_others_do_not() {
        let mut heads = Heads::new("world").unwrap();
        let second = Some(Duration::from_secs(1));
        let mut head = |route, metadata: &'static [(&str, &str)], timeout| {
            heads.head(route, "/a.B/C", metadata.iter().copied(), timeout).unwrap()
        };
        let made: Vec<Head> = vec![
            head(0, &[], second),
            head(1, &[], second),
            head(2, &[("a", "b")], second),
            head(3, &[], Some(Duration::from_secs(2))),
            head(4, &[], second),
        ];
        let keys = |part: usize| made.iter().map(move |head| head.parts()[part].key.0);
        assert_eq!(keys(0).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(keys(1).all(|key| key == COMMON.0));
        assert_eq!(keys(2).map(|key| key - TERMS).collect::<Vec<_>>(), [0, 0, 1, 2, 0]);
        for number in 0..40u64 {
            let timeout = Duration::from_secs(number);
            let head = heads.head(9, "/a.B/C", [], Some(timeout)).unwrap();
            let mut block = Vec::new();
            encode_timeout(timeout, &mut block);
            assert_eq!(head.parts()[2].fields, block);
        }
        assert_eq!(heads.terms.len(), Heads::COMPARED);
        let unlimited = heads.head(9, "/a.B/C", [], None).unwrap();
        assert_eq!(unlimited.parts()[2].fields, b"");
        assert_ne!(identity_part(true, b"").key, identity_part(false, b"").key);
    }

    #[test]
    fn wrong_paths_and_authorities_are_refused() {
        for path in ["", "/", "a/b", "/a", "//b", "/a/", "/a b/c", "/a/b\r\n", "/ä/b"] {
            let head = Heads::new("x").unwrap().head(0, path, [], None);
            assert_eq!(head, Err(FieldError::Path), "{path:?}");
        }
        for authority in ["", "a b", "a\0"] {
            assert_eq!(Heads::new(authority).err(), Some(FieldError::Authority));
        }
    }

    #[test]
    fn timeouts_have_at_most_eight_digits_and_never_promise_less() {
        let text = |timeout| {
            let mut out = Vec::new();
            encode_timeout(timeout, &mut out);
            fields(&out).remove(0)
        };
        assert_eq!(text(Duration::ZERO), "grpc-timeout: 0u");
        assert_eq!(text(Duration::from_nanos(1)), "grpc-timeout: 1u");
        assert_eq!(text(Duration::from_millis(250)), "grpc-timeout: 250000u");
        assert_eq!(text(Duration::from_micros(99_999_999)), "grpc-timeout: 99999999u");
        assert_eq!(text(Duration::from_micros(100_000_001)), "grpc-timeout: 100001m");
        assert_eq!(text(Duration::from_secs(100_000)), "grpc-timeout: 100000S");
        assert_eq!(text(Duration::from_secs(6_000_000_000)), "grpc-timeout: 1666667H");
        assert_eq!(text(Duration::from_secs(100_000_001)), "grpc-timeout: 1666667M");
        assert_eq!(text(Duration::MAX), "grpc-timeout: 99999999H");
    }

    #[test]
    fn names_that_are_not_the_callers_are_refused() {
        for name in ["", "X-Realm", "a b", "a:b", ":path", "ä", "a\n"] {
            assert_eq!(MetadataName::new(name), Err(FieldError::Name), "{name:?}");
        }
        for name in ["te", "host", "connection", "grpc-timeout", "grpc-x", "content-type"] {
            assert_eq!(MetadataName::new(name), Err(FieldError::Reserved), "{name:?}");
        }
    }

    #[test]
    fn values_that_could_be_taken_for_something_else_are_refused_whole() {
        let name = MetadataName::new("x-user").unwrap();
        let mut out = Vec::new();
        for value in ["a\r\nb: c", "a\0", " a", "a ", "ä", "\x7f"] {
            assert_eq!(name.encode(value.as_bytes(), &mut out), Err(FieldError::Value));
        }
        assert!(out.is_empty());
        name.encode(b"a b~", &mut out).unwrap();
        name.encode(b"", &mut out).unwrap();
        assert_eq!(fields(&out), ["x-user: a b~", "x-user: "]);
    }

    #[test]
    fn credentials_are_never_indexed_and_binary_values_are_base64() {
        let mut out = Vec::new();
        MetadataName::new("authorization").unwrap().encode(b"Bearer x", &mut out).unwrap();
        assert_eq!(out[0], 0x10);
        out.clear();
        let name = MetadataName::new("x-claims-bin").unwrap();
        for value in [&b""[..], b"\0", b"\xff\xfe", b"\xfb\xef\xbe", b"four"] {
            name.encode(value, &mut out).unwrap();
        }
        assert_eq!(
            fields(&out),
            [
                "x-claims-bin: ",
                "x-claims-bin: AA",
                "x-claims-bin: //4",
                "x-claims-bin: ++++",
                "x-claims-bin: Zm91cg",
            ]
        );
    }

    #[test]
    fn a_name_of_the_static_table_is_sent_by_index() {
        let mut out = Vec::new();
        MetadataName::new("via").unwrap().encode(b"x", &mut out).unwrap();
        assert_eq!(out, b"\x0f\x2d\x01x");
    }
}
