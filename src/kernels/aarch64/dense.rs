//! Dense layers: a matrix of weights by one vector, at the speed at which memory delivers the weights.
//!
//! Weights lie in the order in which they are read: blocks of eight outputs, in a block steps of 16 inputs, 128 bytes a step. Activations are
//! made signed once (`a - 128`, made good in the bias) and stay in the L1 cache.

use super::{
    dotprod::DotProd,
    finish::{Finish, Place},
    tile::Tile,
};
use crate::kernels::{
    Pool,
    dense::{DenseAlgorithm, DenseLayer},
    packed::{Packed, Packer},
    scratch::{Scratch, Shared},
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
    weights: Packed<i8>,
    finish: Finish,
    outputs: usize,
    steps: usize,
    method: Method,
}

impl Dense {
    /// `dot`: the CPU has the dot product.
    pub(super) fn new(layer: &DenseLayer, dot: bool, packer: &mut Packer) -> Self {
        let (outputs, steps) = (layer.outputs, layer.inputs.div_ceil(STEP));
        let method = match () {
            () if dot => Method::Dot,
            () if packer.decide(|| layer.weights.contains(&-128)) => Method::Singles,
            () => Method::Pairs,
        };
        let each = steps * OUTPUTS * STEP;
        let weights = packer.array(outputs.div_ceil(OUTPUTS) * each, |to| {
            for (o, row) in layer.weights.chunks_exact(layer.inputs).enumerate() {
                let block = &mut to[o / OUTPUTS * each..][..each];
                for (from, to) in row.chunks(STEP).zip(block.chunks_exact_mut(OUTPUTS * STEP)) {
                    if method == Method::Dot {
                        // Four adjacent inputs stay together.
                        let fours = from.chunks(4).enumerate();
                        fours.for_each(|(i, w)| to[DotProd::place(4 * i, o % OUTPUTS)..][..w.len()].copy_from_slice(w));
                    } else {
                        to[o % OUTPUTS * STEP..][..from.len()].copy_from_slice(from);
                    }
                }
            }
        });
        let finish =
            Finish::new(packer, || layer.offsets(128), layer.requantize, outputs.next_multiple_of(OUTPUTS), |o| o);
        Self { weights, finish, outputs, steps, method }
    }

    /// Block `block`, into the output at `to`.
    ///
    /// # Safety
    /// `inputs` holds `steps` whole steps; the block's outputs are ours to write.
    unsafe fn block(&self, block: usize, inputs: *const i8, to: *mut u8) {
        // SAFETY: the block's weights, biases and multipliers exist; the rest is the caller's promise.
        unsafe {
            let weights = self.weights.as_ptr().add(block * self.steps * OUTPUTS * STEP);
            let sums = match self.method {
                Method::Dot => dot(self.steps, inputs, weights),
                Method::Pairs => widen::<true>(self.steps, inputs, weights),
                Method::Singles => widen::<false>(self.steps, inputs, weights),
            };
            let at = block * OUTPUTS;
            let bias = self.finish.bias.as_ptr().add(at);
            let sums = [vaddq_s32(sums[0], vld1q_s32(bias)), vaddq_s32(sums[1], vld1q_s32(bias.add(4)))];
            let channels = (self.outputs - at).min(OUTPUTS);
            let place = Place { start: to.add(at), stride: 0, pixels: 1, channels };
            place.write(0, self.finish.codes(sums, self.finish.multipliers(at)));
        }
    }
}

impl DenseAlgorithm for Dense {
    fn name(&self) -> &'static str {
        match self.method {
            Method::Dot => "dense-dotprod",
            Method::Pairs | Method::Singles => "dense-neon",
        }
    }

    fn run(&self, pool: &Pool, input: &[u8], output: &mut [u8], scratch: &mut Scratch) {
        assert!(input.len().div_ceil(STEP) == self.steps && output.len() == self.outputs);
        let areas = scratch.areas(self.steps * STEP, pool.threads(), 0);
        // SAFETY: the area was asked for with this length, any byte is an `i8`, and no task runs yet.
        let signed = unsafe { std::slice::from_raw_parts_mut(areas.shared().cast::<i8>(), self.steps * STEP) };
        signed.iter_mut().zip(input).for_each(|(to, &code)| *to = (code ^ 0x80) as i8);
        let inputs = Shared(signed.as_mut_ptr());
        let blocks = self.outputs.div_ceil(OUTPUTS);
        // Some tasks a thread, so that one that was interrupted does not hold up the others.
        let tasks = (8 * pool.threads()).min(blocks);
        let to = Shared(output.as_mut_ptr());
        pool.run(tasks, |task, _| {
            for block in blocks * task / tasks..blocks * (task + 1) / tasks {
                // SAFETY: nobody writes the inputs while the loop runs; a block's outputs are one task's.
                unsafe { self.block(block, inputs.get(), to.get()) };
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
