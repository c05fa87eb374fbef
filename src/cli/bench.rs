//! `spotter bench`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::outcome::{Failure, Outcome};
use super::{Format, print_json};
use crate::kernels::{Conv, ConvSpec, Kernel, Kind, Method, Pool, Preference, Requantize, Scratch, Strategy};
use crate::model::{LoadOptions, Memory, Model};
use crate::preprocess::{InputTensor, TensorFormat};

/// Measure a model on this machine, layer by layer.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter bench --model models/vgg16-gap-caltech101.onnx --threads 1")]
pub(super) struct Bench {
    /// The ONNX file; its manifest lies beside it
    #[arg(long, value_name = "FILE.onnx")]
    model: PathBuf,
    /// Threads; all cores when absent
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Timed runs, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 11)]
    runs: usize,
    /// A kernel by name instead of the CPU's best one ("tract": tract's own operators)
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// How convolutions are computed, instead of by a table of CPU and shape: direct, winograd (where it is exact), auto
    #[arg(long, value_name = "NAME")]
    strategy: Option<Strategy>,
    /// An exception: a layer's name or a kind of layer (as printed), and how it is computed; may be given several times
    #[arg(long, value_name = "LAYER=STRATEGY")]
    layer: Vec<Preference>,
    /// The folder in which the packed model is kept from run to run: the first load is cold, the next one warm
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Hold weights once, in about their own size
    #[arg(long)]
    compact: bool,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Bench {
    pub(super) fn execute(&self) -> Outcome {
        if self.runs == 0 {
            return Err(Failure::Usage("--runs must be at least 1".into()));
        }
        let options = LoadOptions {
            engine: self.kernel.clone(),
            threads: self.threads,
            cache: self.cache.clone(),
            memory: if self.compact { Memory::Compact } else { Memory::Fast },
            strategy: self.strategy,
            layers: self.layer.clone(),
        };
        let mut model = Model::load(&self.model, &options).map_err(Failure::configuration)?;
        let load_peak = peak_rss();
        model.wait_until_kept();
        let input = noise(&model);
        model.run(&input).map_err(Failure::runtime)?;
        let mut whole = Vec::with_capacity(self.runs);
        let mut layers = vec![Vec::with_capacity(self.runs); model.layers().len()];
        for _ in 0..self.runs {
            let start = Instant::now();
            let (_, times) = model.run_timed(&input).map_err(Failure::runtime)?;
            whole.push(start.elapsed());
            layers.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        }
        whole.sort_unstable();
        let times: Vec<Duration> = layers.iter_mut().map(|all| median(all)).collect();
        let report = self.report(&model, &whole, &times, load_peak);
        if self.format == Format::Json {
            return print_json(&report);
        }
        print_text(&report);
        Ok(())
    }

    /// The method for each kind of convolution, where no preference says otherwise; `null` for tract's own operators.
    fn choice(&self, kernel: &str) -> Option<Map<String, Value>> {
        let kernel: Kernel = kernel.parse().ok()?;
        let compact = if self.compact { Strategy::Compact } else { Strategy::Auto };
        let strategy = self.strategy.unwrap_or(compact);
        let method = |kind: Kind| Method::of(kernel, strategy, kind).name();
        Some(Kind::ALL.into_iter().map(|kind| (kind.name().to_owned(), method(kind).into())).collect())
    }

    fn report(&self, model: &Model, sorted: &[Duration], times: &[Duration], load_peak: Option<u64>) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)];
        let layers = model.layers();
        let macs: u64 = layers.iter().map(|l| l.macs).sum();
        let load = model.load_report();
        let all: Duration = times.iter().sum();
        let peak_rss = peak_rss();
        let peak = peak_gmacs_per_s(&load.kernel, load.threads);
        let bandwidth = bandwidth_gb_per_s(load.threads);
        let layer = |(layer, time): (&crate::model::LayerInfo, &Duration)| {
            let seconds = time.as_secs_f64().max(1e-9);
            // A dense layer reads a weight of one byte for each multiplication.
            let limit = if layer.algorithm == "dense" { Some(bandwidth) } else { peak };
            json!({
                "name": layer.name, "kind": layer.kind.map(Kind::name), "algorithm": layer.algorithm,
                "ms": ms(*time), "macs": layer.macs,
                "gmacs_per_s": layer.macs as f64 / seconds / 1e9, "share": seconds / all.as_secs_f64(),
                "of_limit": limit.map(|limit| layer.macs as f64 / seconds / 1e9 / limit),
            })
        };
        json!({
            "median_ms": ms(rank(50)), "min_ms": ms(sorted[0]), "p95_ms": ms(rank(95)),
            "load_ms": ms(load.time), "cache": load.cache.to_string(), "load_peak_rss_bytes": load_peak,
            "peak_rss_bytes": peak_rss, "kernel": load.kernel, "threads": load.threads,
            "macs": macs, "gmacs_per_s": macs as f64 / rank(50).as_secs_f64() / 1e9,
            "peak_gmacs_per_s": peak, "bandwidth_gb_per_s": bandwidth,
            "choice": self.choice(&load.kernel),
            "preferences": self.layer.iter().map(Preference::to_string).collect::<Vec<_>>(),
            "layers": std::iter::zip(&layers, times).map(layer).collect::<Vec<_>>(),
            "foreign": load.foreign.iter().map(|n| format!("{} ({})", n.name, n.op)).collect::<Vec<_>>(),
        })
    }
}

