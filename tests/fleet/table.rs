//! The table that is printed, and by which the fleet passes or fails.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::time::Duration;

use super::member::Cost;

pub(crate) struct Table {
    size: usize,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    value: String,
    bar: String,
    good: bool,
}

/// As the table shows it.
pub(crate) trait Figure {
    fn shown(&self) -> String;
}

impl Figure for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Figure for f64 {
    fn shown(&self) -> String {
        format!("{self:.1}")
    }
}

impl Figure for Duration {
    fn shown(&self) -> String {
        format!("{:.1} s", self.as_secs_f64())
    }
}

impl Table {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, rows: Vec::new() }
    }

    fn row(&mut self, what: &str, value: impl Display, bar: impl Display, good: bool) {
        self.rows.push(Row { what: what.into(), value: value.to_string(), bar: bar.to_string(), good });
    }

    /// A figure without a bar.
    pub(crate) fn note(&mut self, what: &str, value: impl Figure) {
        self.row(what, value.shown(), "", true);
    }

    pub(crate) fn at_most<F: Figure + PartialOrd>(&mut self, what: &str, value: F, bar: F) {
        self.row(what, value.shown(), format!("at most {}", bar.shown()), value <= bar);
    }

    pub(crate) fn exactly<F: Figure + PartialEq>(&mut self, what: &str, value: F, bar: F) {
        self.row(what, value.shown(), bar.shown(), value == bar);
    }

    pub(crate) fn costs(&mut self, costs: &[Cost]) {
        let worst = |of: fn(&Cost) -> u64| costs.iter().map(of).max().unwrap_or(0);
        let mebibytes = |kibibytes: u64| format!("{:.1} MiB", kibibytes as f64 / 1024.0);
        self.row("a daemon: resident memory, the largest", mebibytes(worst(|cost| cost.resident)), "", true);
        self.row("a daemon: its share of the memory, the largest", mebibytes(worst(|cost| cost.share)), "", true);
        self.row("a daemon: threads, the most", worst(|cost| cost.threads), "", true);
    }

    /// `sent`: the ids by board, as its rules made them; `received`: all of them as they came.
    pub(crate) fn delivery(&mut self, sent: &[Vec<String>], received: &[String]) {
        // When each first came: a repetition at QoS 1 is no disorder.
        let mut first = HashMap::new();
        for (place, id) in received.iter().enumerate() {
            first.entry(id.as_str()).or_insert(place);
        }
        let all: HashSet<&str> = sent.iter().flatten().map(String::as_str).collect();
        let lost = all.iter().filter(|id| !first.contains_key(*id)).count();
        let strange = first.keys().filter(|id| !all.contains(*id)).count();
        let places =
            |ids: &Vec<String>| ids.iter().filter_map(|id| first.get(id.as_str()).copied()).collect::<Vec<_>>();
        let disordered = sent.iter().filter(|ids| !places(ids).is_sorted()).count();
        self.note("events that the rules made", all.len());
        self.note("events that a client received", first.len());
        self.exactly("events lost", lost, 0);
        self.exactly("events that no rule made", strange, 0);
        self.exactly("boards whose events came out of order", disordered, 0);
        self.note("events that came again (QoS 1; the same id)", received.len() - first.len());
    }

    /// Prints it, and fails where a bar is missed.
    #[track_caller]
    pub(crate) fn assert(self) {
        println!("\n{} boards at one broker", self.size);
        println!("{:<52} {:>10}  {:<14}", "", "", "bar");
        for Row { what, value, bar, good } in &self.rows {
            let verdict = if bar.is_empty() {
                ""
            } else if *good {
                "ok"
            } else {
                "MISSED"
            };
            println!("{what:<52} {value:>10}  {bar:<14} {verdict}");
        }
        let missed: Vec<_> = self.rows.iter().filter(|row| !row.good).map(|row| &row.what).collect();
        assert!(missed.is_empty(), "missed: {missed:?}");
    }
}
