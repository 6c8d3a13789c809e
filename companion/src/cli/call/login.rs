//! The client's side of a login (`filter/src/session/PROTOCOL.md`).

use anyhow::{Context as _, bail};
use meshgate_filter::protocol::layout::Command;
use meshgate_filter::session::seal::{TrafficKey, TrafficKeys, client_side};
use meshgate_proto::session::v1::{LoginReply, LoginRequest, login_request};
use prost::Message as _;
use snow::Builder;
use zeroize::Zeroizing;

use super::wire::Wire;
use crate::cli::files;
use crate::domain::cookie::{is_cookie, with_cookie};
use crate::domain::handshake::{NOISE, login_message, prologue, reply_message};
use crate::domain::key::{Key, Kind, hex};

/// The login frame's sequence number: the first one of the connection.
const SEQUENCE: u64 = 0;
/// What the login calls itself in the companion's log.
const CLIENT: &str = concat!("meshgate-call/", env!("CARGO_PKG_VERSION"));

pub enum Credential {
    Ticket(Zeroizing<String>),
    Jwt(Zeroizing<String>),
    /// For the studio's own login server.
    Opaque(Zeroizing<Vec<u8>>),
}

/// The bytes of a text, or for `@FILE` those of the file, all of them.
pub fn bytes(argument: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match argument.strip_prefix('@') {
        Some(file) => files::read(file.as_ref()),
        None => Ok(Zeroizing::new(argument.as_bytes().to_vec())),
    }
}

/// The text itself, or for `@FILE` what the file holds.
pub fn text(argument: &str) -> anyhow::Result<Zeroizing<String>> {
    let Some(file) = argument.strip_prefix('@') else {
        return Ok(Zeroizing::new(argument.to_owned()));
    };
    let bytes = files::read(file.as_ref())?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{file} holds no text"))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

pub fn by_ticket(
    wire: &mut Wire,
    command: Command<'_>,
    credential: &Credential,
) -> anyhow::Result<()> {
    let message = match credential {
        Credential::Ticket(text) | Credential::Jwt(text) => text.as_bytes(),
        Credential::Opaque(bytes) => bytes,
    };
    let reply = exchange(wire, command, message)?;
    show(wire, &LoginReply::decode(reply.as_slice()).context("the login's reply")?);
    Ok(())
}

pub fn by_noise(
    wire: &mut Wire,
    command: Command<'_>,
    credential: Credential,
    key: &Key,
    audience: &str,
) -> anyhow::Result<()> {
    let public = key.public().filter(|public| public.kind() == Kind::NoisePublic);
    let Some(public) = public else {
        bail!("key `{}` is of kind {}: give a noise-public key", key.id(), key.kind().name());
    };
    let credential = match &credential {
        Credential::Ticket(text) => login_request::Credential::Ticket(text.to_string()),
        Credential::Jwt(text) => login_request::Credential::Jwt(text.to_string()),
        Credential::Opaque(bytes) => login_request::Credential::Opaque(bytes.to_vec()),
    };
    let request = LoginRequest { credential: Some(credential), client: CLIENT.into() };
    let request = Zeroizing::new(request.encode_to_vec());
    let bound = prologue(wire.layout().name(), audience, key.id().as_bytes())
        .context("layout, audience and key id must have less than 256 bytes each")?;
    let mut state = Builder::new(NOISE.parse()?)
        .remote_public_key(public.bytes().expose())?
        .prologue(&bound)?
        .build_initiator()?;
    let message = login_message(key.id(), |noise| state.write_message(&request, noise))?;

    let reply = exchange(wire, command, &message)?;
    let noise = reply_message(&reply).context("the login's reply is of an unknown version")?;
    let mut payload = vec![0; noise.len()];
    let length = state
        .read_message(noise, &mut payload)
        .context("the reply does not come from the holder of this Noise key")?;
    payload.truncate(length);
    show(wire, &LoginReply::decode(payload.as_slice()).context("the login's reply")?);

    let (up, down) = state.dangerously_get_raw_split();
    let (up, down) = (Zeroizing::new(up), Zeroizing::new(down));
    let keys = (TrafficKey::from_slice(up.as_slice()), TrafficKey::from_slice(down.as_slice()));
    let (Some(client_to_server), Some(server_to_client)) = keys else {
        bail!("the handshake gave no keys");
    };
    let (sealer, opener) = client_side(&TrafficKeys { client_to_server, server_to_client });
    wire.seal(sealer, opener);
    Ok(())
}

fn exchange(wire: &mut Wire, command: Command<'_>, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    wire.send(command, SEQUENCE, false, message)?;
    let mut reply = wire.reply(SEQUENCE, &mut |_| Ok(())).context("the login")?;
    if reply.failed() && is_cookie(&reply.body) {
        let message = with_cookie(&reply.body, message).context("the cookie")?;
        wire.reconnect()?;
        wire.send(command, SEQUENCE, false, &message)?;
        reply = wire.reply(SEQUENCE, &mut |_| Ok(())).context("the login")?;
    }
    anyhow::ensure!(!reply.failed(), "the login was refused: the reply {}", reply.complaint());
    Ok(reply.body)
}

fn show(wire: &Wire, reply: &LoginReply) {
    if wire.verbose {
        eprintln!("logged in as {}, session {}", reply.user, hex(&reply.session_id));
    }
}
