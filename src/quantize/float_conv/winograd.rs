//! F(4x4, 3x3): 16 results of a 3x3 filter from 36 multiplications (Lavin and Gray 2016, "Fast Algorithms for Convolutional
//! Neural Networks"). Filter, input and output are transformed by
//!
//! ```text
//!  U = G g Gᵀ      V = Bᵀ d B      Y = Aᵀ (sum over the channels of U ⊙ V) A
//! ```
//!
//! The sums are 36 matrix products `[outputs][channels] x [channels][tiles]`. All transforms run along rows of tiles: a row's
//! pixels are kept by their place within a tile (x modulo 4), so that neighbours in memory are neighbouring tiles.

use super::{Shape, multiply};

/// Side of a tile of results.
const TILE: usize = 4;
/// Side of the patch that a tile reads.
const PATCH: usize = TILE + 2;
/// Products a tile.
const POINTS: usize = PATCH * PATCH;
/// Floats of the transformed filters that are kept at a time: 128 filters of 256 channels.
const FILTERS: usize = 1_200_000;
/// Floats of the transformed patches that are kept at a time: 512 channels of a 28x28 image, which are then made once.
const PATCHES: usize = 910_000;

/// `output` without the bias. `scratch` is grown as needed; what is in it does not matter.
pub(super) fn run(shape: &Shape, input: &[f32], weights: &[f32], output: &mut [f32], scratch: &mut Vec<f32>) {
    let across = shape.out_width.div_ceil(TILE);
    let down = shape.out_height.div_ceil(TILE);
    let (channels, outputs) = (shape.channels, shape.outputs);
    let outputs_at_once = (FILTERS / (POINTS * channels)).clamp(1, outputs);
    let rows_at_once = (PATCHES / (POINTS * channels * across)).clamp(1, down);
    let tiles = rows_at_once * across;
    let sizes = [
        POINTS * outputs_at_once * channels,
        POINTS * channels * tiles,
        POINTS * outputs_at_once * tiles,
        2 * PATCH * TILE * (across + 1),
    ];
    scratch.resize(scratch.len().max(sizes.iter().sum()), 0.0);
    let (filters, rest) = scratch.split_at_mut(sizes[0]);
    let (patches, rest) = rest.split_at_mut(sizes[1]);
    let (sums, rows) = rest.split_at_mut(sizes[2]);
    for first in (0..outputs).step_by(outputs_at_once) {
        let count = outputs_at_once.min(outputs - first);
        transform_filters(&weights[first * channels * 9..][..count * channels * 9], filters);
        for top in (0..down).step_by(rows_at_once) {
            let tile_rows = rows_at_once.min(down - top);
            let tiles = tile_rows * across;
            if first == 0 || rows_at_once < down {
                transform_input(shape, input, top..top + tile_rows, across, patches, rows);
            }
            for point in 0..POINTS {
                let (u, v) = (&filters[point * count * channels..], &patches[point * channels * tiles..]);
                multiply(u, v, &mut sums[point * count * tiles..][..count * tiles], [count, channels, tiles], tiles);
            }
            let block = Block { first, count, top, tile_rows, across };
            transform_output(shape, sums, &block, output, rows);
        }
    }
}

/// `[filter][3][3]` to `[point][filter]`.
fn transform_filters(weights: &[f32], to: &mut [f32]) {
    /// Filters transformed side by side.
    const LANES: usize = 8;
    let count = weights.len() / 9;
    for first in (0..count).step_by(LANES) {
        let lanes = LANES.min(count - first);
        let mut g = [[[0f32; LANES]; 3]; 3];
        for (lane, filter) in weights[first * 9..][..lanes * 9].chunks_exact(9).enumerate() {
            for (place, value) in filter.iter().enumerate() {
                g[place / 3][place % 3][lane] = *value;
            }
        }
        let mut half = [[[0f32; LANES]; 3]; PATCH];
        for column in 0..3 {
            let spread = filter_line([g[0][column], g[1][column], g[2][column]]);
            for (row, value) in spread.into_iter().enumerate() {
                half[row][column] = value;
            }
        }
        for (row, line) in half.into_iter().enumerate() {
            for (column, value) in filter_line(line).into_iter().enumerate() {
                let to = &mut to[(row * PATCH + column) * count + first..];
                // a length that is known at compile time is no call
                match to.first_chunk_mut::<LANES>() {
                    Some(to) if lanes == LANES => *to = value,
                    _ => to[..lanes].copy_from_slice(&value[..lanes]),
                }
            }
        }
    }
}

/// `G g`, in every lane.
fn filter_line<const N: usize>([a, b, c]: [[f32; N]; 3]) -> [[f32; N]; PATCH] {
    let mut to = [[0f32; N]; PATCH];
    for lane in 0..N {
        let (a, b, c) = (a[lane], b[lane], c[lane]);
        let (outer, wide) = (a + c, a + 4.0 * c);
        to[0][lane] = a / 4.0;
        to[1][lane] = (outer + b) * (-1.0 / 6.0);
        to[2][lane] = (outer - b) * (-1.0 / 6.0);
        to[3][lane] = (wide + 2.0 * b) * (1.0 / 24.0);
        to[4][lane] = (wide - 2.0 * b) * (1.0 / 24.0);
        to[5][lane] = c;
    }
    to
}

/// `Bᵀ d` at one place.
#[inline(always)]
fn patch_line(d: [f32; PATCH]) -> [f32; PATCH] {
    let (a, b) = (d[4] - 4.0 * d[2], d[3] - 4.0 * d[1]);
    let (c, e) = (d[4] - d[2], 2.0 * (d[3] - d[1]));
    [4.0 * d[0] - 5.0 * d[2] + d[4], a + b, a - b, c + e, c - e, 4.0 * d[1] - 5.0 * d[3] + d[5]]
}

