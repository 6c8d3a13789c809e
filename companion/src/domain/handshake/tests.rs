use std::path::Path;
use std::{env, fs};

use meshgate_proto::session::v1::{
    LoginReply, LoginRequest, ResumeToken, login_request::Credential,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use super::*;
use crate::domain::key::hex;
use crate::domain::resume::ticket_message;
use crate::domain::secret::Secret;

const RESUMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/session/resume.json");
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/session/noise.json");

/// One login, byte for byte; every value but the names is hexadecimal.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    name: String,
    protocol: String,
    layout: String,
    audience: String,
    key_id: String,
    /// Of a resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_secret: Option<String>,
    server_static_private: String,
    server_static_public: String,
    client_ephemeral_private: String,
    server_ephemeral_private: String,
    prologue: String,
    /// An encoded `meshgate.session.v1.LoginRequest`.
    login_request: String,
    login_message: String,
    /// An encoded `meshgate.session.v1.LoginReply`.
    login_reply: String,
    reply_message: String,
    client_to_server_key: String,
    server_to_client_key: String,
}

/// One resume in mode `ticket`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct TicketVector {
    name: String,
    credential: String,
    token_id: String,
    token_secret: String,
    resume_message: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Resumes {
    noise: Vec<Vector>,
    ticket: Vec<TicketVector>,
}

struct Case {
    name: &'static str,
    layout: &'static str,
    audience: &'static str,
    key_id: &'static str,
    credential: Credential,
    client: &'static str,
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a ticket",
            layout: "happy",
            audience: "demo-game",
            key_id: "n1",
            credential: Credential::Ticket("mgt1.cGF5bG9hZA.c2lnbmF0dXJl".into()),
            client: "demo/1.0",
        },
        Case {
            name: "a JSON Web Token, no client text, names beyond ASCII",
            layout: "größe",
            audience: "游戏",
            key_id: "2031-01",
            credential: Credential::Jwt("aGVhZGVy.Y2xhaW1z.c2ln".into()),
            client: "",
        },
        Case {
            name: "empty layout and audience",
            layout: "",
            audience: "",
            key_id: "k",
            credential: Credential::Ticket("mgt1.e30.AA".into()),
            client: "x",
        },
    ]
}

fn key(id: &str, private: [u8; 32]) -> Key {
    Key::new(id, Kind::Noise, Secret::new(private.to_vec())).unwrap()
}

/// A resume token's id and secret.
type Token = (Vec<u8>, [u8; 32]);

/// A login message made with snow alone, by the text of this module's documentation.
fn client(
    layout: &str,
    audience: &str,
    key: &Key,
    payload: &[u8],
    ephemeral: &[u8; 32],
) -> (HandshakeState, Vec<u8>) {
    client_with(None, layout, audience, key, payload, ephemeral)
}

/// The same; with a token, a resume message.
fn client_with(
    token: Option<&Token>,
    layout: &str,
    audience: &str,
    key: &Key,
    payload: &[u8],
    ephemeral: &[u8; 32],
) -> (HandshakeState, Vec<u8>) {
    let public = key.public().unwrap();
    let prologue = [prologue(layout, audience, key.id().as_bytes()).unwrap(), named(token)];
    let prologue = prologue.concat();
    let mut builder = builder(token);
    if let Some((_, secret)) = token {
        builder = builder.psk(0, secret).unwrap();
    }
    let mut state = builder
        .remote_public_key(public.bytes().expose())
        .unwrap()
        .prologue(&prologue)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(ephemeral)
        .build_initiator()
        .unwrap();
    let mut noise = vec![0; payload.len() + MESSAGE_OVERHEAD];
    let length = state.write_message(payload, &mut noise).unwrap();
    assert_eq!(length, noise.len());
    let kind = if token.is_some() { 2 } else { 1 };
    let mut message = vec![1, kind, u8::try_from(key.id().len()).unwrap()];
    message.extend_from_slice(key.id().as_bytes());
    message.extend_from_slice(&named(token));
    message.extend_from_slice(&noise);
    (state, message)
}

fn builder<'a>(token: Option<&Token>) -> Builder<'a> {
    let pattern = if token.is_some() { NOISE_RESUME } else { NOISE };
    Builder::new(pattern.parse().unwrap())
}

/// A token's id behind its length.
fn named(token: Option<&Token>) -> Vec<u8> {
    let length = |id: &Vec<u8>| vec![u8::try_from(id.len()).unwrap()];
    token.map(|(id, _)| [length(id), id.clone()].concat()).unwrap_or_default()
}

