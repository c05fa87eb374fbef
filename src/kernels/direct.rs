//! Convolution as an implicit GEMM: the driver that every instruction set shares.
//!
//! ```text
//! for each block of output rows:                        a task; its input rows, padded, are copied to a strip in L2
//!     for each block of CHANNELS output channels:       the packed weights of one block stream from L2
//!         for each row, for each PIXELS pixels:         Micro::tile: accumulators stay in registers over the whole depth
//!             requantise (and pool two rows), store
//! ```
//!
//! A row of the kernel over one pixel is a *run*: with NHWC and no horizontal dilation its `kernel width * channels` inputs are adjacent, so a
//! 3x3 kernel is three runs, and a first layer with 3 channels multiplies runs of 9 (padded to 12) and not nine pixels of 4.

use super::{
    ConvSpec, Pool, Scratch,
    conv::{Algorithm, Layer, convolved_shape},
    packed::{Packed, Packer},
    pooling::pool_2x2,
    requantize::{Epilogue, Sums, Target},
    scratch::{Areas, LINE, Plain, Shared},
};

/// Bytes of input rows that a task copies: they and a block's weights should stay in L2 (512 KiB on the smallest boards).
const STRIP: usize = 192 << 10;
/// A layer with fewer multiplications than this takes about as long as it takes to wake a thread.
const LEAST_MACS: usize = 1 << 21;
/// Tasks for each thread, so that a thread that is interrupted delays the layer little.
const TASKS_PER_THREAD: usize = 4;

/// How activations are stored for a tile.
pub(crate) trait Element: Plain {
    /// What is subtracted from a code to make an element.
    const BIAS: i32;
    /// The element of a code.
    fn from_code(code: u8) -> Self;
    /// The codes themselves where no conversion is needed.
    fn borrow(codes: &[u8]) -> Option<*const Self>;
}

impl Element for u8 {
    const BIAS: i32 = 0;
    fn from_code(code: u8) -> Self {
        code
    }
    fn borrow(codes: &[u8]) -> Option<*const Self> {
        Some(codes.as_ptr())
    }
}

impl Element for i8 {
    const BIAS: i32 = 128;
    fn from_code(code: u8) -> Self {
        (code ^ 0x80) as i8
    }
    fn borrow(_: &[u8]) -> Option<*const Self> {
        None
    }
}

impl Element for i16 {
    const BIAS: i32 = 0;
    fn from_code(code: u8) -> Self {
        i16::from(code)
    }
    fn borrow(_: &[u8]) -> Option<*const Self> {
        None
    }
}

/// How weights are stored for a tile: as they are, or widened at load.
pub(crate) trait Weight: Plain {
    /// The stored form.
    fn from_i8(weight: i8) -> Self;
}

impl Weight for i8 {
    fn from_i8(weight: i8) -> Self {
        weight
    }
}

impl Weight for i16 {
    fn from_i8(weight: i8) -> Self {
        i16::from(weight)
    }
}

/// One call of [`Micro::tile`].
pub(crate) struct Tile<'a, A, W> {
    /// The first element of the first pixel's window.
    pub(crate) input: *const A,
    /// Elements from one output pixel's window to the next one's.
    pub(crate) pixel_stride: usize,
    /// Where each run starts, in elements from the window's first.
    pub(crate) runs: &'a [usize],
    /// Groups of `GROUP` elements in each run.
    pub(crate) groups: usize,
    /// `[run][group][CHANNELS][GROUP]`, on a cache line.
    pub(crate) weights: *const W,
    /// `[PIXELS][CHANNELS]`, on a cache line; written, not added to.
    pub(crate) accumulators: *mut i32,
}

