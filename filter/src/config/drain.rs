//! How clients are asked to leave and come back.

use std::time::Duration;

use super::faults::Faults;
use super::units::Span;

/// The longest address that a goodbye carries, in bytes: a host name, a colon and a port.
pub const MAX_ADDRESS: usize = 261;

object! {
    /// How clients are asked to leave, when their service or this proxy goes away, and to come back.
    /// They have to know what a goodbye says of that (the session protocol, section 8.1); without
    /// this key they are not asked, and calls to a service that goes away are UNAVAILABLE. Needs
    /// `session.goodbye`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct DrainSpec {
        /// Over how long clients are spread that come back because their service goes away. At most
        /// 1h; "0s": all come at once.
        #[cfg_attr(feature = "schema", schemars(default = "spread"))]
        pub spread: Span = spread(),
        /// How long calls in flight may take, once a client's connection takes no more. 100ms to 1h.
        #[cfg_attr(feature = "schema", schemars(default = "within"))]
        pub within: Span = within(),
        /// Where clients come back to, such as "game.example.com:7000", at most 261 printable ASCII
        /// letters; without it, where they came from.
        pub address: Option<String>,
        /// Where the filter sees that this proxy goes away, which Envoy does not tell it. Without it
        /// only the companion can say so.
        pub watch: Option<WatchSpec>,
    }
}

object! {
    /// A page of this proxy that answers 200 while the proxy is to be used, and 503 once it goes away:
    /// after two of these in a row all its clients are asked to leave.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WatchSpec {
        /// The cluster that leads there, by HTTP: 1 to 120 printable ASCII letters. It must have an
        /// endpoint at all times.
        pub cluster: String,
        /// The page's path.
        #[cfg_attr(feature = "schema", schemars(default = "path"))]
        pub path: String = path(),
        /// How often it is looked at, by each worker. 100ms to 1m.
        #[cfg_attr(feature = "schema", schemars(default = "interval"))]
        pub interval: Span = interval(),
        /// Over how long clients are spread, from the first 503 on. At most 1h.
        #[cfg_attr(feature = "schema", schemars(default = "proxy_spread"))]
        pub spread: Span = proxy_spread(),
    }
}

fn path() -> String {
    "/ready".into()
}

fn interval() -> Span {
    Span::from_millis(1_000)
}

fn proxy_spread() -> Span {
    Span::from_millis(10_000)
}

fn spread() -> Span {
    Span::from_millis(2_000)
}

fn within() -> Span {
    Span::from_millis(30_000)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    pub spread: Duration,
    pub within: Duration,
    /// Empty: where they came from.
    pub address: Box<str>,
    pub watch: Option<WatchConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    pub cluster: Box<str>,
    pub path: Box<str>,
    pub interval: Duration,
    pub spread: Duration,
}

impl DrainSpec {
    /// Paths in `faults` start below `drain`.
    pub fn compile(self, says_goodbye: bool, faults: &mut Faults) -> DrainConfig {
        if !says_goodbye {
            let problem = "clients are asked by a goodbye: give it a command, \
                           \"session\": {\"goodbye\": {\"command\": 2}}";
            faults.add("", &problem);
        }
        let (none, least) = (Span::from_millis(0), Span::from_millis(100));
        let hour = Span::from_millis(3_600_000);
        let mut spans =
            vec![("spread", self.spread, none, hour), ("within", self.within, least, hour)];
        if let Some(watch) = &self.watch {
            spans.push(("watch.interval", watch.interval, least, Span::from_millis(60_000)));
            spans.push(("watch.spread", watch.spread, none, hour));
            if watch.cluster.is_empty() || watch.cluster.len() > 120 || !is_word(&watch.cluster) {
                faults.add("watch.cluster", &"expected 1 to 120 printable ASCII letters");
            }
            if !watch.path.starts_with('/') || watch.path.len() > 1024 || !is_word(&watch.path) {
                faults.add("watch.path", &"expected a path such as \"/ready\"");
            }
        }
        for (key, span, least, hour) in spans {
            if let Err(problem) = span.within(least, hour) {
                faults.add(key, &problem);
            }
        }
        let address = self.address.unwrap_or_default();
        if address.len() > MAX_ADDRESS || !is_word(&address) {
            faults.add("address", &"expected at most 261 printable ASCII letters, \"host:port\"");
        }
        let (spread, within) = (self.spread.get(), self.within.get());
        let watch = self.watch.map(|watch| WatchConfig {
            cluster: watch.cluster.into(),
            path: watch.path.into(),
            interval: watch.interval.get(),
            spread: watch.spread.get(),
        });
        DrainConfig { spread, within, address: address.into(), watch }
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| (b'!'..=b'~').contains(&byte))
}
