//! What the figures say: a table of ratios with their spread, and the targets.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::crowd::{Crowd, Tickets};
use crate::login::Kick;
use crate::run::{Row, Shape};
use crate::scenario::{
    DIRECT, EGRESS, EGRESS_DIRECT, ENVOY_GRPC, ENVOY_TCP, LOOPBACK, RELAY, ROUTED, SEALED,
};

/// Everything that was found out.
#[derive(Debug, Default)]
pub struct Findings {
    /// The grid of scenarios, shapes and sizes.
    pub rows: Vec<Row>,
    /// Bytes of an idle connection, by scenario, one figure for each try.
    pub idle: Vec<(String, Vec<f64>)>,
    pub logins: Vec<Logins>,
    /// Likewise, of those who come back.
    pub resumes: Vec<Logins>,
    pub kick: Option<Kick>,
    pub tickets: Vec<Tickets>,
    pub crowd: Option<Crowd>,
    /// Calls spread over more and more connections.
    pub connections: Vec<Row>,
    /// Calls spread over more and more commands.
    pub commands: Vec<(u32, Row)>,
    /// Heartbeats in the place of calls.
    pub heartbeats: Vec<Row>,
}

/// Noise logins a second, and handshakes of the bare loop.
#[derive(Debug, Clone, Copy)]
pub struct Logins {
    pub bare: f64,
    pub meshgate: f64,
    /// Processor time of one, of all who take part, in microseconds: what else runs on the machine
    /// does not change it much.
    pub bare_cpu_us: f64,
    pub meshgate_cpu_us: f64,
}

impl Logins {
    /// One after the other; `costs` is the time that all have had so far.
    pub fn of(
        costs: impl Fn() -> Result<Duration>,
        bare: impl FnOnce() -> Result<f64>,
        meshgate: impl FnOnce() -> Result<f64>,
    ) -> Result<Self> {
        let timed = |rate: Result<f64>, before: Duration, began: Instant| -> Result<(f64, f64)> {
            let (rate, spent) = (rate?, costs()? - before);
            let count = rate * began.elapsed().as_secs_f64();
            Ok((rate, spent.as_secs_f64() * 1e6 / count.max(1.0)))
        };
        let (before, began) = (costs()?, Instant::now());
        let (bare, bare_cpu_us) = timed(bare(), before, began)?;
        let (before, began) = (costs()?, Instant::now());
        let (meshgate, meshgate_cpu_us) = timed(meshgate(), before, began)?;
        Ok(Self { bare, meshgate, bare_cpu_us, meshgate_cpu_us })
    }
}

/// The median of several rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// Something to reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub what: String,
    pub limit: f64,
    /// `false`: the limit is to be reached from below.
    pub at_most: bool,
    pub unit: &'static str,
    pub found: Spread,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Self { median, least, most })
    }

    /// The same with the bounds of the middle half: of many short measurements some go wrong.
    pub fn of_middle(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let quarter = values.len() / 4;
        Self::of(values[quarter..values.len() - quarter].iter().copied())
    }
}

impl Target {
    pub fn is_reached(&self) -> bool {
        match self.at_most {
            true => self.found.median <= self.limit,
            false => self.found.median >= self.limit,
        }
    }
}

impl Findings {
    /// The rows of one cell of the grid, a round each.
    fn cell(&self, scenario: &str, shape: Shape, size: usize) -> impl Iterator<Item = &Row> {
        let (connections, in_flight) = (shape.connections(), shape.in_flight());
        let scenario = scenario.to_owned();
        self.rows.iter().filter(move |row| {
            row.scenario == scenario
                && row.size == size
                && row.connections == connections
                && row.in_flight == in_flight
        })
    }

    pub fn spread(
        &self,
        scenario: &str,
        shape: Shape,
        size: usize,
        figure: impl Fn(&Row) -> f64,
    ) -> Option<Spread> {
        Spread::of(self.cell(scenario, shape, size).map(figure))
    }

    /// How `scenario` relates to `base`, by the rows of the same round.
    pub fn relation(
        &self,
        (scenario, base): (&str, &str),
        shape: Shape,
        size: usize,
        relate: impl Fn(&Row, &Row) -> f64,
    ) -> Option<Spread> {
        Spread::of(self.related((scenario, base), shape, size, relate))
    }

    /// One figure for each round.
    fn related(
        &self,
        (scenario, base): (&str, &str),
        shape: Shape,
        size: usize,
        relate: impl Fn(&Row, &Row) -> f64,
    ) -> Vec<f64> {
        let of_row = |row: &Row| {
            let base = self.cell(base, shape, size).find(|base| base.round == row.round)?;
            Some(relate(row, base))
        };
        self.cell(scenario, shape, size).filter_map(of_row).collect()
    }

