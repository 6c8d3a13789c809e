//! What is measured, in which order.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::crowd::{self, Plan};
use crate::login::{bare_handshakes, bare_resumes, kick, logins, resumes};
use crate::process::{cpu, own_cpu};
use crate::report::{Findings, Logins, verdicts};
use crate::run::{Pace, Row, Shape, idle_memory, measure, measure_heartbeats};
use crate::scenario::{self, Parts, Running, Scenario, Servers, Speaks, Through};
use crate::{chart, machine};

/// Bytes that are echoed.
pub const SIZES: [usize; 2] = [64, 1024];
pub const SHAPES: [Shape; 3] = [Shape::ONE, Shape::BUSY, Shape::CROWD];
const SHAPE_NAMES: [&str; 3] = ["1x1", "8x16", "crowd"];

/// One call at a time says how long one takes, and what else the machine does disturbs that most:
/// it is measured in so many short pieces a round, scenarios alternating, each of which counts as
/// a round.
const PIECES: usize = 5;

/// Calls in flight, in all, while connections or commands grow.
const SCALING_IN_FLIGHT: usize = 64;
const CONNECTIONS: [usize; 4] = [1, 100, 1000, 8000];
/// The routed ways hold three sockets for a connection, all others two.
const ROUTED_CONNECTIONS: usize = 5000;
const COMMANDS: [u32; 3] = [1, 100, 10_000];
const HEARTBEATS_IN_FLIGHT: usize = 8;
const IDLE_CONNECTIONS: usize = 2000;
/// Files that a process needs besides its connections' sockets.
const OTHER_FILES: u64 = 200;

#[derive(Args)]
pub struct Options {
    /// A small round, in less than five minutes
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, and of the further parts only those named: idle, logins, companion,
    /// connections, commands, heartbeats
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<String>,
    /// Only these shapes of load: 1x1, 8x16 or crowd (1,000 idle connections more)
    #[arg(long, value_delimiter = ',', value_name = "SHAPE,…")]
    shapes: Vec<String>,
    /// Only these sizes of what is echoed, in bytes [default: 64,1024]
    #[arg(long, value_delimiter = ',', value_name = "BYTES,…")]
    sizes: Vec<usize>,
    /// Write every measurement to this file, as one array of objects
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the chart to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How often everything is measured [default: 5, with --quick 2]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long a measurement takes, in seconds [default: 2, with --quick 0.6]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    #[arg(long, env = "MESHGATE_ENVOY", default_value = ".meshgate/envoy/1.40.0/envoy")]
    envoy: PathBuf,
    #[arg(long, env = "MESHGATE_WASM", default_value = ".meshgate/meshgate.wasm")]
    wasm: PathBuf,
    /// The companion's program [default: `meshgate` beside this one]
    #[arg(long, env = "MESHGATE_COMPANION")]
    companion: Option<PathBuf>,
}

/// Sessions that the companion is measured with.
const CROWD: u64 = 1_000_000;
const CROWD_QUICK: u64 = 200_000;
/// Connections of a proxy of which one is kicked.
const KICKED: usize = 8000;
/// What is measured besides the grid.
const IDLE: &str = "idle";
const LOGINS: &str = "logins";
const COMPANION: &str = "companion";
const SCALING_CONNECTIONS: &str = "connections";
const SCALING_COMMANDS: &str = "commands";
const HEARTBEATS: &str = "heartbeats";
const PARTS: [&str; 6] =
    [IDLE, LOGINS, COMPANION, SCALING_CONNECTIONS, SCALING_COMMANDS, HEARTBEATS];

/// Runs the benchmark and prints what it found. Called from the project's root.
pub fn run(options: &Options) -> Result<()> {
    options.check()?;
    let began = Instant::now();
    let machine = machine::describe();
    println!("{machine}");
    let bench = Bench::start(options)?;
    let mut findings = Findings::default();
    // What was found before something failed is worth to be seen.
    let measured = bench.measure(&mut findings);

    let names: Vec<&str> = bench.scenarios.iter().map(|scenario| scenario.name).collect();
    println!("{}", findings.tables(&names, &options.shapes(), &options.sizes()));
    println!("{}", findings.rest());
    println!("{}", verdicts(&findings.targets()));
    let rows: Vec<&Row> = findings.all_rows().collect();
    let errors: u64 = rows.iter().map(|row| row.errors).sum();
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&rows)?)?;
        println!("every measurement: {}", path.display());
    }
    if let Some(path) = &options.svg {
        fs::write(path, chart::draw(&findings, &names, &machine))?;
        println!("chart: {}", path.display());
    }
    println!("took {:.0} s", began.elapsed().as_secs_f64());
    measured?;
    ensure!(errors == 0, "{errors} calls failed: the figures do not count");
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    parts: Parts,
    pace: Pace,
    scenarios: Vec<Scenario>,
    servers: Servers,
}

