//! `spotter quantize`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome};
use super::{Format, print_json};
use crate::quantize::{Method, Options, QuantizeError, Report, Stage, photos, quantize};
use crate::teach::progress::Progress;

/// Make an int8 model of a float one: weights and activations in 8 bits, calibrated on photos. The result is a standard
/// ONNX (QLinearConv and QLinearMatMul) with a manifest, for Spotter and for onnxruntime.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter quantize vgg16.onnx --calibration photos/ --output vgg16-int8.onnx\n\n\
        The float model's manifest lies beside it, as for every model.")]
pub(super) struct Quantize {
    /// The float ONNX file; its manifest lies beside it
    #[arg(value_name = "FP32.onnx")]
    model: PathBuf,
    /// A folder of photos (with folders in it) like those that the model will see
    #[arg(long, value_name = "DIR")]
    calibration: PathBuf,
    /// The int8 model to write; its manifest is written beside it
    #[arg(long, value_name = "INT8.onnx")]
    output: PathBuf,
    /// Photos to calibrate on
    #[arg(long, value_name = "N", default_value_t = 100)]
    photos: usize,
    /// Further photos, not calibrated on, to compare float and int8 on
    #[arg(long, value_name = "N", default_value_t = 20)]
    held_back: usize,
    /// How the range of each tensor's codes is chosen
    #[arg(long, value_enum, default_value_t)]
    method: Range,
    /// A node to keep in float, by its name; may be given again
    #[arg(long, value_name = "NODE")]
    keep_float: Vec<String>,
    /// Quantise the layer that makes the scores, too: a smaller model, in which two classes may tie
    #[arg(long)]
    quantize_output: bool,
    /// Leave each bias as it is: by default it is corrected by what the weights' rounding adds on average
    #[arg(long)]
    no_bias_correction: bool,
    /// Photos calibrated at the same time; all cores when absent
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// [`Method`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Range {
    /// From the smallest value seen to the largest
    MinMax,
    /// Without the outermost 0.001 % on each side
    Percentile,
    /// Where the codes are nearest to the values, in the sum of squares
    #[default]
    LeastSquares,
}

impl From<Range> for Method {
    fn from(range: Range) -> Method {
        match range {
            Range::MinMax => Method::MinMax,
            Range::Percentile => Method::Percentile,
            Range::LeastSquares => Method::LeastSquares,
        }
    }
}

impl Quantize {
    pub(super) fn execute(&self) -> Outcome {
        if self.photos == 0 || self.threads == Some(0) {
            return Err(Failure::Usage("--photos and --threads must be at least 1".into()));
        }
        if std::fs::canonicalize(&self.model).ok().is_some_and(|m| std::fs::canonicalize(&self.output).ok() == Some(m))
        {
            return Err(Failure::Usage("--output is the float model itself; give another name".into()));
        }
        let found = photos::list(&self.calibration).map_err(Failure::Runtime)?;
        let split = photos::split(&found, self.photos, self.held_back);
        let options = Options {
            method: self.method.into(),
            keep_float: self.keep_float.clone(),
            quantize_output: self.quantize_output,
            bias_correction: !self.no_bias_correction,
            threads: self.threads,
        };
        crate::memory::return_large_blocks();
        let mut shown: Option<Progress> = None;
        let mut progress = |stage| match stage {
            Stage::Calibrating(photos) => shown = Some(Progress::new("calibrating on photos", photos)),
            Stage::Comparing(photos) => shown = Some(Progress::new("comparing on photos held back", photos)),
            Stage::Photo => shown.iter_mut().for_each(Progress::step),
        };
        let report = quantize(&self.model, &split.calibration, &split.held_back, &self.output, &options, &mut progress);
        drop(shown);
        let report = report.map_err(|error| match error {
            QuantizeError::UnknownNode { .. } => Failure::Usage(error.to_string()),
            QuantizeError::Model(_) | QuantizeError::OperatorSet { .. } | QuantizeError::Nothing { .. } => {
                Failure::configuration(error)
            }
            QuantizeError::File(_) | QuantizeError::Run { .. } => Failure::runtime(error),
        })?;
        match self.format {
            Format::Json => print_json(&self.json(&report)),
            Format::Text => {
                self.print(&report);
                Ok(())
            }
        }
    }

    fn json(&self, report: &Report) -> Value {
        let kept = report.kept.iter().map(|k| json!({ "node": k.node, "op": k.op, "why": k.why }));
        let comparison = report.comparison.as_ref().map(|c| {
            json!({
                "photos": c.photos, "top1_agreement": c.top1, "cosine": c.cosine, "worst_cosine": c.worst_cosine,
                "layers": c.layers.iter().map(|l| json!({ "name": l.name, "snr_db": l.snr_db })).collect::<Vec<_>>(),
            })
        });
        json!({
            "output": self.output.to_string_lossy(), "method": Method::from(self.method).to_string(),
            "photos": report.photos, "layers": report.layers, "kept_float": kept.collect::<Vec<_>>(),
            "float_bytes": report.float_bytes, "int8_bytes": report.int8_bytes, "seconds": report.time.as_secs_f64(),
            "peak_rss_bytes": super::bench::peak_rss(), "held_back": comparison,
        })
    }

    fn print(&self, report: &Report) {
        if let Some(comparison) = &report.comparison {
            println!("{:48} {:>10}", "layer", "SNR in dB");
            for layer in &comparison.layers {
                println!("{:48} {:10.1}", layer.name, layer.snr_db);
            }
            println!();
        }
        for kept in &report.kept {
            println!("{} ({}) stays float: {}", kept.node, kept.op, kept.why);
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "{}: {} layers in 8 bits, {:.1} MB (float: {:.1} MB); {} photos, {}, {:.1} s, peak memory {:.0} MB",
            self.output.display(),
            report.layers,
            megabytes(report.int8_bytes),
            megabytes(report.float_bytes),
            report.photos,
            Method::from(self.method),
            report.time.as_secs_f64(),
            megabytes(super::bench::peak_rss().unwrap_or(0)),
        );
        let Some(comparison) = &report.comparison else {
            println!("No photo was held back, so float and int8 are not compared: give more photos than --photos.");
            return;
        };
        let top1 = comparison.top1.map(|t| format!("the same first class on {:.1} %, ", t * 100.0)).unwrap_or_default();
        println!(
            "On {} photos held back, against float: {top1}mean cosine {:.5}, smallest {:.5}",
            comparison.photos, comparison.cosine, comparison.worst_cosine
        );
    }
}
