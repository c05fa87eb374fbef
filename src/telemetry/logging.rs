//! The human log: `log` through `env_logger`, with priorities that journald understands when it is journald that reads.
//!
//! A fault that repeats must not fill a card or wash the journal's older lines away: warnings and errors are limited by the place in
//! the program that they come from, and what is left out is counted and told with the next one that is not. Events and other
//! information are never left out.

mod limit;

use std::io::Write;
use std::sync::Mutex;

use log::{Level, Log, Metadata, Record};

use crate::clock::Monotonic;
use limit::{Limits, Verdict};

/// Starts logging to stderr. `RUST_LOG` sets the levels; without it, `info` and above of Spotter, `warn` of the rest.
///
/// Under systemd each line begins with the kernel's `<N>` priority and carries no time, for the journal adds its own
/// (sd-daemon(3)).
pub fn start() {
    let filter = env_logger::Env::default().default_filter_or("warn,spotter=info");
    let mut builder = env_logger::Builder::from_env(filter);
    if journald_reads_stderr() {
        builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
    } else {
        builder.format_target(false).format_timestamp_millis();
    }
    let inner = builder.build();
    let level = inner.filter();
    // A second start, as in tests, keeps the first.
    if log::set_boxed_logger(Box::new(Limited { inner, limits: Mutex::default() })).is_ok() {
        log::set_max_level(level);
    }
}

/// A logger whose warnings and errors are limited.
struct Limited<L> {
    inner: L,
    limits: Mutex<Limits>,
}

impl<L: Log> Log for Limited<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let (Some(file), Some(line)) = (record.file_static(), record.line()) else { return self.inner.log(record) };
        if record.level() > Level::Warn || !self.enabled(record.metadata()) {
            return self.inner.log(record);
        }
        // Every change of the limits is whole at once: a panic elsewhere leaves them so.
        let mut limits = self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let verdict = limits.judge((file, line), Monotonic::now());
        drop(limits);
        match verdict {
            Verdict::Say => self.inner.log(record),
            Verdict::SayAfter(left_out) => {
                let (metadata, place) =
                    (record.metadata().clone(), (record.module_path(), record.file(), record.line()));
                let mut told = Record::builder();
                told.metadata(metadata).module_path(place.0).file(place.1).line(place.2);
                let message = record.args();
                self.inner.log(&told.args(format_args!("{message} ({left_out} such lines were left out)")).build());
            }
            Verdict::LeaveOut => {}
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// Whether stderr is the stream that systemd connected to the journal: it says so in `JOURNAL_STREAM=device:inode`.
fn journald_reads_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The syslog priority of a level (syslog(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it is given.
    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl Log for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Info
        }
        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                self.0.lock().unwrap().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }

    #[test]
    fn a_fault_that_repeats_is_left_out_and_information_and_other_faults_are_not() {
        let logger = Limited { inner: Kept::default(), limits: Mutex::default() };
        let say = |level: Level, line: u32| {
            let mut record = Record::builder();
            record.level(level).file_static(Some("a.rs")).line(Some(line));
            logger.log(&record.args(format_args!("{level} {line}")).build());
        };
        for _ in 0..500 {
            say(Level::Warn, 1);
            say(Level::Info, 2);
            say(Level::Debug, 3);
        }
        say(Level::Error, 4);
        let kept = logger.inner.0.lock().unwrap();
        let count = |text: &str| kept.iter().filter(|it| it.starts_with(text)).count();
        assert!((20..30).contains(&count("WARN 1")), "{}", count("WARN 1"));
        assert_eq!((count("INFO 2"), count("DEBUG 3"), count("ERROR 4")), (500, 0, 1));
    }
}