    /// The grid as text.
    pub fn tables(&self, scenarios: &[&str], shapes: &[Shape], sizes: &[usize]) -> String {
        let mut text = String::new();
        for shape in shapes {
            for size in sizes {
                let found = |name: &&&str| self.cell(name, *shape, *size).next().is_some();
                let found: Vec<&str> = scenarios.iter().filter(found).copied().collect();
                if !found.is_empty() {
                    self.table(&found, *shape, *size, &mut text);
                }
            }
        }
        text
    }

    fn table(&self, scenarios: &[&str], shape: Shape, size: usize, text: &mut String) {
        let _ = writeln!(text, "\n{size} B, {shape}; medians, ratios with (least–most)\n");
        let _ = writeln!(
            text,
            "| {:26} | {:>8} | {:>7} | {:>7} | {:>7} | {:>7} | {:>18} | {:>18} | {:>18} |",
            "scenario",
            "calls/s",
            "p50 µs",
            "p99",
            "p99.9",
            "CPU µs",
            "CPU : envoy-tcp",
            "CPU : envoy-grpc",
            "rate : envoy-grpc"
        );
        let rule = [26, 8, 7, 7, 7, 7, 18, 18, 18].map(|width| "-".repeat(width + 2)).join("|");
        let _ = writeln!(text, "|{rule}|");
        for scenario in scenarios {
            let figure = |figure: fn(&Row) -> f64, digits: usize| {
                let spread = self.spread(scenario, shape, size, figure);
                spread.map_or("–".into(), |spread| format!("{:.digits$}", spread.median))
            };
            let relation = |base: &str, relate: fn(&Row, &Row) -> f64| {
                let spread = self.relation((scenario, base), shape, size, relate);
                spread.filter(|spread| spread.median > 0.0).map_or("–".into(), show_ratio)
            };
            let _ = writeln!(
                text,
                "| {scenario:26} | {:>8} | {:>7} | {:>7} | {:>7} | {:>7} | {:>18} | {:>18} | {:>18} |",
                figure(|row| row.calls_per_s, 0),
                figure(|row| row.p50_us, 0),
                figure(|row| row.p99_us, 0),
                figure(|row| row.p999_us, 0),
                figure(|row| row.proxy_cpu_us_per_call, 2),
                relation(ENVOY_TCP.name, cpu_ratio),
                relation(ENVOY_GRPC.name, cpu_ratio),
                relation(ENVOY_GRPC.name, rate_ratio),
            );
        }
    }

