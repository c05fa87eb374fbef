//! Element by element: codes to floats, floats to codes, sums and products of two tensors.
//!
//! Plain Rust on blocks that stay in L1, compiled once more for AVX2: the operations are those of IEEE 754 in the same order on every CPU, so are the bytes.

use serde::{Deserialize, Serialize};

use super::{Pool, scratch::Shared};

/// `value = (code - zero_point) * scale`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The quantisation step.
    pub scale: f32,
    /// The code of the value 0.
    pub zero_point: u8,
}

impl Grid {
    /// ONNX's QuantizeLinear: `clamp(round_ties_even(value / scale) + zero_point)`.
    #[inline(always)]
    pub fn code(self, value: f32) -> u8 {
        // Adding 1.5 * 2^23 leaves no bits below one: the sum is rounded to the nearest integer, ties to even, and stands in its low bits. What lies
        // outside of ±512 saturates anyway; NaN becomes 0.
        const ROUND: f32 = 12_582_912.0;
        let steps = (value / self.scale).clamp(-512.0, 512.0);
        ((steps + ROUND) - ROUND + f32::from(self.zero_point)) as u8
    }

    /// ONNX's DequantizeLinear.
    #[inline(always)]
    pub fn value(self, code: u8) -> f32 {
        (i32::from(code) - i32::from(self.zero_point)) as f32 * self.scale
    }
}

/// How two tensors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Combine {
    /// The sum.
    Add,
    /// The product.
    Multiply,
}

/// An operand: as long as the result, or one value a channel.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Codes on a grid.
    Codes(&'a [u8], Grid),
    /// Values.
    Floats(&'a [f32]),
}

/// The result.
#[derive(Debug)]
pub enum Target<'a> {
    /// Codes on a grid, between two bounds.
    Codes(&'a mut [u8], Grid, [u8; 2]),
    /// Values.
    Floats(&'a mut [f32]),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Codes(codes, _) => codes.len(),
            Self::Floats(values) => values.len(),
        }
    }

    #[inline(always)]
    fn load(&self, first: usize, block: &mut [f32]) {
        match self {
            Self::Codes(codes, grid) => values(&codes[first..first + block.len()], *grid, block),
            Self::Floats(floats) => block.copy_from_slice(&floats[first..first + block.len()]),
        }
    }
}

/// Where a task writes.
#[derive(Clone, Copy)]
enum Place {
    Codes(Shared<u8>, Grid, [u8; 2]),
    Floats(Shared<f32>),
}

/// Elements of a block: three of them in floats are a quarter of the smallest L1.
const BLOCK: usize = 512;
/// Elements that are worth a task of their own.
const TASK: usize = 32 << 10;

#[inline(always)]
fn values(codes: &[u8], grid: Grid, to: &mut [f32]) {
    to.iter_mut().zip(codes).for_each(|(to, code)| *to = grid.value(*code));
}

#[inline(always)]
fn codes(values: &[f32], grid: Grid, [low, high]: [u8; 2], to: &mut [u8]) {
    const ROUND: f32 = 12_582_912.0;
    let zero = i32::from(grid.zero_point);
    // As `Grid::code`, in integers after the rounding: a float to u8 cast saturates lane by lane.
    let (low, high) = (i32::from(low), i32::from(high));
    for (to, value) in to.iter_mut().zip(values) {
        let steps = value / grid.scale;
        // in this order, NaN becomes the smallest
        let steps = if steps > -512.0 { steps } else { -512.0 };
        let steps = if steps < 512.0 { steps } else { 512.0 };
        let code = (steps + ROUND).to_bits() as i32 - ROUND.to_bits() as i32 + zero;
        *to = code.max(low).min(high) as u8;
    }
}

