//! Winograd's three transforms, written once over vectors of lanes and compiled once per instruction set.
//!
//! No closures here: a closure does not inherit the `target_feature` of the function that calls it, so the vector instructions within would become calls.

// Tiles are indexed by row and column on both sides, as in the formulas.
#![allow(clippy::needless_range_loop)]

use super::Shape;
use crate::kernels::{
    direct::Micro,
    scratch::{LINE, prefetch_near},
};

/// Multiplied by 9, it is 1 modulo 2^32.
const INVERSE_OF_9: i32 = 954_437_177;
/// Groups of weights between their fetch into L1 and their use.
const AHEAD: usize = 8;

/// Vector of 16-bit lanes, for the transforms of inputs and weights.
///
/// # Safety
/// `LEN` lanes; loads and stores touch `LEN` values at any alignment and nothing else; arithmetic wraps. Called only where the CPU has the
/// kernel's features, and only from functions compiled with them (each method is `inline(always)`).
pub(crate) unsafe trait Narrow: Copy {
    const LEN: usize;
    /// # Safety
    /// As the trait says.
    unsafe fn from_u8(from: *const u8) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn from_i8(from: *const i8) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn store(self, to: *mut i16);
    /// # Safety
    /// As the trait says.
    unsafe fn add(self, other: Self) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn sub(self, other: Self) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn shl<const N: u32>(self) -> Self;
}

/// Vector of 32-bit lanes, for the transform of the outputs.
///
/// # Safety
/// As [`Narrow`]; memory is aligned to the vector.
pub(crate) unsafe trait Wide: Copy {
    const LEN: usize;
    /// # Safety
    /// As the trait says.
    unsafe fn load(from: *const i32) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn store(self, to: *mut i32);
    /// # Safety
    /// As the trait says.
    unsafe fn add(self, other: Self) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn sub(self, other: Self) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn shl<const N: u32>(self) -> Self;
    /// The low 32 bits of the product, shifted right arithmetically by 6.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn mul_shr6(self, factor: i32) -> Self;
    /// # Safety
    /// As the trait says.
    unsafe fn max(self, other: Self) -> Self;
}

/// The transforms of one instruction set: each calls the function of the same name in this module, from a function compiled with its features.
///
/// # Safety
/// Each method does what the function of the same name does, under the same contract. Inputs come in whole [`Transforms::LANES`].
pub(crate) unsafe trait Transforms: Micro<Activation = i16, Weight = i16> {
    /// Channels of input that the input's transform handles at once; `CHANNELS * GROUP` is a multiple of the weights' lanes.
    const LANES: usize;

    /// # Safety
    /// As [`weights`].
    unsafe fn weights(pair: usize, from: *const i8, groups: usize, to: *mut i16, position: usize);
    /// # Safety
    /// As [`input`].
    unsafe fn input(shape: Shape, patch: Patch, channels: usize, to: *mut i16, position: usize);
    /// # Safety
    /// As [`output`].
    unsafe fn output(shape: Shape, pool: bool, from: *const i32, position: usize, to: *mut i32);
}

/// Implements [`Transforms`] for a [`Micro`] from its two kinds of lanes: `transforms!(Type, Narrow, Wide, CHANNELS, GROUP, "features")`.
macro_rules! transforms {
    ($micro:ty, $narrow:ty, $wide:ty, $channels:expr, $group:expr, $features:literal) => {
        /// # Safety
        /// As `winograd::weights`; the features are available.
        #[target_feature(enable = $features)]
        unsafe fn transform_weights(pair: usize, from: *const i8, groups: usize, to: *mut i16, position: usize) {
            // SAFETY: the caller's promise. A constant pair in each call leaves one transform in each.
            unsafe {
                match pair {
                    0 => winograd::weights::<$narrow, { $channels * $group }>(0, from, groups, to, position),
                    1 => winograd::weights::<$narrow, { $channels * $group }>(1, from, groups, to, position),
                    _ => winograd::weights::<$narrow, { $channels * $group }>(2, from, groups, to, position),
                }
            }
        }

        /// # Safety
        /// As `winograd::input`; the features are available.
        #[target_feature(enable = $features)]
        unsafe fn transform_input(shape: Shape, patch: Patch, channels: usize, to: *mut i16, position: usize) {
            // SAFETY: the caller's promise.
            unsafe {
                match (shape.low, shape.narrow) {
                    (false, false) => winograd::input::<$narrow>(false, false, patch, channels, to, position),
                    (false, true) => winograd::input::<$narrow>(false, true, patch, channels, to, position),
                    (true, false) => winograd::input::<$narrow>(true, false, patch, channels, to, position),
                    (true, true) => winograd::input::<$narrow>(true, true, patch, channels, to, position),
                }
            }
        }

        /// # Safety
        /// As `winograd::output`; the features are available.
        #[target_feature(enable = $features)]
        unsafe fn transform_output(shape: Shape, pool: bool, from: *const i32, position: usize, to: *mut i32) {
            // SAFETY: the caller's promise.
            unsafe {
                match (shape.low, shape.narrow, pool) {
                    (false, false, false) => {
                        winograd::output::<$wide, { $channels }>(false, false, false, from, position, to)
                    }
                    (false, false, true) => {
                        winograd::output::<$wide, { $channels }>(false, false, true, from, position, to)
                    }
                    (low, narrow, pool) => {
                        winograd::output::<$wide, { $channels }>(low, narrow, pool, from, position, to)
                    }
                }
            }
        }

        // SAFETY: each method is the function of the same name.
        unsafe impl Transforms for $micro {
            const LANES: usize = <$narrow as Narrow>::LEN;

            unsafe fn weights(pair: usize, from: *const i8, groups: usize, to: *mut i16, position: usize) {
                const { assert!(($channels * $group) % <$narrow as Narrow>::LEN == 0) };
                const { assert!($channels % <$wide as Wide>::LEN == 0) };
                // SAFETY: the contract of `Transforms`.
                unsafe { transform_weights(pair, from, groups, to, position) }
            }

            unsafe fn input(shape: Shape, patch: Patch, channels: usize, to: *mut i16, position: usize) {
                // SAFETY: the contract of `Transforms`.
                unsafe { transform_input(shape, patch, channels, to, position) }
            }

            unsafe fn output(shape: Shape, pool: bool, from: *const i32, position: usize, to: *mut i32) {
                // SAFETY: the contract of `Transforms`.
                unsafe { transform_output(shape, pool, from, position, to) }
            }
        }
    };
}
pub(crate) use transforms;