    /// Memory, logins and scaling as text.
    pub fn rest(&self) -> String {
        let mut text = String::new();
        if !self.idle.is_empty() {
            let _ = writeln!(text, "\nmemory of an idle connection, KB\n");
            for (scenario, bytes) in &self.idle {
                if let Some(spread) = Spread::of(bytes.iter().map(|bytes| bytes / 1000.0)) {
                    let _ = writeln!(text, "  {scenario:26} {}", show(spread, 1));
                }
            }
        }
        let logins = |figure: fn(&Logins) -> f64| Spread::of(self.logins.iter().map(figure));
        if let (Some(bare), Some(meshgate)) = (logins(|l| l.bare), logins(|l| l.meshgate)) {
            let _ = writeln!(text, "\nNoise logins a second\n");
            let _ = writeln!(text, "  {:26} {}", "bare handshakes", show(bare, 0));
            let _ = writeln!(text, "  {:26} {}", "through MeshGate", show(meshgate, 0));
            if let (Some(bare), Some(meshgate)) =
                (logins(|l| l.bare_cpu_us), logins(|l| l.meshgate_cpu_us))
            {
                let (bare, meshgate) = (show(bare, 0), show(meshgate, 0));
                let _ = writeln!(text, "  CPU µs: bare {bare}, all who take part {meshgate}");
            }
        }
        let resumes = |figure: fn(&Logins) -> f64| Spread::of(self.resumes.iter().map(figure));
        if let (Some(bare), Some(meshgate)) = (resumes(|l| l.bare), resumes(|l| l.meshgate)) {
            let _ = writeln!(text, "\nNoise resumes a second\n");
            let _ = writeln!(text, "  {:26} {}", "bare handshakes", show(bare, 0));
            let _ = writeln!(text, "  {:26} {}", "through MeshGate", show(meshgate, 0));
            if let (Some(bare), Some(meshgate)) =
                (resumes(|l| l.bare_cpu_us), resumes(|l| l.meshgate_cpu_us))
            {
                let (bare, meshgate) = (show(bare, 0), show(meshgate, 0));
                let _ = writeln!(text, "  CPU µs: bare {bare}, all who take part {meshgate}");
            }
        }
        let tickets = |figure: fn(&Tickets) -> f64| Spread::of(self.tickets.iter().map(figure));
        if let (Some(echo), Some(meshgate)) = (tickets(|t| t.echo), tickets(|t| t.meshgate)) {
            let _ = writeln!(text, "\nticket logins a second, at the companion\n");
            let _ = writeln!(text, "  {:26} {}", "a bare echo of tonic", show(echo, 0));
            let _ = writeln!(text, "  {:26} {}", "logins", show(meshgate, 0));
        }
        if let Some(crowd) = &self.crowd {
            let _ = writeln!(text, "\na companion with {} sessions\n", crowd.sessions);
            let _ = writeln!(
                text,
                "  memory {:.0} B each, disk {:.0} B each",
                crowd.memory, crowd.disk
            );
            let _ = writeln!(text, "  p99 of a lookup {:.0} µs", crowd.lookup_p99_us);
            let _ = writeln!(text, "  p99 of a kick, to its worker: {:.2} ms", crowd.kick_p99_ms);
            let _ = writeln!(text, "  words to workers that hold nothing: {}", crowd.overheard);
        }
        if let Some(kick) = &self.kick {
            let _ = writeln!(
                text,
                "\nkick to goodbye, over a proxy with {} connections\n",
                kick.connections
            );
            let _ =
                writeln!(text, "  median {:.2} ms, at most {:.2} ms", kick.median_ms, kick.most_ms);
        }
        if !self.connections.is_empty() {
            let _ = writeln!(text, "\nCPU µs per call, 64 calls in flight over N connections\n");
            for ((scenario, count), spread) in self.by_connections() {
                let _ = writeln!(text, "  {scenario:26} {count:>6}  {}", show(spread, 2));
            }
        }
        if !self.commands.is_empty() {
            let _ = writeln!(text, "\nCPU µs per call over N commands, all of them called\n");
            for (count, spread) in self.by_commands() {
                let _ = writeln!(text, "  {:26} {count:>6}  {}", DIRECT.name, show(spread, 2));
            }
        }
        if let Some(spread) =
            Spread::of(self.heartbeats.iter().map(|row| row.proxy_cpu_us_per_call))
        {
            let _ = writeln!(text, "\nCPU µs per heartbeat: {}", show(spread, 2));
        }
        text
    }

