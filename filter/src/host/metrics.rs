//! Hands the sums of a while to Envoy.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::metrics::{MetricKind, Metrics};

pub fn publish(metrics: &mut Metrics) {
    metrics.drain(&mut |name, kind, delta, id| {
        let metric_type = match kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
        };
        if id.is_none() {
            *id = hostcalls::define_metric(metric_type, &name()).ok();
        }
        if let Some(id) = *id {
            let _ = hostcalls::increment_metric(id, delta);
        }
    });
}
