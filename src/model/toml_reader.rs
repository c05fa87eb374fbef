//! Reading a TOML file key by key, collecting every problem with its line.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::{Problem, Problems};

/// The file and what was found wrong in it.
pub(super) struct Reader<'a> {
    file: PathBuf,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &Path, text: &'a str) -> Reader<'a> {
        Reader { file: file.into(), text, problems: Vec::new() }
    }

    /// The file as a table; `None`, and a problem, when it is no TOML.
    pub(super) fn root(&mut self) -> Option<Table<'a>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(Table { path: String::new(), start: 0, entries: table.into_inner() }),
            Err(error) => {
                let start = error.span().map_or(0, |s| s.start);
                self.push(start, String::new(), error.message().to_string(), "correct the TOML".into());
                None
            }
        }
    }

    /// Records a problem with a value.
    pub(super) fn problem(&mut self, value: &Value, problem: impl Into<String>, remedy: impl Into<String>) {
        self.push(value.start, value.key.clone(), problem.into(), remedy.into());
    }

    /// Everything that was recorded, or nothing.
    pub(super) fn finish(mut self) -> Result<(), Problems> {
        self.problems.sort_by_key(|p| p.line);
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }

    fn push(&mut self, start: usize, key: String, problem: String, remedy: String) {
        let before = &self.text.as_bytes()[..start.min(self.text.len())];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        self.problems.push(Problem { file: self.file.clone(), line, key, problem, remedy });
    }
}

/// A table whose keys are taken out one by one.
pub(super) struct Table<'a> {
    path: String,
    start: usize,
    entries: DeTable<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn optional(&mut self, key: &str) -> Option<Value<'a>> {
        let found = self.entries.remove(key)?;
        let start = found.span().start;
        Some(Value { key: self.dotted(key), start, value: found.into_inner() })
    }

    pub(super) fn required(&mut self, reader: &mut Reader, key: &str, remedy: &str) -> Option<Value<'a>> {
        let found = self.optional(key);
        if found.is_none() {
            reader.push(self.start, self.dotted(key), "is missing".into(), remedy.into());
        }
        found
    }

    /// What is left is unknown.
    pub(super) fn nothing_else(self, reader: &mut Reader, known: &[&str]) {
        for key in self.entries.keys() {
            let name: &DeString = key.get_ref();
            let remedy = format!("known here are {}", known.join(", "));
            reader.push(key.span().start, self.dotted(name), "is not a key of a manifest".into(), remedy);
        }
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

/// A value, its dotted key and where it stands.
pub(super) struct Value<'a> {
    key: String,
    start: usize,
    value: DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    pub(super) fn table(self, reader: &mut Reader) -> Option<Table<'a>> {
        if let DeValue::Table(entries) = self.value {
            return Some(Table { path: self.key, start: self.start, entries });
        }
        self.wrong::<()>(reader, "a table");
        None
    }

    pub(super) fn text(&self, reader: &mut Reader) -> Option<String> {
        match &self.value {
            DeValue::String(text) if !text.trim().is_empty() => Some(text.to_string()),
            _ => self.wrong(reader, "a text in quotes"),
        }
    }

    pub(super) fn integer(&self, reader: &mut Reader) -> Option<i64> {
        as_integer(&self.value).or_else(|| self.wrong(reader, "a whole number"))
    }

    pub(super) fn float(&self, reader: &mut Reader) -> Option<f32> {
        as_float(&self.value).or_else(|| self.wrong(reader, "a finite number"))
    }

    pub(super) fn integers<const N: usize>(&self, reader: &mut Reader) -> Option<[i64; N]> {
        self.array(as_integer).or_else(|| self.wrong(reader, &format!("an array of {N} whole numbers")))
    }

    pub(super) fn floats<const N: usize>(&self, reader: &mut Reader) -> Option<[f32; N]> {
        self.array(as_float).or_else(|| self.wrong(reader, &format!("an array of {N} finite numbers")))
    }

    pub(super) fn one_of<T: Copy>(&self, reader: &mut Reader, choices: &[(&str, T)]) -> Option<T> {
        let found = match &self.value {
            DeValue::String(text) => choices.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)),
            _ => None,
        };
        let names = || choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
        found.map(|(_, choice)| *choice).or_else(|| self.wrong(reader, &names()))
    }

    fn array<T, const N: usize>(&self, element: impl Fn(&DeValue) -> Option<T>) -> Option<[T; N]> {
        let DeValue::Array(array) = &self.value else { return None };
        let values: Option<Vec<T>> = array.iter().map(|v: &Spanned<DeValue>| element(v.get_ref())).collect();
        values?.try_into().ok()
    }

    fn wrong<T>(&self, reader: &mut Reader, wanted: &str) -> Option<T> {
        reader.problem(self, "has another form than it must have", format!("write {wanted}"));
        None
    }
}

fn as_integer(value: &DeValue) -> Option<i64> {
    match value {
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok(),
        _ => None,
    }
}

fn as_float(value: &DeValue) -> Option<f32> {
    let float = match value {
        DeValue::Float(f) => f.as_str().parse::<f32>().ok()?,
        _ => as_integer(value)? as f32,
    };
    float.is_finite().then_some(float)
}
