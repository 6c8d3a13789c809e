//! What the companion counts, and how Prometheus reads it (text format 0.0.4).
//!
//! Counting is an addition to an atomic number. Labels have few fixed values: no user, address,
//! proxy or key id ever becomes one.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of latency buckets, in microseconds: a flash disk's flush to a login's deadline.
const BOUNDS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn count(&self) {
        self.add(1);
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    micros: Counter,
    count: Counter,
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().zip(&self.buckets).find(|(bound, _)| micros <= **bound);
        if let Some((_, bucket)) = bucket {
            bucket.count();
        }
        self.micros.add(micros);
        self.count.count();
    }
}

/// A counter for each value of a label. The names are given once and fixed.
#[derive(Debug)]
pub struct Family {
    counters: Vec<(&'static str, Counter)>,
}

impl Family {
    pub fn new(names: &[&'static str]) -> Self {
        Self { counters: names.iter().map(|name| (*name, Counter::default())).collect() }
    }

    /// Counts under this name; what is not among the names is not counted.
    pub fn count(&self, name: &str) {
        if let Some((_, counter)) = self.counters.iter().find(|(known, _)| *known == name) {
            counter.count();
        }
    }

    /// Counts so many under this name.
    pub fn add(&self, name: &str, more: u64) {
        if let Some((_, counter)) = self.counters.iter().find(|(known, _)| *known == name) {
            counter.add(more);
        }
    }

    pub fn value(&self, name: &str) -> u64 {
        let found = self.counters.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, counter)| counter.value())
    }
}

/// What the store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Admit,
    End,
    Find,
    List,
    Count,
    TakeOver,
    Depart,
    Back,
    Attached,
    Sweep,
    Announce,
    Join,
    Leave,
    Members,
    GroupsOf,
    Keep,
    TakeKept,
}

const OPERATIONS: [(Operation, &str); 17] = [
    (Operation::Admit, "admit"),
    (Operation::End, "end"),
    (Operation::Find, "find"),
    (Operation::List, "list"),
    (Operation::Count, "count"),
    (Operation::TakeOver, "take_over"),
    (Operation::Depart, "depart"),
    (Operation::Back, "back"),
    (Operation::Attached, "attached"),
    (Operation::Sweep, "sweep"),
    (Operation::Announce, "announce"),
    (Operation::Join, "join"),
    (Operation::Leave, "leave"),
    (Operation::Members, "members"),
    (Operation::GroupsOf, "groups_of"),
    (Operation::Keep, "keep"),
    (Operation::TakeKept, "take_kept"),
];

/// What can come of a push.
const PUSH_OUTCOMES: [&str; 7] =
    ["delivered", "away", "queued", "gone", "slow", "refused", "unconfirmed"];

/// Everything that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    /// By what came of them: `accepted`, or why not ([`crate::domain::refusal::Why::name`]).
    pub ticket_logins: Family,
    pub noise_logins: Family,
    /// Of logins that name no mode.
    pub other_logins: Family,
    /// Of those who come back, in both modes; likewise.
    pub resumes: Family,
    /// From a login's arrival to its answer.
    pub login_time: Histogram,
    /// What came of questions to the login server
    /// ([`crate::domain::verifier::RESULTS`]).
    pub verifier_answers: Family,
    /// What the login server takes for its answer, or until it is given up.
    pub verifier_time: Histogram,
    /// `live`, `repeated`, `refused`.
    pub activations: Family,
    /// Sessions that ended, by `closed`, `logout`, `kicked`, `replaced`, `expired`, `given_up`,
    /// `never_activated`.
    pub ended: Family,
    /// Sessions that went away (`away`: their connection is gone, `lost`: their proxy is), or came
    /// back (`resumed`: by their client, `back`: by their proxy).
    pub moves: Family,
    pub streams_opened: Counter,
    /// Streams of proxies that did not read.
    pub streams_cut: Counter,
    pub log_lines_held_back: Counter,
    /// What other replicas did, by `ended`, `moved`, `call`, `gap`.
    pub news: Family,
    /// Callers that were turned away, by `edge`, `admin`, `app`.
    pub denied: Family,
    /// Calls of operators, by `ok`, `failed`.
    pub admin_calls: Family,
    /// Calls of services, by `ok`, `failed`.
    pub app_calls: Family,
    /// Sessions that pushes were for, by what came of it: `delivered`, `away`, `gone`, `slow`,
    /// `refused`, `unconfirmed`, `queued`.
    pub pushes: Family,
    /// From a push's arrival to its answer.
    pub push_time: Histogram,
    /// `ok`, `failed`.
    pub reloads: Family,
    store_time: [Histogram; OPERATIONS.len()],
    store_errors: [Counter; OPERATIONS.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        let logins = || Family::new(&crate::domain::refusal::RESULTS);
        Self {
            ticket_logins: logins(),
            noise_logins: logins(),
            other_logins: logins(),
            resumes: logins(),
            login_time: Histogram::default(),
            verifier_answers: Family::new(&crate::domain::verifier::RESULTS),
            verifier_time: Histogram::default(),
            activations: Family::new(&["live", "repeated", "refused"]),
            ended: Family::new(&[
                "closed",
                "logout",
                "kicked",
                "replaced",
                "expired",
                "given_up",
                "never_activated",
            ]),
            moves: Family::new(&["away", "lost", "resumed", "back"]),
            streams_opened: Counter::default(),
            streams_cut: Counter::default(),
            log_lines_held_back: Counter::default(),
            news: Family::new(&["ended", "moved", "call", "gap"]),
            denied: Family::new(&["edge", "admin", "app"]),
            admin_calls: Family::new(&["ok", "failed"]),
            app_calls: Family::new(&["ok", "failed"]),
            pushes: Family::new(&PUSH_OUTCOMES),
            push_time: Histogram::default(),
            reloads: Family::new(&["ok", "failed"]),
            store_time: Default::default(),
            store_errors: Default::default(),
        }
    }
}

