//! From 8-bit pixels to the tensor's elements: one table of 256 entries a channel.

use super::{ChannelOrder, InputSpec, InputTensor, TensorFormat};

/// What each pixel value becomes in each channel of the tensor, and where that channel comes from in the picture.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The picture's channel that the tensor's channel `c` is made of.
    from: [usize; 3],
    entries: Entries,
}

#[derive(Clone, Debug)]
enum Entries {
    F32(Box<[[f32; 256]; 3]>),
    U8 { codes: Box<[[u8; 256]; 3]>, zero_point: u8, channels: usize },
}

impl Table {
    pub(super) fn new(input: &InputSpec) -> Self {
        let spec = &input.preprocess;
        let value = |c: usize, pixel: usize| (pixel as f32 * spec.scale - spec.mean[c]) / spec.std[c];
        let entries = match input.format {
            TensorFormat::F32Nchw => {
                Entries::F32(Box::new(std::array::from_fn(|c| std::array::from_fn(|pixel| value(c, pixel)))))
            }
            TensorFormat::U8Nhwc { scale, zero_point, channels } => {
                // A cast to u8 clamps.
                let code = |v: f32| ((v / scale).round_ties_even() + f32::from(zero_point)) as u8;
                let codes = std::array::from_fn(|c| std::array::from_fn(|pixel| code(value(c, pixel))));
                Entries::U8 { codes: Box::new(codes), zero_point, channels }
            }
        };
        let from = match spec.order {
            ChannelOrder::Rgb => [0, 1, 2],
            ChannelOrder::Bgr => [2, 1, 0],
        };
        Self { from, entries }
    }

    /// Maps `picture` (interleaved RGB) to `out`, which becomes of the right kind and length.
    pub(super) fn fill(&self, picture: &[u8], out: &mut InputTensor) {
        let (pixels, _) = picture.as_chunks::<3>();
        match &self.entries {
            Entries::F32(values) => {
                let out = floats(out, pixels.len() * 3);
                for ((plane, values), from) in out.chunks_exact_mut(pixels.len()).zip(values.iter()).zip(self.from) {
                    for (out, pixel) in plane.iter_mut().zip(pixels) {
                        *out = values[usize::from(pixel[from])];
                    }
                }
            }
            Entries::U8 { codes, zero_point, channels } => {
                let out = bytes(out, pixels.len() * channels);
                for (out, pixel) in out.chunks_exact_mut(*channels).zip(pixels) {
                    for c in 0..3 {
                        out[c] = codes[c][usize::from(pixel[self.from[c]])];
                    }
                    out[3..].fill(*zero_point);
                }
            }
        }
    }
}

fn floats(out: &mut InputTensor, length: usize) -> &mut [f32] {
    if !matches!(out, InputTensor::F32(_)) {
        *out = InputTensor::F32(Vec::new());
    }
    let InputTensor::F32(values) = out else { unreachable!("just made one") };
    values.resize(length, 0.0);
    values
}

fn bytes(out: &mut InputTensor, length: usize) -> &mut [u8] {
    if !matches!(out, InputTensor::U8(_)) {
        *out = InputTensor::U8(Vec::new());
    }
    let InputTensor::U8(codes) = out else { unreachable!("just made one") };
    codes.resize(length, 0);
    codes
}
