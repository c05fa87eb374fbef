//! Tables of frames and the events that they must give, and the invariants under random frames.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::config::plan::{Area, RulePlan};
use crate::config::plan::{CachePlan, CameraPlan, Fit, ModelPlan, Orientation, RegionPlan, SourcePlan};

const LABELS: [&str; 3] = ["cat", "wild_cat", "dog"];
const STALE: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Monotonic {
    Monotonic::from_duration(Duration::from_millis(millis))
}

fn camera(name: &str, regions: &[&str]) -> CameraPlan {
    let region = |name: &&str| RegionPlan { name: Arc::from(*name), area: Area::Fractions([0.0, 0.0, 1.0, 1.0]) };
    CameraPlan {
        name: Arc::from(name),
        source: SourcePlan::V4l2 { device: "/dev/video0".into(), format: None },
        size: None,
        fps: None,
        orientation: Orientation::default(),
        fit: Fit::Pad,
        regions: regions.iter().map(region).collect(),
        timeout: Duration::from_secs(5),
        stale: STALE,
        controls: BTreeMap::new(),
        motion: None,
    }
}

fn rule(hits: u32, window: u32, hold: u64, cooldown: u64) -> RulePlan {
    RulePlan {
        name: Arc::from("rule"),
        cameras: Vec::new(),
        classes: vec!["cat".into()],
        not_classes: Vec::new(),
        on: 0.6,
        off: 0.4,
        hits,
        window,
        hold: Duration::from_millis(hold),
        cooldown: Duration::from_millis(cooldown),
        schedule: None,
        armed_by: None,
        armed: true,
        actions: Vec::new(),
        escalation: None,
    }
}

fn plan(cameras: Vec<CameraPlan>, rules: Vec<RulePlan>) -> Plan {
    let model = ModelPlan {
        path: PathBuf::from("model.onnx"),
        kernel: None,
        threads: None,
        compact: false,
        layers: Vec::new(),
        cache: CachePlan::None,
    };
    Plan {
        device: "test".into(),
        timezone: jiff::tz::TimeZone::UTC,
        model,
        cameras,
        rules,
        groups: Vec::new(),
        actions: Vec::new(),
        page: None,
        stations: Vec::new(),
        inputs: Vec::new(),
        lines: Default::default(),
        thermal: None,
    }
}

fn frame(view: &str, now: Monotonic, probabilities: &[f32]) -> Observation {
    let (camera, region) = view.split_once('/').map_or((view, None), |(camera, region)| (camera, Some(region)));
    Observation {
        camera: Arc::from(camera),
        region: region.map(Arc::from),
        captured: now - Duration::from_millis(30),
        sequence: now.as_duration().as_millis() as u64,
        origin: None,
        probabilities: Arc::from(probabilities),
    }
}

/// Plays a script on two cameras, `a` and `b`, and compares the events with those after the `|`.
///
/// The script's steps are separated by blanks: `0.7` is a frame of camera `a` with that probability, `b:0.7` one of
/// `b`; each comes 100 ms after the step before. `+2s` lets 2 s pass without frames. The rule set is ticked at each of its
/// deadlines, as the daemon does. `on@3` expects an event at the third step.
fn check(rule: RulePlan, table: &str) {
    let (script, expected) = table.split_once('|').expect("a script and its events");
    let mut set = compile(&plan(vec![camera("a", &[]), camera("b", &[])], vec![rule]), &LABELS).expect("compiles");
    let mut now = at(1000);
    let mut events: Vec<String> = Vec::new();
    set.tick(now);
    for (index, step) in script.split_whitespace().enumerate() {
        let pause = step.strip_prefix('+').map(|text| text.trim_end_matches('s').parse().expect("seconds"));
        let target = now + pause.map_or(Duration::from_millis(100), Duration::from_secs_f64);
        let mut told = Vec::new();
        while let Some(deadline) = set.next_deadline().filter(|&deadline| deadline < target) {
            assert!(deadline > now, "{table}: a deadline that does not pass");
            now = deadline;
            told.extend(set.tick(now));
        }
        now = target;
        if pause.is_none() {
            let (view, score) = step.split_once(':').unwrap_or(("a", step));
            told.extend(set.observe(&frame(view, now, &[score.parse().expect("a score")]), now));
        } else {
            told.extend(set.tick(now));
        }
        events.extend(told.iter().map(|event| format!("{}@{}", name(event.change), index + 1)));
    }
    assert_eq!(events.join(" "), expected.trim(), "{table}");
}

