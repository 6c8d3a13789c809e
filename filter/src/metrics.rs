//! What the filter counts. Counting is an addition in memory; `host` hands the sums of a few
//! milliseconds to Envoy in one go, because a host call for each would cost more than a call.
//!
//! Names are made of a metric and `.label.value` pairs (`meshgate.calls_total.command.1001.code.OK`);
//! the `stats_tags` of the bootstraps turn the pairs into Prometheus labels.

use crate::call::Code;

/// Upper bounds of the latency buckets, in microseconds, and their `le` label in seconds
/// (a label cannot hold a dot, `_` stands for it).
const BUCKETS: [(u64, &str); 13] = [
    (250, "0_00025"),
    (500, "0_0005"),
    (1_000, "0_001"),
    (2_500, "0_0025"),
    (5_000, "0_005"),
    (10_000, "0_01"),
    (25_000, "0_025"),
    (50_000, "0_05"),
    (100_000, "0_1"),
    (250_000, "0_25"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (u64::MAX, "+Inf"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// The metrics that every connection touches, by name; the order is that of `NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    Connections,
    ConnectionsOpened,
    ConnectionsPaused,
    Pauses,
    Sessions,
    CallsInFlight,
    FramesIn,
    FramesOut,
    BytesIn,
    BytesOut,
    Bells,
    Heartbeats,
    Pushes,
    CompanionConnected,
}

const NAMES: [(&str, MetricKind); 14] = [
    ("meshgate.connections", MetricKind::Gauge),
    ("meshgate.connections_opened_total", MetricKind::Counter),
    ("meshgate.connections_paused", MetricKind::Gauge),
    ("meshgate.pauses_total", MetricKind::Counter),
    ("meshgate.sessions", MetricKind::Gauge),
    ("meshgate.calls_in_flight", MetricKind::Gauge),
    ("meshgate.frames_in_total", MetricKind::Counter),
    ("meshgate.frames_out_total", MetricKind::Counter),
    ("meshgate.bytes_in_total", MetricKind::Counter),
    ("meshgate.bytes_out_total", MetricKind::Counter),
    ("meshgate.bells_total", MetricKind::Counter),
    ("meshgate.heartbeats_total", MetricKind::Counter),
    ("meshgate.pushes_total", MetricKind::Counter),
    ("meshgate.companion_connected", MetricKind::Gauge),
];

/// Counters with one label whose values are known in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labelled {
    /// Connections by the reason of their end.
    ConnectionsClosed,
    /// Logins by their result.
    Logins,
    /// What clients did wrong, by kind.
    PeerErrors,
    /// What services and their connections did wrong, by kind.
    UpstreamErrors,
    /// Limits that were reached, by their name in the configuration.
    LimitsHit,
    /// Pushes of the companion that did not leave, by reason.
    PushesDropped,
}

impl Labelled {
    const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::ConnectionsClosed => ("meshgate.connections_closed_total", "reason"),
            Self::Logins => ("meshgate.logins_total", "result"),
            Self::PeerErrors => ("meshgate.peer_errors_total", "kind"),
            Self::UpstreamErrors => ("meshgate.upstream_errors_total", "kind"),
            Self::LimitsHit => ("meshgate.limits_hit_total", "limit"),
            Self::PushesDropped => ("meshgate.pushes_dropped_total", "reason"),
        }
    }
}

/// A named sum, and Envoy's id of the metric once `host` has defined it.
#[derive(Debug, Default)]
struct Sum {
    /// What came since the last drain.
    delta: i64,
    id: Option<u32>,
}

/// The series of one command.
#[derive(Debug)]
struct Series {
    /// As it stands in metric names.
    command: String,
    codes: [Sum; Code::ALL.len()],
    buckets: [Sum; BUCKETS.len()],
    micros: Sum,
    dirty: bool,
}

impl Series {
    fn new(command: String) -> Self {
        Self {
            command,
            codes: Default::default(),
            buckets: Default::default(),
            micros: Sum::default(),
            dirty: false,
        }
    }
}

/// Takes a delta: the metric's name, kind, how much, and the place of Envoy's id.
pub type Sink<'a> = &'a mut dyn FnMut(&dyn Fn() -> String, MetricKind, i64, &mut Option<u32>);

#[derive(Debug)]
pub struct Metrics {
    sums: [Sum; NAMES.len()],
    labelled: Vec<(Labelled, &'static str, Sum)>,
    /// By route: which series it counts into, or `NO_SERIES`.
    routes: Vec<u32>,
    series: Vec<Series>,
    /// How many commands get series of their own; the rest share the last one.
    bound: usize,
    dirty: Vec<u32>,
}

const NO_SERIES: u32 = u32::MAX;

impl Metrics {
    /// `routes` is how many routes there are, `bound` how many of them get series of their own.
    pub fn new(routes: usize, bound: usize) -> Self {
        Self {
            sums: Default::default(),
            labelled: Vec::new(),
            routes: vec![NO_SERIES; routes],
            series: Vec::new(),
            bound,
            dirty: Vec::new(),
        }
    }

    pub fn add(&mut self, metric: Metric, delta: i64) {
        if let Some(sum) = self.sums.get_mut(metric as usize) {
            sum.delta = sum.delta.saturating_add(delta);
        }
    }

    pub fn count(&mut self, what: Labelled, label: &'static str) {
        match self.labelled.iter_mut().find(|(w, l, _)| *w == what && *l == label) {
            Some((_, _, sum)) => sum.delta = sum.delta.saturating_add(1),
            None => self.labelled.push((what, label, Sum { delta: 1, id: None })),
        }
    }

