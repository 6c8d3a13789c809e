use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use proptest::prelude::*;

use super::chacha20::ChaCha20;
use super::*;

fn key(byte: u8) -> TrafficKey {
    TrafficKey::from_slice(&[byte; 32]).unwrap()
}

fn keys() -> TrafficKeys {
    TrafficKeys { client_to_server: key(0x11), server_to_client: key(0x22) }
}

fn sealed(sealer: &mut Sealer, associated: &[&[u8]], text: &[u8]) -> Vec<u8> {
    let mut body = text.to_vec();
    body.resize(text.len() + sealer.overhead(), 0xee);
    sealer.seal(associated, &mut body).unwrap();
    body
}

/// A frame from the client, and the server's opener that expects it as its frame number 0.
fn one_frame(text: &[u8]) -> (Vec<u8>, Opener) {
    let (mut sealer, _) = client_side(&keys());
    let (_, opener) = server_side(&keys());
    (sealed(&mut sealer, &[b"header"], text), opener)
}

#[test]
fn each_side_opens_what_the_other_sealed() {
    let (mut server_sealer, mut server_opener) = server_side(&keys());
    let (mut client_sealer, mut client_opener) = client_side(&keys());
    for number in 0..3_u8 {
        let mut up = sealed(&mut client_sealer, &[b"head", &[number]], b"to the server");
        assert_eq!(server_opener.open(&[b"head", &[number]], &mut up).unwrap(), b"to the server");
        let mut down = sealed(&mut server_sealer, &[b"head"], b"to the client");
        assert_eq!(client_opener.open(&[b"head"], &mut down).unwrap(), b"to the client");
    }
}

#[test]
fn the_pieces_of_the_associated_data_are_read_as_one() {
    let (mut body, mut opener) = one_frame(b"text");
    assert!(opener.open(&[b"hea", b"", b"der"], &mut body).is_ok());
}

#[test]
fn an_empty_body_is_sealed_into_a_tag_alone() {
    let (mut body, mut opener) = one_frame(b"");
    assert_eq!(body.len(), TAG_LEN);
    assert_eq!(opener.open(&[b"header"], &mut body).unwrap(), b"");
}

#[test]
fn a_body_shorter_than_a_tag_does_not_open() {
    for len in 0..TAG_LEN {
        let (mut body, mut opener) = one_frame(b"text");
        body.truncate(len);
        assert_eq!(opener.open(&[b"header"], &mut body), Err(OpenError::Short));
    }
}

#[test]
fn a_body_without_room_for_the_tag_is_not_sealed_and_takes_no_number() {
    let (mut sealer, _) = client_side(&keys());
    assert_eq!(sealer.seal(&[], &mut [0; TAG_LEN - 1]), Err(SealError::Cipher));
    let (_, mut opener) = server_side(&keys());
    let mut body = sealed(&mut sealer, &[b"header"], b"the first");
    assert!(opener.open(&[b"header"], &mut body).is_ok());
}

#[test]
fn a_repeated_frame_does_not_open() {
    let (mut body, mut opener) = one_frame(b"pay 5 gold");
    let mut again = body.clone();
    assert!(opener.open(&[b"header"], &mut body).is_ok());
    assert_eq!(opener.open(&[b"header"], &mut again), Err(OpenError::Forged));
}

#[test]
fn after_a_lost_frame_nothing_opens() {
    let (mut sealer, _) = client_side(&keys());
    let (_, mut opener) = server_side(&keys());
    let _lost = sealed(&mut sealer, &[], b"0");
    for number in 1..4_u8 {
        let mut body = sealed(&mut sealer, &[], &[number]);
        assert_eq!(opener.open(&[], &mut body), Err(OpenError::Forged));
    }
}

#[test]
fn after_a_frame_that_did_not_open_the_expected_one_does_not_either() {
    let (mut body, mut opener) = one_frame(b"text");
    assert!(opener.open(&[b"header"], &mut [0; 40]).is_err());
    assert_eq!(opener.open(&[b"header"], &mut body), Err(OpenError::Forged));
}

#[test]
fn frames_out_of_order_do_not_open() {
    let (mut sealer, _) = client_side(&keys());
    let (_, mut opener) = server_side(&keys());
    let _first = sealed(&mut sealer, &[], b"0");
    let mut second = sealed(&mut sealer, &[], b"1");
    assert_eq!(opener.open(&[], &mut second), Err(OpenError::Forged));
}

#[test]
fn a_frame_does_not_open_in_the_other_direction() {
    let same = TrafficKeys { client_to_server: key(7), server_to_client: key(7) };
    let (mut sealer, _) = server_side(&same);
    let mut body = sealed(&mut sealer, &[b"header"], b"mirrored");
    let (_, mut opener) = server_side(&same);
    assert_eq!(opener.open(&[b"header"], &mut body), Err(OpenError::Forged));
}

#[test]
fn a_frame_that_does_not_open_is_left_as_it_was() {
    let (mut body, mut opener) = one_frame(b"text");
    let before = body.clone();
    assert!(opener.open(&[b"another header"], &mut body).is_err());
    assert_eq!(body, before);
}

#[test]
fn the_last_number_is_never_used() {
    let (mut sealer, _) = client_side(&keys());
    let (_, mut opener) = server_side(&keys());
    sealer.0.counter = u64::MAX - 1;
    opener.stream.counter = u64::MAX - 1;
    let mut body = sealed(&mut sealer, &[], b"the last frame");
    assert!(opener.open(&[], &mut body).is_ok());
    assert_eq!(sealer.seal(&[], &mut [0; 32]), Err(SealError::CounterExhausted));
    assert_eq!(opener.open(&[], &mut [0; 32]), Err(OpenError::Exhausted));
    assert_eq!(opener.open(&[], &mut [0; 32]), Err(OpenError::Forged));
}

