//! `make soak MINUTES=N`: the real daemon for hours, with what a board meets in years: a broker that is restarted, a camera that is pulled.
//!
//! `soak [--minutes N] [--threads N] [--fps N] [--output DIR]` starts `spotter` from the same target folder,
//! a Mosquitto of its own, two child cameras (JPEG and raw frames) and a folder of photos; every five seconds it reads `/proc` and
//! `/metrics`, and the event log for latencies. At the end it prints a table, draws `soak.png`, and exits by the bars of [`verdict`].

mod camera;
mod chart;
mod rig;
mod sample;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rig::Rig;
use sample::{Sample, Trouble};

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error>;

struct Options {
    minutes: f64,
    threads: usize,
    /// Frames a second of each source.
    fps: f64,
    output: PathBuf,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self { minutes: 60.0, threads: 1, fps: 5.0, output: "target/soak".into() };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--minutes" => options.minutes = value.parse()?,
                "--threads" => options.threads = value.parse()?,
                "--fps" => options.fps = value.parse()?,
                "--output" => options.output = value.into(),
                _ => {
                    return Err(
                        format!("unknown option {name}; there are --minutes, --threads, --fps and --output").into()
                    );
                }
            }
        }
        match options.minutes >= 1.0 && options.fps > 0.0 {
            true => Ok(options),
            false => Err("a soak lasts a minute at least, at some rate".into()),
        }
    }
}

/// What is broken at a time: the broker for ten seconds of each ninety, the camera for fifteen of each hundred and twenty.
fn trouble(elapsed: Duration) -> Trouble {
    let within = |period: u64, from: u64, to: u64| (from..to).contains(&(elapsed.as_secs() % period));
    Trouble { broker: within(90, 60, 70), camera: within(120, 80, 95) }
}

fn soak(options: &Options) -> Result<bool, Failure> {
    std::fs::create_dir_all(&options.output)?;
    let mut rig = Rig::start(options)?;
    println!(
        "soak: spotter {} for {} minutes, three sources at {} frames a second",
        rig.pid(),
        options.minutes,
        options.fps
    );
    let (started, length) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    let mut samples: Vec<Sample> = Vec::new();
    while started.elapsed() < length {
        rig.make(trouble(started.elapsed()))?;
        if started.elapsed() >= EVERY * samples.len() as u32 {
            let sample = rig.sample(started.elapsed())?;
            if samples.len().is_multiple_of(12) {
                println!("{sample}");
            }
            samples.push(sample);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    rig.make(Trouble::default())?;
    let restarts = rig.broker_starts() - 1;
    let end = rig.end()?;
    let verdict = verdict::judge(&samples, &end, options.fps);
    println!("\n{verdict}  the broker was killed {restarts} times");
    let picture = options.output.join("soak.png");
    spotter::telemetry::sheet::write_png(&picture, &chart::draw(&samples, &verdict))?;
    println!("  drawn: {}", picture.display());
    Ok(verdict.passed())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let outcome = match arguments.next_if(|first| first == "camera") {
        Some(_) => camera::run(arguments).map(|()| true),
        None => Options::read(arguments).and_then(|options| soak(&options)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}
