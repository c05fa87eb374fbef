//! VGG16's layers one by one: algorithm, time, rate, and the ratio to this machine's measured peak of 8-bit multiplications.
//!
//! `cargo bench --bench kernels -- [--kernel NAME] [--strategy auto|direct|winograd] [--threads N] [--runs N] [--layers PREFIX]`
//!
//! Weights and inputs are seeded noise: the time of integer kernels does not depend on values, but the choice of Winograd does (its bound is
//! checked on the weights), so weights are drawn as small as those of the trained network are on average.

use spotter::kernels::{Conv, ConvSpec, Dense, Kernel, Pool, Requantize, Scratch, Strategy};
use std::time::{Duration, Instant};

/// Side of the image, inputs, outputs, pooled: the 13 convolutions of VGG16 at 224x224.
const CONVOLUTIONS: [(&str, usize, usize, usize, bool); 13] = [
    ("1_1", 224, 4, 64, false),
    ("1_2", 224, 64, 64, true),
    ("2_1", 112, 64, 128, false),
    ("2_2", 112, 128, 128, true),
    ("3_1", 56, 128, 256, false),
    ("3_2", 56, 256, 256, false),
    ("3_3", 56, 256, 256, true),
    ("4_1", 28, 256, 512, false),
    ("4_2", 28, 512, 512, false),
    ("4_3", 28, 512, 512, true),
    ("5_1", 14, 512, 512, false),
    ("5_2", 14, 512, 512, false),
    ("5_3", 14, 512, 512, true),
];
const DENSE: [(&str, usize, usize); 3] = [("fc6", 25088, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)];

enum Layer {
    Conv(Conv, usize),
    Dense(Dense),
}

impl Layer {
    fn run(&self, pool: &Pool, input: &[u8], output: &mut [u8], scratch: &mut Scratch) {
        match self {
            Self::Conv(conv, side) => conv.run(pool, input, [*side; 2], output, scratch),
            Self::Dense(dense) => dense.run(pool, input, output, scratch),
        }
    }

    /// Inputs, outputs, multiplications, algorithm.
    fn facts(&self) -> (usize, usize, u64, &'static str) {
        match self {
            Self::Conv(conv, side) => {
                let out = conv.output_shape([*side; 2]).expect("VGG16's layers have outputs");
                let spec = conv.spec();
                let sizes = (side * side * spec.in_channels, out[0] * out[1] * spec.out_channels);
                (sizes.0, sizes.1, conv.macs([*side; 2]), conv.algorithm())
            }
            Self::Dense(dense) => (dense.inputs(), dense.outputs(), dense.macs(), dense.algorithm()),
        }
    }
}

struct Options {
    kernel: Kernel,
    strategy: Strategy,
    threads: usize,
    runs: usize,
    /// Only layers whose names begin so.
    layers: String,
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { kernel: Kernel::best(), strategy: Strategy::Auto, threads: 1, runs: 21, layers: String::new() };
    // `cargo bench` passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse::<usize>().ok().filter(|n| *n > 0).ok_or(format!("{name} {value}: not a number"));
        match name.as_str() {
            "--kernel" => options.kernel = value.parse().map_err(|e| format!("{e}"))?,
            "--strategy" => options.strategy = value.parse().map_err(|e| format!("{e}"))?,
            "--threads" => options.threads = number()?,
            "--layers" => options.layers = value,
            "--runs" => options.runs = number()?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

/// Codes or weights: the sum of four bytes of a linear generator, bell-shaped, standard deviation `37 / 2^shift`.
fn noise(len: usize, seed: u64, shift: u32) -> impl Iterator<Item = i8> {
    let mut state = seed;
    (0..len).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sum: i32 = (state >> 32).to_le_bytes()[..4].iter().map(|&b| i32::from(b) - 128).sum();
        ((sum / 4) >> shift) as i8
    })
}

fn requantize(outputs: usize, depth: usize) -> Requantize {
    Requantize { multiplier: vec![0.02 / (depth as f32).sqrt(); outputs], zero_point: 0, min: 0, max: 255 }
}

