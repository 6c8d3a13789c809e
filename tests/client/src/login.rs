//! Logging in: nothing, a ticket in the first frame, or a Noise handshake
//! (`filter/src/session/PROTOCOL.md`).
//!
//! In mode `ticket` the login frame's body is the credential itself, the reply's a `LoginReply`.
//!
//! Noise (`Noise_NK_25519_ChaChaPoly_BLAKE2s`, the client is the initiator) takes one login
//! frame each way:
//!
//! ```text
//! request  u8 version 1 | u8 kind 1 | u8 k | key id (k bytes) | Noise message 1
//! reply    u8 version 1 | u8 kind 1 | Noise message 2
//! prologue "meshgate-session" 00 | u8 version 1 | u8 mode 2 | u8 l | layout (l bytes)
//!          | u16 a, big-endian | audience (a bytes) | u8 k | key id (k bytes)
//! ```
//!
//! The payload of message 1 is a protobuf `LoginRequest`, that of message 2 a `LoginReply`
//! (`proto/meshgate/session/v1/session.proto`).
//!
//! A reply may bring a token to resume with over another connection: by
//! `Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s` with its secret as the pre-shared key, kind 2, the token's
//! id behind the key id and at the end of the prologue; or in mode `ticket` by a proof:
//!
//! ```text
//! noise    u8 version 1 | u8 kind 2 | u8 k | key id | u8 t | token id (t bytes) | Noise message 1
//! ticket   u8 version 1 | u8 kind 2 | u8 t | token id (t bytes) | proof (32 bytes)
//! proof    HMAC-SHA256(secret, "meshgate resume proof" 00 | token id | SHA-256(credential))
//! ```

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::{Digest, Sha256};
use snow::{Builder, HandshakeState};

use crate::error::Error;
use crate::seal::{Direction, Seal};

const PATTERN: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
const RESUME_PATTERN: &str = "Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s";
const VERSION: u8 = 1;
const KIND: u8 = 1;
const KIND_RESUME: u8 = 2;
const PROOF: &[u8] = b"meshgate resume proof\0";
const MODE_NOISE: u8 = 2;
/// What this client calls itself in the server's log.
const CLIENT: &str = "meshgate-client";
/// Noise's own limit for a message.
const MAX_MESSAGE: usize = 65_535;

/// How to log in. The listener knows one way; there is nothing to negotiate.
#[derive(Debug, Clone)]
pub enum Login {
    /// Not at all: frames from the start.
    None,
    /// The credential goes in the login frame; frames stay plain.
    Ticket(Credential),
    /// Frames are sealed from the handshake on.
    Noise { server: NoiseServer, credential: Credential },
    /// Goes on with a session that logged in with this ticket.
    ResumeTicket { credential: Credential, token: ResumeToken },
    /// Goes on with a session that logged in by Noise.
    ResumeNoise { server: NoiseServer, token: ResumeToken },
}

/// What says who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Ticket(String),
    Jwt(String),
    /// What the studio's own login server understands.
    Opaque(Vec<u8>),
}

/// What the client knows of the service before it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoiseServer {
    pub public_key: [u8; 32],
    /// Names the public key, at most 255 bytes.
    pub key_id: Vec<u8>,
    pub audience: String,
    /// The layout's name, at most 255 bytes.
    pub layout: String,
}

/// What the server says to a successful login.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LoginReply {
    #[prost(bytes = "vec", tag = "1")]
    pub session_id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub user: String,
    /// When the session ends at the latest, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub expires_at_ms: u64,
    #[prost(message, optional, tag = "4")]
    pub resume: Option<ResumeToken>,
    /// 1 after a login, one more with each resume.
    #[prost(uint32, tag = "5")]
    pub generation: u32,
    /// Calls that were sent over a connection of this generation or before, and have no reply, are
    /// lost.
    #[prost(uint32, tag = "6")]
    pub lost_up_to: u32,
}

