//! AVX-512 VNNI: `vpdpbusd` multiplies four unsigned codes by four signed weights and adds the sum to a 32-bit lane.

use crate::kernels::{
    dense::Stream,
    depthwise::{Taps, Window},
    direct::{Micro, Tile},
    requantize::{Epilogue, Sums, Target},
    winograd::{self, Narrow, Patch, Shape, Transforms, Wide},
};
use std::arch::x86_64::*;

/// The 512-bit kernel.
pub(crate) struct Vnni;

/// Vectors of 16 outputs in a tile. With 14 pixels: 28 accumulators, 2 weights, 1 broadcast, of 32 registers.
const VECTORS: usize = 2;

// SAFETY: `multiply` reads 4 bytes a pixel and k-group, 2 vectors of weights a k-group, and writes 2 vectors a pixel.
unsafe impl Micro for Vnni {
    type Activation = u8;
    type Weight = i8;
    const NAME: &'static str = "direct-vnni";
    const PIXELS: usize = 14;
    const CHANNELS: usize = 16 * VECTORS;
    const GROUP: usize = 4;

    unsafe fn tile(tile: &Tile<u8, i8>, pixels: usize) {
        // SAFETY: the contract of `Micro`.
        unsafe { by_pixels(tile, pixels) }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Micro`.
        unsafe { requantize::<VECTORS>(epilogue, first, sums, target) }
    }
}

/// The same tile on 16-bit operands, `vpdpwssd`: Winograd's products.
pub(crate) struct VnniWide;

// SAFETY: as `Vnni`: a k-group is again 4 bytes a pixel and 2 vectors of weights.
unsafe impl Micro for VnniWide {
    type Activation = i16;
    type Weight = i16;
    const NAME: &'static str = "winograd-vnni";
    const PIXELS: usize = 14;
    const CHANNELS: usize = 16 * VECTORS;
    const GROUP: usize = 2;

    unsafe fn tile(tile: &Tile<i16, i16>, pixels: usize) {
        // SAFETY: the contract of `Micro`.
        unsafe { by_pixels(tile, pixels) }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Micro`.
        unsafe { requantize::<VECTORS>(epilogue, first, sums, target) }
    }
}

/// The two instructions of a tile.
trait Product {
    /// # Safety
    /// AVX-512 VNNI is available.
    unsafe fn product(sum: __m512i, a: __m512i, w: __m512i) -> __m512i;
}

impl Product for Tile<'_, u8, i8> {
    #[inline(always)]
    unsafe fn product(sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpbusd_epi32(sum, a, w) }
    }
}

impl Product for Tile<'_, i16, i16> {
    #[inline(always)]
    unsafe fn product(sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpwssd_epi32(sum, a, w) }
    }
}

/// # Safety
/// The contract of [`Micro::tile`] with k-groups of 4 bytes; AVX-512 VNNI is available.
#[inline]
unsafe fn by_pixels<A: Copy, W>(tile: &Tile<A, W>, pixels: usize)
where
    for<'a> Tile<'a, A, W>: Product,
{
    // SAFETY: the caller's promise.
    unsafe {
        match pixels {
            1 => multiply::<1, A, W>(tile),
            2 => multiply::<2, A, W>(tile),
            3 => multiply::<3, A, W>(tile),
            4 => multiply::<4, A, W>(tile),
            5 => multiply::<5, A, W>(tile),
            6 => multiply::<6, A, W>(tile),
            7 => multiply::<7, A, W>(tile),
            8 => multiply::<8, A, W>(tile),
            9 => multiply::<9, A, W>(tile),
            10 => multiply::<10, A, W>(tile),
            11 => multiply::<11, A, W>(tile),
            12 => multiply::<12, A, W>(tile),
            13 => multiply::<13, A, W>(tile),
            _ => multiply::<14, A, W>(tile),
        }
    }
}

/// # Safety
/// The contract of [`Micro::tile`] with `PIXELS` pixels and k-groups of 4 bytes; AVX-512 VNNI is available.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply<const PIXELS: usize, A: Copy, W>(tile: &Tile<A, W>)
where
    for<'a> Tile<'a, A, W>: Product,
{
    let mut acc = [[_mm512_setzero_si512(); VECTORS]; PIXELS];
    let mut weights = tile.weights.cast::<u8>();
    let stride = tile.pixel_stride * size_of::<A>();
    for &run in tile.runs {
        // SAFETY: the runs lie in the input.
        let mut input = unsafe { tile.input.add(run).cast::<u8>() };
        for _ in 0..tile.groups {
            // SAFETY: 2 vectors of weights and 4 bytes of each pixel belong to this k-group.
            unsafe {
                let w: [__m512i; VECTORS] = std::array::from_fn(|v| _mm512_load_si512(weights.add(64 * v).cast()));
                for (pixel, acc) in acc.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(input.add(pixel * stride).cast::<i32>().read_unaligned());
                    for v in 0..VECTORS {
                        acc[v] = <Tile<A, W> as Product>::product(acc[v], a, w[v]);
                    }
                }
                weights = weights.add(64 * VECTORS);
                input = input.add(4);
            }
        }
    }
    for (pixel, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: 32 accumulators a pixel.
            unsafe { _mm512_store_si512(tile.accumulators.add((pixel * VECTORS + v) * 16).cast(), *acc) };
        }
    }
}

