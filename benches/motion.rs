//! What the motion gate costs a frame of 1280x720, in each layout that cameras deliver: the bar is half a millisecond.
//!
//! `cargo bench --bench motion` prints the median and the 99th percentile, and fails above the bar.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spotter::capture::decode::{least_stride, needed_bytes};
use spotter::capture::{Frame, PixelFormat};
use spotter::clock::Monotonic;
use spotter::motion::{Gate, Luma, Wanted};

const FRAMES: u64 = 1000;
const BAR: Duration = Duration::from_micros(500);

fn main() -> ExitCode {
    let text = "[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"d\"\nmotion = {}\n";
    let plan = spotter::config::parse(text, Path::new("bench.toml"), &|_| None).expect("a valid configuration");
    let mut worst = Duration::ZERO;
    println!("layout      median      99 %");
    for format in [PixelFormat::Nv12, PixelFormat::Yuyv, PixelFormat::Rgb24] {
        let mut gate = Gate::new(&plan.cameras[0]).expect("a camera with a gate");
        let mut frames: Vec<Frame> = (0..8).map(|seed| noisy(format, seed)).collect();
        let mut times: Vec<Duration> = (0..FRAMES)
            .map(|number| {
                let frame = &mut frames[number as usize % 8];
                frame.captured = Monotonic::from_duration(Duration::from_millis(1000 + 33 * number));
                let began = Instant::now();
                let decision = gate.judge(Luma::of_frame(frame).as_ref(), Wanted::default(), frame.captured);
                std::hint::black_box(decision);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{:8} {:>7.3} ms {:>6.3} ms", format!("{format:?}"), ms(median), ms(late));
        worst = worst.max(median);
    }
    println!("{}: the bar is {} ms", if worst <= BAR { "good" } else { "BAD" }, ms(BAR));
    if worst <= BAR { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A scene with a little noise, which differs from seed to seed.
fn noisy(format: PixelFormat, seed: u32) -> Frame {
    let (width, height) = (1280, 720);
    let stride = least_stride(format, width as usize);
    let length = needed_bytes(format, width, height, stride).expect("a size that is accepted");
    let noise = |i: usize| ((i as u32 ^ seed << 20).wrapping_mul(2_654_435_761) >> 29) as u8;
    let data = (0..length).map(|i| 80 + (i / 4096 % 64) as u8 + noise(i)).collect();
    Frame { format, width, height, stride, data, captured: Monotonic::default(), sequence: 0, origin: None }
}
