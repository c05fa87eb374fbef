//! Counters that every part of the daemon adds to and the outside reads.

pub mod board;
pub mod histogram;
pub mod logging;
pub mod recent;
pub mod sheet;
pub mod thermal;

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // Relaxed: a count orders nothing.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of one camera's frames.
#[derive(Debug, Default)]
pub struct CameraCounters {
    /// Whole frames that the source delivered.
    pub captured: Counter,
    /// Frames that the driver flagged as broken.
    pub dropped_error: Counter,
    /// Frames shorter than their format says.
    pub dropped_short: Counter,
    /// Frames that did not decode.
    pub dropped_corrupt: Counter,
    /// Frames that a newer one replaced before inference took them.
    pub dropped_stale: Counter,
    /// Frames in which nothing moved.
    pub skipped_still: Counter,
    /// Frames beyond the rates of the motion gate.
    pub skipped_rate: Counter,
    /// Frames that came while the processor was to cool down.
    pub skipped_heat: Counter,
    /// Frames lost before they reached us, by the driver's sequence numbers.
    pub lost: Counter,
    /// Times the source was opened.
    pub opened: Counter,
    /// Times opening or reading failed.
    pub failed: Counter,
}
