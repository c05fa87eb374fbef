//! What a child complains of, for our log: a line at a time, at a bounded rate.

use std::time::{Duration, Instant};

/// Lines of a child that reach the log in a second.
const LINES_A_SECOND: u32 = 10;
/// Bytes of a line that reach the log.
const MAX_LINE: usize = 400;

/// Cuts bytes into lines and lets through as many as the log shall have; the others are counted, and the count is told.
#[derive(Debug, Default)]
pub(super) struct StderrLog {
    line: Vec<u8>,
    /// When the second that is being counted began.
    second: Option<Instant>,
    told: u32,
    suppressed: u64,
}

impl StderrLog {
    /// Adds bytes that were read at `now`, and tells `say` the lines that are whole and not too many.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant, say: &mut dyn FnMut(&str)) {
        if self.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
            self.tell_suppressed(say);
            (self.second, self.told) = (Some(now), 0);
        }
        for &byte in bytes {
            // Progress displays end their lines with a carriage return.
            if matches!(byte, b'\n' | b'\r') {
                self.end_line(say);
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
    }

    /// Tells what is left when the child has ended.
    pub(super) fn flush(&mut self, say: &mut dyn FnMut(&str)) {
        self.end_line(say);
        self.tell_suppressed(say);
    }

    fn end_line(&mut self, say: &mut dyn FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        // Colours and cursor movements stay out of the journal.
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        if line.trim().is_empty() {
            return;
        }
        if self.told < LINES_A_SECOND {
            self.told += 1;
            say(line.trim_end());
        } else {
            self.suppressed += 1;
        }
    }

    fn tell_suppressed(&mut self, say: &mut dyn FnMut(&str)) {
        if self.suppressed > 0 {
            say(&format!("({} more lines are left out)", self.suppressed));
            self.suppressed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_ten_lines_a_second_and_counted() {
        let (mut log, mut told, start) = (StderrLog::default(), Vec::new(), Instant::now());
        let mut say = |line: &str| told.push(line.to_owned());
        for tick in 0..20u64 {
            let bytes = "a complaint\n".repeat(100);
            log.push(bytes.as_bytes(), start + Duration::from_millis(100 * tick), &mut say);
        }
        log.flush(&mut say);
        assert_eq!(told.len(), 22, "{told:?}");
        assert_eq!((&*told[9], &*told[10]), ("a complaint", "(990 more lines are left out)"));
        assert_eq!(told[21], "(990 more lines are left out)");
    }

    #[test]
    fn lines_are_whole_bounded_and_plain() {
        let (mut log, mut told, now) = (StderrLog::default(), Vec::new(), Instant::now());
        let mut say = |line: &str| told.push(line.to_owned());
        log.push(b"\x1b[31mhalf a ", now, &mut say);
        log.push(b"line\x07\r\r\n\n 50 %\r", now, &mut say);
        log.push(&[b'x'; 100_000], now, &mut say);
        log.push(b"\nno \xff text\nthe end", now, &mut say);
        assert!(log.line.capacity() < 4096);
        log.flush(&mut say);
        let long = "x".repeat(MAX_LINE);
        assert_eq!(told, ["[31mhalf a line", " 50 %", &long, "no \u{fffd} text", "the end"]);
    }
}
