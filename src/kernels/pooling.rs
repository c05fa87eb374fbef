//! Pooling that is not fused into a convolution.

use serde::{Deserialize, Serialize};

/// A max-pool over NHWC codes; positions outside of the image never win.
///
/// `shape` is the input's height and width, `padding` is top, left, bottom, right. The output has
/// `(shape + padding - kernel) / stride + 1` rows and columns, rounded down.
///
/// # Panics
/// When the lengths of `input` and `output` do not follow from the shapes, or `stride` or `kernel` holds a 0.
#[allow(clippy::too_many_arguments)]
pub fn max_pool(
    input: &[u8],
    shape: [usize; 2],
    channels: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
    output: &mut [u8],
) {
    let out = [0, 1].map(|d| (shape[d] + padding[d] + padding[d + 2] - kernel[d]) / stride[d] + 1);
    assert!(kernel[0] > 0 && kernel[1] > 0, "a pooling window of no pixels");
    assert_eq!(input.len(), shape[0] * shape[1] * channels, "max_pool's input");
    assert_eq!(output.len(), out[0] * out[1] * channels, "max_pool's output");
    let inside = |o: usize, d: usize| {
        let start = o * stride[d];
        start.saturating_sub(padding[d])..(start + kernel[d]).saturating_sub(padding[d]).min(shape[d])
    };
    for (i, pixel) in output.chunks_exact_mut(channels.max(1)).enumerate() {
        pixel.fill(0);
        for y in inside(i / out[1], 0) {
            for x in inside(i % out[1], 1) {
                let from = &input[(y * shape[1] + x) * channels..][..channels];
                pixel.iter_mut().zip(from).for_each(|(to, &from)| *to = (*to).max(from));
            }
        }
    }
}

/// An average pool over dequantised codes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AveragePool {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal.
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// Positions outside of the image count as zeros; else they do not count.
    pub count_padding: bool,
    /// Of the codes.
    #[serde(with = "crate::float_bits")]
    pub scale: f32,
    /// Of the codes.
    pub zero_point: u8,
}

/// An average pool over NHWC codes, as real numbers: `(sum of (code - zero_point)) / count * scale`. The sum is exact.
///
/// `shape` is the input's height and width. The output has `(shape + padding - kernel) / stride + 1` rows and columns, rounded down.
///
/// # Panics
/// When the lengths of `input` and `output` do not follow from the shapes, or `stride` or `kernel` holds a 0.
pub fn average_pool(input: &[u8], shape: [usize; 2], channels: usize, pool: &AveragePool, output: &mut [f32]) {
    let AveragePool { kernel, stride, padding, .. } = *pool;
    let out = [0, 1].map(|d| (shape[d] + padding[d] + padding[d + 2] - kernel[d]) / stride[d] + 1);
    assert!(kernel[0] > 0 && kernel[1] > 0, "a pooling window of no pixels");
    assert_eq!(input.len(), shape[0] * shape[1] * channels, "average_pool's input");
    assert_eq!(output.len(), out[0] * out[1] * channels, "average_pool's output");
    let inside = |o: usize, d: usize| {
        let start = o * stride[d];
        start.saturating_sub(padding[d])..(start + kernel[d]).saturating_sub(padding[d]).min(shape[d])
    };
    /// Channels summed at once: a few vector registers.
    const BLOCK: usize = 64;
    for (i, pixel) in output.chunks_exact_mut(channels.max(1)).enumerate() {
        let (rows, columns) = (inside(i / out[1], 0), inside(i % out[1], 1));
        let pixels = rows.len() * columns.len();
        let count = if pool.count_padding { kernel[0] * kernel[1] } else { pixels.max(1) };
        for (block, to) in pixel.chunks_mut(BLOCK).enumerate() {
            let mut sums = [0i32; BLOCK];
            for y in rows.clone() {
                for x in columns.clone() {
                    let from = &input[(y * shape[1] + x) * channels + block * BLOCK..][..to.len()];
                    sums.iter_mut().zip(from).for_each(|(sum, code)| *sum += i32::from(*code));
                }
            }
            let zeros = pixels as i32 * i32::from(pool.zero_point);
            for (to, sum) in to.iter_mut().zip(&sums) {
                *to = (sum - zeros) as f32 / count as f32 * pool.scale;
            }
        }
    }
}

