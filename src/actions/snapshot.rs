//! `type = "snapshot"`: a JPEG of the frame that turned a rule on, with label, probability and time below it.
//!
//! Files are named `ACTION.TIME.RULE.LABEL.jpg`, the time in UTC to the millisecond, so that a folder's listing is in
//! order and two actions can share a folder. Each is written whole or not at all. Before one is written, the oldest of
//! this action go until it fits `count` and `megabytes`; nothing else in the folder is ever touched. A disk that is full
//! or gone is said once, and what could not be written is counted.

mod album;

use std::sync::Arc;
use std::time::Instant;

use image::codecs::jpeg::JpegEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::outbox::{Item, Outbox, Overflow, Taken};
use super::picture::Picture;
use super::pins::Shared;
use super::runner::{self, ActionHandle, Health, StatusCell};
use super::{ActionError, Message};
use crate::capture::Rgb;
use crate::clock::Monotonic;
use crate::config::plan::SnapshotPlan;
use crate::rules::Event;
use crate::telemetry::sheet::{ACCENTS, annotate, captioned};
use album::{Album, file_name};

/// Pictures that wait for a slow disk: each is a whole frame in memory, 6 MB at 1920x1080.
const CAPACITY: usize = 4;

/// An event with the frame that decided it. Rules that turn off by the clock have none.
pub(super) struct Pictured {
    event: Arc<Event>,
    picture: Option<Arc<Picture>>,
}

impl Item for Pictured {
    const PICTURES: bool = true;

    fn of(message: Message) -> Option<Self> {
        let (event, picture) = match message {
            Message::Event(event) => (event, None),
            Message::Pictured(event, picture) => (event, Some(picture)),
            Message::Standing(_) | Message::Camera(_) | Message::Armed { .. } => return None,
        };
        event.change.is_on().then_some(Self { event, picture })
    }

    fn rule(&self) -> &Arc<str> {
        &self.event.rule
    }
}

pub(super) fn spawn(name: Arc<str>, plan: &SnapshotPlan, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
    let outbox = Arc::new(Outbox::<Pictured>::new(CAPACITY, Overflow::Drop));
    let status = Arc::new(StatusCell::new(name.clone()));
    let mut snapshot = Snapshot {
        album: Album::new(plan, &name),
        action: name.clone(),
        plan: plan.clone(),
        context: context.clone(),
        queue: outbox.clone(),
        status: status.clone(),
    };
    snapshot.look();
    runner::spawn(name, outbox, status, move || snapshot.work())
}

struct Snapshot {
    action: Arc<str>,
    plan: SnapshotPlan,
    album: Album,
    context: Arc<Shared>,
    queue: Arc<Outbox<Pictured>>,
    status: Arc<StatusCell>,
}

impl Snapshot {
    /// Makes the folder and finds what is in it, so that a mistake is said at the start and not at the first event.
    fn look(&mut self) {
        let outcome = self.album.open();
        self.report(outcome);
    }

    fn work(&mut self) {
        while let Taken::Event(pictured) = self.queue.take(None) {
            // What is left at the deadline stays counted as left.
            if self.queue.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            match &pictured.picture {
                Some(picture) => self.keep(&pictured.event, picture),
                None => {
                    log::debug!("action \"{}\": rule {} turned on without a frame", self.action, pictured.event.rule);
                    self.queue.count_lost();
                }
            }
        }
    }

    fn keep(&mut self, event: &Event, picture: &Picture) {
        let captured = captured(event.captured);
        let kept = jpeg(event, picture, captured, self.plan.quality)
            .and_then(|bytes| self.album.add(&file_name(&self.action, event, captured), &bytes));
        match &kept {
            Ok(()) => self.context.observer.delivered(&self.action, event),
            Err(_) => self.queue.count_lost(),
        }
        self.report(kept);
    }

    /// Said once, until it changes.
    fn report(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                let (folder, count) = (self.plan.folder.display(), self.plan.count);
                self.status.set(Health::Ready, format!("keeps the last {count} pictures in {folder}"));
            }
            Err(reason) => self
                .status
                .set(Health::Degraded, format!("{reason}; pictures are lost and counted until it works again")),
        }
    }
}

/// The wall clock's time of a frame.
fn captured(at: Monotonic) -> Timestamp {
    Timestamp::now().saturating_sub(Monotonic::now().since(at)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The upright frame with the region outlined and the caption below, as the bytes of a JPEG file.
fn jpeg(event: &Event, picture: &Picture, captured: Timestamp, quality: u8) -> Result<Vec<u8>, String> {
    let (mut frame, region) = picture.upright(event.region.as_deref());
    if let (Some(rect), Some(name)) = (region, &event.region) {
        annotate(&mut frame, rect, name, ACCENTS[0]);
    }
    let label = format!("{} {:.0} %", event.label, 100.0 * event.probability);
    let place = match &event.region {
        Some(region) => format!("{} at {}/{region}", event.rule, event.camera),
        None => format!("{} at {}", event.rule, event.camera),
    };
    // Where the board is, with the difference to UTC.
    let time = captured.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
    encode(&captioned(&frame, &label, &[&place, &time]), quality)
}

fn encode(picture: &Rgb, quality: u8) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(&picture.data, picture.width, picture.height, image::ExtendedColorType::Rgb8)
        .map_err(|error| format!("a frame of {}x{} makes no JPEG: {error}", picture.width, picture.height))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