/// `Aᵀ m` at one place.
#[inline(always)]
fn result_line(m: [f32; PATCH]) -> [f32; TILE] {
    let (a, b) = (m[1] + m[2], m[1] - m[2]);
    let (c, d) = (m[3] + m[4], m[3] - m[4]);
    [m[0] + a + c, b + 2.0 * d, a + 4.0 * c, b + 8.0 * d + m[5]]
}

/// The input's patches for some rows of tiles, to `[point][channel][tile]`.
fn transform_input(
    shape: &Shape,
    input: &[f32],
    tile_rows: std::ops::Range<usize>,
    across: usize,
    to: &mut [f32],
    rows: &mut [f32],
) {
    let tiles = tile_rows.len() * across;
    // one patch row by place within a tile: [4][across + 1]
    let length = TILE * (across + 1);
    let (raw, half) = rows.split_at_mut(PATCH * length);
    for channel in 0..shape.channels {
        let image = &input[channel * shape.height * shape.width..][..shape.height * shape.width];
        for (index, tile_row) in tile_rows.clone().enumerate() {
            for (line, to) in raw.chunks_exact_mut(length).enumerate() {
                let y = (tile_row * TILE + line).checked_sub(shape.padding[0]).filter(|y| *y < shape.height);
                match y {
                    Some(y) => split_row(&image[y * shape.width..][..shape.width], shape.padding[1], across + 1, to),
                    None => to.fill(0.0),
                }
            }
            columns(raw, half, length);
            for (line, half) in half.chunks_exact(length).take(PATCH).enumerate() {
                let place = |column: usize| &half[column % TILE * (across + 1) + column / TILE..][..across];
                let d: [&[f32]; PATCH] = std::array::from_fn(place);
                let start = channel * tiles + index * across;
                let points = line * PATCH;
                for tile in 0..across {
                    let made = patch_line(std::array::from_fn(|i| d[i][tile]));
                    for (column, value) in made.into_iter().enumerate() {
                        to[(points + column) * shape.channels * tiles + start + tile] = value;
                    }
                }
            }
        }
    }
}

/// `Bᵀ d` along the columns of six rows.
fn columns(raw: &[f32], half: &mut [f32], length: usize) {
    let d: [&[f32]; PATCH] = std::array::from_fn(|i| &raw[i * length..][..length]);
    let mut lines = half.chunks_exact_mut(length);
    let mut to: [&mut [f32]; PATCH] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    for at in 0..length {
        let made = patch_line(std::array::from_fn(|i| d[i][at]));
        for (to, value) in to.iter_mut().zip(made) {
            to[at] = value;
        }
    }
}

/// A row of pixels by place within a tile: `[4][tiles]`, zero where there is no pixel.
fn split_row(row: &[f32], padding: usize, tiles: usize, to: &mut [f32]) {
    for (place, to) in to.chunks_exact_mut(tiles).enumerate() {
        for (tile, to) in to.iter_mut().enumerate() {
            let x = (tile * TILE + place).wrapping_sub(padding);
            *to = row.get(x).copied().unwrap_or(0.0);
        }
    }
}

/// Some outputs of some rows of tiles.
struct Block {
    first: usize,
    count: usize,
    top: usize,
    tile_rows: usize,
    across: usize,
}

/// `[point][output][tile]` to the image.
fn transform_output(shape: &Shape, sums: &[f32], block: &Block, output: &mut [f32], rows: &mut [f32]) {
    let Block { first, count, top, tile_rows, across } = *block;
    let tiles = tile_rows * across;
    let length = TILE * across;
    for index in 0..count {
        let image = &mut output[(first + index) * shape.out_height * shape.out_width..];
        let image = &mut image[..shape.out_height * shape.out_width];
        for tile_row in 0..tile_rows {
            let start = index * tiles + tile_row * across;
            for (line, half) in rows.chunks_exact_mut(length).take(PATCH).enumerate() {
                let point = |column: usize| &sums[(line * PATCH + column) * count * tiles + start..][..across];
                let m: [&[f32]; PATCH] = std::array::from_fn(point);
                let mut places = half.chunks_exact_mut(across);
                let mut to: [&mut [f32]; TILE] = std::array::from_fn(|_| places.next().unwrap_or_default());
                for tile in 0..across {
                    let made = result_line(std::array::from_fn(|i| m[i][tile]));
                    for (to, value) in to.iter_mut().zip(made) {
                        to[tile] = value;
                    }
                }
            }
            let (half, whole) = rows.split_at_mut(PATCH * length);
            result_columns(half, whole, length);
            let lines = image.chunks_exact_mut(shape.out_width).skip((top + tile_row) * TILE);
            for (to, whole) in lines.zip(whole.chunks_exact(length).take(TILE)) {
                join_row(whole, across, to);
            }
        }
    }
}

/// `Aᵀ m` along the columns of six rows.
fn result_columns(half: &[f32], whole: &mut [f32], length: usize) {
    let m: [&[f32]; PATCH] = std::array::from_fn(|i| &half[i * length..][..length]);
    let mut lines = whole.chunks_exact_mut(length);
    let mut to: [&mut [f32]; TILE] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    for at in 0..length {
        let made = result_line(std::array::from_fn(|i| m[i][at]));
        for (to, value) in to.iter_mut().zip(made) {
            to[at] = value;
        }
    }
}

/// From `[4][tiles]` to a row of pixels.
fn join_row(from: &[f32], tiles: usize, row: &mut [f32]) {
    for (tile, to) in row.chunks_mut(TILE).enumerate() {
        for (place, to) in to.iter_mut().enumerate() {
            *to = from[place * tiles + tile];
        }
    }
}