fn name(change: Change) -> &'static str {
    match change {
        Change::On => "on",
        Change::Off(OffReason::Gone) => "off",
        Change::Off(reason) => reason.name(),
        Change::Escalated => "escalated",
    }
}

#[test]
fn hits_of_a_window() {
    check(rule(1, 1, 0, 0), "0.5 0.6 0.7 | on@2");
    check(rule(3, 3, 0, 0), "0.7 0.7 0.5 0.7 0.7 0.7 | on@6");
    check(rule(3, 5, 0, 0), "0.7 0.7 0.7 | on@3");
    check(rule(3, 5, 0, 0), "0.7 0.1 0.7 0.1 0.7 | on@5");
    check(rule(3, 5, 0, 0), "0.7 0.1 0.7 0.1 0.1 0.7 0.1 0.7 0.7 | on@9");
    // Scores between off and on are no hits while the rule is off.
    check(rule(1, 1, 0, 0), "0.59 0.5 0.41 | ");
}

#[test]
fn hysteresis() {
    check(rule(1, 1, 0, 0), "0.6 0.4 0.39 | on@1 off@3");
    check(rule(1, 1, 0, 0), "0.6 0.59 0.61 0.59 0.61 0.4 0.59 | on@1");
    check(rule(1, 1, 0, 0), "0.6 0.3 0.5 0.6 | on@1 off@2 on@4");
}

#[test]
fn single_missed_frames_do_not_flap() {
    check(rule(3, 5, 0, 0), "0.7 0.7 0.7 0.1 0.7 0.1 0.7 0.7 | on@3");
    check(rule(3, 5, 0, 0), "0.7 0.7 0.7 0.1 0.1 0.1 | on@3 off@6");
}

#[test]
fn hold_counts_from_the_last_support() {
    check(rule(1, 1, 250, 0), "0.7 0.1 0.1 0.1 0.1 | on@1 off@4");
    check(rule(1, 1, 350, 0), "0.7 0.1 0.1 0.5 0.1 0.1 0.1 0.1 | on@1 off@8");
    // It ends by itself between frames.
    check(rule(1, 1, 2000, 0), "0.7 0.1 +1.8s +0.2s | on@1 off@4");
    // While the window supports the view, the hold does not turn it off: frames may be slow.
    check(rule(1, 1, 500, 0), "0.7 +5s 0.1 | on@1 off@3");
}

#[test]
fn cooldown_counts_from_the_last_event_sent() {
    // From the off, here at 2 (200 ms): the next on is at 700 ms or later.
    check(rule(1, 1, 0, 500), "0.7 0.1 0.7 0.7 0.7 0.7 0.7 0.7 | on@1 off@2 on@7");
    // Nothing comes by itself when the cooldown is over, and a frame that is no hit does not turn the rule on.
    check(rule(1, 2, 0, 500), "0.7 0.1 0.1 0.7 +0.5s 0.1 0.7 | on@1 off@3 on@7");
    // An off is never held back.
    check(rule(1, 1, 0, 60_000), "0.7 0.1 0.7 0.1 +58s 0.7 +3s 0.7 0.1 | on@1 off@2 on@8 off@9");
}

#[test]
fn views_are_counted_apart_and_joined_by_or() {
    check(rule(2, 2, 0, 0), "0.7 b:0.7 0.1 b:0.1 0.7 b:0.7 b:0.7 | on@7");
    check(rule(1, 1, 0, 0), "0.7 b:0.7 0.1 b:0.1 | on@1 off@4");
    // One view hands over to the other in the cooldown: the rule stays on.
    check(rule(1, 1, 0, 60_000), "0.7 b:0.7 0.1 b:0.7 0.7 b:0.1 0.1 | on@1 off@7");
}

