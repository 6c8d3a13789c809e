//! What the filter counts. Counting is an addition in memory; `host` hands the sums of a few
//! milliseconds to Envoy in one go, because a host call for each would cost more than a call.
//!
//! A label stands in its metric's name as Istio's own bootstrap takes names apart
//! (`extraStatTags`), so that one form serves everywhere: `LABEL=.=VALUE;.;`, in front of the last
//! segment (`meshgate.command=.=1001;.;code=.=OK;.;calls_total`). The `stats_tags` of the bootstraps
//! in `envoy-config/` have the same expressions.

use crate::call::Code;

/// Upper bounds of the latency buckets, in microseconds, and their `le` label in seconds.
const BUCKETS: [(u64, &str); 13] = [
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
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
    /// Clients that were asked to leave and come back, by the reason: who wanted it.
    AskedToLeave,
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
            Self::AskedToLeave => ("meshgate.asked_to_leave_total", "reason"),
        }
    }
}

/// What alerts watch (`istio/chart/alerts/`). It stands at zero from the beginning, as do the metrics
/// without labels: Prometheus sees no increase in a series that begins with its first event.
const WATCHED: [(Labelled, &str); 10] = [
    (Labelled::Logins, "accepted"),
    (Labelled::Logins, "refused"),
    (Labelled::Logins, "try_again"),
    (Labelled::PeerErrors, "seal_broken"),
    (Labelled::PeerErrors, "unsealed_frame"),
    (Labelled::UpstreamErrors, "bell_unanswered"),
    (Labelled::LimitsHit, "frames_per_second"),
    (Labelled::LimitsHit, "max_in_flight"),
    (Labelled::LimitsHit, "max_pending_logins"),
    (Labelled::LimitsHit, "refusals_per_second"),
];

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
    /// Whether Envoy has heard of what stands at zero.
    announced: bool,
    /// Whether a companion is configured; without one, none is missing.
    companion: bool,
}

const NO_SERIES: u32 = u32::MAX;

impl Metrics {
    /// `routes` is how many routes there are, `bound` how many of them get series of their own.
    pub fn new(routes: usize, bound: usize) -> Self {
        Self {
            sums: Default::default(),
            labelled: WATCHED.map(|(what, label)| (what, label, Sum::default())).into(),
            routes: vec![NO_SERIES; routes],
            series: Vec::new(),
            bound,
            dirty: Vec::new(),
            announced: false,
            companion: false,
        }
    }

    pub fn with_companion(self, companion: bool) -> Self {
        Self { companion, ..self }
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

    /// Hands every sum that changed to `sink` and begins anew; the first time also what stands at
    /// zero and is watched.
    pub fn drain(&mut self, sink: Sink<'_>) {
        if !std::mem::replace(&mut self.announced, true) {
            self.announce(sink);
        }
        for (sum, (name, kind)) in self.sums.iter_mut().zip(NAMES) {
            pass(sum, kind, sink, &|| name.to_owned());
        }
        for (what, label, sum) in &mut self.labelled {
            let (name, key) = what.name();
            pass(sum, MetricKind::Counter, sink, &|| labelled(name, &[(key, label)]));
        }
        for index in self.dirty.drain(..) {
            if let Some(series) = self.series.get_mut(index as usize) {
                series.dirty = false;
                drain_series(series, sink);
            }
        }
    }

    fn announce(&mut self, sink: Sink<'_>) {
        for (index, (sum, (name, kind))) in self.sums.iter_mut().zip(NAMES).enumerate() {
            if self.companion || index != Metric::CompanionConnected as usize {
                sink(&|| name.to_owned(), kind, 0, &mut sum.id);
            }
        }
        for (what, label, sum) in &mut self.labelled {
            let (name, key) = what.name();
            let name = || labelled(name, &[(key, label)]);
            sink(&name, MetricKind::Counter, 0, &mut sum.id);
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
        let labels = [("command", command.as_str()), ("code", code.name())];
        let name = || labelled("meshgate.calls_total", &labels);
        pass(sum, MetricKind::Counter, sink, &name);
    }
    // Prometheus' buckets are cumulative: each holds the ones below it as well.
    let mut below = 0i64;
    for (sum, (_, le)) in series.buckets.iter_mut().zip(BUCKETS) {
        below = below.saturating_add(sum.delta);
        sum.delta = below;
        let name = "meshgate.call_duration_seconds_bucket";
        let name = || labelled(name, &[("command", command), ("le", le)]);
        pass(sum, MetricKind::Counter, sink, &name);
    }
    let name = "meshgate.call_duration_microseconds_sum";
    let name = || labelled(name, &[("command", command)]);
    pass(&mut series.micros, MetricKind::Counter, sink, &name);
}

fn pass(sum: &mut Sum, kind: MetricKind, sink: Sink<'_>, name: &dyn Fn() -> String) {
    if sum.delta != 0 {
        sink(name, kind, sum.delta, &mut sum.id);
        sum.delta = 0;
    }
}

/// A metric's name with its labels, in front of the name's last segment.
fn labelled(name: &str, labels: &[(&str, &str)]) -> String {
    let (scope, last) = name.rsplit_once('.').unwrap_or_default();
    let mut whole = format!("{scope}.");
    for (label, value) in labels {
        whole.extend([label, "=.=", value, ";.;"]);
    }
    whole + last
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
        assert_eq!(first["meshgate.kind=.=bad_magic;.;peer_errors_total"], 1);
        assert!(drained(&mut metrics).is_empty());
    }

    #[test]
    fn what_alerts_watch_stands_at_zero_from_the_beginning() {
        let without = drained(&mut Metrics::new(1, 1));
        let seen = drained(&mut Metrics::new(1, 1).with_companion(true));
        assert_eq!(seen["meshgate.companion_connected"], 0);
        assert!(!without.contains_key("meshgate.companion_connected"), "none is missing");
        assert_eq!(seen["meshgate.kind=.=seal_broken;.;peer_errors_total"], 0);
        assert_eq!(seen.len(), NAMES.len() + WATCHED.len());
    }

    #[test]
    fn gauges_that_return_to_zero_between_drains_are_quiet() {
        let mut metrics = Metrics::new(1, 1);
        drained(&mut metrics);
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
            let labels = format!("command=.=1001;.;le=.={le};.;");
            seen.get(&format!("meshgate.{labels}call_duration_seconds_bucket"))
        };
        assert_eq!(bucket("0.00025"), None);
        assert_eq!(bucket("0.0005"), Some(&1));
        assert_eq!(bucket("0.05"), Some(&2));
        assert_eq!(bucket("+Inf"), Some(&2));
        assert_eq!(seen["meshgate.command=.=1001;.;code=.=OK;.;calls_total"], 2);
    }

    #[test]
    fn commands_beyond_the_bound_share_one_series() {
        let mut metrics = Metrics::new(3, 1);
        metrics.call_ended(0, "a", Code::Ok, 0);
        metrics.call_ended(1, "b", Code::Ok, 0);
        metrics.call_ended(2, "c", Code::Ok, 0);
        metrics.call_ended(0, "a", Code::Ok, 0);
        let seen = drained(&mut metrics);
        assert_eq!(seen["meshgate.command=.=a;.;code=.=OK;.;calls_total"], 2);
        assert_eq!(seen["meshgate.command=.=other;.;code=.=OK;.;calls_total"], 2);
    }
}
