//! Exact 3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3) in 16-bit integers.
//!
//! A 4x4 tile of outputs needs a 6x6 tile of inputs `d`. With the integer transforms below, `U = G g Gᵀ` of the weights and `V = Bᵀ d B` of the
//! inputs fit 16 bits (|U| <= 6272, |V| <= 17340), and the sum over input channels of the 36 elementwise products gives, after `A`, exactly
//! 576 times the convolution. Nothing but that must hold: every 32-bit sum may wrap, because arithmetic modulo 2^32 stays consistent. At the end
//! `576 = 64 * 9` is undone by multiplying with the inverse of 9 modulo 2^32 and an arithmetic shift by 6, which recovers every sum below 2^25
//! in magnitude. Whether a layer's sums can be larger is decided from its weights when it is packed ([`fits`]); such a layer runs directly.
//!
//! ```text
//! Bᵀ = 4  0 -5  0  1  0     G = 6  0  0  (/24)    Aᵀ = 1  4  4  1  1  0
//!      0 -4 -4  1  1  0        -1 -1 -1  (/6)          0  4 -4  2 -2  0
//!      0  4 -4 -1  1  0        -1  1 -1  (/6)          0  4  4  4  4  0
//!      0 -2 -1  2  1  0         1  2  4  (/24)         0  4 -4  8 -8  8
//!      0  2 -1 -2  1  0         1 -2  4  (/24)
//!      0  4  0 -5  0  1         0  0  3  (/3)
//! ```
//! The divisors of G's rows (against the rational transform of Lavin and Gray, arXiv:1509.09308) are folded into A's columns as 24 / divisor.
//!
//! The points of F(2,3), {0, 1, -1, ∞}, are among those of F(4,3), so a row of 14 is 4 + 4 + 4 + 2 with the *same* U: the last tile uses positions 0, 1,
//! 2 and 5 with `Bᵀ = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]` and `Aᵀ = [4 -12 -12 0; 0 -12 12 -8]`.
//!
//! # The order of work
//!
//! ```text
//! for each block of tiles:                                      a task
//!     V[36][tiles][channels] = transform of the inputs
//!     for each block of CHANNELS output channels:
//!         for each pair of rows of positions (1,2) (3,4) (0,5):
//!             U[12][depth][CHANNELS] = transform of the weights, or the copy kept from load
//!             for each of the 12 positions: M = V · U           Micro::tile
//!         for each tile: transform M, requantise, pool, store
//! ```
//! U is 8 times the size of the weights (VGG16's would be 118 MB), so a large layer transforms them anew in each inference: reading 9 bytes and
//! computing 36 values costs less than reading 72 bytes from memory, and nothing has to be kept.

mod transform;

use transform::skipped;
pub(crate) use transform::{Narrow, Patch, Transforms, Wide, input, output, transforms, weights};

use super::{
    ConvSpec, Pool, Scratch,
    conv::{Algorithm, Layer, convolved_shape},
    direct::Tile,
    packed::{Packed, Packer},
    requantize::{Epilogue, Sums, Target},
    scratch::{Areas, Buffer, LINE, Shared, prefetch},
};

/// Sums below it are recovered.
const LIMIT: i64 = 1 << 25;
/// Positions in a panel of U: two rows of six.
const PANEL: usize = 12;
/// The rows of positions in each of the three panels; each pair shares its sums.
const PAIRS: [[usize; 2]; 3] = [[1, 2], [3, 4], [0, 5]];
/// V of a block of tiles should fill about half of L2.
const BLOCK_BYTES: usize = 600 << 10;
/// Most tiles of a block: 14 to 28 do equally well where there are few channels, more do not.
const MOST_TILES: usize = 28;
/// As `BLOCK_BYTES`, where the weights are transformed for each block: larger, at the cost of reading V from L3.
const BLOCK_BYTES_ANEW: usize = 1900 << 10;
/// A layer whose U is smaller keeps it.
const KEEP: usize = 2 << 20;
/// Added to each position's length, so that 36 positions do not fall into one set of the L1 cache.
const SKEW: usize = 32;
/// Tasks for each thread.
const TASKS_PER_THREAD: usize = 4;