/// A register tile of the implicit GEMM.
///
/// # Safety
/// The driver gives `tile` memory by this contract, and an implementation must stay inside of it:
/// - it reads `groups * GROUP` elements from `input + pixel * pixel_stride + run` for each pixel below `pixels` and each run, none beyond (they
///   have any alignment);
/// - it reads `runs.len() * groups * CHANNELS * GROUP` weights (aligned to 64 bytes);
/// - it writes the first `pixels * CHANNELS` accumulators (aligned to 64 bytes): the sum over runs and groups of weight times element, modulo 2^32.
///
/// `requantize` writes as [`requantize::pixels`](super::requantize::pixels) with `N = CHANNELS` does.
/// Both are called only on a CPU that has the kernel's features.
pub(crate) unsafe trait Micro: Send + Sync + 'static {
    /// What an activation is in the strip.
    type Activation: Element;
    /// What a packed weight is.
    type Weight: Weight;
    /// As [`Conv::algorithm`](super::Conv::algorithm) shows it.
    const NAME: &'static str;
    /// Most output pixels of a tile; they lie in one row.
    const PIXELS: usize;
    /// Output channels of a tile.
    const CHANNELS: usize;
    /// Elements that one instruction multiplies and sums for each output.
    const GROUP: usize;
    /// Tiles are cut at a multiple of it, but for the end of a row.
    const STEP: usize = 1;

    /// Multiplies.
    ///
    /// # Safety
    /// As the trait says; `pixels` is 1 to `PIXELS`.
    unsafe fn tile(tile: &Tile<Self::Activation, Self::Weight>, pixels: usize);

    /// Requantises a tile.
    ///
    /// # Safety
    /// As [`requantize::pixels`](super::requantize::pixels).
    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target);
}

/// A convolution packed for a [`Micro`].
pub(crate) struct Direct<M: Micro> {
    spec: ConvSpec,
    /// `[group][block][run][k-group][CHANNELS][GROUP]`
    weights: Packed<M::Weight>,
    epilogue: Epilogue,
    runs: usize,
    /// Elements of a run before it is padded to whole k-groups.
    run: usize,
    /// Blocks of channels in a group of the convolution.
    blocks: usize,
}

/// How one input shape is cut into tasks.
struct Plan {
    /// Height and width of the input as walked (a 1x1 convolution joins rows).
    shape: [usize; 2],
    /// Rows and columns to compute: those of the output, or, with a pool, those that it reads.
    out: [usize; 2],
    /// The input is read in place.
    in_place: bool,
    /// Elements from one row of the strip (or image) to the next.
    row: usize,
    rows_per_task: usize,
    row_tasks: usize,
    channel_tasks: usize,
}

/// The parts of a worker's memory.
struct Worker<M: Micro> {
    /// The row task whose strip is there, plus one.
    strip_of: *mut u64,
    accumulators: *mut i32,
    /// Two rows of codes, for the fused pool.
    pooled: *mut u8,
    strip: *mut M::Activation,
}

impl<M: Micro> Direct<M> {
    pub(crate) fn new(layer: &Layer, packer: &mut Packer) -> Self {
        let spec = layer.spec.clone();
        let depth = spec.in_channels / spec.groups;
        let joined = spec.groups == 1 && spec.dilation[1] == 1;
        let runs = if joined { spec.kernel[0] } else { spec.kernel[0] * spec.kernel[1] };
        let run = spec.kernel[0] * spec.kernel[1] * depth / runs;
        let per_group = spec.out_channels / spec.groups;
        let offsets = || layer.offsets(M::Activation::BIAS);
        let epilogue = Epilogue::new(packer, layer.requantize, offsets, spec.groups, M::CHANNELS);
        let mut packed =
            Self { blocks: per_group.div_ceil(M::CHANNELS), weights: Packed::empty(), epilogue, runs, run, spec };
        let len = packed.spec.groups * packed.blocks * packed.block_len();
        packed.weights = packer.array(len, |to| packed.pack(layer, to));
        packed
    }

    fn groups(&self) -> usize {
        self.run.div_ceil(M::GROUP)
    }

    /// Blocks of channels on a cache line of output, where they are narrower than one.
    const BLOCKS_PER_LINE: usize = LINE.div_ceil(M::CHANNELS);

    /// Cache lines of output channels: the units that are divided among threads.
    fn lines(&self) -> usize {
        (self.spec.groups * self.blocks).div_ceil(Self::BLOCKS_PER_LINE)
    }

    /// Weights of one block of channels.
    fn block_len(&self) -> usize {
        self.runs * self.groups() * M::CHANNELS * M::GROUP
    }

