//! How far a long command is: a line on stderr that is rewritten on a terminal, and a line every ten seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where the output is no terminal.
const QUIET: Duration = Duration::from_secs(10);
/// On a terminal.
const LIVELY: Duration = Duration::from_millis(100);

/// A count towards a known total.
#[derive(Debug)]
pub struct Progress {
    doing: String,
    total: usize,
    done: usize,
    start: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    /// `doing` is what stands before the count, as in "photos".
    pub fn new(doing: impl Into<String>, total: usize) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { doing: doing.into(), total, done: 0, start: now, shown: now, terminal }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        let due = if self.terminal { LIVELY } else { QUIET };
        if self.shown.elapsed() < due {
            return;
        }
        self.shown = Instant::now();
        let left =
            self.start.elapsed().div_f64(self.done as f64).mul_f64((self.total - self.done.min(self.total)) as f64);
        let (doing, done, total, left) = (&self.doing, self.done, self.total, left.as_secs());
        let line = format!("{doing}: {done} of {total}, {}:{:02} left", left / 60, left % 60);
        let mut stderr = std::io::stderr();
        // Nobody is told that nobody reads.
        let _ = if self.terminal { write!(stderr, "\r{line:70}") } else { writeln!(stderr, "{line}") };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r{:70}\r", "");
        }
    }
}
