//! Exact convolution by Winograd's F(4x4, 3x3) on 16-bit products: 36 multiplications for 16 outputs instead of 144.
//!
//! For cores without dot product, where `smlal` does four 16-bit products and nothing does more. The transforms are scaled to integers, so that the output
//! transform yields a known multiple of each true sum. Everything may wrap modulo 2^32: that multiple is 9 times a power of two, 9 has an inverse
//! modulo 2^32, and an arithmetic shift does the rest, exactly, as long as the true sum is below 2^25 in magnitude. [`Winograd::new`] checks that for the worst
//! image that the weights allow.
//!
//! In one dimension, with points 0, 1, -1, 2, -2 and infinity:
//!
//! ```text
//!  input B'         4  0 -5  0  1  0     weights G   6  0  0     output A'   1  4  4  1  1  0    is 24 times the sum
//!                   0 -4 -4  1  1  0                -1 -1 -1                 0  2 -2  1 -1  0    is 12 times
//!                   0  4 -4 -1  1  0                -1  1 -1                 0  1  1  1  1  0    is 6 times
//!                   0 -2 -1  2  1  0                 1  2  4                 0  1 -1  2 -2  2    is 6 times
//!                   0  2 -1 -2  1  0                 1 -2  4
//!                   0  4  0 -5  0  1                 0  0  3
//! ```
//!
//! Transformed inputs of `u8` are at most 17340 in magnitude, transformed weights at most 6272. The column of point 1 in A' is (4, 2, 1, 1), as are the multiples
//! over 6: what is added to product (1, 1), 36 times, is added to all 16 sums. That is where the bias goes in.
//!
//! A layer is cut into blocks of at most 64 tiles. First the block's inputs are transformed, eight channels at a time, into 36 matrices of tiles by channels. Then each
//! thread multiplies for channels of its own, matrix by matrix, with [the NEON tile](super::neon), and transforms, pools and requantises the products while they are in its cache.

use super::{finish::Finish, neon::Neon, tile::Tile};
use crate::kernels::{
    ConvSpec, Pool,
    conv::{Algorithm, Layer, convolved_shape},
    packed::{Packed, Packer},
    scratch::{LINE, Scratch, Shared},
};
use std::arch::aarch64::*;

/// Products of a tile.
const POINTS: usize = 36;
/// Tiles of a panel, panels of a block.
const TILES: usize = 8;
const PANELS: usize = 8;
/// Products of eight channels of one tile.
const PRODUCTS: usize = POINTS * 8;
/// The bytes of products that a thread keeps before it transforms them: they are written and read once, so half of an L2 cache.
const PRODUCT_BYTES: usize = 512 << 10;
/// 9 * INVERSE = 1 modulo 2^32.
const INVERSE: i32 = 954_437_177;
/// The point (1, 1), where the bias goes in, and how often.
const BIAS_POINT: usize = 7;
const BIAS_TIMES: i32 = 36;
/// The sums of output row or column `i` are scaled by 3 times 2 to the power `SCALE[i]`.
const SCALE: [i32; 4] = [3, 2, 1, 1];

/// A 3x3 convolution of stride 1, its weights transformed.
pub(super) struct Winograd {
    spec: ConvSpec,
    /// `[point][block of 8 channels][input][8 channels]`
    weights: Packed<i16>,
    finish: Finish,
    /// Eights of input channels.
    steps: usize,
    /// Eights of output channels.
    blocks: usize,
}

