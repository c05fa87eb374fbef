//! `spotter classify`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome};
use super::{Format, print_json};
use crate::capture::decode;
use crate::config::plan::{Fit, Orientation};
use crate::model::{LoadOptions, Model};
use crate::preprocess::{InputTensor, Preprocessor};

/// Say what is on photos.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter classify --model models/vgg16-gap-caltech101.onnx tests/photos/*/*.jpg")]
pub(super) struct Classify {
    /// The ONNX file; its manifest lies beside it
    #[arg(long, value_name = "FILE.onnx")]
    model: PathBuf,
    /// How many classes to show for each photo
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// How the results are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A kernel by name instead of the CPU's best one ("tract": tract's own operators)
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Threads; all cores when absent
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// JPEG or PNG files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

impl Classify {
    pub(super) fn execute(&self) -> Outcome {
        let options = LoadOptions { engine: self.kernel.clone(), threads: self.threads, ..LoadOptions::default() };
        let mut model = Model::load(&self.model, &options).map_err(Failure::configuration)?;
        // As the model was trained and as its scores were measured: its own resize and crop.
        let mut preprocessor = Preprocessor::new(model.input(), Fit::Crop, Orientation::default());
        let mut input = InputTensor::U8(Vec::new());
        let (mut results, mut failed) = (Vec::new(), Vec::new());
        for image in &self.images {
            match self.classify(image, &mut model, &mut preprocessor, &mut input) {
                Ok(top) => {
                    if self.format == Format::Text {
                        print_text(image, &top);
                    }
                    results.push(json!({ "image": image.to_string_lossy(), "top": top }));
                }
                Err(error) => {
                    failed.push(error.clone());
                    results.push(json!({ "image": image.to_string_lossy(), "error": error }));
                }
            }
        }
        if self.format == Format::Json {
            print_json(&json!({ "results": results }))?;
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::Runtime(failed.join("\n"))) }
    }

    /// The top classes, best first.
    fn classify(
        &self,
        image: &Path,
        model: &mut Model,
        preprocessor: &mut Preprocessor,
        input: &mut InputTensor,
    ) -> Result<Vec<Value>, String> {
        let rgb = decode::decode_file(image).map_err(|e| e.to_string())?;
        preprocessor.fill(&rgb, None, input).map_err(|e| format!("{}: {e}", image.display()))?;
        let scores = model.run(input).map_err(|e| format!("{}: {e}", image.display()))?;
        let probabilities = model.probabilities(&scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let entry = |&class: &usize| {
            json!({
                "index": class, "label": model.labels().get(class), "probability": probabilities[class],
                "score": scores[class],
            })
        };
        Ok(order.iter().take(self.top).map(entry).collect())
    }
}

fn print_text(image: &Path, top: &[Value]) {
    println!("{}", image.display());
    for class in top {
        let (label, probability) = (class["label"].as_str().unwrap_or_default(), class["probability"].as_f64());
        println!("  {:5.1} %  {label}", probability.unwrap_or_default() * 100.0);
    }
}
