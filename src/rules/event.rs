//! What goes into a rule and what comes out of it.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Monotonic;

/// The scores of one view (a camera, or one region of it) of one frame.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The camera's name.
    pub camera: Arc<str>,
    /// The region's name; `None` for the whole frame.
    pub region: Option<Arc<str>>,
    /// When the frame was captured.
    pub captured: Monotonic,
    /// The frame's number.
    pub sequence: u64,
    /// The file it came from, for a files source.
    pub origin: Option<Arc<Path>>,
    /// Softmax probability of each class, by index.
    pub probabilities: Arc<[f32]>,
}

/// A rule has turned on or off.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What happened to it.
    pub change: Change,
    /// The camera whose frame decided it.
    pub camera: Arc<str>,
    /// The region, if the view is one.
    pub region: Option<Arc<str>>,
    /// The class with the highest probability among the rule's, in that frame.
    pub class: usize,
    /// Its label.
    pub label: Arc<str>,
    /// Its probability.
    pub probability: f32,
    /// When that frame was captured.
    pub captured: Monotonic,
    /// When the rule decided.
    pub decided: Monotonic,
    /// That frame's number.
    pub sequence: u64,
    /// The file that frame came from, for a files source.
    pub origin: Option<Arc<Path>>,
    /// A station's verdict on a part, which the station's name as the rule and [`Change::On`] go with. `None` for a rule.
    pub verdict: Option<Arc<Verdict>>,
}

/// What a station says of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Good, bad, or not known.
    pub outcome: Outcome,
    /// The part's number, if the request had one.
    pub part: Option<Arc<str>>,
    /// When the verdict was asked for: the edge, or the message's arrival.
    pub asked: Monotonic,
}

/// What became of a request for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The part shows what it should.
    Pass,
    /// It does not.
    Fail,
    /// No frame was classified in time.
    TimedOut,
    /// Too many requests waited already.
    Overflow,
}

impl Outcome {
    /// The part was not looked at.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::TimedOut | Self::Overflow)
    }
}

/// What happened to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It turned on.
    On,
    /// It has stayed on for as long as its escalation waits. At most once between an `On` and its `Off`.
    Escalated,
    /// It turned off.
    Off(OffReason),
}

/// Why a rule turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffReason {
    /// The scores fell, and the hold is over.
    Gone,
    /// No camera of the rule delivers frames.
    Stale,
    /// Its schedule closed.
    Unscheduled,
    /// It was disarmed.
    Disarmed,
    /// The configuration was read again, and has the rule otherwise or no more.
    Reloaded,
}

impl Change {
    /// Whether the rule is on after it.
    pub fn is_on(self) -> bool {
        matches!(self, Self::On | Self::Escalated)
    }
}

impl OffReason {
    /// As events, the log and the page name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Stale => "stale",
            Self::Unscheduled => "unscheduled",
            Self::Disarmed => "disarmed",
            Self::Reloaded => "reloaded",
        }
    }
}