impl Metrics {
    pub fn store(&self, operation: Operation, took: Duration, failed: bool) {
        let index = OPERATIONS.iter().position(|(known, _)| *known == operation);
        let index = index.unwrap_or_default();
        if let Some(histogram) = self.store_time.get(index) {
            histogram.record(took);
        }
        if let (true, Some(errors)) = (failed, self.store_errors.get(index)) {
            errors.count();
        }
    }
}

/// What is measured at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    pub sessions_pending: usize,
    /// Held by streams that are open; a session whose proxy is away is not among them.
    pub sessions_live: usize,
    /// In the store, whoever holds them.
    pub stored_live: u64,
    pub stored_away: u64,
    pub streams: usize,
    pub logins_under_way: usize,
    pub store_healthy: bool,
    /// Where there is one: the state of its circuit breaker (`closed`, `half_open`, `open`), and how
    /// many questions wait for their answer.
    pub verifier: Option<(&'static str, usize)>,
    /// Where an issuer's keys are fetched.
    pub fetched_keys: Option<crate::domain::jwt::fetched::Numbers>,
    /// By listener: when its certificate expires, in seconds since the Unix epoch.
    pub certificates: Vec<(&'static str, u64)>,
}

/// The page that Prometheus reads.
pub fn page(metrics: &Metrics, gauges: &Gauges) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    page.logins(metrics);
    page.family("resumes_total", "Resumes, by result", "result", &metrics.resumes);
    page.head("login_seconds", "histogram", "From a login's arrival to its answer");
    page.histogram("login_seconds", "", &metrics.login_time);
    page.family(
        "verifier_answers_total",
        "Questions to the login server, by result",
        "result",
        &metrics.verifier_answers,
    );
    page.head("verifier_seconds", "histogram", "What the login server takes for an answer");
    page.histogram("verifier_seconds", "", &metrics.verifier_time);
    page.family(
        "activations_total",
        "First frames of pending sessions, by result",
        "result",
        &metrics.activations,
    );
    page.family("sessions_ended_total", "Ended sessions, by cause", "cause", &metrics.ended);
    page.family("session_moves_total", "Sessions that go and come", "kind", &metrics.moves);
    page.counter(
        "proxy_streams_opened_total",
        "Streams that proxies opened",
        &metrics.streams_opened,
    );
    page.counter("proxy_streams_cut_total", "Streams cut: not read", &metrics.streams_cut);
    page.counter("log_lines_held_back_total", "Lines not logged", &metrics.log_lines_held_back);
    page.family("replica_news_total", "What other replicas did, by kind", "kind", &metrics.news);
    page.family("callers_denied_total", "Callers turned away", "listener", &metrics.denied);
    page.family("admin_calls_total", "Calls of operators", "result", &metrics.admin_calls);
    page.family("app_calls_total", "Calls of services", "result", &metrics.app_calls);
    page.family("pushes_total", "Sessions pushed to, by outcome", "outcome", &metrics.pushes);
    page.head("push_seconds", "histogram", "From a push's arrival to its answer");
    page.histogram("push_seconds", "", &metrics.push_time);
    page.family("reloads_total", "Reloads of the configuration", "result", &metrics.reloads);
    page.store(metrics);
    page.gauges(gauges);
    page.0
}

struct Page(String);

