//! The bars of a soak, over all samples after the warm-up.

use std::fmt;
use std::time::Duration;

use super::rig::End;
use super::sample::Sample;

/// Bytes an hour.
const MOST_GROWTH: f64 = 1e6;
/// In a short run the slope is the noise of a few pages: growth below this is none, in bytes.
const NOISE: f64 = 256.0 * 1024.0;
const SOURCES: f64 = 3.0;
/// Calm is what has seen no trouble for this many samples.
const SETTLED: usize = 4;

/// One bar: what was found, what it had to be, whether it was.
struct Bar {
    name: &'static str,
    found: String,
    wanted: String,
    met: bool,
}

/// All bars.
pub(super) struct Verdict {
    bars: Vec<Bar>,
    /// From then on samples count.
    pub(super) warm: Duration,
}

impl Verdict {
    pub(super) fn passed(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Bar { name, found, wanted, met } in &self.bars {
            let verdict = if *met { "ok" } else { "FAILED" };
            writeln!(f, "  {name:24} {found:34} {wanted:34} {verdict}")?;
        }
        Ok(())
    }
}

/// A fifth of the run, ten minutes at most: buffers reach their sizes, and each kind of trouble has come once.
pub(super) fn warm_up(length: Duration) -> Duration {
    (length / 5).min(Duration::from_secs(600))
}

pub(super) fn judge(samples: &[Sample], end: &End, fps: f64) -> Verdict {
    let warm = warm_up(samples.last().map_or(Duration::ZERO, |last| last.at));
    let first = samples.partition_point(|sample| sample.at < warm);
    let counted = &samples[first..];
    let calm: Vec<&Sample> = calm(samples).filter(|sample| sample.at >= warm).collect();
    let bars = vec![
        growth(counted),
        constant("threads", &calm, |sample| sample.process.threads),
        constant("descriptors", &calm, |sample| sample.process.descriptors),
        latency(counted, fps),
        recovered(samples),
        Bar {
            name: "events lost by an outbox",
            found: format!("{}", samples.last().map_or(0, |last| last.metrics.lost)),
            wanted: "0".into(),
            met: samples.last().is_some_and(|last| last.metrics.lost == 0),
        },
        Bar {
            name: "SIGTERM",
            found: format!("{} after {:.1} s", if end.success { "done" } else { "failed" }, end.took.as_secs_f64()),
            wanted: "done within 10 s".into(),
            met: end.success && end.took < Duration::from_secs(10),
        },
    ];
    Verdict { bars, warm }
}

/// Samples at which everything works, and has for a while.
fn calm(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    let well = |sample: &Sample| sample.trouble == super::Trouble::default() && sample.metrics.all_well();
    samples.windows(SETTLED).filter(move |window| window.iter().all(well)).filter_map(|window| window.last())
}

/// The line of least squares through `(hours, bytes)`: bytes an hour.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

fn growth(samples: &[Sample]) -> Bar {
    let hours = |sample: &Sample| sample.at.as_secs_f64() / 3600.0;
    let points: Vec<_> = samples.iter().map(|sample| (hours(sample), sample.process.rss as f64)).collect();
    let slope = slope(&points);
    let span = points.last().map_or(0.0, |last| last.0 - points[0].0);
    Bar {
        name: "memory, resident",
        found: format!("{:+.2} MB an hour over {:.0} min", slope / 1e6, span * 60.0),
        wanted: format!("less than {:+.2}", MOST_GROWTH / 1e6),
        met: slope < MOST_GROWTH || slope * span < NOISE,
    }
}

fn constant(name: &'static str, calm: &[&Sample], count: impl Fn(&Sample) -> u64) -> Bar {
    let (least, most) =
        calm.iter().fold((u64::MAX, 0), |(least, most), it| (least.min(count(it)), most.max(count(it))));
    Bar {
        name,
        found: if least == most { format!("{least}") } else { format!("{least} to {most}") },
        wanted: format!("constant, in {} calm samples", calm.len()),
        met: least == most,
    }
}

/// The `percent`th of `values`, which are sorted for it.
pub(super) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A frame waits for those of the other sources, and an event for the next frame of its own.
fn latency(samples: &[Sample], fps: f64) -> Bar {
    let mut pins: Vec<f64> = samples.iter().flat_map(|sample| &sample.pins).copied().collect();
    let (p50, p99) = (percentile(&mut pins, 50), percentile(&mut pins, 99));
    let inference = match samples {
        [first, .., last] => {
            let [from, to] = [first, last].map(|sample| sample.metrics.inference);
            1000.0 * (to.0 - from.0) / (to.1 - from.1)
        }
        _ => f64::NAN,
    };
    let limit = SOURCES * inference + 1000.0 / fps + 20.0;
    Bar {
        name: "capture to pin, p99",
        found: format!("{p99:.1} ms of {} events (p50 {p50:.1})", pins.len()),
        wanted: format!("less than {limit:.0} ms (inference {inference:.1})"),
        met: p99 < limit,
    }
}

/// After each trouble everything works again, and within the back-off's longest pause.
fn recovered(samples: &[Sample]) -> Bar {
    let (mut longest, mut since) = (Duration::ZERO, None);
    for sample in samples {
        if sample.trouble == super::Trouble::default() && !sample.metrics.all_well() {
            let begun = *since.get_or_insert(sample.at);
            longest = longest.max(sample.at - begun + super::EVERY);
        } else {
            since = None;
        }
    }
    let limit = Duration::from_secs(40);
    Bar {
        name: "recovery",
        found: format!("within {} s", longest.as_secs()),
        wanted: format!("within {} s", limit.as_secs()),
        met: longest <= limit && samples.last().is_some_and(|last| last.metrics.classified > 0),
    }
}
