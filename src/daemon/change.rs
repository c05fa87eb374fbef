//! What two configurations have in common. Pure.

use std::fmt::Display;
use std::sync::Arc;

use crate::config::Plan;
use crate::config::plan::{ArmedBy, InputPlan};

/// From the configuration in force to the next one.
pub(super) struct Change<'a> {
    pub(super) old: &'a Plan,
    pub(super) new: &'a Plan,
}

impl Change<'_> {
    /// The camera of this name is in both, and the same.
    pub(super) fn keeps_camera(&self, name: &str) -> bool {
        let of = |plan: &Plan| plan.cameras.iter().find(|it| *it.name == *name).cloned();
        of(self.old).is_some_and(|old| Some(old) == of(self.new))
    }

    /// The rule or station of this name is in both, and its section the same. (Their names differ.)
    pub(super) fn keeps_section(&self, name: &str) -> bool {
        let rule = |plan: &Plan| plan.rules.iter().find(|it| *it.name == *name).cloned();
        let station = |plan: &Plan| plan.stations.iter().find(|it| *it.name == *name).cloned();
        let (old, new) = ((rule(self.old), station(self.old)), (rule(self.new), station(self.new)));
        old == new && old != (None, None)
    }

    /// The action of this name is in both, and the same.
    pub(super) fn keeps_action(&self, name: &str) -> bool {
        let of = |plan: &Plan| plan.actions.iter().find(|it| *it.name == *name).cloned();
        of(self.old).is_some_and(|old| Some(old) == of(self.new))
    }

    /// The lines that are listened to are the same, and so is who listens.
    pub(super) fn keeps_inputs(&self) -> bool {
        listening(self.old) == listening(self.new)
    }

    /// Sections that have changed and are only read at the start.
    pub(super) fn needs_restart(&self) -> Vec<&'static str> {
        let sections = [
            ("name in [device]", self.old.device != self.new.device),
            ("the lines in [device]", self.old.lines != self.new.lines),
            ("[device.thermal]", self.old.thermal != self.new.thermal),
            ("[page]", self.old.page != self.new.page),
        ];
        sections.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
    }

    /// What is new, changed and gone, for the log; empty if nothing is.
    pub(super) fn describe(&self) -> String {
        let (old, new) = (self.old, self.new);
        let mut parts = Vec::new();
        if old.model != new.model {
            parts.push("model changed".to_owned());
        }
        compare(&mut parts, "camera", named(&old.cameras, |it| &it.name), named(&new.cameras, |it| &it.name));
        compare(&mut parts, "rule", named(&old.rules, |it| &it.name), named(&new.rules, |it| &it.name));
        compare(&mut parts, "group", named(&old.groups, |it| &it.name), named(&new.groups, |it| &it.name));
        compare(&mut parts, "station", named(&old.stations, |it| &it.name), named(&new.stations, |it| &it.name));
        compare(&mut parts, "input", named(&old.inputs, |it| &it.name), named(&new.inputs, |it| &it.name));
        compare(&mut parts, "action", named(&old.actions, |it| &it.name), named(&new.actions, |it| &it.name));
        parts.join(", ")
    }
}

/// Items with their names.
type Named<'a, T> = Vec<(&'a Arc<str>, &'a T)>;

fn named<T>(items: &[T], name: impl Fn(&T) -> &Arc<str>) -> Named<'_, T> {
    items.iter().map(|item| (name(item), item)).collect()
}

fn compare<T: PartialEq>(parts: &mut Vec<String>, kind: impl Display, old: Named<'_, T>, new: Named<'_, T>) {
    for (name, item) in &new {
        match old.iter().find(|(other, _)| other == name) {
            None => parts.push(format!("{kind} {name} new")),
            Some((_, other)) if other != item => parts.push(format!("{kind} {name} changed")),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(name, _)| !new.iter().any(|(other, _)| other == name));
    parts.extend(gone.map(|(name, _)| format!("{kind} {name} gone")));
}

/// Every line that is listened to, and by which stations and rules.
type Listening<'a> = (&'a [InputPlan], Vec<(&'a str, &'a str)>, Vec<(&'a str, &'a ArmedBy)>);