impl Options {
    fn check(&self) -> Result<()> {
        let scenarios = scenario::ALL.map(|scenario| scenario.name);
        for name in &self.only {
            let known = scenarios.iter().chain(&PARTS).any(|known| known == name);
            let all = [&scenarios[..], &PARTS[..]].concat().join(", ");
            ensure!(known, "{name:?} is neither a scenario nor a part, expected some of {all}");
        }
        for name in &self.shapes {
            let known = SHAPE_NAMES.contains(&name.as_str());
            let all = SHAPE_NAMES.join(", ");
            ensure!(known, "{name:?} is no shape of load, expected some of {all}");
        }
        Ok(())
    }

    /// Whether a scenario of the grid, or another part, was asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The shapes that were asked for; all if none was.
    fn shapes(&self) -> Vec<Shape> {
        let named = SHAPES.into_iter().zip(SHAPE_NAMES);
        let wanted = |name: &str| self.shapes.is_empty() || self.shapes.iter().any(|s| s == name);
        named.filter(|(_, name)| wanted(name)).map(|(shape, _)| shape).collect()
    }

    fn sizes(&self) -> Vec<usize> {
        if self.sizes.is_empty() { SIZES.to_vec() } else { self.sizes.clone() }
    }

    fn pace(&self) -> Pace {
        let (rounds, seconds) = if self.quick { (2, 0.6) } else { (5, 2.0) };
        Pace {
            rounds: self.rounds.unwrap_or(rounds),
            warm_up: Duration::from_millis(if self.quick { 200 } else { 400 }),
            measure: Duration::from_secs_f64(self.seconds.unwrap_or(seconds)),
        }
    }
}

impl<'a> Bench<'a> {
    fn start(options: &'a Options) -> Result<Self> {
        let root = std::env::current_dir()?;
        let companion = match &options.companion {
            Some(path) => root.join(path),
            None => std::env::current_exe()?.with_file_name("meshgate"),
        };
        let (envoy, wasm) = (root.join(&options.envoy), root.join(&options.wasm));
        ensure!(envoy.exists(), "{} is missing: run scripts/envoy", envoy.display());
        let parts = Parts { root, envoy, wasm, companion };
        let chosen = |scenario: &Scenario| options.wants(scenario.name);
        let scenarios: Vec<Scenario> = scenario::ALL.into_iter().filter(chosen).collect();
        let sealed = scenarios.iter().any(|scenario| scenario.speaks == Speaks::SealedFrames);
        let servers = Servers::start(&parts, sealed || options.wants(LOGINS))?;
        Ok(Self { options, parts, pace: options.pace(), scenarios, servers })
    }

