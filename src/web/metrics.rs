//! `/metrics`: Prometheus's text format, version 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Written by hand: the counters are the daemon's own atomics, read where they are; a client library would hold each a second time.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use crate::clock::Monotonic;
use crate::control::Control;
use crate::telemetry::board::Board;
use crate::telemetry::histogram::{BOUNDS, Histogram};
use crate::telemetry::{CameraCounters, thermal};

/// The media type of [`exposition`].
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is measured, now.
pub fn exposition(board: &Board, control: &Control) -> String {
    let mut page = Exposition(String::new());
    daemon(&mut page, board);
    let help = "Commands (of a broker, an input, the page, a signal) that were not taken because too many waited.";
    page.one("spotter_commands_refused_total", "counter", help, control.refused());
    page.head("spotter_parts_total", "counter", "Parts that stations were asked for: judged, or without a verdict.");
    for (outcome, count) in [("judged", &board.parts.judged), ("fault", &board.parts.faults)] {
        page.sample("spotter_parts_total", &[("outcome", outcome)], count.get());
    }
    cameras(&mut page, board);
    stages(&mut page, board);
    rules(&mut page, board);
    actions(&mut page, board);
    page.0
}

/// The text, a metric at a time.
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, label: (&str, &str), histogram: &Histogram) {
        let counts = histogram.counts();
        let mut total = 0;
        for (bound, count) in BOUNDS.iter().zip(&counts.buckets) {
            total += count;
            let bound = (*bound as f64 / 1e6).to_string();
            self.sample(&format!("{name}_bucket"), &[label, ("le", &bound)], total);
        }
        let all: u64 = counts.buckets.iter().sum();
        self.sample(&format!("{name}_bucket"), &[label, ("le", "+Inf")], all);
        self.sample(&format!("{name}_sum"), &[label], counts.sum as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[label], all);
    }
}

fn daemon(page: &mut Exposition, board: &Board) {
    page.head("spotter_info", "gauge", "The program and the board; always 1.");
    page.sample("spotter_info", &[("version", env!("CARGO_PKG_VERSION")), ("device", &board.device)], 1);
    let uptime = Monotonic::now().since(board.started).as_secs_f64();
    page.one("spotter_uptime_seconds", "gauge", "Since the daemon started.", uptime);
    if let Some(model) = board.model.load_full() {
        let (threads, classes) = (model.threads.to_string(), model.classes.to_string());
        page.head("spotter_model_info", "gauge", "The model in use and its kernels; always 1.");
        let labels: [(&str, &str); 4] =
            [("model", &model.file), ("kernel", &model.kernel), ("threads", &threads), ("classes", &classes)];
        page.sample("spotter_model_info", &labels, 1);
    }
    page.head("spotter_reloads_total", "counter", "Configurations read again while running.");
    for (outcome, count) in [("applied", &board.reloads.applied), ("refused", &board.reloads.refused)] {
        page.sample("spotter_reloads_total", &[("outcome", outcome)], count.get());
    }
    let refused = f64::from(u8::from(board.refusal.load().is_some()));
    let help = "1 while the configuration that was read last is not in force: something is wrong with it.";
    page.one("spotter_configuration_refused", "gauge", help, refused);
    let thermal = thermal::read(&board.sysfs);
    if let Some(celsius) = thermal.celsius {
        page.one("spotter_temperature_celsius", "gauge", "The hottest zone of the board.", celsius);
    }
    if let Some(throttled) = thermal.throttled {
        let help = "1 while heat or a weak supply slows the processor down.";
        page.one("spotter_throttled", "gauge", help, u8::from(throttled));
    }
    let help = "How much less is done because of heat: 0 (all) to 3 (an eighth).";
    page.one("spotter_thermal_step", "gauge", help, board.thermal_step.load(Ordering::Relaxed));
}

/// Reads one count.
type Count = fn(&CameraCounters) -> u64;

/// Why a frame was not classified, and where that is counted.
const DROPS: [(&str, Count); 5] = [
    ("error", |counters| counters.dropped_error.get()),
    ("short", |counters| counters.dropped_short.get()),
    ("corrupt", |counters| counters.dropped_corrupt.get()),
    ("stale", |counters| counters.dropped_stale.get()),
    ("lost", |counters| counters.lost.get()),
];