// Writing to a String cannot fail.
impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP meshgate_companion_{name} {help}");
        let _ = writeln!(self.0, "# TYPE meshgate_companion_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: u64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "meshgate_companion_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, "counter", help);
        self.value(name, "", counter.value());
    }

    fn family(&mut self, name: &str, help: &str, label: &str, family: &Family) {
        self.head(name, "counter", help);
        for (value, counter) in &family.counters {
            self.value(name, &format!("{label}=\"{value}\""), counter.value());
        }
    }

    fn logins(&mut self, metrics: &Metrics) {
        self.head("logins_total", "counter", "Logins, by mode and result");
        for (mode, family) in [
            ("ticket", &metrics.ticket_logins),
            ("noise", &metrics.noise_logins),
            ("other", &metrics.other_logins),
        ] {
            for (result, counter) in &family.counters {
                let labels = format!("mode=\"{mode}\",result=\"{result}\"");
                self.value("logins_total", &labels, counter.value());
            }
        }
    }

    fn store(&mut self, metrics: &Metrics) {
        self.head("store_seconds", "histogram", "What the store takes, durably where it writes");
        for ((_, name), histogram) in OPERATIONS.iter().zip(&metrics.store_time) {
            self.histogram("store_seconds", &format!("operation=\"{name}\""), histogram);
        }
        self.head("store_errors_total", "counter", "Operations that the store failed");
        for ((_, name), errors) in OPERATIONS.iter().zip(&metrics.store_errors) {
            self.value("store_errors_total", &format!("operation=\"{name}\""), errors.value());
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0_u64;
        for (bound, bucket) in BOUNDS.iter().zip(&histogram.buckets) {
            below = below.saturating_add(bucket.value());
            let labels = format!("{labels}{comma}le=\"{}\"", seconds(*bound));
            self.value(&format!("{name}_bucket"), &labels, below);
        }
        // Counted last, so never less than what the buckets say.
        let count = histogram.count.value().max(below);
        self.value(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), count);
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = seconds(histogram.micros.value());
        let _ = writeln!(self.0, "meshgate_companion_{name}_sum{braces} {sum}");
        self.value(&format!("{name}_count"), labels, count);
    }

    fn gauges(&mut self, gauges: &Gauges) {
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        self.head("sessions", "gauge", "Sessions held by attached proxies, by state");
        self.value("sessions", "state=\"pending\"", number(gauges.sessions_pending));
        self.value("sessions", "state=\"live\"", number(gauges.sessions_live));
        self.head("sessions_stored", "gauge", "Sessions in the store, by state");
        self.value("sessions_stored", "state=\"live\"", gauges.stored_live);
        self.value("sessions_stored", "state=\"away\"", gauges.stored_away);
        self.head("proxy_streams", "gauge", "Attached workers of proxies");
        self.value("proxy_streams", "", number(gauges.streams));
        self.head("logins_under_way", "gauge", "Logins that are being worked on");
        self.value("logins_under_way", "", number(gauges.logins_under_way));
        self.head("store_healthy", "gauge", "1 if the store worked the last time it was asked");
        self.value("store_healthy", "", u64::from(gauges.store_healthy));
        if let Some((now, under_way)) = gauges.verifier {
            self.head("verifier_breaker", "gauge", "1 for what the login server's breaker is");
            for state in ["closed", "half_open", "open"] {
                let label = format!("state=\"{state}\"");
                self.value("verifier_breaker", &label, u64::from(state == now));
            }
            self.head("verifier_under_way", "gauge", "Questions to the login server");
            self.value("verifier_under_way", "", number(under_way));
        }
        if let Some(found) = gauges.fetched_keys {
            self.head("jwks_fetches_total", "counter", "Fetches of an issuer's keys, by result");
            self.value("jwks_fetches_total", "result=\"ok\"", found.fetched);
            self.value("jwks_fetches_total", "result=\"failed\"", found.failed);
            self.head("jwks_keys", "gauge", "The issuer's keys that are here");
            self.value("jwks_keys", "", number(found.keys));
            if let Some(age) = found.age {
                self.head("jwks_age_seconds", "gauge", "Since they were fetched");
                self.value("jwks_age_seconds", "", age);
            }
        }
        self.head("certificate_expiry_seconds", "gauge", "When a certificate expires, Unix time");
        for (listener, expiry) in &gauges.certificates {
            let labels = format!("listener=\"{listener}\"");
            self.value("certificate_expiry_seconds", &labels, *expiry);
        }
        self.head("build_info", "gauge", "1; the version is in the label");
        self.value("build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    }
}

/// Microseconds as seconds, without loss.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::jwt::fetched::Numbers;

    #[test]
    fn a_histogram_counts_upward_and_its_bounds_are_inclusive() {
        let metrics = Metrics::default();
        for micros in [1, 250, 251, 6_000_000] {
            metrics.login_time.record(Duration::from_micros(micros));
        }
        let page = page(&metrics, &Gauges::default());
        for line in [
            "meshgate_companion_login_seconds_bucket{le=\"0.00025\"} 2",
            "meshgate_companion_login_seconds_bucket{le=\"0.0005\"} 3",
            "meshgate_companion_login_seconds_bucket{le=\"5\"} 3",
            "meshgate_companion_login_seconds_bucket{le=\"+Inf\"} 4",
            "meshgate_companion_login_seconds_sum 6.000502",
            "meshgate_companion_login_seconds_count 4",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }

    #[test]
    fn every_metric_has_its_head_once_and_every_line_a_number() {
        let gauges = Gauges {
            certificates: vec![("edge", 5)],
            verifier: Some(("open", 3)),
            fetched_keys: Some(Numbers { fetched: 1, failed: 2, keys: 3, age: Some(4) }),
            ..Gauges::default()
        };
        let page = page(&Metrics::default(), &gauges);
        let mut named = Vec::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap().to_owned();
                assert!(!named.contains(&name), "{name}");
                named.push(name);
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                assert!(named.last().is_some_and(|last| name.starts_with(last)), "{line}");
                value.parse::<f64>().unwrap();
            }
        }
    }
}
