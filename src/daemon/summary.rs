//! What a run did, for a newcomer at a glance: photos, rules, pins, rates, latency.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::recorder::{Record, Recorder};
use crate::clock::Monotonic;
use crate::config::plan::Level;
use crate::rules::Change;
use crate::telemetry::CameraCounters;
use crate::telemetry::recent::Percentiles;

/// Columns of a pin's timeline.
const TIMELINE: usize = 60;

/// The whole run.
pub struct Summary {
    /// The model, its kernel, what it took to load.
    pub model: String,
    /// From the start of the daemon to the end of the loop.
    pub elapsed: Duration,
    /// Per camera.
    pub cameras: Vec<CameraOutcome>,
    /// Per action.
    pub actions: Vec<ActionOutcome>,
    /// Everything that was recorded.
    pub recorder: Arc<Recorder>,
}

/// What became of one camera's frames.
pub struct CameraOutcome {
    /// The camera's name.
    pub name: Arc<str>,
    /// Its counters.
    pub counters: Arc<CameraCounters>,
}

/// What became of one action's messages.
pub struct ActionOutcome {
    /// The action's name.
    pub name: Arc<str>,
    /// Messages that its full outbox dropped.
    pub dropped: u64,
    /// Messages that were still waiting when the time to drain was over.
    pub left: u64,
}

/// When one line was at which level.
struct Timeline {
    edges: Vec<(Duration, Level)>,
}

impl Summary {
    /// Frames a second that the network alone would classify: what it took is the median of a view times the views.
    fn frames_per_second(&self, record: &Record) -> f64 {
        let busy = record.inference.percentiles().map_or(0.0, |p| p.median.as_secs_f64() * record.views as f64);
        if busy > 0.0 { record.frames as f64 / busy } else { 0.0 }
    }