fn build(options: &Options) -> Vec<(&'static str, Layer)> {
    let convolutions = CONVOLUTIONS.iter().filter(|layer| layer.0.starts_with(&options.layers)).map(
        |&(name, side, inputs, outputs, pool)| {
            let spec = ConvSpec {
                in_channels: inputs,
                out_channels: outputs,
                kernel: [3; 2],
                stride: [1; 2],
                dilation: [1; 2],
                padding: [1; 4],
                groups: 1,
                input_zero_point: 3,
                pool,
            };
            let weights: Vec<i8> = noise(outputs * inputs * 9, side as u64 + inputs as u64, 1).collect();
            let (bias, rule) = (vec![100; outputs], requantize(outputs, inputs * 9));
            let conv = Conv::with_strategy(options.kernel, options.strategy, spec, &weights, &bias, rule);
            (name, Layer::Conv(conv.expect("the table holds possible layers"), side))
        },
    );
    let dense = DENSE.iter().filter(|layer| layer.0.starts_with(&options.layers)).map(|&(name, inputs, outputs)| {
        let weights: Vec<i8> = noise(outputs * inputs, inputs as u64, 1).collect();
        let rule = requantize(outputs, inputs);
        let dense = Dense::new(options.kernel, inputs, outputs, &weights, &vec![100; outputs], 3, rule);
        (name, Layer::Dense(dense.expect("the table holds possible layers")))
    });
    convolutions.chain(dense).collect()
}

/// 8-bit multiplications a second when everything is in the registers and L1: a direct 1x1 convolution on a small image.
fn peak(options: &Options, pool: &Pool) -> f64 {
    let side = 14;
    let spec = ConvSpec {
        in_channels: 256,
        out_channels: 32 * pool.threads(),
        kernel: [1; 2],
        stride: [1; 2],
        dilation: [1; 2],
        padding: [0; 4],
        groups: 1,
        input_zero_point: 0,
        pool: false,
    };
    let weights: Vec<i8> = noise(spec.in_channels * spec.out_channels, 1, 0).collect();
    let (outputs, rule) = (spec.out_channels, requantize(spec.out_channels, 256));
    let conv = Conv::with_strategy(options.kernel, Strategy::Direct, spec, &weights, &vec![0; outputs], rule);
    let conv = conv.expect("a possible layer");
    let (input, mut output, mut scratch) = (vec![1; side * side * 256], vec![0; side * side * outputs], Scratch::new());
    let best = (0..2000).map(|_| time(|| conv.run(pool, &input, [side; 2], &mut output, &mut scratch))).min();
    conv.macs([side; 2]) as f64 / best.unwrap_or_default().as_secs_f64()
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() -> Result<(), String> {
    let options = options()?;
    let start = Instant::now();
    let layers = build(&options);
    let load = start.elapsed();
    let pool = Pool::new(options.threads);
    let mut scratch = Scratch::new();
    let mut buffers: Vec<Vec<u8>> =
        vec![noise(layers.first().map_or(0, |l| l.1.facts().0), 9, 0).map(|v| (v as u8) ^ 0x80).collect()];
    buffers.extend(layers.iter().map(|(_, layer)| vec![0; layer.facts().1]));
    let mut times = vec![Vec::with_capacity(options.runs); layers.len() + 1];
    for run in 0..options.runs + 1 {
        let start = Instant::now();
        for (i, (_, layer)) in layers.iter().enumerate() {
            let (before, after) = buffers.split_at_mut(i + 1);
            let took = time(|| layer.run(&pool, &before[i], &mut after[0], &mut scratch));
            if run > 0 {
                times[i].push(took);
            }
        }
        if run > 0 {
            times[layers.len()].push(start.elapsed());
        }
    }
    let peak = peak(&options, &pool);
    println!(
        "{:<6} {:<18} {:>9} {:>9} {:>9} {:>8}",
        "layer", "algorithm", "median ms", "least ms", "GMAC/s", "of peak"
    );
    let (mut sum, mut least_sum) = (0.0, 0.0);
    for ((name, layer), times) in layers.iter().zip(&mut times) {
        let (_, _, macs, algorithm) = layer.facts();
        let seconds = median(times).as_secs_f64();
        sum += seconds;
        let least = times[0].as_secs_f64();
        least_sum += least;
        let rate = macs as f64 / least;
        let (ms, least_ms) = (seconds * 1e3, least * 1e3);
        println!("{name:<6} {algorithm:<18} {ms:>9.3} {least_ms:>9.3} {:>9.1} {:>8.2}", rate / 1e9, rate / peak);
    }
    let whole = median(&mut times[layers.len()]).as_secs_f64();
    let shortest = times[layers.len()][0].as_secs_f64();
    println!(
        "whole: median {:.2} ms, shortest {:.2} ms, sum of medians {:.2} ms, of least {:.2} ms; {} threads, {}; direct peak {:.1} GMAC/s; packing (with noise) {:.2} s; \
         scratch {:.1} MB",
        whole * 1e3,
        shortest * 1e3,
        sum * 1e3,
        least_sum * 1e3,
        pool.threads(),
        options.kernel,
        peak / 1e9,
        load.as_secs_f64(),
        scratch.bytes() as f64 / 1e6
    );
    Ok(())
}
