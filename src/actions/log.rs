//! `type = "log"`: one JSON line an event, "MQTT-style": `{"topic":"spotter/DEVICE/event","payload":{…}}`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::ActionError;
use super::mqtt::topics::Topics;
use super::outbox::{Outbox, Overflow, Taken};
use super::payload::EventPayload;
use super::pins::Shared;
use super::runner::{self, ActionHandle, Health, StatusCell};
use crate::config::plan::LogPlan;

/// The target of the human log that events go to when no file is named.
pub const EVENT_TARGET: &str = "spotter::event";

/// Events that wait for a slow disk before the oldest is dropped.
const CAPACITY: usize = 1024;

/// The first part of the topic: what the MQTT action uses unless told otherwise.
const TOPIC: &str = "spotter";

#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    payload: &'a EventPayload,
}

pub(super) fn spawn(name: Arc<str>, plan: &LogPlan, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
    let outbox: Arc<Outbox> = Arc::new(Outbox::new(CAPACITY, Overflow::Drop));
    let status = Arc::new(StatusCell::new(name.clone()));
    let mut sink = plan.path.clone().map(FileSink::new);
    match &mut sink {
        Some(sink) => sink.try_open(&status),
        None => status.set(Health::Ready, format!("events go to the log, target {EVENT_TARGET}")),
    }
    let (context, queue, state, action) = (context.clone(), outbox.clone(), status.clone(), name.clone());
    runner::spawn(name, outbox, status, move || {
        let topic = Topics::new(TOPIC, &context.device).event();
        while let Taken::Event(event) = queue.take(None) {
            let payload = context.payload(&event);
            let line = serde_json::to_string(&Line { topic: &topic, payload: &payload }).unwrap_or_default();
            let written = match &mut sink {
                Some(sink) => sink.write(&line, &state),
                None => {
                    log::info!(target: EVENT_TARGET, "{line}");
                    true
                }
            };
            if written { context.observer.delivered(&action, &event) } else { queue.count_lost() }
        }
    })
}

/// A file that lines are appended to; opened again when it has been rotated away.
struct FileSink {
    path: PathBuf,
    file: Option<File>,
    /// A line was cut off (the disk is full, or the power was cut in an earlier run): the next one starts with a line feed, so that only one is lost.
    torn: bool,
}

impl FileSink {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, torn: false }
    }

    fn try_open(&mut self, status: &StatusCell) {
        let opened = self.current().map(|_| ());
        self.report(&opened, status);
    }

    /// Appends `line` and a line feed in one write. `false`: it could not be written; said once, until it works again.
    fn write(&mut self, line: &str, status: &StatusCell) -> bool {
        let written = self.append(line);
        self.report(&written, status);
        written.is_ok()
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let (file, torn) = self.current()?;
        let bytes = format!("{}{line}\n", if *torn { "\n" } else { "" });
        // One write, so that a reader (and another writer in append mode) sees whole lines.
        let count = file.write(bytes.as_bytes())?;
        let rest = file.write_all(&bytes.as_bytes()[count..]);
        *torn = rest.is_err();
        rest
    }

    /// The open file, if the path still leads to it, else the path, opened anew; and whether its last line is torn.
    fn current(&mut self) -> io::Result<(&mut File, &mut bool)> {
        let at_path = std::fs::metadata(&self.path).ok().map(|data| (data.dev(), data.ino()));
        let held = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|data| (data.dev(), data.ino()));
        if at_path.is_none() || at_path != held {
            self.file = None;
        }
        match &mut self.file {
            Some(file) => Ok((file, &mut self.torn)),
            slot => {
                self.torn = ends_torn(&self.path);
                let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                Ok((slot.insert(file), &mut self.torn))
            }
        }
    }

    fn report(&self, result: &io::Result<()>, status: &StatusCell) {
        let path = self.path.display();
        match result {
            Ok(()) => status.set(Health::Ready, format!("events go to {path}")),
            Err(error) => status.set(
                Health::Degraded,
                format!("writing events to {path} failed: {error}; events are lost and counted until it works again"),
            ),
        }
    }
}