    /// The summary as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let record = self.recorder.lock();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let percentiles = |p: Option<Percentiles>| {
            p.map(|p| json!({"median_ms": ms(p.median), "p99_ms": ms(p.p99), "max_ms": ms(p.max)}))
        };
        json!({
            "model": self.model,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "frames": record.frames,
            "frames_per_second": self.frames_per_second(&record),
            "inference": percentiles(record.inference.percentiles()),
            "capture_to_pin": percentiles(record.capture_to_pin.percentiles()),
            "views": record.sightings.iter().map(|s| json!({
                "camera": *s.camera, "region": s.region.as_deref(), "title": s.title, "label": *s.label,
                "probability": s.probability, "fired": s.fired.iter().map(|r| r.to_string()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "events": record.events.iter().map(|e| json!({
                "rule": *e.rule, "on": e.change == Change::On, "camera": *e.camera, "label": *e.label,
                "probability": e.probability, "verdict": e.verdict.as_ref().map(|v| format!("{:?}", v.outcome).to_lowercase()),
                "part": e.verdict.as_ref().and_then(|v| v.part.as_deref()),
            })).collect::<Vec<_>>(),
            "cameras": self.cameras.iter().map(|c| json!({
                "name": *c.name, "captured": c.counters.captured.get(), "dropped_stale": c.counters.dropped_stale.get(),
                "dropped_corrupt": c.counters.dropped_corrupt.get(), "lost": c.counters.lost.get(), "skipped_still": c.counters.skipped_still.get(),
                "skipped_rate": c.counters.skipped_rate.get(), "skipped_heat": c.counters.skipped_heat.get(),
            })).collect::<Vec<_>>(),
            "actions": self.actions.iter().map(|a| json!({
                "name": *a.name, "delivered": record.delivered.get(&*a.name), "dropped": a.dropped, "left": a.left,
            })).collect::<Vec<_>>(),
        })
    }

    fn timelines(&self, record: &Record) -> BTreeMap<Arc<str>, Timeline> {
        let mut lines = BTreeMap::<Arc<str>, Timeline>::new();
        for edge in &record.edges {
            let line = lines.entry(edge.action.clone()).or_insert(Timeline { edges: Vec::new() });
            line.edges.push((edge.at.since(self.recorder.started()), edge.level));
        }
        lines
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.recorder.lock();
        writeln!(f, "What the model saw")?;
        let titles: Vec<_> = record.sightings.iter().map(title).collect();
        let width = titles.iter().map(|t| t.chars().count()).max().unwrap_or(0);
        for (sighting, title) in std::iter::zip(&record.sightings, &titles) {
            let bar = "█".repeat((sighting.probability * 10.0).round() as usize);
            let fired = sighting.fired.iter().map(|r| format!("  ► {r}")).collect::<String>();
            let percent = sighting.probability * 100.0;
            writeln!(f, "  {title:width$}  {:18} {percent:5.1} %  {bar:10}{fired}", sighting.label)?;
        }
        self.write_rules(f, &record)?;
        self.write_pins(f, &record)?;
        self.write_actions(f, &record)?;
        self.write_rates(f, &record)
    }
}

impl Summary {
    fn write_rules(&self, f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        writeln!(f, "\nRules that fired")?;
        let mut fired = BTreeMap::<&str, Vec<String>>::new();
        for event in record.events.iter().filter(|e| e.change == Change::On) {
            fired.entry(&event.rule).or_default().push(format!("{} {:.2}", event.label, event.probability));
        }
        if fired.is_empty() {
            writeln!(f, "  none")?;
        }
        fired.iter().try_for_each(|(rule, why)| writeln!(f, "  {rule}: {} times ({})", why.len(), why.join(", ")))
    }

    fn write_pins(&self, f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        let end = Monotonic::now().since(self.recorder.started());
        for (index, (name, line)) in self.timelines(record).iter().enumerate() {
            if index == 0 {
                writeln!(f, "\nPins over {:.1} s (▁ low, █ high)", end.as_secs_f64())?;
            }
            writeln!(f, "  {name:10} {}  {} edges", line.draw(end), line.edges.len())?;
        }
        Ok(())
    }

    fn write_actions(&self, f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        // A pin's deliveries are its edges, shown above.
        let pins = self.timelines(record);
        let others = self.actions.iter().filter(|a| !pins.contains_key(&a.name));
        for (index, action) in others.enumerate() {
            if index == 0 {
                writeln!(f, "\nMessages")?;
            }
            let delivered = record.delivered.get(&*action.name).copied().unwrap_or(0);
            let (name, dropped, left) = (&action.name, action.dropped, action.left);
            writeln!(f, "  {name:10} {delivered} events delivered, {dropped} dropped, {left} left behind")?;
        }
        Ok(())
    }

    fn write_rates(&self, f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        writeln!(f, "\nSpeed")?;
        writeln!(f, "  {}", self.model)?;
        let (frames, rate) = (record.frames, self.frames_per_second(record));
        let elapsed = self.elapsed.as_secs_f64();
        writeln!(f, "  {frames} frames in {elapsed:.1} s; the network alone does {rate:.1} frames a second")?;
        let skipped = |c: &CameraCounters| c.skipped_still.get() + c.skipped_rate.get() + c.skipped_heat.get();
        let skipped: u64 = self.cameras.iter().map(|camera| skipped(&camera.counters)).sum();
        if skipped > 0 {
            writeln!(f, "  {skipped} frames more were not worth an inference")?;
        }
        if let Some(p) = record.inference.percentiles() {
            writeln!(f, "  inference       {}", show(p))?;
        }
        if let Some(p) = record.capture_to_pin.percentiles() {
            writeln!(f, "  capture to pin  {}", show(p))?;
        }
        Ok(())
    }
}

impl Timeline {
    /// One character for each of [`TIMELINE`] equal spans up to `end`: high if the line was high at any time in it.
    fn draw(&self, end: Duration) -> String {
        let column = |at: Duration| (at.as_secs_f64() / end.as_secs_f64().max(1e-9) * TIMELINE as f64) as usize;
        let mut high = [false; TIMELINE];
        for (i, (at, level)) in self.edges.iter().enumerate() {
            if *level == Level::High {
                let until = self.edges.get(i + 1).map_or(end, |next| next.0);
                let last = column(until).min(TIMELINE - 1);
                high[column(*at).min(last)..=last].fill(true);
            }
        }
        high.iter().map(|&high| if high { '█' } else { '▁' }).collect()
    }
}

fn title(sighting: &super::recorder::Sighting) -> String {
    match &sighting.region {
        Some(region) => format!("{}/{region} {}", sighting.camera, sighting.title),
        None => format!("{} {}", sighting.camera, sighting.title),
    }
}

fn show(p: Percentiles) -> String {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    format!("median {:.1} ms, 99 % within {:.1} ms, at most {:.1} ms", ms(p.median), ms(p.p99), ms(p.max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(edges: &[(u64, Level)]) -> String {
        let edges = edges.iter().map(|&(s, level)| (Duration::from_secs(s), level)).collect();
        Timeline { edges }.draw(Duration::from_secs(60))
    }

    #[test]
    fn a_timeline_shows_when_a_line_was_high() {
        assert_eq!(draw(&[]), "▁".repeat(60));
        assert_eq!(draw(&[(0, Level::Low), (30, Level::High)]), "▁".repeat(30) + &"█".repeat(30));
        let pulse = draw(&[(0, Level::Low), (10, Level::High), (10, Level::Low)]);
        assert_eq!(pulse.matches('█').count(), 1, "a short pulse must not vanish");
    }
}
