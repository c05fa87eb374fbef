//! In the manner of dav1d's checkasm: every kernel that this CPU runs, against `generic`, byte for byte.

use super::*;

/// xorshift64*: a case is named by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Values {
    Random,
    /// Only the largest and the smallest.
    Extremes,
    /// All at one end, which makes the largest sums.
    Largest,
    Smallest,
}

const VALUES: [Values; 4] = [Values::Random, Values::Extremes, Values::Largest, Values::Smallest];

fn codes(random: &mut Random, values: Values, len: usize) -> Vec<u8> {
    let code = |r: &mut Random| match values {
        Values::Random => r.next() as u8,
        Values::Extremes => r.of(&[0, 255]),
        Values::Largest => 255,
        Values::Smallest => 0,
    };
    (0..len).map(|_| code(random)).collect()
}

fn weights(random: &mut Random, values: Values, len: usize) -> Vec<i8> {
    codes(random, values, len).into_iter().map(|c| (c ^ 0x80) as i8).collect()
}

fn requantization(random: &mut Random, outputs: usize, depth: usize) -> Requantize {
    // So that sums of random products spread over the codes, some clamped.
    let spread = 60.0 / (73.0 * 73.0 * (depth as f32).sqrt());
    let multiplier = |_| spread * (0.5 + random.below(1000) as f32 / 500.0);
    let multiplier = (0..outputs).map(multiplier).collect();
    let min = random.of(&[0, 0, 3, 128]);
    Requantize { multiplier, zero_point: random.of(&[0, 1, 128, 255]), min, max: random.of(&[min, 200.max(min), 255]) }
}

pub(super) fn spec(in_channels: usize, out_channels: usize, kernel: usize) -> ConvSpec {
    ConvSpec {
        in_channels,
        out_channels,
        kernel: [kernel; 2],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [kernel / 2; 4],
        groups: 1,
        input_zero_point: 7,
        pool: false,
    }
}

/// Depthwise weights of 9 bits, as pairs: as `generic` on an input that is there twice.
#[test]
fn depthwise_weights_that_are_pairs() {
    let layers = [spec(40, 40, 3), ConvSpec { stride: [2, 2], ..spec(33, 33, 5) }, spec(96, 96, 3)];
    for (seed, (spec, values)) in layers.into_iter().flat_map(|spec| VALUES.map(|v| (spec.clone(), v))).enumerate() {
        let spec = ConvSpec { groups: spec.in_channels, ..spec };
        let (mut random, shape) = (Random(seed as u64 * 2 + 1), [9, 11]);
        let taps = spec.kernel[0] * spec.kernel[1];
        let input = codes(&mut random, values, shape[0] * shape[1] * spec.in_channels);
        let weights = weights(&mut random, values, spec.out_channels * taps * 2);
        let (bias, rule) = (vec![-77; spec.out_channels], requantization(&mut random, spec.out_channels, 2 * taps));
        let doubled: Vec<u8> = input.iter().flat_map(|&code| [code; 2]).collect();
        let truth = ConvSpec { in_channels: 2 * spec.in_channels, ..spec.clone() };
        for kernel in Kernel::available() {
            let conv = Conv::of_pairs(kernel, spec.clone(), &weights, &bias, rule.clone());
            assert_eq!(conv.is_ok(), Conv::takes_pairs(kernel, &spec), "{kernel}");
            let Ok(conv) = conv else { continue };
            let [height, width] = conv.output_shape(shape).unwrap();
            let mut expected = vec![0; height * width * spec.out_channels];
            generic::convolve_rows(&truth, &weights, &bias, &rule, &doubled, shape, 0..height, &mut expected);
            let kept = Conv::restore(conv.recipe().clone(), copies(conv.parts())).unwrap();
            for (conv, threads) in [(&conv, 1), (&conv, 3), (&kept, 1)] {
                let mut output = vec![0xAA; expected.len()];
                conv.run(&Pool::new(threads), &input, shape, &mut output, &mut Scratch::new());
                assert!(output == expected, "{kernel}, {threads} threads, {values:?}, {spec:?}");
            }
        }
    }
}