/// What a session is resumed with; kept secret.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct ResumeToken {
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub secret: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub grace_ms: u64,
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ResumeToken {
    /// The body of the login frame that resumes a session of mode `ticket`.
    pub fn ticket_message(&self, credential: &Credential) -> Result<Vec<u8>, Error> {
        let mut proof = Hmac::<Sha256>::new_from_slice(&self.secret)
            .map_err(|_| Error::Handshake("the token has no secret".into()))?;
        proof.update(PROOF);
        proof.update(&self.id);
        proof.update(&Sha256::digest(credential.bytes()));
        let mut message = vec![VERSION, KIND_RESUME, self.id_length()?];
        message.extend(&self.id);
        message.extend(proof.finalize().into_bytes());
        Ok(message)
    }

    fn id_length(&self) -> Result<u8, Error> {
        u8::try_from(self.id.len())
            .map_err(|_| Error::Handshake("the token's id is too long".into()))
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct LoginRequest {
    // A oneof of the three, so at most one is set.
    #[prost(string, optional, tag = "1")]
    ticket: Option<String>,
    #[prost(string, optional, tag = "2")]
    jwt: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    opaque: Option<Vec<u8>>,
    #[prost(string, tag = "15")]
    client: String,
}

impl Credential {
    /// As a ticket login carries it: nothing around it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Ticket(text) | Self::Jwt(text) => text.as_bytes(),
            Self::Opaque(bytes) => bytes,
        }
    }

    /// The bytes of a `LoginRequest`.
    pub fn login_request(&self) -> Vec<u8> {
        let mut request = LoginRequest { client: CLIENT.to_owned(), ..LoginRequest::default() };
        match self.clone() {
            Self::Ticket(ticket) => request.ticket = Some(ticket),
            Self::Jwt(jwt) => request.jwt = Some(jwt),
            Self::Opaque(opaque) => request.opaque = Some(opaque),
        }
        request.encode_to_vec()
    }
}

impl NoiseServer {
    /// What both sides mix into the handshake; with a different one it fails.
    pub fn prologue(&self) -> Result<Vec<u8>, Error> {
        let too_long = |what: &str| Error::Handshake(format!("the {what} is too long"));
        let layout = u8::try_from(self.layout.len()).map_err(|_| too_long("layout's name"))?;
        let audience = u16::try_from(self.audience.len()).map_err(|_| too_long("audience"))?;
        let mut prologue = b"meshgate-session\0".to_vec();
        prologue.extend([VERSION, MODE_NOISE, layout]);
        prologue.extend(self.layout.as_bytes());
        prologue.extend(audience.to_be_bytes());
        prologue.extend(self.audience.as_bytes());
        prologue.push(self.key_id_length()?);
        prologue.extend(&self.key_id);
        Ok(prologue)
    }

    fn key_id_length(&self) -> Result<u8, Error> {
        u8::try_from(self.key_id.len())
            .map_err(|_| Error::Handshake("the key id is too long".into()))
    }
}

/// A Noise handshake that waits for the server's message.
pub struct Handshake {
    state: HandshakeState,
    kind: u8,
}

impl Handshake {
    /// Makes the login frame's body.
    pub fn start(server: &NoiseServer, credential: &Credential) -> Result<(Self, Vec<u8>), Error> {
        Self::start_with(server, &credential.login_request(), None, None)
    }

    /// Makes the body of the login frame that resumes a session.
    pub fn resume(server: &NoiseServer, token: &ResumeToken) -> Result<(Self, Vec<u8>), Error> {
        let request = LoginRequest { client: CLIENT.to_owned(), ..LoginRequest::default() };
        Self::start_with(server, &request.encode_to_vec(), Some(token), None)
    }

    /// `ephemeral`: the client's own key for once, which no handshake but a test vector fixes.
    fn start_with(
        server: &NoiseServer,
        login_request: &[u8],
        token: Option<&ResumeToken>,
        ephemeral: Option<&[u8]>,
    ) -> Result<(Self, Vec<u8>), Error> {
        let (pattern, kind) =
            if token.is_some() { (RESUME_PATTERN, KIND_RESUME) } else { (PATTERN, KIND) };
        let mut named = Vec::new();
        let mut secret = None;
        if let Some(token) = token {
            named.push(token.id_length()?);
            named.extend(&token.id);
            let bytes = <[u8; 32]>::try_from(token.secret.as_slice());
            secret = Some(bytes.map_err(|_| Error::Handshake("a secret has 32 bytes".into()))?);
        }
        let prologue = [server.prologue()?, named.clone()].concat();
        let builder = Builder::new(pattern.parse().map_err(noise)?);
        let builder = match &secret {
            Some(secret) => builder.psk(0, secret).map_err(noise)?,
            None => builder,
        };
        let mut state = builder
            .prologue(&prologue)
            .and_then(|builder| builder.remote_public_key(&server.public_key))
            .map(|builder| match ephemeral {
                Some(key) => builder.fixed_ephemeral_key_for_testing_only(key),
                None => builder,
            })
            .and_then(|builder| builder.build_initiator())
            .map_err(noise)?;
        let mut message = vec![0; MAX_MESSAGE];
        let length = state.write_message(login_request, &mut message).map_err(noise)?;
        let mut body = vec![VERSION, kind, server.key_id_length()?];
        body.extend(&server.key_id);
        body.extend(named);
        body.extend(&message[..length]);
        Ok((Self { state, kind }, body))
    }

