//! A child process that writes frames to its stdout: `rpicam-vid`, `gst-launch-1.0`, `ffmpeg`.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::decode::{frame_bytes, least_stride};
use super::{CaptureError, Frame, Next, PixelFormat, Source};
use crate::clock::Monotonic;
use crate::telemetry::CameraCounters;

/// No JPEG frame is larger.
const MAX_JPEG: usize = 32 << 20;
/// Lines of the child's stderr that reach the log in a second.
const LOG_LINES: u32 = 10;
/// How long the child may take to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// A running child.
pub(super) struct Process {
    name: String,
    child: Child,
    stdout: ChildStdout,
    splitter: Splitter,
    format: PixelFormat,
    size: [u32; 2],
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
        let failed = |source| CaptureError::Spawn { command: name.clone(), source };
        let mut child = Command::new(&name)
            .args(&command[1.min(command.len())..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("no pipe to it")));
        };
        let prefix = name.clone();
        std::thread::Builder::new().name("stderr".into()).spawn(move || log_lines(&prefix, stderr)).map_err(failed)?;
        let size = size.unwrap_or_default();
        let splitter = match format {
            PixelFormat::Jpeg => Splitter::Jpeg(JpegSplitter::default()),
            _ => {
                let stride = least_stride(format, size[0] as usize);
                Splitter::Raw { length: frame_bytes(format, stride, size[1] as usize).max(1), buffer: Vec::new() }
            }
        };
        Ok(Self { name, child, stdout, splitter, format, size, sequence: 0, counters })
    }

    /// Why the stream has ended.
    fn ended(&mut self) -> CaptureError {
        let problem = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended: {status}"),
            _ => "closed its output".to_owned(),
        };
        CaptureError::Child { command: self.name.clone(), problem }
    }

    fn frame(&mut self, data: Vec<u8>) -> Frame {
        let (format, [width, height]) = (self.format, self.size);
        let stride = least_stride(format, width as usize);
        let sequence = self.sequence;
        self.sequence += 1;
        self.counters.captured.increment();
        Frame { format, width, height, stride, data, captured: Monotonic::now(), sequence, origin: None }
    }
}

impl Source for Process {
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let deadline = Instant::now() + timeout;
        let mut chunk = vec![0; 1 << 16];
        loop {
            if let Some(data) = self.splitter.next() {
                return Ok(Next::Frame(self.frame(data)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let ready = poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&left));
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Next::Idle),
                Ok(_) => {}
                Err(errno) => {
                    let problem = format!("cannot be read: {errno}");
                    return Err(CaptureError::Child { command: self.name.clone(), problem });
                }
            }
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Err(self.ended()),
                Ok(length) => {
                    if self.splitter.push(&chunk[..length]) {
                        self.counters.dropped_corrupt.increment();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.ended()),
            }
        }
    }

    fn describe(&self) -> String {
        format!("\"{}\" (process {}), {:?}", self.name, self.child.id(), self.format)
    }
}

impl Drop for Process {
    /// Ends the child's whole process group: politely, then not.
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Also after the child has ended: its own children may not have.
        signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The child's complaints to our log, at most [`LOG_LINES`] a second.
fn log_lines(name: &str, stderr: ChildStderr) {
    let (mut second, mut lines, mut suppressed) = (Instant::now(), 0, 0u64);
    for line in BufReader::new(stderr.take(u64::MAX)).split(b'\n').map_while(Result::ok) {
        if second.elapsed() >= Duration::from_secs(1) {
            if suppressed > 0 {
                log::warn!("{name}: {suppressed} more lines");
            }
            (second, lines, suppressed) = (Instant::now(), 0, 0);
        }
        if lines < LOG_LINES {
            let line = String::from_utf8_lossy(&line[..line.len().min(500)]);
            log::info!("{name}: {}", line.trim_end());
            lines += 1;
        } else {
            suppressed += 1;
        }
    }
}

/// Cuts a byte stream into frames.
enum Splitter {
    Raw { length: usize, buffer: Vec<u8> },
    Jpeg(JpegSplitter),
}

impl Splitter {
    /// Adds bytes. True if some had to be thrown away.
    fn push(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Raw { buffer, .. } => {
                buffer.extend_from_slice(bytes);
                false
            }
            Self::Jpeg(jpeg) => jpeg.push(bytes),
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Raw { length, buffer } => (buffer.len() >= *length).then(|| buffer.drain(..*length).collect()),
            Self::Jpeg(jpeg) => jpeg.next(),
        }
    }
}

/// Cuts a stream of JPEGs at their markers, so that a thumbnail inside of a segment does not end the frame.
#[derive(Default)]
struct JpegSplitter {
    buffer: Vec<u8>,
    /// How far the first picture of the buffer is walked; 0: its start is not found yet.
    at: usize,
    /// The walk is in entropy-coded data, where only markers count.
    in_scan: bool,
}

