//! Depthwise convolution: each channel by a kernel of its own.
//!
//! There is one multiplication for each activation that is read, so nothing is gained by summing neighbours in memory (they are other channels): a vector
//! of channels is widened to 32 bits and multiplied by its weights tap by tap, for a few pixels at once.
//!
//! Two inputs an output are served as well, since a pair of them fits 32 bits. Weights are multiplied in 16 bits, so 9-bit ones (`u8` weights less their zero
//! point) cost nothing: they come as pairs that add up to them ([`Conv::of_pairs`](super::Conv::of_pairs)).

use super::{
    ConvSpec, Pool, Scratch,
    conv::{Algorithm, Layer, convolved_shape},
    direct::{fill_strip, window},
    packed::{Packed, Packer},
    requantize::{Epilogue, Sums, Target},
    scratch::{LINE, Shared},
};

/// Bytes of input rows that a task copies.
const STRIP: usize = 192 << 10;
/// Tasks for each thread.
const TASKS_PER_THREAD: usize = 4;

/// One call of [`Taps::tile`].
pub(crate) struct Window<'a> {
    /// The first pixel's first tap.
    pub(crate) input: *const u8,
    /// Bytes from one output pixel's window to the next one's.
    pub(crate) pixel_stride: usize,
    /// Where each tap lies in a window.
    pub(crate) taps: &'a [usize],
    /// Inputs an output: 1 or 2.
    pub(crate) depth: usize,
    /// `[tap][CHANNELS]`, on a cache line: the weight, or the pair of weights, the first in the lower half.
    pub(crate) weights: *const i32,
    /// `[PIXELS][CHANNELS]`, on a cache line; written, not added to.
    pub(crate) accumulators: *mut i32,
}

/// The inner loop of a depthwise convolution.
///
/// # Safety
/// The driver gives `tile` memory by this contract, and an implementation must stay inside of it: it reads `depth * CHANNELS` codes at each tap of each of
/// `pixels` windows, `taps.len() * CHANNELS` weights, and writes `pixels * CHANNELS` accumulators: the sum over the taps of weight times code.
/// `requantize` is that of [`Micro`](super::direct::Micro). Both are called only on a CPU that has the kernel's features.
pub(crate) unsafe trait Taps: Send + Sync + 'static {
    /// As [`Conv::algorithm`](super::Conv::algorithm) shows it.
    const NAME: &'static str;
    /// Most output pixels of a tile; they lie in one row.
    const PIXELS: usize;
    /// Channels of a tile.
    const CHANNELS: usize;

    /// Multiplies.
    ///
    /// # Safety
    /// As the trait says; `pixels` is 1 to `PIXELS`.
    unsafe fn tile(window: &Window, pixels: usize);

    /// Requantises a tile.
    ///
    /// # Safety
    /// As [`requantize::pixels`](super::requantize::pixels).
    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target);
}

/// A convolution with as many groups as output channels, and one or two inputs in each.
pub(crate) struct Depthwise<T: Taps> {
    spec: ConvSpec,
    /// `[block][tap][CHANNELS]`
    weights: Packed<i32>,
    epilogue: Epilogue,
    _taps: std::marker::PhantomData<T>,
}

impl<T: Taps> Depthwise<T> {
    /// Packs a layer; `None` for any that is not depthwise, or has a fused pool.
    pub(crate) fn new(layer: &Layer, packer: &mut Packer) -> Option<Self> {
        let spec = layer.spec;
        let channels = spec.groups;
        if channels < 2 || spec.in_channels > 2 * channels || spec.out_channels != channels || spec.pool {
            return None;
        }
        let taps = spec.kernel[0] * spec.kernel[1];
        let weights = packer.array(channels.div_ceil(T::CHANNELS) * taps * T::CHANNELS, |to| {
            for c in 0..channels {
                let each = if layer.pairs { 2 } else { spec.in_channels / channels };
                for (tap, weights) in layer.channel(c).chunks_exact(each).enumerate() {
                    let [first, second] = [weights[0], weights.get(1).copied().unwrap_or(0)].map(i32::from);
                    let pair = if layer.pairs { [first + second, 0] } else { [first, second] };
                    to[(c / T::CHANNELS * taps + tap) * T::CHANNELS + c % T::CHANNELS] =
                        pair[1] << 16 | pair[0] & 0xFFFF;
                }
            }
        });
        let epilogue = Epilogue::new(packer, layer.requantize, || layer.offsets(0), 1, T::CHANNELS);
        Some(Self { spec: spec.clone(), weights, epilogue, _taps: std::marker::PhantomData })
    }

