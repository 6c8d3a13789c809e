//! Lengths that a peer states and that four bytes cannot count, or barely.

use meshgate_filter::protocol::layout::{Decoded, FrameError, Layout};
use meshgate_filter::transcode::wrapped;
use wasm_bindgen_test::wasm_bindgen_test;

/// A layout whose lengths are these fields, and a command of one byte.
fn layout(lengths: &str) -> Layout {
    let json = format!(
        r#"{{"name": "long", "header": [{lengths},
            {{"name": "command", "type": "u8", "role": "command"}}], "correlation": "order"}}"#
    );
    Layout::from_json(&json).unwrap()
}

fn length(name: &str, kind: &str, counts: &str, adjust: i64) -> String {
    format!(
        r#"{{"name": "{name}", "type": "{kind}",
            "role": {{"length": {{"counts": "{counts}", "adjust": {adjust}}}}}}}"#
    )
}

/// What the largest frame may have: what is configured, and all that a machine could count.
const LIMITS: [usize; 3] = [65_536, 64 << 20, usize::MAX];

fn is_too_large(layout: &Layout, bytes: &[u8], limit: usize) -> bool {
    matches!(layout.decode(bytes, limit), Err(FrameError::TooLarge { .. }))
}

#[wasm_bindgen_test]
fn a_length_near_the_32nd_bit_is_too_large_and_never_wraps() {
    for (counts, adjust) in [
        ("frame", 0),
        ("frame", -4),
        ("frame", 9),
        ("after", 0),
        ("after", -1),
        ("body", 0),
        ("body", 3),
        ("body", 7),
    ] {
        let layout = layout(&length("length", "u32", counts, adjust));
        for below in 0..12 {
            let stated = (u32::MAX - below).to_be_bytes();
            let bytes = [&stated[..], &[7; 64]].concat();
            for limit in &LIMITS[..2] {
                assert!(is_too_large(&layout, &bytes, *limit), "{counts} {adjust} -{below}");
            }
            // Without a limit it is never there.
            let decoded = layout.decode(&bytes, usize::MAX);
            assert!(!matches!(decoded, Ok(Decoded::Frame(_))), "{counts} {adjust} -{below}");
        }
    }
}

#[wasm_bindgen_test]
fn a_length_beyond_the_32nd_bit_is_not_cut_to_its_low_bits() {
    for kind in ["u64", "varint"] {
        let layout = layout(&length("length", kind, "body", 0));
        for low in [0_u64, 1, 2, 100] {
            for high in [1_u64, 2, 0x7fff_ffff, 0xffff_ffff] {
                let stated = high << 32 | low;
                let mut bytes = match kind {
                    "u64" => stated.to_be_bytes().to_vec(),
                    _ => varint(stated),
                };
                bytes.extend([7; 200]);
                for limit in LIMITS {
                    assert!(is_too_large(&layout, &bytes, limit), "{kind} {stated:#x} {limit}");
                }
            }
        }
    }
}

#[wasm_bindgen_test]
fn lengths_that_add_up_to_more_than_32_bits_are_too_large() {
    let lengths =
        [length("of_head", "u32", "header", 0), length("of_body", "u32", "body", 0)].join(",");
    let layout = layout(&lengths);
    for (head, body) in [(u32::MAX, u32::MAX), (9, u32::MAX), (u32::MAX, 0), (1 << 31, 1 << 31)] {
        let bytes = [&head.to_be_bytes()[..], &body.to_be_bytes(), &[7; 64]].concat();
        for limit in &LIMITS[..2] {
            assert!(is_too_large(&layout, &bytes, *limit), "{head} + {body}");
        }
        assert!(!matches!(layout.decode(&bytes, usize::MAX), Ok(Decoded::Frame(_))));
    }
}

#[wasm_bindgen_test]
fn a_text_whose_length_has_more_than_32_bits_is_too_long() {
    let layout = Layout::from_json(
        r#"{"name": "text", "header": [
            {"name": "length", "type": "u16", "role": {"length": {"counts": "frame"}}},
            {"name": "command", "role": "command",
             "type": {"sized_text": {"length": "varint", "max": 64}}}],
            "correlation": "order"}"#,
    )
    .unwrap();
    for stated in [1 << 32, (1 << 32) + 3, u64::MAX, u64::from(u32::MAX)] {
        let bytes = [&[0, 40][..], &varint(stated), &[b'x'; 60]].concat();
        let decoded = layout.decode(&bytes, 65_536);
        assert!(matches!(decoded, Err(FrameError::TextTooLong { .. })), "{stated:#x} {decoded:?}");
    }
}

#[wasm_bindgen_test]
fn a_protobuf_field_that_is_longer_than_its_message_is_none() {
    for stated in [1 << 32, (1 << 32) + 4, u64::MAX, u64::from(u32::MAX), 5] {
        let message = [&[0x0a][..], &varint(stated), b"body"].concat();
        assert_eq!(wrapped::unwrap(&message), None, "{stated:#x}");
    }
    assert_eq!(wrapped::unwrap(b"\x0a\x04body"), Some(&b"body"[..]));
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
