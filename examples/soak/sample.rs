//! What is read every few seconds.

use std::fmt;
use std::time::Duration;

use super::Failure;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) broker: bool,
    pub(super) camera: bool,
}

/// One row of `/proc`.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// In bytes.
    pub(super) rss: u64,
    pub(super) threads: u64,
    pub(super) descriptors: u64,
}

/// What is used of `/metrics`.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    pub(super) cameras_up: u64,
    pub(super) actions_up: u64,
    pub(super) classified: u64,
    /// Frames not classified, whatever the cause.
    pub(super) dropped: u64,
    /// Events that an outbox had no room for.
    pub(super) lost: u64,
    /// Of the network: seconds, and how many times.
    pub(super) inference: (f64, f64),
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) process: Process,
    pub(super) metrics: Metrics,
    /// From capture to pin in milliseconds, of each event since the last sample.
    pub(super) pins: Vec<f64>,
    pub(super) trouble: Trouble,
}

impl Process {
    pub(super) fn read(pid: u32) -> Result<Self, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name} in /proc"))?;
            Ok::<u64, Failure>(line.trim_start_matches(':').split_whitespace().next().unwrap_or_default().parse()?)
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        Ok(Self { rss: field("VmRSS")? * 1024, threads: field("Threads")?, descriptors })
    }
}

impl Metrics {
    /// Three cameras; three pins, the broker and the log.
    pub(super) fn all_well(&self) -> bool {
        self.cameras_up == 3 && self.actions_up == 5
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) =
                line.rsplit_once(' ').and_then(|(name, value)| Some((name, value.parse::<f64>().ok()?)))
            else {
                continue;
            };
            let (metric, labels) = name.split_once('{').unwrap_or((name, ""));
            let inference = labels.contains("stage=\"inference\"");
            match metric {
                "spotter_camera_up" => metrics.cameras_up += value as u64,
                "spotter_action_up" => metrics.actions_up += value as u64,
                "spotter_frames_classified_total" => metrics.classified += value as u64,
                "spotter_frames_dropped_total" => metrics.dropped += value as u64,
                "spotter_outbox_dropped_total" => metrics.lost += value as u64,
                "spotter_stage_duration_seconds_sum" if inference => metrics.inference.0 = value,
                "spotter_stage_duration_seconds_count" if inference => metrics.inference.1 = value,
                _ => {}
            }
        }
        metrics
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (process, metrics) = (&self.process, &self.metrics);
        write!(
            f,
            "{:6.1} min  {:7.1} MB  {} threads  {} descriptors  {} classified  {} dropped",
            self.at.as_secs_f64() / 60.0,
            process.rss as f64 / 1e6,
            process.threads,
            process.descriptors,
            metrics.classified,
            metrics.dropped
        )
    }
}