#[test]
fn pairs_of_weights_are_for_depthwise_layers() {
    let rule = Requantize { multiplier: vec![1.0; 8], zero_point: 0, min: 0, max: 255 };
    for spec in [spec(8, 8, 3), ConvSpec { groups: 8, pool: true, ..spec(8, 8, 3) }] {
        let weights = vec![1; 8 * 9 * 2 * 8 / spec.groups];
        let conv = Conv::of_pairs(Kernel::best(), spec, &weights, &[0; 8], rule.clone());
        assert!(matches!(conv, Err(KernelError::Spec(_))));
    }
}

/// Packed weights as they come out of a file.
fn copies(parts: &[Part]) -> Vec<Part> {
    parts.iter().map(|part| Part::copied(part.bytes())).collect()
}

/// Runs one case on every kernel, strategy and a few thread counts.
pub(super) fn check(spec: &ConvSpec, shape: [usize; 2], (activations, weighting): (Values, Values), seed: u64) {
    let mut random = Random(seed * 2 + 1);
    let depth = spec.kernel[0] * spec.kernel[1] * spec.in_channels / spec.groups;
    let input = codes(&mut random, activations, shape[0] * shape[1] * spec.in_channels);
    let weights = weights(&mut random, weighting, spec.out_channels * depth);
    let bias: Vec<i32> = (0..spec.out_channels).map(|_| random.below(20_001) as i32 - 10_000).collect();
    let requantize = requantization(&mut random, spec.out_channels, depth);
    let mut expected = Vec::new();
    for kernel in Kernel::available() {
        for strategy in Strategy::ALL {
            let conv =
                Conv::with_strategy(kernel, strategy, spec.clone(), &weights, &bias, requantize.clone()).unwrap();
            let [height, width] = conv.output_shape(shape).unwrap();
            if expected.is_empty() {
                expected = vec![0; height * width * spec.out_channels];
                generic::convolve_rows(spec, &weights, &bias, &requantize, &input, shape, 0..height, &mut expected);
            }
            let kept = Conv::restore(conv.recipe().clone(), copies(conv.parts())).unwrap();
            for (conv, threads) in [(&conv, 1), (&conv, 3), (&kept, 1)] {
                let mut output = vec![0xAA; expected.len()];
                conv.run(&Pool::new(threads), &input, shape, &mut output, &mut Scratch::new());
                if let Some(at) = output.iter().zip(&expected).position(|(a, b)| a != b) {
                    panic!(
                        "{kernel} {strategy:?} ({}), {threads} threads, {shape:?}, {activations:?} x {weighting:?}, seed {seed}, {spec:?}: \
                         byte {at} is {} and not {}",
                        conv.algorithm(),
                        output[at],
                        expected[at]
                    );
                }
            }
        }
    }
}

