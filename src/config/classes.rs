//! Lists of classes: of a rule, and of `[group.NAME]`.

use std::sync::Arc;

use toml::de::DeValue;

use super::keys::Section;
use super::plan::GroupPlan;
use super::reader::Table;
use super::similar::nearest;
use super::values;

/// What a group's name follows in a rule's classes. A label that begins with it is written `[@]label`, as a glob.
pub(crate) const GROUP_MARK: char = '@';

/// The list under `key`: labels, indices, globs, and the names of `groups`.
pub(super) fn read(table: &Table<'_>, key: &str, groups: &[String]) -> Vec<String> {
    let classes = table.list(key, |table, value| match value {
        DeValue::Integer(number) => match values::integer(number) {
            Some(index @ 0..) => Ok(index.to_string()),
            _ => Err(format!("{number} is no index of a class; they begin at 0")),
        },
        DeValue::String(text) if text.is_empty() => Err("is empty; write a label, an index or a glob".into()),
        DeValue::String(text) => table.expand(text),
        other => Err(format!("is {}, and must be a label in quotes or an index", values::with_article(other))),
    });
    let classes = classes.unwrap_or_default();
    for (position, class) in &classes {
        if let Some(problem) = class.strip_prefix(GROUP_MARK).and_then(|name| unknown_group(name, groups)) {
            table.problem_in(key, *position, problem);
        }
    }
    classes.into_iter().map(|(_, class)| class).collect()
}

/// As [`read`], of a key that must name something.
pub(super) fn require(table: &Table<'_>, key: &str, groups: &[String]) -> Vec<String> {
    table.require(key);
    if table.is_empty_list(key) {
        table.problem(key, "has no class; write labels, indices or globs, or [\"*\"] for all");
    }
    read(table, key, groups)
}

/// Reads the group called `name`.
pub(super) fn read_group(groups: &Table<'_>, name: &str) -> Option<GroupPlan> {
    if let Err(problem) = values::name(name) {
        groups.problem(name, problem);
    }
    let table = groups.table(name, Section::Group)?;
    let classes = require(&table, "classes", &[]);
    Some(GroupPlan { name: Arc::from(name), classes })
}

fn unknown_group(name: &str, groups: &[String]) -> Option<String> {
    if groups.iter().any(|group| group == name) {
        return None;
    }
    Some(match nearest(name, groups.iter().map(String::as_str)) {
        Some(near) => format!("there is no group {name:?}; did you mean \"{GROUP_MARK}{near}\"?"),
        None if groups.is_empty() => format!(
            "there is no group {name:?} to name here; add `[group.{}]` (groups hold no groups), or write \"[@]…\" for a label",
            values::quoted_key(name)
        ),
        None => {
            format!("there is no group {name:?}; there are {}", values::enumerate(groups.iter().map(String::as_str)))
        }
    })
}