#[test]
fn stale_cameras_turn_off_visibly() {
    check(rule(1, 1, 0, 0), "0.7 +9.8s 0.7 +9.9s +0.2s | on@1 stale@5");
    // The other camera goes on.
    check(rule(1, 1, 0, 0), "0.7 b:0.7 +9s b:0.7 +5s b:0.1 | on@1 off@6");
    // What was seen before the gap does not count after it.
    check(rule(2, 3, 0, 0), "0.7 0.7 +11s 0.7 0.7 | on@2 stale@3 on@5");
    check(rule(2, 3, 0, 0), "0.7 +11s 0.7 0.7 | on@4");
    // A hold does not outlive its camera.
    check(rule(1, 1, 60_000, 0), "0.7 0.1 +11s | on@1 stale@3");
}

#[test]
fn scores_that_are_no_numbers_count_as_nothing() {
    check(rule(1, 1, 0, 0), "NaN inf -inf | ");
    check(rule(1, 1, 0, 0), "0.7 NaN | on@1 off@2");
    let mut set = compile(&plan(vec![camera("a", &[])], vec![rule(1, 1, 0, 0)]), &LABELS).expect("compiles");
    assert_eq!(set.observe(&frame("a", at(1), &[]), at(1)), []);
    assert_eq!(set.observe(&frame("nowhere", at(2), &[0.9]), at(2)), []);
    assert_eq!(set.observe(&frame("a/nowhere", at(3), &[0.9]), at(3)), []);
}

#[test]
fn an_event_names_the_best_class_and_its_frame() {
    let cats = RulePlan { classes: vec!["*cat*".into()], cameras: vec!["a".into()], ..rule(1, 1, 0, 0) };
    let regions = plan(vec![camera("a", &["left", "right"]), camera("b", &[])], vec![cats]);
    let mut set = compile(&regions, &LABELS).expect("compiles");
    assert_eq!(set.views().iter().map(View::to_string).collect::<Vec<_>>(), ["a/left", "a/right", "b"]);
    assert_eq!(set.observe(&frame("b", at(90), &[1.0, 0.0, 0.0]), at(90)), []);
    assert_eq!(set.observe(&frame("a/right", at(90), &[0.35, 0.35, 0.3]), at(90)), [], "classes are not summed");
    let mut observation = frame("a/right", at(100), &[0.1, 0.8, 0.9]);
    observation.origin = Some(Arc::from(std::path::Path::new("photo.jpg")));
    let events = set.observe(&observation, at(120));
    let expected = Event {
        rule: "rule".into(),
        change: Change::On,
        camera: "a".into(),
        region: Some("right".into()),
        class: 1,
        label: "wild_cat".into(),
        probability: 0.8,
        captured: at(70),
        decided: at(120),
        verdict: None,
        sequence: 100,
        origin: observation.origin.clone(),
    };
    assert_eq!(events, [expected]);
    let off = set.observe(&frame("a/right", at(200), &[0.3, 0.2, 0.9]), at(200));
    assert_eq!((off[0].class, off[0].probability, off[0].sequence), (0, 0.3, 200));
}

#[test]
fn a_state_explains_itself() {
    let mut set = compile(&plan(vec![camera("a", &[])], vec![rule(2, 3, 1000, 5000)]), &LABELS).expect("compiles");
    for (millis, p) in [(100, 0.7), (200, 0.7), (300, 0.5), (400, 0.1), (500, 0.1)] {
        set.observe(&frame("a", at(millis), &[p, 0.0, 0.9]), at(millis));
    }
    let status = set.state("rule").expect("the rule");
    assert_eq!((status.on, status.changed, status.cooldown_end), (true, Some(at(200)), Some(at(5200))));
    assert_eq!((status.hits_needed, status.window), (2, 3));
    let view = &status.views[0];
    assert_eq!((view.on, view.stale, view.hits, view.frames, view.off_at), (true, false, 1, 3, Some(at(1300))));
    assert_eq!(view.last, Some((0, "cat".into(), 0.1)));
    set.tick(at(500) + STALE);
    assert!(set.state("rule").expect("the rule").views[0].stale);
    assert_eq!(set.stale_cameras().count(), 1);
    assert_eq!(set.next_deadline(), None);
    assert!(set.state("other").is_none());
}