/// The four shapes of a tile: whether its height and its width are 2 and not 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) low: bool,
    pub(crate) narrow: bool,
}

/// In this order, the tiles that a position needs are adjacent: see [`Block::range`].
const ORDER: [Shape; 4] = [
    Shape { low: true, narrow: false },
    Shape { low: false, narrow: false },
    Shape { low: false, narrow: true },
    Shape { low: true, narrow: true },
];

/// Whether every sum of the layer's products is recovered: whatever the codes (0 to 255), the sum is between minus 255 times the negative weights' and
/// 255 times the positive weights' sum.
pub(crate) fn fits(weights: &[i8]) -> bool {
    let (positive, negative) = weights.iter().fold((0i64, 0i64), |(positive, negative), &w| {
        let w = i64::from(w);
        (positive + w.max(0), negative - w.min(0))
    });
    positive.max(negative) * 255 < LIMIT
}

/// A convolution packed for Winograd.
pub(crate) struct Winograd<T: Transforms> {
    spec: ConvSpec,
    /// `[block][group][9][CHANNELS][GROUP]`, empty where U is kept.
    weights: Packed<i8>,
    /// `[block][3 panels][12][group][CHANNELS][GROUP]` and the skew, empty where it is computed anew each time.
    kept: Packed<i16>,
    epilogue: Epilogue,
    groups: usize,
    _transforms: std::marker::PhantomData<T>,
}

/// How an output shape is cut into tiles, and tiles into tasks.
struct Plan {
    /// Height and width of the input.
    shape: [usize; 2],
    /// Rows and columns to compute.
    out: [usize; 2],
    /// Tiles down and across.
    tiles: [usize; 2],
    tiles_per_block: usize,
    tile_blocks: usize,
    channel_tasks: usize,
}

/// A tile of a block: where it lies, in tiles.
#[derive(Clone, Copy)]
struct Place {
    y: u32,
    x: u32,
}

/// The tiles of one block, in the order of [`ORDER`].
#[derive(Clone, Copy)]
struct Block {
    /// Where each of the four shapes starts, and the end.
    starts: [usize; 5],
}

impl Block {
    /// The tiles that need position `[y, x]`.
    fn range(&self, y: usize, x: usize) -> std::ops::Range<usize> {
        let first = if skipped(true, y) { 1 } else { 0 };
        let last = match (skipped(true, y), skipped(true, x)) {
            (false, false) => 4,
            (true, false) => 3,
            (_, true) => 2,
        };
        self.starts[first]..self.starts[last]
    }
}

/// The parts of a worker's memory, and their sizes in bytes.
struct Sizes {
    places: usize,
    patch: usize,
    sums: usize,
    v: usize,
    u: usize,
    m: usize,
}

struct Worker {
    /// The block of tiles whose V is there, plus one, and its `starts`.
    head: *mut Head,
    places: *mut Place,
    patch: *mut u8,
    sums: *mut i32,
    v: *mut i16,
    u: *mut i16,
    m: *mut i32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    v_of: usize,
    block: Block,
}

impl<T: Transforms> Winograd<T> {
    /// Packs a layer, or `None` where it is not a plain 3x3 convolution of whole vectors, or its sums might not be recovered.
    pub(crate) fn new(layer: &Layer, packer: &mut Packer) -> Option<Self> {
        let spec = layer.spec;
        let plain = spec.kernel == [3, 3] && spec.stride == [1, 1] && spec.dilation == [1, 1] && spec.groups == 1;
        let whole = spec.in_channels.is_multiple_of(T::LANES) && spec.in_channels.is_multiple_of(T::GROUP);
        if !plain || !whole || !packer.decide(|| (0..spec.out_channels).all(|c| fits(layer.channel(c)))) {
            return None;
        }
        let groups = spec.in_channels / T::GROUP;
        let mut packed = Self {
            spec: spec.clone(),
            weights: Packed::empty(),
            kept: Packed::empty(),
            epilogue: Epilogue::new(packer, layer.requantize, || layer.offsets(0), 1, T::CHANNELS),
            groups,
            _transforms: std::marker::PhantomData,
        };
        let len = packed.blocks() * groups * 9 * T::CHANNELS * T::GROUP;
        let kept = packed.blocks() * 3 * packed.panel();
        if kept * size_of::<i16>() <= KEEP {
            packed.kept = packer.array(kept, |to| {
                let mut weights = Buffer::new(len);
                Self::pack(layer, groups, &mut weights);
                packed.transform_all(&weights, to);
            });
        } else {
            packed.weights = packer.array(len, |to| Self::pack(layer, groups, to));
        }
        Some(packed)
    }

