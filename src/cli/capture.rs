//! `spotter capture`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::outcome::{Failure, Outcome};
use super::{DEFAULT_CONFIG, Format, print_json};
use crate::config::plan::{Area, CameraPlan};
use crate::config::{self, duration};
use crate::teach::collect::{End, Tally, Wanted, collect};
use crate::teach::gallery::{Gallery, Offered};
use crate::teach::likeness::BITS;

/// Photos at most in one session, so that a mistyped number does not fill the card.
const MAX_COUNT: usize = 100_000;

/// Take training photos with a configured camera, as the model will see them: upright, and cut to a region where one is named.
///
/// They are written to DIR/LABEL/, where `spotter teach --images DIR` finds them. Pictures that are nearly the same as a photo that is
/// there are passed over. Ctrl-C ends it; what was taken stays. The daemon must not hold the camera meanwhile.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: spotter capture --config garden.toml --camera feeder --label cat --count 30 --every 2s --output photos\n\
    then: spotter teach --model models/vgg16-gap-caltech101.onnx --images photos --output garden.onnx"
)]
pub(super) struct Capture {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The camera's name in the configuration, or CAMERA/REGION
    #[arg(long, value_name = "NAME")]
    camera: String,
    /// What the photos show: letters, digits, - and _
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: String,
    /// Photos to take
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count)]
    count: usize,
    /// A look at the camera this often
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    every: Duration,
    /// The folder of the training photos; the label's folder is made in it
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// How different a picture must be from every photo, in bits of a hash of 256; 0 keeps all
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(..=i64::from(BITS)))]
    different: u32,
    /// Give up when the camera delivers nothing for so long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    patience: Duration,
    /// How the summary is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// It becomes a folder's name.
fn label(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    is_label.then(|| text.to_owned()).ok_or_else(|| "a label has 1 to 64 letters, digits, - and _".into())
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|e| format!("{e}"))?;
    if (1..=MAX_COUNT).contains(&count) { Ok(count) } else { Err(format!("1 to {MAX_COUNT} photos")) }
}

impl Capture {
    pub(super) fn execute(&self) -> Outcome {
        let start = Instant::now();
        let plan = config::load(&self.config).map_err(Failure::configuration)?;
        let (camera, area) = self.view(&plan.cameras)?;
        let stop = stop_flag().map_err(Failure::runtime)?;
        let name = self.camera.replace('/', "-");
        let mut gallery = Gallery::open(&self.output, &self.label, &name, self.different).map_err(Failure::runtime)?;
        let (earlier, folder) = (gallery.known(), gallery.folder().to_owned());
        let wanted = Wanted { camera, area, count: self.count, every: self.every, patience: self.patience };
        let mut live = Live::new(self);
        let (tally, ended) = collect(&wanted, &mut gallery, &stop, &mut |tally, offered| live.show(tally, offered));
        drop(live);
        let summary = json!({
            "camera": self.camera, "label": self.label, "folder": folder.to_string_lossy(), "wanted": self.count,
            "kept": tally.kept, "alike": tally.alike, "unreadable": tally.unreadable, "earlier": earlier,
            "ended": ended.as_ref().map_or("failed", |end| word(*end)), "seconds": start.elapsed().as_secs_f64(),
        });
        match self.format {
            Format::Json => print_json(&summary)?,
            Format::Text => print_text(&summary),
        }
        ended.map(drop).map_err(Failure::runtime)
    }

    fn view<'a>(&self, cameras: &'a [CameraPlan]) -> Result<(&'a CameraPlan, Option<&'a Area>), Failure> {
        let (name, region) = match self.camera.split_once('/') {
            Some((name, region)) => (name, Some(region)),
            None => (self.camera.as_str(), None),
        };
        let known = || {
            let views = cameras.iter().flat_map(|camera| {
                let regions = camera.regions.iter().map(move |region| format!("{}/{}", camera.name, region.name));
                std::iter::once(camera.name.to_string()).chain(regions)
            });
            views.collect::<Vec<_>>().join(", ")
        };
        let unknown = || {
            Failure::Usage(format!("no camera \"{}\" in {}: there are {}", self.camera, self.config.display(), known()))
        };
        let camera = cameras.iter().find(|camera| *camera.name == *name).ok_or_else(unknown)?;
        let Some(region) = region else { return Ok((camera, None)) };
        let region = camera.regions.iter().find(|other| *other.name == *region).ok_or_else(unknown)?;
        Ok((camera, Some(&region.area)))
    }
}

/// Set by SIGINT and SIGTERM; a second one ends the program at once, which loses nothing but the photo being written.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn word(end: End) -> &'static str {
    match end {
        End::Enough => "enough",
        End::Source => "source",
        End::Stopped => "stopped",
    }
}

/// The live count: one line that is rewritten on a terminal, a line a photo elsewhere.
struct Live<'a> {
    what: &'a Capture,
    terminal: bool,
}

impl<'a> Live<'a> {
    fn new(what: &'a Capture) -> Live<'a> {
        Live { what, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, tally: &Tally, offered: Option<&Offered>) {
        let Capture { count, label, .. } = self.what;
        let last = match offered {
            Some(Offered::Kept(path)) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Some(Offered::Alike(bits)) => format!("nearly the same as a photo ({bits} bits)"),
            None => "no picture".into(),
        };
        let Tally { kept, alike, .. } = tally;
        let line = format!("{label}: {kept} of {count}, {alike} passed over; {last}");
        let mut stderr = std::io::stderr();
        // Nobody is told that nobody reads.
        let _ = match (self.terminal, offered) {
            (true, _) => write!(stderr, "\r{line:78}"),
            (false, Some(Offered::Kept(_))) => writeln!(stderr, "{line}"),
            (false, _) => Ok(()),
        };
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r{:78}\r", "");
        }
    }
}

fn print_text(summary: &Value) {
    let number = |key: &str| summary[key].as_u64().unwrap_or_default();
    let folder = summary["folder"].as_str().unwrap_or_default();
    println!(
        "{} of {} photos are in {folder}; {} were nearly the same as another and are not kept",
        number("kept"),
        number("wanted"),
        number("alike")
    );
    match summary["ended"].as_str() {
        Some("source") => println!("The source is read through."),
        Some("stopped") => println!("Stopped before there were enough."),
        _ => {}
    }
}