fn listening(plan: &Plan) -> Listening<'_> {
    let stations = plan.stations.iter().filter_map(|it| Some((&*it.name, it.trigger.as_deref()?))).collect();
    let lines = plan.rules.iter().filter_map(|rule| match &rule.armed_by {
        Some(line @ ArmedBy::Gpio(_)) => Some((&*rule.name, line)),
        _ => None,
    });
    (&plan.inputs, stations, lines.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BASE: &str = r#"
        [device]
        name = "garden"
        [model]
        path = "m.onnx"
        [[camera]]
        name = "feeder"
        device = "/dev/video0"
        [[rule]]
        name = "cat"
        classes = ["cat"]
        actions = ["pin"]
        [[station]]
        name = "gate"
        camera = "feeder"
        trigger = "barrier"
        classes = ["cup"]
        pass = ["pulse"]
        fail = []
        fault = []
        [input.barrier]
        backend = "simulated"
        line = 3
        [action.pin]
        type = "gpio"
        backend = "simulated"
        line = 1
        [action.pulse]
        type = "gpio"
        backend = "simulated"
        mode = "pulse"
        line = 2
    "#;

    fn plan(text: &str) -> Plan {
        crate::config::parse(text, Path::new("f.toml"), &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// What replacing `from` by `to` changes, in words, and whether camera, rule, station, pin and inputs are kept.
    fn check(from: &str, to: &str, words: &str, kept: [bool; 5]) {
        assert!(BASE.contains(from), "{from}");
        let (old, new) = (plan(BASE), plan(&BASE.replacen(from, to, 1)));
        let change = Change { old: &old, new: &new };
        assert_eq!(change.describe(), words, "{from} → {to}");
        let found = [
            change.keeps_camera("feeder"),
            change.keeps_section("cat"),
            change.keeps_section("gate"),
            change.keeps_action("pin"),
            change.keeps_inputs(),
        ];
        assert_eq!(found, kept, "{from} → {to}");
        assert!(!change.keeps_camera("nobody") && !change.keeps_section("nobody") && !change.keeps_action("nobody"));
    }

    #[test]
    fn a_table_of_changes() {
        let all = [true; 5];
        check("cat", "cat", "", all);
        check("m.onnx", "n.onnx", "model changed", all);
        check("/dev/video0", "/dev/video1", "camera feeder changed", [false, true, true, true, true]);
        check("name = \"cat\"", "name = \"dog\"", "rule dog new, rule cat gone", [true, false, true, true, true]);
        check("classes = [\"cup\"]", "classes = [\"mug\"]", "station gate changed", [true, true, false, true, true]);
        check("line = 1\n", "line = 7\n", "action pin changed", [true, true, true, false, true]);
        check("line = 3", "line = 4", "input barrier changed", [true, true, true, true, false]);
        let armed = "name = \"cat\"\narmed_by = { line = 9, chip = \"c\" }";
        check("name = \"cat\"", armed, "rule cat changed", [true, false, true, true, false]);
        check("[[rule]]", "[group.pets]\nclasses = [\"cat\"]\n[[rule]]", "group pets new", all);
    }

    #[test]
    fn what_is_read_at_the_start_alone_is_told() {
        let old = plan(BASE);
        for (from, to, sections) in [
            ("name = \"garden\"", "name = \"yard\"", vec!["name in [device]"]),
            (
                "name = \"garden\"",
                "name = \"garden\"\nready = { backend = \"simulated\", line = 9 }",
                vec!["the lines in [device]"],
            ),
            ("[model]", "[page]\n[model]", vec!["[page]"]),
            ("[model]", "[model]", vec![]),
        ] {
            let new = plan(&BASE.replacen(from, to, 1));
            assert_eq!(Change { old: &old, new: &new }.needs_restart(), sections, "{to}");
        }
    }
}
