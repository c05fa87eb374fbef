//! From accumulators to codes, for all kernels.
//!
//! The loops here are plain Rust, marked `inline(always)`: each instruction set calls them from a function of its own with its
//! `target_feature`, and the compiler vectorises them there. They are apart from the GEMM loops because a function that holds both spills the
//! GEMM's accumulators to the stack, which halves its speed.

use super::{
    Requantize,
    packed::{Packed, Packer},
    scratch::Buffer,
};

/// [`Requantize`] in the order the kernels read, padded to whole blocks of channels.
pub(crate) struct Epilogue {
    /// What the GEMM left out: the bias less the zero point's share.
    pub(crate) offset: Packed<i32>,
    pub(crate) multiplier: Buffer<f32>,
    pub(crate) zero_point: i32,
    /// The bounds of the code before the zero point is added.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Epilogue {
    /// 1.5 * 2^23: see [`Epilogue::code`].
    pub(crate) const ROUND: f32 = 12_582_912.0;

    /// For `groups` times `per_group` channels, each group padded to a multiple of `block`. `offsets` gives one by channel.
    pub(crate) fn new(
        packer: &mut Packer,
        requantize: &Requantize,
        offsets: impl FnOnce() -> Vec<i32>,
        groups: usize,
        block: usize,
    ) -> Self {
        let per_group = requantize.multiplier.len() / groups;
        let padded = per_group.next_multiple_of(block);
        let offset = packer.array(groups * padded, |to| {
            for (from, to) in offsets().chunks(per_group).zip(to.chunks_mut(padded)) {
                to[..per_group].copy_from_slice(from);
            }
        });
        let mut epilogue = Self {
            offset,
            multiplier: Buffer::new(groups * padded),
            zero_point: i32::from(requantize.zero_point),
            low: f32::from(requantize.min) - f32::from(requantize.zero_point),
            high: f32::from(requantize.max) - f32::from(requantize.zero_point),
        };
        for group in 0..groups {
            let (from, to) = (group * per_group, group * padded);
            epilogue.multiplier[to..to + per_group].copy_from_slice(&requantize.multiplier[from..from + per_group]);
        }
        epilogue
    }

    /// One code, as `generic` defines it, in fewer operations.
    ///
    /// The bounds are integers, so clamping first and rounding then gives the same. Adding 1.5 * 2^23 to a float below 2^22 leaves it rounded to an
    /// integer, ties to even, in the low bits of the sum.
    #[inline(always)]
    fn code(&self, acc: i32, multiplier: f32) -> u8 {
        let value = acc as f32 * multiplier;
        let value = if value < self.low { self.low } else { value };
        let value = if value > self.high { self.high } else { value };
        ((value + Self::ROUND).to_bits() as i32).wrapping_add(self.zero_point) as u8
    }
}

/// The accumulators of a piece of the output.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    /// `[row][across][N]`
    pub(crate) first: *const i32,
    /// Pixels from row to row.
    pub(crate) across: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Where a piece's codes go.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The first pixel's first channel.
    pub(crate) output: *mut u8,
    /// Bytes from pixel to pixel.
    pub(crate) stride: usize,
    /// Bytes from row to row.
    pub(crate) row: usize,
    /// Channels to write, at most a block.
    pub(crate) channels: usize,
}

/// Requantises accumulators of `N` channels, the first of which is `first` (in padded order).
///
/// # Safety
/// The accumulators are there, the epilogue has `first + N` channels, and the target may be written at each pixel for `channels <= N` bytes.
#[inline(always)]
pub(crate) unsafe fn pixels<const N: usize>(epilogue: &Epilogue, first: usize, sums: Sums, target: Target) {
    // SAFETY: the caller's promise; `N` channels from `first` exist in both. Copies, so that they stay in registers.
    let (offset, multiplier) = unsafe {
        (
            *epilogue.offset.as_ptr().add(first).cast::<[i32; N]>(),
            *epilogue.multiplier.as_ptr().add(first).cast::<[f32; N]>(),
        )
    };
    let whole = target.channels == N;
    let mut rest = [0; N];
    for row in 0..sums.rows {
        for column in 0..sums.columns {
            // SAFETY: the caller's promise; a part of a block goes through `rest`.
            unsafe {
                let acc = *sums.first.add((row * sums.across + column) * N).cast::<[i32; N]>();
                let output = target.output.add(row * target.row + column * target.stride);
                let codes = if whole { &mut *output.cast::<[u8; N]>() } else { &mut rest };
                for c in 0..N {
                    codes[c] = epilogue.code(acc[c].wrapping_add(offset[c]), multiplier[c]);
                }
                if !whole {
                    std::ptr::copy_nonoverlapping(rest.as_ptr(), output, target.channels);
                }
            }
        }
    }
}
