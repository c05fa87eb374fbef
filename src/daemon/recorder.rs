//! What the run did, as the summary, the tests and the status line see it; bounded, so that it may run for years.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::actions::{Edge, Observer};
use crate::capture::Rgb;
use crate::clock::Monotonic;
use crate::rules::Event;
use crate::telemetry::recent::Recent;

/// How many views, events and edges are kept for a summary; older ones make room.
const FOR_A_SUMMARY: usize = 10_000;
/// The same for a run without an end, of which the status line shows the last event.
const FOR_THE_STATUS: usize = 16;

/// One classified view of one frame.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The camera's name.
    pub camera: Arc<str>,
    /// The region's name, if it is one.
    pub region: Option<Arc<str>>,
    /// The photo's file name, or the frame's number.
    pub title: String,
    /// The label with the highest probability.
    pub label: Arc<str>,
    /// Its probability.
    pub probability: f32,
    /// The rules that turned on by this view.
    pub fired: Vec<Arc<str>>,
    /// What the model saw, if pictures are kept.
    pub picture: Option<Rgb>,
}

/// Collects; shared by the inference thread and every action's thread.
#[derive(Debug)]
pub struct Recorder {
    started: Monotonic,
    record: Mutex<Record>,
}

/// What has been collected.
#[derive(Clone, Debug)]
pub struct Record {
    /// Views classified, as many as are kept.
    pub sightings: VecDeque<Sighting>,
    /// Events, as many as are kept.
    pub events: VecDeque<Arc<Event>>,
    /// Edges of lines, as many as are kept.
    pub edges: VecDeque<Edge>,
    /// Messages delivered, by action.
    pub delivered: BTreeMap<String, u64>,
    /// Frames classified.
    pub frames: u64,
    /// Views classified.
    pub views: u64,
    /// Network time of a view.
    pub inference: Recent,
    /// From a frame's capture to the edge on the pin that it caused.
    pub capture_to_pin: Recent,
    kept: usize,
}

impl Recorder {
    /// Starts collecting; as much as a summary wants if the run is to end with one (`once`).
    pub(super) fn new(once: bool) -> Self {
        let record = Record {
            sightings: VecDeque::new(),
            events: VecDeque::new(),
            edges: VecDeque::new(),
            delivered: BTreeMap::new(),
            frames: 0,
            views: 0,
            inference: Recent::new(4096),
            capture_to_pin: Recent::new(4096),
            kept: if once { FOR_A_SUMMARY } else { FOR_THE_STATUS },
        };
        Self { started: Monotonic::now(), record: Mutex::new(record) }
    }

    /// When collecting started.
    pub fn started(&self) -> Monotonic {
        self.started
    }

    /// The record, for as short a time as possible.
    pub fn lock(&self) -> MutexGuard<'_, Record> {
        // A panic elsewhere leaves counts that are still counts.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recorder {
    fn edge(&self, edge: &Edge) {
        let mut record = self.lock();
        if let Some(event) = &edge.cause {
            record.capture_to_pin.add(edge.at.since(event.captured));
        }
        let kept = record.kept;
        push_bounded(&mut record.edges, kept, edge.clone());
    }

    fn delivered(&self, action: &str, _event: &Event) {
        *self.lock().delivered.entry(action.to_owned()).or_default() += 1;
    }
}

impl Record {
    /// A view has been classified.
    pub(super) fn saw(&mut self, sighting: Sighting) {
        push_bounded(&mut self.sightings, self.kept, sighting);
    }

    /// A rule or station has decided.
    pub(super) fn happened(&mut self, event: Arc<Event>) {
        push_bounded(&mut self.events, self.kept, event);
    }
}

/// Appends; past `kept` the oldest goes.
fn push_bounded<T>(queue: &mut VecDeque<T>, kept: usize, item: T) {
    if queue.len() >= kept {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_an_end_keeps_little() {
        for (once, kept) in [(true, FOR_A_SUMMARY), (false, FOR_THE_STATUS)] {
            let recorder = Recorder::new(once);
            for number in 0..FOR_A_SUMMARY + 5 {
                let (camera, label) = (Arc::from("feeder"), Arc::from("wild_cat"));
                let (region, title, fired) = (None, number.to_string(), Vec::new());
                recorder.lock().saw(Sighting { camera, region, title, label, probability: 0.9, fired, picture: None });
            }
            let record = recorder.lock();
            assert_eq!(record.sightings.len(), kept);
            assert_eq!(record.sightings.back().map(|it| it.title.as_str()), Some("10004"));
        }
    }
}
