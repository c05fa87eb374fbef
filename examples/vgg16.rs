//! The whole of VGG16 on Spotter's kernels, with seeded random weights: for measurements that need no model file.
//!
//!   vgg16 [KERNEL [THREADS [RUNS]]]
//!
//! Prints one line when it is ready and one after each inference, so that a counting emulator can cut its counts there. The last column is a
//! digest of the scores: it must be the same for every kernel.

use spotter::kernels::{Conv, ConvSpec, Dense, Kernel, Pool, Requantize, Scratch};
use std::{error::Error, time::Instant};

/// Output channels of the 13 convolutions, and whether a 2x2 pool follows.
const CONVOLUTIONS: [(usize, bool); 13] = [
    (64, false),
    (64, true),
    (128, false),
    (128, true),
    (256, false),
    (256, false),
    (256, true),
    (512, false),
    (512, false),
    (512, true),
    (512, false),
    (512, false),
    (512, true),
];
const DENSE: [usize; 3] = [4096, 4096, 1000];
const SIDE: usize = 224;

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Like trained weights: most are small, few are large, and none is -128.
    fn weights(&mut self, len: usize) -> Vec<i8> {
        (0..len)
            .map(|_| (((self.next() >> 40) as i8 / 2) as i16 + ((self.next() >> 40) as i8 / 4) as i16).max(-127) as i8)
            .collect()
    }
}

/// Codes 0 to 255 stand for ReLU's outputs; the scale keeps the sums of `depth` products in range.
fn requantize(outputs: usize, depth: usize) -> Requantize {
    Requantize { multiplier: vec![0.04 / (depth as f32).sqrt(); outputs], zero_point: 0, min: 0, max: 255 }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let kernel = args.next().map_or(Ok(Kernel::best()), |name| name.parse())?;
    let threads = args.next().map_or(Ok(1), |n| n.parse())?;
    let runs: usize = args.next().map_or(Ok(2), |n| n.parse())?;

    let mut random = Random(1);
    let (mut channels, mut side) = (3, SIDE);
    let (mut convolutions, mut largest) = (Vec::new(), SIDE * SIDE * channels);
    for (out_channels, pool) in CONVOLUTIONS {
        let spec = ConvSpec {
            in_channels: channels,
            out_channels,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1; 4],
            groups: 1,
            input_zero_point: 0,
            pool,
        };
        let weights = random.weights(out_channels * 9 * channels);
        let bias = vec![500; out_channels];
        convolutions.push((Conv::new(kernel, spec, &weights, &bias, requantize(out_channels, 9 * channels))?, side));
        side = if pool { side / 2 } else { side };
        channels = out_channels;
        largest = largest.max(side * side * channels);
    }
    let mut inputs = side * side * channels;
    let mut dense = Vec::new();
    for outputs in DENSE {
        let weights = random.weights(outputs * inputs);
        dense.push(Dense::new(kernel, inputs, outputs, &weights, &vec![500; outputs], 0, requantize(outputs, inputs))?);
        inputs = outputs;
    }
    let image: Vec<u8> = (0..SIDE * SIDE * 3).map(|_| random.next() as u8).collect();
    let (pool, mut scratch) = (Pool::new(threads), Scratch::new());
    let [mut from, mut to] = [vec![0; largest], vec![0; largest]];
    println!("{kernel}, {} threads, ready", pool.threads());

    for run in 0..runs {
        let start = Instant::now();
        let mut len = image.len();
        from[..len].copy_from_slice(&image);
        for (conv, side) in &convolutions {
            let [height, width] = conv.output_shape([*side; 2]).ok_or("no output")?;
            let out_len = height * width * conv.spec().out_channels;
            conv.run(&pool, &from[..len], [*side; 2], &mut to[..out_len], &mut scratch);
            std::mem::swap(&mut from, &mut to);
            len = out_len;
        }
        for layer in &dense {
            layer.run(&pool, &from[..len], &mut to[..layer.outputs()], &mut scratch);
            std::mem::swap(&mut from, &mut to);
            len = layer.outputs();
        }
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let digest =
            from[..len].iter().fold(0u32, |digest, &code| digest.rotate_left(5).wrapping_mul(31) ^ u32::from(code));
        println!("run {run}: {ms:.1} ms, digest {digest:08x}");
    }
    Ok(())
}
