//! `spotter teach`

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome};
use super::{Format, print_json, sheet};
use crate::capture::decode;
use crate::config::plan::{Fit, Orientation};
use crate::model::{Labels, LoadOptions, Model, Trunk};
use crate::preprocess::{InputTensor, Preprocessor};
use crate::teach::cache::{Cache, key};
use crate::teach::export::{Export, Proof};
use crate::teach::features::{Extracted, View, extract};
use crate::teach::judgement::best;
use crate::teach::photos::{self, Photo};
use crate::teach::train::{Labelled, Taught, softmax, teach};

/// The label of what is none of the others.
const NONE: &str = "none";
/// With fewer photos in the smallest class, flipped and cropped views of them help more than they cost.
const FEW: usize = 20;
/// Mistakes on the picture.
const WORST: usize = 24;
/// Probabilities of the written model and of the taught head may differ so much: they add in another order.
const TOLERANCE: f32 = 1e-3;

/// Teach a model classes of your own: a small head on the frozen features of a trunk.
///
/// The head is a logistic regression, its regularisation chosen by cross-validation, its probabilities calibrated. It also learns to
/// say "none": from photos of the background where they are given, else where features are far from every class.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: spotter teach --model models/vgg16-gap-caltech101.onnx --images photos --output garden.onnx\n\
    with photos/cat/*.jpg, photos/fox/*.jpg, …; at least two photos a class, better twenty"
)]
pub(super) struct Teach {
    /// The trunk: an ONNX file whose manifest names a feature tensor ([output] features), or whose output is features
    #[arg(long, value_name = "TRUNK.onnx")]
    model: PathBuf,
    /// Photos as DIR/<label>/*, or a text file of lines "PHOTO LABEL"
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The model to write; its manifest, labels and self-test photo come beside it
    #[arg(long, value_name = "MODEL.onnx")]
    output: PathBuf,
    /// Photos of what is none of the classes: the empty garden, by day and by night
    #[arg(long, value_name = "DIR")]
    background: Option<PathBuf>,
    /// A model that always chooses among its classes
    #[arg(long, conflicts_with = "background")]
    without_none: bool,
    /// Also learn from flipped and cropped views: four times the work. "auto": when a class has fewer than 20 photos
    #[arg(long, value_enum, default_value_t)]
    augment: Augment,
    /// Where features are kept for the next time; beside the output when absent
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Write the confusion matrix of the cross-validation as a picture
    #[arg(long, value_name = "FILE.png")]
    picture: Option<PathBuf>,
    /// Write the worst mistakes of the cross-validation as a picture
    #[arg(long, value_name = "FILE.png")]
    mistakes: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Threads; all cores when absent
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Whether views are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// By the number of photos
    #[default]
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

/// What is taught: photos, labels, and the label of each photo.
struct Lesson {
    photos: Vec<Photo>,
    labels: Vec<String>,
}

impl Teach {
    pub(super) fn execute(&self) -> Outcome {
        let start = Instant::now();
        if self.output.extension().is_none_or(|e| e != "onnx") {
            return Err(Failure::Usage("--output must end in .onnx: the manifest takes its name".into()));
        }
        let lesson = self.lesson()?;
        let options = LoadOptions { threads: self.threads, ..LoadOptions::default() };
        let mut trunk = Model::load_trunk(&self.model, &options).map_err(Failure::configuration)?;
        let cut = Trunk::read(&self.model).map_err(Failure::configuration)?;
        let mut cache = self.open_cache(&cut, &trunk)?;
        let extracted =
            extract(&mut trunk, &mut cache, &lesson.photos, self.views(&lesson)).map_err(Failure::Runtime)?;
        let spent = start.elapsed();
        drop(trunk);
        extracted.unreadable.iter().for_each(|error| log::warn!("left out: {error}"));
        let examples = lesson.label(&extracted)?;
        let by_distance = self.background.is_none() && !self.without_none;
        let taught = teach(&examples, lesson.labels.len(), by_distance);
        let mut labels = lesson.labels.clone();
        if by_distance {
            labels.push(NONE.into());
        }
        self.write(cut, &taught, &labels, &lesson, &examples)?;
        let mut report = report(&taught, &labels);
        report["photos"] = json!(examples.len());
        report["unreadable"] = json!(extracted.unreadable);
        report["trunk_runs"] = json!(extracted.runs);
        report["features_s"] = json!(spent.as_secs_f64());
        report["total_s"] = json!(start.elapsed().as_secs_f64());
        self.draw(&taught, &labels, &lesson, &examples)?;
        match self.format {
            Format::Json => print_json(&report),
            Format::Text => {
                print_text(&report);
                println!("{} is written", self.output.display());
                Ok(())
            }
        }
    }

    fn lesson(&self) -> Result<Lesson, Failure> {
        let mut photos = photos::list(&self.images).map_err(Failure::runtime)?;
        if let Some(background) = &self.background {
            photos.retain(|p| p.label != NONE);
            photos.extend(photos::of_folder(background, NONE).map_err(Failure::runtime)?);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        photos.iter().for_each(|p| *counts.entry(&p.label).or_default() += 1);
        if self.background.is_none() && !self.without_none && counts.contains_key(NONE) {
            return Err(Failure::Usage(format!(
                "the label \"{NONE}\" is taken: give its folder as --background instead"
            )));
        }
        let mut labels: Vec<String> = counts.keys().filter(|l| **l != NONE).map(|l| (*l).to_owned()).collect();
        if labels.is_empty() || counts.len() < 2 {
            let advice = "put photos of a second class beside it, or of the background with --background DIR";
            return Err(Failure::Runtime(format!("{}: there is one class only; {advice}", self.images.display())));
        }
        labels.extend(counts.contains_key(NONE).then(|| NONE.to_owned()));
        let lonely: Vec<String> = counts.iter().filter(|c| *c.1 < 2).map(|c| (*c.0).to_owned()).collect();
        if !lonely.is_empty() {
            let lonely = lonely.join(", ");
            return Err(Failure::Runtime(format!("only one photo of {lonely}: a class needs two, better twenty")));
        }
        Ok(Lesson { photos, labels })
    }

    fn views(&self, lesson: &Lesson) -> &'static [View] {
        let count = |label: &String| lesson.photos.iter().filter(|p| p.label == *label).count();
        let few = lesson.labels.iter().map(count).min().unwrap_or(0) < FEW;
        let all = match self.augment {
            Augment::Auto => few,
            Augment::On => true,
            Augment::Off => false,
        };
        if all { &View::ALL } else { &View::ALL[..1] }
    }

    /// The cache of this trunk, this feature tensor, this preprocessing and this kernel's arithmetic (bit-exact among our kernels).
    fn open_cache(&self, cut: &Trunk, trunk: &Model) -> Result<Cache, Failure> {
        if let Some(folder) = self.output.parent().filter(|f| !f.as_os_str().is_empty()) {
            let failed = |e| Failure::Runtime(format!("making the folder {}: {e}", folder.display()));
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let path = self.cache.clone().unwrap_or_else(|| self.output.with_extension("features"));
        let input = format!("{:?}", trunk.input());
        Ok(Cache::open(&path, key(&[cut.sha256.as_bytes(), cut.features.as_bytes(), input.as_bytes()])))
    }

    /// Tries the files in a folder of their own, then puts them in their place.
    fn write(&self, cut: Trunk, taught: &Taught, labels: &[String], lesson: &Lesson, examples: &[Labelled]) -> Outcome {
        let proof = proof(taught, labels, lesson, examples).ok_or_else(|| {
            Failure::Runtime("the head recognises none of its own photos: are the labels right?".into())
        })?;
        let (photo, class) = (&lesson.photos[examples[proof].example.photo], examples[proof].class);
        let told = Proof { photo: photo.path.clone(), class: labels[class].clone() };
        let export = Export::new(&self.output, cut, taught, labels, &told).map_err(Failure::Runtime)?;
        let trial = Trial::beside(&self.output)?;
        export.in_folder(&trial.folder).write().map_err(Failure::Runtime)?;
        let model = trial.folder.join(self.output.file_name().unwrap_or_default());
        let expected = softmax(&taught.scores(&examples[proof].example.views[0]));
        self.compare(&model, &photo.path, &expected)?;
        export.write().map_err(Failure::Runtime)
    }

    /// The written model must give what the head gives.
    fn compare(&self, model: &Path, photo: &Path, expected: &[f32]) -> Outcome {
        let options = LoadOptions { threads: self.threads, ..LoadOptions::default() };
        let mut model = Model::load(model, &options).map_err(Failure::runtime)?;
        let rgb = decode::decode_file(photo).map_err(Failure::runtime)?;
        let mut input = InputTensor::U8(Vec::new());
        Preprocessor::new(model.input(), Fit::Crop, Orientation::default())
            .fill(&rgb, None, &mut input)
            .map_err(Failure::runtime)?;
        let scores = model.run(&input).map_err(Failure::runtime)?;
        let gap =
            std::iter::zip(model.probabilities(&scores), expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if gap <= TOLERANCE {
            return Ok(());
        }
        Err(Failure::Runtime(format!(
            "the written model differs from the taught head by {gap} on {}: nothing was changed; please report it",
            photo.display()
        )))
    }

    fn draw(&self, taught: &Taught, labels: &[String], lesson: &Lesson, examples: &[Labelled]) -> Outcome {
        let names = Labels::from_names(labels.to_vec());
        if let Some(path) = &self.picture {
            let judged = &taught.validation.judgement;
            sheet::write_confusion(judged, &names, "held-out photos", path).map_err(Failure::Runtime)?;
        }
        if let Some(path) = &self.mistakes {
            let mut worst: Vec<(f32, sheet::Mistake)> = Vec::new();
            for (example, probabilities) in std::iter::zip(examples, &taught.validation.probabilities) {
                let found = best(probabilities);
                if found != example.class {
                    let photo = lesson.photos[example.example.photo].path.clone();
                    let (taken_for, truth) = (labels[found].clone(), labels[example.class].clone());
                    let probability = probabilities[found];
                    worst.push((probability, sheet::Mistake { photo, truth, taken_for, probability }));
                }
            }
            worst.sort_by(|a, b| b.0.total_cmp(&a.0));
            let count = worst.len();
            let shown: Vec<_> = worst.into_iter().take(WORST).map(|(_, m)| m).collect();
            sheet::write_mistakes(&shown, count, path).map_err(Failure::Runtime)?;
        }
        Ok(())
    }
}

impl Lesson {
    fn label<'a>(&self, extracted: &'a Extracted) -> Result<Vec<Labelled<'a>>, Failure> {
        let classes: HashMap<&str, usize> = self.labels.iter().enumerate().map(|(i, l)| (l.as_str(), i)).collect();
        let class = |photo: usize| classes[self.photos[photo].label.as_str()];
        let examples: Vec<Labelled> =
            extracted.examples.iter().map(|example| Labelled { example, class: class(example.photo) }).collect();
        for (class, label) in self.labels.iter().enumerate() {
            let readable = examples.iter().filter(|e| e.class == class).count();
            if readable < 2 {
                let errors = extracted.unreadable.join("\n");
                return Err(Failure::Runtime(format!(
                    "only {readable} photos of {label} can be read; two are needed\n{errors}"
                )));
            }
        }
        Ok(examples)
    }
}

/// The photo that the head is surest of, for the self-test.
fn proof(taught: &Taught, labels: &[String], lesson: &Lesson, examples: &[Labelled]) -> Option<usize> {
    let decodes = |e: &Labelled| lesson.photos.get(e.example.photo).is_some();
    let sure = |(index, e): (usize, &Labelled)| {
        let probabilities = softmax(&taught.scores(&e.example.views[0]));
        (best(&probabilities) == e.class && labels[e.class] != NONE).then(|| (index, probabilities[e.class]))
    };
    let sure = examples.iter().enumerate().filter(|(_, e)| decodes(e)).filter_map(sure);
    sure.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}

/// A folder that is gone afterwards.
struct Trial {
    folder: PathBuf,
}

impl Trial {
    fn beside(output: &Path) -> Result<Trial, Failure> {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let folder = output.with_file_name(format!(".{name}.{}.trial", std::process::id()));
        let failed = |e| Failure::Runtime(format!("making the folder {}: {e}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Trial { folder })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // What is left of it does no harm, and the outcome is told already.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn report(taught: &Taught, labels: &[String]) -> Value {
    let validation = &taught.validation;
    let judged = &validation.judgement;
    let name = |class: usize| labels.get(class).cloned().unwrap_or_default();
    let classes: Vec<Value> = judged
        .classes()
        .iter()
        .map(
            |c| json!({ "label": name(c.class), "photos": c.photos, "precision": c.precision(), "recall": c.recall() }),
        )
        .collect();
    let mistake = |&(truth, predicted, photos): &(usize, usize, usize)| json!({ "label": name(truth), "predicted": name(predicted), "photos": photos });
    json!({
        "cross_validated_top1": judged.top1(), "calibration_error": judged.calibration_error(),
        "folds": validation.folds, "penalty": validation.penalty, "temperature": validation.temperature,
        "strangers_refused": validation.strangers_refused, "classes": classes,
        "confusion": judged.mistakes().iter().map(mistake).collect::<Vec<_>>(),
    })
}

fn print_text(report: &Value) {
    let percent = |value: &Value| value.as_f64().map_or("    -".into(), |v| format!("{:5.1}", v * 100.0));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("{:30} {:>7} {:>12} {:>9}", "class", "photos", "precision %", "recall %");
    for class in report["classes"].as_array().into_iter().flatten() {
        let (label, photos) = (text(&class["label"]), class["photos"].to_string());
        println!("{label:30} {photos:>7} {:>12} {:>9}", percent(&class["precision"]), percent(&class["recall"]));
    }
    for mistake in report["confusion"].as_array().into_iter().flatten().take(10) {
        println!("{} taken for {}: {}", text(&mistake["label"]), text(&mistake["predicted"]), mistake["photos"]);
    }
    let (top1, error) = (percent(&report["cross_validated_top1"]), percent(&report["calibration_error"]));
    let (photos, folds) = (&report["photos"], &report["folds"]);
    println!("{photos} photos, cross-validated in {folds} folds: top-1 {top1} %, calibration error {error} %");
    if !report["strangers_refused"].is_null() {
        let refused = percent(&report["strangers_refused"]);
        println!("photos of a class that it was not taught: {refused} % are \"{NONE}\"");
    }
    let seconds = |key: &str| report[key].as_f64().unwrap_or_default();
    println!(
        "{:.1} s, of which features {:.1} s ({} runs of the trunk; the others were known)",
        seconds("total_s"),
        seconds("features_s"),
        report["trunk_runs"]
    );
}
