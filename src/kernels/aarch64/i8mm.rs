//! ARMv8.6 8-bit matrix multiplication: `usmmla`, 2 pixels by 2 channels by 8 inputs, 32 multiplications an instruction (Neoverse V1, Cortex-A710).
//!
//! `usmmla` multiplies unsigned activations by signed weights, so the image's bytes are used as they are.

use super::{finish::Sums, tile::Tile};
use std::arch::{aarch64::*, asm};

/// Eight inputs of a pair of pixels.
macro_rules! pair {
    ($s0:literal, $s1:literal, $s2:literal, $s3:literal, $pixels:literal, $c0:literal, $c1:literal, $c2:literal, $c3:literal) => {
        concat!(
            "usmmla ", $s0, ".4s, ", $pixels, ".16b, ", $c0, ".16b\n", "usmmla ", $s1, ".4s, ", $pixels, ".16b, ", $c1,
            ".16b\n", "usmmla ", $s2, ".4s, ", $pixels, ".16b, ", $c2, ".16b\n", "usmmla ", $s3, ".4s, ", $pixels,
            ".16b, ", $c3, ".16b\n",
        )
    };
}

/// Eight inputs of four pairs of pixels and four pairs of channels.
macro_rules! eight_inputs {
    ($p0:literal, $p1:literal, $p2:literal, $p3:literal, $c0:literal, $c1:literal, $c2:literal, $c3:literal) => {
        concat!(
            pair!("v16", "v17", "v18", "v19", $p0, $c0, $c1, $c2, $c3),
            pair!("v20", "v21", "v22", "v23", $p1, $c0, $c1, $c2, $c3),
            pair!("v24", "v25", "v26", "v27", $p2, $c0, $c1, $c2, $c3),
            pair!("v28", "v29", "v30", "v31", $p3, $c0, $c1, $c2, $c3),
        )
    };
}

/// 16 inputs: v0 to v7 are four pairs of pixels, v8 to v15 four pairs of channels, two registers of eight inputs each; v16 to v31 are the sums.
macro_rules! step {
    () => {
        concat!(
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            "ld1 {{v8.16b-v11.16b}}, [{weights}], #64\n",
            "ld1 {{v12.16b-v15.16b}}, [{weights}], #64\n",
            "ld1 {{v4.16b-v7.16b}}, [{panel}], #64\n",
            eight_inputs!("v0", "v2", "v4", "v6", "v8", "v10", "v12", "v14"),
            eight_inputs!("v1", "v3", "v5", "v7", "v9", "v11", "v13", "v15"),
        )
    };
}

pub(super) struct I8mm;

impl Tile for I8mm {
    const NAME: &'static str = "direct-i8mm";
    type Activation = u8;
    type Weight = i8;
    const STEP: usize = 16;
    const OFFSET: i32 = 0;

    /// Four pairs of channels; a pair is two registers of eight inputs each; in a register, two channels of eight inputs.
    fn place(input: usize, channel: usize) -> usize {
        channel / 2 * 32 + input / 8 * 16 + channel % 2 * 8 + input % 8
    }

    fn weight(weight: i8) -> i8 {
        weight
    }

    /// The same order for pairs of pixels: `st2` of 64-bit elements.
    // Not inlined: eight row pointers and nothing else to keep in registers.
    #[inline(never)]
    unsafe fn pack(rows: &[*const u8; 8], offset: usize, inputs: usize, panel: *mut u8) {
        let mut to: *mut u64 = panel.cast();
        for at in (offset..offset + inputs).step_by(16) {
            for pair in [0, 2, 4, 6] {
                // SAFETY: the caller's promise: 16 bytes of each row, 32 bytes of the panel a turn.
                unsafe {
                    let row = |i: usize| vreinterpretq_u64_u8(vld1q_u8(rows[pair + i].wrapping_add(at)));
                    vst2q_u64(to, uint64x2x2_t(row(0), row(1)));
                    to = to.add(4);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply(mut steps: usize, mut panel: *const u8, mut weights: *const i8, bias: *const i32) -> Sums {
        // SAFETY: the caller's promise: 8 biases.
        let bias = [0, 2, 4, 6].map(|c| unsafe { vreinterpretq_s32_s64(vld1q_dup_s64(bias.add(c).cast())) });
        // By pairs of pixels and pairs of channels: (pixel 0, channel 0), (0, 1), (1, 0), (1, 1).
        let mut sums = [bias; 4];
        // SAFETY: the caller's promise; both operands are read for 128 bytes a step, and every register that is written is named.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                // Four steps a turn; first the one and the two that are left over.
                "tbz {steps:w}, #0, 2f",
                step!(),
                "2:",
                "tbz {steps:w}, #1, 3f",
                step!(),
                step!(),
                "3:",
                "lsr {steps}, {steps}, #2",
                "cbz {steps}, 5f",
                "4:",
                step!(),
                step!(),
                step!(),
                step!(),
                "subs {steps}, {steps}, #1",
                "b.ne 4b",
                "5:",
                steps = inout(reg) steps, panel = inout(reg) panel, weights = inout(reg) weights,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                inout("v16") sums[0][0], inout("v17") sums[0][1], inout("v18") sums[0][2], inout("v19") sums[0][3],
                inout("v20") sums[1][0], inout("v21") sums[1][1], inout("v22") sums[1][2], inout("v23") sums[1][3],
                inout("v24") sums[2][0], inout("v25") sums[2][1], inout("v26") sums[2][2], inout("v27") sums[2][3],
                inout("v28") sums[3][0], inout("v29") sums[3][1], inout("v30") sums[3][2], inout("v31") sums[3][3],
                options(nostack, readonly)
            );
        }
        let _ = (steps, panel, weights);
        std::array::from_fn(|pixel| {
            [0, 1].map(|half| one_pixel(sums[pixel / 2][half * 2], sums[pixel / 2][half * 2 + 1], pixel % 2))
        })
    }
}

/// Four channels of the first or second pixel of a pair.
#[inline(always)]
fn one_pixel(channels01: int32x4_t, channels23: int32x4_t, which: usize) -> int32x4_t {
    // SAFETY: registers only.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s32(channels01), vreinterpretq_s64_s32(channels23));
        vreinterpretq_s32_s64(if which == 0 { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) })
    }
}