impl Winograd {
    /// `None` where the shape does not fit or a sum could leave 25 bits.
    pub(super) fn new(layer: &Layer, packer: &mut Packer) -> Option<Self> {
        let spec = layer.spec;
        let (ones, channels) = ([1, 1], spec.in_channels);
        let fits = spec.kernel == [3, 3] && spec.stride == ones && spec.dilation == ones && spec.groups == 1;
        let exact = |(c, &bias): (usize, &i32)| is_exact(layer.channel(c), bias, spec.input_zero_point);
        if !fits || channels % 8 != 0 || !packer.decide(|| layer.bias.iter().enumerate().all(exact)) {
            return None;
        }
        let (steps, blocks) = (channels / 8, spec.out_channels.div_ceil(8));
        let weights = packer.array(POINTS * blocks * channels * 8, |to| {
            for c in 0..spec.out_channels {
                let kernel = layer.channel(c);
                for i in 0..channels {
                    let points = transform_weights(std::array::from_fn(|k| kernel[k * channels + i]));
                    for (point, value) in points.into_iter().enumerate() {
                        to[((point * blocks + c / 8) * channels + i) * 8 + c % 8] = value;
                    }
                }
            }
        });
        let start = || layer.offsets(0).iter().map(|b| b.wrapping_mul(BIAS_TIMES)).collect();
        let finish = Finish::new(packer, start, layer.requantize, blocks * 8, |c| c);
        Some(Self { spec: spec.clone(), weights, finish, steps, blocks })
    }
}

impl Algorithm for Winograd {
    fn name(&self) -> &'static str {
        "winograd-neon"
    }

    fn run(&self, pool: &Pool, input: &[u8], size: [usize; 2], output: &mut [u8], scratch: &mut Scratch) {
        let Some(convolved) = convolved_shape(&self.spec, size) else { return };
        let output_size = if self.spec.pool { convolved.map(|n| n / 2) } else { convolved };
        assert!(input.len() >= size[0] * size[1] * self.spec.in_channels);
        assert!(output.len() >= output_size[0] * output_size[1] * self.spec.out_channels);
        let tiles = output_size.map(|n| n.div_ceil(if self.spec.pool { 2 } else { 4 }));
        let count = tiles[0] * tiles[1];
        let panels = count.div_ceil(TILES);
        let rounds = panels.div_ceil(PANELS);
        let layout = Layout::new(self, panels.div_ceil(rounds.max(1)), pool.threads());
        let areas = scratch.areas(layout.inputs_bytes(), pool.threads(), layout.worker_bytes(self.spec.in_channels));
        let (inputs, to) = (Shared(areas.shared().cast::<i16>()), Shared(output.as_mut_ptr()));
        for round in 0..rounds {
            let panels = panels * round / rounds..panels * (round + 1) / rounds;
            let first = panels.start * TILES;
            let count = (panels.end * TILES).min(count) - first;
            let block = Block { layer: self, layout, inputs, first, count, across: tiles[1], size, output_size };
            // SAFETY: the areas are as large as `layout` says; a task writes its own panel's inputs and uses its worker's area.
            pool.run(panels.len(), |panel, worker| unsafe { block.transform(panel, input, areas.of(worker)) });
            // SAFETY: likewise, and a task writes its own channels of the output, which is large enough.
            pool.run(layout.groups, |group, worker| unsafe {
                let products = areas.of(worker).cast();
                if self.spec.pool {
                    block.multiply::<true>(group, products, to.get());
                } else {
                    block.multiply::<false>(group, products, to.get());
                }
            });
        }
    }
}

/// Whether every sum that a `u8` image can give, from zero point and bias on, is below 2^25 in magnitude.
fn is_exact(weights: &[i8], bias: i32, zero_point: u8) -> bool {
    let (mut most, mut least) = (i64::from(bias), i64::from(bias));
    for &weight in weights {
        let (up, down) = (i64::from(weight) * i64::from(255 - zero_point), i64::from(weight) * -i64::from(zero_point));
        most += up.max(down);
        least += up.min(down);
    }
    most < 1 << 25 && least > -(1 << 25)
}