    fn pack(layer: &Layer, groups: usize, packed: &mut [i8]) {
        let lanes = T::CHANNELS * T::GROUP;
        for (block, packed) in packed.chunks_exact_mut(groups * 9 * lanes).enumerate() {
            for c in 0..T::CHANNELS.min(layer.spec.out_channels - block * T::CHANNELS) {
                let taps = layer.channel(block * T::CHANNELS + c).chunks_exact(layer.spec.in_channels);
                for (tap, from) in taps.enumerate() {
                    for (group, from) in from.chunks_exact(T::GROUP).enumerate() {
                        packed[(group * 9 + tap) * lanes + c * T::GROUP..][..T::GROUP].copy_from_slice(from);
                    }
                }
            }
        }
    }

    /// Transforms all weights, as `pack` made them.
    fn transform_all(&self, weights: &[i8], to: &mut [i16]) {
        for (i, panel) in to.chunks_exact_mut(self.panel()).enumerate() {
            // SAFETY: a panel's length, and a packed block.
            unsafe { self.transform_weights(weights, i / 3, i % 3, panel.as_mut_ptr()) };
        }
    }

    /// # Safety
    /// `weights` are packed, `to` has room for a panel, `block` is below `blocks()`, `pair` below 3.
    unsafe fn transform_weights(&self, weights: &[i8], block: usize, pair: usize, to: *mut i16) {
        let lanes = T::CHANNELS * T::GROUP;
        // SAFETY: the caller's promise; the weights hold `blocks` of this size.
        unsafe {
            let from = weights.as_ptr().add(block * self.groups * 9 * lanes);
            T::weights(pair, from, self.groups, to, self.u_position());
        }
    }

    fn blocks(&self) -> usize {
        self.spec.out_channels.div_ceil(T::CHANNELS)
    }

    /// Elements from one position to the next, in U, V and M.
    fn u_position(&self) -> usize {
        self.groups * T::CHANNELS * T::GROUP + SKEW
    }

    fn v_position(&self, tiles: usize) -> usize {
        tiles * self.spec.in_channels + SKEW
    }

    fn m_position(tiles: usize) -> usize {
        tiles * T::CHANNELS + SKEW
    }

    fn panel(&self) -> usize {
        PANEL * self.u_position()
    }

    fn plan(&self, shape: [usize; 2], threads: usize) -> Option<Plan> {
        let mut out = convolved_shape(&self.spec, shape)?;
        if self.spec.pool {
            out = out.map(|side| side / 2 * 2);
        }
        let tiles = out.map(|side| side.div_ceil(4));
        let count = tiles[0] * tiles[1];
        // Weights that are transformed anew are so for each block of tiles: fewer and larger blocks.
        let (bytes, most) =
            if self.kept.is_empty() { (BLOCK_BYTES_ANEW, usize::MAX) } else { (BLOCK_BYTES, MOST_TILES) };
        let most = (bytes / (36 * self.spec.in_channels * size_of::<i16>())).clamp(T::PIXELS, most);
        let wanted = if threads == 1 || self.kept.is_empty() { 1 } else { 2 * threads };
        let tile_blocks = count.div_ceil(most).max(wanted).min(count);
        let tiles_per_block = count.div_ceil(tile_blocks);
        let tile_blocks = count.div_ceil(tiles_per_block);
        let tasks = TASKS_PER_THREAD * threads;
        let channel_tasks = if threads == 1 { 1 } else { tasks.div_ceil(tile_blocks).min(self.blocks()) };
        Some(Plan { shape, out, tiles, tiles_per_block, tile_blocks, channel_tasks })
    }