#[test]
fn every_kind_of_layer() {
    let layers = [
        ("a first layer of 3 channels", spec(3, 64, 3), [17, 31]),
        ("a first layer of 4 channels", spec(4, 32, 3), [12, 29]),
        ("one channel to one", spec(1, 1, 3), [7, 5]),
        ("one row", spec(8, 40, 3), [1, 19]),
        ("one column", spec(8, 40, 3), [19, 1]),
        ("one pixel", spec(5, 3, 3), [1, 1]),
        ("VGG's last layers", spec(64, 64, 3), [14, 14]),
        ("prime sizes", spec(13, 37, 3), [11, 23]),
        ("1x1", spec(24, 48, 1), [7, 7]),
        ("1x1, odd channels", spec(17, 5, 1), [9, 4]),
        ("5x5", spec(6, 20, 5), [9, 13]),
        ("7x7 of stride 2", ConvSpec { stride: [2, 2], ..spec(3, 64, 7) }, [33, 35]),
        ("stride 2 and 3", ConvSpec { stride: [2, 3], ..spec(16, 16, 3) }, [15, 22]),
        ("1x1 of stride 2", ConvSpec { stride: [2, 2], ..spec(8, 16, 1) }, [9, 10]),
        ("dilated", ConvSpec { dilation: [2, 3], padding: [2, 3, 2, 3], ..spec(8, 16, 3) }, [10, 17]),
        ("groups", ConvSpec { groups: 4, ..spec(16, 24, 3) }, [6, 9]),
        ("depthwise", ConvSpec { groups: 40, ..spec(40, 40, 3) }, [9, 11]),
        (
            "depthwise of stride 2",
            ConvSpec { groups: 16, stride: [2, 2], padding: [0, 0, 1, 1], ..spec(16, 16, 3) },
            [8, 12],
        ),
        ("depthwise, two inputs a channel", ConvSpec { groups: 70, ..spec(140, 70, 3) }, [7, 9]),
        ("depthwise, dilated 5x5", ConvSpec { groups: 33, dilation: [2, 1], ..spec(33, 33, 5) }, [9, 6]),
        ("depthwise, two outputs a channel", ConvSpec { groups: 6, ..spec(6, 12, 3) }, [5, 5]),
        ("a tall kernel", ConvSpec { kernel: [5, 1], padding: [2, 0, 2, 0], ..spec(8, 16, 3) }, [9, 9]),
        ("a wide kernel", ConvSpec { kernel: [1, 5], padding: [0, 2, 0, 2], ..spec(8, 16, 3) }, [9, 9]),
        ("no padding", ConvSpec { padding: [0; 4], ..spec(16, 16, 3) }, [8, 18]),
        ("padding above", ConvSpec { padding: [2, 0, 0, 0], ..spec(8, 16, 3) }, [6, 7]),
        ("padding on the left", ConvSpec { padding: [0, 2, 0, 0], ..spec(8, 16, 3) }, [6, 7]),
        ("padding below", ConvSpec { padding: [0, 0, 2, 0], ..spec(8, 16, 3) }, [6, 7]),
        ("padding on the right", ConvSpec { padding: [0, 0, 0, 2], ..spec(8, 16, 3) }, [6, 7]),
        ("padding wider than the image", ConvSpec { padding: [5, 6, 7, 8], ..spec(8, 16, 3) }, [2, 3]),
        ("pooled", ConvSpec { pool: true, ..spec(16, 48, 3) }, [12, 16]),
        ("pooled, odd sizes", ConvSpec { pool: true, ..spec(16, 20, 3) }, [7, 13]),
        ("pooled, one window", ConvSpec { pool: true, ..spec(3, 5, 3) }, [3, 2]),
        ("tiles of 4 only", spec(32, 33, 3), [8, 12]),
        ("tiles of 4 and 2", spec(64, 40, 3), [14, 14]),
        ("low tiles", spec(32, 32, 3), [6, 16]),
        ("narrow tiles", spec(32, 32, 3), [16, 5]),
        ("tiles that stick out", spec(96, 32, 3), [7, 11]),
        ("tiles without padding", ConvSpec { padding: [0; 4], ..spec(32, 16, 3) }, [9, 30]),
        ("tiles, uneven padding", ConvSpec { padding: [0, 3, 5, 1], ..spec(32, 16, 3) }, [9, 10]),
        ("tiles pooled", ConvSpec { pool: true, ..spec(64, 64, 3) }, [14, 14]),
        ("tiles pooled, odd sizes", ConvSpec { pool: true, ..spec(32, 70, 3) }, [15, 9]),
        ("many tiles", ConvSpec { pool: true, ..spec(32, 48, 3) }, [60, 56]),
        ("weights transformed anew", spec(352, 352, 3), [6, 10]),
        ("pooled 1x1", ConvSpec { pool: true, ..spec(16, 20, 1) }, [6, 10]),
    ];
    for (seed, (name, spec, shape)) in layers.into_iter().enumerate() {
        println!("{name}");
        check(&spec, shape, (Values::Random, Values::Random), seed as u64);
        for zero in [0, 128, 255] {
            let spec = ConvSpec { input_zero_point: zero, ..spec.clone() };
            check(&spec, shape, (Values::Extremes, Values::Extremes), seed as u64);
        }
    }
}

#[test]
fn the_largest_sums() {
    for activations in VALUES {
        for weighting in VALUES {
            check(&spec(96, 33, 3), [5, 6], (activations, weighting), 1);
        }
    }
}

