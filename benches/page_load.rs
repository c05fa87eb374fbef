//! What the page costs the daemon: nothing while nobody looks, nothing a pin would notice, little of an inference.
//!
//! `cargo bench --bench page_load -- [--rounds N] [--seconds N]`
//!
//! The real daemon on the shipped model, three pins of a camera of photos, and clients on the loopback interface. Blocks without a client, with 50
//! requests a second, and with 50 viewers of the live page (each with its stream, and every picture that it tells of) take
//! turns, so that all three see the same machine. The clients run at the lowest priority: on a board they would be elsewhere.
//!
//! | bar | |
//! |---|---|
//! | p99 from capture to pin, 50 requests a second against none | at most 1.1 |
//! | mean inference, 50 viewers against none | at most 1.05 |
//! | the page's thread while nobody looks | at most 0.1 % of a core |

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Photos a second: the board is about half busy.
const FPS: u32 = 20;
const REQUESTS_A_SECOND: u64 = 50;
const VIEWERS: usize = 50;
/// Between the start of a load and what is counted of it, and between its end and the next block.
const SETTLE: Duration = Duration::from_millis(500);
/// What a page, a scraper and a script ask for.
const PATHS: [&str; 7] =
    ["/", "/page.js", "/style.css", "/metrics", "/api/state", "/api/configuration", "/camera/feeder"];

