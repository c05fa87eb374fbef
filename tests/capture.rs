//! Capture, end to end: the shipped photos through the files source, and children through the supervised camera thread.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spotter::capture::slot::FrameSlots;
use spotter::capture::supervise::{CameraState, run_camera};
use spotter::capture::{Frame, PixelFormat, Rgb, decode};
use spotter::config::plan::{CameraPlan, Fit, Orientation, SourcePlan};
use spotter::telemetry::CameraCounters;

fn plan(name: &str, source: SourcePlan) -> CameraPlan {
    CameraPlan {
        name: name.into(),
        source,
        size: None,
        fps: None,
        orientation: Orientation::default(),
        fit: Fit::Crop,
        regions: Vec::new(),
        timeout: Duration::from_millis(300),
        stale: Duration::from_secs(1),
        controls: Default::default(),
        motion: None,
    }
}

fn child(script: &str) -> SourcePlan {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    SourcePlan::Process { command, format: PixelFormat::Jpeg }
}

fn photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos")
}

fn some_photo() -> PathBuf {
    glob::glob(&photos().join("*/*.jpg").to_string_lossy()).unwrap().next().unwrap().unwrap()
}

/// What a camera thread did while `take` was served with its slots.
struct Seen {
    counters: Arc<CameraCounters>,
    states: Vec<CameraState>,
    /// From the stop to the end of the thread.
    stopped_in: Duration,
}

impl Seen {
    fn kinds(&self) -> Vec<&'static str> {
        let kind = |state: &CameraState| match state {
            CameraState::Opening => "opening",
            CameraState::Streaming => "streaming",
            CameraState::Degraded(_) => "degraded",
            CameraState::Ended => "ended",
        };
        self.states.iter().map(kind).collect()
    }
}

/// Runs one camera; `take` gets every frame until it has enough (`false`) or the camera has ended.
fn run(plan: &CameraPlan, mut take: impl FnMut(Frame) -> bool) -> Seen {
    let counters = Arc::new(CameraCounters::default());
    let slots = FrameSlots::new(std::slice::from_ref(&counters));
    let (stop, states) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let on_state = |state: &CameraState| states.lock().unwrap().push(state.clone());
    let stopped_in = std::thread::scope(|scope| {
        let camera = scope.spawn(|| {
            // What a thread may be called with, whichever thread made it.
            let on_state: &dyn Fn(&CameraState) = &on_state;
            run_camera(plan, 0, &slots, &counters, &stop, on_state);
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < deadline, "{:?}", states.lock().unwrap());
            let ended = camera.is_finished();
            let enough = match slots.take(Duration::from_millis(20)) {
                Some((_, frame)) => !take(frame),
                None => ended,
            };
            if enough {
                break;
            }
        }
        let started = Instant::now();
        stop.store(true, Ordering::SeqCst);
        slots.close();
        camera.join().unwrap();
        started.elapsed()
    });
    Seen { counters, states: states.into_inner().unwrap(), stopped_in }
}

#[test]
fn every_shipped_photo_comes_once_in_order_and_decodes_as_the_image_crate_does() {
    let plan = plan("demo", SourcePlan::Files { path: photos(), repeat: false, live: false });
    let (mut paths, mut rgb) = (Vec::new(), Rgb::default());
    let seen = run(&plan, |frame| {
        let path = frame.origin.clone().unwrap();
        decode::decode(&frame, &mut rgb).unwrap();
        let expected = image::open(&path).unwrap().into_rgb8();
        assert_eq!((rgb.width, rgb.height), expected.dimensions(), "{}", path.display());
        assert!(rgb.data == *expected.as_raw(), "{}", path.display());
        paths.push(path);
        true
    });
    assert!(paths.len() >= 30 && paths.is_sorted(), "{} photos", paths.len());
    assert_eq!(seen.kinds(), ["opening", "streaming", "ended"]);
    assert_eq!(seen.counters.captured.get(), paths.len() as u64);
    assert_eq!(seen.counters.dropped_stale.get(), 0);
}

#[test]
fn a_child_that_ends_is_started_again_with_growing_pauses() {
    let plan = plan("ends", child(&format!("cat {}", some_photo().display())));
    let (mut frames, started) = (0, Instant::now());
    let seen = run(&plan, |_| {
        frames += 1;
        frames < 4
    });
    // 100, 200 and 400 ms, each shortened by half at most.
    assert!(started.elapsed() >= Duration::from_millis(350), "{:?}", started.elapsed());
    assert!(seen.counters.opened.get() >= 4 && seen.counters.failed.get() >= 3);
    assert_eq!(seen.kinds()[..5], ["opening", "streaming", "degraded", "streaming", "degraded"]);
    assert!(matches!(&seen.states[2], CameraState::Degraded(reason) if reason.contains("exit status 0")));
}

#[test]
fn a_child_that_hangs_is_replaced() {
    // The first run hangs after a frame; the second one goes on.
    let folder = tempfile::tempdir().unwrap();
    let (mark, photo) = (folder.path().join("mark"), some_photo());
    let (mark, photo) = (mark.display(), photo.display());
    let script = format!(
        "cat {photo}; test -e {mark} || {{ touch {mark}; exec sleep 1000; }}; while cat {photo}; do sleep 0.02; done"
    );
    let mut frames = 0;
    let seen = run(&plan("hangs", child(&script)), |_| {
        frames += 1;
        frames < 10
    });
    assert_eq!(seen.kinds(), ["opening", "streaming", "degraded", "streaming"]);
    assert!(matches!(&seen.states[2], CameraState::Degraded(reason) if reason.contains("no frame for 300ms")));
    assert!(seen.stopped_in < Duration::from_millis(400), "{:?}", seen.stopped_in);
}

#[test]
fn a_camera_that_is_away_is_tried_again_quietly_and_stops_at_once() {
    let device = "/dev/v4l/by-id/usb-nothing-here-video-index0";
    let plan = plan("away", SourcePlan::V4l2 { device: device.into(), format: None });
    let counters = Arc::new(CameraCounters::default());
    let slots = FrameSlots::new(std::slice::from_ref(&counters));
    let (stop, states) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let on_state = |state: &CameraState| states.lock().unwrap().push(state.clone());
    let took = std::thread::scope(|scope| {
        let camera = scope.spawn(|| run_camera(&plan, 0, &slots, &counters, &stop, &on_state));
        // In the middle of a pause of 1.6 seconds or more.
        std::thread::sleep(Duration::from_millis(2500));
        let started = Instant::now();
        stop.store(true, Ordering::SeqCst);
        camera.join().unwrap();
        started.elapsed()
    });
    assert!(took < Duration::from_millis(200), "{took:?}");
    let (attempts, states) = (counters.failed.get(), states.into_inner().unwrap());
    assert!((3..=8).contains(&attempts), "{attempts} attempts");
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(matches!(&states[1], CameraState::Degraded(reason) if reason.contains(device)), "{states:?}");
}
