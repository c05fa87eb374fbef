//! A child process that writes frames to its stdout: `rpicam-vid`, `gst-launch-1.0`, `ffmpeg`.
//!
//! Raw frames are read without padding between rows: `rpicam-vid --codec yuv420` pads them unless the width is a multiple
//! of 64.

mod split;
mod stderr;

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{CaptureError, Frame, Next, PixelFormat, Source};
use crate::clock::Monotonic;
use crate::telemetry::CameraCounters;
use split::Splitter;
#[cfg(any(test, fuzzing))]
pub(crate) use split::fuzz_split;
use stderr::StderrLog;

/// How long the child and its children may take to end by themselves: `nvarguscamerasrc` leaves the camera unusable if it
/// is killed at once.
const GRACE: Duration = Duration::from_secs(1);
/// How long a child that has closed its output may take to end, so that its exit status can be told.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Read at once; a pipe holds 64 KiB.
const CHUNK: usize = 1 << 16;

/// A running child.
pub(super) struct Process {
    name: String,
    child: Child,
    stdout: ChildStdout,
    /// `None` once it is closed.
    stderr: Option<ChildStderr>,
    log: StderrLog,
    splitter: Splitter,
    chunk: Vec<u8>,
    sequence: u64,
    counters: Arc<CameraCounters>,
}

impl Process {
    /// Starts the child in a process group of its own.
    pub(super) fn spawn(
        command: &[String],
        format: PixelFormat,
        size: Option<[u32; 2]>,
        counters: Arc<CameraCounters>,
    ) -> Result<Self, CaptureError> {
        let name = command.first().cloned().unwrap_or_default();
        let splitter = Splitter::new(format, size)
            .map_err(|problem| CaptureError::Child { command: name.clone(), problem: problem.to_string() })?;
        let failed = |source| CaptureError::Spawn { command: name.clone(), source };
        let mut child = Command::new(&name)
            .args(command.iter().skip(1))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("no pipe to it")));
        };
        let (log, chunk) = (StderrLog::default(), vec![0; CHUNK]);
        let process = Self {
            name: name.clone(),
            child,
            stdout,
            stderr: Some(stderr),
            log,
            splitter,
            chunk,
            sequence: 0,
            counters,
        };
        set_nonblocking(&process.stdout).map_err(failed)?;
        process.stderr.as_ref().map_or(Ok(()), set_nonblocking).map_err(failed)?;
        Ok(process)
    }

    /// The next frame of what has been read.
    fn next_whole(&mut self) -> Option<Frame> {
        let next = self.splitter.next();
        self.counters.dropped_corrupt.add(self.splitter.take_dropped());
        let split::Picture { data, size: [width, height], begun } = next?;
        let (format, stride, sequence) = (self.splitter.format(), self.splitter.stride(), self.sequence);
        self.sequence += 1;
        self.counters.captured.increment();
        Some(Frame { format, width, height, stride, data, captured: begun, sequence, origin: None })
    }

    /// Waits until the child has written something, to either of its outputs.
    fn wait(&self, timeout: Duration) -> Result<(bool, bool), CaptureError> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut outputs = vec![PollFd::new(&self.stdout, PollFlags::IN)];
        outputs.extend(self.stderr.as_ref().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        match poll(&mut outputs, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            Err(errno) => return Err(self.failure(format!("cannot be waited for: {errno}"))),
        }
        let ready = |output: Option<&PollFd<'_>>| output.is_some_and(|o| !o.revents().is_empty());
        Ok((ready(outputs.first()), ready(outputs.get(1))))
    }

    /// Reads what the child has written to its stdout.
    fn read(&mut self) -> Result<(), CaptureError> {
        match read_some(&mut self.stdout, &mut self.chunk) {
            Ok(Some(0)) => Err(self.ended()),
            Ok(Some(length)) => {
                self.splitter.push(&self.chunk[..length], Monotonic::now());
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(self.failure(format!("cannot be read: {error}"))),
        }
    }

    /// Reads what the child complains of into our log; one chunk, so that a flood of it does not keep frames waiting.
    fn read_complaints(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        match read_some(stderr, &mut self.chunk) {
            Ok(Some(0)) | Err(_) => self.stderr = None,
            Ok(Some(length)) => self.log.push(&self.chunk[..length], Instant::now(), &mut say(&self.name)),
            Ok(None) => {}
        }
    }

    fn failure(&self, problem: String) -> CaptureError {
        CaptureError::Child { command: self.name.clone(), problem }
    }

    /// Why the stream has ended.
    fn ended(&mut self) -> CaptureError {
        // What it says at its end is what explains it, however much it said before.
        self.read_complaints();
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            if let Some(how) = self.exit() {
                return self.failure(how);
            }
            if Instant::now() >= deadline {
                return self.failure("closed its output and still runs".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How the child has ended. It stays a zombie, so that its number, which is its group's, is given to nobody else.
    fn exit(&self) -> Option<String> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.group()?), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("ended with exit status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        })
    }

    /// The child's process group, which has its number.
    fn group(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group() {
            // The only failure is that nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Source for Process {
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.next_whole() {
                return Ok(Next::Frame(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let (output, complaint) = self.wait(left)?;
            if complaint {
                self.read_complaints();
            }
            if output {
                self.read()?;
            } else if let Some(how) = self.exit().filter(|_| !complaint) {
                // A child of the child holds the pipe and does not write to it.
                return Err(self.failure(how));
            }
            // Also while it writes and writes and no frame comes of it.
            if Instant::now() >= deadline {
                return Ok(self.next_whole().map_or(Next::Idle, Next::Frame));
            }
        }
    }

    fn describe(&self) -> String {
        format!("\"{}\" (process {}), {:?}", self.name, self.child.id(), self.splitter.format())
    }
}

impl Drop for Process {
    /// Ends the child's whole process group: politely, then not.
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        let mut closed = false;
        // Its output is closed when all of the group are gone that could have written to it. Until then it is read, since
        // a child that cannot write does not end.
        while !(closed && self.exit().is_some()) && Instant::now() < deadline {
            match read_some(&mut self.stdout, &mut self.chunk) {
                Ok(Some(0)) | Err(_) => closed = true,
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            self.read_complaints();
            std::thread::sleep(Duration::from_millis(5));
        }
        // Also after the child has ended: its own children may not have.
        self.signal(Signal::KILL);
        self.log.flush(&mut say(&self.name));
        let _ = self.child.wait();
    }
}

fn say(name: &str) -> impl FnMut(&str) {
    move |line| log::info!("{name}: {line}")
}

fn set_nonblocking(output: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&output)?;
    Ok(fcntl_setfl(&output, flags | OFlags::NONBLOCK)?)
}

/// Reads what there is: `None` if there is nothing yet, 0 at the end.
fn read_some(from: &mut impl Read, into: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(into) {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
