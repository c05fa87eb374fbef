//! Direct convolution: an implicit GEMM over panels of eight output pixels, for every shape and stride.
//!
//! Output pixels are numbered in the order in which they are needed: row by row, or with a fused 2x2 max-pool window by window, four to a
//! window. Eight consecutive ones make a panel: their inputs, in the order of the weights (kernel row, kernel column, channel), rearranged for the
//! [`Tile`]. A task packs some panels, as many as stay in the L2 cache, and multiplies them by its channels, eight at a time, so that these weights
//! are read from memory once a task and come from the L1 cache for all panels but the first. Finished sums are requantised in registers.
//!
//! Where a panel's eight windows lie inside of the image, a kernel row of a pixel is one run of `width * channels` adjacent bytes; at an edge (and with
//! dilation or groups) each kernel position is a run of its own, taken from a row of zero points if it lies outside. Runs that are no multiple
//! of the tile's step (three channels) are gathered into eight rows first, and the gaps' weights are zero.

use super::{
    finish::{Finish, Place},
    tile::Tile,
};
use crate::kernels::{
    ConvSpec, Pool,
    conv::{Algorithm, Layer, convolved_shape},
    packed::{Packed, Packer},
    scratch::{Areas, LINE, Scratch, Shared},
};

/// Bytes of panels that a task packs: half of the L2 cache of a Cortex-A76, a quarter of a Cortex-A72's.
const PANEL_BYTES: usize = 256 << 10;

/// A convolution by the direct method, its weights in the order of tile `T`.
pub(super) struct Direct<T: Tile> {
    spec: ConvSpec,
    weights: Packed<T::Weight>,
    finish: Finish,
    /// Steps of a pixel: its inputs, rounded up to whole steps.
    steps: usize,
    /// Blocks of eight channels in a group.
    blocks: usize,
}

/// The sizes of one run.
#[derive(Clone, Copy)]
struct Image {
    /// Height and width of the input.
    size: [usize; 2],
    /// Height and width of the output, after pooling.
    output: [usize; 2],
}

impl<T: Tile> Direct<T> {
    pub(super) fn new(layer: &Layer, packer: &mut Packer) -> Self {
        let spec = layer.spec;
        let depth = spec.kernel[0] * spec.kernel[1] * (spec.in_channels / spec.groups);
        let channels = spec.out_channels / spec.groups;
        let (steps, blocks) = (depth.div_ceil(T::STEP), channels.div_ceil(8));
        let each = steps * 8 * T::STEP;
        let weights = packer.array(spec.groups * blocks * each, |to| {
            for c in 0..spec.out_channels {
                let (group, channel) = (c / channels, c % channels);
                let block = &mut to[(group * blocks + channel / 8) * each..][..each];
                for (from, to) in layer.channel(c).chunks(T::STEP).zip(block.chunks_exact_mut(8 * T::STEP)) {
                    for (input, &weight) in from.iter().enumerate() {
                        to[T::place(input, channel % 8)] = T::weight(weight);
                    }
                }
            }
        });
        let place = |c| c / channels * blocks * 8 + c % channels;
        let finish =
            Finish::new(packer, || layer.offsets(T::OFFSET), layer.requantize, spec.groups * blocks * 8, place);
        Self { spec: spec.clone(), weights, finish, steps, blocks }
    }

    /// The bytes of one packed panel.
    fn panel_bytes(&self) -> usize {
        self.steps * T::STEP * 8 * size_of::<T::Activation>()
    }

    /// The bytes of eight gathered rows and of the row of zero points.
    fn gather_bytes(&self) -> usize {
        8 * self.steps * T::STEP + self.spec.in_channels / self.spec.groups + LINE
    }
}

