//! `meshgate call`: a client of any private protocol that a layout describes, for people.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use meshgate_filter::config::command::resolve_text;
use meshgate_filter::config::{CommandShape, Config, LoginConfig, LoginMode, OwnedCommand};
use meshgate_filter::protocol::layout::{Layout, LayoutSpec};
use meshgate_filter::route::Routes;

use self::body::{Body, Method};
use self::login::Credential;
use self::wire::{Outgoing, Wire};
use super::files;
use crate::config::duration;

pub(super) mod body;
mod login;
mod wire;

/// Sends one request of a private protocol and prints its reply.
///
/// The messages of a stream are printed as they come; --timeout is for each of them. On a stream of
/// the client's, each line of standard input is a message: JSON with --proto, else text. Its end is
/// the stream's.
///
/// The frame layout comes from a layout file, or with everything about logins from the filter's
/// own configuration. Bodies are JSON (with a .proto file), text, hexadecimal or a file.
#[derive(Args)]
pub struct Call {
    /// Where the private protocol is spoken
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// The frame layout
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    layout: Option<PathBuf>,
    /// The filter's configuration: its layout, how to log in, and the methods of commands
    #[arg(long, value_name = "FILE", conflicts_with = "layout")]
    config: Option<PathBuf>,
    /// The command: a number (also 0x…), or a name where the layout's commands are text
    #[arg(long)]
    command: String,
    /// The sequence number of the request
    #[arg(long, default_value_t = 1)]
    sequence: u64,
    /// Wait for no reply
    #[arg(long)]
    one_way: bool,
    /// The command of a client's further messages on a stream [default: that of --config]
    #[arg(long, value_name = "COMMAND", requires = "close")]
    send: Option<String>,
    /// The command that ends them [default: that of --config]
    #[arg(long, value_name = "COMMAND", requires = "send")]
    close: Option<String>,
    /// How long to wait, for the connection and for each answer
    #[arg(long, value_parser = duration::parse, default_value = "5s", value_name = "DURATION")]
    timeout: Duration,

    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    login: LoginArgs,

    /// How to print the reply's body
    #[arg(long, value_enum, default_value = "auto")]
    output: Output,
    /// Show the frames that go out and come in
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Args)]
#[group(multiple = true)]
struct BodyArgs {
    /// The body as JSON of the method's request message; needs --proto
    #[arg(long, value_name = "JSON", group = "body", requires = "proto", help_heading = "Body")]
    json: Option<String>,
    /// The body as text
    #[arg(long, group = "body", help_heading = "Body")]
    text: Option<String>,
    /// The body in hexadecimal
    #[arg(long, group = "body", help_heading = "Body")]
    hex: Option<String>,
    /// The body from a file
    #[arg(long, value_name = "FILE", group = "body", help_heading = "Body")]
    file: Option<PathBuf>,
    /// What the messages look like: a .proto file, or an encoded FileDescriptorSet
    #[arg(long, value_name = "FILE", help_heading = "Body")]
    proto: Option<PathBuf>,
    /// Where the .proto file's imports are [default: beside it]
    #[arg(long, value_name = "FOLDER", requires = "proto", help_heading = "Body")]
    proto_path: Vec<PathBuf>,
    /// The method whose messages these are, /package.Service/Method [default: the one that
    /// --config gives the command]
    #[arg(long, requires = "proto", help_heading = "Body")]
    method: Option<String>,
}

#[derive(Args)]
struct LoginArgs {
    /// Log in with this ticket first; @FILE reads it from a file
    #[arg(
        long,
        conflicts_with = "jwt",
        env = "MESHGATE_TICKET",
        hide_env_values = true,
        help_heading = "Login"
    )]
    ticket: Option<String>,
    /// Log in with this JSON Web Token first; @FILE reads it from a file
    #[arg(long, env = "MESHGATE_JWT", hide_env_values = true, help_heading = "Login")]
    jwt: Option<String>,
    /// Log in with this first, which the companion hands to a login server; @FILE: the bytes of a
    /// file
    #[arg(long, value_name = "TEXT", help_heading = "Login")]
    credential: Option<String>,
    /// The companion's public key (a key file of kind noise-public): log in by Noise and seal the
    /// frames
    #[arg(long, value_name = "FILE", help_heading = "Login")]
    noise_key: Option<PathBuf>,
    /// The audience, which a Noise login is bound to [default: that of --config]
    #[arg(long, help_heading = "Login")]
    audience: Option<String>,
    /// The command of the login frame [default: that of --config]
    #[arg(long, value_name = "COMMAND", help_heading = "Login")]
    login_command: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON with --proto, else text where it is printable, else hexadecimal
    Auto,
    Json,
    Text,
    Hex,
    /// The bytes as they are
    Raw,
}

/// How the layout and the commands are known.
struct Known {
    layout: Arc<Layout>,
    shape: CommandShape,
    /// From a whole configuration.
    session: Option<LoginConfig>,
    routes: Routes,
}

impl Call {
    pub fn run(self) -> anyhow::Result<()> {
        let known = self.known()?;
        let command = known.command(&self.command).context("--command")?;
        let body = self.body.read(&known, &command)?;
        let parts = self.parts(&known, &command)?;
        let layout = known.layout.clone();
        let mut wire = Wire::connect(&self.connect, layout, self.timeout, self.verbose)?;
        self.login.log_in(&known, &mut wire)?;
        wire.send(command.borrow(), self.sequence, self.one_way, &body.request)?;
        if self.one_way {
            return Ok(());
        }
        let failed = match parts {
            None => None,
            Some(parts) => {
                let (sequence, method) = (self.sequence, body.method.clone());
                Some(wire.send_by(move |out| parts.send_lines(out, sequence, method.as_ref()))?)
            }
        };
        let mut streamed = false;
        let reply = wire.reply(self.sequence, &mut |message| {
            streamed = true;
            body.print(message, self.output)
        });
        if reply.is_err()
            && let Some(Ok(error)) = failed.map(|failed| failed.try_recv())
        {
            return Err(error);
        }
        let reply = reply?;
        if reply.failed() {
            bail!("the reply {}", reply.complaint());
        }
        if streamed && reply.body.is_empty() {
            return Ok(());
        }
        body.print(&reply.body, self.output)
    }

