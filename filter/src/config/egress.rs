//! The other direction: gRPC callers, and a server that speaks private frames.
//!
//! The document is the same: its layout is the server's, its command table is read from the method
//! to the command.

use super::commands::Options;
use super::document::Document;
use super::faults::Faults;
use super::limits::Limits;
use crate::protocol::layout::Layout;
use crate::route::index::Texts;
use crate::route::{Route, Routes};

/// Full method → route. A method has one command, and every command is one of its own.
pub fn methods(routes: &Routes, faults: &mut Faults) -> Texts {
    let path = |route: &Route| (route.method.as_bytes().into(), route.index);
    let methods = Texts::new(routes.iter().map(path).collect());
    for route in routes.iter() {
        if methods.find(route.method.as_bytes()) != Some(route.index) {
            let problem =
                format_args!("the method {:?} has several commands, keep one", route.method);
            faults.add("commands", &problem);
        }
    }
    methods
}

const ELSEWHERE: &str = "it belongs to the direction \"ingress\", leave this key out";

/// Refuses what has no meaning in this direction.
pub fn refuse_keys(document: &Document, faults: &mut Faults) {
    for (key, present) in [
        ("session", document.session.is_some()),
        ("heartbeat", document.heartbeat.is_some()),
        ("companion", document.companion.is_some()),
        ("upstream", document.upstream.is_some()),
        ("otherwise", document.otherwise.is_some()),
        ("identity", document.identity.is_some()),
        ("push", document.push.is_some()),
        ("drain", document.drain.is_some()),
    ] {
        if present {
            faults.add(key, &ELSEWHERE);
        }
    }
    let defaults = document.defaults.as_ref().and_then(|defaults| defaults.0.as_ref());
    if let Some(defaults) = defaults {
        refuse_options(defaults.options(), "defaults", faults);
    }
    for (index, entry) in document.commands.iter().enumerate() {
        let Some(entry) = &entry.0 else { continue };
        let path = format!("commands[{index}]");
        refuse_options(entry.options(), &path, faults);
        for (key, present) in [
            ("from", entry.from.is_some()),
            ("to", entry.to.is_some()),
            ("command_metadata", entry.command_metadata.is_some()),
        ] {
            if present {
                faults.add(&format!("{path}.{key}"), &ELSEWHERE);
            }
        }
    }
}

fn refuse_options(options: Options<'_>, path: &str, faults: &mut Faults) {
    for (key, present) in [
        ("login", options.login.is_some()),
        ("roles", options.roles.is_some()),
        ("claims", options.claims.is_some()),
        ("metadata", options.metadata.is_some()),
    ] {
        if present {
            faults.add(&format!("{path}.{key}"), &ELSEWHERE);
        }
    }
}

/// The sequences that calls, late replies and the filter's own frames take have to differ.
pub fn check_sequences(layout: &Layout, limits: &Limits, faults: &mut Faults) {
    /// A login and a heartbeat.
    const OWN: u64 = 2;
    let most = layout.max_sequence().saturating_sub(OWN) / 2;
    if u64::from(limits.max_in_flight) > most {
        let problem = format_args!(
            "{} calls at once are too many for the layout's sequence, expected at most {most}",
            limits.max_in_flight
        );
        faults.add("limits.max_in_flight", &problem);
    }
}
