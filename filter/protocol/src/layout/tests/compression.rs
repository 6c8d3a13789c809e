//! Compressed bodies, honest and not.

use super::*;
use crate::layout::Flags;

fn compressing(algorithm: &str) -> Layout {
    let spec = json!({
        "name": "small",
        "header": [
            { "name": "flags", "type": "u8", "role": { "flags": { "compressed": 0 } } },
            length("len", "u32", "body", 0),
            { "name": "command", "type": "u8", "role": "command" }
        ],
        "correlation": "order",
        "compression": { "algorithm": algorithm, "min_bytes": 100 }
    });
    Layout::compile(serde_json::from_value(spec).unwrap()).unwrap()
}

fn open(layout: &Layout, body: &[u8], max: usize) -> Result<Vec<u8>, FrameError> {
    let mut scratch = vec![0xdd; 10];
    layout.open_body(Flags::COMPRESSED, body, max, &mut scratch).map(<[u8]>::to_vec)
}

/// The body of a frame that was written with leave to compress, and whether it is.
fn written(layout: &Layout, body: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let request = Request { compress: true, ..Request::new(Command::Number(1), 0, body) };
    layout.encode_request(request, None, &mut out).unwrap();
    let frame = whole(layout, &out);
    (frame.body.to_vec(), frame.flags.compressed())
}

/// Bytes without any pattern that a compressor finds.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..len).map(|_| next()).collect()
}

const BOTH: [&str; 2] = ["zlib", "lz4"];

#[test]
fn bodies_of_all_sizes_come_back_whatever_came_before() {
    for algorithm in BOTH {
        // One layout, so that a compressor's state is used again.
        let layout = compressing(algorithm);
        for len in [100, 101, 300, 5_000, 70_000, 200_000, 150] {
            let text: Vec<u8> = (0..len).map(|at| (at / 7 % 50) as u8).collect();
            let (head, tail) = text.split_at(len / 3);
            let (body, compressed) = written(&layout, &[head, &[], tail]);
            assert!(compressed && body.len() < len, "{algorithm} {len}");
            assert_eq!(open(&layout, &body, len).unwrap(), text);
            assert_eq!(
                open(&layout, &body, len - 1),
                Err(FrameError::BodyTooLarge { max: len as u64 - 1 })
            );
        }
    }
}

#[test]
fn bodies_that_are_short_or_do_not_shrink_stay_as_they_are() {
    for algorithm in BOTH {
        let layout = compressing(algorithm);
        assert_eq!(written(&layout, &[&[7; 99]]), (vec![7; 99], false));
        assert!(written(&layout, &[&[7; 100]]).1);
        for len in [100, 1_000, 100_000] {
            assert_eq!(written(&layout, &[&noise(len)]), (noise(len), false), "{algorithm}");
        }
        // And the state is sound afterwards.
        assert_eq!(open(&layout, &written(&layout, &[&[7; 500]]).0, 500).unwrap(), [7; 500]);
    }
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    for algorithm in BOTH {
        let layout = compressing(algorithm);
        let (bomb, _) = written(&layout, &[&vec![0; 10_000_000]]);
        assert!(bomb.len() < 50_000, "{algorithm}: {} bytes", bomb.len());
        let mut scratch = Vec::new();
        let opened = layout.open_body(Flags::COMPRESSED, &bomb, 100_000, &mut scratch);
        assert_eq!(opened, Err(FrameError::BodyTooLarge { max: 100_000 }));
        assert!(scratch.capacity() <= 200_002, "{algorithm}: {}", scratch.capacity());
    }
}

#[test]
fn a_size_that_its_lz4_block_cannot_hold_reserves_nothing() {
    let layout = compressing("lz4");
    let mut scratch = Vec::new();
    let body = hex("ffffff00 10 61");
    let opened = layout.open_body(Flags::COMPRESSED, &body, usize::MAX, &mut scratch);
    assert_eq!(opened.unwrap_err().reason(), "bad_compression");
    assert_eq!(scratch.capacity(), 0);
}

#[test]
fn damaged_streams_are_refused() {
    for algorithm in BOTH {
        let layout = compressing(algorithm);
        let text: Vec<u8> = (0..900).map(|at| (at / 9 % 40) as u8).collect();
        let (body, _) = written(&layout, &[&text]);
        for end in 0..body.len() {
            let cut = open(&layout, &body[..end], 900).unwrap_err();
            assert_eq!(cut.reason(), "bad_compression", "{algorithm} cut at {end}");
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(open(&layout, &longer, 900).unwrap_err().reason(), "bad_compression");
        assert!(open(&layout, &noise(300), 900).is_err());
        for at in 0..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 0x41;
            // LZ4 has no checksum of its own, so a literal may change unseen.
            if let Ok(opened) = open(&layout, &damaged, 900) {
                assert_eq!((algorithm, opened.len()), ("lz4", 900), "changed at {at}");
            }
        }
    }
    let layout = compressing("lz4");
    // A size of 6 before a block of 5 literals.
    let short = open(&layout, &hex("06000000 50 6162636465"), 900).unwrap_err();
    assert_eq!(
        short.to_string(),
        "the body does not decompress: the LZ4 block is shorter than the size before it"
    );
}

#[test]
fn plain_bodies_have_the_same_limit() {
    let layout = compressing("zlib");
    let mut scratch = Vec::new();
    assert_eq!(layout.open_body(Flags::NONE, b"abc", 3, &mut scratch), Ok(&b"abc"[..]));
    assert_eq!(
        layout.open_body(Flags::NONE, b"abc", 2, &mut scratch),
        Err(FrameError::BodyTooLarge { max: 2 })
    );
}
