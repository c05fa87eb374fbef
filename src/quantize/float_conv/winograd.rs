//! F(4x4, 3x3): 16 results of a 3x3 filter from 36 multiplications (Lavin and Gray 2016, "Fast Algorithms for Convolutional
//! Neural Networks"). Filter, input and output are transformed by
//!
//! ```text
//!  U = G g Gᵀ      V = Bᵀ d B      Y = Aᵀ (sum over the channels of U ⊙ V) A
//! ```
//!
//! The sums are 36 matrix products `[outputs][channels] x [channels][tiles]`. All transforms run along all tiles of a channel: its
//! pixels are kept by their place within a tile (row and column modulo 4), so that neighbours in memory are neighbouring tiles, and a
//! patch's fifth row and column are the first of the tile below and of the tile to the right. So each row of tiles has one tile more than the
//! image; what is computed for it is nobody's.

use super::{Shape, multiply};
use crate::kernels::Kernel;
use crate::kernels::float::Loops;

/// Side of a tile of results.
const TILE: usize = 4;
/// Side of the patch that a tile reads.
const PATCH: usize = TILE + 2;
/// Products a tile.
const POINTS: usize = PATCH * PATCH;
/// Floats of the transformed filters that are kept at a time: eight filters of 512 channels, one tile of the products, near enough to stay in
/// a megabyte of cache until they are read.
const FILTERS: usize = 150_000;
/// Floats of the transformed patches and of the sums that are kept at a time: a whole 28x28 image of 512 channels, for which the filters then are
/// transformed once; they are again for each further part of a larger image, which has fewer of them.
const PATCHES: usize = 1_100_000;

/// Tiles or filters transformed side by side: arrays of this length are the vectors that the compiler makes of the transforms.
const LANES: usize = 16;

type Lanes = [f32; LANES];

/// A convolution, ready to run.
pub(super) struct Winograd<'a> {
    pub(super) kernel: Kernel,
    pub(super) shape: &'a Shape,
    pub(super) input: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) limits: (f32, f32),
    pub(super) output: &'a mut [f32],
    /// Grown as needed; what is in it does not matter.
    pub(super) scratch: &'a mut Vec<f32>,
}

impl Loops for Winograd<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Winograd { kernel, shape, input, weights, bias, limits, output, scratch } = self;
        let across = shape.out_width.div_ceil(TILE) + 1;
        let down = shape.out_height.div_ceil(TILE);
        let (channels, outputs) = (shape.channels, shape.outputs);
        let outputs_at_once = (FILTERS / (POINTS * channels)).clamp(1, outputs);
        let rows_at_once = (PATCHES / (POINTS * (channels + outputs_at_once) * across)).clamp(1, down);
        let tiles = Rows { top: 0, count: rows_at_once, across }.tiles();
        let sizes = [
            POINTS * plane(outputs_at_once * channels),
            POINTS * plane(channels * tiles),
            POINTS * plane(outputs_at_once * tiles),
            Rows::length(rows_at_once, across),
        ];
        scratch.resize(scratch.len().max(sizes.iter().sum::<usize>() + LANES), 0.0);
        let aligned = scratch.as_ptr().align_offset(size_of::<Lanes>()).min(LANES);
        let (filters, rest) = scratch[aligned..].split_at_mut(sizes[0]);
        let (patches, rest) = rest.split_at_mut(sizes[1]);
        let (sums, rest) = rest.split_at_mut(sizes[2]);
        for top in (0..down).step_by(rows_at_once) {
            let rows = Rows { top, count: rows_at_once.min(down - top), across };
            let tiles = rows.tiles();
            transform_input(shape, input, rows, patches, rest);
            for first in (0..outputs).step_by(outputs_at_once) {
                let count = outputs_at_once.min(outputs - first);
                if top == 0 || outputs_at_once < outputs {
                    transform_filters(&weights[first * channels * 9..][..count * channels * 9], filters);
                }
                for point in 0..POINTS {
                    let u = &filters[point * plane(count * channels)..];
                    let v = &patches[point * plane(channels * tiles)..];
                    let sums = &mut sums[point * plane(count * tiles)..][..count * tiles];
                    multiply(kernel, u, v, sums, [count, channels, tiles], tiles);
                }
                for index in 0..count {
                    let pixels = shape.out_height * shape.out_width;
                    let image = &mut output[(first + index) * pixels..][..pixels];
                    transform_output(shape, (sums, index, count), rows, (bias[first + index], limits), image, rest);
                }
            }
        }
    }
}

/// Floats from one point's matrix to the next point's: whole lines of the cache, and one more, so that not all 36 fall into the same place of it where
/// the matrices' sides are powers of two.
#[inline(always)]
fn plane(floats: usize) -> usize {
    floats.next_multiple_of(LANES) + LANES
}

/// Some rows of tiles.
#[derive(Clone, Copy)]
struct Rows {
    top: usize,
    count: usize,
    /// Tiles in each, with the one that is nobody's.
    across: usize,
}

impl Rows {
    /// How many are computed: of the vector that the last ones fill, the rest is nobody's either.
    fn tiles(self) -> usize {
        (self.count * self.across).next_multiple_of(LANES)
    }

