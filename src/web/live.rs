//! What viewers see as it changes: one message made for all of them, at most five times a second, and nothing while nobody looks.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::clock::Monotonic;
use crate::telemetry::board::{Board, CameraBoard, Picture, RuleBoard};
use crate::telemetry::histogram::{BOUNDS, Counts, Histogram};
use crate::telemetry::thermal;

/// Between two messages.
const TICK: Duration = Duration::from_millis(200);
/// Between two pictures of a camera.
const PICTURES: Duration = Duration::from_millis(400);
/// A picture whose frame could not be classified is shown all the same after this long.
const UNCLASSIFIED: Duration = Duration::from_secs(2);
/// Between two points of the last hour's curves.
const SAMPLES: Duration = Duration::from_secs(10);
const HOUR: usize = 360;
const JPEG_QUALITY: u8 = 72;

/// The maker of messages.
pub(super) struct Live {
    board: Arc<Board>,
    /// As it goes over the wire, made once: viewers share its bytes.
    message: watch::Sender<Bytes>,
    joined: Notify,
    /// By the camera's name: the frame's number, and the picture as a browser takes it.
    pictures: Mutex<HashMap<Arc<str>, (u64, Bytes)>>,
}

/// A point of the last hour's curves; `None` where nothing happened, or nobody knows.
struct Sample {
    inference_ms: Option<f64>,
    pin_ms: Option<f64>,
    celsius: Option<f64>,
    frames_per_second: HashMap<Arc<str>, f64>,
}

/// What the next sample is the difference to.
struct Mark {
    at: Monotonic,
    inference: Counts,
    pin: Counts,
    classified: HashMap<Arc<str>, u64>,
}