    fn sizes(&self, plan: &Plan) -> Sizes {
        let tiles = plan.tiles_per_block;
        let line = |bytes: usize| bytes.next_multiple_of(LINE);
        Sizes {
            places: line(tiles * size_of::<Place>()),
            patch: line(36 * self.spec.in_channels),
            sums: 16 * T::CHANNELS * size_of::<i32>(),
            v: line(36 * self.v_position(tiles) * size_of::<i16>()),
            u: if self.kept.is_empty() { line(self.panel() * size_of::<i16>()) } else { 0 },
            m: line(36 * Self::m_position(tiles) * size_of::<i32>()),
        }
    }

    /// # Safety
    /// `areas` was made for these sizes.
    unsafe fn worker(areas: &Areas, worker: usize, sizes: &Sizes) -> Worker {
        const { assert!(size_of::<Head>() <= LINE) };
        let start = areas.of(worker);
        let mut offset = LINE;
        let mut part = |bytes: usize| {
            // SAFETY: the area is as long as the sum of the sizes.
            let part = unsafe { start.add(offset) };
            offset += bytes;
            part
        };
        Worker {
            head: start.cast(),
            places: part(sizes.places).cast(),
            patch: part(sizes.patch),
            sums: part(sizes.sums).cast(),
            v: part(sizes.v).cast(),
            u: part(sizes.u).cast(),
            m: part(sizes.m).cast(),
        }
    }

    /// A tile's shape: a last tile of one or two rows is low, of one or two columns narrow.
    fn shape_of(plan: &Plan, place: Place) -> Shape {
        let short = |d: usize, at: u32| plan.out[d] - at as usize * 4 <= 2;
        Shape { low: short(0, place.y), narrow: short(1, place.x) }
    }

    /// Lists a block's tiles by shape.
    ///
    /// # Safety
    /// `places` has room for `tiles_per_block`.
    unsafe fn list(plan: &Plan, tile_block: usize, places: *mut Place) -> Block {
        let first = tile_block * plan.tiles_per_block;
        let last = (first + plan.tiles_per_block).min(plan.tiles[0] * plan.tiles[1]);
        let mut starts = [0; 5];
        let mut count = 0;
        for (i, shape) in ORDER.iter().enumerate() {
            for tile in first..last {
                let place = Place { y: (tile / plan.tiles[1]) as u32, x: (tile % plan.tiles[1]) as u32 };
                if Self::shape_of(plan, place) == *shape {
                    // SAFETY: each tile has one shape, so at most `tiles_per_block` are written.
                    unsafe { places.add(count).write(place) };
                    count += 1;
                }
            }
            starts[i + 1] = count;
        }
        Block { starts }
    }

    /// Makes V.
    ///
    /// # Safety
    /// The worker's memory fits the plan.
    unsafe fn transform_inputs(&self, plan: &Plan, input: &[u8], worker: &Worker, block: Block) {
        let channels = self.spec.in_channels;
        let [height, width] = plan.shape;
        let [top, left, ..] = self.spec.padding;
        let position = self.v_position(plan.tiles_per_block);
        for tile in 0..block.starts[4] {
            // SAFETY: `list` wrote that many places.
            let place = unsafe { *worker.places.add(tile) };
            let shape = Self::shape_of(plan, place);
            let (y, x) = ((place.y as usize * 4).wrapping_sub(top), (place.x as usize * 4).wrapping_sub(left));
            let (rows, columns) = (if shape.low { 4 } else { 6 }, if shape.narrow { 4 } else { 6 });
            let inside = y < height && x < width && y + rows <= height && x + columns <= width;
            let patch = if inside {
                let codes = input[(y * width + x) * channels..].as_ptr();
                Patch { codes, row: width * channels, pixel: channels }
            } else {
                // SAFETY: the worker's patch has room for 6x6 pixels.
                unsafe { self.copy_patch(plan, input, [y, x], worker.patch) };
                Patch { codes: worker.patch, row: 6 * channels, pixel: channels }
            };
            // SAFETY: the patch is whole, and V has `tiles_per_block` tiles at each position.
            unsafe { T::input(shape, patch, channels, worker.v.add(tile * channels), position) };
        }
    }