    /// Takes the login reply's body; gives the two directions' seals, the client's first.
    pub fn finish(mut self, body: &[u8]) -> Result<(LoginReply, Seal, Seal), Error> {
        let Some(message) = body.strip_prefix(&[VERSION, self.kind]) else {
            return Err(Error::Handshake("the reply has another version or kind".into()));
        };
        let mut payload = vec![0; MAX_MESSAGE];
        let length = self.state.read_message(message, &mut payload).map_err(noise)?;
        let reply = login_reply(&payload[..length])?;
        let (to_server, to_client) = self.state.dangerously_get_raw_split();
        let outgoing = Seal::new(&to_server, Direction::ClientToServer);
        let incoming = Seal::new(&to_client, Direction::ServerToClient);
        Ok((reply, outgoing, incoming))
    }
}

/// Reads a `LoginReply`.
pub(crate) fn login_reply(bytes: &[u8]) -> Result<LoginReply, Error> {
    LoginReply::decode(bytes)
        .map_err(|error| Error::Handshake(format!("the reply is no LoginReply: {error}")))
}

fn noise(error: snow::Error) -> Error {
    Error::Handshake(format!("Noise: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::frame::Frame;

    /// The server's side of a handshake, as the companion would do it.
    pub(crate) struct Server {
        pub private_key: Vec<u8>,
        pub known_as: NoiseServer,
    }

    impl Server {
        pub fn new() -> Self {
            let keys = Builder::new(PATTERN.parse().unwrap()).generate_keypair().unwrap();
            let known_as = NoiseServer {
                public_key: keys.public.try_into().unwrap(),
                key_id: b"k1".to_vec(),
                audience: "demo".into(),
                layout: "game".into(),
            };
            Self { private_key: keys.private, known_as }
        }

        /// Answers a login body; gives the request's payload, the reply's body and the seals,
        /// the client's direction first.
        pub fn answer(&self, body: &[u8]) -> Result<(Vec<u8>, Vec<u8>, Seal, Seal), snow::Error> {
            assert_eq!(body[..5], *b"\x01\x01\x02k1");
            let mut state = Builder::new(PATTERN.parse().unwrap())
                .prologue(&self.known_as.prologue().unwrap())?
                .local_private_key(&self.private_key)?
                .build_responder()?;
            let mut payload = vec![0; MAX_MESSAGE];
            let length = state.read_message(&body[5..], &mut payload)?;
            payload.truncate(length);
            let reply = LoginReply {
                session_id: vec![9; 16],
                user: "ada".into(),
                expires_at_ms: 5,
                ..LoginReply::default()
            };
            let mut message = vec![0; MAX_MESSAGE];
            let length = state.write_message(&reply.encode_to_vec(), &mut message)?;
            let body = [&[1, 1], &message[..length]].concat();
            let (to_server, to_client) = state.dangerously_get_raw_split();
            let incoming = Seal::new(&to_server, Direction::ClientToServer);
            let outgoing = Seal::new(&to_client, Direction::ServerToClient);
            Ok((payload, body, incoming, outgoing))
        }
    }

    #[test]
    fn both_sides_agree_on_reply_and_keys() {
        let server = Server::new();
        let credential = Credential::Ticket("t".into());
        let (handshake, body) = Handshake::start(&server.known_as, &credential).unwrap();
        let (payload, reply, mut incoming, mut outgoing) = server.answer(&body).unwrap();
        assert_eq!(payload, credential.login_request());
        let (reply, mut to_server, mut to_client) = handshake.finish(&reply).unwrap();
        assert_eq!((reply.user.as_str(), reply.expires_at_ms), ("ada", 5));

        for (from, to) in [(&mut to_server, &mut incoming), (&mut outgoing, &mut to_client)] {
            let frame = Frame::request(1100, 1, *b"hello");
            let mut bytes = bytes::BytesMut::from(&from.seal(&frame)[..]);
            assert_eq!(to.open(Frame::decode(&mut bytes).unwrap().unwrap()), Ok(frame));
        }
    }

    #[test]
    fn another_prologue_or_key_fails() {
        let server = Server::new();
        let known = &server.known_as;
        let other_audience = NoiseServer { audience: "other".into(), ..known.clone() };
        let other_layout = NoiseServer { layout: "other".into(), ..known.clone() };
        let other_key =
            NoiseServer { public_key: Server::new().known_as.public_key, ..known.clone() };
        for wrong in [other_audience, other_layout, other_key] {
            let (_, body) = Handshake::start(&wrong, &Credential::Jwt("j".into())).unwrap();
            assert!(server.answer(&body).is_err());
        }
    }

    #[test]
    fn a_tampered_reply_fails() {
        let server = Server::new();
        let credential = Credential::Ticket("t".into());
        let (handshake, body) = Handshake::start(&server.known_as, &credential).unwrap();
        let mut reply = server.answer(&body).unwrap().1;
        *reply.last_mut().unwrap() ^= 1;
        assert!(matches!(handshake.finish(&reply), Err(Error::Handshake(_))));
    }

    fn bytes(hex: &serde_json::Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Of a resume.
    fn token(vector: &serde_json::Value) -> Option<ResumeToken> {
        let id = bytes(vector.get("token_id")?);
        Some(ResumeToken { id, secret: bytes(&vector["token_secret"]), grace_ms: 0 })
    }

    /// The vectors that the protocol's document names; the other side of them is OpenSSL's.
    #[test]
    fn handshakes_are_those_of_the_vectors() {
        let logins = include_str!("../../vectors/session/noise.json");
        let resumes = include_str!("../../vectors/session/resume.json");
        let logins: serde_json::Value = serde_json::from_str(logins).unwrap();
        let resumes: serde_json::Value = serde_json::from_str(resumes).unwrap();
        let (logins, resumes) = (logins.as_array().unwrap(), resumes["noise"].as_array().unwrap());
        assert!(!logins.is_empty() && !resumes.is_empty());
        for vector in logins.iter().chain(resumes) {
            let name = vector["name"].as_str().unwrap();
            let server = NoiseServer {
                public_key: bytes(&vector["server_static_public"]).try_into().unwrap(),
                key_id: vector["key_id"].as_str().unwrap().into(),
                audience: vector["audience"].as_str().unwrap().into(),
                layout: vector["layout"].as_str().unwrap().into(),
            };
            let token = token(vector);
            let named =
                token.as_ref().map_or(vec![], |t| [&[t.id.len() as u8], &t.id[..]].concat());
            let prologue = [server.prologue().unwrap(), named].concat();
            assert_eq!(prologue, bytes(&vector["prologue"]), "{name}");
            let ephemeral = bytes(&vector["client_ephemeral_private"]);
            let request = bytes(&vector["login_request"]);
            let (handshake, message) =
                Handshake::start_with(&server, &request, token.as_ref(), Some(&ephemeral)).unwrap();
            assert_eq!(message, bytes(&vector["login_message"]), "{name}");
            let (reply, mut to_server, mut to_client) =
                handshake.finish(&bytes(&vector["reply_message"])).unwrap();
            assert_eq!(reply.encode_to_vec(), bytes(&vector["login_reply"]), "{name}");
            for (seal, key, direction) in [
                (&mut to_server, "client_to_server_key", Direction::ClientToServer),
                (&mut to_client, "server_to_client_key", Direction::ServerToClient),
            ] {
                let key = bytes(&vector[key]).try_into().unwrap();
                let frame = Frame::request(1, 1, *b"same key, same bytes");
                assert_eq!(seal.seal(&frame), Seal::new(&key, direction).seal(&frame), "{name}");
            }
        }
    }

    #[test]
    fn proofs_of_tickets_are_those_of_the_vectors() {
        let vectors = include_str!("../../vectors/session/resume.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        for vector in vectors["ticket"].as_array().unwrap() {
            let credential = Credential::Ticket(vector["credential"].as_str().unwrap().into());
            let message = token(vector).unwrap().ticket_message(&credential).unwrap();
            assert_eq!(message, bytes(&vector["resume_message"]), "{}", vector["name"]);
        }
    }

    #[test]
    fn prologue_and_request_have_the_documented_bytes() {
        let prologue = Server::new().known_as.prologue().unwrap();
        assert_eq!(prologue, b"meshgate-session\0\x01\x02\x04game\x00\x04demo\x02k1");
        let request = Credential::Jwt("j".into()).login_request();
        assert_eq!(request, b"\x12\x01j\x7a\x0fmeshgate-client");
    }
}