impl JpegSplitter {
    fn push(&mut self, bytes: &[u8]) -> bool {
        let overflow = self.buffer.len() > MAX_JPEG;
        if overflow {
            self.restart(self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
        overflow
    }

    /// Forgets the first `length` bytes and looks for a start again.
    fn restart(&mut self, length: usize) {
        self.buffer.drain(..length);
        (self.at, self.in_scan) = (0, false);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.at == 0 {
                let start = self.buffer.windows(3).position(|w| w == [0xFF, 0xD8, 0xFF]);
                // Two bytes may be the beginning of a start.
                let keep = start.unwrap_or(self.buffer.len().saturating_sub(2));
                self.restart(keep);
                start?;
                self.at = 2;
            }
            let rest = self.buffer.get(self.at..)?;
            if self.in_scan {
                let marker = rest.windows(2).position(|w| w[0] == 0xFF && !matches!(w[1], 0 | 0xFF | 0xD0..=0xD7));
                self.at += marker.unwrap_or(rest.len().saturating_sub(1));
                marker?;
                self.in_scan = false;
                continue;
            }
            let (&lead, &marker) = (rest.first()?, rest.get(1)?);
            match (lead, marker) {
                (0xFF, 0xD9) => {
                    let picture = self.buffer[..self.at + 2].to_vec();
                    self.restart(self.at + 2);
                    return Some(picture);
                }
                (0xFF, 0xFF) => self.at += 1,
                (0xFF, 0x01 | 0xD0..=0xD7) => self.at += 2,
                // Another start, or no marker at all: what came before is no picture.
                (0xFF, 0xD8) => self.restart(self.at),
                (0xFF, _) => {
                    let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
                    self.in_scan = marker == 0xDA;
                    self.at += 2 + length.max(2);
                }
                _ => self.restart(1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, format: PixelFormat, size: Option<[u32; 2]>) -> Process {
        let command = ["sh", "-c", script].map(str::to_owned);
        Process::spawn(&command, format, size, Arc::default()).unwrap()
    }

    fn frames(process: &mut Process) -> (Vec<Vec<u8>>, String) {
        let mut frames = Vec::new();
        loop {
            match process.next_frame(Duration::from_secs(5)) {
                Ok(Next::Frame(frame)) => frames.push(frame.data),
                Ok(other) => panic!("{other:?}"),
                Err(error) => return (frames, error.to_string()),
            }
        }
    }

    #[test]
    fn raw_frames_are_cut_by_their_size_and_the_exit_is_told() {
        let mut child = run("printf 'abcdefghijkl123'; exit 3", PixelFormat::Rgb24, Some([2, 1]));
        let (frames, error) = frames(&mut child);
        assert_eq!(frames, [b"abcdef", b"ghijkl"]);
        assert!(error.contains("exit status: 3") || error.contains("closed its output"), "{error}");
    }

    #[test]
    fn a_stream_of_jpegs_is_cut_at_its_markers() {
        // A thumbnail's end in a segment, a stuffed byte and a restart marker in the scan, garbage around.
        let first: &[u8] =
            &[0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 0xFF, 0xD9, 0xFF, 0xDA, 0, 2, 9, 0xFF, 0, 0xFF, 0xD0, 8, 0xFF, 0xD9];
        let second: &[u8] = &[0xFF, 0xD8, 0xFF, 0xFE, 0, 2, 0xFF, 0xDA, 0, 3, 1, 7, 0xFF, 0xD9];
        let torn: &[u8] = &[0xFF, 0xD8, 0xFF, 0xE0, 0, 2];
        let stream = [b"noise", first, b"--", torn, second, b"\xFF"].concat();
        for step in 1..stream.len() {
            let (mut splitter, mut pictures) = (JpegSplitter::default(), Vec::new());
            for bytes in stream.chunks(step) {
                splitter.push(bytes);
                pictures.extend(std::iter::from_fn(|| splitter.next()));
            }
            assert_eq!(pictures, [first, second], "in steps of {step}");
        }
    }

    #[test]
    fn a_child_that_hangs_is_idle_and_its_group_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; yes oops >&2 & wait", pid_file.display());
        let mut child = run(&script, PixelFormat::Jpeg, None);
        assert!(matches!(child.next_frame(Duration::from_millis(200)), Ok(Next::Idle)));
        drop(child);
        let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z")
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gone() {
            assert!(Instant::now() < deadline, "the grandchild {pid} is still alive");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = Process::spawn(&["no-such-program-here".into()], PixelFormat::Jpeg, None, Arc::default());
        assert!(error.err().unwrap().to_string().contains("no-such-program-here"));
    }
}