/// `G w G'` of one 3x3 kernel (`w[3 * y + x]`).
fn transform_weights(w: [i8; 9]) -> [i16; POINTS] {
    let column = |a: i16, b: i16, c: i16| [6 * a, -a - b - c, b - a - c, a + 2 * b + 4 * c, a - 2 * b + 4 * c, 3 * c];
    let w = w.map(i16::from);
    let rows: [[i16; 6]; 3] = std::array::from_fn(|x| column(w[x], w[3 + x], w[6 + x]));
    let mut points = [0; POINTS];
    for y in 0..6 {
        points[y * 6..y * 6 + 6].copy_from_slice(&column(rows[0][y], rows[1][y], rows[2][y]));
    }
    points
}

/// How a block's data lie in memory.
#[derive(Clone, Copy)]
struct Layout {
    /// Values of a panel of transformed inputs: all channels of eight tiles.
    panel: usize,
    /// From one point's panels to the next point's. An odd number of cache lines: a power of two would put all points into the same sets.
    point: usize,
    /// Tiles of a full block.
    tiles: usize,
    /// Tasks that the output channels are divided into.
    groups: usize,
    /// The most blocks of eight channels in a task.
    blocks: usize,
}

impl Layout {
    fn new(layer: &Winograd, panels: usize, threads: usize) -> Self {
        let panel = layer.steps * TILES * 8;
        let tiles = panels * TILES;
        let together = (PRODUCT_BYTES / (tiles.max(1) * PRODUCTS * 4)).max(1);
        let groups = layer.blocks.div_ceil(together).next_multiple_of(threads).min(layer.blocks);
        Self { panel, point: panels * panel + LINE / 2, tiles, groups, blocks: layer.blocks.div_ceil(groups.max(1)) }
    }

    fn inputs_bytes(&self) -> usize {
        POINTS * self.point * size_of::<i16>()
    }

    /// A worker's products, or, before them, the patches of a panel's tiles.
    fn worker_bytes(&self, in_channels: usize) -> usize {
        (self.blocks * self.tiles * PRODUCTS * size_of::<i32>()).max(TILES * POINTS * in_channels)
    }
}

/// Tiles `first` to `first + count` of a run.
struct Block<'a> {
    layer: &'a Winograd,
    layout: Layout,
    inputs: Shared<i16>,
    first: usize,
    count: usize,
    /// Tiles in a row of the image.
    across: usize,
    size: [usize; 2],
    output_size: [usize; 2],
}

/// 6x6 pixels in memory.
#[derive(Clone, Copy)]
struct Patch {
    start: *const u8,
    /// Bytes to the next row and pixel.
    row: usize,
    pixel: usize,
}

