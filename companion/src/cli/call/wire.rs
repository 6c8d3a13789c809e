//! The connection: frames out and in, sealed once there are keys.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use meshgate_filter::protocol::layout::spec::Correlation;
use meshgate_filter::protocol::layout::{
    Command, Decoded, FieldValue, Flags, FrameSeal, Layout, Request,
};
use meshgate_filter::session::{Opener, Sealer};

use super::body::printable;
use crate::domain::key::hex;

/// A person's call: larger frames are read by programs.
const MAX_FRAME: usize = 64 << 20;

pub struct Wire {
    layout: Arc<Layout>,
    stream: TcpStream,
    address: SocketAddr,
    timeout: Duration,
    input: Vec<u8>,
    opener: Option<Opener>,
    /// `None` once it sends by itself.
    outgoing: Option<Outgoing>,
    /// Set as long as there is more to send: an answer may then take any time.
    sending: Arc<AtomicBool>,
    pub verbose: bool,
}

/// The way out of a connection.
pub struct Outgoing {
    layout: Arc<Layout>,
    stream: TcpStream,
    sealer: Option<Sealer>,
    verbose: bool,
}

/// How often a wait for an answer looks whether it is over.
const GLANCE: Duration = Duration::from_millis(100);

/// A reply or a push, opened and decompressed.
pub struct Reply {
    pub status: i64,
    pub flags: Flags,
    pub sequence: u64,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn failed(&self) -> bool {
        self.status != 0 || self.flags.error()
    }

    /// "has status 5: no such thing"
    pub fn complaint(&self) -> String {
        match printable(&self.body) {
            Some("") => format!("has status {}", self.status),
            Some(text) => format!("has status {}: {text}", self.status),
            None => format!("has status {}, and the body {}", self.status, hex(&self.body)),
        }
    }
}

impl Wire {
    pub fn connect(
        address: &str,
        layout: Arc<Layout>,
        timeout: Duration,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        let reached = || format!("cannot reach {address}");
        let addresses = address.to_socket_addrs().with_context(reached)?;
        let mut last = None;
        for candidate in addresses {
            match TcpStream::connect_timeout(&candidate, timeout) {
                Ok(stream) => {
                    return Self::over(stream, candidate, layout, timeout, verbose);
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error).with_context(reached),
            None => bail!("{address} is no address"),
        }
    }

    fn over(
        stream: TcpStream,
        address: SocketAddr,
        layout: Arc<Layout>,
        timeout: Duration,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(timeout.min(GLANCE)))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let outgoing =
            Outgoing { layout: layout.clone(), stream: stream.try_clone()?, sealer: None, verbose };
        Ok(Self {
            layout,
            stream,
            address,
            timeout,
            input: Vec::new(),
            opener: None,
            outgoing: Some(outgoing),
            sending: Arc::default(),
            verbose,
        })
    }

    /// Begins again, over a new connection to the same address.
    pub fn reconnect(&mut self) -> anyhow::Result<()> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)
            .with_context(|| format!("cannot reach {} again", self.address))?;
        let (layout, verbose) = (Arc::clone(&self.layout), self.verbose);
        *self = Self::over(stream, self.address, layout, self.timeout, verbose)?;
        Ok(())
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// From now on every frame is sealed.
    pub fn seal(&mut self, sealer: Sealer, opener: Opener) {
        self.opener = Some(opener);
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.sealer = Some(sealer);
        }
    }

    /// Sends from a thread of its own from now on. Until that has ended, an answer may take any
    /// time; if it fails, nothing more comes, and what was wrong is in the channel.
    pub fn send_by(
        &mut self,
        send: impl FnOnce(&mut Outgoing) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Receiver<anyhow::Error>> {
        let mut outgoing = self.outgoing.take().context("it sends already")?;
        let sending = self.sending.clone();
        sending.store(true, Ordering::Release);
        let (failure, failed) = channel();
        std::thread::spawn(move || {
            if let Err(error) = send(&mut outgoing) {
                // Nobody who waits for an answer waits for ever; and nobody may wait any more.
                let _ = failure.send(error);
                let _ = outgoing.stream.shutdown(Shutdown::Both);
            }
            sending.store(false, Ordering::Release);
        });
        Ok(failed)
    }

    pub fn send(
        &mut self,
        command: Command<'_>,
        sequence: u64,
        one_way: bool,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let outgoing = self.outgoing.as_mut().context("it sends by itself")?;
        outgoing.send(command, sequence, one_way, body)
    }

    /// The reply to the request of this sequence number. The messages of its stream, which come
    /// before it, go to `message`; other pushes are shown on standard error.
    pub fn reply(
        &mut self,
        sequence: u64,
        message: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Reply> {
        loop {
            let reply = self.receive()?;
            let answers = match self.layout.correlation() {
                Correlation::Sequence => reply.sequence == sequence,
                Correlation::Order => true,
            };
            if answers && !reply.flags.push() {
                return Ok(reply);
            }
            if answers && reply.sequence == sequence && !reply.failed() {
                message(&reply.body)?;
                continue;
            }
            let kind = if reply.flags.push() { "push" } else { "stray reply" };
            let text = printable(&reply.body).map_or_else(|| hex(&reply.body), str::to_owned);
            eprintln!("({kind}, sequence {}, status {}: {text})", reply.sequence, reply.status);
        }
    }

    fn receive(&mut self) -> anyhow::Result<Reply> {
        let mut since = Instant::now();
        loop {
            let read = read_frame(&self.layout, &self.input, self.opener.as_mut())?;
            if let Some((reply, length)) = read {
                let frame: Vec<_> = self.input.drain(..length).collect();
                if self.verbose {
                    show(&self.layout, '<', &frame);
                }
                return Ok(reply);
            }
            let mut chunk = [0; 16 * 1024];
            let length = match self.stream.read(&mut chunk) {
                Ok(0) if self.input.is_empty() => {
                    bail!("the connection was closed without a reply")
                }
                Ok(0) => bail!(
                    "the connection was closed in the middle of a frame: {}",
                    hex(&self.input)
                ),
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if self.sending.load(Ordering::Acquire) {
                        since = Instant::now();
                    }
                    if since.elapsed() >= self.timeout {
                        bail!("no reply within {:?}", self.timeout)
                    }
                    continue;
                }
                Err(error) => return Err(error).context("the connection broke"),
            };
            self.input.extend_from_slice(chunk.get(..length).unwrap_or_default());
        }
    }
}