    /// How to go on with a stream of the client's, if the command opens one.
    fn parts(&self, known: &Known, command: &OwnedCommand) -> anyhow::Result<Option<Parts>> {
        if let (Some(send), Some(close)) = (&self.send, &self.close) {
            let send = known.command(send).context("--send")?;
            return Ok(Some(Parts { send, close: known.command(close).context("--close")? }));
        }
        let route = known.routes.lookup(command.borrow());
        let stream = route.filter(|route| route.kind.stays_open());
        let stream = stream.and_then(|route| route.stream.as_deref());
        Ok(stream.and_then(|stream| {
            Some(Parts { send: stream.send.clone()?, close: stream.close.clone()? })
        }))
    }

    fn known(&self) -> anyhow::Result<Known> {
        let (file, whole) = match (&self.config, &self.layout) {
            (Some(config), _) => (config, true),
            (None, Some(layout)) => (layout, false),
            (None, None) => bail!("give --layout or --config"),
        };
        let document = files::read(file)?;
        let name = || file.display().to_string();
        if whole {
            let config = Config::parse(&document).with_context(name)?;
            return Ok(Known {
                layout: Arc::new(config.layout),
                shape: config.command_shape,
                session: config.session.login,
                routes: config.routes,
            });
        }
        let spec: LayoutSpec = serde_json::from_slice(&document).with_context(name)?;
        let shape = CommandShape::of(&spec)
            .with_context(|| format!("{}: no field has the role \"command\"", name()))?;
        let layout = Layout::compile(spec).with_context(name)?;
        Ok(Known { layout: Arc::new(layout), shape, session: None, routes: Routes::default() })
    }
}

/// The commands of frames of a stream that is open.
struct Parts {
    send: OwnedCommand,
    close: OwnedCommand,
}

impl Parts {
    /// A message for each line of standard input, and then the end.
    fn send_lines(
        self,
        out: &mut Outgoing,
        sequence: u64,
        method: Option<&Method>,
    ) -> anyhow::Result<()> {
        for line in std::io::stdin().lines() {
            let line = line.context("standard input")?;
            let message = match method {
                Some(_) if line.trim().is_empty() => continue,
                Some(method) => method.request(&line)?,
                None => line.into_bytes(),
            };
            out.send(self.send.borrow(), sequence, false, &message)?;
        }
        out.send(self.close.borrow(), sequence, false, &[])
    }
}

impl Known {
    fn command(&self, text: &str) -> anyhow::Result<OwnedCommand> {
        resolve_text(text, self.shape).map_err(anyhow::Error::msg)
    }
}

impl BodyArgs {
    fn read(&self, known: &Known, command: &OwnedCommand) -> anyhow::Result<Body> {
        let method = match &self.proto {
            None => None,
            Some(file) => {
                let route = known.routes.lookup(command.borrow());
                let name = match (&self.method, route) {
                    (Some(method), _) => method.as_str(),
                    (None, Some(route)) => &route.method,
                    (None, None) => bail!("--proto needs --method /package.Service/Method"),
                };
                Some(Method::find(file, &self.proto_path, name)?)
            }
        };
        let request = match (self, &method) {
            (Self { json: Some(json), .. }, Some(method)) => method.request(json)?,
            (Self { text: Some(text), .. }, _) => text.clone().into_bytes(),
            (Self { hex: Some(hex), .. }, _) => body::from_hex(hex)?,
            (Self { file: Some(file), .. }, _) => files::read(file)?.to_vec(),
            _ => Vec::new(),
        };
        Ok(Body { request, method })
    }
}

impl LoginArgs {
    fn log_in(&self, known: &Known, wire: &mut Wire) -> anyhow::Result<()> {
        let credential = match (&self.credential, &self.ticket, &self.jwt) {
            (Some(opaque), ..) => Credential::Opaque(login::bytes(opaque)?),
            (None, Some(ticket), _) => Credential::Ticket(login::text(ticket)?),
            (None, None, Some(jwt)) => Credential::Jwt(login::text(jwt)?),
            (None, None, None) if self.noise_key.is_some() => {
                bail!("a Noise login needs --ticket, --jwt or --credential")
            }
            (None, None, None) => return Ok(()),
        };
        let session = known.session.as_ref();
        let command = match (&self.login_command, session) {
            (Some(text), _) => known.command(text).context("--login-command")?,
            (None, Some(session)) => session.command.clone(),
            (None, None) => bail!("a login needs --login-command, or --config that says it"),
        };
        let Some(key) = &self.noise_key else {
            anyhow::ensure!(
                session.is_none_or(|session| session.mode == LoginMode::Ticket),
                "the configuration asks for Noise logins: give --noise-key"
            );
            return login::by_ticket(wire, command.borrow(), &credential);
        };
        let audience = match (&self.audience, session) {
            (Some(audience), _) => audience.as_str(),
            (None, Some(session)) => &session.audience,
            (None, None) => bail!("a Noise login needs --audience, or --config that says it"),
        };
        login::by_noise(wire, command.borrow(), credential, &files::read_key(key)?, audience)
    }
}