/// The elements `first..first + count` of the result.
///
/// # Safety
/// The place has them, and nobody else writes there.
#[inline(always)]
unsafe fn piece(
    op: Combine,
    [a, b]: [Source; 2],
    channels: usize,
    total: usize,
    first: usize,
    count: usize,
    to: Place,
) {
    let whole = [a.len() == total, b.len() == total];
    let (mut x, mut y) = ([0f32; BLOCK], [0f32; BLOCK]);
    let mut at = first;
    while at < first + count {
        // a block that reads one value a channel ends with its pixel
        let room = if whole == [true, true] { BLOCK } else { channels - at % channels };
        let len = room.min(BLOCK).min(first + count - at);
        let (x, y) = (&mut x[..len], &mut y[..len]);
        a.load(if whole[0] { at } else { at % channels }, x);
        b.load(if whole[1] { at } else { at % channels }, y);
        match op {
            Combine::Add => x.iter_mut().zip(&*y).for_each(|(x, y)| *x += y),
            Combine::Multiply => x.iter_mut().zip(&*y).for_each(|(x, y)| *x *= y),
        }
        // SAFETY: the caller's promise.
        unsafe {
            match to {
                Place::Codes(to, grid, bounds) => {
                    codes(x, grid, bounds, std::slice::from_raw_parts_mut(to.get().add(at), len));
                }
                Place::Floats(to) => std::slice::from_raw_parts_mut(to.get().add(at), len).copy_from_slice(x),
            }
        }
        at += len;
    }
}

/// Compiles `$body` for AVX2 too, and calls what this CPU has.
macro_rules! on_best_cpu {
    ($(#[$doc:meta])* unsafe fn $name:ident($($arg:ident: $type:ty),*) $body:block) => {
        $(#[$doc])*
        unsafe fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                unsafe fn with_avx2($($arg: $type),*) $body
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has AVX2; the caller's promise.
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            $body
        }
    };
}

on_best_cpu! {
    /// # Safety
    /// As [`piece`].
    unsafe fn combine_piece(op: Combine, operands: [Source; 2], channels: usize, total: usize, first: usize, count: usize, to: Place) {
        // SAFETY: the caller's promise.
        unsafe { piece(op, operands, channels, total, first, count, to) }
    }
}

on_best_cpu! {
    /// # Safety
    /// None: it is safe code.
    unsafe fn quantize_all(from: &[f32], grid: Grid, bounds: [u8; 2], to: &mut [u8]) {
        codes(from, grid, bounds, to)
    }
}

on_best_cpu! {
    /// # Safety
    /// None: it is safe code.
    unsafe fn dequantize_all(from: &[u8], grid: Grid, to: &mut [f32]) {
        values(from, grid, to)
    }
}

/// Combines two tensors of `channels` channels, NHWC. An operand is as long as the result, or has one value a channel.
///
/// # Panics
/// When a length is neither.
pub fn combine(pool: &Pool, op: Combine, operands: [Source; 2], channels: usize, to: Target) {
    let (total, place) = match to {
        Target::Codes(codes, grid, bounds) => (codes.len(), Place::Codes(Shared(codes.as_mut_ptr()), grid, bounds)),
        Target::Floats(values) => (values.len(), Place::Floats(Shared(values.as_mut_ptr()))),
    };
    let fits = |source: &Source| source.len() == total || source.len() == channels;
    assert!(operands.iter().all(fits) && channels > 0 && total.is_multiple_of(channels), "combine's operands");
    let tasks = if pool.threads() == 1 { 1 } else { total.div_ceil(TASK).min(4 * pool.threads()) };
    let each = total.div_ceil(tasks.max(1)).next_multiple_of(BLOCK);
    pool.run(tasks, |task, _| {
        let first = task * each;
        let count = each.min(total.saturating_sub(first));
        // SAFETY: tasks write disjoint pieces of the result.
        unsafe { combine_piece(op, operands, channels, total, first, count, place) };
    });
}

/// The pixels of a tensor of `channels` channels, each followed by some of its channels once more.
///
/// # Panics
/// When the lengths do not fit, or a channel is none.
pub fn extend(pool: &Pool, from: &[u8], channels: usize, extra: &[usize], to: &mut [u8]) {
    let wide = channels + extra.len();
    let pixels = from.len() / channels.max(1);
    assert!([pixels * channels, pixels * wide] == [from.len(), to.len()], "extend's output");
    let tasks = if pool.threads() == 1 { 1 } else { from.len().div_ceil(TASK).min(4 * pool.threads()) };
    let each = pixels.div_ceil(tasks.max(1)).max(1);
    let to = Shared(to.as_mut_ptr());
    pool.run(tasks, |task, _| {
        let first = (task * each).min(pixels);
        let count = each.min(pixels - first);
        // SAFETY: tasks write disjoint pixels of the result.
        let to = unsafe { std::slice::from_raw_parts_mut(to.get().add(first * wide), count * wide) };
        for (from, to) in from[first * channels..].chunks_exact(channels).zip(to.chunks_exact_mut(wide)) {
            let (same, more) = to.split_at_mut(channels);
            same.copy_from_slice(from);
            more.iter_mut().zip(extra).for_each(|(to, channel)| *to = from[*channel]);
        }
    });
}

/// Floats to codes between two bounds.
///
/// # Panics
/// When the lengths differ.
pub fn quantize(from: &[f32], grid: Grid, bounds: [u8; 2], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "quantize's output");
    // SAFETY: it asks for nothing.
    unsafe { quantize_all(from, grid, bounds, to) };
}