    fn by_connections(&self) -> Vec<((&str, usize), Spread)> {
        let mut keys: Vec<(&str, usize)> = Vec::new();
        for row in &self.connections {
            let key = (row.scenario.as_str(), row.connections);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.sort_unstable();
        let spread = |key: (&str, usize)| {
            let rows = self.connections.iter();
            let rows = rows.filter(|row| (row.scenario.as_str(), row.connections) == key);
            Spread::of(rows.map(|row| row.proxy_cpu_us_per_call))
        };
        keys.into_iter().filter_map(|key| Some((key, spread(key)?))).collect()
    }

    fn by_commands(&self) -> Vec<(u32, Spread)> {
        let mut counts: Vec<u32> = self.commands.iter().map(|(count, _)| *count).collect();
        counts.dedup();
        counts.sort_unstable();
        counts.dedup();
        let spread = |count: u32| {
            let rows = self.commands.iter().filter(|(of, _)| *of == count);
            Spread::of(rows.map(|(_, row)| row.proxy_cpu_us_per_call))
        };
        counts.into_iter().filter_map(|count| Some((count, spread(count)?))).collect()
    }

    /// Every target that the figures say something about.
    pub fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut add = |what: &str, limit: f64, at_most: bool, unit, found: Option<Spread>| {
            if let Some(found) = found {
                targets.push(Target { what: what.to_owned(), limit, at_most, unit, found });
            }
        };
        let busy =
            |pair, relate: fn(&Row, &Row) -> f64| self.relation(pair, Shape::BUSY, 64, relate);
        let (direct, tcp, grpc) = (DIRECT.name, ENVOY_TCP.name, ENVOY_GRPC.name);
        add("direct: CPU of envoy-tcp", 1.75, true, "×", busy((direct, tcp), cpu_ratio));
        let share = busy((direct, grpc), cpu_ratio);
        add("direct: CPU of envoy-grpc (1/12)", 1.0 / 12.0, true, "×", share);
        add("direct: rate of envoy-grpc", 7.0, false, "×", busy((direct, grpc), rate_ratio));
        add("routed: CPU of envoy-grpc", 1.0, true, "×", busy((ROUTED.name, grpc), cpu_ratio));
        let loopback = busy((LOOPBACK.name, grpc), cpu_ratio);
        add("routed by loopback: CPU of envoy-grpc", 1.05, true, "×", loopback);
        add("relay: CPU of envoy-tcp", 1.6, true, "×", busy((RELAY.name, tcp), cpu_ratio));
        let egress = EGRESS_DIRECT.name;
        add("egress direct: CPU of envoy-tcp", 2.0, true, "×", busy((egress, tcp), cpu_ratio));
        let share = busy((egress, grpc), cpu_ratio);
        add("egress direct: CPU of envoy-grpc", 0.1, true, "×", share);
        add("egress: CPU of envoy-grpc", 1.05, true, "×", busy((EGRESS.name, grpc), cpu_ratio));
        let p50 = |row: &Row, base: &Row| (row.p50_us / base.p50_us - 1.0) * 100.0;
        let added = self.related((direct, tcp), Shape::ONE, 64, p50);
        let what = format!("direct: p50 over envoy-tcp, 1 × 1, {} pairs", added.len());
        add(&what, 25.0, true, "%", Spread::of_middle(added));
        for (name, limit) in [(DIRECT.name, 3.0), (ROUTED.name, 25.0)] {
            let what = format!("{name}: idle connection over envoy-tcp");
            add(&what, limit, true, " KB", self.idle_over_tcp(name));
        }
        for (size, limit) in [(64, 3.0), (1024, 6.0)] {
            let more =
                |row: &Row, base: &Row| row.proxy_cpu_us_per_call - base.proxy_cpu_us_per_call;
            let found = self.relation((SEALED.name, direct), Shape::BUSY, size, more);
            add(&format!("sealed frames over plain, {size} B"), limit, true, " µs", found);
        }
        let share = |logins: &Logins| logins.bare_cpu_us / logins.meshgate_cpu_us * 100.0;
        let logins = Spread::of(self.logins.iter().map(share));
        add("logins of bare handshakes, by CPU", 60.0, false, "%", logins);
        let resumes = Spread::of(self.resumes.iter().map(share));
        add("resumes of bare handshakes, by CPU", 60.0, false, "%", resumes);
        let tickets = self.tickets.iter().map(|tickets| tickets.meshgate / tickets.echo);
        add("ticket logins of a bare echo", 1.0 / 3.0, false, "×", Spread::of(tickets));
        let kick = self.kick.iter().map(|kick| kick.most_ms);
        add("kick to goodbye", 50.0, true, " ms", Spread::of(kick));
        if let Some(crowd) = &self.crowd {
            let sessions = crowd.sessions;
            let mut add = |what: &str, limit, unit, found| {
                add(
                    &format!("{what}, {sessions} sessions"),
                    limit,
                    true,
                    unit,
                    Spread::of([found]),
                );
            };
            add("memory of a session", 600.0, " B", crowd.memory);
            add("disk of a session", 1000.0, " B", crowd.disk);
            add("p99 of a lookup", 1000.0, " µs", crowd.lookup_p99_us);
            add("words that do not concern a worker", 0.0, "", crowd.overheard as f64);
        }
        for name in [DIRECT.name, ROUTED.name] {
            let what = format!("{name}: growth over connections, of envoy-tcp's");
            add(&what, 1.2, true, "×", self.growth_over_connections(name));
        }
        // 8,000 connections, each every 10 s.
        let share = |row: &Row| row.proxy_cpu_us_per_call * 800.0 / 1e6 * 100.0;
        let found = Spread::of(self.heartbeats.iter().map(share));
        add("heartbeats of 8,000 connections every 10 s", 1.0, true, "% of a core", found);
        if let [(1, one), .., (count, many)] = self.by_commands()[..] {
            let change = |value: f64| (value / one.median - 1.0) * 100.0;
            let found = Spread {
                median: change(many.median),
                least: change(many.least),
                most: change(many.most),
            };
            let what = format!("growth from 1 to {count} commands");
            add(&what, 5.0, true, "%", Some(found));
        }
        targets
    }

    fn idle_over_tcp(&self, name: &str) -> Option<Spread> {
        let of = |name: &str| self.idle.iter().find(|(scenario, _)| scenario == name);
        let ((_, own), (_, tcp)) = (of(name)?, of(ENVOY_TCP.name)?);
        Spread::of(own.iter().zip(tcp).map(|(own, tcp)| (own - tcp) / 1000.0))
    }