    fn pack(&self, layer: &Layer, packed: &mut [M::Weight]) {
        let per_group = self.spec.out_channels / self.spec.groups;
        let run_len = self.groups() * M::CHANNELS * M::GROUP;
        for (b, block) in packed.chunks_exact_mut(self.block_len()).enumerate() {
            let (group, first) = (b / self.blocks, b % self.blocks * M::CHANNELS);
            for c in 0..M::CHANNELS.min(per_group - first) {
                let channel = layer.channel(group * per_group + first + c);
                for (run, to) in channel.chunks_exact(self.run).zip(block.chunks_exact_mut(run_len)) {
                    for (from, to) in run.chunks(M::GROUP).zip(to.chunks_exact_mut(M::CHANNELS * M::GROUP)) {
                        let to = &mut to[c * M::GROUP..][..M::GROUP];
                        to.iter_mut().zip(from).for_each(|(to, &from)| *to = M::Weight::from_i8(from));
                    }
                }
            }
        }
    }

    fn plan(&self, shape: [usize; 2], threads: usize) -> Option<Plan> {
        let spec = &self.spec;
        let unit = spec.kernel == [1, 1] && spec.stride == [1, 1] && spec.padding == [0; 4];
        let shape = if unit && !spec.pool { join_rows(shape) } else { shape };
        let mut out = convolved_shape(spec, shape)?;
        if spec.pool {
            out = out.map(|side| side / 2 * 2);
        }
        let whole = self.run.is_multiple_of(M::GROUP);
        let in_place = whole && spec.padding == [0; 4] && M::Activation::borrow(&[]).is_some();
        let columns = if in_place { shape[1] } else { (out[1] - 1) * spec.stride[1] + window(spec, 1) };
        let row = columns * spec.in_channels;
        let step = if spec.pool { 2 } else { 1 };
        let most = (STRIP / (row * size_of::<M::Activation>())).saturating_sub(window(spec, 0) - 1) / spec.stride[0];
        let base = out[0].div_ceil(most.max(step));
        let [macs, tasks] = [out[0] * out[1] * self.weights.len(), TASKS_PER_THREAD * threads];
        let (rows, channel_tasks) = match () {
            () if threads == 1 || macs < LEAST_MACS => (base, 1),
            // By rows, which share nothing but the weights.
            () if size_of_val(&*self.weights) <= STRIP && out[0] >= tasks * step => (base.max(tasks), 1),
            // By channels, so that a thread reads its weights alone; two threads never write to one cache line.
            () => {
                let rows = base.max(tasks.div_ceil(self.lines()));
                (rows, tasks.div_ceil(rows).min(self.lines()))
            }
        };
        let rows_per_task = out[0].div_ceil(rows).next_multiple_of(step);
        let row_tasks = out[0].div_ceil(rows_per_task);
        Some(Plan { shape, out, in_place, row, rows_per_task, row_tasks, channel_tasks })
    }

    /// Bytes before the strip, and in all, of a worker's memory.
    fn worker_bytes(&self, plan: &Plan) -> (usize, usize, usize) {
        let accumulators = M::PIXELS * M::CHANNELS * size_of::<i32>();
        let pooled = if self.spec.pool { 2 * plan.out[1] * M::CHANNELS } else { 0 };
        let strip = if plan.in_place {
            0
        } else {
            // A run may read past its last pixel, up to a whole k-group.
            (self.strip_rows(plan.rows_per_task) * plan.row + M::GROUP) * size_of::<M::Activation>()
        };
        let start = LINE + accumulators + pooled.next_multiple_of(LINE);
        (LINE + accumulators, start, start + strip)
    }

