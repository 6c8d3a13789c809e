//! How many Noise logins a second there can be, beside how many handshakes the bare crypto makes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use snow::Builder;

use crate::companion::Visitors;
use crate::load::connect;
use crate::scenario::Running;

const NOISE: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
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

/// Handshakes a second of both sides in a bare loop, on every core: no socket, no proxy, no
/// ticket, no store.
pub fn bare_handshakes(duration: Duration) -> Result<f64> {
    let keys = Builder::new(NOISE.parse()?).generate_keypair()?;
    let handshake = || -> Result<(), snow::Error> {
        let pattern: snow::params::NoiseParams = NOISE.parse()?;
        let mut client =
            Builder::new(pattern.clone()).remote_public_key(&keys.public)?.build_initiator()?;
        let mut server =
            Builder::new(pattern).local_private_key(&keys.private)?.build_responder()?;
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