/// Whether the file that an earlier run left ends in the middle of a line: the power was cut, or the disk was full.
fn ends_torn(path: &Path) -> bool {
    // A pipe has no last byte, and would keep its reader waiting.
    if !std::fs::metadata(path).is_ok_and(|data| data.is_file()) {
        return false;
    }
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != *b"\n"
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::actions::payload::tests::event;
    use crate::actions::{ActionContext, Edge, Message, Observer};
    use crate::rules::{Change, Event};

    #[derive(Default)]
    struct Delivered(Mutex<Vec<String>>);

    impl Observer for Delivered {
        fn edge(&self, _: &Edge) {}
        fn delivered(&self, action: &str, event: &Event) {
            self.0.lock().unwrap().push(format!("{action}/{}", event.rule));
        }
    }

    fn start(path: &Path) -> (ActionHandle, Arc<Delivered>) {
        let observer = Arc::new(Delivered::default());
        let context = ActionContext {
            device: "garden".into(),
            rules: vec![],
            cameras: vec![],
            views: vec![],
            pins: vec![],
            observer: observer.clone(),
            control: crate::control::Control::new(|| ()),
        };
        (spawn("file".into(), &LogPlan { path: Some(path.into()) }, &Shared::new(context, &[])).unwrap(), observer)
    }

    fn send(handle: &ActionHandle, rule: &str) {
        handle.send(Message::Event(Arc::new(event(rule, Change::On))));
        while handle.depth() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn rules(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["payload"]["rule"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn one_json_line_an_event_with_topic_and_payload() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "{\"payload\":{\"rule\":\"kept\"}}\n").unwrap();
        let (handle, observer) = start(&path);
        send(&handle, "cat");
        send(&handle, "dog");
        assert!(handle.close(Duration::from_secs(2)));
        assert_eq!(rules(&path), ["kept", "cat", "dog"], "appended");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().nth(1).unwrap().starts_with(r#"{"topic":"spotter/garden/event","payload":{"id":"#),
            "{text}"
        );
        assert_eq!(*observer.0.lock().unwrap(), ["file/cat", "file/dog"]);
    }

    #[test]
    fn a_file_that_was_rotated_away_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("events.jsonl"), folder.path().join("events.jsonl.1"));
        let (handle, _) = start(&path);
        send(&handle, "before");
        std::fs::rename(&path, &old).unwrap();
        send(&handle, "after");
        std::fs::remove_file(&path).unwrap();
        send(&handle, "removed");
        assert_eq!((rules(&old), rules(&path)), (vec!["before".into()], vec!["removed".into()]));
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_it_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/events.jsonl");
        let (handle, observer) = start(&path);
        assert_eq!(handle.status().health, Health::Degraded);
        send(&handle, "lost");
        assert_eq!(handle.dropped(), 1);
        assert!(handle.status().detail.contains("missing/events.jsonl"), "{:?}", handle.status());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        send(&handle, "written");
        assert_eq!((handle.dropped(), handle.status().health), (1, Health::Ready));
        assert_eq!(rules(&path), ["written"]);
        assert_eq!(*observer.0.lock().unwrap(), ["file/written"]);
    }

    #[test]
    fn a_line_torn_by_an_earlier_run_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        for (left, kept) in [("", "whole\n"), ("{}\n", "{}\nwhole\n"), ("{\"to", "{\"to\nwhole\n")] {
            std::fs::write(&path, left).unwrap();
            FileSink::new(path.clone()).append("whole").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        }
    }

    #[test]
    fn a_line_torn_by_a_full_disk_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let status = StatusCell::new("file".into());
        let mut sink = FileSink::new(path.clone());
        assert!(sink.write("whole", &status));
        sink.file.as_mut().unwrap().write_all(b"{\"to").unwrap();
        sink.torn = true;
        assert!(sink.write("next", &status));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\n{\"to\nnext\n");
        assert!(!FileSink::new("/dev/full".into()).write("full", &status));
    }
}