impl Block<'_> {
    /// Tiles in panel `panel` of this block.
    fn tiles_of(&self, panel: usize) -> usize {
        (self.count - panel * TILES).min(TILES)
    }

    /// Transforms the inputs of panel `panel`.
    ///
    /// # Safety
    /// `self.inputs` and `spare` are as large as `Layout` says; nobody else writes this panel or uses `spare`; `image` is as large as `size` says.
    unsafe fn transform(&self, panel: usize, image: &[u8], spare: *mut u8) {
        let channels = self.layer.spec.in_channels;
        let tiles = self.tiles_of(panel);
        let mut patches = [Patch { start: image.as_ptr(), row: 0, pixel: 0 }; TILES];
        for (i, patch) in patches.iter_mut().enumerate().take(tiles) {
            // SAFETY: each tile has 36 pixels of `spare`.
            *patch = unsafe { self.patch(self.first + panel * TILES + i, image, spare.add(i * POINTS * channels)) };
        }
        for step in 0..self.layer.steps {
            for (i, patch) in patches.iter().enumerate().take(tiles) {
                // SAFETY: 8 channels of 36 pixels are readable, and the tile's place in the panel is ours.
                unsafe {
                    let to = self.inputs.get().add(panel * self.layout.panel + (step * tiles + i) * 8);
                    transform_inputs(Patch { start: patch.start.add(step * 8), ..*patch }, to, self.layout.point);
                }
            }
        }
    }

    /// The inputs of tile `tile`: in the image, or where it reaches over the edge a copy in `spare`.
    ///
    /// # Safety
    /// `spare` has room for 36 pixels; `image` is as large as `size` says.
    unsafe fn patch(&self, tile: usize, image: &[u8], spare: *mut u8) -> Patch {
        let spec = &self.layer.spec;
        let channels = spec.in_channels;
        let corner = [
            (tile / self.across * 4) as isize - spec.padding[0] as isize,
            (tile % self.across * 4) as isize - spec.padding[1] as isize,
        ];
        let [height, width] = self.size.map(|n| n as isize);
        let address = |y: isize, x: isize| image.as_ptr().wrapping_offset((y * width + x) * channels as isize);
        if corner[0] >= 0 && corner[1] >= 0 && corner[0] + 6 <= height && corner[1] + 6 <= width {
            return Patch { start: address(corner[0], corner[1]), row: self.size[1] * channels, pixel: channels };
        }
        for y in 0..6 {
            for x in 0..6 {
                let (row, column) = (corner[0] + y, corner[1] + x);
                // SAFETY: the pixel of `spare` is ours; the image's pixel is inside of it.
                unsafe {
                    let to = spare.add((y * 6 + x) as usize * channels);
                    if (0..height).contains(&row) && (0..width).contains(&column) {
                        to.copy_from_nonoverlapping(address(row, column), channels);
                    } else {
                        to.write_bytes(spec.input_zero_point, channels);
                    }
                }
            }
        }
        Patch { start: spare, row: 6 * channels, pixel: channels }
    }

    /// Computes the output channels of group `group` for all tiles.
    ///
    /// # Safety
    /// The inputs are transformed; `products` is as large as `Layout` says and ours, and so are this group's channels of the output at `to`.
    unsafe fn multiply<const POOL: bool>(&self, group: usize, products: *mut i32, to: *mut u8) {
        let (layer, layout) = (self.layer, &self.layout);
        let blocks = layer.blocks * group / layout.groups..layer.blocks * (group + 1) / layout.groups;
        let panels = self.count.div_ceil(TILES);
        let zero = [0; 8];
        for point in 0..POINTS {
            for (b, block) in blocks.clone().enumerate() {
                // SAFETY: inside of the weights, of the biases and of the products, by `Layout`.
                unsafe {
                    let weights = layer.weights.as_ptr().add((point * layer.blocks + block) * layer.steps * 64);
                    let start =
                        if point == BIAS_POINT { layer.finish.bias.as_ptr().add(block * 8) } else { zero.as_ptr() };
                    for panel in 0..panels {
                        let inputs = self.inputs.get().add(point * layout.point + panel * layout.panel).cast_const();
                        let to = products.add((b * layout.tiles + panel * TILES) * PRODUCTS + point * 4);
                        products_of(self.tiles_of(panel), layer.steps, inputs, weights, start, to);
                    }
                }
            }
        }
        for (b, block) in blocks.enumerate() {
            for tile in 0..self.count {
                // SAFETY: these products were written above; `finish_tile` writes inside of the output.
                unsafe {
                    self.finish_tile::<POOL>(
                        self.first + tile,
                        block,
                        products.add((b * layout.tiles + tile) * PRODUCTS),
                        to,
                    )
                };
            }
        }
    }

    /// Writes the codes of one tile and eight channels.
    ///
    /// # Safety
    /// `products` are this tile's, and its channels `8 * block` and following of the output at `to` are ours.
    #[inline(always)]
    unsafe fn finish_tile<const POOL: bool>(&self, tile: usize, block: usize, products: *const i32, to: *mut u8) {
        let (layer, side) = (self.layer, if POOL { 2 } else { 4 });
        let channels = layer.spec.out_channels;
        let corner = [tile / self.across * side, tile % self.across * side];
        let rows = (self.output_size[0] - corner[0]).min(side);
        let columns = (self.output_size[1] - corner[1]).min(side);
        // SAFETY: the caller's promise; rows and columns end with the output.
        unsafe {
            let low = transform_products(products);
            let high = transform_products(products.add(POINTS * 4));
            let multipliers = layer.finish.multipliers(block * 8);
            let start = to.add((corner[0] * self.output_size[1] + corner[1]) * channels + block * 8);
            let most = |sums: &[[int32x4_t; 4]; 4], y: usize, x: usize| {
                let [a, b, c, d] = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| sums[2 * y + i][2 * x + j]);
                vmaxq_s32(vmaxq_s32(a, b), vmaxq_s32(c, d))
            };
            for y in 0..side {
                for x in 0..side {
                    let sums = if POOL { [most(&low, y, x), most(&high, y, x)] } else { [low[y][x], high[y][x]] };
                    let place = super::finish::Place {
                        start: start.add((y * self.output_size[1] + x) * channels),
                        stride: 0,
                        pixels: 1,
                        channels: (channels - block * 8).min(8),
                    };
                    if y < rows && x < columns {
                        place.write(0, layer.finish.codes(sums, multipliers));
                    }
                }
            }
        }
    }
}

