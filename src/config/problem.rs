//! What is wrong with a configuration: every problem, where it is, and what to write instead.

use std::path::{Path, PathBuf};

/// How many problems are kept; a file of line noise would otherwise give one per line.
const KEPT: usize = 200;

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The key by its path, such as `rule[2].on`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// Every problem of one file, in the order of its lines; never empty when it is handed out as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Problems {
    /// The file.
    pub file: PathBuf,
    /// The first of them.
    pub list: Vec<Problem>,
    /// How many more there are than `list` holds.
    pub more: usize,
}

impl Problems {
    /// No problem yet in `file`.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), list: Vec::new(), more: 0 }
    }

    /// Adds one.
    pub fn push(&mut self, line: usize, key: impl Into<String>, message: impl Into<String>) {
        if self.list.len() < KEPT {
            self.list.push(Problem { line, key: key.into(), message: message.into() });
        } else {
            self.more += 1;
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }
}

/// A line a problem: `garden.toml:12: rule[0].off: 0.7 is above on = 0.6; …`.
impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let (end, colon) = (if index == 0 { "" } else { "\n" }, if problem.key.is_empty() { "" } else { ": " });
            write!(f, "{end}{}:{}: {}{colon}{}", self.file.display(), problem.line, problem.key, problem.message)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more problems", self.file.display()),
        }
    }
}

impl std::error::Error for Problems {}