impl Live {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, message: watch::Sender::new(Bytes::new()), joined: Notify::new(), pictures: Mutex::default() }
    }

    /// Somebody looks: the present message, and those that follow.
    pub(super) fn join(&self) -> watch::Receiver<Bytes> {
        let mut receiver = self.message.subscribe();
        // What lies there may be from an earlier viewer's time.
        receiver.mark_unchanged();
        self.joined.notify_one();
        receiver
    }

    /// The latest picture of a camera, as JPEG.
    pub(super) fn picture(&self, camera: &str) -> Option<Bytes> {
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner).get(camera).map(|(_, bytes)| bytes.clone())
    }

    /// The frame of an event, as JPEG: made when it is asked for, for few events are looked at.
    pub(super) fn event(&self, id: u64) -> Option<Vec<u8>> {
        let pictures = self.board.event_pictures();
        let pictured = pictures.iter().find(|it| it.events.contains(&id))?;
        jpeg(&pictured.picture, JPEG_QUALITY)
    }

    /// Runs for as long as the page.
    pub(super) async fn run(&self) {
        let (mut samples, mut mark) = (VecDeque::new(), Mark::new(&self.board));
        let mut sent = 0;
        let mut pictured = Monotonic::default();
        loop {
            let now = Monotonic::now();
            if now.since(mark.at) >= SAMPLES {
                let next = Mark::new(&self.board);
                if samples.len() == HOUR {
                    samples.pop_front();
                }
                samples.push_back(Sample::between(&mark, &next, &self.board.sysfs));
                mark = next;
            }
            if self.board.is_watched() {
                if now.since(pictured) >= PICTURES {
                    pictured = now;
                    self.want_pictures();
                }
                self.encode_pictures();
                let version = self.board.version();
                // Ages and rates move without an event: once a second.
                if version != sent || self.message.borrow().is_empty() || now.as_duration().subsec_millis() < 200 {
                    sent = version;
                    self.message.send_replace(format!("data: {}\n\n", self.compose(&samples, &mark)).into());
                }
                tokio::time::sleep(TICK).await;
            } else {
                let next_sample = SAMPLES.saturating_sub(now.since(mark.at)).max(TICK);
                let _ = tokio::time::timeout(next_sample, self.joined.notified()).await;
                sent = 0;
            }
        }
    }

    /// A next one only where the last has been shown: a picture and its classes are always of one frame.
    fn want_pictures(&self) {
        let pictures = self.pictures.lock().unwrap_or_else(PoisonError::into_inner);
        for camera in self.board.cameras().iter() {
            let latest = camera.picture.latest().map(|picture| picture.sequence);
            if latest == pictures.get(&camera.name).map(|(sequence, _)| *sequence) {
                camera.picture.want();
            }
        }
    }

    /// Whether every view of the camera has been classified in the frame of `picture`.
    fn is_classified(&self, camera: &CameraBoard, picture: &Picture) -> bool {
        let views = self.board.views();
        let mut own = views.iter().filter(|view| view.name.split('/').next() == Some(&*camera.name));
        own.all(|view| view.top.load().as_ref().is_some_and(|top| top.sequence == picture.sequence))
    }

    /// Once for all viewers, here and not in the inference loop.
    fn encode_pictures(&self) {
        let cameras = self.board.cameras();
        let is_there = |name: &Arc<str>| cameras.iter().any(|camera| camera.name == *name);
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_there(name));
        for camera in cameras.iter() {
            let Some(picture) = camera.picture.latest() else { continue };
            if !self.is_classified(camera, &picture) && Monotonic::now().since(picture.at) < UNCLASSIFIED {
                continue;
            }
            let mut pictures = self.pictures.lock().unwrap_or_else(PoisonError::into_inner);
            if pictures.get(&camera.name).is_some_and(|(sequence, _)| *sequence == picture.sequence) {
                continue;
            }
            if let Some(bytes) = jpeg(&picture, JPEG_QUALITY) {
                pictures.insert(camera.name.clone(), (picture.sequence, bytes.into()));
            }
        }
    }

    /// The whole state as a script reads it.
    pub(super) fn state(&self) -> Value {
        self.compose(&VecDeque::new(), &Mark::new(&self.board))
    }

    fn compose(&self, samples: &VecDeque<Sample>, mark: &Mark) -> Value {
        let (board, now) = (&*self.board, Monotonic::now());
        let cameras: Vec<_> = board.cameras().iter().map(|camera| self.camera(camera, samples, mark, now)).collect();
        let ago = |at: Monotonic| now.since(at).as_secs_f64();
        let (pictures, thermal) = (board.event_pictures(), thermal::read(&board.sysfs));
        json!({
            "device": *board.device,
            "version": env!("CARGO_PKG_VERSION"),
            // Tells this run's events from another's.
            "run": board.started.as_duration().as_nanos().to_string(),
            "uptime": ago(board.started),
            "refusal": board.refusal.load().as_deref(),
            "model": board.model.load().as_ref().map(|model| json!({
                "file": model.file, "kernel": model.kernel, "threads": model.threads, "classes": model.classes,
                "description": model.description,
            })),
            "cameras": cameras,
            "views": board.views().iter().map(|view| json!({
                "name": *view.name,
                "top": view.top.load().as_ref().map(|top| top.classes.iter().map(|(label, p)| json!([**label, p])).collect::<Vec<_>>()),
            })).collect::<Vec<_>>(),
            "rules": board.rules().iter().map(|it| rule(it)).collect::<Vec<_>>(),
            "actions": board.actions().iter().map(|action| json!({
                "name": *action.name, "kind": action.kind, "health": action.health, "detail": action.detail,
                "depth": action.depth, "dropped": action.dropped,
            })).collect::<Vec<_>>(),
            "events": board.events.all().iter().rev().map(|event| json!({
                "id": event.id, "picture": pictures.iter().any(|it| it.events.contains(&event.id)), "ago": ago(event.at), "rule": *event.rule, "on": event.on, "view": event.view, "label": *event.label,
                "probability": event.probability,
            })).collect::<Vec<_>>(),
            "edges": board.edges.all().iter().map(|edge| json!({
                "ago": ago(edge.at), "action": *edge.action, "high": edge.high,
            })).collect::<Vec<_>>(),
            "now": {
                "inference_ms": median(&board.stages.inference), "pin_ms": median(&board.stages.capture_to_pin),
                "celsius": thermal.celsius, "throttled": thermal.throttled,
                "thermal_step": board.thermal_step.load(Ordering::Relaxed),
            },
            "hour": {
                "seconds": SAMPLES.as_secs(),
                "inference_ms": samples.iter().map(|sample| sample.inference_ms).collect::<Vec<_>>(),
                "pin_ms": samples.iter().map(|sample| sample.pin_ms).collect::<Vec<_>>(),
                "celsius": samples.iter().map(|sample| sample.celsius).collect::<Vec<_>>(),
            },
        })
    }

    fn camera(&self, camera: &CameraBoard, samples: &VecDeque<Sample>, mark: &Mark, now: Monotonic) -> Value {
        let (facts, counters) = (camera.state.load(), &camera.counters);
        let running = now.since(mark.at).as_secs_f64();
        // Over the sample that runs, once it is long enough to say something; over the last one before.
        let rate = match samples.back() {
            Some(last) if running < 2.0 => last.frames_per_second.get(&camera.name).copied(),
            _ if running >= 1.0 => {
                let marked = mark.classified.get(&camera.name);
                marked.map(|marked| camera.classified.get().saturating_sub(*marked) as f64 / running)
            }
            _ => None,
        };
        let pictures = self.pictures.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "name": *camera.name,
            "state": facts.state,
            "reason": facts.reason,
            "age": camera.age(now).map(|age| age.as_secs_f64()),
            "fps": rate,
            "classified": camera.classified.get(),
            "captured": counters.captured.get(),
            "dropped": counters.dropped_error.get() + counters.dropped_short.get() + counters.dropped_corrupt.get()
                + counters.dropped_stale.get() + counters.lost.get(),
            "held_back": {
                "still": counters.skipped_still.get(), "rate": counters.skipped_rate.get(), "heat": counters.skipped_heat.get(),
            },
            "active": camera.active.load(Ordering::Relaxed),
            "slower": slower(camera, self.board.thermal_step.load(Ordering::Relaxed)),
            "failed": counters.failed.get(),
            "picture": pictures.get(&camera.name).map(|(sequence, _)| sequence),
        })
    }
}