#[test]
fn random_layers() {
    for seed in 100..160 {
        let mut random = Random(seed);
        let groups = random.of(&[1, 1, 1, 2, 3]);
        let pool = random.below(3) == 0;
        let spec = ConvSpec {
            in_channels: groups * (1 + random.below(40)),
            out_channels: groups * (1 + random.below(70)),
            kernel: [1 + random.below(5), 1 + random.below(5)],
            stride: [1 + random.below(3), 1 + random.below(3)],
            dilation: [1 + random.below(2), 1 + random.below(2)],
            padding: std::array::from_fn(|_| random.below(3)),
            groups,
            input_zero_point: random.next() as u8,
            pool,
        };
        let shape = [18 + random.below(8), 18 + random.below(25)];
        check(&spec, shape, (random.of(&VALUES), random.of(&VALUES)), seed);
    }
}

#[test]
fn dense_layers() {
    let pools = [Pool::new(1), Pool::new(3)];
    for (seed, (inputs, outputs)) in
        [(1, 1), (7, 3), (64, 64), (513, 100), (1000, 131), (4096, 10)].into_iter().enumerate()
    {
        for (activations, weighting) in VALUES.into_iter().flat_map(|a| VALUES.map(|w| (a, w))) {
            let mut random = Random(seed as u64 + 1);
            let input = codes(&mut random, activations, inputs);
            let weights = weights(&mut random, weighting, inputs * outputs);
            let bias: Vec<i32> = (0..outputs).map(|_| random.below(2001) as i32 - 1000).collect();
            let rule = requantization(&mut random, outputs, inputs);
            let zero = random.of(&[0, 3, 128, 255]);
            let expected: Vec<u8> =
                (0..outputs).map(|c| generic::dense(&weights, &bias, &rule, zero, &input, c)).collect();
            for kernel in Kernel::available() {
                let dense = Dense::new(kernel, inputs, outputs, &weights, &bias, zero, rule.clone()).unwrap();
                let kept = Dense::restore(dense.recipe().clone(), copies(dense.parts())).unwrap();
                for (dense, pool) in [(&dense, &pools[0]), (&dense, &pools[1]), (&kept, &pools[0])] {
                    let mut output = vec![0xAA; outputs];
                    dense.run(pool, &input, &mut output, &mut Scratch::new());
                    assert_eq!(output, expected, "{kernel}, {inputs} -> {outputs}, {activations:?} x {weighting:?}");
                }
            }
        }
    }
}

/// Sums beyond 2^25 would come back wrong from Winograd: such a layer must not use it, and one just below must and be exact.
#[test]
fn winograd_keeps_to_sums_that_it_recovers() {
    // 9 * 96 weights: at most 2^25 / 255 = 131 586 in sum, that is 152.3 a weight: all of 127 fit; 9 * 128 weights of 127 do not.
    for (channels, exact) in [(96, true), (128, false)] {
        for weight in [127i8, -127] {
            let (spec, shape) = (spec(channels, 32, 3), [6, 8]);
            let weights = vec![weight; 32 * 9 * channels];
            let rule = Requantize { multiplier: vec![3e-6; 32], zero_point: 128, min: 0, max: 255 };
            let input = vec![255; 48 * channels];
            let mut expected = vec![0; 48 * 32];
            generic::convolve_rows(&spec, &weights, &[0; 32], &rule, &input, shape, 0..6, &mut expected);
            for kernel in Kernel::available() {
                let make = |s| Conv::with_strategy(kernel, s, spec.clone(), &weights, &[0; 32], rule.clone()).unwrap();
                let conv = make(Strategy::Winograd);
                let mut output = vec![0; 48 * 32];
                conv.run(&Pool::new(1), &input, shape, &mut output, &mut Scratch::new());
                assert_eq!(output, expected, "{kernel}");
                if matches!(kernel, Kernel::Avx2 | Kernel::Vnni) {
                    let name = conv.algorithm();
                    assert_eq!(name.starts_with("winograd"), exact, "{kernel}: {name}");
                }
            }
        }
    }
}