fn vector(number: u8, case: Case) -> Vector {
    let request =
        LoginRequest { credential: Some(case.credential.clone()), client: case.client.into() };
    let reply = LoginReply {
        session_id: vec![number; 16],
        user: "ada".into(),
        expires_at_ms: 1_900_000_000_000,
        ..LoginReply::default()
    };
    exchange(number, &case, None, &request, &reply)
}

fn exchange(
    number: u8,
    case: &Case,
    token: Option<&Token>,
    request: &LoginRequest,
    reply: &LoginReply,
) -> Vector {
    let private = std::array::from_fn(|at| number.wrapping_mul(31) ^ u8::try_from(at).unwrap());
    let client_ephemeral = [0x40 + number; 32];
    let server_ephemeral = [0x80 + number; 32];
    let key = key(case.key_id, private);
    let request = request.encode_to_vec();
    let (mut initiator, login) =
        client_with(token, case.layout, case.audience, &key, &request, &client_ephemeral);

    // The responder as `NoiseKeys::open` makes it, but with a fixed ephemeral key.
    let bound = prologue(case.layout, case.audience, case.key_id.as_bytes()).unwrap();
    let bound = [bound, named(token)].concat();
    let mut builder = builder(token);
    if let Some((_, secret)) = token {
        builder = builder.psk(0, secret).unwrap();
    }
    let mut responder = builder
        .local_private_key(&private)
        .unwrap()
        .prologue(&bound)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(&server_ephemeral)
        .build_responder()
        .unwrap();
    let mut payload = vec![0; login.len()];
    let (kind, noise) = match token {
        None => (KIND_NK, LoginMessage::parse(&login).unwrap().noise),
        Some((id, _)) => {
            let message = ResumeMessage::parse(&login).unwrap().unwrap();
            assert_eq!((message.token_id, message.key_id), (&id[..], case.key_id.as_bytes()));
            (KIND_NKPSK0, message.noise)
        }
    };
    let length = responder.read_message(noise, &mut payload).unwrap();
    payload.truncate(length);
    assert_eq!(payload, request);

    let reply = reply.encode_to_vec();
    let opened = Opened { state: responder, kind, payload: Zeroizing::new(payload) };
    let answered = opened.answer(&reply).unwrap();

    let mut read = vec![0; answered.reply.len()];
    let length = initiator.read_message(&answered.reply[2..], &mut read).unwrap();
    assert_eq!(&read[..length], reply);
    let (client_to_server, server_to_client) = initiator.dangerously_get_raw_split();
    assert_eq!(answered.keys.client_to_server[..], client_to_server);
    assert_eq!(answered.keys.server_to_client[..], server_to_client);

    Vector {
        name: case.name.into(),
        protocol: if token.is_some() { NOISE_RESUME } else { NOISE }.into(),
        layout: case.layout.into(),
        audience: case.audience.into(),
        key_id: case.key_id.into(),
        token_id: token.map(|(id, _)| hex(id)),
        token_secret: token.map(|(_, secret)| hex(secret)),
        server_static_private: hex(&private),
        server_static_public: hex(key.public().unwrap().bytes().expose()),
        client_ephemeral_private: hex(&client_ephemeral),
        server_ephemeral_private: hex(&server_ephemeral),
        prologue: hex(&bound),
        login_request: hex(&request),
        login_message: hex(&login),
        login_reply: hex(&reply),
        reply_message: hex(&answered.reply),
        client_to_server_key: hex(&client_to_server),
        server_to_client_key: hex(&server_to_client),
    }
}

