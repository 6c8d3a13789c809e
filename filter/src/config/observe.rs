//! What is told about connections and calls.

use super::faults::Faults;

object! {
    default
    /// What goes to Envoy's log.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LogConfig {
        /// One line for each connection that ends: who, how long, how many calls, why it ended.
        pub connections: bool,
        /// One line for each call that ends. Costs more than the call itself on a busy listener.
        pub calls: bool,
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { connections: true, calls: false }
    }
}

object! {
    default
    /// What goes to Envoy's statistics.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MetricsConfig {
        /// How many commands have counters and a latency histogram of their own: the first ones of
        /// the table, the others share one set. Each set costs Envoy a few KiB for every worker.
        pub commands: u16,
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { commands: 100 }
    }
}

impl MetricsConfig {
    /// Paths in `faults` start below `metrics`.
    pub fn check(&self, faults: &mut Faults) {
        if self.commands > 10_000 {
            let problem = format_args!("{} is out of range, expected 0 to 10000", self.commands);
            faults.add("commands", &problem);
        }
    }
}
