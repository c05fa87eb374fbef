//! Dense layers: a matrix of weights by one vector, at the speed at which memory delivers the weights.
//!
//! Weights lie in the order in which they are read: blocks of eight outputs, in a block steps of 16 inputs, 128 bytes a step. Activations are
//! made signed once (`a - 128`, made good in the bias) and stay in the L1 cache.

use super::{dotprod::DotProd, tile::Tile};
use crate::kernels::{
    Pool,
    scratch::{Buffer, Scratch, Shared},
};
use std::arch::{aarch64::*, asm};

/// Outputs of a block and inputs of a step.
const OUTPUTS: usize = 8;
const STEP: usize = 16;

/// How a step is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `sdot` by lane.
    Dot,
    /// `smull` and `smlal2`: two products fit an `i16` unless both are (-128) * (-128), so no weight is -128.
    Pairs,
    /// `smull` and `smull2`, each widened.
    Singles,
}

/// A dense layer's weights.
pub(super) struct Dense {
    weights: Buffer<i8>,
    /// Padded to whole blocks.
    bias: Buffer<i32>,
    outputs: usize,
    inputs: usize,
    steps: usize,
    method: Method,
}

impl Dense {
    /// `weights` are `[outputs][inputs]`, one bias an output. `dot`: the CPU has the dot product.
    pub(super) fn new(inputs: usize, weights: &[i8], bias: &[i32], zero_point: u8, dot: bool) -> Self {
        let (outputs, steps) = (bias.len(), inputs.div_ceil(STEP));
        let method = match weights.contains(&-128) {
            _ if dot => Method::Dot,
            false => Method::Pairs,
            true => Method::Singles,
        };
        let mut packed = Buffer::new(outputs.div_ceil(OUTPUTS) * steps * OUTPUTS * STEP);
        let mut full_bias = Buffer::padded(bias.iter().copied(), outputs.next_multiple_of(OUTPUTS));
        for (o, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            let block = &mut packed[o / OUTPUTS * steps * OUTPUTS * STEP..];
            for (step, weights) in row.chunks(STEP).enumerate() {
                let to = &mut block[step * OUTPUTS * STEP..][..OUTPUTS * STEP];
                if method == Method::Dot {
                    weights.iter().enumerate().for_each(|(i, &w)| to[DotProd::place(i, o % OUTPUTS)] = w);
                } else {
                    to[o % OUTPUTS * STEP..][..weights.len()].copy_from_slice(weights);
                }
            }
            let sum = row.iter().fold(0i32, |sum, &w| sum.wrapping_add(w.into()));
            full_bias[o] = full_bias[o].wrapping_add((128 - i32::from(zero_point)).wrapping_mul(sum));
        }
        Self { weights: packed, bias: full_bias, outputs, inputs, steps, method }
    }

    /// The sums for `input`, the bias added and the zero point subtracted.
    pub(super) fn run(&self, input: &[u8], output: &mut [i32], scratch: &mut Scratch, pool: &Pool) {
        assert!(input.len() == self.inputs && output.len() == self.outputs);
        let areas = scratch.areas(self.steps * STEP, pool.threads(), 0);
        let signed = Shared(areas.shared().cast::<i8>());
        for (i, &a) in input.iter().enumerate() {
            // SAFETY: `inputs` is at most `steps * STEP`, and no other thread has the area yet.
            unsafe { signed.get().add(i).write((a ^ 0x80) as i8) };
        }
        let blocks = self.outputs.div_ceil(OUTPUTS);
        // Some tasks a thread, so that one that was interrupted does not hold up the others.
        let tasks = if pool.threads() == 1 { 1 } else { (8 * pool.threads()).min(blocks) };
        let to = Shared(output.as_mut_ptr());
        pool.run(tasks, |task, _| {
            for block in blocks * task / tasks..blocks * (task + 1) / tasks {
                // SAFETY: a block's weights and biases exist; the area holds `steps` whole steps; the block's outputs are this task's own.
                unsafe {
                    let weights = self.weights.as_ptr().add(block * self.steps * OUTPUTS * STEP);
                    let mut sums = [0; OUTPUTS];
                    let inputs = signed.get().cast_const();
                    let values = match self.method {
                        Method::Dot => dot(self.steps, inputs, weights),
                        Method::Pairs => widen::<true>(self.steps, inputs, weights),
                        Method::Singles => widen::<false>(self.steps, inputs, weights),
                    };
                    for (half, value) in values.into_iter().enumerate() {
                        let bias = vld1q_s32(self.bias.as_ptr().add(block * OUTPUTS + half * 4));
                        vst1q_s32(sums.as_mut_ptr().add(half * 4), vaddq_s32(value, bias));
                    }
                    let count = (self.outputs - block * OUTPUTS).min(OUTPUTS);
                    to.get().add(block * OUTPUTS).copy_from_nonoverlapping(sums.as_ptr(), count);
                }
            }
        });
    }
}