    /// Floats that the transforms need beside what they read and make.
    fn length(count: usize, across: usize) -> usize {
        let tiles = Rows { top: 0, count, across }.tiles();
        TILE * across + TILE * TILE * (tiles + across + 1) + PATCH * TILE * (tiles + 1)
    }
}

/// `[filter][3][3]` to `[point][filter]`, the points a [`plane`] apart.
#[inline(always)]
fn transform_filters(weights: &[f32], to: &mut [f32]) {
    let count = weights.len() / 9;
    let plane = plane(count);
    for first in (0..count).step_by(LANES) {
        let lanes = LANES.min(count - first);
        let mut g = [[[0f32; LANES]; 3]; 3];
        for (lane, filter) in weights[first * 9..][..lanes * 9].chunks_exact(9).enumerate() {
            for (place, value) in filter.iter().enumerate() {
                g[place / 3][place % 3][lane] = *value;
            }
        }
        let mut half = [[[0f32; LANES]; PATCH]; 3];
        for (column, half) in half.iter_mut().enumerate() {
            filter_line([&g[0][column], &g[1][column], &g[2][column]], half);
        }
        for row in 0..PATCH {
            let mut made = [[0f32; LANES]; PATCH];
            filter_line([&half[0][row], &half[1][row], &half[2][row]], &mut made);
            for (column, value) in made.iter().enumerate() {
                let to = &mut to[(row * PATCH + column) * plane + first..];
                // a length that is known at compile time is no call, unless the other branch is merged into it
                match to.first_chunk_mut::<LANES>() {
                    Some(to) if lanes == LANES => *to = *value,
                    _ => copy_some(&value[..lanes], to),
                }
            }
        }
    }
}

/// `G g`, in every lane.
#[inline(always)]
fn filter_line([a, b, c]: [&Lanes; 3], to: &mut [Lanes; PATCH]) {
    for lane in 0..LANES {
        let (a, b, c) = (a[lane], b[lane], c[lane]);
        let (outer, wide) = (a + c, a + 4.0 * c);
        to[0][lane] = a / 4.0;
        to[1][lane] = (outer + b) * (-1.0 / 6.0);
        to[2][lane] = (outer - b) * (-1.0 / 6.0);
        to[3][lane] = (wide + 2.0 * b) * (1.0 / 24.0);
        to[4][lane] = (wide - 2.0 * b) * (1.0 / 24.0);
        to[5][lane] = c;
    }
}

/// `Bᵀ d`, in every lane.
#[inline(always)]
fn patch_line(d: &[Lanes; PATCH], to: &mut [Lanes; PATCH]) {
    for lane in 0..LANES {
        let d = [d[0][lane], d[1][lane], d[2][lane], d[3][lane], d[4][lane], d[5][lane]];
        let (a, b) = (d[4] - 4.0 * d[2], d[3] - 4.0 * d[1]);
        let (c, e) = (d[4] - d[2], 2.0 * (d[3] - d[1]));
        to[0][lane] = 4.0 * d[0] - 5.0 * d[2] + d[4];
        to[1][lane] = a + b;
        to[2][lane] = a - b;
        to[3][lane] = c + e;
        to[4][lane] = c - e;
        to[5][lane] = 4.0 * d[1] - 5.0 * d[3] + d[5];
    }
}

/// `Aᵀ m`, in every lane.
#[inline(always)]
fn result_line(m: &[Lanes; PATCH], to: &mut [Lanes; TILE]) {
    for lane in 0..LANES {
        let m = [m[0][lane], m[1][lane], m[2][lane], m[3][lane], m[4][lane], m[5][lane]];
        let (a, b) = (m[1] + m[2], m[1] - m[2]);
        let (c, d) = (m[3] + m[4], m[3] - m[4]);
        to[0][lane] = m[0] + a + c;
        to[1][lane] = b + 2.0 * d;
        to[2][lane] = a + 4.0 * c;
        to[3][lane] = b + 8.0 * d + m[5];
    }
}

/// A transform of `I` lines to `O` lines, side by side along them, as far as the results go.
#[inline(always)]
fn along<const I: usize, const O: usize>(
    from: [&[f32]; I],
    mut to: [&mut [f32]; O],
    transform: impl Fn(&[Lanes; I], &mut [Lanes; O]),
) {
    let length = to[0].len();
    for first in (0..length).step_by(LANES) {
        // the last results are made twice where they fill no vector
        let first = first.min(length.saturating_sub(LANES));
        let mut lines = [[0f32; LANES]; I];
        for (line, from) in lines.iter_mut().zip(from) {
            let from = &from[first..];
            // a length that is known at compile time is no call, unless the other branch is merged into it
            match from.first_chunk() {
                Some(from) => *line = *from,
                None => copy_some(from, line),
            }
        }
        // by reference: by value they would be copied, in calls
        let mut made = [[0f32; LANES]; O];
        transform(&lines, &mut made);
        for (made, to) in made.iter().zip(&mut to) {
            let to = &mut to[first..];
            match to.first_chunk_mut() {
                Some(to) => *to = *made,
                None => copy_some(made, to),
            }
        }
    }
}