/// Output pixels of a depthwise tile: with 2 vectors of channels, 8 sums under way.
const PIXELS_OF_TAPS: usize = 4;

// SAFETY: `depthwise` reads 2 vectors of codes a tap and pixel and of weights a tap, and writes 2 vectors a pixel.
unsafe impl Taps for Vnni {
    const NAME: &'static str = "depthwise-vnni";
    const PIXELS: usize = PIXELS_OF_TAPS;
    const CHANNELS: usize = 32;

    unsafe fn tile(window: &Window, pixels: usize) {
        // SAFETY: the contract of `Taps`.
        unsafe {
            let by_depth = if window.depth == 1 { by_pixel::<1> } else { by_pixel::<2> };
            by_depth(window, pixels);
        }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Taps`.
        unsafe { requantize::<VECTORS>(epilogue, first, sums, target) }
    }
}

/// # Safety
/// The contract of [`Taps::tile`]; AVX-512 VNNI is available.
unsafe fn by_pixel<const DEPTH: usize>(window: &Window, pixels: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if pixels == PIXELS_OF_TAPS {
            return depthwise::<PIXELS_OF_TAPS, DEPTH>(window);
        }
        for pixel in 0..pixels {
            let input = window.input.add(pixel * window.pixel_stride);
            let accumulators = window.accumulators.add(pixel * 32);
            depthwise::<1, DEPTH>(&Window { input, accumulators, ..*window });
        }
    }
}

/// # Safety
/// The contract of [`Taps::tile`] with `PIXELS` pixels and `DEPTH` inputs an output; AVX-512 VNNI is available.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn depthwise<const PIXELS: usize, const DEPTH: usize>(window: &Window) {
    let mut acc = [[_mm512_setzero_si512(); 2]; PIXELS];
    for (tap, &offset) in window.taps.iter().enumerate() {
        for v in 0..2 {
            // SAFETY: 32 weights a tap, 32 or twice 32 codes a tap and pixel.
            unsafe {
                let w = _mm512_load_si512(window.weights.add(tap * 32 + v * 16).cast());
                for (pixel, acc) in acc.iter_mut().enumerate() {
                    let codes = window.input.add(pixel * window.pixel_stride + offset + v * 16 * DEPTH);
                    let a = match DEPTH {
                        // The upper half of each lane is 0, so this is one product.
                        1 => _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast())),
                        _ => _mm512_cvtepu8_epi16(_mm256_loadu_si256(codes.cast())),
                    };
                    acc[v] = _mm512_dpwssd_epi32(acc[v], a, w);
                }
            }
        }
    }
    for (pixel, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: 32 accumulators a pixel.
            unsafe { _mm512_store_si512(window.accumulators.add(pixel * 32 + v * 16).cast(), *acc) };
        }
    }
}

/// 32 lanes of 16 bits.
#[derive(Clone, Copy)]
struct Lanes16(__m512i);

// SAFETY: each method is one instruction on 32 lanes.
unsafe impl Narrow for Lanes16 {
    const LEN: usize = 32;

    #[inline(always)]
    unsafe fn from_u8(from: *const u8) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn from_i8(from: *const i8) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the contract of `Narrow`.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm512_add_epi16(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm512_sub_epi16(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Self {
        // SAFETY: the contract of `Narrow`.
        Self(unsafe { _mm512_slli_epi16::<N>(self.0) })
    }
}

/// 16 lanes of 32 bits.
#[derive(Clone, Copy)]
struct Lanes32(__m512i);

// SAFETY: each method is one or two instructions on 16 lanes.
unsafe impl Wide for Lanes32 {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm512_load_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the contract of `Wide`.
        unsafe { _mm512_store_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm512_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm512_slli_epi32::<N>(self.0) })
    }

    #[inline(always)]
    unsafe fn mul_shr6(self, factor: i32) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm512_srai_epi32::<6>(_mm512_mullo_epi32(self.0, _mm512_set1_epi32(factor))) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the contract of `Wide`.
        Self(unsafe { _mm512_max_epi32(self.0, other.0) })
    }
}

winograd::transforms!(VnniWide, Lanes16, Lanes32, 16 * VECTORS, 2, "avx512f,avx512bw");

/// [`pixels`](crate::kernels::requantize::pixels) by hand. The compiler narrows with `vpmovdb` to memory, which takes longer on Zen than all the arithmetic; and
/// a part of a block needs a mask, where it copies byte by byte.
///
/// # Safety
/// As [`pixels`](crate::kernels::requantize::pixels) with `N = 16 * V`, and `V` is 2 or 4; AVX-512 is available.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn requantize<const V: usize>(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
    const { assert!(V == 2 || V == 4) };
    // SAFETY: the caller's promise: `16 * V` channels from `first` exist in both.
    let (offset, multiplier): ([__m512i; V], [__m512; V]) = unsafe {
        let (offset, multiplier) = (epilogue.offset.as_ptr().add(first), epilogue.multiplier.as_ptr().add(first));
        (
            std::array::from_fn(|v| _mm512_loadu_si512(offset.add(16 * v).cast())),
            std::array::from_fn(|v| _mm512_loadu_ps(multiplier.add(16 * v))),
        )
    };
    let high = _mm512_set1_ps(epilogue.high);
    let zero_point = _mm512_set1_epi32(epilogue.zero_point);
    let least = _mm512_set1_epi8((epilogue.low as i32 + epilogue.zero_point) as i8);
    // Packing works within quarters of a vector: quarter q of the result has the q-th four of each operand.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let whole = target.channels == 16 * V;
    let mask = u64::MAX >> (64 - target.channels);
    for row in 0..sums.rows {
        for column in 0..sums.columns {
            // SAFETY: the caller's promise; the mask keeps to the channels that may be written.
            unsafe {
                let acc = sums.first.add((row * sums.across + column) * 16 * V);
                let mut codes = [zero_point; 4];
                for v in 0..V {
                    let acc = _mm512_add_epi32(_mm512_loadu_si512(acc.add(16 * v).cast()), offset[v]);
                    let value = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier[v]);
                    // Ties go to even, and what is far below becomes the least integer.
                    codes[v] = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_min_ps(value, high)), zero_point);
                }
                // Packing saturates: a negative code becomes 0.
                let lower = _mm512_packus_epi32(codes[0], codes[1]);
                let upper = if V == 4 { _mm512_packus_epi32(codes[2], codes[3]) } else { lower };
                let codes = _mm512_max_epu8(_mm512_packus_epi16(lower, upper), least);
                let codes = _mm512_permutexvar_epi32(order, codes);
                let output = target.output.add(row * target.row + column * target.stride);
                match (V, whole) {
                    (2, true) => _mm256_storeu_si256(output.cast(), _mm512_castsi512_si256(codes)),
                    (4, true) => _mm512_storeu_si512(output.cast(), codes),
                    _ => _mm512_mask_storeu_epi8(output.cast(), mask, codes),
                }
            }
        }
    }
}

/// Outputs of a dense block: 4 vectors, so that with two k-groups at once 8 sums are under way.
const DENSE: usize = 64;

// SAFETY: `stream` reads 4 inputs and 4 vectors of weights a k-group and writes 4 vectors.
unsafe impl Stream for Vnni {
    type Activation = u8;
    const NAME: &'static str = "stream-vnni";
    const CHANNELS: usize = DENSE;
    const GROUP: usize = 4;

    unsafe fn block(input: *const u8, weights: *const i8, groups: usize, acc: *mut i32) {
        // SAFETY: the contract of `Stream`.
        unsafe { stream(input, weights, groups, acc) }
    }

    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
        // SAFETY: the contract of `Stream`.
        unsafe { requantize::<{ DENSE / 16 }>(epilogue, first, sums, target) }
    }
}

/// # Safety
/// The contract of [`Stream::block`]; AVX-512 VNNI is available.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn stream(input: *const u8, weights: *const i8, groups: usize, acc: *mut i32) {
    /// Bytes between a weight's prefetch and its use: 2 to 12 KiB measured alike, none is a third slower.
    const AHEAD: usize = 8192;
    let mut sums = [[_mm512_setzero_si512(); 4]; 2];
    for group in (0..groups).step_by(2) {
        // Not `sums[group % 2]`, which the compiler would keep in memory.
        for (half, sums) in sums.iter_mut().enumerate() {
            if group + half == groups {
                break;
            }
            // SAFETY: 4 inputs and 4 vectors of weights belong to this k-group; a prefetch may name any address.
            unsafe {
                let weights = weights.add((group + half) * 4 * DENSE);
                let a = _mm512_set1_epi32(input.add((group + half) * 4).cast::<i32>().read());
                for (v, sum) in sums.iter_mut().enumerate() {
                    _mm_prefetch::<_MM_HINT_NTA>(weights.wrapping_add(AHEAD + 64 * v));
                    *sum = _mm512_dpbusd_epi32(*sum, a, _mm512_load_si512(weights.add(64 * v).cast()));
                }
            }
        }
    }
    for (v, (&even, &odd)) in sums[0].iter().zip(&sums[1]).enumerate() {
        // SAFETY: 64 accumulators, on a cache line.
        unsafe { _mm512_store_si512(acc.add(16 * v).cast(), _mm512_add_epi32(even, odd)) };
    }
}