/// `B' d B` of 6x6 pixels, eight channels; point `i` goes to `to + i * stride`.
///
/// # Safety
/// Eight bytes of each pixel are readable, eight values of each point writable.
#[inline(always)]
unsafe fn transform_inputs(patch: Patch, to: *mut i16, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let rows: [[int16x8_t; 6]; 6] = std::array::from_fn(|y| {
            let row = patch.start.add(y * patch.row);
            transform_six(std::array::from_fn(|x| vreinterpretq_s16_u16(vmovl_u8(vld1_u8(row.add(x * patch.pixel))))))
        });
        let columns: [[int16x8_t; 6]; 6] = std::array::from_fn(|x| transform_six(rows.map(|row| row[x])));
        for (x, column) in columns.into_iter().enumerate() {
            for (y, value) in column.into_iter().enumerate() {
                vst1q_s16(to.add((y * 6 + x) * stride), value);
            }
        }
    }
}

/// `B' d` in one dimension.
#[inline(always)]
fn transform_six(d: [int16x8_t; 6]) -> [int16x8_t; 6] {
    // SAFETY: registers only.
    unsafe {
        let four = vdupq_n_s16(4);
        // Points 1 and -1 are even plus or minus odd; so are 2 and -2.
        let (even, odd) = (vmlsq_s16(d[4], d[2], four), vmlsq_s16(d[3], d[1], four));
        let (even2, half2) = (vsubq_s16(d[4], d[2]), vsubq_s16(d[3], d[1]));
        let odd2 = vaddq_s16(half2, half2);
        [
            vmlaq_s16(vsubq_s16(even, d[2]), d[0], four),
            vaddq_s16(even, odd),
            vsubq_s16(even, odd),
            vaddq_s16(even2, odd2),
            vsubq_s16(even2, odd2),
            vsubq_s16(vmlsq_s16(d[5], d[3], four), odd),
        ]
    }
}

/// `A' m A` of the products of four channels, unscaled: the sums of 4x4 outputs.
///
/// # Safety
/// `products` is readable for 36 times 4 values.
#[inline(always)]
unsafe fn transform_products(products: *const i32) -> [[int32x4_t; 4]; 4] {
    let columns: [[int32x4_t; 4]; 6] = std::array::from_fn(|x| {
        // SAFETY: the caller's promise.
        transform_four(std::array::from_fn(|y| unsafe { vld1q_s32(products.add((y * 6 + x) * 4)) }))
    });
    // SAFETY: registers only.
    let (inverse, mut sums) = unsafe { (vdupq_n_s32(INVERSE), [[vdupq_n_s32(0); 4]; 4]) };
    for (y, row) in sums.iter_mut().enumerate() {
        *row = transform_four(std::array::from_fn(|x| columns[x][y]));
        for (x, sum) in row.iter_mut().enumerate() {
            // SAFETY: registers only. A shift by a negative number of places is an arithmetic one to the right.
            *sum = unsafe { vshlq_s32(vmulq_s32(*sum, inverse), vdupq_n_s32(-(SCALE[y] + SCALE[x]))) };
        }
    }
    sums
}