/// Codes to floats.
///
/// # Panics
/// When the lengths differ.
pub fn dequantize(from: &[u8], grid: Grid, to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "dequantize's output");
    // SAFETY: it asks for nothing.
    unsafe { dequantize_all(from, grid, to) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_pixels_have_their_channels_and_some_again() {
        for threads in [1, 3] {
            let from: Vec<u8> = (0..5 * 7000).map(|i| (i % 251) as u8).collect();
            let mut to = vec![0; 7 * 7000];
            extend(&Pool::new(threads), &from, 5, &[4, 1], &mut to);
            for (from, to) in from.chunks(5).zip(to.chunks(7)) {
                assert_eq!(to, [from, &[from[4], from[1]]].concat());
            }
        }
    }

    const A: Grid = Grid { scale: 0.037, zero_point: 131 };
    const B: Grid = Grid { scale: 0.02, zero_point: 7 };
    const C: Grid = Grid { scale: 0.051, zero_point: 90 };

    #[test]
    fn blocks_give_what_single_elements_give() {
        let values = [0.0, 0.5, 1.5, -2.5, 1e9, -1e9, f32::NAN, f32::INFINITY, 0.0255, 3.2, -4.6];
        let mut found = [0; 11];
        quantize(&values, C, [0, 255], &mut found);
        assert_eq!(found, values.map(|v| C.code(v)));
        quantize(&values, C, [88, 200], &mut found);
        assert_eq!(found, values.map(|v| C.code(v).clamp(88, 200)));
        let all: Vec<u8> = (0..=255).collect();
        let mut floats = vec![0.0; 256];
        dequantize(&all, A, &mut floats);
        assert!(all.iter().zip(&floats).all(|(code, value)| A.value(*code) == *value));
    }

    #[test]
    fn sums_and_products_of_every_kind_of_operand() {
        for (channels, pixels) in [(1, 1), (5, 7), (48, 1600), (600, 3)] {
            let total = channels * pixels;
            let code = |i: usize| (i * 37 % 251) as u8;
            let a: Vec<u8> = (0..total).map(code).collect();
            let b: Vec<u8> = (0..channels).map(|i| code(i + 100)).collect();
            let c: Vec<f32> = (0..total).map(|i| (i % 91) as f32 * 0.11 - 5.0).collect();
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                for op in [Combine::Add, Combine::Multiply] {
                    let apply = |x: f32, y: f32| if op == Combine::Add { x + y } else { x * y };
                    let mut codes = vec![0; total];
                    combine(
                        &pool,
                        op,
                        [Source::Codes(&a, A), Source::Codes(&b, B)],
                        channels,
                        Target::Codes(&mut codes, C, [20, 240]),
                    );
                    let expected = |i: usize| C.code(apply(A.value(a[i]), B.value(b[i % channels]))).clamp(20, 240);
                    assert!((0..total).all(|i| codes[i] == expected(i)), "{op:?}, {channels} channels");
                    let mut floats = vec![0.0; total];
                    let operands = [Source::Floats(&c), Source::Codes(&a, A)];
                    combine(&pool, op, operands, channels, Target::Floats(&mut floats));
                    assert!((0..total).all(|i| floats[i] == apply(c[i], A.value(a[i]))));
                }
            }
        }
    }
}