#[test]
fn neither_keys_nor_text_are_printed() {
    let (mut sealer, opener) = server_side(&keys());
    sealed(&mut sealer, &[b"header"], b"secret");
    assert_eq!(
        format!("{sealer:?}"),
        "Sealer(Stream { direction: ServerToClient, counter: 1, .. })"
    );
    assert_eq!(
        format!("{opener:?}"),
        "Opener { stream: Stream { direction: ClientToServer, counter: 0, .. }, broken: false }"
    );
    assert_eq!(
        format!("{:?}", keys()),
        "TrafficKeys { client_to_server: TrafficKey(..), server_to_client: TrafficKey(..) }"
    );
}

/// RFC 8439, section 2.4.2.
#[test]
fn the_cipher_is_that_of_rfc_8439() {
    let key: Vec<u8> = (0..32).collect();
    let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
        for the future, sunscreen would be it."
        .to_vec();
    ChaCha20::new(key.as_slice().try_into().unwrap()).apply([0, 0x4a00_0000, 0], 1, &mut text);
    assert_eq!(
        hex(&text),
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab\
         8f593dabcd62b3571639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e\
         52bc514d16ccf806818ce91ab77937365af90bbf74a35be6b40b8eedf2785e42874d"
    );
}

/// RFC 8439, section 2.3.2: the block function, here as the key stream of block 1.
#[test]
fn the_block_function_is_that_of_rfc_8439() {
    let key: Vec<u8> = (0..32).collect();
    let mut block = [0; 64];
    let nonce = [0x0900_0000, 0x4a00_0000, 0];
    ChaCha20::new(key.as_slice().try_into().unwrap()).apply(nonce, 1, &mut block);
    assert_eq!(
        hex(&block),
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e\
         d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    );
}

/// What crate `chacha20poly1305` makes of the same frame.
fn reference(
    direction: u8,
    counter: u64,
    key: &[u8; 32],
    associated: &[u8],
    text: &[u8],
) -> Vec<u8> {
    let mut aad = vec![direction];
    aad.extend(counter.to_le_bytes());
    aad.extend(associated);
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    ChaCha20Poly1305::new(key.into())
        .encrypt(&nonce.into(), Payload { msg: text, aad: &aad })
        .unwrap()
}

#[test]
fn bodies_of_every_length_around_the_blocks_are_sealed_as_the_reference_does() {
    for len in (0..600).chain([4095, 4096, 4097, 70_000]) {
        let text: Vec<u8> = (0..len).map(|at| (at * 7 + at / 256) as u8).collect();
        let (mut sealer, mut opener) = (
            Sealer::new(&key(9), Direction::ServerToClient),
            Opener::new(&key(9), Direction::ServerToClient),
        );
        let mut body = sealed(&mut sealer, &[b"header"], &text);
        assert_eq!(body, reference(1, 0, &[9; 32], b"header", &text), "{len} bytes");
        assert_eq!(opener.open(&[b"header"], &mut body).unwrap(), text, "{len} bytes");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn every_frame_is_sealed_as_the_reference_does(
        key in any::<[u8; 32]>(),
        counter in 0..u64::MAX,
        to_client in any::<bool>(),
        header in prop::collection::vec(any::<u8>(), 0..80),
        trailer in prop::collection::vec(any::<u8>(), 0..8),
        text in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let direction =
            if to_client { Direction::ServerToClient } else { Direction::ClientToServer };
        let traffic_key = TrafficKey::from_slice(&key).unwrap();
        let mut sealer = Sealer::new(&traffic_key, direction);
        sealer.0.counter = counter;
        let body = sealed(&mut sealer, &[&header, &trailer], &text);
        let associated = [header, trailer].concat();
        prop_assert_eq!(body, reference(to_client.into(), counter, &key, &associated, &text));
    }

    #[test]
    fn a_frame_with_any_bit_changed_does_not_open(
        header in prop::collection::vec(any::<u8>(), 1..40),
        text in prop::collection::vec(any::<u8>(), 0..400),
        bit in any::<prop::sample::Index>(),
    ) {
        let (mut sealer, _) = client_side(&keys());
        let (_, mut opener) = server_side(&keys());
        let body = sealed(&mut sealer, &[&header], &text);
        let header_bits = header.len() * 8;
        let mut frame = [header.clone(), body].concat();
        let bit = bit.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        let (changed_header, changed_body) = frame.split_at_mut(header_bits / 8);
        prop_assert_eq!(
            opener.open(&[changed_header], changed_body),
            Err(OpenError::Forged)
        );
    }

    #[test]
    fn a_stream_of_frames_opens_in_its_order_and_in_no_other(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..8),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let (mut sealer, _) = client_side(&keys());
        let bodies: Vec<_> = texts.iter().map(|text| sealed(&mut sealer, &[b"h"], text)).collect();

        let (_, mut opener) = server_side(&keys());
        for (body, text) in bodies.iter().zip(&texts) {
            let mut body = body.clone();
            prop_assert_eq!(&*opener.open(&[b"h"], &mut body).unwrap(), text.as_slice());
        }

        // One frame moved elsewhere: everything from the first place that differs is refused.
        let (from, to) = (from.index(bodies.len()), to.index(bodies.len()));
        prop_assume!(from != to);
        let mut moved = bodies.clone();
        let frame = moved.remove(from);
        moved.insert(to, frame);
        let (_, mut opener) = server_side(&keys());
        for (at, mut body) in moved.into_iter().enumerate() {
            let opened = opener.open(&[b"h"], &mut body);
            prop_assert_eq!(opened.is_ok(), at < from.min(to));
        }
    }
}
