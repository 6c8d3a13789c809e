//! How many Noise logins and resumes a second there can be, beside how many handshakes the bare crypto makes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use meshgate_client::{Frame, Seal};
use meshgate_game::private::command;
use meshgate_proto::admin::v1::admin_client::AdminClient;
use meshgate_proto::admin::v1::{KickSessionsRequest, kick_sessions_request::Whom};
use snow::Builder;

use crate::companion::{Companion, Visitors};
use crate::load::connect;
use crate::scenario::Running;

const NOISE: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
const NOISE_RESUME: &str = "Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s";
/// Logins under way at once: enough that no core waits for another.
const VISITORS: usize = 32;

/// Logins a second through Envoy, the filter and the companion: from the TCP connection to the
/// client's keys. Client, proxy and companion share the machine's cores.
pub fn logins(running: &Running, visitors: &Visitors, duration: Duration) -> Result<f64> {
    let failure = std::sync::Mutex::new(None);
    let rate = rate(VISITORS, duration, || {
        let login = || {
            let mut stream = connect(running.address)?;
            visitors.login(&mut stream)
        };
        login().map(drop).inspect_err(|error| {
            failure.lock().unwrap_or_else(|lock| lock.into_inner()).replace(error.to_string());
        })
    });
    rate.with_context(|| format!("a login failed: {:?}; {}", failure.into_inner(), running.log()))
}

/// Resumes a second, likewise, each over a connection of its own. Nobody sends a frame after it, so
/// one token does for all of a visitor's.
pub fn resumes(running: &Running, visitors: &Visitors, duration: Duration) -> Result<f64> {
    let away = || -> std::io::Result<_> {
        let mut stream = connect(running.address)?;
        let (reply, mut to_server, mut to_client) = visitors.login(&mut stream)?;
        begin(&mut stream, &mut to_server, &mut to_client)?;
        reply.resume.ok_or_else(|| std::io::Error::other("no token"))
    };
    let tokens = (0..VISITORS).map(|_| away()).collect::<std::io::Result<Vec<_>>>()?;
    let (next, failure) = (AtomicU64::new(0), std::sync::Mutex::new(None));
    let rate = rate(VISITORS, duration, || {
        let resume = || {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            visitors.resume(&mut connect(running.address)?, &tokens[number % VISITORS])
        };
        resume().map(drop).inspect_err(|error| {
            failure.lock().unwrap_or_else(|lock| lock.into_inner()).replace(error.to_string());
        })
    });
    rate.with_context(|| format!("a resume failed: {:?}; {}", failure.into_inner(), running.log()))
}

/// Handshakes a second of both sides of a resume, likewise bare.
pub fn bare_resumes(duration: Duration) -> Result<f64> {
    bare(NOISE_RESUME, Some(&[7; 32]), duration)
}

/// Handshakes a second of both sides in a bare loop, on every core: no socket, no proxy, no
/// ticket, no store.
pub fn bare_handshakes(duration: Duration) -> Result<f64> {
    bare(NOISE, None, duration)
}

