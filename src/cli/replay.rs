//! `spotter replay`

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome};
use super::{DEFAULT_CONFIG, Format, print_json};
use crate::clock::Monotonic;
use crate::config::{self, Plan};
use crate::daemon::load_options;
use crate::model::Model;
use crate::replay::{self, Happening, Recorded, Replay as Player};
use crate::rules::{self, Change, Event, RuleStatus, explain};

/// Run a recorded folder through the model and the rules, and say what would have fired and why.
///
/// The files' names carry the time: a date and a time of day (2026-11-24T18-00-05.250Z, 20261124_180005; without a zone in the
/// configuration's `timezone`), or seconds or milliseconds since 1970. With several cameras each has a folder of its name.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter replay --config garden.toml --frames recorded/ --why")]
pub(super) struct Replay {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The folder of frames
    #[arg(long, value_name = "DIR")]
    frames: PathBuf,
    /// The camera that the frames are of, if there are several
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    /// Each rule's state frame by frame
    #[arg(long)]
    why: bool,
    /// How the results are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Replay {
    pub(super) fn execute(&self) -> Outcome {
        let plan = config::load(&self.config).map_err(Failure::configuration)?;
        let camera = self.camera.as_ref().map(|name| camera(&plan, name)).transpose()?;
        let frames = replay::list(&self.frames, &plan, camera).map_err(Failure::runtime)?;
        let options = load_options(&plan.model);
        let model = Model::load(&plan.model.path, &options).map_err(Failure::configuration)?;
        let labels: Vec<_> = model.labels().iter().collect();
        let rules = rules::compile(&plan, &labels).map_err(|problems| {
            Failure::Configuration(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let mut report = Report::new(self, &plan);
        let states = Player::new(&plan, model, rules).run(&frames, &mut |happening| report.hear(happening));
        report.finish(&states.map_err(Failure::runtime)?, frames.len())
    }
}

fn camera(plan: &Plan, name: &str) -> Result<usize, Failure> {
    plan.cameras.iter().position(|camera| *camera.name == *name).ok_or_else(|| {
        let known: Vec<_> = plan.cameras.iter().map(|camera| &*camera.name).collect();
        Failure::Usage(format!("no camera {name:?}: there are {}", known.join(", ")))
    })
}

/// Prints while it hears, or keeps what JSON wants.
struct Report<'a> {
    arguments: &'a Replay,
    zone: &'a TimeZone,
    frames: Vec<Value>,
    events: Vec<Value>,
    unusable: Vec<String>,
    skipped: usize,
    tallies: Vec<Tally>,
}

/// What a rule did over the whole recording.
#[derive(Default)]
struct Tally {
    fired: usize,
    /// The highest probability, with its label and file.
    best: Option<(f32, String, String)>,
}

impl<'a> Report<'a> {
    fn new(arguments: &'a Replay, plan: &'a Plan) -> Self {
        let tallies = plan.rules.iter().map(|_| Tally::default()).collect();
        let (frames, events, unusable) = (Vec::new(), Vec::new(), Vec::new());
        Self { arguments, zone: &plan.timezone, frames, events, unusable, skipped: 0, tallies }
    }

    fn text(&self) -> bool {
        self.arguments.format == Format::Text
    }

    fn hear(&mut self, happening: Happening<'_>) {
        match happening {
            Happening::Events(events, rules) => events.iter().for_each(|event| self.event(event, rules)),
            Happening::Frame { frame, rules, .. } => self.frame(frame, rules),
            Happening::Skipped(..) => self.skipped += 1,
            Happening::Unusable(frame, problem) => {
                eprintln!("spotter: {}: {problem}", frame.path.display());
                self.unusable.push(frame.path.display().to_string());
            }
        }
    }

    fn frame(&mut self, frame: &Recorded, rules: &[RuleStatus]) {
        let now = moment(frame.time);
        let file = frame.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (tally, rule) in self.tallies.iter_mut().zip(rules) {
            for (_, label, p) in rule.views.iter().filter_map(|view| view.last.as_ref()) {
                if tally.best.as_ref().is_none_or(|(best, ..)| p > best) {
                    tally.best = Some((*p, label.to_string(), file.clone()));
                }
            }
        }
        if !self.arguments.why {
            return;
        }
        let lines: Vec<_> = rules.iter().map(|rule| explain(rule, now, self.zone)).collect();
        if self.text() {
            println!("{}  {file}", self.clock(now));
            lines.iter().for_each(|line| println!("    {line}"));
        } else {
            let rules = rules.iter().zip(lines).map(|(rule, why)| {
                let hits: Vec<_> = rule.views.iter().map(|view| view.hits).collect();
                json!({ "rule": *rule.rule, "on": rule.on, "closed": rule.closed.map(|r| r.name()), "hits": hits, "why": why })
            });
            let rules: Vec<_> = rules.collect();
            self.frames.push(json!({ "file": file, "time": frame.time.to_string(), "rules": rules }));
        }
    }

    fn event(&mut self, event: &Event, rules: &[RuleStatus]) {
        let Some(index) = rules.iter().position(|rule| rule.rule == event.rule) else { return };
        self.tallies[index].fired += usize::from(event.change == Change::On);
        let (state, why) = match event.change {
            Change::On => ("on", explain(&rules[index], event.decided, self.zone)),
            Change::Escalated => ("escalated", "it stayed on".to_owned()),
            Change::Off(reason) => ("off", reason.name().to_owned()),
        };
        let file = event.origin.as_ref().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
        if self.text() {
            let (rule, label, p) = (&event.rule, &event.label, event.probability);
            println!("{}  {rule} {state}  {label} {p:.2} in {file}  ({why})", self.clock(event.decided));
        } else {
            self.events.push(json!({
                "time": timestamp(event.decided).to_string(), "rule": *event.rule, "state": state, "why": why,
                "camera": *event.camera, "region": event.region.as_deref(), "label": *event.label,
                "probability": event.probability, "file": file,
            }));
        }
    }

    fn finish(self, states: &[RuleStatus], frames: usize) -> Outcome {
        if self.text() {
            let (unusable, skipped) = (self.unusable.len(), self.skipped);
            println!("\n{frames} frames, {unusable} of them unusable, {skipped} skipped by the motion gate");
            self.tallies.iter().zip(states).for_each(|(tally, rule)| println!("{}", summary(tally, rule)));
        } else {
            let rules = self.tallies.iter().zip(states).map(|(tally, rule)| {
                let best = tally
                    .best
                    .as_ref()
                    .map(|(p, label, file)| json!({ "probability": p, "label": label, "file": file }));
                json!({ "rule": *rule.rule, "fired": tally.fired, "on": rule.on, "best": best })
            });
            let mut result = json!({
                "count": frames, "skipped": self.skipped, "events": self.events, "rules": rules.collect::<Vec<_>>(), "unusable": self.unusable,
            });
            if self.arguments.why {
                result["frames"] = Value::Array(self.frames);
            }
            print_json(&result)?;
        }
        if self.unusable.len() == frames {
            return Err(Failure::Runtime(format!("none of the {frames} frames can be read")));
        }
        Ok(())
    }

    fn clock(&self, now: Monotonic) -> String {
        self.zone.to_datetime(timestamp(now)).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
    }
}

fn summary(tally: &Tally, rule: &RuleStatus) -> String {
    let still = if rule.on { ", and still on at the end" } else { "" };
    let best = match &tally.best {
        Some((p, label, file)) => format!("at most {p:.2} ({label} in {file}; a hit from {:.2})", rule.threshold_on),
        None => "no frame of its cameras".to_owned(),
    };
    format!("  {}: fired {} times{still}; {best}", rule.rule, tally.fired)
}

/// The replay's monotonic clock counts from 1970.
fn moment(time: Timestamp) -> Monotonic {
    let since = time.duration_since(Timestamp::UNIX_EPOCH);
    Monotonic::from_duration(since.try_into().unwrap_or_default())
}

fn timestamp(now: Monotonic) -> Timestamp {
    Timestamp::UNIX_EPOCH.saturating_add(now.as_duration()).unwrap_or(Timestamp::MAX)
}