    fn measure(&self, findings: &mut Findings) -> Result<()> {
        if !self.scenarios.is_empty() {
            self.grid(findings)?;
        }
        for part in PARTS.into_iter().filter(|part| self.options.wants(part)) {
            let began = Instant::now();
            match part {
                IDLE => self.idle(findings)?,
                LOGINS => self.logins(findings)?,
                COMPANION => self.companion(findings)?,
                SCALING_CONNECTIONS => self.connections(findings)?,
                HEARTBEATS => self.heartbeats(findings)?,
                _ => self.commands(findings)?,
            }
            println!("{part} ({:.0} s)", began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn up(&self, scenario: &Scenario, commands: u32) -> Result<Running> {
        let up = scenario.start(&self.parts, &self.servers, commands);
        up.with_context(|| format!("cannot start {}", scenario.name))
    }

    /// Every scenario in every shape and size, one after the other, again and again.
    fn grid(&self, findings: &mut Findings) -> Result<()> {
        let up = self.scenarios.iter().map(|scenario| self.up(scenario, 1));
        let running: Vec<Running> = up.collect::<Result<_>>()?;
        for round in 1..=self.pace.rounds {
            let began = Instant::now();
            for shape in self.options.shapes() {
                let pieces = if shape == Shape::ONE { PIECES } else { 1 };
                let pace = self.pace.cut(pieces);
                for size in self.options.sizes() {
                    for piece in 1..=pieces {
                        let number = (round - 1) * pieces + piece;
                        for running in &running {
                            findings.rows.push(measure(running, shape, size, 1, number, pace)?);
                        }
                    }
                }
            }
            let took = began.elapsed().as_secs_f64();
            println!("round {round} of {} ({took:.0} s)", self.pace.rounds);
        }
        Ok(())
    }

    /// Memory of an idle connection, of a fresh Envoy each time.
    fn idle(&self, findings: &mut Findings) -> Result<()> {
        let measured = scenario::ALL.into_iter().filter(|scenario| {
            scenario.through != Through::Nothing
                && scenario.workers == 1
                && (scenario.speaks != Speaks::SealedFrames || self.servers.visitors().is_ok())
        });
        for scenario in measured {
            let tries = (0..self.pace.rounds.min(3))
                .map(|_| idle_memory(&scenario, &self.parts, &self.servers, IDLE_CONNECTIONS));
            findings.idle.push((scenario.name.to_owned(), tries.collect::<Result<_>>()?));
        }
        Ok(())
    }

    fn logins(&self, findings: &mut Findings) -> Result<()> {
        let running = self.up(&scenario::SEALED, 1)?;
        let visitors = self.servers.visitors()?;
        logins(&running, visitors, self.pace.warm_up)?;
        for _ in 0..self.pace.rounds {
            let pace = self.pace.measure;
            let costs = || -> Result<Duration> {
                let servers = running.proxies().chain([&self.servers.companion()?.process]);
                Ok(cpu(servers)? + own_cpu()?)
            };
            findings.logins.push(Logins::of(
                costs,
                || bare_handshakes(pace),
                || logins(&running, visitors, pace),
            )?);
            findings.resumes.push(Logins::of(
                costs,
                || bare_resumes(pace),
                || resumes(&running, visitors, pace),
            )?);
        }
        let most = (machine::open_files().saturating_sub(OTHER_FILES) / 2) as usize;
        findings.kick = Some(kick(&running, self.servers.companion()?, KICKED.min(most))?);
        Ok(())
    }

    /// The companion alone, with as many sessions as it is made for.
    fn companion(&self, findings: &mut Findings) -> Result<()> {
        let sessions = if self.options.quick { CROWD_QUICK } else { CROWD };
        let (rounds, measure) = (self.pace.rounds, self.pace.measure);
        let plan = Plan { rounds, measure, sessions };
        let (tickets, crowd) = crowd::measure(&self.parts.companion, plan)?;
        findings.tickets = tickets;
        findings.crowd = Some(crowd);
        Ok(())
    }

    /// The same load over more and more connections.
    fn connections(&self, findings: &mut Findings) -> Result<()> {
        let scenarios = [scenario::ENVOY_TCP, scenario::DIRECT, scenario::ROUTED];
        let up = scenarios.iter().map(|scenario| self.up(scenario, 1));
        let running: Vec<Running> = up.collect::<Result<_>>()?;
        let most = (machine::open_files().saturating_sub(OTHER_FILES) / 2) as usize;
        let counts = CONNECTIONS.into_iter().chain([ROUTED_CONNECTIONS]);
        let mut counts: Vec<usize> = counts.filter(|count| *count <= most).collect();
        if self.options.quick {
            counts.retain(|count| [1, 5000, 8000].contains(count));
        }
        counts.sort_unstable();
        if most < CONNECTIONS[3] {
            println!("no more than {most} connections: raise the limit of open files (ulimit -n)");
        }
        for round in 1..=self.pace.rounds.min(3) {
            for count in &counts {
                for running in &running {
                    if running.scenario == scenario::ROUTED && *count > ROUTED_CONNECTIONS {
                        continue;
                    }
                    let shape = Shape::around(*count, SCALING_IN_FLIGHT);
                    let row = measure(running, shape, 64, 1, round, self.pace)?;
                    findings.connections.push(row);
                }
            }
        }
        Ok(())
    }

    /// Heartbeats of as many connections as there may be, a few at a time: so they hardly share a
    /// doorbell, as it is with connections that are out of step.
    fn heartbeats(&self, findings: &mut Findings) -> Result<()> {
        let running = self.up(&scenario::DIRECT, 1)?;
        let most = (machine::open_files().saturating_sub(OTHER_FILES) / 2) as usize;
        let shape = Shape::around(most.min(CONNECTIONS[3]), HEARTBEATS_IN_FLIGHT);
        for round in 1..=self.pace.rounds.min(3) {
            let mut row = measure_heartbeats(&running, shape, round, self.pace)?;
            row.scenario = format!("{}-heartbeats", row.scenario);
            findings.heartbeats.push(row);
        }
        Ok(())
    }

    /// The same load over larger and larger command tables.
    fn commands(&self, findings: &mut Findings) -> Result<()> {
        let up = COMMANDS.iter().map(|count| Ok((*count, self.up(&scenario::DIRECT, *count)?)));
        let running: Vec<(u32, Running)> = up.collect::<Result<_>>()?;
        for round in 1..=self.pace.rounds {
            for (count, running) in &running {
                let mut row = measure(running, Shape::BUSY, 64, *count, round, self.pace)?;
                row.scenario = format!("{}-{count}-commands", row.scenario);
                findings.commands.push((*count, row));
            }
        }
        Ok(())
    }
}

impl Findings {
    /// Everything that was measured by calls.
    fn all_rows(&self) -> impl Iterator<Item = &Row> {
        let commands = self.commands.iter().map(|(_, row)| row);
        let rows = self.rows.iter().chain(&self.connections).chain(commands);
        rows.chain(&self.heartbeats)
    }
}
