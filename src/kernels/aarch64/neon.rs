//! aarch64's baseline: `smlal` and `smlal2` by lane on 16-bit operands, four multiplications an instruction (Cortex-A53, A57, A72).
//!
//! The same tile serves the direct method, on widened activations and weights, and [Winograd](super::winograd)'s products.

use super::{finish::Sums, tile::Tile};
use std::arch::{aarch64::*, asm};

/// One input of one pixel.
macro_rules! pixel {
    ($sum0:literal, $sum1:literal, $w:literal, $pixel:literal, $lane:literal) => {
        concat!(
            "smlal ", $sum0, ".4s, ", $w, ".4h, ", $pixel, ".h", $lane, "\n", "smlal2 ", $sum1, ".4s, ", $w, ".8h, ",
            $pixel, ".h", $lane, "\n",
        )
    };
}

/// One input of all eight pixels and channels: v0 to v7 are the pixels, `lane` the input, `w` its weights, v16 to v31 the sums.
macro_rules! input {
    ($w:literal, $lane:literal) => {
        concat!(
            pixel!("v16", "v17", $w, "v0", $lane),
            pixel!("v18", "v19", $w, "v1", $lane),
            pixel!("v20", "v21", $w, "v2", $lane),
            pixel!("v22", "v23", $w, "v3", $lane),
            pixel!("v24", "v25", $w, "v4", $lane),
            pixel!("v26", "v27", $w, "v5", $lane),
            pixel!("v28", "v29", $w, "v6", $lane),
            pixel!("v30", "v31", $w, "v7", $lane),
        )
    };
}

pub(super) struct Neon;

impl Tile for Neon {
    const NAME: &'static str = "direct-neon";
    type Activation = i16;
    type Weight = i16;
    const STEP: usize = 8;
    const OFFSET: i32 = 0;

    /// A register a input: eight channels.
    fn place(input: usize, channel: usize) -> usize {
        input * 8 + channel
    }

    fn weight(weight: i8) -> i16 {
        weight.into()
    }

    /// A register a pixel: eight inputs.
    // Not inlined: eight row pointers and nothing else to keep in registers.
    #[inline(never)]
    unsafe fn pack(rows: &[*const u8; 8], offset: usize, inputs: usize, panel: *mut i16) {
        let mut to = panel;
        for at in (offset..offset + inputs).step_by(8) {
            for row in rows {
                // SAFETY: the caller's promise: 8 bytes of each row, 8 activations of the panel a turn.
                unsafe {
                    vst1q_s16(to, vreinterpretq_s16_u16(vmovl_u8(vld1_u8(row.wrapping_add(at)))));
                    to = to.add(8);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply(mut steps: usize, mut panel: *const i16, mut weights: *const i16, bias: *const i32) -> Sums {
        // SAFETY: the caller's promise: 8 biases.
        let [low, high] = unsafe { [vld1q_s32(bias), vld1q_s32(bias.add(4))] };
        let mut sums = [[low, high]; 8];
        // SAFETY: the caller's promise; both operands are read for 128 bytes a step, and every register that is written is named.
        unsafe {
            asm!(
                "3:",
                "ld1 {{v0.8h-v3.8h}}, [{panel}], #64",
                "ld1 {{v8.8h-v11.8h}}, [{weights}], #64",
                "ld1 {{v4.8h-v7.8h}}, [{panel}], #64",
                "ld1 {{v12.8h-v15.8h}}, [{weights}], #64",
                "subs {steps}, {steps}, #1",
                input!("v8", "[0]"),
                input!("v9", "[1]"),
                input!("v10", "[2]"),
                input!("v11", "[3]"),
                input!("v12", "[4]"),
                input!("v13", "[5]"),
                input!("v14", "[6]"),
                input!("v15", "[7]"),
                "b.ne 3b",
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