    fn strip_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.spec.stride[0] + window(&self.spec, 0)
    }

    /// Outputs of the rows from `first` on.
    ///
    /// # Safety
    /// The strip holds their input rows of `row` bytes, with `2 * CHANNELS` bytes after them; `accumulators` has room for a tile; the rows are ours.
    #[allow(clippy::too_many_arguments)]
    unsafe fn rows(
        &self,
        strip: *const u8,
        row: usize,
        taps: &[usize],
        accumulators: *mut i32,
        first: usize,
        rows: usize,
        width: usize,
        output: *mut u8,
    ) {
        let channels = self.spec.out_channels;
        let depth = self.spec.in_channels / channels;
        let pixel_stride = self.spec.stride[1] * self.spec.in_channels;
        for y in 0..rows {
            for (block, weights) in self.weights.chunks_exact(taps.len() * T::CHANNELS).enumerate() {
                let first_channel = block * T::CHANNELS;
                let count = T::CHANNELS.min(channels - first_channel);
                for x in (0..width).step_by(T::PIXELS) {
                    let pixels = T::PIXELS.min(width - x);
                    // SAFETY: the caller's promise. A last block reads past its pixel, into the next one's channels or what follows the strip.
                    unsafe {
                        let input = strip.add(y * self.spec.stride[0] * row + x * pixel_stride + first_channel * depth);
                        let weights = weights.as_ptr();
                        T::tile(&Window { input, pixel_stride, taps, depth, weights, accumulators }, pixels);
                        let sums = Sums { first: accumulators, across: 0, rows: 1, columns: pixels };
                        let output = output.add(((first + y) * width + x) * channels + first_channel);
                        let target = Target { output, stride: channels, row: 0, channels: count };
                        T::requantize(&self.epilogue, first_channel, sums, target);
                    }
                }
            }
        }
    }
}

impl<T: Taps> Algorithm for Depthwise<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], scratch: &mut Scratch) {
        let spec = &self.spec;
        let Some([height, width]) = convolved_shape(spec, shape) else { return };
        let row = ((width - 1) * spec.stride[1] + window(spec, 1)) * spec.in_channels;
        let most = (STRIP / row).saturating_sub(window(spec, 0) - 1) / spec.stride[0];
        let wanted = if pool.threads() == 1 { 1 } else { TASKS_PER_THREAD * pool.threads() };
        let rows = height.div_ceil(wanted).min(most.max(1));
        let count = spec.kernel[0] * spec.kernel[1];
        let accumulators = T::PIXELS * T::CHANNELS * size_of::<i32>();
        let each = accumulators + self.strip_rows(rows) * row + 2 * T::CHANNELS + LINE;
        let areas = scratch.areas(count * size_of::<usize>(), pool.threads(), each);
        let taps = areas.shared().cast::<usize>();
        for tap in 0..count {
            let (y, x) = (tap / spec.kernel[1] * spec.dilation[0], tap % spec.kernel[1] * spec.dilation[1]);
            // SAFETY: `count` values were asked for, on a cache line.
            unsafe { taps.add(tap).write(y * row + x * spec.in_channels) };
        }
        // SAFETY: just written; nothing writes there until the areas are dropped.
        let taps = unsafe { std::slice::from_raw_parts(taps.cast_const(), count) };
        let output = Shared(output.as_mut_ptr());
        pool.run(height.div_ceil(rows), |task, worker| {
            let first = task * rows;
            let rows = rows.min(height - first);
            let start = areas.of(worker);
            // SAFETY: the area has room for a tile and for the strip; each output row is one task's.
            unsafe {
                let strip = start.add(accumulators);
                fill_strip(spec, input, shape, first, self.strip_rows(rows), strip, row);
                self.rows(strip, row, taps, start.cast(), first, rows, width, output.get());
            }
        });
    }
}