    /// A call ended after so many microseconds. `route` is the route's index, `name` what metrics
    /// call it.
    pub fn call_ended(&mut self, route: u16, name: &str, code: Code, micros: u64) {
        let index = self.series_of(route, name);
        let Some(series) = self.series.get_mut(index as usize) else { return };
        if !series.dirty {
            series.dirty = true;
            self.dirty.push(index);
        }
        let bucket = BUCKETS.iter().position(|&(bound, _)| micros <= bound).unwrap_or_default();
        let sums = [series.codes.get_mut(code as usize), series.buckets.get_mut(bucket)];
        for sum in sums.into_iter().flatten() {
            sum.delta = sum.delta.saturating_add(1);
        }
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        series.micros.delta = series.micros.delta.saturating_add(micros);
    }

    /// Hands every sum that changed to `sink` and begins anew.
    pub fn drain(&mut self, sink: Sink<'_>) {
        for (sum, (name, kind)) in self.sums.iter_mut().zip(NAMES) {
            pass(sum, kind, sink, &|| name.to_owned());
        }
        for (what, label, sum) in &mut self.labelled {
            let (name, key) = what.name();
            pass(sum, MetricKind::Counter, sink, &|| format!("{name}.{key}.{label}"));
        }
        for index in self.dirty.drain(..) {
            if let Some(series) = self.series.get_mut(index as usize) {
                series.dirty = false;
                drain_series(series, sink);
            }
        }
    }

    fn series_of(&mut self, route: u16, name: &str) -> u32 {
        match self.routes.get(usize::from(route)) {
            Some(&series) if series != NO_SERIES => return series,
            _ => {}
        }
        let next = self.series.len();
        let index = if next < self.bound {
            self.series.push(Series::new(label(name)));
            next
        } else {
            if next == self.bound {
                self.series.push(Series::new("other".to_owned()));
            }
            self.bound
        } as u32;
        if let Some(place) = self.routes.get_mut(usize::from(route)) {
            *place = index;
        }
        index
    }
}

fn drain_series(series: &mut Series, sink: Sink<'_>) {
    let command = &series.command;
    for (sum, code) in series.codes.iter_mut().zip(Code::ALL) {
        let name = || format!("meshgate.calls_total.command.{command}.code.{code}");
        pass(sum, MetricKind::Counter, sink, &name);
    }
    // Prometheus' buckets are cumulative: each holds the ones below it as well.
    let mut below = 0i64;
    for (sum, (_, le)) in series.buckets.iter_mut().zip(BUCKETS) {
        below = below.saturating_add(sum.delta);
        sum.delta = below;
        let name = || format!("meshgate.call_duration_seconds_bucket.command.{command}.le.{le}");
        pass(sum, MetricKind::Counter, sink, &name);
    }
    let name = || format!("meshgate.call_duration_microseconds_sum.command.{command}");
    pass(&mut series.micros, MetricKind::Counter, sink, &name);
}

fn pass(sum: &mut Sum, kind: MetricKind, sink: Sink<'_>, name: &dyn Fn() -> String) {
    if sum.delta != 0 {
        sink(name, kind, sum.delta, &mut sum.id);
        sum.delta = 0;
    }
}

/// A command's name as one segment of a metric's name: Envoy separates segments by dots.
fn label(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '/' { c } else { '_' })
        .take(96)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn drained(metrics: &mut Metrics) -> BTreeMap<String, i64> {
        let mut seen = BTreeMap::new();
        metrics.drain(&mut |name, _, delta, id| {
            *id = Some(1);
            seen.insert(name(), delta);
        });
        seen
    }

    #[test]
    fn sums_are_handed_over_once() {
        let mut metrics = Metrics::new(1, 1);
        metrics.add(Metric::FramesIn, 2);
        metrics.add(Metric::FramesIn, 3);
        metrics.count(Labelled::PeerErrors, "bad_magic");
        let first = drained(&mut metrics);
        assert_eq!(first["meshgate.frames_in_total"], 5);
        assert_eq!(first["meshgate.peer_errors_total.kind.bad_magic"], 1);
        assert!(drained(&mut metrics).is_empty());
    }

    #[test]
    fn gauges_that_return_to_zero_between_drains_are_quiet() {
        let mut metrics = Metrics::new(1, 1);
        metrics.add(Metric::Connections, 1);
        metrics.add(Metric::Connections, -1);
        assert!(drained(&mut metrics).is_empty());
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut metrics = Metrics::new(1, 1);
        metrics.call_ended(0, "1001", Code::Ok, 300);
        metrics.call_ended(0, "1001", Code::Ok, 30_000);
        let seen = drained(&mut metrics);
        let bucket = |le: &str| {
            seen.get(&format!("meshgate.call_duration_seconds_bucket.command.1001.le.{le}"))
        };
        assert_eq!(bucket("0_00025"), None);
        assert_eq!(bucket("0_0005"), Some(&1));
        assert_eq!(bucket("0_05"), Some(&2));
        assert_eq!(bucket("+Inf"), Some(&2));
        assert_eq!(seen["meshgate.calls_total.command.1001.code.OK"], 2);
    }

    #[test]
    fn commands_beyond_the_bound_share_one_series() {
        let mut metrics = Metrics::new(3, 1);
        metrics.call_ended(0, "a", Code::Ok, 0);
        metrics.call_ended(1, "b", Code::Ok, 0);
        metrics.call_ended(2, "c", Code::Ok, 0);
        metrics.call_ended(0, "a", Code::Ok, 0);
        let seen = drained(&mut metrics);
        assert_eq!(seen["meshgate.calls_total.command.a.code.OK"], 2);
        assert_eq!(seen["meshgate.calls_total.command.other.code.OK"], 2);
    }
}