fn night(unset: bool) -> RulePlan {
    let time = |hour| jiff::civil::Time::constant(hour, 0, 0, 0);
    let span = crate::config::plan::Span { days: [true; 7], start: time(18), end: time(6) };
    let schedule = crate::config::plan::SchedulePlan { spans: vec![span], zone: jiff::tz::TimeZone::UTC, unset };
    RulePlan { schedule: Some(schedule), ..rule(1, 1, 0, 0) }
}

#[test]
fn a_schedule_closes_and_opens_by_itself() {
    let mut set = compile(&plan(vec![camera("a", &[])], vec![night(false)]), &LABELS).expect("compiles");
    let see = |set: &mut RuleSet, millis| set.observe(&frame("a", at(millis), &[0.9]), at(millis));
    let clock = |text: &str| Some(text.parse::<Timestamp>().expect("a time"));
    assert_eq!(see(&mut set, 100), [], "the time is not known, and the configuration says inactive");
    let status = set.state("rule").expect("the rule");
    assert_eq!(status.schedule, Some(ScheduleStatus { open: false, known: false, until: None }));
    assert_eq!(status.closed, Some(OffReason::Unscheduled));
    // Five seconds before the evening.
    set.tell_time(clock("2026-11-24T17:59:55Z"), at(200));
    assert_eq!(see(&mut set, 300), []);
    assert_eq!(set.next_deadline(), Some(at(5200)));
    assert_eq!(set.tick(at(5200)), [], "opening alone is no event");
    assert_eq!(see(&mut set, 5300).len(), 1);
    // It is set on to the morning: the rule turns off, and says why.
    set.tell_time(clock("2026-11-25T05:59:59Z"), at(5400));
    assert_eq!(set.tick(at(5400)), []);
    let events = set.tick(set.next_deadline().expect("the morning"));
    assert_eq!((events[0].change, events[0].decided), (Change::Off(OffReason::Unscheduled), at(6400)));
    assert_eq!(set.state("rule").expect("the rule").schedule.expect("one").until, clock("2026-11-25T18:00:00Z"));
    assert!(set.next_deadline().is_some_and(|deadline| deadline > at(6400)));

    let mut unset = compile(&plan(vec![camera("a", &[])], vec![night(true)]), &LABELS).expect("compiles");
    assert_eq!(see(&mut unset, 100).len(), 1, "active while the time is not known");
    unset.tell_time(clock("2026-11-24T12:00:00Z"), at(200));
    assert_eq!(unset.tick(at(200))[0].change, Change::Off(OffReason::Unscheduled));
}

#[test]
fn disarming_turns_off_at_once_and_forgets() {
    let armed_by = Some(crate::config::plan::ArmedBy::Mqtt);
    let rules = vec![
        RulePlan { armed_by: armed_by.clone(), armed: false, ..rule(2, 2, 60_000, 0) },
        RulePlan { name: "free".into(), ..rule(1, 1, 0, 0) },
    ];
    let mut set = compile(&plan(vec![camera("a", &[])], rules), &LABELS).expect("compiles");
    let changes = |events: Vec<Event>| events.iter().map(|e| (e.rule.to_string(), e.change)).collect::<Vec<_>>();
    let see = |set: &mut RuleSet, millis| changes(set.observe(&frame("a", at(millis), &[0.9]), at(millis)));
    assert_eq!(see(&mut set, 1), [("free".into(), Change::On)]);
    assert_eq!(see(&mut set, 2), []);
    assert_eq!(set.arm("rule", true, at(3)), Some(vec![]));
    assert_eq!(see(&mut set, 4), [], "what came while it was disarmed does not count");
    assert_eq!(see(&mut set, 5), [("rule".into(), Change::On)]);
    assert_eq!(set.arm("rule", true, at(6)), Some(vec![]), "again");
    let off = set.arm("rule", false, at(7)).map(changes);
    assert_eq!(off, Some(vec![("rule".into(), Change::Off(OffReason::Disarmed))]));
    assert_eq!(set.state("rule").and_then(|status| status.armed), Some(false));
    assert_eq!(set.armed().map(|(rule, armed)| (&**rule, armed)).collect::<Vec<_>>(), [("rule", false)]);
    for other in ["free", "none"] {
        assert_eq!(set.arm(other, false, at(8)), None);
    }
}

