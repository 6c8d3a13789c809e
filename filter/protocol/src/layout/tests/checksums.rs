//! What each checksum covers.

use super::*;

fn checksum(name: &str, over: Json, own_bytes: &str) -> Json {
    let checksum = json!({ "algorithm": "crc32", "over": over, "own_bytes": own_bytes });
    json!({ "name": name, "type": "u32", "role": { "checksum": checksum } })
}

/// A frame of command, length, sum, mark (0xaa), an extension of 2, a body of 3 and a trailer
/// of one byte; and what the sum says.
fn sum_of(over: Json, own_bytes: &str) -> (Vec<u8>, u32) {
    let header = json!([
        length("head", "u8", "header", 0),
        length("len", "u8", "frame", 0),
        checksum("sum", over, own_bytes),
        { "name": "mark", "type": "u8", "role": { "constant": 0xaa } }
    ]);
    let trailer = json!([{ "name": "end", "type": "u8", "role": { "constant": 0xee } }]);
    let bytes = request(&layout_of(header, trailer), b"abc", &[0xe1, 0xe2]);
    let sum = u32::from_be_bytes(bytes[3..7].try_into().unwrap());
    (bytes, sum)
}

#[test]
fn each_range_is_what_it_says() {
    let covers = |over: Json, covered: &str| {
        let (bytes, sum) = sum_of(over.clone(), "zero");
        assert_eq!(bytes.len(), 14);
        assert_eq!(sum, crc32fast::hash(&hex(covered)), "{over}");
    };
    covers(json!("frame"), "01 0a 0e 00000000 aa e1e2 616263 ee");
    covers(json!("header"), "01 0a 0e 00000000 aa e1e2");
    covers(json!("body"), "616263");
    covers(json!("before"), "01 0a 0e");
    covers(json!("after"), "aa e1e2 616263 ee");
    covers(json!({ "span": { "from": "len", "through": "mark" } }), "0e 00000000 aa");
    covers(json!({ "span": { "from": "mark", "through": "extension" } }), "aa e1e2");
    covers(json!({ "span": { "from": "extension", "through": "end" } }), "e1e2 616263 ee");
    covers(json!({ "span": { "from": "body", "through": "body" } }), "616263");
}

#[test]
fn own_bytes_can_be_left_out() {
    let (_, sum) = sum_of(json!("frame"), "skip");
    assert_eq!(sum, crc32fast::hash(&hex("01 0a 0e aa e1e2 616263 ee")));
    let (_, sum) = sum_of(json!("body"), "skip");
    assert_eq!(sum, crc32fast::hash(b"abc"));
}

#[test]
fn a_checksum_over_another_is_taken_over_its_final_bytes() {
    // The outer one stands first, so it must be computed last.
    let header = json!([
        length("len", "u8", "frame", 0),
        checksum("outer", json!("frame"), "zero"),
        checksum("inner", json!("body"), "zero")
    ]);
    let bytes = request(&layout_of(header, json!([])), b"abc", &[]);
    let inner = crc32fast::hash(b"abc").to_be_bytes();
    assert_eq!(bytes[6..10], inner);
    let covered = [&hex("01 0d 00000000")[..], &inner, b"abc"].concat();
    assert_eq!(bytes[2..6], crc32fast::hash(&covered).to_be_bytes());
}

#[test]
fn sealed_frames_authenticate_with_every_checksum_zero() {
    let header = json!([
        length("len", "varint", "frame", 0),
        checksum("sum", json!("header"), "zero"),
        { "name": "mark", "type": "u8", "role": { "constant": 0xaa } }
    ]);
    let layout = layout_of(header, json!([checksum("crc", json!("before"), "zero")]));
    let mut out = Vec::new();
    let body = [&[7; 200][..]];
    let request = Request::new(Command::Number(1), 0, &body);
    layout.encode_request(request, Some(&mut ToySeal), &mut out).unwrap();
    let frame = whole(&layout, &out);
    assert_eq!(ToySeal::open(&layout, &frame).unwrap(), [7; 200]);
    let mut associated = vec![0xdd];
    layout.associated_data(&frame, &mut associated);
    assert_eq!(associated, hex("dd 01 d701 00000000 aa 00000000"));
}
