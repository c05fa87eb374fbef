//! Reads tables of a TOML document by type, notes every problem with its line and key, and goes on.
//!
//! serde would stop at the first problem. What is read wrongly is `None` here, and a problem is on record; the
//! caller goes on with whatever value, and nothing of it is used in the end.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Section};
use super::problem::Problems;
use super::similar::nearest;
use super::values;

/// The longest list that a key takes.
const LONGEST_LIST: usize = 256;
/// The longest string that a key takes; longer than any path or URL.
const LONGEST_STRING: usize = 4096;

/// The document that tables are read from, and the problems found so far.
pub(super) struct Document<'a> {
    folder: PathBuf,
    variables: &'a dyn Fn(&str) -> Option<String>,
    lines: Lines,
    problems: RefCell<Problems>,
}

/// Where each line starts.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect())
    }

    /// The line, from 1, that byte `offset` lies in, and where in bytes that line starts.
    pub(super) fn line(&self, offset: usize) -> (usize, usize) {
        let line = self.0.partition_point(|&start| start <= offset);
        (line, self.0[line - 1])
    }
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &str, file: &Path, variables: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Self { folder, variables, lines: Lines::of(text), problems: RefCell::new(Problems::new(file)) }
    }

    pub(super) fn into_problems(self) -> Problems {
        let mut problems = self.problems.into_inner();
        problems.list.sort_by_key(|problem| problem.line);
        problems
    }

    fn problem(&self, at: &Range<usize>, key: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(self.lines.line(at.start).0, key, message);
    }
}

/// One table of the document, being read.
pub(super) struct Table<'a> {
    document: &'a Document<'a>,
    table: &'a DeTable<'a>,
    section: Section,
    path: String,
    at: Range<usize>,
}

impl<'a> Table<'a> {
    /// The document's root.
    pub(super) fn root(document: &'a Document<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(document, table.get_ref(), Section::Root, String::new(), table.span())
    }

    /// A table whose keys are those of `section`; others are problems.
    fn new(
        document: &'a Document<'a>,
        table: &'a DeTable<'a>,
        section: Section,
        path: String,
        at: Range<usize>,
    ) -> Self {
        let table = Self { document, table, section, path, at };
        table.report_unknown_keys();
        table
    }

