//! Events to the actions that their rules name, camera states to every action.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::recorder::Recorder;
use crate::actions::{ActionHandle, CameraStatus, Health, Message, Picture, Report};
use crate::config::Plan;
use crate::config::plan::{ActionPlan, RulePlan, StationPlan};
use crate::rules::{Change, Event, Outcome, Verdict};
use crate::telemetry::board::Board;

/// The indices of the actions that a rule feeds.
struct Feeds {
    at_once: Vec<usize>,
    escalation: Vec<usize>,
}

/// The actions of a station's verdicts.
struct Consequences {
    pass: Vec<usize>,
    fail: Vec<usize>,
    fault: Vec<usize>,
}

/// A running action and what it was asked to do.
pub(super) struct Acting {
    pub(super) handle: ActionHandle,
    pub(super) plan: ActionPlan,
}

/// The actions in the plan's order, and which rule and station feeds which.
struct Routes {
    actions: Vec<Arc<Acting>>,
    by_rule: HashMap<Arc<str>, Feeds>,
    by_station: HashMap<Arc<str>, Consequences>,
}

impl Routes {
    fn new(actions: Vec<Arc<Acting>>, plan: &Plan) -> Self {
        let position = |name: &String| actions.iter().position(|it| *it.plan.name == **name);
        let feeds = |rule: &RulePlan| Feeds {
            at_once: rule.actions.iter().filter_map(position).collect(),
            escalation: rule.escalation.iter().flat_map(|e| &e.actions).filter_map(position).collect(),
        };
        let all = |names: &[String]| names.iter().filter_map(position).collect();
        let of = |it: &StationPlan| Consequences { pass: all(&it.pass), fail: all(&it.fail), fault: all(&it.fault) };
        let by_station = plan.stations.iter().map(|it| (it.name.clone(), of(it))).collect();
        let by_rule = plan.rules.iter().map(|rule| (rule.name.clone(), feeds(rule))).collect();
        Self { actions, by_rule, by_station }
    }
}

/// The actions' outboxes, by rule.
pub(super) struct Dispatcher {
    routes: ArcSwap<Routes>,
    /// Rules that have escalated and are still on: their `Off` goes to the escalation's actions too.
    escalated: Mutex<HashSet<Arc<str>>>,
    recorder: Arc<Recorder>,
    board: Arc<Board>,
}

impl Dispatcher {
    /// Connects the plan's rules and stations to the `actions` that they name.
    pub(super) fn new(actions: Vec<Arc<Acting>>, plan: &Plan, recorder: Arc<Recorder>, board: Arc<Board>) -> Self {
        let routes = ArcSwap::from_pointee(Routes::new(actions, plan));
        Self { routes, escalated: Mutex::default(), recorder, board }
    }

    /// From now on `plan` says which of `actions` an event is for.
    pub(super) fn reroute(&self, actions: Vec<Arc<Acting>>, plan: &Plan) {
        self.routes.store(Arc::new(Routes::new(actions, plan)));
    }

    /// Tells the actions for which `is_new` that rules are on already; for each, whether it has escalated.
    pub(super) fn standing(&self, on: Vec<(Event, bool)>, is_new: &dyn Fn(&str) -> bool) {
        let routes = self.routes.load();
        for (event, escalated) in on {
            let Some(feeds) = routes.by_rule.get(&event.rule) else { continue };
            let event = Arc::new(event);
            let escalation = feeds.escalation.iter().filter(|_| escalated);
            let receivers: HashSet<_> = feeds.at_once.iter().chain(escalation).copied().collect();
            for action in receivers.into_iter().map(|index| &routes.actions[index]).filter(|it| is_new(&it.plan.name)) {
                action.handle.send(Message::Standing(event.clone()));
            }
        }
    }

    /// Hands events on, to the pins first; never waits. `picture` gives the frame that decided them: it is asked once at most, only if an
    /// action or the page wants it, and after every other action has its events.
    pub(super) fn events(&self, events: Vec<Event>, picture: impl FnOnce() -> Option<Picture>) {
        if events.is_empty() {
            return;
        }
        let mut turned_on = super::watch::events(&self.board, &events);
        if !self.board.keeps_event_pictures() {
            turned_on.clear();
        }
        let routes = self.routes.load_full();
        let events = events.into_iter().map(Arc::new);
        let events: Vec<_> = events.map(|event| (self.receivers(&routes, &event), event)).collect();
        let mut pictured = Vec::new();
        for urgent in [true, false] {
            for (receivers, event) in &events {
                for action in receivers.iter().map(|&index| &routes.actions[index].handle) {
                    if action.is_urgent() != urgent {
                        continue;
                    }
                    if action.wants_pictures() && event.change.is_on() {
                        pictured.push((action, event.clone()));
                    } else {
                        // A full outbox drops, counts and says so itself.
                        action.send(Message::Event(event.clone()));
                    }
                }
            }
        }
        for (_, event) in &events {
            log_event(event);
            self.recorder.lock().happened(event.clone());
        }
        if pictured.is_empty() && turned_on.is_empty() {
            return;
        }
        let picture = picture().map(Arc::new);
        for (action, event) in pictured {
            let message = match &picture {
                Some(picture) => Message::Pictured(event, picture.clone()),
                None => Message::Event(event),
            };
            action.send(message);
        }
        if let Some(picture) = picture.filter(|_| !turned_on.is_empty()) {
            super::watch::event_picture(&self.board, turned_on, &picture);
        }
    }

