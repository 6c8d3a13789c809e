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
    }
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
        for (key, span, least) in [("spread", self.spread, none), ("within", self.within, least)] {
            if let Err(problem) = span.within(least, hour) {
                faults.add(key, &problem);
            }
        }
        let address = self.address.unwrap_or_default();
        if address.len() > MAX_ADDRESS || !address.bytes().all(|byte| (b'!'..=b'~').contains(&byte))
        {
            faults.add("address", &"expected at most 261 printable ASCII letters, \"host:port\"");
        }
        let (spread, within) = (self.spread.get(), self.within.get());
        DrainConfig { spread, within, address: address.into() }
    }
}