/// The input's patches for some rows of tiles, to `[point][channel][tile]`, the points a [`plane`] apart.
#[inline(always)]
fn transform_input(shape: &Shape, input: &[f32], rows: Rows, to: &mut [f32], scratch: &mut [f32]) {
    let Rows { top, count, across } = rows;
    let tiles = rows.tiles();
    // of each place within a tile: a row of tiles more, and the tile to the right of the last
    let length = tiles + across + 1;
    let (line, rest) = scratch.split_at_mut(TILE * across);
    let (raw, half) = rest.split_at_mut(TILE * TILE * length);
    line.fill(0.0);
    raw.fill(0.0);
    for channel in 0..shape.channels {
        let image = &input[channel * shape.height * shape.width..][..shape.height * shape.width];
        for row in 0..TILE * count + 2 {
            let y = (TILE * top + row).checked_sub(shape.padding[0]).filter(|y| *y < shape.height);
            let at = row % TILE * TILE * length + row / TILE * across;
            match y {
                Some(y) => {
                    let width = shape.width.min(line.len() - shape.padding[1]);
                    line[shape.padding[1]..][..width].copy_from_slice(&image[y * shape.width..][..width]);
                    split_row(line, &mut raw[at..], length);
                }
                None => (0..TILE).for_each(|place| raw[at + place * length..][..across].fill(0.0)),
            }
        }
        for place in 0..TILE {
            let d = std::array::from_fn(|row| &raw[(row % TILE * TILE + place) * length + row / TILE * across..]);
            along(d, disjoint(half, TILE * (tiles + 1), place * (tiles + 1), tiles + 1), patch_line);
        }
        for row in 0..PATCH {
            let d = std::array::from_fn(|column| &half[(row * TILE + column % TILE) * (tiles + 1) + column / TILE..]);
            let point = plane(shape.channels * tiles);
            along(d, disjoint(&mut to[row * PATCH * point..], point, channel * tiles, tiles), patch_line);
        }
    }
}

/// As much as there is room for.
#[cold]
#[inline(never)]
fn copy_some(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// `N` slices of `length`, `stride` apart, the first at `first`.
#[inline(always)]
fn disjoint<const N: usize>(all: &mut [f32], stride: usize, first: usize, length: usize) -> [&mut [f32]; N] {
    let mut parts = all.chunks_mut(stride);
    std::array::from_fn(|_| &mut parts.next().unwrap_or_default()[first..][..length])
}

/// A row of pixels to the four places within a tile, which lie `length` apart.
#[inline(always)]
fn split_row(line: &[f32], to: &mut [f32], length: usize) {
    let tiles = line.len() / TILE;
    let [a, b, c, d] = disjoint(to, length, 0, tiles);
    for (tile, pixels) in line.as_chunks::<TILE>().0.iter().enumerate() {
        [a[tile], b[tile], c[tile], d[tile]] = *pixels;
    }
}

/// One output of `sums` (`[point][output][tile]`, the points a [`plane`] apart; which output, and of how many) to its image, with its bias, cut to the limits.
#[inline(always)]
fn transform_output(
    shape: &Shape,
    (sums, index, count): (&[f32], usize, usize),
    rows: Rows,
    (bias, (low, high)): (f32, (f32, f32)),
    image: &mut [f32],
    scratch: &mut [f32],
) {
    let tiles = rows.tiles();
    let (half, rest) = scratch.split_at_mut(PATCH * TILE * tiles);
    let whole = &mut rest[..TILE * TILE * tiles];
    for row in 0..PATCH {
        let m = std::array::from_fn(|column| &sums[(row * PATCH + column) * plane(count * tiles) + index * tiles..]);
        along(m, disjoint(&mut half[row * TILE * tiles..], tiles, 0, tiles), result_line);
    }
    for column in 0..TILE {
        let m = std::array::from_fn(|row| &half[(row * TILE + column) * tiles..]);
        let finish = |m: &_, to: &mut [Lanes; TILE]| {
            result_line(m, to);
            for value in to.as_flattened_mut() {
                *value = (*value + bias).max(low).min(high);
            }
        };
        along(m, disjoint(whole, TILE * tiles, column * tiles, tiles), finish);
    }
    for (row, line) in image.chunks_exact_mut(shape.out_width).skip(TILE * rows.top).take(TILE * rows.count).enumerate()
    {
        join_row(&whole[row % TILE * TILE * tiles + row / TILE * rows.across..], tiles, line);
    }
}

/// From the four places within a tile, which lie `length` apart, to a row of pixels.
#[inline(always)]
fn join_row(from: &[f32], length: usize, line: &mut [f32]) {
    let tiles = line.len() / TILE;
    let places: [&[f32]; TILE] = std::array::from_fn(|place| &from[place * length..][..tiles]);
    let (whole, rest) = line.as_chunks_mut::<TILE>();
    for (tile, pixels) in whole.iter_mut().enumerate() {
        *pixels = [places[0][tile], places[1][tile], places[2][tile], places[3][tile]];
    }
    for (place, pixel) in rest.iter_mut().enumerate() {
        *pixel = from[place * length + tiles];
    }
}