fn bare(pattern: &str, secret: Option<&[u8; 32]>, duration: Duration) -> Result<f64> {
    let keys = Builder::new(NOISE.parse()?).generate_keypair()?;
    let handshake = || -> Result<(), snow::Error> {
        let pattern: snow::params::NoiseParams = pattern.parse()?;
        let mut client = Builder::new(pattern.clone()).remote_public_key(&keys.public)?;
        let mut server = Builder::new(pattern).local_private_key(&keys.private)?;
        if let Some(secret) = secret {
            (client, server) = (client.psk(0, secret)?, server.psk(0, secret)?);
        }
        let (mut client, mut server) = (client.build_initiator()?, server.build_responder()?);
        let (mut message, mut payload) = ([0; 512], [0; 512]);
        // About as long as a ticket and a login reply.
        let length = client.write_message(&[1; 300], &mut message)?;
        server.read_message(&message[..length], &mut payload)?;
        let length = server.write_message(&[2; 40], &mut message)?;
        client.read_message(&message[..length], &mut payload)?;
        client.dangerously_get_raw_split();
        server.dangerously_get_raw_split();
        Ok(())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    rate(cores, duration, handshake)
}

/// What a kick takes, from the operator's call to the goodbye at the client.
#[derive(Debug, Clone, Copy)]
pub struct Kick {
    /// Of the one proxy.
    pub connections: usize,
    /// The median of some, and the longest of them.
    pub median_ms: f64,
    pub most_ms: f64,
}

/// Kicks some of the sessions of a proxy that has so many.
pub fn kick(running: &Running, companion: &Companion, connections: usize) -> Result<Kick> {
    const KICKS: usize = 20;
    let (visitors, held) = (&companion.visitors, std::sync::Mutex::new(Vec::new()));
    let failed = std::thread::scope(|scope| {
        let log_in = |share: usize| -> std::io::Result<()> {
            for _ in 0..share {
                let mut stream = connect(running.address)?;
                let (reply, mut to_server, mut to_client) = visitors.login(&mut stream)?;
                begin(&mut stream, &mut to_server, &mut to_client)?;
                held.lock().unwrap_or_else(|l| l.into_inner()).push((stream, reply.session_id));
            }
            Ok(())
        };
        let shares = (0..VISITORS)
            .map(|number| connections / VISITORS + usize::from(number < connections % VISITORS));
        let threads: Vec<_> = shares.map(|share| scope.spawn(move || log_in(share))).collect();
        threads.into_iter().find_map(|thread| thread.join().ok()?.err())
    });
    if let Some(error) = failed {
        return Err(error).with_context(|| running.log());
    }
    let mut held = held.into_inner().unwrap_or_else(|l| l.into_inner());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut admin =
        runtime.block_on(AdminClient::connect(format!("http://{}", companion.admin)))?;
    let mut times = Vec::new();
    let step = held.len() / KICKS;
    for (stream, id) in held.iter_mut().step_by(step.max(1)).take(KICKS) {
        let began = Instant::now();
        let whom = Some(Whom::SessionId(id.clone()));
        let kick = KickSessionsRequest { whom, ..KickSessionsRequest::default() };
        runtime.block_on(admin.kick_sessions(kick))?;
        ensure!(stream.read(&mut [0; 4096])? > 0, "no goodbye");
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let (median_ms, most_ms) = (times[times.len() / 2], times[times.len() - 1]);
    Ok(Kick { connections: held.len(), median_ms, most_ms })
}

/// The first frame, with which a session begins, and its reply.
fn begin(
    stream: &mut TcpStream,
    to_server: &mut Seal,
    to_client: &mut Seal,
) -> std::io::Result<()> {
    stream.write_all(&to_server.seal(&Frame::request(command::ECHO, 1, Vec::new())))?;
    let (mut received, mut part) = (BytesMut::new(), [0; 4096]);
    loop {
        if let Some(frame) = Frame::decode(&mut received).map_err(std::io::Error::other)? {
            return to_client.open(frame).map(drop).map_err(std::io::Error::other);
        }
        match stream.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => received.extend_from_slice(&part[..count]),
        }
    }
}

/// Runs `once` again and again on so many threads; how often a second it ended well.
fn rate<E>(
    threads: usize,
    duration: Duration,
    once: impl Fn() -> Result<(), E> + Sync,
) -> Result<f64> {
    let (good, bad, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match once() {
                        Ok(()) => good.fetch_add(1, Ordering::Relaxed),
                        Err(_) => bad.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
    });
    let elapsed = began.elapsed().as_secs_f64();
    let bad = bad.into_inner();
    ensure!(bad == 0, "{bad} attempts failed");
    Ok(good.into_inner() as f64 / elapsed)
}
