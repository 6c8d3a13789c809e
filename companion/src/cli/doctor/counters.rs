//! Counters and gauges: what has gone wrong since Envoy started.

use super::proxy::Proxy;
use super::report::Report;

const SCOPE: &str = "wasmcustom.meshgate.";

pub fn examine(proxy: &Proxy, report: &mut Report) {
    companion(proxy, report);
    let clients = proxy.stat(&format!("{SCOPE}connections"));
    let sessions = proxy.stat(&format!("{SCOPE}sessions"));
    if let (Some(clients), Some(sessions)) = (clients, sessions) {
        report.ok("clients", "envoy", &format!("{clients} connections, {sessions} sessions"));
    }
    for trouble in TROUBLES {
        let found = proxy.stats.iter().filter(|(name, value)| **value > 0 && (trouble.is)(name));
        for (name, value) in found {
            let what = format!("{name} is {value}: {}", trouble.what);
            let subject = "envoy";
            let finding = match trouble.fatal {
                true => report.error(trouble.check, subject, &what),
                false => report.warn(trouble.check, subject, &what),
            };
            finding.remedy(trouble.remedy);
        }
    }
    labelled(
        proxy,
        "limits_hit_total",
        "limits",
        |_| true,
        "RUNBOOK.md: MeshGateLimitsHit",
        report,
    );
    let seals = |kind: &str| ["seal_broken", "unsealed_frame"].contains(&kind);
    labelled(
        proxy,
        "peer_errors_total",
        "seals",
        seals,
        "RUNBOOK.md: MeshGateSealFailures",
        report,
    );
}

/// Whether logins can be decided at all: each thread has a stream of its own to the companion.
fn companion(proxy: &Proxy, report: &mut Report) {
    let wanted = proxy.plugins().any(|(_, _, _, plugin)| {
        plugin.config.as_ref().is_ok_and(|config| config.companion.is_some())
    });
    if !wanted {
        return;
    }
    let threads = proxy.threads;
    match proxy.stat(&format!("{SCOPE}companion_connected")).unwrap_or(0) {
        0 => report
            .error("companion", "filter", "no thread has a stream to the companion: nobody can log in")
            .remedy("see the companion's cluster above; Envoy's log says `the companion's stream ended with gRPC status N`"),
        some if some < threads => report
            .warn("companion", "filter", &format!("{some} of {threads} threads have a stream to the companion"))
            .remedy("RUNBOOK.md: MeshGateWorkerWithoutCompanion"),
        some => report.ok("companion", "filter", &format!("{some} streams to it")),
    }
}

/// What counters of one metric say beside zero, by their label.
fn labelled(
    proxy: &Proxy,
    metric: &str,
    check: &'static str,
    interesting: fn(&str) -> bool,
    remedy: &str,
    report: &mut Report,
) {
    for (name, value) in proxy.stats.iter().filter(|(_, value)| **value > 0) {
        let label = name.strip_prefix(SCOPE).and_then(|rest| rest.strip_suffix(metric));
        let label = label.and_then(|label| label.split_once("=.=")).map(|(_, value)| value);
        let Some(label) = label.map(|label| label.trim_end_matches(";.;")) else { continue };
        if interesting(label) {
            report.warn(check, "clients", &format!("{label}: {value} times")).remedy(remedy);
        }
    }
}

struct Trouble {
    check: &'static str,
    is: fn(&str) -> bool,
    fatal: bool,
    what: &'static str,
    remedy: &'static str,
}

const TROUBLES: [Trouble; 8] = [
    Trouble {
        check: "module",
        is: |name| name == "wasm.remote_load_fetch_failures",
        fatal: true,
        what: "the module could not be fetched",
        remedy: "correct the plugin's url or its registry; RUNBOOK.md: MeshGatePluginFetchFailed",
    },
    Trouble {
        check: "module",
        is: |name| name.starts_with("wasm-default-deny.") && name.ends_with(".denied"),
        fatal: true,
        what: "clients were turned away by the filter that stands in for a plugin",
        remedy: "the module could not be fetched; RUNBOOK.md: MeshGatePluginReplacedByDeny",
    },
    Trouble {
        check: "crash",
        is: |name| name.starts_with("wasm.") && name.ends_with(".vm_reload_failure"),
        fatal: true,
        what: "the filter crashed and could not be started anew",
        remedy: "Envoy's log has the panic; RUNBOOK.md: MeshGateVirtualMachineCrashed",
    },
    Trouble {
        check: "crash",
        is: |name| name.starts_with("wasm.") && name.ends_with(".vm_reload"),
        fatal: false,
        what: "the filter crashed and was started anew",
        remedy: "Envoy's log has the panic; RUNBOOK.md: MeshGateVirtualMachineCrashed",
    },
    Trouble {
        check: "config",
        is: |name| {
            name.starts_with("extension_config_discovery.network_filter.")
                && name.ends_with(".config_fail")
        },
        fatal: false,
        what: "a plugin's configuration was refused; the one before stays",
        remedy: "Envoy's log says `meshgate: configuration refused`; RUNBOOK.md: MeshGateConfigurationRejected",
    },
    Trouble {
        check: "config",
        is: |name| {
            name == "listener_manager.lds.update_rejected"
                || name == "listener_manager.listener_create_failure"
        },
        fatal: false,
        what: "a listener was refused",
        remedy: "Envoy's log says why; RUNBOOK.md: MeshGateConfigurationRejected",
    },
    Trouble {
        check: "plugin",
        is: |name| {
            name.starts_with("listener.") && name.ends_with(".network_extension_config_missing")
        },
        fatal: false,
        what: "connections were closed because a plugin had not arrived",
        remedy: "at a start that may be; if it grows, see the plugin's state above",
    },
    Trouble {
        check: "limits",
        is: |name| {
            name.starts_with("listener.")
                && (name.ends_with(".downstream_cx_overflow")
                    || name.ends_with(".downstream_global_cx_overflow"))
        },
        fatal: false,
        what: "Envoy turned clients away by its own limit of connections",
        remedy: "raise the limit of connections, or add proxies",
    },
];