#[test]
fn what_stays_on_escalates_once() {
    let escalation = crate::config::plan::EscalationPlan { after: Duration::from_secs(1), actions: vec!["x".into()] };
    let with = |hold, cooldown| RulePlan { escalation: Some(escalation.clone()), ..rule(1, 1, hold, cooldown) };
    check(with(0, 0), "0.7 +0.9s 0.7 +1s +5s 0.1 | on@1 escalated@3 off@6");
    check(with(0, 0), "0.7 0.1 +2s 0.7 +2s | on@1 off@2 on@4 escalated@5");
    // The hold counts as on; an end at the same moment wins.
    check(with(1500, 0), "0.7 0.1 +2s | on@1 escalated@3 off@3");
    check(with(1000, 0), "0.7 0.1 +2s | on@1 off@3");
    // No cooldown is counted from an escalation.
    check(with(0, 1000), "0.7 +1s 0.1 +0.8s 0.7 0.7 | on@1 escalated@2 off@3 on@6");
}

#[test]
fn groups_are_joined_and_not_classes_taken_out() {
    let group = |classes: &[&str]| {
        let classes = classes.iter().map(|&class| class.to_owned()).collect();
        vec![crate::config::plan::GroupPlan { name: "cats".into(), classes }]
    };
    let with = |groups, classes: &[&str], not: &[&str]| {
        let strings = |list: &[&str]| list.iter().map(|&class| class.to_owned()).collect();
        let rule = RulePlan { classes: strings(classes), not_classes: strings(not), ..rule(1, 1, 0, 0) };
        compile(&Plan { groups, ..plan(vec![camera("a", &[])], vec![rule]) }, &LABELS)
    };
    // Which of the three labels turns the rule on.
    for (classes, not, expected) in [
        (&["@cats"][..], &[][..], [true, true, false]),
        (&["@cats", "dog"], &[], [true, true, true]),
        (&["@cats"], &["wild_cat"], [true, false, false]),
        (&["*"], &["@cats"], [false, false, true]),
        (&["*", "0"], &["0", "dog"], [false, true, false]),
    ] {
        for (class, expected) in expected.into_iter().enumerate() {
            let mut set = with(group(&["*cat*", "cat"]), classes, not).expect("compiles");
            let mut scores = [0.0; 3];
            scores[class] = 0.9;
            let events = set.observe(&frame("a", at(1), &scores), at(1));
            assert_eq!(!events.is_empty(), expected, "{classes:?} without {not:?}: {}", LABELS[class]);
            assert!(events.iter().all(|event| event.class == class));
        }
    }
    let keys = |result: Result<RuleSet, Vec<RuleProblem>>| -> Vec<String> {
        result.expect_err("a problem").iter().map(ToString::to_string).collect()
    };
    let nothing = keys(with(group(&["cat"]), &["@cats"], &["*cat*"]));
    assert!(nothing[0].starts_with("rule[0].not_classes (rule \"rule\"): leaves none"), "{nothing:?}");
    let unknown = keys(with(group(&["cat", "catt"]), &["@cats"], &["dgo"]));
    assert!(unknown[0].starts_with("group.cats.classes[1] (group \"cats\"): no class"), "{unknown:?}");
    assert!(unknown[1].starts_with("rule[0].not_classes[0] (rule"), "{unknown:?}");
    assert_eq!(unknown.len(), 2);
}