impl<T: Tile> Algorithm for Direct<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], scratch: &mut Scratch) {
        let Some(convolved) = convolved_shape(&self.spec, shape) else { return };
        let side = if self.spec.pool { 2 } else { 1 };
        let image = Image { size: shape, output: convolved.map(|n| n / side) };
        let outputs = image.output[0] * image.output[1];
        assert!(input.len() >= shape[0] * shape[1] * self.spec.in_channels);
        assert!(output.len() >= outputs * self.spec.out_channels);
        let pixels = outputs * side * side;
        let panels = pixels.div_ceil(8);
        let chunk = (PANEL_BYTES / self.panel_bytes()).clamp(1, panels.max(1));
        let chunks = panels.div_ceil(chunk);
        // Few panels: threads share out the channels too, and each packs for itself.
        let wanted = if pool.threads() == 1 { 1 } else { 2 * pool.threads() };
        let splits = wanted.div_ceil(chunks.max(1)).min(self.blocks);
        let areas = scratch.areas(0, pool.threads(), chunk * self.panel_bytes() + self.gather_bytes());
        let to = Shared(output.as_mut_ptr());
        pool.run(chunks * splits, |task, worker| {
            let first = task / splits * chunk;
            let part = task % splits;
            let panels = first..(first + chunk).min(panels);
            let blocks = self.blocks * part / splits..self.blocks * (part + 1) / splits;
            let job = Job { layer: self, input, image, pixels, to, areas, worker };
            // SAFETY: the areas are large enough (above), the arrays too (asserted), and each task writes pixels and channels of its own.
            unsafe { if self.spec.pool { job.run::<true>(panels, blocks) } else { job.run::<false>(panels, blocks) } }
        });
    }
}

/// One task.
struct Job<'a, T: Tile> {
    layer: &'a Direct<T>,
    input: &'a [u8],
    image: Image,
    /// Output pixels before pooling.
    pixels: usize,
    to: Shared<u8>,
    areas: Areas<'a>,
    worker: usize,
}