    /// The actions that an event is for, each once.
    fn receivers(&self, routes: &Routes, event: &Event) -> Vec<usize> {
        if let Some(verdict) = &event.verdict {
            return self.receivers_of(routes, &event.rule, verdict);
        }
        let Some(feeds) = routes.by_rule.get(&event.rule) else { return Vec::new() };
        // One insertion or removal: a panic elsewhere leaves the set whole.
        let mut escalated = self.escalated.lock().unwrap_or_else(PoisonError::into_inner);
        let (at_once, escalation) = match event.change {
            Change::On => (true, false),
            Change::Escalated => (false, {
                escalated.insert(event.rule.clone());
                true
            }),
            Change::Off(_) => (true, escalated.remove(&event.rule)),
        };
        let mut receivers = if at_once { feeds.at_once.clone() } else { Vec::new() };
        let more = feeds.escalation.iter().filter(|index| !at_once || !feeds.at_once.contains(index));
        receivers.extend(more.filter(|_| escalation));
        receivers
    }

    /// Tells every action that a rule was armed or disarmed.
    pub(super) fn armed(&self, rule: &Arc<str>, armed: bool) {
        self.board.set_armed(rule, armed);
        for action in &self.routes.load().actions {
            action.handle.send(Message::Armed { rule: rule.clone(), armed });
        }
    }

    /// The actions that a verdict is for; counts it.
    fn receivers_of(&self, routes: &Routes, station: &str, verdict: &Verdict) -> Vec<usize> {
        let parts = &self.board.parts;
        if verdict.outcome.is_fault() {
            parts.faults.increment()
        } else {
            parts.judged.increment()
        }
        let Some(consequences) = routes.by_station.get(station) else { return Vec::new() };
        match verdict.outcome {
            Outcome::Pass => consequences.pass.clone(),
            Outcome::Fail => consequences.fail.clone(),
            Outcome::TimedOut | Outcome::Overflow => consequences.fault.clone(),
        }
    }

    /// An action does not work.
    pub(super) fn is_degraded(&self) -> bool {
        let bad = |it: &Arc<Acting>| matches!(it.handle.status().health, Health::Degraded | Health::Rejected);
        self.routes.load().actions.iter().any(bad)
    }

    /// Parts without a verdict, and events that a full outbox dropped, since the start.
    pub(super) fn mishaps(&self) -> u64 {
        self.board.parts.faults.get() + self.routes.load().actions.iter().map(|it| it.handle.dropped()).sum::<u64>()
    }

    /// Parts that were judged since the start.
    pub(super) fn verdicts(&self) -> u64 {
        self.board.parts.judged.get()
    }

    /// Tells every action how the device is.
    pub(super) fn report(&self, report: Report) {
        let report = Arc::new(report);
        for action in &self.routes.load().actions {
            action.handle.send(Message::Report(report.clone()));
        }
    }

    /// Tells every action of a camera that came or went.
    pub(super) fn camera(&self, status: &CameraStatus) {
        for action in &self.routes.load().actions {
            action.handle.send(Message::Camera(status.clone()));
        }
    }

    /// The actions, for their counts and states.
    pub(super) fn actions(&self) -> Vec<Arc<Acting>> {
        self.routes.load().actions.clone()
    }
}