/// The daemon and what it is asked.
struct Daemon {
    child: Child,
    host: String,
    log: PathBuf,
    read: usize,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Result<Self, Failure> {
        let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir()?);
        let (config, log) = (folder.path().join("spotter.toml"), folder.path().join("events.jsonl"));
        let rule = |name: &str, classes: &str, line: u32| {
            format!(
                "[[rule]]\nname = \"{name}\"\nhits = 1\nwindow = 1\non = 0.5\noff = 0.4\nclasses = [{classes}]\n\
                 actions = [\"{name}\", \"events\"]\n[action.{name}]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = {line}\n"
            )
        };
        let text = format!(
            "[device]\nname = \"bench\"\n[model]\npath = {:?}\nthreads = 1\n\
             [[camera]]\nname = \"feeder\"\nfiles = {:?}\nrepeat = true\nlive = true\nfps = {FPS}\n{}{}{}\
             [action.events]\ntype = \"log\"\npath = {log:?}\n[page]\nlisten = \"127.0.0.1:0\"\n",
            root.join("models/vgg16-gap-caltech101.onnx"),
            root.join("tests/photos"),
            rule("things", "\"camera\", \"cellphone\", \"chair\", \"cup\", \"laptop\", \"watch\"", 5),
            rule("animals", "\"dalmatian\", \"wild_cat\", \"Faces\", \"sunflower\"", 6),
            rule("vehicles", "\"airplanes\", \"Motorbikes\", \"car_side\", \"ferry\", \"helicopter\"", 13),
        );
        std::fs::write(&config, text)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_spotter"))
            .args(["run", "--config"])
            .arg(&config)
            .env("RUST_LOG", "spotter=info")
            .env_remove("JOURNAL_STREAM")
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no pipe")?).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("page: http://")?;
            Some(address.trim_end_matches('/').to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        let host = address.ok_or("the daemon does not say where its page is")?;
        let daemon = Self { child, host, log, read: 0, _folder: folder };
        let until = Instant::now() + Duration::from_secs(60);
        while daemon.inference()?.1 < 8.0 {
            if Instant::now() > until {
                return Err("no frame is classified".into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    /// Seconds spent in the network so far, and how often.
    fn inference(&self) -> Result<(f64, f64), Failure> {
        let text = String::from_utf8(get(&self.host, "/metrics")?)?;
        let value = |end: &str| {
            let start = format!("spotter_stage_duration_seconds_{end}{{stage=\"inference\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok((value("sum"), value("count")))
    }

    /// From capture to pin in milliseconds, of the events since the last call.
    fn new_latencies(&mut self) -> Result<Vec<f64>, Failure> {
        let text = std::fs::read_to_string(&self.log)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let latency = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            // Unknown is what was later than the log waits.
            Some(event["payload"]["pin_latency_ms"].as_f64().unwrap_or(f64::INFINITY))
        };
        let latencies = text[self.read..whole].lines().filter_map(latency).collect();
        self.read = whole;
        Ok(latencies)
    }

    /// Processor time of the page's thread.
    fn page_time(&self) -> Result<Duration, Failure> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == "page" {
                // Documentation/scheduler/sched-stats.rst: nanoseconds on a processor come first.
                let times = std::fs::read_to_string(task.join("schedstat"))?;
                return Ok(Duration::from_nanos(times.split(' ').next().unwrap_or_default().parse()?));
            }
        }
        Err("the daemon has no page thread".into())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own.
fn get(host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Clients that run until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answers: Arc<AtomicU64>,
}

impl Load {
    fn start(threads: usize, client: impl Fn(&AtomicBool, &AtomicU64) + Clone + Send + 'static) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |_| {
            let (client, stop, answers) = (client.clone(), stop.clone(), answers.clone());
            std::thread::spawn(move || {
                let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
                client(&stop, &answers);
            })
        };
        let threads = (0..threads).map(start).collect();
        Self { stop, threads, answers }
    }

    /// Four clients, who together send [`REQUESTS_A_SECOND`].
    fn requests(host: &str) -> Self {
        const CLIENTS: u64 = 4;
        let host = host.to_owned();
        Self::start(CLIENTS as usize, move |stop, answers| {
            let (started, mut sent) = (Instant::now(), 0u64);
            while !stop.load(Ordering::Relaxed) {
                if get(&host, PATHS[sent as usize % PATHS.len()])
                    .is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
                {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                sent += 1;
                let due = Duration::from_millis(1000 * CLIENTS * sent / REQUESTS_A_SECOND);
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        })
    }

    /// As the page's script does: a stream, and the picture that it tells of when it is another.
    fn viewers(host: &str) -> Self {
        let host = host.to_owned();
        Self::start(VIEWERS, move |stop, answers| {
            let Ok(mut stream) = TcpStream::connect(&host) else { return };
            let _ = stream.write_all(format!("GET /api/live HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            let mut shown = None;
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Some((_, rest)) = line.split_once("\"picture\":") else { continue };
                answers.fetch_add(1, Ordering::Relaxed);
                let number = rest.split([',', '}']).next().map(str::to_owned);
                if number != shown {
                    let _ = get(&host, "/camera/feeder");
                    shown = number;
                }
            }
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// What came of all blocks of one kind.
#[derive(Default)]
struct Kind {
    pins: Vec<f64>,
    inference: (f64, f64),
    page: Duration,
    time: Duration,
    answers: u64,
}

impl Kind {
    fn block(&mut self, daemon: &mut Daemon, length: Duration, load: Option<Load>) -> Result<(), Failure> {
        std::thread::sleep(SETTLE);
        let inference = daemon.inference()?;
        daemon.new_latencies()?;
        let (started, page) = (Instant::now(), daemon.page_time()?);
        let answers = load.as_ref().map_or(0, |load| load.answers.load(Ordering::Relaxed));
        std::thread::sleep(length);
        self.page += daemon.page_time()? - page;
        self.time += started.elapsed();
        self.pins.extend(daemon.new_latencies()?);
        self.answers += load.as_ref().map_or(0, |load| load.answers.load(Ordering::Relaxed)) - answers;
        let now = daemon.inference()?;
        self.inference.0 += now.0 - inference.0;
        self.inference.1 += now.1 - inference.1;
        drop(load);
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn percentile(&mut self, percent: usize) -> f64 {
        self.pins.sort_by(f64::total_cmp);
        self.pins.get(self.pins.len() * percent / 100).copied().unwrap_or(f64::NAN)
    }

    fn inference_ms(&self) -> f64 {
        1000.0 * self.inference.0 / self.inference.1
    }

    /// Of one core, in percent.
    fn page_share(&self) -> f64 {
        100.0 * self.page.as_secs_f64() / self.time.as_secs_f64()
    }

    fn row(&mut self, name: &str) {
        println!(
            "{name:24} {:6} {:9.2} {:9.2} {:11.2} {:10.3} {:10.1}",
            self.pins.len(),
            self.percentile(50),
            self.percentile(99),
            self.inference_ms(),
            self.page_share(),
            self.answers as f64 / self.time.as_secs_f64(),
        );
    }
}

fn bar(name: &str, found: f64, limit: f64) -> bool {
    let met = found <= limit;
    println!("{name:60} {found:7.3}   at most {limit:5.2}   {}", if met { "ok" } else { "FAILED" });
    met
}

fn run() -> Result<bool, Failure> {
    let (mut rounds, mut seconds) = (6, 10);
    // `cargo bench` passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let number: u64 =
            arguments.next().and_then(|value| value.parse().ok()).ok_or(format!("{name} needs a number"))?;
        match name.as_str() {
            "--rounds" => rounds = number,
            "--seconds" => seconds = number,
            _ => return Err(format!("unknown option {name}; there are --rounds and --seconds").into()),
        }
    }
    let (mut daemon, length) = (Daemon::start()?, Duration::from_secs(seconds));
    let host = daemon.host.clone();
    let [mut alone, mut asked, mut watched] = [Kind::default(), Kind::default(), Kind::default()];
    for _ in 0..rounds {
        alone.block(&mut daemon, length, None)?;
        asked.block(&mut daemon, length, Some(Load::requests(&host)))?;
        alone.block(&mut daemon, length, None)?;
        watched.block(&mut daemon, length, Some(Load::viewers(&host)))?;
    }
    println!("                         events  pin p50 ms    p99 ms  inference ms  page %  answers/s");
    alone.row("nobody");
    asked.row("50 requests a second");
    watched.row("50 viewers");
    println!();
    let bars = [
        bar("capture to pin, p99: 50 requests a second / none", asked.percentile(99) / alone.percentile(99), 1.1),
        bar("inference, mean: 50 viewers / none", watched.inference_ms() / alone.inference_ms(), 1.05),
        bar("the page's thread while nobody looks, % of a core", alone.page_share(), 0.1),
    ];
    Ok(bars.iter().all(|met| *met))
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("page_load: {error}");
            ExitCode::from(2)
        }
    }
}