    fn strip_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.spec.stride[0] + window(&self.spec, 0)
    }

    /// # Safety
    /// `areas` was made for `worker_bytes` a worker, and `worker` is this thread's.
    unsafe fn worker(&self, areas: &Areas, worker: usize, plan: &Plan) -> Worker<M> {
        let start = areas.of(worker);
        let (pooled, strip, _) = self.worker_bytes(plan);
        // SAFETY: inside of the area by `worker_bytes`; every part starts on a cache line.
        unsafe {
            Worker {
                strip_of: start.cast(),
                accumulators: start.add(LINE).cast(),
                pooled: start.add(pooled),
                strip: start.add(strip).cast(),
            }
        }
    }

    /// One task.
    ///
    /// # Safety
    /// `output` is the whole output, `areas` fits the plan, `worker` is this thread's, and `runs` are this plan's.
    #[allow(clippy::too_many_arguments)]
    unsafe fn task(
        &self,
        plan: &Plan,
        runs: &[usize],
        input: &[u8],
        output: *mut u8,
        areas: &Areas,
        task: usize,
        worker: usize,
    ) {
        let (row_task, channel_task) = (task / plan.channel_tasks, task % plan.channel_tasks);
        let first = row_task * plan.rows_per_task;
        let rows = plan.rows_per_task.min(plan.out[0] - first);
        // SAFETY: the caller's promise.
        let worker = unsafe { self.worker(areas, worker, plan) };
        let base = match M::Activation::borrow(input) {
            Some(codes) if plan.in_place => codes.wrapping_add(first * self.spec.stride[0] * plan.row),
            _ => {
                // SAFETY: the worker's memory is this thread's, and sized by `worker_bytes`.
                unsafe {
                    if *worker.strip_of != row_task as u64 + 1 {
                        fill_strip(&self.spec, input, plan.shape, first, self.strip_rows(rows), worker.strip, plan.row);
                        *worker.strip_of = row_task as u64 + 1;
                    }
                }
                worker.strip.cast_const()
            }
        };
        let start = |task: usize| {
            let line = task * self.lines() / plan.channel_tasks;
            (line * Self::BLOCKS_PER_LINE).min(self.spec.groups * self.blocks)
        };
        for block in start(channel_task)..start(channel_task + 1) {
            // SAFETY: the block, the rows and the strip are this task's.
            unsafe { self.block(plan, runs, base, &worker, block, first, rows, output) };
        }
    }

    /// One block of channels over a task's rows.
    ///
    /// # Safety
    /// As `task`; `base` is the first row's first element.
    #[allow(clippy::too_many_arguments)]
    unsafe fn block(
        &self,
        plan: &Plan,
        runs: &[usize],
        base: *const M::Activation,
        worker: &Worker<M>,
        block: usize,
        first: usize,
        rows: usize,
        output: *mut u8,
    ) {
        let spec = &self.spec;
        let (group, in_group) = (block / self.blocks, block % self.blocks * M::CHANNELS);
        let per_group = spec.out_channels / spec.groups;
        let channels = M::CHANNELS.min(per_group - in_group);
        let stride = spec.out_channels;
        // SAFETY: the channel lies in the first pixel.
        let output = unsafe { output.add(group * per_group + in_group) };
        let base = base.wrapping_add(group * (spec.in_channels / spec.groups));
        // SAFETY: `block` is one of the packed ones.
        let weights = unsafe { self.weights.as_ptr().add(block * self.block_len()) };
        let width = plan.out[1];
        for y in 0..rows {
            let row = base.wrapping_add(y * spec.stride[0] * plan.row);
            // SAFETY: row `first + y` is this task's; with a pool, two rows share a worker's buffer.
            let (to, stride, channels) = unsafe {
                match spec.pool {
                    false => (output.add((first + y) * width * stride), stride, channels),
                    true => (worker.pooled.add(y % 2 * width * M::CHANNELS), M::CHANNELS, M::CHANNELS),
                }
            };
            // SAFETY: as above.
            unsafe {
                self.row(plan, runs, row, weights, worker, block, Target { output: to, stride, row: 0, channels })
            };
            if spec.pool && y % 2 == 1 {
                let channels = M::CHANNELS.min(per_group - in_group);
                // SAFETY: both rows are written, and the pooled row is this task's.
                unsafe {
                    let to = output.add((first + y) / 2 * (width / 2) * spec.out_channels);
                    pool_2x2(worker.pooled, width / 2, M::CHANNELS, to, spec.out_channels, channels);
                }
            }
        }
    }

    /// One block of channels of one row.
    ///
    /// # Safety
    /// As `block`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn row(
        &self,
        plan: &Plan,
        runs: &[usize],
        row: *const M::Activation,
        weights: *const M::Weight,
        worker: &Worker<M>,
        block: usize,
        target: Target,
    ) {
        let width = plan.out[1];
        let pixel_stride = self.spec.stride[1] * self.spec.in_channels;
        // Pieces of like size: 16 pixels are 8 + 8 and not 14 + 2, since a small tile cannot hide the multiplier's latency.
        let piece = width.div_ceil(width.div_ceil(M::PIXELS)).next_multiple_of(M::STEP).min(M::PIXELS);
        let mut x = 0;
        while x < width {
            let pixels = piece.min(width - x);
            let tile = Tile {
                input: row.wrapping_add(x * pixel_stride),
                pixel_stride,
                runs,
                groups: self.groups(),
                weights,
                accumulators: worker.accumulators,
            };
            // SAFETY: every window of the row lies in the strip or, read in place, in the image; the rest is sized by `worker_bytes`.
            unsafe {
                M::tile(&tile, pixels);
                let sums = Sums { first: worker.accumulators, across: 0, rows: 1, columns: pixels };
                let to = Target { output: target.output.add(x * target.stride), ..target };
                M::requantize(&self.epilogue, block * M::CHANNELS, sums, to);
            }
            x += pixels;
        }
    }
}