/// Why fewer frames are classified than could be.
fn slower(camera: &CameraBoard, thermal_step: usize) -> Option<String> {
    let hot = (thermal_step > 0).then(|| {
        format!("the board is hot (thermal step {thermal_step}): inference gets 1/{} of the time", 1 << thermal_step)
    });
    let idle = !camera.active.load(Ordering::Relaxed);
    let idle = idle.then(|| "nothing moves: a frame is classified now and then".to_owned());
    hot.into_iter().chain(idle).reduce(|all, why| format!("{all}; {why}"))
}

fn rule(rule: &RuleBoard) -> Value {
    json!({
        "name": *rule.name,
        "on": rule.on.load(Ordering::Relaxed),
        "armed": rule.armed.load().as_ref().map(|armed| **armed),
        "thresholds": [rule.thresholds.0, rule.thresholds.1],
        "times": rule.turned_on.get(),
        "why": rule.why.load().as_ref().map(|why| why.to_string()),
        "views": rule.live.load().as_ref().map(|views| views.iter().map(|view| json!({
            "view": view.view, "label": *view.label, "hits": view.hits.0, "needed": view.hits.1, "window": view.hits.2,
            "dots": view.dots,
        })).collect::<Vec<_>>()),
    })
}

/// `picture` as a JPEG file.
pub(super) fn jpeg(picture: &Picture, quality: u8) -> Option<Vec<u8>> {
    // The encoder panics where they differ.
    if picture.data.len() as u64 != u64::from(picture.width) * u64::from(picture.height) * 3 || picture.data.is_empty()
    {
        return None;
    }
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder.encode(&picture.data, picture.width, picture.height, ExtendedColorType::Rgb8).ok()?;
    Some(bytes)
}

impl Mark {
    fn new(board: &Board) -> Self {
        Self {
            at: Monotonic::now(),
            inference: board.stages.inference.counts(),
            pin: board.stages.capture_to_pin.counts(),
            classified: board.cameras().iter().map(|it| (it.name.clone(), it.classified.get())).collect(),
        }
    }
}

impl Sample {
    fn between(old: &Mark, new: &Mark, sysfs: &Path) -> Self {
        let seconds = new.at.since(old.at).as_secs_f64().max(0.001);
        let frames = new.classified.iter().filter_map(|(camera, new)| {
            let frames = new.saturating_sub(*old.classified.get(camera)?);
            Some((camera.clone(), frames as f64 / seconds))
        });
        Self {
            inference_ms: mean(&old.inference, &new.inference),
            pin_ms: mean(&old.pin, &new.pin),
            celsius: thermal::read(sysfs).celsius,
            frames_per_second: frames.collect(),
        }
    }
}

/// The mean in milliseconds of what came between two readings.
fn mean(old: &Counts, new: &Counts) -> Option<f64> {
    let count = |counts: &Counts| counts.buckets.iter().sum::<u64>();
    let added = count(new).saturating_sub(count(old));
    (added > 0).then(|| new.sum.saturating_sub(old.sum) as f64 / added as f64 / 1e3)
}

/// Milliseconds, interpolated within the bucket that holds the middle.
fn median(histogram: &Histogram) -> Option<f64> {
    let counts = histogram.counts();
    let half = counts.buckets.iter().sum::<u64>() as f64 / 2.0;
    let mut below = 0.0;
    for (bucket, &count) in counts.buckets.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && below + count >= half {
            let low = if bucket == 0 { 0 } else { BOUNDS[bucket - 1] } as f64;
            let high = BOUNDS.get(bucket).map_or(low, |&bound| bound as f64);
            return Some((low + (high - low) * (half - below) / count) / 1e3);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_its_bucket_and_a_mean_is_of_what_came_between() {
        let histogram = Histogram::default();
        assert_eq!(median(&histogram), None);
        let before = histogram.counts();
        [20, 20, 21].into_iter().for_each(|ms| histogram.add(Duration::from_millis(ms)));
        assert!((10.0..=25.0).contains(&median(&histogram).unwrap()));
        let between = mean(&before, &histogram.counts()).unwrap();
        assert!((between - 61.0 / 3.0).abs() < 1e-9, "{between}");
        assert_eq!(mean(&before, &before), None);
    }

    #[test]
    fn a_picture_becomes_a_jpeg() {
        let picture = Picture { width: 2, height: 2, data: vec![9; 12], sequence: 1, at: Monotonic::default() };
        assert!(jpeg(&picture, 80).unwrap().starts_with(&[0xff, 0xd8]));
        assert!(jpeg(&Picture { data: vec![], ..picture }, 80).is_none());
    }
}