/// # Safety
/// The CPU has the dot product; `inputs` is readable for `16 * steps` bytes, `weights` for `128 * steps`.
#[inline(always)]
unsafe fn dot(mut steps: usize, mut inputs: *const i8, mut weights: *const i8) -> [int32x4_t; 2] {
    // SAFETY: the caller's promise; every register that is written is named.
    unsafe {
        let mut sums = [vdupq_n_s32(0); 8];
        if steps > 0 {
            asm!(
                ".arch_extension dotprod",
                "3:",
                "ld1 {{v8.16b-v11.16b}}, [{weights}], #64",
                "ldr q0, [{inputs}], #16",
                "ld1 {{v12.16b-v15.16b}}, [{weights}], #64",
                "subs {steps}, {steps}, #1",
                "sdot v16.4s, v8.16b, v0.4b[0]",
                "sdot v17.4s, v9.16b, v0.4b[1]",
                "sdot v18.4s, v10.16b, v0.4b[2]",
                "sdot v19.4s, v11.16b, v0.4b[3]",
                "sdot v20.4s, v12.16b, v0.4b[0]",
                "sdot v21.4s, v13.16b, v0.4b[1]",
                "sdot v22.4s, v14.16b, v0.4b[2]",
                "sdot v23.4s, v15.16b, v0.4b[3]",
                "b.ne 3b",
                steps = inout(reg) steps, inputs = inout(reg) inputs, weights = inout(reg) weights,
                out("v0") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                inout("v16") sums[0], inout("v17") sums[1], inout("v18") sums[2], inout("v19") sums[3],
                inout("v20") sums[4], inout("v21") sums[5], inout("v22") sums[6], inout("v23") sums[7],
                options(nostack, readonly)
            );
        }
        let _ = (steps, inputs, weights);
        [0, 4].map(|i| vaddq_s32(vaddq_s32(sums[i], sums[i + 1]), vaddq_s32(sums[i + 2], sums[i + 3])))
    }
}

/// With `PAIRS`, no weight is -128.
///
/// # Safety
/// `inputs` is readable for `16 * steps` bytes, `weights` for `128 * steps`.
#[inline(always)]
unsafe fn widen<const PAIRS: bool>(steps: usize, inputs: *const i8, weights: *const i8) -> [int32x4_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [vdupq_n_s32(0); 8];
        for step in 0..steps {
            let a = vld1q_s8(inputs.add(step * STEP));
            for (i, sum) in sums.iter_mut().enumerate() {
                let w = vld1q_s8(weights.add((step * OUTPUTS + i) * STEP));
                let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
                if PAIRS {
                    *sum = vpadalq_s16(*sum, vmlal_high_s8(low, w, a));
                } else {
                    *sum = vpadalq_s16(vpadalq_s16(*sum, low), vmull_high_s8(w, a));
                }
            }
        }
        [0, 4].map(|i| vpaddq_s32(vpaddq_s32(sums[i], sums[i + 1]), vpaddq_s32(sums[i + 2], sums[i + 3])))
    }
}