impl<M: Micro> Algorithm for Direct<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], scratch: &mut Scratch) {
        let Some(plan) = self.plan(shape, pool.threads()) else { return };
        let areas = scratch.areas(self.runs * size_of::<usize>(), pool.threads(), self.worker_bytes(&plan).2);
        let spec = &self.spec;
        let columns = if self.runs == spec.kernel[0] { 1 } else { spec.kernel[1] };
        for run in 0..self.runs {
            let offset =
                run / columns * spec.dilation[0] * plan.row + run % columns * spec.dilation[1] * spec.in_channels;
            // SAFETY: `runs` values were asked for, on a cache line.
            unsafe { areas.shared().cast::<usize>().add(run).write(offset) };
        }
        // SAFETY: just written; nothing writes there until the areas are dropped.
        let runs = unsafe { std::slice::from_raw_parts(areas.shared().cast::<usize>(), self.runs) };
        for worker in 0..pool.threads() {
            // SAFETY: the first word of a worker's area; no task runs yet.
            unsafe { areas.of(worker).cast::<u64>().write(0) };
        }
        let output = Shared(output.as_mut_ptr());
        pool.run(plan.row_tasks * plan.channel_tasks, |task, worker| {
            // SAFETY: tasks write disjoint rows or channels of the output; the areas were made for this plan and pool.
            unsafe { self.task(&plan, runs, input, output.get(), &areas, task, worker) };
        });
    }
}

/// Copies the input rows, padded, that the output rows from `first` on read: `rows` rows of `row` elements.
///
/// # Safety
/// The strip has room for them; its memory is initialised.
pub(crate) unsafe fn fill_strip<E: Element>(
    spec: &ConvSpec,
    input: &[u8],
    [height, width]: [usize; 2],
    first: usize,
    rows: usize,
    strip: *mut E,
    row: usize,
) {
    let zero = E::from_code(spec.input_zero_point);
    for i in 0..rows {
        // SAFETY: the caller's promise; any bytes are a valid element.
        let to = unsafe { std::slice::from_raw_parts_mut(strip.add(i * row), row) };
        let y = (first * spec.stride[0] + i).wrapping_sub(spec.padding[0]);
        if y >= height {
            to.fill(zero);
            continue;
        }
        let left = (spec.padding[1] * spec.in_channels).min(row);
        let count = (width * spec.in_channels).min(row - left);
        let from = &input[y * width * spec.in_channels..][..count];
        to[..left].fill(zero);
        to[left..left + count].iter_mut().zip(from).for_each(|(to, &code)| *to = E::from_code(code));
        to[left + count..].fill(zero);
    }
}

/// Pixels that the kernel spans, dilation included.
pub(crate) fn window(spec: &ConvSpec, d: usize) -> usize {
    (spec.kernel[d] - 1) * spec.dilation[d] + 1
}

/// A 1x1 convolution does not care where rows end: joins as many as make long rows, so that tiles are full.
fn join_rows([height, width]: [usize; 2]) -> [usize; 2] {
    /// Long enough for any tile's remainder to be small.
    const LONG: usize = 96;
    let join = (1..=height).find(|&n| height % n == 0 && n * width >= LONG).unwrap_or(height);
    [height / join, width * join]
}
