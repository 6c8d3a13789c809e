//! What services may push through the companion.

use super::command::{CommandShape, CommandSpec};
use super::faults::Faults;
use crate::protocol::layout::spec::{LayoutSpec, Role};
use crate::protocol::layout::{Command, Correlation, OwnedCommand};

/// More commands than this are a range.
const MAX_COMMANDS: usize = 1000;
const MAX_RANGES: usize = 100;

object! {
    /// What services may push to clients through the companion, without a stream to them.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PushSpec {
        /// The commands of frames that may be pushed; at most 1000. Any other is refused.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub commands: Vec<CommandSpec> = Vec::new(),
        /// Ranges of such commands, for layouts with numbers; at most 100.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub ranges: Vec<PushRange> = Vec::new(),
        /// Whether bodies are compressed where the layout can and it is worth it; true by default
        /// if the layout has `compression`.
        pub compress: Option<bool>,
        /// What happens when `limits.max_unread` would be exceeded by one more.
        #[cfg_attr(feature = "schema", schemars(default = "refuse"))]
        pub when_full: WhenUnread = WhenUnread::Refuse,
    }
}

#[cfg(feature = "schema")]
fn refuse() -> WhenUnread {
    WhenUnread::Refuse
}

choice! {
    /// What becomes of pushes to a client that does not read them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WhenUnread {
        /// The new one is dropped, and its sender hears `slow`.
        Refuse = "refuse",
        /// The oldest that wait make room, as long as nothing else was said after them; their
        /// senders hear `slow`.
        DropOldest = "drop_oldest",
        /// The connection closes without a word; the client may come back, and its session goes on.
        Close = "close",
    }
}

object! {
    /// A range of commands that may be pushed.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PushRange {
        /// Its first command.
        pub from: CommandSpec,
        /// Its last command.
        pub to: CommandSpec,
    }
}

/// What services may push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// In their order.
    numbers: Vec<i128>,
    names: Vec<Box<[u8]>>,
    ranges: Vec<(i128, i128)>,
    shape: CommandShape,
    pub compress: bool,
    pub when_full: WhenUnread,
}

impl PushConfig {
    pub fn allows(&self, command: Command<'_>) -> bool {
        match command {
            Command::Number(bits) => {
                let number = self.shape.number(bits);
                self.numbers.binary_search(&number).is_ok()
                    || self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&number))
            }
            Command::Text(name) => {
                self.names.binary_search_by(|known| known.as_ref().cmp(name)).is_ok()
            }
        }
    }
}

/// What pushes have to do with beside their own keys.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub shape: CommandShape,
    pub layout: &'a LayoutSpec,
    /// Clients log in.
    pub logins: bool,
    /// Commands of the server's frames that mean something else, and where they stand.
    pub reserved: &'a [(&'static str, OwnedCommand)],
}

impl PushSpec {
    /// Paths in `faults` start below `push`.
    pub fn compile(&self, around: Surroundings<'_>, faults: &mut Faults) -> PushConfig {
        let Surroundings { shape, layout, logins, reserved } = around;
        if !logins {
            let problem = "pushes are for sessions, and nobody logs in with the session mode \
                           \"none\": leave this key out";
            faults.add("", &problem);
        }
        check_layout(layout, faults);
        if self.commands.is_empty() && self.ranges.is_empty() {
            let problem = "no command may be pushed: name those that may, such as \
                           \"commands\": [1206], or leave this key out";
            faults.add("", &problem);
        }
        if self.commands.len() > MAX_COMMANDS {
            faults.add("commands", &"expected at most 1000, more are a range: \"ranges\"");
        }
        if self.ranges.len() > MAX_RANGES {
            faults.add("ranges", &"expected at most 100");
        }
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        for (index, command) in self.commands.iter().enumerate() {
            match command.resolve(shape) {
                Ok(OwnedCommand::Number(bits)) => numbers.push(shape.number(bits)),
                Ok(OwnedCommand::Text(name)) => names.push(name),
                Err(problem) => faults.add(&format!("commands[{index}]"), &problem),
            }
        }
        let ranges = self.ranges(shape, faults);
        numbers.sort_unstable();
        names.sort_unstable();
        let compression = layout.compression.is_some();
        if self.compress == Some(true) && !compression {
            faults.add("compress", &"the layout has no \"compression\", leave this key out");
        }
        let compress = self.compress.unwrap_or(compression);
        let when_full = self.when_full;
        let config = PushConfig { numbers, names, ranges, shape, compress, when_full };
        for (path, command) in reserved {
            if config.allows(command.borrow()) {
                let problem = format_args!(
                    "one of them is that of {path}: a client would take a push for it"
                );
                faults.add("commands", &problem);
            }
        }
        config
    }

    fn ranges(&self, shape: CommandShape, faults: &mut Faults) -> Vec<(i128, i128)> {
        let mut ranges = Vec::new();
        for (index, range) in self.ranges.iter().enumerate() {
            let mut end = |spec: &CommandSpec, key| match spec.resolve(shape) {
                Ok(OwnedCommand::Number(bits)) => Some(shape.number(bits)),
                Ok(OwnedCommand::Text(_)) => {
                    let problem = "names have no ranges, list them in \"commands\"";
                    faults.add(&format!("ranges[{index}].{key}"), &problem);
                    None
                }
                Err(problem) => {
                    faults.add(&format!("ranges[{index}].{key}"), &problem);
                    None
                }
            };
            let ends = (end(&range.from, "from"), end(&range.to, "to"));
            match ends {
                (Some(from), Some(to)) if from <= to => ranges.push((from, to)),
                (Some(from), Some(to)) => {
                    let problem = format_args!("{to} is before {from}, swap them");
                    faults.add(&format!("ranges[{index}].to"), &problem);
                }
                _ => {}
            }
        }
        ranges
    }
}

/// Refuses layouts in which a client would take a push for a reply.
fn check_layout(layout: &LayoutSpec, faults: &mut Faults) {
    let fields = layout.header.iter().chain(&layout.trailer);
    let mut marked = false;
    for field in fields {
        match &field.role {
            Role::Kind(kind) if kind.push.is_none() => {
                let problem = "the layout's kinds of frames have none for pushes, so that they \
                               cannot be delivered: give its field \"kind\" a \"push\"";
                faults.add("", &problem);
                return;
            }
            Role::Kind(_) => marked = true,
            Role::Flags(flags) => marked |= flags.push.is_some(),
            _ => {}
        }
    }
    if layout.correlation == Correlation::Order && !marked {
        let problem = "replies come in the order of the requests, and the layout has nothing to \
                       tell a push from them, so that pushes cannot be delivered: give its flags \
                       a \"push\"";
        faults.add("", &problem);
    }
}
