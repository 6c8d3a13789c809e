//! Sealing by vector instructions, which natively do not exist, against the shipped vectors and
//! the reference cipher.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use meshgate_filter::protocol::layout::FrameSeal;
use meshgate_filter::session::seal::{Direction, Opener, Sealer, TrafficKey};
use serde_json::Value;
use wasm_bindgen_test::wasm_bindgen_test;

const VECTORS: &str = include_str!("../../../tests/vectors/session/sealing.json");

fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[wasm_bindgen_test]
fn bodies_are_sealed_and_opened_as_the_vectors_say() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let bodies = vectors["bodies"].as_array().unwrap();
    let first = bodies.iter().filter(|vector| vector["number"] == "0");
    for vector in first.clone() {
        let direction = match vector["direction"].as_str().unwrap() {
            "client_to_server" => Direction::ClientToServer,
            _ => Direction::ServerToClient,
        };
        let key = TrafficKey::from_slice(&unhex(&vector["key"])).unwrap();
        let (header, trailer) = (unhex(&vector["header"]), unhex(&vector["trailer"]));
        let text = unhex(&vector["plaintext"]);

        let mut sealer = Sealer::new(&key, direction);
        let mut body = text.clone();
        body.resize(text.len() + sealer.overhead(), 0);
        sealer.seal(&[&header, &trailer], &mut body).unwrap();
        assert_eq!(body, unhex(&vector["body"]), "{}", vector["name"]);

        let mut opener = Opener::new(&key, direction);
        assert_eq!(opener.open(&[&header, &trailer], &mut body).unwrap(), text);
    }
    assert!(first.count() >= 2);
}

#[wasm_bindgen_test]
fn bodies_of_every_length_around_the_blocks_are_sealed_as_the_reference_does() {
    let key = [9; 32];
    let mut sealer = Sealer::new(&TrafficKey::from_slice(&key).unwrap(), Direction::ServerToClient);
    let mut opener = Opener::new(&TrafficKey::from_slice(&key).unwrap(), Direction::ServerToClient);
    for (number, len) in (0..600).chain([4095, 4096, 4097, 70_000]).enumerate() {
        let text: Vec<u8> = (0..len).map(|at: usize| (at * 7 + at / 256) as u8).collect();
        let number = (number as u64).to_le_bytes();
        let nonce = [&[0; 4], &number[..]].concat();
        let aad = [&[1], &number[..], b"header"].concat();
        let nonce: [u8; 12] = nonce.try_into().unwrap();
        let payload = Payload { msg: &text, aad: &aad };
        let expected = ChaCha20Poly1305::new(&key.into()).encrypt(&nonce.into(), payload).unwrap();

        let mut body = text.clone();
        body.resize(len + sealer.overhead(), 0);
        sealer.seal(&[b"header"], &mut body).unwrap();
        assert_eq!(body, expected, "{len} bytes");
        assert_eq!(opener.open(&[b"header"], &mut body).unwrap(), text, "{len} bytes");
    }
}

#[wasm_bindgen_test]
fn a_changed_bit_anywhere_does_not_open() {
    let key = TrafficKey::from_slice(&[3; 32]).unwrap();
    let mut sealer = Sealer::new(&key, Direction::ClientToServer);
    let mut body = vec![7; 300 + sealer.overhead()];
    sealer.seal(&[b"header"], &mut body).unwrap();
    for bit in 0..body.len() * 8 {
        let mut changed = body.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut opener = Opener::new(&key, Direction::ClientToServer);
        assert!(opener.open(&[b"header"], &mut changed).is_err(), "bit {bit}");
    }
    assert!(Opener::new(&key, Direction::ClientToServer).open(&[b"header"], &mut body).is_ok());
}