    /// How CPU per call grew from the fewest to the most connections that both were measured
    /// with, relative to how envoy-tcp's did.
    fn growth_over_connections(&self, name: &str) -> Option<Spread> {
        let rounds = self.connections.iter().map(|row| row.round).max()?;
        let most = self.connections.iter().filter(|row| row.scenario == name);
        let most = most.map(|row| row.connections).max()?;
        let cpu = |name: &str, connections: usize, round: usize| {
            let found = self.connections.iter().find(|row| {
                row.scenario == name && row.connections == connections && row.round == round
            });
            found.map(|row| row.proxy_cpu_us_per_call)
        };
        let growth = |name: &str, round| Some(cpu(name, most, round)? / cpu(name, 1, round)?);
        Spread::of(
            (1..=rounds)
                .filter_map(|round| Some(growth(name, round)? / growth(ENVOY_TCP.name, round)?)),
        )
    }
}

/// One line for each target.
pub fn verdicts(targets: &[Target]) -> String {
    let mut text = String::from("\ntargets (8 × 16 in flight and 64 B unless said otherwise)\n\n");
    for target in targets {
        let verdict = if target.is_reached() { "reached" } else { "MISSED " };
        let sign = if target.at_most { "≤" } else { "≥" };
        let digits = if target.unit == "×" { 3 } else { 1 };
        let (what, limit, unit) = (&target.what, target.limit, target.unit);
        let found = show(target.found, digits);
        let _ = writeln!(text, "  {verdict}  {what:56} {sign} {limit:.digits$}{unit:3}  {found}");
    }
    text
}

pub fn cpu_ratio(row: &Row, base: &Row) -> f64 {
    row.proxy_cpu_us_per_call / base.proxy_cpu_us_per_call
}

pub fn rate_ratio(row: &Row, base: &Row) -> f64 {
    row.calls_per_s / base.calls_per_s
}

fn show(spread: Spread, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}

/// Ratios far below one need more digits to say something.
fn show_ratio(spread: Spread) -> String {
    show(spread, if spread.median < 0.2 { 3 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, round: usize, cpu: f64) -> Row {
        Row {
            scenario: scenario.to_owned(),
            size: 64,
            connections: 8,
            in_flight: 16,
            round,
            calls_per_s: 100.0 * cpu,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            proxy_cpu_us_per_call: cpu,
            errors: 0,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows = vec![
            row("envoy-tcp", 1, 1.0),
            row("meshgate-direct", 1, 2.0),
            row("envoy-tcp", 2, 10.0),
            row("meshgate-direct", 2, 15.0),
            row("envoy-tcp", 3, 4.0),
            row("meshgate-direct", 3, 4.0),
        ];
        let findings = Findings { rows, ..Findings::default() };
        let pair = ("meshgate-direct", "envoy-tcp");
        let spread = findings.relation(pair, Shape::BUSY, 64, cpu_ratio).unwrap();
        assert_eq!(spread, Spread { median: 1.5, least: 1.0, most: 2.0 });
        let targets = findings.targets();
        assert_eq!(targets.len(), 1);
        assert!(targets[0].is_reached());
        assert!(verdicts(&targets).contains("reached  direct: CPU of envoy-tcp"));
    }

    #[test]
    fn a_target_to_be_reached_from_below_is_missed_below() {
        let rows = vec![row("envoy-grpc", 1, 1.0), row("meshgate-direct", 1, 6.9)];
        let findings = Findings { rows, ..Findings::default() };
        let targets = findings.targets();
        let rate = targets.iter().find(|target| !target.at_most).unwrap();
        assert!(!rate.is_reached());
        assert!(verdicts(&targets).contains("MISSED   direct: rate of envoy-grpc"));
    }

    #[test]
    fn growth_is_relative_to_that_of_envoy_tcp() {
        let with = |scenario: &str, connections: usize, cpu: f64| Row {
            connections,
            in_flight: 64,
            ..row(scenario, 1, cpu)
        };
        let connections = vec![
            with("envoy-tcp", 1, 1.0),
            with("envoy-tcp", 5000, 3.0),
            with("envoy-tcp", 8000, 4.0),
            with("meshgate-direct", 1, 2.0),
            with("meshgate-direct", 8000, 8.0),
            with("meshgate-routed", 1, 10.0),
            with("meshgate-routed", 5000, 60.0),
        ];
        let findings = Findings { connections, ..Findings::default() };
        let found: Vec<f64> = findings.targets().iter().map(|target| target.found.median).collect();
        assert_eq!(found, [1.0, 2.0]);
    }

    #[test]
    fn medians_of_even_counts_lie_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of([]), None);
        let middle = Spread::of_middle([900.0, 4.0, 1.0, 2.0, 3.0, 0.0, -7.0, 5.0]).unwrap();
        assert_eq!(middle, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of_middle([]), None);
    }
}