    /// Copies a window that sticks out of the image, with the zero point where there is none. `y` and `x` may be negative, wrapped.
    ///
    /// # Safety
    /// `to` has room for 6x6 pixels.
    unsafe fn copy_patch(&self, plan: &Plan, input: &[u8], [y, x]: [usize; 2], to: *mut u8) {
        let channels = self.spec.in_channels;
        let [height, width] = plan.shape;
        for row in 0..6 {
            for column in 0..6 {
                // SAFETY: 36 pixels.
                let to = unsafe { std::slice::from_raw_parts_mut(to.add((row * 6 + column) * channels), channels) };
                let (y, x) = (y.wrapping_add(row), x.wrapping_add(column));
                match y < height && x < width {
                    true => to.copy_from_slice(&input[(y * width + x) * channels..][..channels]),
                    false => to.fill(self.spec.input_zero_point),
                }
            }
        }
    }

    /// One task: a block of tiles, some blocks of channels.
    ///
    /// # Safety
    /// `output` is the whole output, `areas` fits the plan, `worker` is this thread's.
    #[allow(clippy::too_many_arguments)]
    unsafe fn task(
        &self,
        plan: &Plan,
        sizes: &Sizes,
        input: &[u8],
        output: *mut u8,
        areas: &Areas,
        task: usize,
        worker: usize,
    ) {
        let (tile_block, channel_task) = (task / plan.channel_tasks, task % plan.channel_tasks);
        // SAFETY: the caller's promise.
        let worker = unsafe { Self::worker(areas, worker, sizes) };
        // SAFETY: the worker's memory is this thread's; `run` initialised the head.
        let block = unsafe {
            if (*worker.head).v_of != tile_block + 1 {
                let block = Self::list(plan, tile_block, worker.places);
                self.transform_inputs(plan, input, &worker, block);
                *worker.head = Head { v_of: tile_block + 1, block };
            }
            (*worker.head).block
        };
        let blocks = self.blocks();
        for channels in channel_task * blocks / plan.channel_tasks..(channel_task + 1) * blocks / plan.channel_tasks {
            // SAFETY: V is made; these channels of these tiles are this task's.
            unsafe {
                self.multiply(plan, &worker, block, channels);
                self.finish(plan, &worker, block, channels, output);
            }
        }
    }

    /// Makes M for one block of channels.
    ///
    /// # Safety
    /// V is made, `channels` is below `blocks()`.
    unsafe fn multiply(&self, plan: &Plan, worker: &Worker, block: Block, channels: usize) {
        let (v_position, m_position) = (self.v_position(plan.tiles_per_block), Self::m_position(plan.tiles_per_block));
        for (pair, rows) in PAIRS.iter().enumerate() {
            let panel = if self.kept.is_empty() {
                // SAFETY: the worker's U has room for a panel.
                unsafe { self.transform_weights(&self.weights, channels, pair, worker.u) };
                worker.u.cast_const()
            } else {
                // SAFETY: three panels a block are kept.
                unsafe { self.kept.as_ptr().add((channels * 3 + pair) * self.panel()) }
            };
            for place in 0..PANEL {
                let (y, x) = (rows[place / 6], place % 6);
                let tiles = block.range(y, x);
                self.prefetch(channels + 1, pair * PANEL + place);
                // SAFETY: the position's V and M have `tiles_per_block` tiles, the panel this position's weights.
                unsafe {
                    let v = worker.v.add((y * 6 + x) * v_position);
                    let m = worker.m.add((y * 6 + x) * m_position);
                    self.gemm(v, panel.add(place * self.u_position()), m, tiles);
                }
            }
        }
    }

