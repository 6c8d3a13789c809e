//! Any bytes, read by any layout: a shipped one, or one that the input itself describes.
//!
//! The input's first byte chooses a shipped layout, or 0xff that the bytes up to the next NUL
//! are a layout's JSON. The rest comes from a peer, in two pieces and whole.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meshgate_filter::protocol::layout::{
    Correlation, Decoded, EncodeError, Frame, Layout, Onward, Reply,
};

/// The limit on frames, and on bodies once they are opened.
const LIMIT: usize = 64 * 1024;

static SHIPPED: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    [
        include_str!("../../../envoy-config/layouts/battle.json"),
        include_str!("../../../envoy-config/layouts/chat.json"),
        include_str!("../../../envoy-config/layouts/device.json"),
        include_str!("../../../envoy-config/layouts/game.json"),
        include_str!("../../../envoy-config/layouts/tcaplus.json"),
    ]
    .map(|json| Layout::from_json(json).expect("a shipped layout"))
    .into()
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else { return };
    if *choice == 0xff {
        let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
        let (json, input) = input.split_at(end);
        let Ok(json) = std::str::from_utf8(json) else { return };
        if let Ok(layout) = Layout::from_json(json) {
            read(&layout, input.get(1..).unwrap_or_default());
        }
    } else {
        read(&SHIPPED[usize::from(*choice) % SHIPPED.len()], input);
    }
});

/// Reads as many frames as there are.
fn read(layout: &Layout, mut input: &[u8]) {
    loop {
        let whole = layout.decode(input, LIMIT);
        // What a part of it says must not contradict the whole.
        let half = &input[..input.len() / 2];
        match (layout.decode(half, LIMIT), &whole) {
            (Ok(Decoded::Incomplete { need }), _) => assert!(need > half.len() && need <= LIMIT),
            (Ok(Decoded::Frame(part)), Ok(Decoded::Frame(all))) => assert_eq!(part.raw, all.raw),
            (Err(_), Err(_)) => {}
            (part, whole) => panic!("{part:?} became {whole:?}"),
        }
        match whole {
            Ok(Decoded::Frame(frame)) => {
                assert!(!frame.raw.is_empty());
                answer(layout, &frame);
                input = &input[frame.raw.len()..];
            }
            Ok(Decoded::Incomplete { need }) => {
                assert!(need > input.len() && need <= LIMIT);
                return;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}

/// Everything that is done with a request.
fn answer(layout: &Layout, frame: &Frame<'_>) {
    let mut scratch = Vec::new();
    if let Ok(body) = layout.open_body(frame.flags, frame.body, LIMIT, &mut scratch) {
        assert!(body.len() <= LIMIT);
    }
    let mut text = Vec::new();
    for (_, value) in layout.metadata(frame) {
        let _ = value.write_ascii(&mut text);
    }
    assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)));
    let mut associated = Vec::new();
    layout.associated_data(frame, &mut associated);
    assert_eq!(associated.len(), frame.header.len() + frame.trailer.len());

    let mut out = Vec::new();
    let reply = Reply { status: 5, error: true, body: &[b"no"], compress: true };
    match layout.encode_reply(&layout.seed(frame), reply, None, &mut out) {
        Ok(()) => match layout.decode(&out, usize::MAX) {
            Ok(Decoded::Frame(reply)) => assert_eq!(reply.sequence, frame.sequence),
            other => panic!("the reply does not read back: {other:?}"),
        },
        // A layout may have too little room for what its replies carry.
        Err(EncodeError::OutOfRange { .. } | EncodeError::TextTooLong { .. }) => {
            assert!(out.is_empty());
        }
        Err(error) => panic!("{error}"),
    }
    pass_on(layout, frame);
}

/// A frame that goes on with another sequence is otherwise the same.
fn pass_on(layout: &Layout, frame: &Frame<'_>) {
    let sequence = frame.sequence ^ 1;
    let onward = Onward { sequence, body: frame.body, one_way: false, stamps: &[] };
    let mut out = Vec::new();
    match layout.encode_onward(frame, onward, None, &mut out) {
        Ok(()) => match layout.decode(&out, usize::MAX) {
            Ok(Decoded::Frame(passed)) => {
                let has_one = layout.correlation() == Correlation::Sequence;
                let expected = if has_one { sequence } else { 0 };
                assert_eq!(passed.sequence, expected);
                assert_eq!((passed.command, passed.status), (frame.command, frame.status));
                assert_eq!((passed.body, passed.extension()), (frame.body, frame.extension()));
            }
            other => panic!("what goes on does not read back: {other:?}"),
        },
        // Written anew, a header can be too long for what says its length.
        Err(EncodeError::OutOfRange { .. }) => assert!(out.is_empty()),
        Err(error) => panic!("{error}"),
    }
}