    fn report_unknown_keys(&self) {
        if self.section.is_open() {
            return;
        }
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if keys::find(self.section, name).is_none() {
                self.document.problem(&key.span(), &self.path_of(name), keys::unknown(self.section, name));
            }
        }
    }

    /// The same table with the keys of another section: an action's, once its type is known.
    pub(super) fn of_section(&self, section: Section) -> Self {
        Self::new(self.document, self.table, section, self.path.clone(), self.at.clone())
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            values::quoted_key(key)
        } else {
            format!("{}.{}", self.path, values::quoted_key(key))
        }
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(
            self.section.is_open() || keys::find(self.section, key).is_some(),
            "{key} is missing from the table of keys"
        );
        self.table.get(key)
    }

    /// Whether the table has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether the value is `[]`.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.table.get(key).and_then(|value| value.get_ref().as_array()).is_some_and(|list| list.is_empty())
    }

    /// Every key, in the order of the file.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.table.keys().collect();
        keys.sort_by_key(|key| key.span().start);
        keys.into_iter().map(|key| key.get_ref().to_string()).collect()
    }

    /// Notes a problem of `key`, on its line (or the table's, if the key is absent).
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        let at = self.table.get_key_value(key).map_or(self.at.clone(), |(key, _)| key.span());
        self.document.problem(&at, &self.path_of(key), message);
    }

    /// Notes a problem of the element `index` of the list `key`.
    pub(super) fn problem_in(&self, key: &str, index: usize, message: impl Into<String>) {
        let element = self.table.get(key).and_then(|value| value.get_ref().as_array()).and_then(|list| list.get(index));
        let at = element.map_or(self.at.clone(), Spanned::span);
        self.document.problem(&at, &format!("{}[{index}]", self.path_of(key)), message);
    }

    /// Notes a problem of the table itself.
    pub(super) fn problem_here(&self, message: impl Into<String>) {
        self.document.problem(&self.at, &self.path, message);
    }

    /// Notes that `key` is missing, if it is, and shows an example.
    pub(super) fn require(&self, key: &str) {
        if !self.has(key) {
            let example = keys::find(self.section, key).map_or("…", |key| key.example);
            self.problem(key, format!("is missing; add for instance `{key} = {example}`"));
        }
    }

    fn wrong_type(&self, key: &str, found: &DeValue<'_>) {
        let wanted = keys::find(self.section, key);
        let (kind, example) = wanted.map_or(("another type", "…"), |key| (key.kind, key.example));
        self.problem(
            key,
            format!("is {}, and must be {kind}, such as `{key} = {example}`", values::with_article(found)),
        );
    }

    /// A string, with `${VARIABLES}` filled in.
    pub(super) fn string(&self, key: &str) -> Option<String> {
        let value = self.value(key)?.get_ref();
        let Some(text) = value.as_str() else {
            self.wrong_type(key, value);
            return None;
        };
        self.expand(text).map_err(|problem| self.problem(key, problem)).ok()
    }

    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.document.variables)(name)
    }

    /// Fills in `${VARIABLES}`.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let text = values::expand(text, self.document.variables)?;
        match text.len() {
            0..=LONGEST_STRING if text.contains('\0') => Err("holds a NUL character; remove it".into()),
            0..=LONGEST_STRING => Ok(text),
            length => Err(format!("has {length} bytes; at most {LONGEST_STRING} are allowed")),
        }
    }

    /// A string that is not empty.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let text = self.string(key)?;
        if text.is_empty() {
            self.problem(key, "is empty; write a value, or remove the key");
            return None;
        }
        Some(text)
    }

    /// What `parse` makes of a string; its error is the problem.
    pub(super) fn parsed<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(&self.text(key)?).map_err(|problem| self.problem(key, problem)).ok()
    }

    /// A name: see [`values::name`].
    pub(super) fn name(&self, key: &str) -> Option<String> {
        self.parsed(key, |text| values::name(text).map(|()| text.to_owned()))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| values::choice(text, choices))
    }

    /// A path; a relative one is relative to the configuration's folder.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.document.folder.join(self.text(key)?))
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.parsed(key, |text| values::duration_within(text, &range))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.value(key)?.get_ref();
        value.as_bool().or_else(|| {
            self.wrong_type(key, value);
            None
        })
    }

    /// `true`, and no problem if it is anything else.
    pub(super) fn boolean_quietly(&self, key: &str) -> bool {
        self.value(key).and_then(|value| value.get_ref().as_bool()).unwrap_or(false)
    }

    /// Whether the value is `true` or `false`.
    pub(super) fn is_boolean(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_bool())
    }

    /// Whether the value is a table.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(key)?.get_ref();
        let DeValue::Integer(integer) = value else {
            self.wrong_type(key, value);
            return None;
        };
        let number = values::integer(integer);
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Some(number);
        }
        self.problem(key, format!("{integer} is out of range; write {} to {}", range.start(), range.end()));
        None
    }

    /// A number within `range`.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?.get_ref();
        let Some(number) = values::number(value) else {
            self.wrong_type(key, value);
            return None;
        };
        // Also false for what is not a number.
        if range.contains(&number) {
            return Some(number);
        }
        self.problem(key, format!("{number} is out of range; write {} to {}", range.start(), range.end()));
        None
    }

    /// The elements of a list, each read by `read`; wrong ones are problems and left out. `None` without the key.
    pub(super) fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Self, &'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<Vec<(usize, T)>> {
        let value = self.value(key)?.get_ref();
        let Some(list) = value.as_array() else {
            self.wrong_type(key, value);
            return None;
        };
        if list.len() > LONGEST_LIST {
            self.problem(key, format!("has {} elements; at most {LONGEST_LIST} are allowed", list.len()));
        }
        let mut elements = Vec::new();
        for (index, element) in list.iter().take(LONGEST_LIST).enumerate() {
            match read(self, element.get_ref()) {
                Ok(element) => elements.push((index, element)),
                Err(problem) => self.problem_in(key, index, problem),
            }
        }
        Some(elements)
    }

    /// A list of strings, none empty, none twice.
    pub(super) fn strings(&self, key: &str) -> Option<Vec<(usize, String)>> {
        self.list(key, |table, value| match value.as_str() {
            Some("") => Err("is empty; write a value, or remove it".into()),
            Some(text) => table.expand(text),
            None => Err(format!("is {}, and must be a string in quotes", values::with_article(value))),
        })
    }

    /// A list of strings in which each is one of `known`; `what` says what they are.
    pub(super) fn references(&self, key: &str, what: &str, known: &[String]) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (index, name) in self.strings(key).unwrap_or_default() {
            if !known.contains(&name) {
                let near = nearest(&name, known.iter().map(String::as_str));
                let remedy = match (near, known.is_empty()) {
                    (Some(near), _) => format!("did you mean {near:?}?"),
                    (None, true) => "this file has none with a valid name".into(),
                    (None, false) => format!("there are {}", values::enumerate(known.iter().map(String::as_str))),
                };
                self.problem_in(key, index, format!("there is no {what} {name:?}; {remedy}"));
            } else if found.contains(&name) {
                self.problem_in(key, index, format!("{name:?} is named twice; remove one"));
            }
            found.push(name);
        }
        found
    }

    /// A list of exactly `N` numbers; whether each was written as a whole number.
    pub(super) fn numbers<const N: usize>(&self, key: &str) -> Option<[(f64, bool); N]> {
        let value = self.value(key)?.get_ref();
        let list = value.as_array().filter(|list| list.len() == N)?;
        let mut numbers = [(0.0, false); N];
        for (number, element) in numbers.iter_mut().zip(list.iter()) {
            *number = (values::number(element.get_ref())?, element.get_ref().is_integer());
        }
        Some(numbers)
    }

    /// As [`Table::numbers`], and anything else is a problem.
    pub(super) fn exact_numbers<const N: usize>(&self, key: &str) -> Option<[(f64, bool); N]> {
        let numbers = self.numbers(key);
        if numbers.is_none() {
            let found = self.value(key)?.get_ref();
            match found.as_array() {
                Some(list) if list.len() != N => {
                    self.problem(key, format!("has {} elements, and needs {N}", list.len()))
                }
                Some(_) => self.problem(key, "holds something that is no number"),
                None => self.wrong_type(key, found),
            }
        }
        numbers
    }

    /// The table under `key`.
    pub(super) fn table(&self, key: &str, section: Section) -> Option<Table<'a>> {
        let value = self.value(key)?;
        let at = self.table.get_key_value(key).map_or(value.span(), |(key, _)| key.span());
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value.get_ref());
            return None;
        };
        Some(Table::new(self.document, table, section, self.path_of(key), at))
    }

    /// The table under `key` without a look at its keys; no problem if there is none.
    pub(super) fn table_quietly(&self, key: &str) -> Option<Table<'a>> {
        let (document, table) = (self.document, self.table.get(key)?.get_ref().as_table()?);
        Some(Self { document, table, section: Section::Action, path: String::new(), at: 0..0 })
    }

    /// Whether the value is this string.
    pub(super) fn is_word(&self, key: &str, word: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().as_str() == Some(word))
    }

    /// The tables of the list under `key`, at most `most`.
    pub(super) fn tables(&self, key: &str, section: Section, most: usize) -> Vec<Table<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value.get_ref());
            return Vec::new();
        };
        if list.len() > most {
            self.problem(key, format!("there are {}; at most {most} are allowed", list.len()));
        }
        let mut tables = Vec::new();
        for (index, element) in list.iter().take(most).enumerate() {
            match element.get_ref().as_table() {
                Some(table) => {
                    let path = format!("{}[{index}]", self.path_of(key));
                    tables.push(Table::new(self.document, table, section, path, element.span()));
                }
                None => self.problem_in(key, index, format!("must be a table; begin it with `[[{key}]]`")),
            }
        }
        tables
    }
}