    /// Fetches the 36th part `part` of the weights of `block` (there may be none), which come from memory: every inference uses them once.
    fn prefetch(&self, block: usize, part: usize) {
        let each = self.groups * 9 * T::CHANNELS * T::GROUP;
        let part = block * each + part * each / 36..block * each + (part + 1) * each / 36;
        for line in self.weights.get(part).unwrap_or_default().chunks(LINE) {
            prefetch(line.as_ptr());
        }
    }

    /// One position's product.
    ///
    /// # Safety
    /// The pointers are a position's V, U and M, and the tiles exist.
    unsafe fn gemm(&self, v: *const i16, u: *const i16, m: *mut i32, tiles: std::ops::Range<usize>) {
        let count = tiles.len().max(1);
        let piece = count.div_ceil(count.div_ceil(T::PIXELS)).next_multiple_of(T::STEP).min(T::PIXELS);
        for first in tiles.clone().step_by(piece) {
            // SAFETY: the caller's promise; M's rows are whole cache lines.
            unsafe {
                let tile = Tile {
                    input: v.add(first * self.spec.in_channels),
                    pixel_stride: self.spec.in_channels,
                    runs: &[0],
                    groups: self.groups,
                    weights: u,
                    accumulators: m.add(first * T::CHANNELS),
                };
                T::tile(&tile, piece.min(tiles.end - first));
            }
        }
    }

    /// Makes codes of M.
    ///
    /// # Safety
    /// M is made; the tiles' outputs are this task's.
    unsafe fn finish(&self, plan: &Plan, worker: &Worker, block: Block, channels: usize, output: *mut u8) {
        let spec = &self.spec;
        let position = Self::m_position(plan.tiles_per_block);
        let first = channels * T::CHANNELS;
        let count = T::CHANNELS.min(spec.out_channels - first);
        let (divisor, across) = if spec.pool { (2, 2) } else { (1, 4) };
        let width = plan.out[1] / divisor;
        for tile in 0..block.starts[4] {
            // SAFETY: `list` wrote that many places.
            let place = unsafe { *worker.places.add(tile) };
            let shape = Self::shape_of(plan, place);
            let (y, x) = (place.y as usize * 4, place.x as usize * 4);
            let rows = (plan.out[0] - y).min(4) / divisor;
            let columns = (plan.out[1] - x).min(4) / divisor;
            // SAFETY: M has this tile at each position; the rows and columns are inside of the output.
            unsafe {
                T::output(shape, spec.pool, worker.m.add(tile * T::CHANNELS), position, worker.sums);
                let pixel = y / divisor * width + x / divisor;
                let target = Target {
                    output: output.add(pixel * spec.out_channels + first),
                    stride: spec.out_channels,
                    row: width * spec.out_channels,
                    channels: count,
                };
                T::requantize(&self.epilogue, first, Sums { first: worker.sums, across, rows, columns }, target);
            }
        }
    }
}

impl<T: Transforms> Algorithm for Winograd<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], scratch: &mut Scratch) {
        let Some(plan) = self.plan(shape, pool.threads()) else { return };
        let sizes = self.sizes(&plan);
        let each = LINE + sizes.places + sizes.patch + sizes.sums + sizes.v + sizes.u + sizes.m;
        let areas = scratch.areas(0, pool.threads(), each);
        for worker in 0..pool.threads() {
            // SAFETY: the head is at the start of a worker's area; no task runs yet.
            unsafe { areas.of(worker).cast::<Head>().write(Head { v_of: 0, block: Block { starts: [0; 5] } }) };
        }
        let output = Shared(output.as_mut_ptr());
        pool.run(plan.tile_blocks * plan.channel_tasks, |task, worker| {
            // SAFETY: tasks write disjoint tiles or channels of the output; the areas were made for this plan and pool.
            unsafe { self.task(&plan, &sizes, input, output.get(), &areas, task, worker) };
        });
    }
}
