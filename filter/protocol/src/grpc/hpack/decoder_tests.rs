//! The examples of RFC 7541 appendix C, and what a hostile block can try.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
    let mut fields = Vec::new();
    decoder
        .decode(block, |name, value| {
            let text = |bytes| String::from_utf8(Vec::from(bytes)).unwrap();
            fields.push(format!("{}: {}", text(name), text(value)));
        })
        .map(|()| fields)
}

/// Decodes the blocks one after the other and compares fields and the size of the table.
fn expect(limit: usize, blocks: &[(&str, &[&str], usize)]) {
    let mut decoder = Decoder::new(limit);
    for (block, expected, size) in blocks {
        assert_eq!(fields(&mut decoder, &bytes(block)).unwrap(), *expected);
        assert_eq!(decoder.table.size(), *size);
    }
}

#[test]
fn c2_the_forms_of_a_field() {
    expect(
        4096,
        &[
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                &["custom-key: custom-header"],
                55,
            ),
            ("040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"], 55),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", &["password: secret"], 55),
            ("82", &[":method: GET"], 55),
        ],
    );
}

const REQUESTS: [&[&str]; 3] = [
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
    &[
        ":method: GET",
        ":scheme: http",
        ":path: /",
        ":authority: www.example.com",
        "cache-control: no-cache",
    ],
    &[
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ],
];

#[test]
fn c3_requests_without_huffman() {
    expect(
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                REQUESTS[2],
                164,
            ),
        ],
    );
}

#[test]
fn c4_requests_with_huffman() {
    expect(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUESTS[2], 164),
        ],
    );
}

const RESPONSES: [&[&str]; 3] = [
    &[
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ],
    &[
        ":status: 307",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ],
    &[
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ],
];

#[test]
fn c5_responses_without_huffman_and_with_eviction() {
    expect(
        256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                RESPONSES[0],
                222,
            ),
            ("4803 3330 37c1 c0bf", RESPONSES[1], 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                RESPONSES[2],
                215,
            ),
        ],
    );
}

#[test]
fn c6_responses_with_huffman_and_with_eviction() {
    expect(
        256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
                222,
            ),
            ("4883 640e ffc1 c0bf", RESPONSES[1], 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSES[2],
                215,
            ),
        ],
    );
}

#[test]
fn a_table_of_size_zero_reads_indexing_fields_and_keeps_nothing() {
    let mut decoder = Decoder::new(0);
    assert_eq!(fields(&mut decoder, b"\x20\x40\x01a\x01b\x88").unwrap(), ["a: b", ":status: 200"]);
    assert_eq!(fields(&mut decoder, b"\xbe"), Err(HpackError::BadIndex));
}

#[test]
fn a_table_size_is_refused_when_too_large_or_late() {
    assert_eq!(fields(&mut Decoder::new(0), b"\x21"), Err(HpackError::BadTableSize));
    assert_eq!(fields(&mut Decoder::new(0), b"\x88\x20"), Err(HpackError::BadTableSize));
    assert_eq!(fields(&mut Decoder::new(64), b"\x20\x3f\x21").unwrap(), [""; 0]);
    assert_eq!(fields(&mut Decoder::new(64), b"\x3f\x22"), Err(HpackError::BadTableSize));
}

#[test]
fn indices_that_no_table_has_are_refused() {
    for block in [&b"\x80"[..], b"\xbe", b"\xff\xff\xff\xff\x0f", b"\x7e\x01a", b"\x0f\x2f\x01a"] {
        assert_eq!(fields(&mut Decoder::new(4096), block), Err(HpackError::BadIndex), "{block:?}");
    }
}

#[test]
fn a_block_cut_anywhere_is_whole_fields_or_truncated() {
    let block = bytes(
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff40 0a63 7573 746f 6d2d 6b65 790d 6375 7374 6f6d
         2d68 6561 6465 72",
    );
    let whole = fields(&mut Decoder::new(4096), &block).unwrap();
    for cut in 0..block.len() {
        match fields(&mut Decoder::new(4096), &block[..cut]) {
            Ok(some) => assert_eq!(some, whole[..some.len()]),
            Err(error) => assert_eq!(error, HpackError::Truncated),
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_block_panics_and_the_table_keeps_its_limit(
        blocks in proptest::collection::vec(proptest::collection::vec(0u8.., 0..200), 0..20)
    ) {
        let mut decoder = Decoder::new(256);
        for block in blocks {
            let mut visited = 0usize;
            let _ = decoder.decode(&block, |name, value| visited += name.len() + value.len());
            assert!(decoder.table.size() <= 256);
            assert!(visited <= block.len() * 256);
        }
    }
}