#[test]
fn every_unknown_class_is_reported() {
    let bad = RulePlan { classes: vec!["cat".into(), "dgo".into(), "9".into()], ..rule(1, 1, 0, 0) };
    let lost = RulePlan { cameras: vec!["a/none".into(), "a".into()], ..rule(1, 1, 0, 0) };
    let problems = compile(&plan(vec![camera("a", &[])], vec![rule(1, 1, 0, 0), bad, lost]), &LABELS).expect_err("bad");
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["rule[1].classes[1]", "rule[1].classes[2]", "rule[2].cameras[0]"]);
    assert!(problems[0].to_string().contains("did you mean \"dog\""), "{}", problems[0]);
}

/// One random step of the property tests.
#[derive(Clone, Debug)]
enum Step {
    Frame(usize, f32),
    Tick,
    Arm(bool),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    // Scores around both thresholds and on them; times from nothing to more than the stale time.
    let score = prop_oneof![4 => 0.3f32..0.7, 1 => Just(0.4f32), 1 => Just(0.6), 1 => Just(f32::NAN)];
    let step = prop_oneof![5 => (0..2usize, score).prop_map(|(view, p)| Step::Frame(view, p)), 1 => Just(Step::Tick), 1 => any::<bool>().prop_map(Step::Arm)];
    let wait = prop_oneof![20 => 0..400u64, 1 => 9_000..11_000u64];
    prop::collection::vec((wait, step), 0..200)
}

fn rules() -> impl Strategy<Value = RulePlan> {
    let hold = prop_oneof![Just(0), 1..1500u64];
    let cooldown = prop_oneof![Just(0), 1..3000u64];
    let armed_by = prop_oneof![Just(None), Just(Some(crate::config::plan::ArmedBy::Mqtt))];
    (1..5u32, 0..4u32, hold, cooldown, 0.4f32..=0.6, armed_by, any::<bool>()).prop_map(
        |(hits, more, hold, cooldown, off, armed_by, armed)| RulePlan {
            off,
            armed_by,
            armed,
            ..rule(hits, hits + more, hold, cooldown)
        },
    )
}

/// The same rule told plainly: the whole history of each view is kept, and everything is computed from it anew.
struct Oracle {
    rule: RulePlan,
    /// Of each view: frames since it was last stale, as `(now, p, counted)`; whether it is on; when its camera was last heard.
    history: [Vec<(Monotonic, f32, bool)>; 2],
    on: [bool; 2],
    heard: [Option<Monotonic>; 2],
    stale: [bool; 2],
    sent: Vec<(Monotonic, Change)>,
    disarmed: bool,
}

impl Oracle {
    fn counting(&self, view: usize) -> usize {
        let threshold = if self.on[view] { self.rule.off } else { self.rule.on };
        let window = self.rule.window as usize;
        self.history[view].iter().rev().take(window).filter(|(_, p, _)| *p >= threshold).count()
    }

    fn rule_on(&self) -> bool {
        matches!(self.sent.last(), Some((_, Change::On)))
    }

    fn step(&mut self, now: Monotonic, step: &Step) {
        if let Step::Arm(armed) = *step
            && self.rule.armed_by.is_some()
        {
            if !armed && !self.disarmed {
                self.history.iter_mut().for_each(Vec::clear);
                let was_on = std::mem::take(&mut self.on).contains(&true);
                self.expire(now, was_on.then_some(OffReason::Disarmed));
            }
            self.disarmed = !armed;
        }
        for view in 0..2 {
            let heard = *self.heard[view].get_or_insert(now);
            if !self.stale[view] && now.since(heard) >= STALE {
                self.stale[view] = true;
                self.history[view].clear();
                let was_on = std::mem::take(&mut self.on[view]);
                self.expire(now, was_on.then_some(OffReason::Stale));
            }
        }
        if let Step::Frame(view, p) = *step {
            let p = if p.is_nan() { 0.0 } else { p };
            (self.heard[view], self.stale[view]) = (Some(now), false);
            if self.disarmed {
                return;
            }
            let counts = p >= if self.on[view] { self.rule.off } else { self.rule.on };
            self.history[view].push((now, p, counts));
            let cool = self.sent.last().is_none_or(|(sent, _)| now >= *sent + self.rule.cooldown);
            if counts && !self.on[view] && self.counting(view) >= self.rule.hits as usize && (cool || self.rule_on()) {
                self.on[view] = true;
            }
        }
        self.expire(now, None);
    }

