//! AVX2: `vpmaddwd` on codes and weights widened to 16 bits. (`vpmaddubsw` would need half the instructions, but it saturates.)

use crate::kernels::{
    dense::Stream,
    direct::{Micro, Tile},
    requantize::{self, Epilogue, Sums, Target},
    winograd::{self, Narrow, Patch, Shape, Transforms, Wide},
};
use std::arch::x86_64::*;

/// The 256-bit kernel.
pub(crate) struct Avx2;

/// Vectors of 8 outputs in a tile. With 6 pixels: 12 accumulators, 2 weights, 1 broadcast, 1 product, of 16 registers.
const VECTORS: usize = 2;

// SAFETY: `multiply` reads a pair of elements a pixel and k-group, 32 weights a k-group, and writes 2 vectors a pixel.
unsafe impl Micro for Avx2 {
    type Activation = i16;
    type Weight = i8;
    const NAME: &'static str = "direct-avx2";
    const PIXELS: usize = 6;
    const CHANNELS: usize = 8 * VECTORS;
    const GROUP: usize = 2;

    unsafe fn tile(tile: &Tile<i16, i8>, pixels: usize) {
        // SAFETY: the contract of `Micro`.
        unsafe { by_pixels(tile, pixels) }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Micro`.
        unsafe { requantize_16(epilogue, first, sums, target) }
    }
}

/// The same tile on 16-bit weights: Winograd's products.
pub(crate) struct Avx2Wide;

// SAFETY: as `Avx2`.
unsafe impl Micro for Avx2Wide {
    type Activation = i16;
    type Weight = i16;
    const NAME: &'static str = "winograd-avx2";
    const PIXELS: usize = 6;
    const CHANNELS: usize = 8 * VECTORS;
    const GROUP: usize = 2;

    unsafe fn tile(tile: &Tile<i16, i16>, pixels: usize) {
        // SAFETY: the contract of `Micro`.
        unsafe { by_pixels(tile, pixels) }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Micro`.
        unsafe { requantize_16(epilogue, first, sums, target) }
    }
}

/// # Safety
/// The contract of [`Micro::tile`]; AVX2 is available.
unsafe fn by_pixels<W: Load>(tile: &Tile<i16, W>, pixels: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match pixels {
            1 => multiply::<1, W>(tile),
            2 => multiply::<2, W>(tile),
            3 => multiply::<3, W>(tile),
            4 => multiply::<4, W>(tile),
            5 => multiply::<5, W>(tile),
            _ => multiply::<6, W>(tile),
        }
    }
}

/// A weight of which 16 load as 16 bits each.
trait Load: Sized {
    /// # Safety
    /// 16 weights are there, aligned to 16 times their size; AVX2 is available.
    unsafe fn load(weights: *const Self) -> __m256i;
}

impl Load for i8 {
    #[inline(always)]
    unsafe fn load(weights: *const i8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi8_epi16(_mm_load_si128(weights.cast())) }
    }
}

impl Load for i16 {
    #[inline(always)]
    unsafe fn load(weights: *const i16) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_load_si256(weights.cast()) }
    }
}

/// # Safety
/// The contract of [`Micro::tile`] with `PIXELS` pixels; AVX2 is available.
#[target_feature(enable = "avx2")]
unsafe fn multiply<const PIXELS: usize, W: Load>(tile: &Tile<i16, W>) {
    let mut acc = [[_mm256_setzero_si256(); VECTORS]; PIXELS];
    let mut weights = tile.weights;
    let stride = tile.pixel_stride;
    for &run in tile.runs {
        // SAFETY: the runs lie in the input.
        let mut input = unsafe { tile.input.add(run) };
        for _ in 0..tile.groups {
            // SAFETY: 32 weights and a pair of each pixel belong to this k-group.
            unsafe {
                let w: [__m256i; VECTORS] = [W::load(weights), W::load(weights.add(16))];
                for (pixel, acc) in acc.iter_mut().enumerate() {
                    let a = _mm256_set1_epi32(input.add(pixel * stride).cast::<i32>().read_unaligned());
                    for v in 0..VECTORS {
                        acc[v] = _mm256_add_epi32(acc[v], _mm256_madd_epi16(a, w[v]));
                    }
                }
                weights = weights.add(16 * VECTORS);
                input = input.add(2);
            }
        }
    }
    for (pixel, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: 16 accumulators a pixel.
            unsafe { _mm256_store_si256(tile.accumulators.add((pixel * VECTORS + v) * 8).cast(), *acc) };
        }
    }
}

