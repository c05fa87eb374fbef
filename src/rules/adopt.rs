//! From one configuration to the next: what is the same goes on as it stands, the rest turns off visibly.

use super::station::StationSet;
use super::{Event, Input, OffReason, Rule, RuleSet, View};
use crate::clock::Monotonic;
use crate::rules::Change;

/// What two configurations have in common, by name.
pub struct Common<'a> {
    /// The section of the rule or station is the same.
    pub section: &'a dyn Fn(&str) -> bool,
    /// The camera is the same.
    pub camera: &'a dyn Fn(&str) -> bool,
}

impl RuleSet {
    /// Goes on where `old` stands, for each rule whose section, classes (by label) and cameras are the same: its windows, its hold and
    /// cooldown, whether it is on and armed. Gives the [`OffReason::Reloaded`] of every other rule of `old` that was on.
    pub fn take_over(&mut self, mut old: RuleSet, common: &Common<'_>, now: Monotonic) -> Vec<Event> {
        self.wall = old.wall;
        for camera in self.cameras.iter_mut().filter(|camera| (common.camera)(&camera.name)) {
            if let Some(known) = old.cameras.iter().find(|known| known.name == camera.name) {
                (camera.heard, camera.stale) = (known.heard, known.stale);
            }
        }
        let mut events = Vec::new();
        for place in 0..old.rules.len() {
            let same = self.rules.iter().position(|own| is_same((self, own), (&old, &old.rules[place]), common));
            match same {
                Some(own) => self.rules[own].adopt(&old.rules[place], &self.views, &old.views),
                None => {
                    let close = Input::Close { reason: OffReason::Reloaded };
                    events.extend(old.rules[place].step(close, now, &old.views, &old.labels));
                }
            }
        }
        events
    }

    /// An `On` of each rule that is on, for those who come later and show states; and whether it has escalated.
    pub fn standing(&self, now: Monotonic) -> Vec<(Event, bool)> {
        let on = self.rules.iter().filter(|rule| rule.state.on);
        let event = |rule: &Rule| {
            let slot = rule.state.views.iter().position(|view| view.on)?;
            let event = rule.event(slot, Change::On, now, &self.views, &self.labels)?;
            // As of now: the time since the frame that turned the rule on is no latency of whoever comes later.
            Some((Event { captured: now, ..event }, rule.state.escalated))
        };
        on.filter_map(event).collect()
    }
}

/// Whether a rule of one set is what a rule of the other is.
fn is_same((set, own): (&RuleSet, &Rule), (old_set, old): (&RuleSet, &Rule), common: &Common<'_>) -> bool {
    let views =
        |set: &RuleSet, rule: &Rule| rule.views.iter().map(|&view| set.views[view].clone()).collect::<Vec<View>>();
    let (own_views, old_views) = (views(set, own), views(old_set, old));
    let same_views = own_views.len() == old_views.len()
        && own_views.iter().all(|view| old_views.contains(view) && (common.camera)(&view.camera));
    let same_classes = own.classes.len() == old.classes.len()
        && std::iter::zip(&own.classes, &old.classes).all(|(&a, &b)| set.labels.get(a) == old_set.labels.get(b));
    own.name == old.name && (common.section)(&own.name) && same_views && same_classes
}

impl Rule {
    /// Takes the state of the same rule of another set, whose cameras and classes may have other numbers.
    fn adopt(&mut self, old: &Rule, views: &[View], old_views: &[View]) {
        let mut state = old.state.clone();
        for (slot, &view) in self.views.iter().enumerate() {
            let Some(was) = old.views.iter().position(|&was| old_views[was] == views[view]) else { continue };
            state.views[slot] = old.state.views[was].clone();
            self.last[slot] = old.last[was].clone();
            if let Some(sample) = &mut self.last[slot]
                && let Some(place) = old.classes.iter().position(|&class| class == sample.class)
            {
                sample.class = self.classes[place];
            }
        }
        self.state = state;
        self.gate = old.gate.clone();
    }
}

