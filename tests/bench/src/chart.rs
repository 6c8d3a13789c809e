//! The figures as a picture (SVG): bars for what a call costs and how long it takes.

use std::fmt::Write;

use crate::report::{Findings, Spread};
use crate::run::{Row, Shape};

const WIDTH: f64 = 860.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 220.0;
const LENGTH: f64 = 470.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const HEAD: f64 = 64.0;
const PANEL_HEAD: f64 = 44.0;

/// One group of bars.
struct Panel {
    title: &'static str,
    unit: &'static str,
    bars: Vec<(String, Spread)>,
}

/// The chart of all `scenarios` that were measured; `machine` is named below the title.
pub fn draw(findings: &Findings, scenarios: &[&str], machine: &str) -> String {
    let panel = |title, unit, shape: Shape, figure: fn(&Row) -> f64| Panel {
        title,
        unit,
        bars: scenarios
            .iter()
            .filter_map(|name| {
                let spread = findings.spread(name, shape, 64, figure)?;
                (spread.median > 0.0).then(|| ((*name).to_owned(), spread))
            })
            .collect(),
    };
    let panels = [
        panel(
            "CPU per call between client and service, 64 B, 8 × 16 in flight",
            "µs",
            Shape::BUSY,
            |row| row.proxy_cpu_us_per_call,
        ),
        panel("Calls per second, 64 B, 8 × 16 in flight", "k/s", Shape::BUSY, |row| {
            row.calls_per_s / 1000.0
        }),
        panel("Median latency of a call, 64 B, one at a time", "µs", Shape::ONE, |row| row.p50_us),
    ];
    let heights = panels.iter().map(|panel| PANEL_HEAD + panel.bars.len() as f64 * STEP);
    let height = HEAD + heights.sum::<f64>() + 16.0;

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" role="img">
<title>MeshGate's benchmark</title>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="16" y="28" font-size="18" font-weight="600" fill="#1b1f24">What a call costs on each way</text>
<text x="16" y="48" fill="#57606a">{}. Bars: medians; lines: least to most of all rounds.</text>
"##,
        escape(machine)
    );
    let mut y = HEAD;
    for panel in &panels {
        panel.draw(y, &mut svg);
        y += PANEL_HEAD + panel.bars.len() as f64 * STEP;
    }
    svg.push_str("</svg>\n");
    svg
}

impl Panel {
    fn draw(&self, top: f64, svg: &mut String) {
        let longest = self.bars.iter().map(|(_, spread)| spread.most).fold(0.0, f64::max);
        let scale = |value: f64| value / longest.max(f64::MIN_POSITIVE) * LENGTH;
        let _ = writeln!(
            svg,
            r##"<text x="16" y="{:.1}" font-weight="600" fill="#1b1f24">{}</text>"##,
            top + 28.0,
            escape(self.title)
        );
        for (number, (name, spread)) in self.bars.iter().enumerate() {
            let y = top + PANEL_HEAD + number as f64 * STEP;
            let middle = y + BAR / 2.0;
            let fill = if name.starts_with("meshgate") { "#0f766e" } else { "#a8b3bd" };
            let (least, most) = (LEFT + scale(spread.least), LEFT + scale(spread.most));
            let _ = writeln!(
                svg,
                r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#1b1f24">{}</text>
<rect x="{LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}" fill="{fill}"/>
<line x1="{least:.1}" x2="{most:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="#1b1f24"/>
<text x="{:.1}" y="{:.1}" fill="#1b1f24">{} {}</text>"##,
                LEFT - 8.0,
                middle + 4.5,
                escape(name),
                scale(spread.median),
                most + 8.0,
                middle + 4.5,
                figures(spread.median),
                self.unit,
            );
        }
    }
}

/// Three figures that count.
fn figures(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_with_a_figure_has_its_bar() {
        let row = |scenario: &str, cpu: f64| Row {
            scenario: scenario.to_owned(),
            size: 64,
            connections: 8,
            in_flight: 16,
            round: 1,
            calls_per_s: 1000.0,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            proxy_cpu_us_per_call: cpu,
            errors: 0,
        };
        let rows = vec![row("envoy-tcp", 1.0), row("envoy-grpc", 20.0), row("grpc-server", 0.0)];
        let findings = Findings { rows, ..Findings::default() };
        let svg = draw(&findings, &["envoy-tcp", "envoy-grpc", "grpc-server"], "A & B");
        assert_eq!(svg.matches(">envoy-tcp<").count(), 2, "CPU and rate");
        assert_eq!(svg.matches(">grpc-server<").count(), 1, "it has no proxy, and so no CPU");
        assert!(svg.contains("20.0 µs") && svg.contains("A &amp; B"));
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }
}