fn cameras(page: &mut Exposition, board: &Board) {
    let counts: [(&str, &str, Count); 3] = [
        ("spotter_frames_captured_total", "Whole frames that the source delivered.", |c| c.captured.get()),
        ("spotter_camera_opens_total", "Times the source was opened; all but one are reconnects.", |c| c.opened.get()),
        ("spotter_camera_failures_total", "Times opening or reading failed.", |c| c.failed.get()),
    ];
    for (name, help, count) in counts {
        page.head(name, "counter", help);
        for camera in board.cameras().iter() {
            page.sample(name, &[("camera", &camera.name)], count(&camera.counters));
        }
    }
    let help =
        "Frames not classified: flagged by the driver, short, undecodable, replaced by a newer one, or lost before us.";
    page.head("spotter_frames_dropped_total", "counter", help);
    for camera in board.cameras().iter() {
        for (cause, count) in DROPS {
            let labels: [(&str, &str); 2] = [("camera", &camera.name), ("cause", cause)];
            page.sample("spotter_frames_dropped_total", &labels, count(&camera.counters));
        }
    }
    let help =
        "Frames that were not worth an inference: nothing moved, more came than wanted, or the board was too warm.";
    page.head("spotter_frames_skipped_total", "counter", help);
    for camera in board.cameras().iter() {
        let counters = &camera.counters;
        let skipped =
            [("still", &counters.skipped_still), ("rate", &counters.skipped_rate), ("heat", &counters.skipped_heat)];
        for (cause, count) in skipped {
            let labels: [(&str, &str); 2] = [("camera", &camera.name), ("cause", cause)];
            page.sample("spotter_frames_skipped_total", &labels, count.get());
        }
    }
    page.head("spotter_camera_active", "gauge", "1 while something moves; without a motion gate always.");
    for camera in board.cameras().iter() {
        let active = camera.active.load(Ordering::Relaxed);
        page.sample("spotter_camera_active", &[("camera", &camera.name)], u8::from(active));
    }
    page.head("spotter_frames_classified_total", "counter", "Frames classified.");
    for camera in board.cameras().iter() {
        page.sample("spotter_frames_classified_total", &[("camera", &camera.name)], camera.classified.get());
    }
    page.head("spotter_camera_up", "gauge", "1 while frames are coming.");
    for camera in board.cameras().iter() {
        let up = camera.state.load().state == "streaming";
        page.sample("spotter_camera_up", &[("camera", &camera.name)], u8::from(up));
    }
    page.head(
        "spotter_last_frame_age_seconds",
        "gauge",
        "Since the capture of the last frame that was classified or found still.",
    );
    for camera in board.cameras().iter() {
        if let Some(age) = camera.age(Monotonic::now()) {
            page.sample("spotter_last_frame_age_seconds", &[("camera", &camera.name)], age.as_secs_f64());
        }
    }
}

fn stages(page: &mut Exposition, board: &Board) {
    let stages = &board.stages;
    let name = "spotter_stage_duration_seconds";
    page.head(name, "histogram", "Time in each stage of a frame's way.");
    for (stage, histogram) in
        [("decode", &stages.decode), ("preprocess", &stages.preprocess), ("inference", &stages.inference)]
    {
        page.histogram(name, ("stage", stage), histogram);
    }
    let name = "spotter_latency_seconds";
    page.head(name, "histogram", "From a frame's capture to the rules' decision, and to the edge on a pin.");
    page.histogram(name, ("to", "decision"), &stages.capture_to_decision);
    page.histogram(name, ("to", "pin"), &stages.capture_to_pin);
}

fn rules(page: &mut Exposition, board: &Board) {
    page.head("spotter_rule_on", "gauge", "1 while the rule is on.");
    for rule in board.rules().iter() {
        page.sample("spotter_rule_on", &[("rule", &rule.name)], u8::from(rule.on.load(Ordering::Relaxed)));
    }
    page.head("spotter_rule_armed", "gauge", "1 while the rule is armed; rules that nothing arms are not listed.");
    for rule in board.rules().iter() {
        if let Some(armed) = rule.armed.load_full() {
            page.sample("spotter_rule_armed", &[("rule", &rule.name)], u8::from(*armed));
        }
    }
    page.head("spotter_events_total", "counter", "Events of each rule.");
    for rule in board.rules().iter() {
        for (change, count) in [("on", &rule.turned_on), ("off", &rule.turned_off)] {
            page.sample("spotter_events_total", &[("rule", &rule.name), ("change", change)], count.get());
        }
    }
}

fn actions(page: &mut Exposition, board: &Board) {
    let actions = board.actions();
    page.head("spotter_action_up", "gauge", "1 while the action works.");
    for action in &actions {
        page.sample("spotter_action_up", &[("action", &action.name)], u8::from(action.health == "ready"));
    }
    page.head("spotter_outbox_depth", "gauge", "Events that wait, or are not yet acknowledged.");
    for action in &actions {
        page.sample("spotter_outbox_depth", &[("action", &action.name)], action.depth);
    }
    page.head(
        "spotter_outbox_dropped_total",
        "counter",
        "Events dropped by a full outbox, or that could not be acted on.",
    );
    for action in &actions {
        page.sample("spotter_outbox_dropped_total", &[("action", &action.name)], action.dropped);
    }
    page.head("spotter_action_connects_total", "counter", "Times the action became ready; all but one are reconnects.");
    for action in &actions {
        page.sample("spotter_action_connects_total", &[("action", &action.name)], action.connected);
    }
}
