//! The human log: `log` through `env_logger`, with priorities that journald understands when it is journald that reads.

use std::io::Write;

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
    // A second start, as in tests, keeps the first.
    let _ = builder.try_init();
}

/// Whether stderr is the stream that systemd connected to the journal: it says so in `JOURNAL_STREAM=device:inode`.
fn journald_reads_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The syslog priority of a level (syslog(3)).
fn priority(level: log::Level) -> u8 {
    match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    }
}
