//! `spotter look`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::outcome::{Failure, Outcome};
use super::{DEFAULT_CONFIG, sheet};
use crate::capture::{self, Next, Rgb, decode};
use crate::clock::Monotonic;
use crate::config;
use crate::config::plan::CameraPlan;
use crate::daemon::load_options;
use crate::model::Model;
use crate::preprocess::{InputTensor, Preprocessor};
use crate::telemetry::CameraCounters;

/// How long a camera may take to its first usable frame.
const PATIENCE: Duration = Duration::from_secs(15);
/// Live cameras adjust exposure and white balance over their first frames.
const SETTLE: usize = 5;

/// Write a picture of exactly what the model sees through a camera: the frame with its regions, and each region as the
/// model gets it, with what it takes it for.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter look --config garden.toml --camera feeder --output view.png")]
pub(super) struct Look {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The camera's name in the configuration
    #[arg(long, value_name = "NAME")]
    camera: String,
    /// The picture to write
    #[arg(long, value_name = "FILE.png")]
    output: PathBuf,
}

impl Look {
    pub(super) fn execute(&self) -> Outcome {
        let plan = config::load(&self.config).map_err(Failure::configuration)?;
        let Some(camera) = plan.cameras.iter().find(|c| *c.name == *self.camera) else {
            let names: Vec<_> = plan.cameras.iter().map(|c| c.name.to_string()).collect();
            let (wanted, known) = (&self.camera, names.join(", "));
            return Err(Failure::Usage(format!(
                "no camera \"{wanted}\" in {}: there are {known}",
                self.config.display()
            )));
        };
        let options = load_options(&plan.model);
        let mut model = Model::load(&plan.model.path, &options).map_err(Failure::configuration)?;
        let frame = first_frame(camera)?;
        let mut preprocessor = Preprocessor::new(model.input(), camera.fit, camera.orientation);
        let mut input = InputTensor::U8(Vec::new());
        let mut seen = Vec::new();
        let whole = [(None, None)];
        let regions: Vec<_> = camera.regions.iter().map(|r| (Some(r.name.clone()), Some(&r.area))).collect();
        for (name, area) in if regions.is_empty() { &whole[..] } else { &regions[..] } {
            preprocessor.fill(&frame, *area, &mut input).map_err(Failure::runtime)?;
            let picture = preprocessor.view(&frame, *area).map_err(Failure::runtime)?;
            let scores = model.run(&input).map_err(Failure::runtime)?;
            let probabilities = model.probabilities(&scores);
            let (class, probability) = best(&probabilities);
            let label = Arc::from(model.labels().get(class).unwrap_or_default());
            let name = name.clone().unwrap_or_else(|| Arc::from("whole frame"));
            println!("{name}: {label} {:.1} %", probability * 100.0);
            seen.push(sheet::Look { name, picture, label, probability });
        }
        sheet::write_look(&frame, camera, &seen, &self.output).map_err(Failure::Runtime)
    }
}

fn best(probabilities: &[f32]) -> (usize, f32) {
    let pairs = probabilities.iter().copied().enumerate();
    pairs.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// Opens the camera and waits for a frame that decodes.
fn first_frame(camera: &CameraPlan) -> Result<Rgb, Failure> {
    let counters = Arc::new(CameraCounters::default());
    let mut source = capture::open(camera, &counters).map_err(Failure::runtime)?;
    let (deadline, mut good, mut rgb, mut trouble) = (Monotonic::now() + PATIENCE, 0, Rgb::default(), None);
    while Monotonic::now() < deadline {
        match source.next_frame(Duration::from_secs(1)).map_err(Failure::runtime)? {
            Next::Frame(frame) => match decode::decode(&frame, &mut rgb) {
                Ok(()) => good += 1,
                Err(error) => trouble = Some(error.to_string()),
            },
            Next::Idle => {}
            Next::End => break,
        }
        let from_file = matches!(camera.source, config::plan::SourcePlan::Files { .. });
        if good >= if from_file { 1 } else { SETTLE } {
            break;
        }
    }
    match (good, trouble) {
        (0, Some(error)) => Err(Failure::Runtime(format!("camera {}: no frame decodes: {error}", camera.name))),
        (0, None) => Err(Failure::Runtime(format!("camera {}: no frame within {PATIENCE:?}", camera.name))),
        _ => Ok(rgb),
    }
}