/// `A' m` in one dimension.
#[inline(always)]
fn transform_four(m: [int32x4_t; 6]) -> [int32x4_t; 4] {
    // SAFETY: registers only.
    unsafe {
        let (two, four) = (vdupq_n_s32(2), vdupq_n_s32(4));
        let (sum1, difference1) = (vaddq_s32(m[1], m[2]), vsubq_s32(m[1], m[2]));
        let (sum2, difference2) = (vaddq_s32(m[3], m[4]), vsubq_s32(m[3], m[4]));
        [
            vmlaq_s32(vaddq_s32(m[0], sum2), sum1, four),
            vmlaq_s32(difference2, difference1, two),
            vaddq_s32(sum1, sum2),
            vmlaq_s32(difference1, vaddq_s32(difference2, m[5]), two),
        ]
    }
}

/// One point's products of `tiles` tiles and eight channels; tile `i`'s go to `to + i * PRODUCTS`, the last four channels' `POINTS * 4` further on.
///
/// # Safety
/// `inputs` holds `8 * steps` values of each tile, `weights` `64 * steps`, `start` 8; `to` is writable there.
#[inline(always)]
unsafe fn products_of(
    tiles: usize,
    steps: usize,
    inputs: *const i16,
    weights: *const i16,
    start: *const i32,
    to: *mut i32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match tiles {
            1 => store(&few::<1>(steps, inputs, weights, start), to),
            2 => store(&few::<2>(steps, inputs, weights, start), to),
            3 => store(&few::<3>(steps, inputs, weights, start), to),
            4 => store(&few::<4>(steps, inputs, weights, start), to),
            5 => store(&few::<5>(steps, inputs, weights, start), to),
            6 => store(&few::<6>(steps, inputs, weights, start), to),
            7 => store(&few::<7>(steps, inputs, weights, start), to),
            _ => store(&Neon::multiply(steps, inputs, weights, start), to),
        }
    }
}

/// # Safety
/// As for `products_of`.
#[inline(always)]
unsafe fn store(sums: &[[int32x4_t; 2]], to: *mut i32) {
    for (i, [low, high]) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_s32(to.add(i * PRODUCTS), *low);
            vst1q_s32(to.add(i * PRODUCTS + POINTS * 4), *high);
        }
    }
}

/// The tile for fewer than eight rows, the last of a layer: 49 tiles of a 28x28 layer are six panels and one tile.
///
/// # Safety
/// As for `products_of`.
#[inline(never)]
unsafe fn few<const ROWS: usize>(
    steps: usize,
    inputs: *const i16,
    weights: *const i16,
    start: *const i32,
) -> [[int32x4_t; 2]; ROWS] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[vld1q_s32(start), vld1q_s32(start.add(4))]; ROWS];
        for step in 0..steps {
            let rows: [int16x8_t; ROWS] = std::array::from_fn(|i| vld1q_s16(inputs.add((step * ROWS + i) * 8)));
            macro_rules! input {
                ($($lane:literal)*) => { $(
                    let w = vld1q_s16(weights.add(step * 64 + $lane * 8));
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        sums[0] = vmlal_laneq_s16::<$lane>(sums[0], vget_low_s16(w), row);
                        sums[1] = vmlal_high_laneq_s16::<$lane>(sums[1], w, row);
                    }
                )* };
            }
            input!(0 1 2 3 4 5 6 7);
        }
        sums
    }
}