/// The mean of each channel over `pixels` pixels, as real numbers: `(sum / pixels - zero_point) * scale`.
///
/// The sum is exact in integers, the rest is in f32, in this order.
///
/// # Panics
/// When `input` is not `pixels * channels` or `output` not `channels` long, or there are 2^24 pixels or more.
pub fn global_average(input: &[u8], pixels: usize, channels: usize, output: &mut [f32], scale: f32, zero_point: u8) {
    assert_eq!(input.len(), pixels * channels, "global_average's input");
    assert_eq!(output.len(), channels, "global_average's output");
    assert!(pixels < 1 << 24, "the sum of {pixels} codes may not fit 32 bits");
    /// Channels summed at once: a few vector registers.
    const BLOCK: usize = 64;
    for (block, output) in output.chunks_mut(BLOCK).enumerate() {
        let mut sums = [0u32; BLOCK];
        for pixel in input.chunks_exact(channels) {
            let codes = &pixel[block * BLOCK..][..output.len()];
            sums.iter_mut().zip(codes).for_each(|(sum, &code)| *sum += u32::from(code));
        }
        for (value, &sum) in output.iter_mut().zip(&sums) {
            *value = (sum as f32 / pixels as f32 - f32::from(zero_point)) * scale;
        }
    }
}

/// The larger of each 2x2 block of codes: two rows of `2 * pixels` pixels, `block` codes a pixel, into `pixels` pixels.
///
/// # Safety
/// `rows` has `4 * pixels * block` codes, and `output` may be written at each pixel, `stride` apart, for `channels <= block` bytes.
pub(crate) unsafe fn pool_2x2(
    rows: *const u8,
    pixels: usize,
    block: usize,
    output: *mut u8,
    stride: usize,
    channels: usize,
) {
    // SAFETY: the caller's promise.
    let rows = unsafe { std::slice::from_raw_parts(rows, 4 * pixels * block) };
    let (upper, lower) = rows.split_at(2 * pixels * block);
    for (pixel, (upper, lower)) in upper.chunks_exact(2 * block).zip(lower.chunks_exact(2 * block)).enumerate() {
        // SAFETY: the caller's promise.
        let output = unsafe { std::slice::from_raw_parts_mut(output.add(pixel * stride), channels) };
        let (a, b) = upper.split_at(block);
        let (c, d) = lower.split_at(block);
        for (((to, &a), (&b, &c)), &d) in output.iter_mut().zip(a).zip(b.iter().zip(c)).zip(d) {
            *to = a.max(b).max(c.max(d));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_pool_counts_what_it_is_told_to() {
        // one channel, 3 x 3, zero point 10
        let input = [10, 12, 14, 16, 18, 20, 22, 24, 26];
        let pool = |padding, count_padding| AveragePool {
            kernel: [2, 2],
            stride: [2, 2],
            padding,
            count_padding,
            scale: 0.5,
            zero_point: 10,
        };
        let mut one = [0.0];
        average_pool(&input, [3, 3], 1, &pool([0; 4], false), &mut one);
        assert_eq!(one, [(0.0 + 2.0 + 6.0 + 8.0) / 4.0 * 0.5]);
        let mut four = [0.0; 4];
        average_pool(&input, [3, 3], 1, &pool([1, 1, 0, 0], false), &mut four);
        assert_eq!(four, [0.0, 1.5, 4.5, 6.0]);
        average_pool(&input, [3, 3], 1, &pool([1, 1, 0, 0], true), &mut four);
        assert_eq!(four, [0.0, 0.75, 2.25, 6.0]);
    }
}