/// The table by which the convolutions got their algorithms, as text; nothing for tract's own operators.
fn print_choice(report: &Value) {
    let Some(choice) = report["choice"].as_object() else { return };
    let defaults: Vec<String> =
        choice.iter().map(|(kind, method)| format!("{kind} {}", method.as_str().unwrap_or_default())).collect();
    let kernel = report["kernel"].as_str().unwrap_or_default();
    println!("convolutions by kind on {kernel}: {}", defaults.join(", "));
    let preferences: Vec<&str> =
        report["preferences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !preferences.is_empty() {
        println!("but for {}", preferences.join(", "));
    }
}

/// Zero for none: a layer that tract has optimised away.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What all threads together read from memory, in GB/s, the best of several times: the limit of dense layers.
fn bandwidth_gb_per_s(threads: usize) -> f64 {
    /// Larger than any cache that these boards and a desktop have.
    const WORDS: usize = 16 << 20;
    const TASK: usize = 64 << 10;
    const TURNS: usize = 8;
    let (pool, words) = (Pool::new(threads), vec![1u64; WORDS]);
    let turn = || {
        let start = Instant::now();
        pool.run(WORDS / TASK, |task, _| {
            // sums that do not wait for each other
            let lines = words[task * TASK..][..TASK].as_chunks::<8>().0;
            std::hint::black_box(lines.iter().fold([0u64; 8], |sums, line| std::array::from_fn(|i| sums[i] ^ line[i])));
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..TURNS).map(|_| turn()).fold(f64::INFINITY, f64::min);
    size_of_val(&words[..]) as f64 / best / 1e9
}

/// What the kernel's direct convolution reaches on a layer whose data stays in the cache (3x3, 256 channels, 14x14), the
/// best of many runs: this machine's limit for the direct method. Winograd's figures, counted in the same
/// multiplications, may lie above it. `None` for tract's own operators.
fn peak_gmacs_per_s(kernel: &str, threads: usize) -> Option<f64> {
    const SIDE: usize = 14;
    const CHANNELS: usize = 256;
    let spec = ConvSpec {
        in_channels: CHANNELS,
        out_channels: CHANNELS,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1; 4],
        groups: 1,
        input_zero_point: 0,
        pool: false,
    };
    let requantize = Requantize { multiplier: vec![1e-4; CHANNELS], zero_point: 0, min: 0, max: 255 };
    let weights: Vec<i8> = (0..CHANNELS * CHANNELS * 9).map(|i| (i * 37 % 251) as i8).collect();
    let (bias, kernel) = (vec![0; CHANNELS], kernel.parse().ok()?);
    let conv = Conv::with_strategy(kernel, Strategy::Direct, spec, &weights, &bias, requantize).ok()?;
    let (pool, mut scratch) = (Pool::new(threads), Scratch::new());
    let (input, mut output) = (vec![77; SIDE * SIDE * CHANNELS], vec![0; SIDE * SIDE * CHANNELS]);
    let mut best = f64::INFINITY;
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until || best.is_infinite() {
        let start = Instant::now();
        conv.run(&pool, &input, [SIDE, SIDE], &mut output, &mut scratch);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Some(conv.macs([SIDE, SIDE]) as f64 / best / 1e9)
}

/// An input without structure: kernels take as long for any. xorshift64 (Marsaglia 2003).
fn noise(model: &Model) -> InputTensor {
    let (height, width) = (model.input().height, model.input().width);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    match model.input().format {
        TensorFormat::U8Nhwc { channels, .. } => {
            InputTensor::U8((0..height * width * channels).map(|_| next()).collect())
        }
        TensorFormat::F32Nchw => InputTensor::F32((0..height * width * 3).map(|_| f32::from(next()) - 128.0).collect()),
    }
}

/// The process's largest resident size so far (`VmHWM` of proc_pid_status(5)), if the system shows it.
pub(super) fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn print_text(report: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    println!("{:48} {:24} {:>9} {:>9} {:>6} {:>9}", "layer", "algorithm", "ms", "GMAC/s", "share", "of limit");
    for layer in report["layers"].as_array().into_iter().flatten() {
        let (name, algorithm) =
            (layer["name"].as_str().unwrap_or_default(), layer["algorithm"].as_str().unwrap_or_default());
        let [ms, rate, share] = ["ms", "gmacs_per_s", "share"].map(|key| number(&layer[key]));
        let of_limit = layer["of_limit"].as_f64().filter(|ratio| *ratio > 0.0).map(|ratio| format!("{ratio:9.2}"));
        println!(
            "{name:48} {algorithm:24} {ms:9.3} {rate:9.1} {:5.1}% {}",
            share * 100.0,
            of_limit.unwrap_or_default()
        );
    }
    for node in report["foreign"].as_array().into_iter().flatten() {
        println!("{:48} tract", node.as_str().unwrap_or_default());
    }
    println!();
    print_choice(report);
    let [median, min, p95, load] = ["median_ms", "min_ms", "p95_ms", "load_ms"].map(|key| number(&report[key]));
    let kernel = report["kernel"].as_str().unwrap_or_default();
    println!(
        "median {median:.1} ms, best {min:.1} ms, 95 % within {p95:.1} ms; kernel {kernel}, {} threads",
        report["threads"]
    );
    if let Some(peak) = report["peak_gmacs_per_s"].as_f64() {
        let [rate, bandwidth] = ["gmacs_per_s", "bandwidth_gb_per_s"].map(|key| number(&report[key]));
        println!(
            "{rate:.1} GMAC/s; the limits here: direct multiplication {peak:.1} GMAC/s, memory {bandwidth:.1} GB/s"
        );
    }
    let [loading, running] = ["load_peak_rss_bytes", "peak_rss_bytes"].map(|key| number(&report[key]) / 1e6);
    let cache = report["cache"].as_str().unwrap_or_default();
    println!("loaded in {load:.0} ms (cache: {cache}); peak memory {loading:.0} MB loading, {running:.0} MB in all");
}
