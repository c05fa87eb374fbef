//! ARMv8.2 dot product: `sdot` by lane, 16 multiplications an instruction (Cortex-A55, A76, A78AE, Carmel).
//!
//! `sdot` wants both operands signed, so activations are packed as `a - 128` (a flip of the top bit) and 128 times the sum of the weights is
//! added to the bias: exact.

use super::{finish::Sums, tile::Tile};
use std::arch::{aarch64::*, asm};

/// Four inputs of one pixel.
macro_rules! pixel {
    ($sum0:literal, $sum1:literal, $low:literal, $high:literal, $pixels:literal, $lane:literal) => {
        concat!(
            "sdot ", $sum0, ".4s, ", $low, ".16b, ", $pixels, ".4b", $lane, "\n", "sdot ", $sum1, ".4s, ", $high,
            ".16b, ", $pixels, ".4b", $lane, "\n",
        )
    };
}

/// Four inputs of all eight pixels and channels.
macro_rules! four_inputs {
    ($low:literal, $high:literal, $near:literal, $far:literal) => {
        concat!(
            pixel!("v16", "v17", $low, $high, $near, "[0]"),
            pixel!("v18", "v19", $low, $high, $near, "[1]"),
            pixel!("v20", "v21", $low, $high, $near, "[2]"),
            pixel!("v22", "v23", $low, $high, $near, "[3]"),
            pixel!("v24", "v25", $low, $high, $far, "[0]"),
            pixel!("v26", "v27", $low, $high, $far, "[1]"),
            pixel!("v28", "v29", $low, $high, $far, "[2]"),
            pixel!("v30", "v31", $low, $high, $far, "[3]"),
        )
    };
}

/// 16 inputs: v0 to v7 are pixels 0 to 3 and 4 to 7, v8 to v15 channels 0 to 3 and 4 to 7, four inputs a register; v16 to v31 are the sums.
macro_rules! step {
    () => {
        concat!(
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            "ld1 {{v8.16b-v11.16b}}, [{weights}], #64\n",
            "ld1 {{v12.16b-v15.16b}}, [{weights}], #64\n",
            "ld1 {{v4.16b-v7.16b}}, [{panel}], #64\n",
            four_inputs!("v8", "v12", "v0", "v4"),
            four_inputs!("v9", "v13", "v1", "v5"),
            four_inputs!("v10", "v14", "v2", "v6"),
            four_inputs!("v11", "v15", "v3", "v7"),
        )
    };
}

pub(super) struct DotProd;

impl Tile for DotProd {
    const NAME: &'static str = "direct-dotprod";
    type Activation = i8;
    type Weight = i8;
    const STEP: usize = 16;
    const OFFSET: i32 = 128;

    /// Two times (channels 0 to 3, 4 to 7) four registers of four inputs each; in a register, four channels of four inputs.
    fn place(input: usize, channel: usize) -> usize {
        channel / 4 * 64 + input / 4 * 16 + channel % 4 * 4 + input % 4
    }

    fn weight(weight: i8) -> i8 {
        weight
    }

    /// A step is two times (pixels 0 to 3, 4 to 7) four registers of four inputs each; in a register, four pixels of four inputs. `st4` of 32-bit elements
    /// is just that transposition.
    // Not inlined: eight row pointers and nothing else to keep in registers.
    #[inline(never)]
    unsafe fn pack(rows: &[*const u8; 8], offset: usize, inputs: usize, panel: *mut i8) {
        let mut to: *mut u32 = panel.cast();
        for at in (offset..offset + inputs).step_by(16) {
            for half in [0, 4] {
                // SAFETY: the caller's promise: 16 bytes of each row, 64 bytes of the panel a turn.
                unsafe {
                    let flip = vdupq_n_u8(0x80);
                    let row =
                        |i: usize| vreinterpretq_u32_u8(veorq_u8(vld1q_u8(rows[half + i].wrapping_add(at)), flip));
                    vst4q_u32(to, uint32x4x4_t(row(0), row(1), row(2), row(3)));
                    to = to.add(16);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply(mut steps: usize, mut panel: *const i8, mut weights: *const i8, bias: *const i32) -> Sums {
        // SAFETY: the caller's promise: 8 biases.
        let [low, high] = unsafe { [vld1q_s32(bias), vld1q_s32(bias.add(4))] };
        let mut sums = [[low, high]; 8];
        // SAFETY: the caller's promise; both operands are read for 128 bytes a step, and every register that is written is named.
        unsafe {
            asm!(
                ".arch_extension dotprod",
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
                inout("v16") sums[0][0], inout("v17") sums[0][1], inout("v18") sums[1][0], inout("v19") sums[1][1],
                inout("v20") sums[2][0], inout("v21") sums[2][1], inout("v22") sums[3][0], inout("v23") sums[3][1],
                inout("v24") sums[4][0], inout("v25") sums[4][1], inout("v26") sums[5][0], inout("v27") sums[5][1],
                inout("v28") sums[6][0], inout("v29") sums[6][1], inout("v30") sums[7][0], inout("v31") sums[7][1],
                options(nostack, readonly)
            );
        }
        let _ = (steps, panel, weights);
        sums
    }
}
