//! Each way of saying how long a frame is.

use super::*;

#[test]
fn each_count_counts_what_it_says() {
    // The command (1 byte), the length (2), a body of 3, a trailer of 1.
    let trailer = json!([{ "name": "end", "type": "u8", "role": { "constant": 0xee } }]);
    let written = |counts: &str, adjust| {
        let header = json!([length("len", "u16", counts, adjust)]);
        request(&layout_of(header, trailer.clone()), b"abc", &[])
    };
    assert_eq!(written("frame", 0), hex("01 0007 616263 ee"));
    assert_eq!(written("frame", -4), hex("01 0003 616263 ee"));
    assert_eq!(written("after", 0), hex("01 0004 616263 ee"));
    assert_eq!(written("after", 2), hex("01 0006 616263 ee"));
    assert_eq!(written("body", 0), hex("01 0003 616263 ee"));
    assert_eq!(written("body", 1), hex("01 0004 616263 ee"));
}

#[test]
fn headers_and_extensions_are_counted() {
    let written = |counts: &str, adjust| {
        let header = json!([length("head", "u8", counts, adjust), length("len", "u8", "body", 0)]);
        request(&layout_of(header, json!([])), b"abc", &[0xe1, 0xe2])
    };
    assert_eq!(written("header", 0), hex("01 05 03 e1e2 616263"));
    assert_eq!(written("header", -3), hex("01 02 03 e1e2 616263"));
    assert_eq!(written("extension", 0), hex("01 02 03 e1e2 616263"));
}

#[test]
fn several_body_lengths_add_up_and_the_first_is_written() {
    let header = json!([length("a", "u8", "body", 0), length("b", "u8", "body", 0)]);
    let layout = layout_of(header, json!([]));
    assert_eq!(request(&layout, b"abc", &[]), hex("01 03 00 616263"));
    let bytes = hex("01 01 02 616263");
    assert_eq!(whole(&layout, &bytes).body, b"abc");
}

#[test]
fn a_whole_that_is_not_the_sum_of_its_parts_is_refused() {
    let header = json!([length("all", "u8", "frame", 0), length("len", "u8", "body", 0)]);
    let layout = layout_of(header, json!([]));
    assert_eq!(request(&layout, b"ab", &[]), hex("01 05 02 6162"));
    assert_eq!(
        refused(&layout, &hex("01 06 02 6162")),
        FrameError::LengthMismatch { whole: 6, parts: 5 }
    );
}

#[test]
fn lengths_at_the_ends_of_their_range_neither_wrap_nor_wait() {
    let most = u64::MAX;
    let refuses = |counts: &str, adjust, said: u64| {
        let layout = layout_of(json!([length("len", "u64", counts, adjust)]), json!([]));
        let mut bytes = vec![1];
        bytes.extend(said.to_be_bytes());
        refused(&layout, &bytes)
    };
    for counts in ["frame", "after", "body"] {
        for adjust in [0, 1, -1] {
            let adjust = if counts == "frame" { adjust } else { adjust.max(0) };
            for said in [most, most - 8, most - 9, most / 2, 1 << 32, (1 << 32) + 20] {
                let error = refuses(counts, adjust, said);
                assert_eq!(error.reason(), "frame_too_large", "{counts} {adjust} {said}");
            }
        }
    }
    assert_eq!(refuses("frame", 0, 8), FrameError::LengthTooSmall { len: 8, least: 9 });
    assert_eq!(refuses("frame", 20, 19), FrameError::LengthTooSmall { len: 19, least: 20 });
    assert_eq!(refuses("after", 3, 2), FrameError::LengthTooSmall { len: 2, least: 3 });
}

#[test]
fn a_sum_of_lengths_above_64_bits_is_too_large() {
    let header = json!([
        length("x", "u64", "extension", 0),
        length("y", "u64", "extension", 0),
        length("a", "u64", "body", 0),
        length("b", "u64", "body", 0)
    ]);
    let layout = layout_of(header, json!([]));
    let bytes = [&[1][..], &[0xff; 32]].concat();
    assert_eq!(refused(&layout, &bytes), FrameError::TooLarge { len: u64::MAX, max: MAX as u64 });
}

#[test]
fn a_signed_length_below_zero_is_refused() {
    let layout = layout_of(json!([length("len", "i16", "body", 0)]), json!([]));
    assert_eq!(request(&layout, b"a", &[]), hex("01 0001 61"));
    assert_eq!(refused(&layout, &hex("01 fffe")), FrameError::NegativeLength { len: -2 });
    let body = vec![0; 32_768];
    let body = [&*body];
    let error = layout
        .encode_request(Request::new(Command::Number(1), 0, &body), None, &mut Vec::new())
        .unwrap_err();
    assert_eq!(error.to_string(), "32768 does not fit \"len\"");
}

#[test]
fn the_limit_on_frames_is_exact() {
    let layout = layout_of(json!([length("len", "u16", "frame", 0)]), json!([]));
    let bytes = request(&layout, &[7; 97], &[]);
    assert!(matches!(layout.decode(&bytes, 100), Ok(Decoded::Frame(_))));
    assert_eq!(layout.decode(&bytes, 99).unwrap_err(), FrameError::TooLarge { len: 100, max: 99 });
    // Not even the header fits.
    assert_eq!(layout.decode(&[1], 2).unwrap_err(), FrameError::TooLarge { len: 3, max: 2 });
}

#[test]
fn an_extension_is_repeated_only_where_the_layout_says_so() {
    let header = json!([length("head", "u8", "header", 0), length("len", "u8", "body", 0)]);
    let layout = layout_of(header, json!([]));
    let frame = request(&layout, b"abc", &[0xe1]);
    let seed = layout.seed(&whole(&layout, &frame));
    let mut out = Vec::new();
    let reply = crate::layout::Reply { status: 3, error: true, body: &[], compress: false };
    layout.encode_reply(&seed, reply, None, &mut out).unwrap();
    assert_eq!(out, hex("01 03 00"), "and a status that has no place is left out");
}

#[test]
fn the_longest_body_is_the_longest_that_can_be_written() {
    let trailer = json!([{ "name": "end", "type": "u8" }]);
    for (counts, adjust) in [("frame", 0), ("frame", 7), ("after", 0), ("body", 0), ("body", 9)] {
        let header = json!([length("len", "u16", counts, adjust), { "name": "x", "type": "u32" }]);
        let layout = layout_of(header, trailer.clone());
        let most = usize::try_from(layout.max_body()).unwrap();
        for (len, fits) in [(most, true), (most + 1, false)] {
            let body = [&*vec![0; len]];
            let request = Request::new(Command::Number(1), 0, &body);
            let written = layout.encode_request(request, None, &mut Vec::new());
            assert_eq!(written.is_ok(), fits, "{counts} {adjust}: {len} bytes");
        }
    }
    assert_eq!(shipped("chat").max_body(), u64::MAX - (1 + 12 + 10 + 17));
}
