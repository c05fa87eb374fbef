use super::*;

use std::fs;
use std::path::Path;

fn run(script: &str, format: PixelFormat, size: Option<[u32; 2]>, counters: &Arc<CameraCounters>) -> Process {
    let command = ["sh", "-c", script].map(str::to_owned);
    Process::spawn(&command, format, size, counters.clone()).unwrap()
}

/// Every frame up to the child's end, and what is said of the end.
fn read_through(process: &mut Process) -> (Vec<Frame>, String) {
    let (mut frames, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while Instant::now() < deadline {
        match process.next_frame(Duration::from_secs(1)) {
            Ok(Next::Frame(frame)) => frames.push(frame),
            Ok(_) => {}
            Err(error) => return (frames, error.to_string()),
        }
    }
    panic!("the child does not end");
}

fn jpeg(grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture = image::RgbImage::from_pixel(32, 16, image::Rgb([grey; 3]));
    image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&picture).unwrap();
    bytes
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is gone, or dead and only not waited for.
fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z")
}

#[test]
fn a_stream_of_jpegs_becomes_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream");
    let (first, second) = (jpeg(10), jpeg(200));
    let stream = [b"noise", &first[..], &first[..first.len() - 8], &second[..], &second[..]].concat();
    fs::write(&path, stream).unwrap();
    let counters = Arc::default();
    let before = Monotonic::now();
    let mut child = run(&format!("cat {}; exit 7", path.display()), PixelFormat::Jpeg, None, &counters);
    let (frames, end) = read_through(&mut child);
    assert!(end.contains("\"sh\" ended with exit status 7"), "{end}");
    assert!(frames.iter().map(|f| &f.data).eq([&first, &second, &second]), "{} frames", frames.len());
    for (sequence, frame) in (0..).zip(&frames) {
        assert_eq!((frame.width, frame.height, frame.stride, frame.sequence), (32, 16, 0, sequence));
        assert!(frame.captured >= before && frame.captured <= Monotonic::now());
    }
    assert_eq!((counters.captured.get(), counters.dropped_corrupt.get()), (3, 1));
}

#[test]
fn raw_frames_are_cut_by_their_size() {
    let mut child = run("printf abcdefghijkl123", PixelFormat::Rgb24, Some([2, 1]), &Arc::default());
    let (frames, end) = read_through(&mut child);
    assert_eq!(frames.iter().map(|f| &*f.data).collect::<Vec<_>>(), [b"abcdef", b"ghijkl"]);
    assert_eq!((frames[1].width, frames[1].height, frames[1].stride), (2, 1, 6));
    assert!(end.contains("exit status 0"), "{end}");
}

#[test]
fn the_end_is_told_as_it_was() {
    for (script, expected) in [
        ("kill -9 $$", "signal 9"),
        ("exec >&-; sleep 1000", "closed its output and still runs"),
        // A grandchild keeps the pipe open.
        ("sleep 1000 & exit 4", "exit status 4"),
    ] {
        let (frames, end) = read_through(&mut run(script, PixelFormat::Jpeg, None, &Arc::default()));
        assert!(frames.is_empty() && end.contains(expected), "{script}: {end}");
    }
}

/// The longest that a wait of 100 ms takes while `script` runs.
fn longest_wait(script: &str) -> Duration {
    let mut child = run(script, PixelFormat::Jpeg, None, &Arc::default());
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let started = Instant::now();
        assert!(matches!(child.next_frame(Duration::from_millis(100)), Ok(Next::Idle)), "{script}");
        longest = longest.max(started.elapsed());
    }
    longest
}

#[test]
fn a_wait_ends_in_time_whatever_the_child_does() {
    for script in ["sleep 1000", "cat /dev/zero", "yes >&2", "cat /dev/zero & yes >&2"] {
        let waited = longest_wait(script);
        assert!(waited < Duration::from_millis(400), "{script}: {waited:?}");
    }
}

#[test]
fn frames_come_through_a_flood_of_complaints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    fs::write(&path, jpeg(1)).unwrap();
    let script = format!("yes complaint >&2 & while cat {}; do sleep 0.01; done", path.display());
    let mut child = run(&script, PixelFormat::Jpeg, None, &Arc::default());
    let mut frames = 0;
    wait_for("ten frames", || {
        frames += u32::from(matches!(child.next_frame(Duration::from_millis(100)), Ok(Next::Frame(_))));
        frames >= 10
    });
}

/// Starts a script that writes the number of a child of its own to a file, drops the source, and waits for the end of both.
fn check_ended(script: &str, path: &Path) -> Duration {
    let mut child = run(script, PixelFormat::Jpeg, None, &Arc::default());
    let mut pid = String::new();
    wait_for("the grandchild", || {
        let _ = child.next_frame(Duration::from_millis(20));
        pid = fs::read_to_string(path).unwrap_or_default();
        pid.ends_with('\n')
    });
    let leader = child.child.id().to_string();
    let started = Instant::now();
    drop(child);
    let took = started.elapsed();
    assert!(!Path::new("/proc").join(leader).exists(), "the child is left as a zombie");
    wait_for("the grandchild's end", || is_gone(pid.trim()));
    took
}

#[test]
fn the_whole_group_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, script: &str| {
        let path = folder.path().join(name);
        check_ended(&script.replace("FILE", &path.display().to_string()), &path)
    };
    let polite = script("polite", "sleep 1000 & echo $! > FILE; wait");
    assert!(polite < Duration::from_millis(600), "{polite:?}");
    // Neither the child nor its child listens to SIGTERM.
    let deaf =
        script("deaf", "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo $! > FILE; wait; wait");
    assert!(deaf >= GRACE && deaf < GRACE + Duration::from_secs(2), "{deaf:?}");
    // It writes more than the pipe holds before it ends.
    let talkative =
        script("talkative", "trap 'head -c 300000 /dev/zero; exit' TERM; sleep 1000 & echo $! > FILE; wait");
    assert!(talkative < GRACE, "{talkative:?}");
}

#[test]
fn what_cannot_be_started_is_named() {
    let command = |name: &str| vec![name.to_owned()];
    let error =
        Process::spawn(&command("no-such-program-here"), PixelFormat::Jpeg, None, Arc::default()).err().unwrap();
    assert!(matches!(error, CaptureError::Spawn { .. }));
    assert!(error.to_string().contains("no-such-program-here"), "{error}");
    let error = Process::spawn(&command("true"), PixelFormat::I420, None, Arc::default()).err().unwrap().to_string();
    assert!(error.contains("true") && error.contains("0x0"), "{error}");
}
