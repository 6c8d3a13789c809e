//! What all tests of layouts share: the shipped layouts, a toy seal, bytes from hexadecimal.

mod battle;
mod chat;
mod checksums;
mod compression;
mod device;
mod game;
mod lengths;
mod properties;
mod random;
mod tcaplus;

use serde_json::{Value as Json, json};

use super::{Command, Decoded, Frame, FrameError, FrameSeal, Layout, Request, SealError};

/// The limit on frames where a test is not about it.
const MAX: usize = 1 << 20;

/// What lies in `envoy-config/layouts`.
pub(super) const SHIPPED: [&str; 5] = ["battle", "chat", "device", "game", "tcaplus"];

#[test]
fn every_shipped_layout_is_tested() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../envoy-config/layouts");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, SHIPPED);
}

/// A layout from `envoy-config/layouts`.
pub(super) fn shipped(name: &str) -> Layout {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../envoy-config/layouts");
    let json = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    let layout = Layout::from_json(&json).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(layout.name(), name);
    layout
}

/// A layout of these header and trailer fields, with a one-byte command before them and
/// replies in order.
pub(super) fn layout_of(header: Json, trailer: Json) -> Layout {
    let mut fields = vec![json!({ "name": "command", "type": "u8", "role": "command" })];
    fields.extend(header.as_array().unwrap().iter().cloned());
    let spec = json!({
        "name": "small",
        "header": fields,
        "trailer": trailer,
        "correlation": "order"
    });
    Layout::compile(serde_json::from_value(spec).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// A field that is a length.
pub(super) fn length(name: &str, kind: &str, counts: &str, adjust: i32) -> Json {
    let role = json!({ "length": { "counts": counts, "adjust": adjust } });
    json!({ "name": name, "type": kind, "role": role })
}

/// A request of command 1, checked to read back.
pub(super) fn request(layout: &Layout, body: &[u8], extension: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let body = [body];
    let request = Request { extension, ..Request::new(Command::Number(1), 0, &body) };
    layout.encode_request(request, None, &mut out).unwrap();
    let frame = whole(layout, &out);
    assert_eq!((frame.body, frame.extension()), (body[0], extension));
    arrives_in_pieces(layout, &out);
    out
}

/// Bytes from hexadecimal digits; blanks are for the eye.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap())
        .collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Decodes input that must be exactly one frame.
pub(super) fn whole<'a>(layout: &Layout, input: &'a [u8]) -> Frame<'a> {
    match layout.decode(input, MAX) {
        Ok(Decoded::Frame(frame)) => {
            assert_eq!(frame.raw.len(), input.len(), "bytes after the frame");
            frame
        }
        other => panic!("no frame: {other:?}"),
    }
}

pub(super) fn refused(layout: &Layout, input: &[u8]) -> FrameError {
    match layout.decode(input, MAX) {
        Err(error) => error,
        Ok(other) => panic!("accepted: {other:?}"),
    }
}

/// Feeds every beginning of a frame: each must ask for more than it has, never for more than
/// the frame is, and be no error.
pub(super) fn arrives_in_pieces(layout: &Layout, input: &[u8]) {
    let mut needs = 0;
    for end in 0..input.len() {
        match layout.decode(&input[..end], MAX) {
            Ok(Decoded::Incomplete { need }) => {
                assert!(need > end, "asks for {need} bytes and has {end}");
                assert!(need <= input.len(), "asks for {need} of {} bytes", input.len());
                assert!(need >= needs, "asks for {need} after {needs}");
                needs = need;
            }
            other => panic!("{end} of {} bytes: {other:?}", input.len()),
        }
    }
    let mut longer = input.to_vec();
    longer.extend_from_slice(input);
    match layout.decode(&longer, MAX) {
        Ok(Decoded::Frame(frame)) => assert_eq!(frame.raw, input),
        other => panic!("with bytes after it: {other:?}"),
    }
}

/// A seal for tests: the body is turned around by XOR, and the tag sums up everything.
pub(super) struct ToySeal;

impl ToySeal {
    const TAG: usize = 3;

    fn tag(associated: &[&[u8]], plain: &[u8]) -> [u8; Self::TAG] {
        let mut sum = 7_u32;
        for byte in associated.iter().flat_map(|part| part.iter()).chain(plain) {
            sum = sum.wrapping_mul(31).wrapping_add(u32::from(*byte));
        }
        [(sum >> 16) as u8, (sum >> 8) as u8, sum as u8]
    }

    /// The plain text of a sealed frame; none if anything was changed.
    pub(super) fn open(layout: &Layout, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let mut associated = Vec::new();
        layout.associated_data(frame, &mut associated);
        let (body, tag) = frame.body.split_at_checked(frame.body.len().checked_sub(Self::TAG)?)?;
        let plain: Vec<u8> = body.iter().map(|byte| byte ^ 0x5a).collect();
        (Self::tag(&[&associated], &plain) == tag).then_some(plain)
    }
}

impl FrameSeal for ToySeal {
    fn overhead(&self) -> usize {
        Self::TAG
    }

    fn seal(&mut self, associated: &[&[u8]], body: &mut [u8]) -> Result<(), SealError> {
        let (plain, tag) = body.split_at_mut(body.len() - Self::TAG);
        tag.copy_from_slice(&Self::tag(associated, plain));
        plain.iter_mut().for_each(|byte| *byte ^= 0x5a);
        Ok(())
    }
}

#[test]
fn a_layout_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Layout>();
}