/// 16 lanes of 16 bits.
#[derive(Clone, Copy)]
struct Lanes16(__m256i);

// SAFETY: each method is one instruction on 16 lanes.
unsafe impl Narrow for Lanes16 {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn from_u8(from: *const u8) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) })
    }

    #[inline(always)]
    unsafe fn from_i8(from: *const i8) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the contract of `Narrow`.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm256_add_epi16(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm256_sub_epi16(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm256_sll_epi16(self.0, _mm_cvtsi32_si128(N as i32)) })
    }
}

/// 8 lanes of 32 bits.
#[derive(Clone, Copy)]
struct Lanes32(__m256i);

// SAFETY: each method is one or two instructions on 8 lanes.
unsafe impl Wide for Lanes32 {
    const LEN: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm256_load_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the contract of `Wide`.
        unsafe { _mm256_store_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm256_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Self {
        // SAFETY: the contract of `Wide`. The compiler turns the constant count into an immediate.
        Self(unsafe { _mm256_sll_epi32(self.0, _mm_cvtsi32_si128(N as i32)) })
    }

    #[inline(always)]
    unsafe fn mul_shr6(self, factor: i32) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm256_srai_epi32::<6>(_mm256_mullo_epi32(self.0, _mm256_set1_epi32(factor))) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm256_max_epi32(self.0, other.0) })
    }
}

winograd::transforms!(Avx2Wide, Lanes16, Lanes32, 8 * VECTORS, 2, "avx2");

/// # Safety
/// As [`requantize::pixels`]; AVX2 is available.
#[target_feature(enable = "avx2")]
unsafe fn requantize_16(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
    // SAFETY: the caller's promise.
    unsafe { requantize::pixels::<16>(epilogue, first, sums, target) }
}

/// Outputs of a dense block: 64 bytes of weights a k-group.
const DENSE: usize = 32;

// SAFETY: `stream` reads 2 inputs and 64 weights a k-group and writes 4 vectors.
unsafe impl Stream for Avx2 {
    type Activation = i16;
    const NAME: &'static str = "stream-avx2";
    const CHANNELS: usize = DENSE;
    const GROUP: usize = 2;

    unsafe fn block(input: *const i16, weights: *const i8, groups: usize, acc: *mut i32) {
        // SAFETY: the contract of `Stream`.
        unsafe { stream(input, weights, groups, acc) }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Stream`.
        unsafe { requantize_32(epilogue, first, sums, target) }
    }
}

/// # Safety
/// The contract of [`Stream::block`]; AVX2 is available.
#[target_feature(enable = "avx2")]
unsafe fn stream(input: *const i16, weights: *const i8, groups: usize, acc: *mut i32) {
    /// Bytes between a weight's prefetch and its use.
    const AHEAD: usize = 8192;
    let mut sums = [_mm256_setzero_si256(); 4];
    for group in 0..groups {
        // SAFETY: 2 inputs and 64 weights belong to this k-group; a prefetch may name any address.
        unsafe {
            let weights = weights.add(group * 2 * DENSE);
            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(AHEAD));
            let a = _mm256_set1_epi32(input.add(group * 2).cast::<i32>().read());
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, i8::load(weights.add(16 * v))));
            }
        }
    }
    for (v, sum) in sums.iter().enumerate() {
        // SAFETY: 32 accumulators, on a cache line.
        unsafe { _mm256_store_si256(acc.add(8 * v).cast(), *sum) };
    }
}

/// # Safety
/// As [`requantize::pixels`]; AVX2 is available.
#[target_feature(enable = "avx2")]
unsafe fn requantize_32(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
    // SAFETY: the caller's promise.
    unsafe { requantize::pixels::<DENSE>(epilogue, first, sums, target) }
}