/// The definition itself, against sums done by hand.
#[test]
fn generic_computes_the_definition() {
    let spec = ConvSpec { padding: [0, 1, 0, 0], kernel: [1, 2], ..spec(2, 1, 1) };
    let rule = Requantize { multiplier: vec![0.5], zero_point: 10, min: 0, max: 255 };
    let mut output = [0; 2];
    // Zero point 7. Left: the padding, then (9-7)*3 + (5-7)*4 = -2, + bias 5 = 3, * 0.5 = 1.5, to even 2, + 10.
    // Right: (9-7)*1 + (5-7)*2 + (17-7)*3 + (8-7)*4 = 32, + 5 = 37, * 0.5 = 18.5, to even 18, + 10.
    generic::convolve_rows(&spec, &[1, 2, 3, 4], &[5], &rule, &[9, 5, 17, 8], [1, 2], 0..1, &mut output);
    assert_eq!(output, [12, 28]);
    assert_eq!(generic::dense(&[1, 2, 3, 4], &[5], &rule, 7, &[9, 5, 17, 8], 0), 28);
    let rule = Requantize { multiplier: vec![1e30], zero_point: 10, min: 4, max: 200 };
    assert_eq!([-1, 0, 1].map(|acc| generic::requantize(acc, 0, &rule)), [4, 10, 200]);
}

#[test]
fn impossible_layers_are_refused() {
    let rule = Requantize { multiplier: vec![1.0; 2], zero_point: 0, min: 0, max: 255 };
    let new = |spec: ConvSpec, weights: usize, rule: &Requantize| {
        Conv::new(Kernel::Generic, spec, &vec![0; weights], &[0; 2], rule.clone()).map(|_| ()).unwrap_err().to_string()
    };
    let good = spec(3, 2, 3);
    assert!(Conv::new(Kernel::Generic, good.clone(), &[0; 54], &[0; 2], rule.clone()).is_ok());
    let cases = [
        (new(good.clone(), 53, &rule), "54 values of weights"),
        (new(ConvSpec { stride: [0, 1], ..good.clone() }, 54, &rule), "at least 1"),
        (new(ConvSpec { groups: 2, ..good.clone() }, 27, &rule), "multiple of the groups"),
        (new(ConvSpec { padding: [usize::MAX; 4], ..good.clone() }, 54, &rule), "2^20"),
        (new(spec(3, 3, 3), 81, &rule), "3 values of the multiplier"),
        (new(good.clone(), 54, &Requantize { multiplier: vec![1.0], ..rule.clone() }), "2 values of the multiplier"),
        (new(good.clone(), 54, &Requantize { multiplier: vec![1.0, f32::NAN], ..rule.clone() }), "positive and finite"),
        (new(good.clone(), 54, &Requantize { min: 9, max: 8, ..rule.clone() }), "above the largest"),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{message}");
    }
    let conv = Conv::new(Kernel::Generic, ConvSpec { padding: [0; 4], ..good }, &[0; 54], &[0; 2], rule).unwrap();
    assert_eq!(conv.output_shape([2, 9]), None);
    assert_eq!(conv.output_shape([5, 9]), Some([3, 7]));
    assert_eq!(conv.macs([5, 9]), 3 * 7 * 2 * 27);
}

#[test]
fn pooling_follows_its_definition() {
    let input: Vec<u8> = (0..12).collect();
    let mut output = [0; 4];
    max_pool(&input, [3, 4], 1, [2, 2], [2, 2], [0, 0, 1, 0], &mut output);
    assert_eq!(output, [5, 7, 9, 11]);
    let mut output = [0; 2];
    max_pool(&[1, 9, 3, 4, 5, 2], [1, 3], 2, [1, 3], [1, 1], [0, 0, 0, 0], &mut output);
    assert_eq!(output, [5, 9]);
    let mut average = [0.0; 2];
    global_average(&[10, 0, 20, 255, 31, 255], 3, 2, &mut average, 0.5, 10);
    assert_eq!(average, [(61.0f32 / 3.0 - 10.0) * 0.5, (510.0f32 / 3.0 - 10.0) * 0.5]);
}
