//! The daemon under test, its broker, and the hands that pull their cables.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::sample::{Metrics, Process, Sample, Trouble};
use super::{Failure, Options, camera};

/// For the model to load, on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that runs; killed when dropped.
pub(super) struct Rig {
    daemon: Child,
    broker: Option<Child>,
    broker_starts: u32,
    mosquitto: PathBuf,
    plug: PathBuf,
    page: String,
    events: EventLog,
    trouble: Trouble,
}

/// How the daemon ended.
pub(super) struct End {
    pub(super) success: bool,
    pub(super) took: Duration,
}

impl Rig {
    pub(super) fn start(options: &Options) -> Result<Self, Failure> {
        let output = std::path::absolute(&options.output)?;
        let (plug, mosquitto, log) = (output.join("plug"), output.join("mosquitto.conf"), output.join("events.jsonl"));
        let (broker_port, page_port) = (free_port()?, free_port()?);
        let broker =
            format!("listener {broker_port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n");
        std::fs::write(&mosquitto, broker)?;
        std::fs::write(&plug, "")?;
        let _ = std::fs::remove_file(&log);
        let config = output.join("spotter.toml");
        std::fs::write(&config, configuration(options, &plug, &log, broker_port, page_port)?)?;
        let spotter = std::env::current_exe()?.with_file_name("../spotter");
        let mut daemon = Command::new(&spotter)
            .args(["run", "--config"])
            .arg(&config)
            .env("RUST_LOG", "spotter=info")
            .env_remove("JOURNAL_STREAM")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting {}: {error}; `cargo build --release` makes it", spotter.display()))?;
        keep_log(&mut daemon, &output.join("spotter.log"))?;
        let (events, page) = (EventLog { path: log, read: 0 }, format!("127.0.0.1:{page_port}"));
        let trouble = Trouble::default();
        let mut rig = Self { daemon, broker: None, broker_starts: 0, mosquitto, plug, page, events, trouble };
        rig.start_broker()?;
        let until = Instant::now() + PATIENCE;
        while !rig.metrics().is_ok_and(|metrics| metrics.all_well()) {
            if let Some(status) = rig.daemon.try_wait()? {
                return Err(
                    format!("the daemon has ended: {status}; see {}", output.join("spotter.log").display()).into()
                );
            }
            if Instant::now() > until {
                return Err("three cameras and five actions do not all work within a minute".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(rig)
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub(super) fn broker_starts(&self) -> u32 {
        self.broker_starts
    }

    /// Breaks and mends what is to be broken from now on.
    pub(super) fn make(&mut self, trouble: Trouble) -> Result<(), Failure> {
        match (trouble.broker, self.broker.take()) {
            (true, Some(mut broker)) => {
                broker.kill()?;
                broker.wait()?;
            }
            (false, None) => self.start_broker()?,
            (_, same) => self.broker = same,
        }
        match (trouble.camera, self.trouble.camera) {
            (true, false) => std::fs::remove_file(&self.plug)?,
            (false, true) => std::fs::write(&self.plug, "")?,
            _ => {}
        }
        self.trouble = trouble;
        Ok(())
    }

    pub(super) fn sample(&mut self, at: Duration) -> Result<Sample, Failure> {
        if let Some(status) = self.daemon.try_wait()? {
            return Err(format!("the daemon has ended after {at:?}: {status}").into());
        }
        // Before the scrape, whose connection is a descriptor of its own.
        let process = Process::read(self.daemon.id())?;
        Ok(Sample { at, process, metrics: self.metrics()?, pins: self.events.new_latencies()?, trouble: self.trouble })
    }

    fn metrics(&self) -> Result<Metrics, Failure> {
        let mut stream = TcpStream::connect(&self.page)?;
        // The page's thread is behind everything else.
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page).as_bytes(),
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Metrics::parse(&text))
    }

    fn start_broker(&mut self) -> Result<(), Failure> {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let broker = Command::new("mosquitto")
            .arg("-c")
            .arg(&self.mosquitto)
            .env("PATH", path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("starting mosquitto: {error}; `cross/packages.sh test` installs it"))?;
        self.broker = Some(broker);
        self.broker_starts += 1;
        Ok(())
    }

    /// SIGTERM, and how it took that.
    pub(super) fn end(mut self) -> Result<End, Failure> {
        let started = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.daemon.wait()?;
        Ok(End { success: status.success(), took: started.elapsed() })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for child in [Some(&mut self.daemon), self.broker.as_mut()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Three sources, of which the second can be pulled; a rule, and so a pin, for each.
fn configuration(options: &Options, plug: &Path, log: &Path, broker: u16, page: u16) -> Result<String, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (model, photos) = (root.join("models/vgg16-gap-caltech101.onnx"), root.join("tests/photos"));
    let (own, [width, height]) = (std::env::current_exe()?, camera::RAW);
    let Options { fps, threads, .. } = options;
    let child = |format: &str, plug: &Path| {
        format!("process = [{own:?}, \"camera\", {photos:?}, \"{fps}\", \"{format}\", {plug:?}]\nformat = \"{format}\"")
    };
    let rule = |camera: &str| {
        format!(
            "[[rule]]\nname = \"{camera}\"\ncameras = [\"{camera}\"]\nhits = 1\nwindow = 1\non = 0.5\noff = 0.4\n\
             classes = [\"airplanes\", \"car_side\", \"cellphone\", \"cup\", \"ferry\", \"laptop\", \"watch\", \"wild_cat\"]\n\
             actions = [\"{camera}\", \"broker\", \"events\"]\n"
        )
    };
    // One each: a line that another rule holds high has no edge to measure.
    let pin = |camera: &str, line: u32| {
        format!("[action.{camera}]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = {line}\nmode = \"follow\"\n")
    };
    Ok(format!(
        "[device]\nname = \"soak\"\n[model]\npath = {model:?}\nthreads = {threads}\n\
         [[camera]]\nname = \"feeder\"\n{}\n\
         [[camera]]\nname = \"yard\"\nsize = [{width}, {height}]\n{}\n\
         [[camera]]\nname = \"album\"\nfiles = {photos:?}\nrepeat = true\nlive = true\nfps = {fps}\n\
         {}{}{}{}{}{}\
         [action.broker]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{broker}\"\n\
         [action.events]\ntype = \"log\"\npath = {log:?}\n\
         [page]\nlisten = \"127.0.0.1:{page}\"\n",
        child("mjpeg", root),
        child("yuv420", plug),
        rule("feeder"),
        rule("yard"),
        rule("album"),
        pin("feeder", 5),
        pin("yard", 6),
        pin("album", 13),
    ))
}

/// A port that is free now, and likely to be when it is wanted.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn keep_log(daemon: &mut Child, path: &Path) -> Result<(), Failure> {
    let (lines, mut file) =
        (BufReader::new(daemon.stderr.take().ok_or("no pipe")?).lines(), std::fs::File::create(path)?);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = writeln!(file, "{line}");
        }
    });
    Ok(())
}

/// The daemon's event log, read as it grows.
struct EventLog {
    path: PathBuf,
    read: u64,
}

impl EventLog {
    /// From capture to pin in milliseconds, of the events since the last call; infinite where the event left before the pin moved.
    fn new_latencies(&mut self) -> Result<Vec<f64>, Failure> {
        let Ok(mut file) = std::fs::File::open(&self.path) else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that is being written is read the next time.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let latency = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(event["payload"]["pin_latency_ms"].as_f64().unwrap_or(f64::INFINITY))
        };
        Ok(text[..whole].lines().filter_map(latency).collect())
    }
}
