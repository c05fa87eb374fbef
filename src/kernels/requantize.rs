//! From accumulators to codes, for all kernels.
//!
//! The loops here are plain Rust, marked `inline(always)`: each instruction set calls them from a function of its own with its
//! `target_feature`, and the compiler vectorises them there. They are apart from the GEMM loops because a function that holds both spills the
//! GEMM's accumulators to the stack, which halves its speed.

use super::{Requantize, scratch::Buffer};

/// [`Requantize`] in the order the kernels read, padded to whole blocks of channels.
pub(crate) struct Epilogue {
    /// What the GEMM left out: the bias less the zero point's share.
    pub(crate) offset: Buffer<i32>,
    pub(crate) multiplier: Buffer<f32>,
    pub(crate) zero_point: f32,
    pub(crate) min: f32,
    pub(crate) max: f32,
}

impl Epilogue {
    /// For `groups` times `per_group` channels, each group padded to a multiple of `block`. `offset` is by channel.
    pub(crate) fn new(requantize: &Requantize, offset: &[i32], groups: usize, block: usize) -> Self {
        let per_group = offset.len() / groups;
        let padded = per_group.next_multiple_of(block);
        let mut epilogue = Self {
            offset: Buffer::new(groups * padded),
            multiplier: Buffer::new(groups * padded),
            zero_point: f32::from(requantize.zero_point),
            min: f32::from(requantize.min),
            max: f32::from(requantize.max),
        };
        for group in 0..groups {
            let (from, to) = (group * per_group, group * padded);
            epilogue.offset[to..to + per_group].copy_from_slice(&offset[from..from + per_group]);
            epilogue.multiplier[to..to + per_group].copy_from_slice(&requantize.multiplier[from..from + per_group]);
        }
        epilogue
    }

    /// One code. `clamp` in float is exact: the rounded product is an integer, and where adding the zero point could round (beyond 2^24) the clamp decides.
    #[inline(always)]
    pub(crate) fn code(&self, acc: i32, multiplier: f32) -> u8 {
        let value = ((acc as f32 * multiplier).round_ties_even() + self.zero_point).clamp(self.min, self.max);
        // SAFETY: clamped to 0..=255, and never NaN: the accumulator and the multiplier are finite.
        unsafe { value.to_int_unchecked::<i32>() as u8 }
    }
}

/// Where a tile's codes go.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The first pixel's first channel.
    pub(crate) output: *mut u8,
    /// Bytes from pixel to pixel.
    pub(crate) stride: usize,
    /// Channels to write, at most a block.
    pub(crate) channels: usize,
}

/// Requantises `pixels` rows of `N` accumulators whose first channel is `first` (in padded order).
///
/// # Safety
/// `acc` has `pixels * N` values, the epilogue `first + N` channels, and the target may be written at each pixel for `channels <= N` bytes.
#[inline(always)]
pub(crate) unsafe fn pixels<const N: usize>(
    epilogue: &Epilogue,
    first: usize,
    acc: *const i32,
    pixels: usize,
    target: Target,
) {
    // SAFETY: the caller's promise; `N` channels from `first` exist in both.
    let (offset, multiplier) = unsafe {
        (
            &*epilogue.offset.as_ptr().add(first).cast::<[i32; N]>(),
            &*epilogue.multiplier.as_ptr().add(first).cast::<[f32; N]>(),
        )
    };
    for pixel in 0..pixels {
        // SAFETY: the caller's promise.
        let acc = unsafe { &*acc.add(pixel * N).cast::<[i32; N]>() };
        let mut codes = [0u8; N];
        for c in 0..N {
            codes[c] = epilogue.code(acc[c].wrapping_add(offset[c]), multiplier[c]);
        }
        // SAFETY: the caller's promise; `channels <= N`.
        unsafe {
            let output = target.output.add(pixel * target.stride);
            if target.channels == N {
                output.cast::<[u8; N]>().write_unaligned(codes);
            } else {
                std::ptr::copy_nonoverlapping(codes.as_ptr(), output, target.channels);
            }
        }
    }
}
