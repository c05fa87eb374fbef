//! From 32-bit sums to 8-bit codes, eight output channels at a time.

use crate::kernels::{
    Requantize,
    packed::{Packed, Packer},
    scratch::Buffer,
};
use std::arch::aarch64::*;

/// Sums of eight pixels (or tiles) by eight channels.
pub(super) type Sums = [[int32x4_t; 2]; 8];

/// What is added to a sum and how it becomes a code, for channels padded to a multiple of eight.
pub(super) struct Finish {
    /// The bias, and with it whatever is the same for every pixel: the zero point's share, the shift of the activations.
    pub(super) bias: Packed<i32>,
    multiplier: Buffer<f32>,
    zero_point: i16,
    min: u8,
    max: u8,
}

impl Finish {
    /// `bias` gives what has to be added to the kernel's sums. `padded` places of channels; `place(c)` is where channel `c` lies among them.
    pub(super) fn new(
        packer: &mut Packer,
        bias: impl FnOnce() -> Vec<i32>,
        requantize: &Requantize,
        padded: usize,
        place: impl Fn(usize) -> usize,
    ) -> Self {
        let bias = packer.array(padded, |to| bias().into_iter().enumerate().for_each(|(c, bias)| to[place(c)] = bias));
        let mut finish = Self {
            bias,
            multiplier: Buffer::new(padded),
            zero_point: requantize.zero_point.into(),
            min: requantize.min,
            max: requantize.max,
        };
        for (c, &multiplier) in requantize.multiplier.iter().enumerate() {
            finish.multiplier[place(c)] = multiplier;
        }
        finish
    }

    /// The multipliers of eight channels.
    ///
    /// # Safety
    /// `at + 8` places exist.
    #[inline(always)]
    pub(super) unsafe fn multipliers(&self, at: usize) -> [float32x4_t; 2] {
        debug_assert!(at + 8 <= self.multiplier.len());
        // SAFETY: the caller's promise.
        unsafe { [vld1q_f32(self.multiplier.as_ptr().add(at)), vld1q_f32(self.multiplier.as_ptr().add(at + 4))] }
    }

    /// The codes of one pixel's eight sums. Narrowing saturates at each step, and a value that saturates is outside of 0 to 255 either way.
    ///
    /// # Safety
    /// None beyond the CPU being an aarch64.
    #[inline(always)]
    pub(super) unsafe fn codes(&self, sums: [int32x4_t; 2], multipliers: [float32x4_t; 2]) -> uint8x8_t {
        // SAFETY: registers only.
        unsafe {
            let low = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[0]), multipliers[0]));
            let high = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[1]), multipliers[1]));
            let both = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), vdupq_n_s16(self.zero_point));
            vmin_u8(vmax_u8(vqmovun_s16(both), vdup_n_u8(self.min)), vdup_n_u8(self.max))
        }
    }

    /// Writes eight pixels' codes, or with `POOL` the maxima of two times four. Multipliers are positive, so the maximum may be taken first.
    ///
    /// # Safety
    /// `at + 8` places exist. `to` has room for `pixels` (at most 8, with `POOL` 2) times `channels` (at most 8) bytes, `stride` bytes apart.
    #[inline(always)]
    pub(super) unsafe fn store<const POOL: bool>(&self, sums: &Sums, at: usize, to: Place) {
        let all = if POOL { 2 } else { 8 };
        // SAFETY: the caller's promise.
        unsafe {
            if to.pixels < all || to.channels < 8 {
                return self.store_part::<POOL>(sums, at, to);
            }
            let multipliers = self.multipliers(at);
            for pixel in 0..all {
                vst1_u8(to.start.add(pixel * to.stride), self.codes(pooled::<POOL>(sums, pixel), multipliers));
            }
        }
    }

    /// The same at an edge.
    ///
    /// # Safety
    /// As for `store`.
    #[cold]
    #[inline(never)]
    unsafe fn store_part<const POOL: bool>(&self, sums: &Sums, at: usize, to: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            let multipliers = self.multipliers(at);
            for pixel in 0..to.pixels {
                to.write(pixel, self.codes(pooled::<POOL>(sums, pixel), multipliers));
            }
        }
    }
}

/// The sums of a pixel, or the largest of its window's.
#[inline(always)]
fn pooled<const POOL: bool>(sums: &Sums, pixel: usize) -> [int32x4_t; 2] {
    if !POOL {
        return sums[pixel];
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| sums[pixel * 4 + i]);
    // SAFETY: registers only.
    [0, 1].map(|h| unsafe { vmaxq_s32(vmaxq_s32(a[h], b[h]), vmaxq_s32(c[h], d[h])) })
}

/// Where codes go: `pixels` times `channels` bytes, the pixels `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) start: *mut u8,
    pub(super) stride: usize,
    pub(super) pixels: usize,
    pub(super) channels: usize,
}

impl Place {
    /// # Safety
    /// `pixel < self.pixels`, and the memory is ours to write.
    #[inline(always)]
    pub(super) unsafe fn write(&self, pixel: usize, codes: uint8x8_t) {
        // SAFETY: the caller's promise; all eight bytes only where all eight channels exist.
        unsafe {
            let to = self.start.add(pixel * self.stride);
            if self.channels >= 8 {
                vst1_u8(to, codes);
            } else {
                let mut bytes = [0; 8];
                vst1_u8(bytes.as_mut_ptr(), codes);
                to.copy_from_nonoverlapping(bytes.as_ptr(), self.channels);
            }
        }
    }
}
