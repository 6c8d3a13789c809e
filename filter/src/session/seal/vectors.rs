//! The vectors of `tests/vectors/session`: made by another implementation, held against this one
//! and against crate `chacha20poly1305`.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use serde::Deserialize;

use crate::protocol::layout::{Command, Decoded, FieldValue, Flags, Layout, Push, Reply, Request};

use super::*;

#[derive(Deserialize)]
struct Vectors {
    bodies: Vec<BodyVector>,
    frames: Vec<FrameVector>,
}

#[derive(Deserialize)]
struct BodyVector {
    name: String,
    direction: String,
    key: String,
    number: String,
    header: String,
    trailer: String,
    plaintext: String,
    nonce: String,
    associated_data: String,
    body: String,
}

#[derive(Deserialize)]
struct FrameVector {
    name: String,
    layout: String,
    direction: String,
    key: String,
    number: String,
    plaintext: String,
    frame: String,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/session/sealing.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn direction(name: &str) -> Direction {
    match name {
        "client_to_server" => Direction::ClientToServer,
        "server_to_client" => Direction::ServerToClient,
        other => panic!("no direction: {other}"),
    }
}

fn ends(key: &str, direction_name: &str, number: &str) -> (Sealer, Opener) {
    let key = TrafficKey::from_slice(&unhex(key)).unwrap();
    let number = number.parse().unwrap();
    let mut sealer = Sealer::new(&key, direction(direction_name));
    let mut opener = Opener::new(&key, direction(direction_name));
    (sealer.0.counter, opener.stream.counter) = (number, number);
    (sealer, opener)
}

fn shipped(name: &str) -> Layout {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy-config/layouts");
    let json = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    Layout::from_json(&json).unwrap()
}

#[test]
fn bodies_are_sealed_and_opened_as_the_vectors_say() {
    let bodies = vectors().bodies;
    assert!(bodies.len() >= 10);
    for vector in bodies {
        let name = &vector.name;
        let (mut sealer, mut opener) = ends(&vector.key, &vector.direction, &vector.number);
        let (header, trailer) = (unhex(&vector.header), unhex(&vector.trailer));
        let (text, expected) = (unhex(&vector.plaintext), unhex(&vector.body));

        let mut body = text.clone();
        body.resize(text.len() + sealer.overhead(), 0);
        sealer.seal(&[&header, &trailer], &mut body).unwrap();
        assert_eq!(body, expected, "{name}");
        assert_eq!(opener.open(&[&header, &trailer], &mut body).unwrap(), text, "{name}");
    }
}

#[test]
fn the_vectors_are_what_a_third_implementation_makes() {
    for vector in vectors().bodies {
        let key: [u8; 32] = unhex(&vector.key).try_into().unwrap();
        let nonce: [u8; 12] = unhex(&vector.nonce).try_into().unwrap();
        let payload =
            Payload { msg: &unhex(&vector.plaintext), aad: &unhex(&vector.associated_data) };
        let body = ChaCha20Poly1305::new(&key.into()).encrypt(&nonce.into(), payload).unwrap();
        assert_eq!(body, unhex(&vector.body), "{}", vector.name);
    }
}

#[test]
fn whole_frames_open_as_the_vectors_say() {
    let frames = vectors().frames;
    assert!(frames.len() >= 6);
    for vector in frames {
        let name = &vector.name;
        let layout = shipped(&vector.layout);
        let (mut sealer, mut opener) = ends(&vector.key, &vector.direction, &vector.number);
        let bytes = unhex(&vector.frame);
        let frame = match layout.decode(&bytes, 1 << 16) {
            Ok(Decoded::Frame(frame)) => frame,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(frame.raw.len(), bytes.len(), "{name}");

        let mut associated = Vec::new();
        layout.associated_data(&frame, &mut associated);
        let mut body = frame.body.to_vec();
        let text = unhex(&vector.plaintext);
        assert_eq!(opener.open(&[&associated], &mut body).unwrap(), text, "{name}");

        let mut body = text;
        body.resize(frame.body.len(), 0);
        sealer.seal(&[&associated], &mut body).unwrap();
        assert_eq!(body, frame.body, "{name}");
    }
}

/// The vector of this name as bytes, and the sealer that makes its seal.
fn frame_and_sealer(name: &str) -> (Vec<u8>, Sealer, Layout) {
    let vector = vectors().frames.into_iter().find(|vector| vector.name == name).unwrap();
    let (sealer, _) = ends(&vector.key, &vector.direction, &vector.number);
    (unhex(&vector.frame), sealer, shipped(&vector.layout))
}

#[test]
fn requests_are_written_as_the_vectors_say() {
    let mut out = Vec::new();
    let (frame, mut sealer, layout) = frame_and_sealer("game: the first request");
    let request = Request::new(Command::Number(1001), 2, &[b"enter"]);
    layout.encode_request(request, Some(&mut sealer), &mut out).unwrap();
    assert_eq!(out, frame);

    out.clear();
    let (frame, mut sealer, layout) =
        frame_and_sealer("battle: a request, its checksum in the trailer");
    let zone = [("zone", FieldValue::Unsigned(4))];
    let request = Request { fields: &zone, ..Request::new(Command::Number(300), 9, &[b"fire"]) };
    layout.encode_request(request, Some(&mut sealer), &mut out).unwrap();
    assert_eq!(out, frame);

    out.clear();
    let (frame, mut sealer, layout) =
        frame_and_sealer("device: a request, checksums in header and trailer");
    let serial = [("serial", FieldValue::Bytes(&[1, 2, 3, 4, 5, 0xff]))];
    let request = Request { fields: &serial, ..Request::new(Command::Number(1), 0, &[b"on"]) };
    layout.encode_request(request, Some(&mut sealer), &mut out).unwrap();
    assert_eq!(out, frame);
}

#[test]
fn replies_and_pushes_are_written_as_the_vectors_say() {
    let (request, _, layout) = frame_and_sealer("game: the first request");
    let Ok(Decoded::Frame(request)) = layout.decode(&request, 1 << 16) else { panic!("no frame") };
    let (frame, mut sealer, _) = frame_and_sealer("game: its reply");
    let reply = Reply { status: 0, error: false, body: &[b"welcome"], compress: false };
    let mut out = Vec::new();
    layout.encode_reply(&layout.seed(&request), reply, Some(&mut sealer), &mut out).unwrap();
    assert_eq!(out, frame);

    out.clear();
    let (frame, mut sealer, _) = frame_and_sealer("game: a goodbye");
    let goodbye = Push {
        command: Command::Number(2),
        sequence: 0,
        status: 1,
        error: true,
        body: &[b"maintenance"],
        compress: false,
    };
    layout.encode_push(goodbye, Some(&mut sealer), &mut out).unwrap();
    assert_eq!(out, frame);
    let Ok(Decoded::Frame(frame)) = layout.decode(&out, 1 << 16) else { panic!("no frame") };
    assert_eq!(frame.flags, Flags::PUSH.with(Flags::ERROR).with(Flags::SEALED));
}