    fn expire(&mut self, now: Monotonic, reason: Option<OffReason>) {
        for view in 0..2 {
            let supported = self.history[view].iter().rev().find(|(_, _, counted)| *counted).map(|(at, ..)| *at);
            let held = supported.is_some_and(|at| now < at + self.rule.hold);
            if self.on[view] && self.counting(view) < self.rule.hits as usize && !held {
                self.on[view] = false;
            }
        }
        let on = self.on[0] || self.on[1];
        if on && !self.rule_on() {
            self.sent.push((now, Change::On));
        } else if !on && self.rule_on() {
            self.sent.push((now, Change::Off(reason.unwrap_or(OffReason::Gone))));
        }
    }
}

/// Runs random steps on a rule set with a camera for each of two views.
fn run(rule: &RulePlan, steps: &[(u64, Step)]) -> Vec<Event> {
    let mut set =
        compile(&plan(vec![camera("a", &[]), camera("b", &[])], vec![rule.clone()]), &LABELS).expect("compiles");
    let (mut now, mut events) = (at(0), Vec::new());
    for (wait, step) in steps {
        now = now + Duration::from_millis(*wait);
        match step {
            Step::Frame(view, p) => events.extend(set.observe(&frame(["a", "b"][*view], now, &[*p]), now)),
            Step::Arm(armed) => {
                // A rule that nothing arms is only looked at.
                let told = set.arm("rule", *armed, now);
                assert_eq!(told.is_some(), rule.armed_by.is_some());
                events.extend(told.unwrap_or_else(|| set.tick(now)));
            }
            Step::Tick => {
                events.extend(set.tick(now));
                assert!(set.next_deadline().is_none_or(|deadline| deadline > now));
            }
        }
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_are_those_of_the_plain_definition(rule in rules(), steps in steps()) {
        let mut oracle = Oracle {
            rule: rule.clone(),
            history: Default::default(),
            on: [false; 2],
            heard: [None; 2],
            stale: [false; 2],
            sent: Vec::new(),
            disarmed: rule.armed_by.is_some() && !rule.armed,
        };
        let mut now = at(0);
        for (wait, step) in &steps {
            now = now + Duration::from_millis(*wait);
            oracle.step(now, step);
        }
        let events: Vec<_> = run(&rule, &steps).iter().map(|event| (event.decided, event.change)).collect();
        prop_assert_eq!(events, oracle.sent);
    }

    #[test]
    fn events_alternate_and_keep_the_cooldown(rule in rules(), steps in steps()) {
        let mut last: Option<Event> = None;
        for event in run(&rule, &steps) {
            let on = event.change == Change::On;
            prop_assert_eq!(on, last.as_ref().is_none_or(|last| last.change != Change::On), "alternates from on");
            if on {
                prop_assert!(event.probability >= rule.on);
                let quiet = last.as_ref().map(|last| event.decided.since(last.decided));
                prop_assert!(quiet.is_none_or(|quiet| quiet >= rule.cooldown), "an on in the cooldown");
            }
            last = Some(event);
        }
    }

    #[test]
    fn scores_that_hover_between_the_thresholds_change_nothing(
        rule in rules(),
        hovering in prop::collection::vec(0.0f32..1.0, 1..100),
        on in any::<bool>(),
    ) {
        let between = |share: f32| (rule.off + share * (rule.on - rule.off)).min(rule.on - f32::EPSILON).max(rule.off.min(rule.on - f32::EPSILON));
        let rule = RulePlan { armed: true, ..rule };
        prop_assume!(rule.off < rule.on - f32::EPSILON);
        let before = if on { rule.window as usize } else { 0 };
        let scores = std::iter::repeat_n(0.9, before).chain(hovering.into_iter().map(between));
        let steps: Vec<_> = scores.map(|p| (100, Step::Frame(0, p))).collect();
        prop_assert_eq!(run(&rule, &steps).len(), usize::from(on));
    }
}
