//! Depthwise convolution: each channel by a kernel of its own. Eight channels a register, `smlal` of 16-bit activations and weights.
//!
//! There is one multiplication for each activation that is read, so this is bound by loads, and the dot product would not help: it sums over
//! neighbours in memory, which are other channels here.

use super::finish::{Finish, Place};
use crate::kernels::{
    ConvSpec, Pool,
    conv::{Algorithm, Layer, convolved_shape},
    packed::{Packed, Packer},
    scratch::{Scratch, Shared},
};
use std::arch::aarch64::*;

/// Output pixels of a row whose sums are kept at once: a weight is loaded once for them.
const PIXELS: usize = 4;

/// A convolution with as many groups as input and output channels.
pub(super) struct Depthwise {
    spec: ConvSpec,
    /// `[block of 8 channels][kernel row][kernel column][8]`
    weights: Packed<i16>,
    finish: Finish,
}

impl Depthwise {
    /// `None` for any other layer, and with a fused pool.
    pub(super) fn new(layer: &Layer, packer: &mut Packer) -> Option<Self> {
        let spec = layer.spec;
        let channels = spec.groups;
        if channels < 2 || spec.in_channels != channels || spec.out_channels != channels || spec.pool {
            return None;
        }
        let taps = spec.kernel[0] * spec.kernel[1];
        let weights = packer.array(channels.div_ceil(8) * taps * 8, |to| {
            for c in 0..channels {
                for (tap, &weight) in layer.channel(c).iter().enumerate() {
                    to[(c / 8 * taps + tap) * 8 + c % 8] = weight.into();
                }
            }
        });
        // What lies outside of the image is left out and not read as zero points, so the zero point is subtracted from the activations.
        let finish = Finish::new(packer, || layer.bias.to_vec(), layer.requantize, channels.next_multiple_of(8), |c| c);
        Some(Self { spec: spec.clone(), weights, finish })
    }

    /// Eight channels of `pixels` adjacent outputs of row `y` from column `x` on.
    ///
    /// # Safety
    /// These outputs exist in the output at `to`, of `width` pixels a row, and are ours; `input` is as large as `shape` says.
    #[inline(always)]
    unsafe fn piece(
        &self,
        input: &[u8],
        shape: [usize; 2],
        to: *mut u8,
        width: usize,
        [y, x]: [usize; 2],
        block: usize,
    ) {
        let spec = &self.spec;
        let channels = spec.out_channels;
        let pixels = (width - x).min(PIXELS);
        let count = (channels - block * 8).min(8);
        let [taps_down, taps_across] = spec.kernel;
        // SAFETY: the block's biases, multipliers and weights exist; activations are read inside of the image only.
        unsafe {
            let zero = vdupq_n_s16(spec.input_zero_point.into());
            let bias = self.finish.bias.as_ptr().add(block * 8);
            let mut sums = [[vld1q_s32(bias), vld1q_s32(bias.add(4))]; PIXELS];
            let weights = self.weights.as_ptr().add(block * taps_down * taps_across * 8);
            for ky in 0..taps_down {
                let Some(row) = inside(y * spec.stride[0] + ky * spec.dilation[0], spec.padding[0], shape[0]) else {
                    continue;
                };
                for kx in 0..taps_across {
                    let w = vld1q_s16(weights.add((ky * taps_across + kx) * 8));
                    for (i, sums) in sums.iter_mut().enumerate().take(pixels) {
                        let column = (x + i) * spec.stride[1] + kx * spec.dilation[1];
                        let Some(column) = inside(column, spec.padding[1], shape[1]) else { continue };
                        let from = (row * shape[1] + column) * channels + block * 8;
                        let codes = if count == 8 {
                            vld1_u8(input.as_ptr().add(from))
                        } else {
                            let mut codes = [0; 8];
                            codes[..count].copy_from_slice(&input[from..from + count]);
                            vld1_u8(codes.as_ptr())
                        };
                        let a = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(codes)), zero);
                        sums[0] = vmlal_s16(sums[0], vget_low_s16(a), vget_low_s16(w));
                        sums[1] = vmlal_high_s16(sums[1], a, w);
                    }
                }
            }
            let multipliers = self.finish.multipliers(block * 8);
            let start = to.add((y * width + x) * channels + block * 8);
            let place = Place { start, stride: channels, pixels, channels: count };
            for (i, &sums) in sums.iter().enumerate().take(pixels) {
                place.write(i, self.finish.codes(sums, multipliers));
            }
        }
    }
}

/// The image's row or column at position `at` of the padded image.
#[inline(always)]
fn inside(at: usize, padding: usize, size: usize) -> Option<usize> {
    at.checked_sub(padding).filter(|&at| at < size)
}

impl Algorithm for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-neon"
    }

    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], _: &mut Scratch) {
        let Some([height, width]) = convolved_shape(&self.spec, shape) else { return };
        assert!(input.len() >= shape[0] * shape[1] * self.spec.in_channels);
        assert!(output.len() >= height * width * self.spec.out_channels);
        let to = Shared(output.as_mut_ptr());
        pool.run(height, |y, _| {
            for x in (0..width).step_by(PIXELS) {
                for block in 0..self.spec.out_channels.div_ceil(8) {
                    // SAFETY: a row is one task's; the lengths were checked.
                    unsafe { self.piece(input, shape, to.get(), width, [y, x], block) };
                }
            }
        });
    }
}