/// A 6x6 window of NHWC codes.
#[derive(Clone, Copy)]
pub(crate) struct Patch {
    pub(crate) codes: *const u8,
    /// Bytes from row to row and from pixel to pixel.
    pub(crate) row: usize,
    pub(crate) pixel: usize,
}

/// One dimension of the weights' transform, for one pair of rows.
///
/// # Safety
/// As [`Narrow`].
#[inline(always)]
unsafe fn weights_1d<N: Narrow>(pair: usize, g: [N; 3]) -> [N; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        match pair {
            0 => {
                let even = g[0].add(g[2]);
                let minus = g[1].sub(even);
                [minus.sub(g[1].shl::<1>()), minus]
            }
            1 => {
                let (even, odd) = (g[0].add(g[2].shl::<2>()), g[1].shl::<1>());
                [even.add(odd), even.sub(odd)]
            }
            _ => [g[0].shl::<2>().add(g[0].shl::<1>()), g[2].shl::<1>().add(g[2])],
        }
    }
}

/// Transforms `groups` times `LANES` packed weights into one panel: `from` is `[group][9][LANES]`, `to` is `[12][group][LANES]`, its positions `position` apart.
///
/// # Safety
/// The memory is there; `LANES` is a multiple of `N::LEN`; as [`Narrow`].
#[inline(always)]
pub(crate) unsafe fn weights<N: Narrow, const LANES: usize>(
    pair: usize,
    from: *const i8,
    groups: usize,
    to: *mut i16,
    position: usize,
) {
    for group in 0..groups {
        let next = from.wrapping_add((group + AHEAD) * 9 * LANES);
        for line in (0..9 * LANES).step_by(LINE) {
            prefetch_near(next.wrapping_add(line));
        }
        for lane in (0..LANES).step_by(N::LEN) {
            // SAFETY: the caller's promise.
            unsafe {
                let from = from.add(group * 9 * LANES + lane);
                let to = to.add(group * LANES + lane);
                let mut columns = [[N::from_i8(from); 2]; 3];
                for (x, column) in columns.iter_mut().enumerate() {
                    let (upper, middle, lower) =
                        (from.add(x * LANES), from.add((3 + x) * LANES), from.add((6 + x) * LANES));
                    *column = weights_1d(pair, [N::from_i8(upper), N::from_i8(middle), N::from_i8(lower)]);
                }
                for row in 0..2 {
                    let to = to.add(row * 6 * position);
                    let g = [columns[0][row], columns[1][row], columns[2][row]];
                    let (inner, outer, ends) = (weights_1d(0, g), weights_1d(1, g), weights_1d(2, g));
                    ends[0].store(to);
                    inner[0].store(to.add(position));
                    inner[1].store(to.add(2 * position));
                    outer[0].store(to.add(3 * position));
                    outer[1].store(to.add(4 * position));
                    ends[1].store(to.add(5 * position));
                }
            }
        }
    }
}

/// One dimension of the inputs' transform; a short one reads four values and leaves places 3 and 4 unset (as zero products: never read).
///
/// # Safety
/// As [`Narrow`].
#[inline(always)]
unsafe fn input_1d<N: Narrow>(short: bool, d: [N; 6]) -> [N; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        if short {
            let t = [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])];
            return [t[0], t[1], t[2], t[0], t[0], t[3]];
        }
        let even = d[4].sub(d[2]);
        let odd = d[1].sub(d[3]);
        let far_even = d[4].sub(d[2].shl::<2>());
        let far_odd = d[3].sub(d[1].shl::<2>());
        let twice = odd.shl::<1>();
        [
            d[0].sub(d[2]).shl::<2>().add(even),
            far_even.add(far_odd),
            far_even.sub(far_odd),
            even.sub(twice),
            even.add(twice),
            twice.shl::<1>().add(d[5].sub(d[3])),
        ]
    }
}