/// `MESHGATE_REGENERATE=1` writes them anew.
#[test]
fn the_handshake_is_the_one_of_the_test_vectors() {
    let made: Vec<_> = (1..).zip(cases()).map(|(number, case)| vector(number, case)).collect();
    if env::var_os("MESHGATE_REGENERATE").is_some() {
        fs::create_dir_all(Path::new(VECTORS).parent().unwrap()).unwrap();
        fs::write(VECTORS, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: Vec<Vector> = serde_json::from_slice(&fs::read(VECTORS).unwrap()).unwrap();
    assert_eq!(made, kept);
}

/// Resumes of the sessions of the first two cases, and of one in mode `ticket`.
fn resumes() -> Resumes {
    let token = |number: u8| (vec![0x10 + number; 32], [0x20 + number; 32]);
    let noise = (1..3).zip(cases()).map(|(number, case): (u8, Case)| {
        let request = LoginRequest { credential: None, client: case.client.into() };
        let next = token(number + 0x40);
        let reply = LoginReply {
            session_id: vec![number; 16],
            user: "ada".into(),
            expires_at_ms: 1_900_000_000_000,
            resume: Some(ResumeToken { id: next.0, secret: next.1.to_vec(), grace_ms: 60_000 }),
            generation: 2,
            lost_up_to: 1,
        };
        exchange(number, &case, Some(&token(number)), &request, &reply)
    });
    let credential = "mgt1.cGF5bG9hZA.c2lnbmF0dXJl";
    let (id, secret) = token(3);
    let message = ticket_message(&id, &Zeroizing::new(secret), credential.as_bytes()).unwrap();
    let ticket = TicketVector {
        name: "a ticket".into(),
        credential: credential.into(),
        token_id: hex(&id),
        token_secret: hex(&secret),
        resume_message: hex(&message),
    };
    Resumes { noise: noise.collect(), ticket: vec![ticket] }
}

/// `MESHGATE_REGENERATE=1` writes them anew.
#[test]
fn resumes_are_those_of_the_test_vectors() {
    let made = resumes();
    if env::var_os("MESHGATE_REGENERATE").is_some() {
        fs::write(RESUMES, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: Resumes = serde_json::from_slice(&fs::read(RESUMES).unwrap()).unwrap();
    assert_eq!(made, kept);
}

#[test]
fn a_resume_opens_with_its_secret_and_its_token_alone() {
    let key = Key::generate(Kind::Noise, Some("k1".into())).unwrap();
    let keys = NoiseKeys::new([&key]).unwrap();
    let token = (vec![3; 32], [4; 32]);
    let (mut initiator, message) = client_with(Some(&token), "l", "a", &key, b"hi", &[7; 32]);
    let open = |message: &[u8], secret: [u8; 32]| {
        let Some(Ok(parsed)) = ResumeMessage::parse(message) else { return Err(Why::Malformed) };
        keys.open_resume("l", "a", &parsed, &Zeroizing::new(secret))
    };
    assert_eq!(open(&message, [5; 32]).err(), Some(Why::TokenWrong));
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1;
        assert!(open(&changed, token.1).is_err(), "byte {at} changed");
        assert!(open(&message[..at], token.1).is_err(), "cut at {at}");
    }
    let opened = open(&message, token.1).unwrap();
    assert_eq!(opened.payload.as_slice(), b"hi");
    let answered = opened.answer(b"reply").unwrap();
    assert_eq!(answered.reply[..2], [1, 2]);
    let mut reply = [0; 64];
    let length = initiator.read_message(&answered.reply[2..], &mut reply).unwrap();
    assert_eq!(&reply[..length], b"reply");
    // Neither takes the other's messages.
    let (_, login) = client("l", "a", &key, b"hi", &[7; 32]);
    assert!(ResumeMessage::parse(&login).is_none());
    assert_eq!(keys.open("l", "a", &message).err(), Some(Why::Malformed));
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn the_login_messages_of_the_test_vectors_open() {
    let kept: Vec<Vector> = serde_json::from_slice(&fs::read(VECTORS).unwrap()).unwrap();
    assert!(!kept.is_empty());
    for vector in kept {
        let private = unhex(&vector.server_static_private).try_into().unwrap();
        let keys = NoiseKeys::new([&key(&vector.key_id, private)]).unwrap();
        let opened =
            keys.open(&vector.layout, &vector.audience, &unhex(&vector.login_message)).unwrap();
        assert_eq!(hex(&opened.payload), vector.login_request, "{}", vector.name);
    }
}

#[test]
fn both_sides_come_to_the_same_keys() {
    let key = Key::generate(Kind::Noise, None).unwrap();
    let keys = NoiseKeys::new([&key]).unwrap();
    let (mut initiator, message) = client("l", "a", &key, b"request", &[7; 32]);
    let opened = keys.open("l", "a", &message).unwrap();
    assert_eq!(opened.payload.as_slice(), b"request");
    let answered = opened.answer(b"reply").unwrap();
    let mut reply = [0; 64];
    let length = initiator.read_message(&answered.reply[2..], &mut reply).unwrap();
    assert_eq!(&reply[..length], b"reply");
    let (up, down) = initiator.dangerously_get_raw_split();
    assert_eq!((*answered.keys.client_to_server, *answered.keys.server_to_client), (up, down));
    assert_ne!(up, down);
}

#[test]
fn one_login_message_answered_twice_gives_different_keys() {
    let key = Key::generate(Kind::Noise, None).unwrap();
    let keys = NoiseKeys::new([&key]).unwrap();
    let (_, message) = client("l", "a", &key, b"request", &[7; 32]);
    let [one, two] =
        [(); 2].map(|()| keys.open("l", "a", &message).unwrap().answer(b"").unwrap().keys);
    assert_ne!(one.client_to_server, two.client_to_server);
}

#[test]
fn a_message_for_another_layout_audience_or_key_does_not_open() {
    let key = Key::generate(Kind::Noise, Some("k1".into())).unwrap();
    let keys = NoiseKeys::new([&key]).unwrap();
    let (_, message) = client("l", "a", &key, b"request", &[7; 32]);
    assert_eq!(keys.open("m", "a", &message).err(), Some(Why::Handshake));
    assert_eq!(keys.open("l", "b", &message).err(), Some(Why::Handshake));
    // The names shifted across their border.
    assert_eq!(keys.open("la", "", &message).err(), Some(Why::Handshake));

    let other = Key::generate(Kind::Noise, Some("k1".into())).unwrap();
    let keys = NoiseKeys::new([&other]).unwrap();
    assert_eq!(keys.open("l", "a", &message).err(), Some(Why::Handshake));
    let unknown = Key::generate(Kind::Noise, Some("k2".into())).unwrap();
    let keys = NoiseKeys::new([&unknown]).unwrap();
    assert_eq!(keys.open("l", "a", &message).err(), Some(Why::UnknownNoiseKey));

    // The right key under another name: the key id is part of the prologue.
    let renamed = Key::new("k3", Kind::Noise, key.bytes().clone()).unwrap();
    let keys = NoiseKeys::new([&renamed]).unwrap();
    let mut message = message;
    message[3..5].copy_from_slice(b"k3");
    assert_eq!(keys.open("l", "a", &message).err(), Some(Why::Handshake));
}

#[test]
fn any_changed_or_missing_byte_is_refused() {
    let key = Key::generate(Kind::Noise, Some("k1".into())).unwrap();
    let keys = NoiseKeys::new([&key]).unwrap();
    let (_, message) = client("l", "a", &key, b"request", &[7; 32]);
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1;
        assert!(keys.open("l", "a", &changed).is_err(), "byte {at} changed");
        assert!(keys.open("l", "a", &message[..at]).is_err(), "cut at {at}");
    }
    let mut longer = message.clone();
    longer.push(0);
    assert!(keys.open("l", "a", &longer).is_err());
    assert_eq!(
        keys.open("l", "a", &vec![1; MAX_LOGIN_MESSAGE_BYTES + 1]).err(),
        Some(Why::Malformed)
    );
}

/// The key pair of somebody who wants a handshake without a secret: the point of order 1.
struct NoSecret;

impl Dh for NoSecret {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), snow::Error> {
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &[0; 32]
    }

    fn privkey(&self) -> &[u8] {
        &[0; 32]
    }

    fn dh(&self, _: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        out[..32].fill(0);
        Ok(())
    }
}

struct NoSecrets;

impl CryptoResolver for NoSecrets {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(NoSecret))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[test]
fn a_handshake_without_a_secret_is_refused() {
    let key = Key::generate(Kind::Noise, Some("k1".into())).unwrap();
    let bound = prologue("l", "a", b"k1").unwrap();
    let mut state = Builder::with_resolver(NOISE.parse().unwrap(), Box::new(NoSecrets))
        .remote_public_key(key.public().unwrap().bytes().expose())
        .unwrap()
        .prologue(&bound)
        .unwrap()
        .build_initiator()
        .unwrap();
    let message = login_message("k1", |noise| state.write_message(b"request", noise)).unwrap();

    // Well-formed: an implementation that multiplies without looking opens it.
    let mut careless = Builder::new(NOISE.parse().unwrap())
        .local_private_key(key.bytes().expose())
        .unwrap()
        .prologue(&bound)
        .unwrap()
        .build_responder()
        .unwrap();
    let noise = LoginMessage::parse(&message).unwrap().noise;
    assert!(careless.read_message(noise, &mut [0; 64]).is_ok());
    let keys = NoiseKeys::new([&key]).unwrap();
    assert_eq!(keys.open("l", "a", &message).err(), Some(Why::Handshake));
}

#[test]
fn only_noise_keys_with_different_ids_make_a_ring() {
    let ticket = Key::generate(Kind::TicketHmac, None).unwrap();
    assert!(matches!(NoiseKeys::new([&ticket]), Err(NoiseKeyError::NotNoise { .. })));
    let noise = Key::generate(Kind::Noise, None).unwrap();
    assert!(matches!(NoiseKeys::new([&noise, &noise]), Err(NoiseKeyError::DuplicateId(_))));
}

#[test]
fn a_prologue_is_bound_byte_for_byte() {
    let bytes = prologue("ly", "aud", b"k1").unwrap();
    assert_eq!(bytes, b"meshgate-session\0\x01\x02\x02ly\x00\x03aud\x02k1");
    assert_eq!(prologue(&"l".repeat(256), "a", b"k"), None);
    assert_eq!(prologue("l", &"a".repeat(65_536), b"k"), None);
}