impl<T: Tile> Job<'_, T> {
    /// Panels `panels`, channel blocks `blocks` of each group.
    ///
    /// # Safety
    /// The worker's area holds that many panels and the gathered rows; `input` and the output are as large as `image` says, and nobody else writes
    /// these pixels' and blocks' codes.
    unsafe fn run<const POOL: bool>(&self, panels: std::ops::Range<usize>, blocks: std::ops::Range<usize>) {
        let (layer, spec) = (self.layer, &self.layer.spec);
        let panel_len = layer.steps * T::STEP * 8;
        let gathered = self.areas.of(self.worker);
        // SAFETY: `gather_bytes` leaves room for eight rows, the zero points, and the way to the next cache line.
        let (zeros, packed) = unsafe {
            let zeros = gathered.add(8 * layer.steps * T::STEP);
            zeros.write_bytes(spec.input_zero_point, spec.in_channels / spec.groups);
            (zeros, gathered.add(layer.gather_bytes() / LINE * LINE).cast::<T::Activation>())
        };
        let channels = spec.out_channels / spec.groups;
        let (pixels_of_panel, shift) = if POOL { (2, 2) } else { (8, 0) };
        for group in 0..spec.groups {
            for (i, panel) in panels.clone().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { self.pack::<POOL>(panel, group, gathered, zeros, packed.add(i * panel_len)) };
            }
            for block in blocks.clone() {
                let at = group * layer.blocks + block;
                for (i, panel) in panels.clone().enumerate() {
                    // SAFETY: the tile reads one packed panel, the weights and biases of one block; what it writes is the caller's promise.
                    unsafe {
                        let sums = T::multiply(
                            layer.steps,
                            packed.add(i * panel_len),
                            layer.weights.as_ptr().add(at * panel_len),
                            layer.finish.bias.as_ptr().add(at * 8),
                        );
                        let first = panel * pixels_of_panel;
                        let channel = group * channels + block * 8;
                        let place = Place {
                            start: self.to.get().add(first * spec.out_channels + channel),
                            stride: spec.out_channels,
                            pixels: ((self.pixels >> shift) - first).min(pixels_of_panel),
                            channels: (channels - block * 8).min(8),
                        };
                        layer.finish.store::<POOL>(&sums, at * 8, place);
                    }
                }
            }
        }
    }

    /// Where the eight windows of a panel begin in the image, which may be outside: row and column. What is past the last pixel repeats it.
    #[inline(always)]
    fn corners<const POOL: bool>(&self, panel: usize) -> [[isize; 2]; 8] {
        let spec = &self.layer.spec;
        let width = self.image.output[1];
        let first = if POOL { panel * 2 } else { panel * 8 };
        let (mut y, mut x) = (first / width, first % width);
        let mut left = self.pixels - panel * 8;
        std::array::from_fn(|i| {
            let [row, column] = if POOL { [y * 2 + i % 4 / 2, x * 2 + i % 2] } else { [y, x] };
            left = left.saturating_sub(1);
            if left > 0 && (!POOL || i % 4 == 3) {
                x += 1;
                if x == width {
                    (y, x) = (y + 1, 0);
                }
            }
            [
                (row * spec.stride[0]) as isize - spec.padding[0] as isize,
                (column * spec.stride[1]) as isize - spec.padding[1] as isize,
            ]
        })
    }

    /// Packs panel `panel` of `group` to `to`.
    ///
    /// # Safety
    /// As for `run`: `gathered` has room for eight rows of all steps, `zeros` holds a group's channels of zero points, `to` has room for a panel.
    unsafe fn pack<const POOL: bool>(
        &self,
        panel: usize,
        group: usize,
        gathered: *mut u8,
        zeros: *const u8,
        mut to: *mut T::Activation,
    ) {
        let (layer, spec) = (self.layer, &self.layer.spec);
        let [height, width] = self.image.size;
        let (pixel, inputs) = (spec.in_channels, spec.in_channels / spec.groups);
        let start = self.input.as_ptr().wrapping_add(group * inputs);
        let corners = self.corners::<POOL>(panel);
        let bases = corners.map(|[y, x]| start.wrapping_offset((y * width as isize + x) * pixel as isize));
        // The last places at which a whole window begins; a negative coordinate is a huge unsigned one.
        let reach = [0, 1].map(|a| (spec.kernel[a] - 1) * spec.dilation[a]);
        let last = [height as isize - reach[0] as isize, width as isize - reach[1] as isize].map(|n| n.max(0) as usize);
        let inside = corners.iter().all(|&[y, x]| (y as usize) < last[0] && (x as usize) < last[1]);
        let whole_rows = inside && spec.groups == 1 && (spec.dilation[1] == 1 || spec.kernel[1] == 1);
        let (columns, run) = if whole_rows { (1, spec.kernel[1] * inputs) } else { (spec.kernel[1], inputs) };
        let step_row = layer.steps * T::STEP;
        let mut done = 0;
        for ky in (0..spec.kernel[0]).map(|k| k * spec.dilation[0]) {
            for kx in (0..columns).map(|k| k * spec.dilation[1]) {
                let offset = (ky * width + kx) * pixel;
                // SAFETY: every row is `run` bytes inside of the image or of the zero points; the runs of all kernel positions fill the steps.
                unsafe {
                    if inside && inputs % T::STEP == 0 {
                        T::pack(&bases, offset, run, to);
                    } else {
                        let row = |i: usize| {
                            let [y, x] = corners[i];
                            let (y, x) = (y.wrapping_add_unsigned(ky) as usize, x.wrapping_add_unsigned(kx) as usize);
                            if inside || (y < height && x < width) { bases[i].wrapping_add(offset) } else { zeros }
                        };
                        if inputs % T::STEP == 0 {
                            T::pack(&std::array::from_fn(row), 0, run, to);
                        } else {
                            (0..8).for_each(|i| copy_short(row(i), gathered.add(i * step_row + done), run));
                        }
                    }
                }
                done += run;
                to = to.wrapping_add(8 * run);
            }
        }
        if inputs % T::STEP != 0 {
            let rows = std::array::from_fn(|i| gathered.wrapping_add(i * step_row).cast_const());
            // SAFETY: eight rows of whole steps were just written, but for the last step's rest, whose weights are zero.
            unsafe { T::pack(&rows, 0, step_row, to.wrapping_sub(8 * done)) };
        }
    }
}

/// `memcpy` without the call for the few bytes of a kernel row of a first layer.
///
/// # Safety
/// Both are valid for `len` bytes and do not overlap.
#[inline(always)]
unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise; two overlapping copies of eight bytes cover 8 to 16 bytes.
    unsafe {
        if (8..=16).contains(&len) {
            let (first, last) = (from.cast::<u64>().read_unaligned(), from.add(len - 8).cast::<u64>().read_unaligned());
            to.cast::<u64>().write_unaligned(first);
            to.add(len - 8).cast::<u64>().write_unaligned(last);
        } else {
            to.copy_from_nonoverlapping(from, len);
        }
    }
}