fn log_event(event: &Event) {
    let view = match &event.region {
        Some(region) => format!("{}/{region}", event.camera),
        None => event.camera.to_string(),
    };
    if let Some(verdict) = &event.verdict {
        let part = verdict.part.as_deref().unwrap_or("without a number");
        let outcome = verdict.outcome;
        return match outcome.is_fault() {
            false => {
                log::info!(
                    "station {}: part {part}: {outcome:?}: {} {:.2}",
                    event.rule,
                    event.label,
                    event.probability
                );
            }
            true => log::warn!("station {}: part {part}: no verdict: {outcome:?}", event.rule),
        };
    }
    match event.change {
        Change::On => log::info!("rule {} on: {} {:.2} at {view}", event.rule, event.label, event.probability),
        Change::Escalated => log::info!("rule {} is still on and escalates: {} at {view}", event.rule, event.label),
        Change::Off(reason) => log::info!("rule {} off ({}) at {view}", event.rule, reason.name()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::actions::{self, ActionContext, Edge, Observer, RuleInfo, close_all};
    use crate::clock::Monotonic;
    use crate::config;
    use crate::rules::OffReason;

    /// Two rules and a station; each action writes down what it was delivered.
    const PLAN: &str = "[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"x\"\n\
        [[rule]]\nname = \"cat\"\nclasses = [\"cat\"]\nactions = [\"a\", \"b\"]\n\
        escalate_after = \"1m\"\nescalate = [\"b\", \"c\"]\n\
        [[rule]]\nname = \"dog\"\nclasses = [\"dog\"]\nactions = [\"b\"]\n\
        [[station]]\nname = \"gate\"\ncamera = \"c\"\nclasses = [\"cup\"]\npass = [\"a\"]\nfail = [\"b\"]\nfault = [\"c\"]\n\
        [action.a]\ntype = \"log\"\n[action.b]\ntype = \"log\"\n[action.c]\ntype = \"log\"\n";

    #[derive(Default)]
    struct Deliveries(Mutex<Vec<(String, String)>>);

    impl Observer for Deliveries {
        fn edge(&self, _: &Edge) {}
        fn delivered(&self, action: &str, event: &Event) {
            self.0.lock().unwrap().push((event.rule.to_string(), action.to_owned()));
        }
    }

    fn event(rule: &str, change: Change, outcome: Option<Outcome>) -> Event {
        let now = Monotonic::now();
        let verdict = outcome.map(|outcome| Arc::new(Verdict { outcome, part: None, asked: now }));
        Event {
            rule: rule.into(),
            change,
            camera: "c".into(),
            region: None,
            class: 0,
            label: "cat".into(),
            probability: 0.9,
            captured: now,
            decided: now,
            sequence: 1,
            origin: None,
            verdict,
        }
    }

    /// Sends `sent` and gives the actions that each rule's events reached, in order, and the dispatcher.
    fn check(sent: Vec<Event>) -> (Vec<String>, Dispatcher) {
        let plan = config::parse(PLAN, Path::new("f.toml"), &|_| None).unwrap_or_else(|it| panic!("{it}"));
        let deliveries = Arc::new(Deliveries::default());
        let context = ActionContext {
            device: "garden".into(),
            rules: plan.rules.iter().map(RuleInfo::from).collect(),
            cameras: vec!["c".into()],
            views: vec![],
            pins: vec![],
            observer: deliveries.clone(),
            control: crate::control::Control::new(|| ()),
        };
        let handles = actions::start(&plan.actions, context).unwrap();
        let acting = std::iter::zip(handles, plan.actions.iter().cloned());
        let acting: Vec<_> = acting.map(|(handle, plan)| Arc::new(Acting { handle, plan })).collect();
        let board = Arc::new(Board::new("garden".into()));
        let dispatcher = Dispatcher::new(acting.clone(), &plan, Arc::new(Recorder::new(true)), board);
        for event in sent {
            dispatcher.events(vec![event], || panic!("no action here wants a picture"));
        }
        let handles: Vec<_> = acting.iter().map(|it| &it.handle).collect();
        assert_eq!(close_all(&handles, Duration::from_secs(5)), Vec::<Arc<str>>::new());
        let mut reached: Vec<_> =
            deliveries.0.lock().unwrap().iter().map(|(rule, action)| format!("{rule}>{action}")).collect();
        reached.sort();
        (reached, dispatcher)
    }

    #[test]
    fn an_event_reaches_the_actions_that_its_rule_names_and_no_other() {
        let off = Change::Off(OffReason::Gone);
        let reached = |sent| check(sent).0;
        assert_eq!(reached(vec![event("dog", Change::On, None), event("dog", off, None)]), ["dog>b", "dog>b"]);
        assert_eq!(reached(vec![event("nobody", Change::On, None)]), Vec::<String>::new());
        // Without an escalation, its actions hear nothing of the end; after one they do, and `b` hears each once.
        assert_eq!(
            reached(vec![event("cat", Change::On, None), event("cat", off, None)]),
            ["cat>a", "cat>a", "cat>b", "cat>b"]
        );
        let sent = vec![event("cat", Change::Escalated, None), event("cat", off, None)];
        assert_eq!(reached(sent), ["cat>a", "cat>b", "cat>b", "cat>c", "cat>c"]);
    }

    #[test]
    fn verdicts_go_by_their_outcome_and_are_counted() {
        use Outcome::{Fail, Overflow, Pass, TimedOut};
        let sent = [Pass, Pass, Fail, TimedOut, Overflow].map(|outcome| event("gate", Change::On, Some(outcome)));
        let (reached, dispatcher) = check(sent.into());
        assert_eq!(reached, ["gate>a", "gate>a", "gate>b", "gate>c", "gate>c"]);
        assert_eq!((dispatcher.verdicts(), dispatcher.mishaps()), (3, 2));
        assert!(!dispatcher.is_degraded());
    }

    #[test]
    fn other_routes_hold_from_the_next_event_on() {
        let (_, dispatcher) = check(Vec::new());
        let plan = config::parse(PLAN, Path::new("f.toml"), &|_| None).unwrap();
        let kept: Vec<_> = dispatcher.actions().into_iter().filter(|it| &*it.plan.name == "b").collect();
        dispatcher.reroute(kept, &plan);
        assert_eq!(dispatcher.receivers(&dispatcher.routes.load(), &event("cat", Change::On, None)), [0]);
        assert_eq!(dispatcher.actions().len(), 1);
    }
}
