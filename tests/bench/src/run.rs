//! The measurements themselves.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::leg::Leg;
use crate::load::{Load, Spread};
use crate::process::cpu;
use crate::scenario::{Parts, Running, Scenario, Servers};

/// How many connections, and what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub active: usize,
    pub idle: usize,
    pub spread: Spread,
}

/// How long, how often.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub rounds: usize,
    pub warm_up: Duration,
    pub measure: Duration,
}

impl Pace {
    /// The same time in so many pieces.
    pub fn cut(self, pieces: usize) -> Self {
        let pieces = u32::try_from(pieces).unwrap_or(1);
        Self { warm_up: self.warm_up / pieces, measure: self.measure / pieces, ..self }
    }
}

/// One measurement; the fields of the JSON file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub scenario: String,
    /// Bytes that are echoed.
    pub size: usize,
    /// Open connections, idle ones included.
    pub connections: usize,
    /// Calls in flight on each active connection; for the scaling over connections, in all.
    pub in_flight: usize,
    pub round: usize,
    pub calls_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Of everything between client and service; 0 where there is nothing.
    pub proxy_cpu_us_per_call: f64,
    pub errors: u64,
}

impl Shape {
    pub const ONE: Self = Self { active: 1, idle: 0, spread: Spread::Each(1) };
    pub const BUSY: Self = Self { active: 8, idle: 0, spread: Spread::Each(16) };
    pub const CROWD: Self = Self { active: 8, idle: 1000, spread: Spread::Each(16) };

    /// So many connections that take turns.
    pub const fn around(connections: usize, in_flight: usize) -> Self {
        Self { active: connections, idle: 0, spread: Spread::Around(in_flight) }
    }

    pub fn connections(&self) -> usize {
        self.active + self.idle
    }

    pub fn in_flight(&self) -> usize {
        match self.spread {
            Spread::Each(count) | Spread::Around(count) => count,
        }
    }
}

/// Measures one scenario once.
pub fn measure(
    running: &Running,
    shape: Shape,
    size: usize,
    commands: u32,
    round: usize,
    pace: Pace,
) -> Result<Row> {
    measure_legs(running, running.connector(size, commands), shape, size, round, pace)
}

/// The same for heartbeats in the place of calls.
pub fn measure_heartbeats(
    running: &Running,
    shape: Shape,
    round: usize,
    pace: Pace,
) -> Result<Row> {
    measure_legs(running, running.heartbeats(), shape, 0, round, pace)
}

fn measure_legs(
    running: &Running,
    open: impl FnMut() -> io::Result<(TcpStream, Leg)>,
    shape: Shape,
    size: usize,
    round: usize,
    pace: Pace,
) -> Result<Row> {
    let name = running.scenario.name;
    let mut load = Load::open(shape.active, shape.idle, shape.spread, open)
        .with_context(|| format!("{name}: cannot open its connections; {}", running.log()))?;
    load.start();
    load.run(pace.warm_up)?;
    let before = cpu(running.proxies())?;
    let seen = load.run(pace.measure)?;
    let spent = cpu(running.proxies())? - before;
    let lost = load.finish()?;
    let calls = seen.latency.len() as f64;
    Ok(Row {
        scenario: name.to_owned(),
        size,
        connections: shape.connections(),
        in_flight: shape.in_flight(),
        round,
        calls_per_s: round_to(calls / seen.elapsed.as_secs_f64(), 1),
        p50_us: round_to(seen.latency.quantile_us(0.5), 2),
        p99_us: round_to(seen.latency.quantile_us(0.99), 2),
        p999_us: round_to(seen.latency.quantile_us(0.999), 2),
        proxy_cpu_us_per_call: round_to(spent.as_secs_f64() * 1e6 / calls.max(1.0), 3),
        errors: seen.errors + lost,
    })
}

/// Memory that one idle connection holds in the proxies, in bytes: those of a fresh scenario
/// with `connections` more open than before. Each has made one call.
pub fn idle_memory(
    scenario: &Scenario,
    parts: &Parts,
    servers: &Servers,
    connections: usize,
) -> Result<f64> {
    let running = scenario.start(parts, servers, 1)?;
    let memory = || running.proxies().map(|process| process.memory()).sum::<Result<u64>>();
    // What the first connections bring along is no connection's own.
    let first = Load::open(0, 64, Spread::Each(0), running.connector(64, 1))?;
    let before = memory()?;
    let more = Load::open(0, connections, Spread::Each(0), running.connector(64, 1))?;
    let after = memory()?;
    drop((first, more));
    Ok((after as f64 - before as f64) / connections as f64)
}

fn round_to(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.idle, self.spread) {
            (0, Spread::Each(count)) => {
                let s = if self.active == 1 { "" } else { "s" };
                write!(f, "{} connection{s} × {count} in flight", self.active)
            }
            (idle, Spread::Each(count)) => {
                write!(f, "{idle} idle and {} active connections × {count} in flight", self.active)
            }
            (_, Spread::Around(count)) => {
                write!(f, "{count} in flight over {} connections", self.active)
            }
        }
    }
}
