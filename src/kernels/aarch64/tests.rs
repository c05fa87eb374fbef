//! What the checks of all kernels do not reach: sizes at which these drivers divide the work differently, and the choice of algorithm.

use crate::kernels::{
    Conv, ConvSpec, Dense, Kernel, Requantize, Strategy,
    tests::{Values, check, spec},
};

const RANDOM: (Values, Values) = (Values::Random, Values::Random);

/// Tiles of 4x4 outputs: every number in the last panel, one round and several, tiles that reach over each edge.
#[test]
fn winograd_divides_a_layer_in_every_way() {
    for (seed, shape) in (1..=9).map(|tiles| [3, 4 * tiles]).chain([[33, 37], [64, 20], [41, 58]]).enumerate() {
        for pool in [false, true] {
            let spec = ConvSpec { pool, ..spec(16, 20, 3) };
            check(&spec, shape, RANDOM, seed as u64);
            check(&spec, shape, (Values::Extremes, Values::Extremes), seed as u64);
            check(&ConvSpec { padding: [0, 1, 2, 0], ..spec }, shape, RANDOM, seed as u64);
        }
    }
}

/// More output channels than one task's products may fill, so that there are several tasks even for one thread.
#[test]
fn winograd_divides_the_channels() {
    check(&spec(8, 264, 3), [31, 32], RANDOM, 1);
}

/// More panels than one task packs, and channels in several tasks.
#[test]
fn direct_divides_pixels_and_channels() {
    for pool in [false, true] {
        check(&ConvSpec { pool, ..spec(1024, 24, 3) }, [7, 9], RANDOM, 1);
    }
    check(&spec(1024, 72, 3), [2, 3], RANDOM, 2);
}

/// Runs of kernel rows that take each way through the packing: whole steps, gathered, and gathered in one or two copies.
#[test]
fn direct_packs_every_length() {
    for (seed, channels) in [1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48].into_iter().enumerate() {
        for kernel in [1, 2, 3] {
            check(&spec(channels, 9, kernel), [5, 13], RANDOM, seed as u64);
        }
    }
}

fn algorithm(kernel: Kernel, spec: &ConvSpec, weight: i8, bias: i32) -> &'static str {
    let weights = vec![weight; spec.out_channels * spec.kernel[0] * spec.kernel[1] * spec.in_channels / spec.groups];
    let requantize = Requantize { multiplier: vec![0.01; spec.out_channels], zero_point: 0, min: 0, max: 255 };
    let bias = vec![bias; spec.out_channels];
    Conv::with_strategy(kernel, Strategy::Auto, spec.clone(), &weights, &bias, requantize).unwrap().algorithm()
}

/// 9 * 1024 inputs of 248 or 255, as far as they are from zero point 7 or 0, times 14 or 15: just inside of 2^25 and outside.
#[test]
fn winograd_is_chosen_where_it_is_exact() {
    let deep = spec(1024, 8, 3);
    assert_eq!(algorithm(Kernel::Neon, &deep, 14, 0), "winograd-neon");
    assert_eq!(algorithm(Kernel::Neon, &deep, 15, 0), "direct-neon");
    assert_eq!(algorithm(Kernel::Neon, &deep, -14, 0), "winograd-neon");
    assert_eq!(algorithm(Kernel::Neon, &deep, -15, 0), "direct-neon");
    let most = 9 * 1024 * 14 * (255 - 7);
    assert_eq!(algorithm(Kernel::Neon, &deep, 14, (1 << 25) - 1 - most), "winograd-neon");
    assert_eq!(algorithm(Kernel::Neon, &deep, 14, (1 << 25) - most), "direct-neon");
    assert_eq!(algorithm(Kernel::Neon, &ConvSpec { stride: [2, 2], ..spec(16, 8, 3) }, 1, 0), "direct-neon");
    assert_eq!(algorithm(Kernel::Neon, &spec(17, 8, 3), 1, 0), "direct-neon");
    assert_eq!(algorithm(Kernel::Neon, &ConvSpec { groups: 16, ..spec(16, 16, 3) }, 1, 0), "depthwise-neon");
    for (kernel, name) in [(Kernel::DotProd, "direct-dotprod"), (Kernel::I8mm, "direct-i8mm")] {
        if kernel.is_available() {
            assert_eq!(algorithm(kernel, &spec(64, 64, 3), 1, 0), name);
        }
    }
}

/// The sums at the edge of what is exact: each tile's outputs reach the bound.
#[test]
fn winograd_is_exact_at_its_bound() {
    for values in [Values::Largest, Values::Smallest] {
        // 9 * 112 * 127 or 128 * 248 or 7 stay below 2^25; 9 * 128 * 128 * 248 does not and goes the direct way.
        check(&spec(112, 8, 3), [9, 10], (Values::Largest, values), 1);
        check(&spec(128, 8, 3), [9, 10], (Values::Largest, values), 1);
    }
}

#[test]
fn dense_layers_have_the_names_of_their_instructions() {
    for kernel in Kernel::available() {
        let requantize = Requantize { multiplier: vec![1.0], zero_point: 0, min: 0, max: 255 };
        let dense = Dense::new(kernel, 1, 1, &[1], &[0], 0, requantize).unwrap();
        let expected = match kernel {
            Kernel::Neon => "dense-neon",
            Kernel::DotProd | Kernel::I8mm => "dense-dotprod",
            _ => "generic",
        };
        assert_eq!(dense.algorithm(), expected);
    }
}
