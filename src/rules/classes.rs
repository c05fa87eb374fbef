//! Which of a model's classes a pattern of a configuration means.

use std::collections::HashMap;
use std::sync::Arc;

use globset::GlobBuilder;

use super::RuleProblem;
use crate::config::GROUP_MARK;
use crate::config::plan::GroupPlan;
use crate::config::similar::nearest;

/// How many near misses an error shows.
const SHOWN: usize = 3;

/// The groups of a plan, resolved against a model's labels.
pub(super) struct Groups<'a, L> {
    labels: &'a [L],
    classes: HashMap<Arc<str>, Vec<usize>>,
}

impl<'a, L: AsRef<str>> Groups<'a, L> {
    /// Resolves every pattern of every group; those that fail are problems of the group, told once however many rules use it.
    pub(super) fn resolve(groups: &[GroupPlan], labels: &'a [L], problems: &mut Vec<RuleProblem>) -> Self {
        let mut resolved = Self { labels, classes: HashMap::new() };
        for group in groups {
            let found = resolved.union("classes", &group.classes, &mut |key, problem| {
                let key = format!("group.{}.{key}", group.name);
                problems.push(RuleProblem { kind: "group", name: group.name.clone(), key, problem });
            });
            resolved.classes.insert(group.name.clone(), found);
        }
        resolved
    }

    /// The classes of all `patterns`, ascending, each once; `report` is told the place and the problem of those that mean
    /// nothing.
    pub(super) fn union(&self, key: &str, patterns: &[String], report: &mut dyn FnMut(String, String)) -> Vec<usize> {
        let mut classes = Vec::new();
        for (position, pattern) in patterns.iter().enumerate() {
            match pattern.strip_prefix(GROUP_MARK).and_then(|name| self.classes.get(name)) {
                Some(group) => classes.extend(group),
                None => match resolve(pattern, self.labels) {
                    Ok(found) => classes.extend(found),
                    Err(problem) => report(format!("{key}[{position}]"), problem),
                },
            }
        }
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

/// The indices that `pattern` means among `labels`, ascending, never empty. Tried in this order, each without regard to
/// case: a whole label; an index; a glob over whole labels (`*cat*`, `{cup,mug}`, `[a-c]*`).
///
/// A label comes before an index because a label may be a number, and before a glob because a label may hold brackets.
///
/// # Errors
/// What is wrong with the pattern, and what to write instead.
pub(crate) fn resolve<L: AsRef<str>>(pattern: &str, labels: &[L]) -> Result<Vec<usize>, String> {
    let exact = matching(labels, |label| label.to_lowercase() == pattern.to_lowercase());
    if !exact.is_empty() {
        return Ok(exact);
    }
    if !pattern.is_empty() && pattern.bytes().all(|byte| byte.is_ascii_digit()) {
        return by_index(pattern, labels.len());
    }
    let found = by_glob(pattern, labels)
        .map_err(|error| format!("{pattern:?} is no label, and as a pattern it does not parse: {error}"))?;
    if found.is_empty() { Err(unknown(pattern, labels)) } else { Ok(found) }
}

fn matching<L: AsRef<str>>(labels: &[L], wanted: impl Fn(&str) -> bool) -> Vec<usize> {
    (0..labels.len()).filter(|&index| wanted(labels[index].as_ref())).collect()
}

fn by_index(pattern: &str, classes: usize) -> Result<Vec<usize>, String> {
    match pattern.parse::<usize>() {
        Ok(index) if index < classes => Ok(vec![index]),
        _ if classes == 0 => Err(format!("class {pattern} does not exist: the model has no classes")),
        _ => Err(format!("class {pattern} does not exist: the model has {classes} classes, 0 to {}", classes - 1)),
    }
}

fn by_glob<L: AsRef<str>>(pattern: &str, labels: &[L]) -> Result<Vec<usize>, globset::Error> {
    let glob = GlobBuilder::new(pattern).case_insensitive(true).build()?.compile_matcher();
    Ok(matching(labels, |label| glob.is_match(label)))
}

/// An error that helps: labels that hold the word, else the nearest label, else where the labels are listed.
fn unknown<L: AsRef<str>>(pattern: &str, labels: &[L]) -> String {
    let word = pattern.trim_matches('*').to_lowercase();
    let holding = matching(labels, |label| !word.is_empty() && label.to_lowercase().contains(&word));
    if !holding.is_empty() {
        let shown: Vec<_> = holding.iter().take(SHOWN).map(|&index| format!("{:?}", labels[index].as_ref())).collect();
        let more = if holding.len() > SHOWN { ", …" } else { "" };
        return format!(
            "no class is called {pattern:?}; {} hold{} it: {}{more}; write the whole label, or \"*{word}*\" for all of them",
            count(holding.len()),
            if holding.len() == 1 { "s" } else { "" },
            shown.join(", "),
        );
    }
    match nearest(pattern, labels.iter().map(AsRef::as_ref)) {
        Some(label) => format!("no class is called {pattern:?}; did you mean {label:?}?"),
        None => format!(
            "no class is called {pattern:?} among the model's {}; its labels file lists them",
            count(labels.len()).trim_end_matches(" classes")
        ),
    }
}

fn count(labels: usize) -> String {
    if labels == 1 { "1 label".into() } else { format!("{labels} labels") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 7] = ["wild_cat", "Tabby cat", "7", "cup [blue]", "dalmatian", "catamaran", "lamp"];

    #[test]
    fn labels_indices_and_globs() {
        for (pattern, expected) in [
            ("wild_cat", vec![0]),
            ("WILD_cat", vec![0]),
            ("0", vec![0]),
            ("007", vec![]),
            ("7", vec![2]),
            ("*cat*", vec![0, 1, 5]),
            ("*CAT", vec![0, 1]),
            ("{lamp,dalm*}", vec![4, 6]),
            ("cup [blue]", vec![3]),
            ("cup [[]*", vec![3]),
            ("*", vec![0, 1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!(resolve(pattern, &LABELS).unwrap_or_default(), expected, "{pattern}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (pattern, expected) in [
            ("cat", r#"3 labels hold it: "wild_cat", "Tabby cat", "catamaran"; write the whole label, or "*cat*""#),
            ("tabby", r#"1 label holds it: "Tabby cat""#),
            ("dalmation", r#"did you mean "dalmatian"?"#),
            ("zeppelin", "among the model's 7 labels"),
            ("zep*", "among the model's 7 labels"),
            ("", "no class is called \"\""),
            ("700", "the model has 7 classes, 0 to 6"),
            ("99999999999999999999999", "does not exist"),
            ("{lamp", "does not parse"),
        ] {
            let error = resolve(pattern, &LABELS).expect_err(pattern);
            assert!(error.contains(expected), "{pattern}: {error}");
        }
        assert!(resolve::<&str>("0", &[]).expect_err("no classes").contains("no classes"));
    }
}