/// Whether a tile that is short in one dimension has no use for place `i` there.
pub(super) const fn skipped(short: bool, i: usize) -> bool {
    short && (i == 3 || i == 4)
}

/// Transforms one tile's inputs: `channels` of each of the 36 positions (fewer for a short tile), `position` apart, from `to` on.
///
/// # Safety
/// The patch has 6 (4 where short) rows and pixels of `channels` codes; the destination is there; `channels` is a multiple of `N::LEN`; as [`Narrow`].
#[inline(always)]
pub(crate) unsafe fn input<N: Narrow>(
    low: bool,
    narrow: bool,
    patch: Patch,
    channels: usize,
    to: *mut i16,
    position: usize,
) {
    let (rows, columns) = (if low { 4 } else { 6 }, if narrow { 4 } else { 6 });
    for channel in (0..channels).step_by(N::LEN) {
        // SAFETY: the caller's promise.
        unsafe {
            let codes = patch.codes.add(channel);
            let mut half = [[N::from_u8(codes); 6]; 6];
            for x in 0..columns {
                let mut column = [half[0][0]; 6];
                for (y, value) in column.iter_mut().enumerate().take(rows) {
                    *value = N::from_u8(codes.add(y * patch.row + x * patch.pixel));
                }
                let column = input_1d(low, column);
                for y in 0..6 {
                    half[y][x] = column[y];
                }
            }
            for (y, half) in half.into_iter().enumerate() {
                if skipped(low, y) {
                    continue;
                }
                for (x, value) in input_1d(narrow, half).into_iter().enumerate() {
                    if !skipped(narrow, x) {
                        value.store(to.add((y * 6 + x) * position + channel));
                    }
                }
            }
        }
    }
}

/// One dimension of the outputs' transform; a short one sets two values.
///
/// # Safety
/// As [`Wide`].
#[inline(always)]
unsafe fn output_1d<W: Wide>(short: bool, m: [W; 6]) -> [W; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        if short {
            let (m0, m5) = (m[0].shl::<2>(), m[5].shl::<3>());
            let (eight_sum, eight_difference) = (sum.shl::<3>(), difference.shl::<3>());
            let upper = m0.sub(eight_sum.add(sum.shl::<2>()));
            let lower = eight_difference.add(difference.shl::<2>()).add(m5);
            let zero = upper.sub(upper);
            return [upper, zero.sub(lower), zero, zero];
        }
        let (far_sum, far_difference) = (m[3].add(m[4]), m[3].sub(m[4]));
        let (sum, difference) = (sum.shl::<2>(), difference.shl::<2>());
        [
            m[0].add(sum).add(far_sum),
            difference.add(far_difference.shl::<1>()),
            sum.add(far_sum.shl::<2>()),
            difference.add(far_difference.add(m[5]).shl::<3>()),
        ]
    }
}

/// Transforms one tile's products into sums: `[pixel][CHANNELS]` with 4 pixels a row (2 with `pool`, which keeps the largest of each 2x2). Short tiles set only
/// their first rows and columns.
///
/// # Safety
/// `from` has `CHANNELS` values at each of the 36 positions, `position` apart (those that a short tile skips are not read); `to` has room for 16 pixels; as [`Wide`].
#[inline(always)]
pub(crate) unsafe fn output<W: Wide, const CHANNELS: usize>(
    low: bool,
    narrow: bool,
    pool: bool,
    from: *const i32,
    position: usize,
    to: *mut i32,
) {
    for channel in (0..CHANNELS).step_by(W::LEN) {
        // SAFETY: the caller's promise.
        unsafe {
            let from = from.add(channel);
            let mut half = [[W::load(from); 6]; 4];
            for x in 0..6 {
                if skipped(narrow, x) {
                    continue;
                }
                let mut column = [half[0][0]; 6];
                for (y, value) in column.iter_mut().enumerate() {
                    if !skipped(low, y) {
                        *value = W::load(from.add((y * 6 + x) * position));
                    }
                }
                let column = output_1d(low, column);
                for y in 0..4 {
                    half[y][x] = column[y];
                }
            }
            let (rows, columns) = (if low { 2 } else { 4 }, if narrow { 2 } else { 4 });
            let mut above = [half[0][0]; 4];
            for (y, half) in half.into_iter().enumerate().take(rows) {
                let mut row = output_1d(narrow, half);
                for value in &mut row {
                    *value = value.mul_shr6(INVERSE_OF_9);
                }
                if !pool {
                    for x in 0..columns {
                        row[x].store(to.add((y * 4 + x) * CHANNELS + channel));
                    }
                } else if y % 2 == 0 {
                    above = row;
                } else {
                    for x in 0..columns / 2 {
                        let (left, right) = (row[2 * x].max(above[2 * x]), row[2 * x + 1].max(above[2 * x + 1]));
                        left.max(right).store(to.add((y / 2 * 2 + x) * CHANNELS + channel));
                    }
                }
            }
        }
    }
}