impl Outgoing {
    pub fn send(
        &mut self,
        command: Command<'_>,
        sequence: u64,
        one_way: bool,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let parts = [body];
        let mut request = Request::new(command, sequence, &parts);
        request.one_way = one_way;
        let seal = self.sealer.as_mut().map(|sealer| sealer as &mut dyn FrameSeal);
        let mut frame = Vec::new();
        self.layout.encode_request(request, seal, &mut frame).context("the frame")?;
        if self.verbose {
            show(&self.layout, '>', &frame);
        }
        self.stream.write_all(&frame).context("the connection broke while sending")
    }
}

/// Header fields and bytes, for `--verbose`.
fn show(layout: &Layout, way: char, frame: &[u8]) {
    if let Ok(Decoded::Frame(decoded)) = layout.decode(frame, MAX_FRAME) {
        let fields: Vec<_> = layout
            .fields(&decoded)
            .map(|(name, value)| format!("{name}={}", value_text(&value)))
            .collect();
        eprintln!("{way} {} flags={:?}", fields.join(" "), decoded.flags);
    }
    for (number, line) in frame.chunks(16).enumerate() {
        let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = line
            .iter()
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' })
            .collect();
        eprintln!("{way} {:06x}  {:<47}  {text}", number.saturating_mul(16), bytes.join(" "));
    }
}

/// The frame at the start of the input and its length, if it is all there.
fn read_frame(
    layout: &Layout,
    input: &[u8],
    opener: Option<&mut Opener>,
) -> anyhow::Result<Option<(Reply, usize)>> {
    let frame = match layout.decode(input, MAX_FRAME) {
        Ok(Decoded::Incomplete { .. }) => return Ok(None),
        Ok(Decoded::Frame(frame)) => frame,
        Err(error) => bail!("what came is no frame of this layout: {error}; {}", hex(input)),
    };
    let mut opened = Vec::new();
    match (opener, frame.flags.sealed()) {
        (Some(opener), true) => {
            let mut associated = Vec::new();
            layout.associated_data(&frame, &mut associated);
            opened.extend_from_slice(frame.body);
            let len = opener.open(&[&associated], &mut opened)?.len();
            opened.truncate(len);
        }
        (None, false) => opened.extend_from_slice(frame.body),
        (Some(_), false) => bail!("a frame came without a seal"),
        (None, true) => bail!("a sealed frame came, and there are no keys"),
    }
    let mut scratch = Vec::new();
    let body = layout.open_body(frame.flags, &opened, MAX_FRAME, &mut scratch)?;
    let (status, body) = layout.split_status(&frame, body)?;
    let reply = Reply { status, flags: frame.flags, sequence: frame.sequence, body: body.to_vec() };
    Ok(Some((reply, frame.raw.len())))
}

fn value_text(value: &FieldValue<'_>) -> String {
    match value {
        FieldValue::Unsigned(number) => number.to_string(),
        FieldValue::Signed(number) => number.to_string(),
        FieldValue::Text(text) => text.escape_ascii().to_string(),
        FieldValue::Bytes(bytes) => hex(bytes),
    }
}
