//! `spotter evaluate`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome};
use super::{Format, print_json, sheet};
use crate::capture::{Rgb, decode};
use crate::config::plan::{Fit, Orientation};
use crate::model::{LoadOptions, Model};
use crate::preprocess::{InputTensor, Preprocessor};
use crate::teach::judgement::{Judgement, best};
use crate::teach::photos::{self, Photo};
use crate::teach::progress::Progress;

/// Judge a model on labelled photos: top-1, top-5, precision and recall of each class, calibration error, confusions,
/// throughput; and how often a second model agrees.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: spotter evaluate --model models/vgg16-gap-caltech101.onnx --picture confusion.png tests/photos"
)]
pub(super) struct Evaluate {
    /// The ONNX file; its manifest lies beside it
    #[arg(long, value_name = "FILE.onnx")]
    model: PathBuf,
    /// A second model, to see where the two agree
    #[arg(long, value_name = "FILE.onnx")]
    against: Option<PathBuf>,
    /// Write the confusion matrix as a picture
    #[arg(long, value_name = "FILE.png")]
    picture: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A kernel by name instead of the CPU's best one ("tract": tract's own operators)
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Threads; all cores when absent
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Photos as DIR/<label>/*, or a text file of lines "PHOTO LABEL"; a label may also be a class index
    #[arg(value_name = "DIR")]
    photos: PathBuf,
}

/// A model, what it made of the photos, and how long it took.
struct Judged {
    model: Model,
    preprocessor: Preprocessor,
    /// Label on the photo to class of the model.
    classes: BTreeMap<String, usize>,
    judgement: Judgement,
    time: Duration,
}

impl Evaluate {
    pub(super) fn execute(&self) -> Outcome {
        let photos = photos::list(&self.photos).map_err(Failure::runtime)?;
        let mut first = self.prepare(&self.model, &photos)?;
        let mut second = self.against.as_deref().map(|path| self.prepare(path, &photos)).transpose()?;
        let (mut agreed, mut unreadable) = (0, Vec::new());
        let mut progress = Progress::new("photos", photos.len());
        for photo in &photos {
            match decode::decode_file(&photo.path) {
                Ok(rgb) => {
                    let class = first.judge(photo, &rgb)?;
                    if let Some(second) = &mut second {
                        let other = second.judge(photo, &rgb)?;
                        agreed += usize::from(first.model.labels().get(class) == second.model.labels().get(other));
                    }
                }
                Err(error) => unreadable.push(error.to_string()),
            }
            progress.step();
        }
        drop(progress);
        if first.judgement.photos() == 0 {
            return Err(Failure::Runtime(unreadable.join("\n")));
        }
        let mut report = first.report();
        report["unreadable"] = json!(unreadable);
        if let Some(second) = &second {
            report["agreement_top1"] = json!(agreed as f64 / first.judgement.photos() as f64);
            report["against"] = second.report();
        }
        if let Some(path) = &self.picture {
            sheet::write_confusion(&first.judgement, first.model.labels(), "photos", path).map_err(Failure::Runtime)?;
        }
        match self.format {
            Format::Json => print_json(&report)?,
            Format::Text => print_text(&report),
        }
        if unreadable.is_empty() { Ok(()) } else { Err(Failure::Runtime(unreadable.join("\n"))) }
    }

    fn prepare(&self, path: &Path, photos: &[Photo]) -> Result<Judged, Failure> {
        let options = LoadOptions { engine: self.kernel.clone(), threads: self.threads, ..LoadOptions::default() };
        let model = Model::load(path, &options).map_err(Failure::configuration)?;
        let classes = match_classes(&model, path, photos)?;
        // as the model was trained: its own resize and crop
        let preprocessor = Preprocessor::new(model.input(), Fit::Crop, Orientation::default());
        Ok(Judged { model, preprocessor, classes, judgement: Judgement::default(), time: Duration::ZERO })
    }
}

/// The class of each label: the label as it stands, else its index.
fn match_classes(model: &Model, path: &Path, photos: &[Photo]) -> Result<BTreeMap<String, usize>, Failure> {
    let mut classes = BTreeMap::new();
    for label in photos.iter().map(|p| &p.label) {
        if classes.contains_key(label) {
            continue;
        }
        let named = model.labels().iter().position(|name| name == label);
        let numbered = || label.parse().ok().filter(|&index: &usize| index < model.outputs());
        let Some(class) = named.or_else(numbered) else {
            let error = model.labels().resolve(label).err().map(|e| e.to_string()).unwrap_or_default();
            let advice = "a photo's folder must be named as a label of the model, or by its index";
            return Err(Failure::Runtime(format!("{}: label \"{label}\": {error}; {advice}", path.display())));
        };
        classes.insert(label.clone(), class);
    }
    Ok(classes)
}

impl Judged {
    /// The most probable class.
    fn judge(&mut self, photo: &Photo, rgb: &Rgb) -> Result<usize, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::Runtime(format!("{}: {e}", photo.path.display()));
        let mut input = InputTensor::U8(Vec::new());
        let start = Instant::now();
        self.preprocessor.fill(rgb, None, &mut input).map_err(|e| failed(&e))?;
        let scores = self.model.run(&input).map_err(|e| failed(&e))?;
        self.time += start.elapsed();
        let probabilities = self.model.probabilities(&scores);
        self.judgement.add(self.classes[&photo.label], &probabilities);
        Ok(best(&probabilities))
    }

    fn report(&self) -> Value {
        let name = |class: usize| self.model.labels().get(class).unwrap_or_default().to_owned();
        let classes: Vec<Value> = self.judgement.classes().iter().map(|c| json!({
            "class": c.class, "label": name(c.class), "photos": c.photos, "predicted": c.predicted, "right": c.right,
            "precision": c.precision(), "recall": c.recall(),
        })).collect();
        let confusion: Vec<Value> = self
            .judgement
            .mistakes()
            .iter()
            .map(|&(truth, predicted, photos)| {
                json!({
                    "label": name(truth), "predicted": name(predicted), "photos": photos,
                })
            })
            .collect();
        let photos = self.judgement.photos();
        json!({
            "images": photos, "top1": self.judgement.top1(), "top5": self.judgement.top5(),
            "calibration_error": self.judgement.calibration_error(), "classes": classes, "confusion": confusion,
            "images_per_s": photos as f64 / self.time.as_secs_f64().max(1e-9),
        })
    }
}

fn print_text(report: &Value) {
    let percent = |value: &Value| value.as_f64().map_or("    -".into(), |v| format!("{:5.1}", v * 100.0));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("{:30} {:>7} {:>12} {:>9}", "class", "photos", "precision %", "recall %");
    for class in report["classes"].as_array().into_iter().flatten() {
        let (label, photos) = (text(&class["label"]), class["photos"].to_string());
        println!("{label:30} {photos:>7} {:>12} {:>9}", percent(&class["precision"]), percent(&class["recall"]));
    }
    let confusion = report["confusion"].as_array().map_or(&[][..], Vec::as_slice);
    for mistake in confusion.iter().take(10) {
        println!("{} taken for {}: {}", text(&mistake["label"]), text(&mistake["predicted"]), mistake["photos"]);
    }
    let line = |report: &Value| {
        let (top1, top5) = (percent(&report["top1"]), percent(&report["top5"]));
        let (error, rate) =
            (percent(&report["calibration_error"]), report["images_per_s"].as_f64().unwrap_or_default());
        let images = &report["images"];
        println!(
            "{images} photos: top-1 {top1} %, top-5 {top5} %, calibration error {error} %, {rate:.1} photos a second"
        );
    };
    line(report);
    if let Some(against) = report.get("against") {
        line(against);
        println!("both give the same class on {} %", percent(&report["agreement_top1"]));
    }
}