impl StationSet {
    /// Goes on with the requests of `old`, for each station whose section, classes (by label) and camera are the same. Gives the faults of
    /// all other requests that wait: each gets its one verdict.
    pub fn take_over(&mut self, old: StationSet, common: &Common<'_>, now: Monotonic) -> Vec<Event> {
        let names = |labels: &[std::sync::Arc<str>], classes: &[usize]| {
            classes.iter().map(|&class| labels.get(class).cloned()).collect::<Vec<_>>()
        };
        let mut events = Vec::new();
        for mut station in old.stations {
            let same = self.stations.iter_mut().find(|own| {
                own.name == station.name
                    && (common.section)(&own.name)
                    && (common.camera)(&own.view.camera)
                    && own.view == station.view
                    && names(&self.labels, &own.classes) == names(&old.labels, &station.classes)
            });
            match same {
                Some(own) => own.requests = station.requests,
                None => events.extend(station.give_up(now)),
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::{self, Plan};
    use crate::rules::station::Request;
    use crate::rules::{Observation, Outcome, compile};

    const LABELS: [&str; 3] = ["cat", "dog", "cup"];

    fn plan(extra: &str) -> Plan {
        let text = format!("[model]\npath = \"m\"\n[[camera]]\nname = \"a\"\ndevice = \"x\"\n{extra}");
        config::parse(&text, Path::new("f.toml"), &|_| None).unwrap()
    }

    const CAT: &str =
        "[[rule]]\nname = \"cat\"\nclasses = [\"cat\"]\nhits = 2\nwindow = 3\ncooldown = \"10s\"\nactions = []\n";
    const DOG: &str = "[[rule]]\nname = \"dog\"\nclasses = [\"dog\"]\nactions = []\n";
    const STATION: &str =
        "[[station]]\nname = \"gate\"\ncamera = \"a\"\nclasses = [\"cup\"]\npass = []\nfail = []\nfault = []\n";
    const OTHER_CAMERA: &str = "[[camera]]\nname = \"b\"\ndevice = \"y\"\n";

    fn at(ms: u64) -> Monotonic {
        Monotonic::default() + Duration::from_millis(ms)
    }

    fn seen(probabilities: [f32; 3], ms: u64) -> Observation {
        let (camera, captured) = (Arc::from("a"), at(ms));
        let probabilities = Arc::from(probabilities);
        Observation { camera, region: None, captured, sequence: ms, origin: None, probabilities }
    }

    /// Lets rules that are on by two frames be taken over, and gives the names of the events and which rules are on.
    fn check(old: &str, new: &str, labels: &[&str], camera: bool) -> (Vec<(String, Change)>, Vec<String>) {
        let (old_plan, new_plan) = (plan(old), plan(new));
        let mut rules = compile(&old_plan, &LABELS).unwrap();
        for ms in [10, 20] {
            rules.observe(&seen([0.9, 0.8, 0.0], ms), at(ms));
        }
        let mut next = compile(&new_plan, labels).unwrap();
        let of = |plan: &Plan, name: &str| plan.rules.iter().find(|rule| *rule.name == *name).cloned();
        let section = |name: &str| of(&old_plan, name) == of(&new_plan, name);
        let events = next.take_over(rules, &Common { section: &section, camera: &|_| camera }, at(30));
        let events = events.into_iter().map(|event| (event.rule.to_string(), event.change)).collect();
        let standing = next.standing(at(30));
        assert!(standing.iter().all(|(event, _)| event.label == event.rule), "{standing:?}");
        (events, standing.into_iter().map(|(event, _)| event.rule.to_string()).collect())
    }

    #[test]
    fn what_is_the_same_goes_on_and_the_rest_turns_off() {
        let off = |name: &str| (name.to_owned(), Change::Off(OffReason::Reloaded));
        let both = format!("{CAT}{DOG}");
        // Order, another rule and another order of the classes change nothing.
        let (events, on) = check(&both, &format!("{DOG}{CAT}"), &["cup", "dog", "cat"], true);
        assert_eq!((events, on), (vec![], vec!["dog".to_owned(), "cat".to_owned()]));
        let (events, on) = check(&both, CAT, &LABELS, true);
        assert_eq!((events, on), (vec![off("dog")], vec!["cat".to_owned()]));
        let changed = both.replace("hits = 2", "hits = 1");
        let (events, on) = check(&both, &changed, &LABELS, true);
        assert_eq!((events, on), (vec![off("cat")], vec!["dog".to_owned()]));
        // A changed camera, and a rule of all cameras where there is one more.
        for (new, camera) in [(both.clone(), false), (format!("{OTHER_CAMERA}{both}"), true)] {
            let (events, on) = check(&both, &new, &LABELS, camera);
            assert_eq!((events, on), (vec![off("cat"), off("dog")], vec![]));
        }
    }

    #[test]
    fn window_and_cooldown_are_kept() {
        let plan = plan(CAT);
        let common = Common { section: &|_| true, camera: &|_| true };
        let mut rules = compile(&plan, &LABELS).unwrap();
        assert_eq!(rules.observe(&seen([0.9, 0.0, 0.0], 10), at(10)), []);
        let mut next = compile(&plan, &LABELS).unwrap();
        assert_eq!(next.take_over(rules, &common, at(15)), []);
        let events = next.observe(&seen([0.9, 0.0, 0.0], 20), at(20));
        assert_eq!(events.len(), 1, "the first hit was before the reload");
        let status = next.state("cat").unwrap();
        let mut third = compile(&plan, &LABELS).unwrap();
        third.take_over(next, &common, at(30));
        assert_eq!(third.state("cat").unwrap(), status);
        assert_eq!(status.cooldown_end, Some(at(10_020)));
    }

    #[test]
    fn every_request_of_a_station_gets_its_verdict() {
        let plan = plan(STATION);
        for same in [true, false] {
            let common = Common { section: &|_| same, camera: &|_| true };
            let mut old = StationSet::compile(&plan, &LABELS).unwrap();
            for ms in [10, 20] {
                assert_eq!(old.ask("gate", Request { part: None, asked: at(ms) }, at(ms)), Some(vec![]));
            }
            let mut next = StationSet::compile(&plan, &LABELS).unwrap();
            let faults = next.take_over(old, &common, at(30));
            let judged = next.observe(&seen([0.0, 0.0, 0.9], 5000), at(40));
            let outcomes =
                |events: &[Event]| events.iter().map(|it| it.verdict.as_ref().unwrap().outcome).collect::<Vec<_>>();
            let (faults, judged) = (outcomes(&faults), outcomes(&judged));
            match same {
                true => assert_eq!((faults.len(), judged), (0, vec![Outcome::Pass; 2])),
                false => assert_eq!((faults, judged.len()), (vec![Outcome::TimedOut; 2], 0)),
            }
        }
    }
}
