//! Resizing as Pillow does it, bit for bit: two passes over 8-bit pixels with fixed-point weights.
//!
//! The definition is the `resize` of Pillow (`src/libImaging/Resample.c` for bilinear, `Geometry.c` for nearest). An output
//! pixel `i` looks at the input around `centre = (i + 0.5) * scale`, with `scale = input / output`. Bilinear weighs the
//! input pixels by a triangle of half-width `max(scale, 1)`, so that shrinking averages and does not skip (antialiasing);
//! the weights are normalised to 1 and rounded to 22 fractional bits. Each pass rounds to 8 bits, so their order shows: the
//! horizontal one comes first, except (Pillow 13; before it was always so) where the height shrinks by more than
//! twice as many pixels as the width. The other order differs by one level in some pixels. Nearest takes the one pixel that
//! holds the centre, which is a single weight of 1 in the same scheme.
//!
//! Why not the crate `fast_image_resize` 6.1: its weights have 16 bits, which puts 10 % of the values one level off Pillow's (239
//! photos, Keras convention), and it allocates at every call.

use std::ops::Range;

use super::Filter;
use super::geometry::{AxisFit, Walk};

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 of headroom, as in Pillow.
const PRECISION: u32 = 22;
const ONE: i32 = 1 << PRECISION;

/// Which input pixels an axis's output pixels are made of.
#[derive(Clone, Debug, Default)]
struct Taps {
    key: Option<(u32, u32, Range<u32>, Filter)>,
    spans: Vec<Span>,
    weights: Vec<i32>,
}

/// One output pixel: `count` input pixels from `start` on, with the weights from `weight` on.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    count: usize,
    weight: usize,
}

impl Taps {
    /// Makes these the taps of the output pixels `window` of an axis that goes from `input` to `output` pixels. Does
    /// nothing when they are already, and allocates only when it needs more room than ever before.
    fn prepare(&mut self, input: u32, output: u32, window: Range<u32>, filter: Filter) {
        debug_assert!(input > 0 && window.end <= output);
        let key = Some((input, output, window.clone(), filter));
        if self.key == key {
            return;
        }
        self.spans.clear();
        self.weights.clear();
        match filter {
            Filter::Bilinear => self.bilinear(input, output, window),
            Filter::Nearest => self.nearest(input, output, window),
        }
        self.key = key;
    }

    fn bilinear(&mut self, input: u32, output: u32, window: Range<u32>) {
        let scale = f64::from(input) / f64::from(output);
        let support = scale.max(1.0);
        let reciprocal = 1.0 / support;
        for i in window {
            let centre = (f64::from(i) + 0.5) * scale;
            // Casts truncate towards 0, and a negative number becomes 0, as in the definition.
            let start = (centre - support + 0.5) as u32;
            let end = ((centre + support + 0.5) as u32).min(input);
            let triangle = |x: u32| (1.0 - ((f64::from(x) - centre + 0.5) * reciprocal).abs()).max(0.0);
            let sum: f64 = (start..end).map(triangle).sum();
            self.spans.push(Span { start: start as usize, count: (end - start) as usize, weight: self.weights.len() });
            self.weights.extend((start..end).map(|x| (triangle(x) / sum * f64::from(ONE) + 0.5) as i32));
        }
    }

    fn nearest(&mut self, input: u32, output: u32, window: Range<u32>) {
        let scale = f64::from(input) / f64::from(output);
        // Pillow steps by repeated addition; its rounding decides which side of a pixel's edge a centre falls on.
        let mut centre = scale * 0.5;
        for i in 0..window.end {
            if i >= window.start {
                let start = (centre as u32).min(input - 1) as usize;
                self.spans.push(Span { start, count: 1, weight: self.weights.len() });
                self.weights.push(ONE);
            }
            centre += scale;
        }
    }

    /// How many output pixels there are.
    fn len(&self) -> usize {
        self.spans.len()
    }

    /// The input pixels that any output pixel uses.
    fn extent(&self) -> Range<usize> {
        let start = self.spans.first().map_or(0, |s| s.start);
        start..self.spans.last().map_or(start, |s| s.start + s.count)
    }

    fn weights(&self, span: Span) -> &[i32] {
        &self.weights[span.weight..span.weight + span.count]
    }

    /// The input pixels that output pixel `i` is made of, with their weights.
    fn of(&self, i: usize) -> impl Iterator<Item = (usize, i32)> {
        let span = self.spans[i];
        (span.start..).zip(self.weights(span).iter().copied())
    }

    /// One row of RGB pixels to another; `row` begins at input pixel 0 and reaches to the end of the extent at least.
    fn across(&self, row: &[u8], out: &mut [u8]) {
        let (pixels, _) = row.as_chunks::<3>();
        let (out, _) = out.as_chunks_mut::<3>();
        for (out, &span) in out.iter_mut().zip(&self.spans) {
            let mut acc = [ONE / 2; 3];
            for (pixel, weight) in pixels[span.start..span.start + span.count].iter().zip(self.weights(span)) {
                for c in 0..3 {
                    acc[c] += i32::from(pixel[c]) * weight;
                }
            }
            *out = acc.map(round);
        }
    }
}

/// To 8 bits; half a unit has been added already.
fn round(acc: i32) -> u8 {
    (acc >> PRECISION).clamp(0, 255) as u8
}

/// Adds `row * weight` to the accumulators of an output row.
fn add(acc: &mut [i32], row: &[u8], weight: i32) {
    for (acc, &value) in acc.iter_mut().zip(row) {
        *acc += i32::from(value) * weight;
    }
}

/// A region of a picture, oriented on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// The whole picture, RGB.
    pub(super) data: &'a [u8],
    pub(super) walk: Walk,
    /// Of the region, oriented.
    pub(super) width: u32,
    /// Of the region, oriented.
    pub(super) height: u32,
}

impl View<'_> {
    /// The first `width` pixels of row `y`; gathered into `scratch` where they do not lie side by side.
    fn row<'a>(&'a self, y: usize, width: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let start = self.walk.origin + y as isize * self.walk.down;
        if self.walk.right == 1 {
            return &self.data[start as usize * 3..(start as usize + width) * 3];
        }
        scratch.clear();
        for x in 0..width as isize {
            let at = (start + x * self.walk.right) as usize * 3;
            scratch.extend_from_slice(&self.data[at..at + 3]);
        }
        scratch
    }
}

/// Resizes; keeps its weights and buffers from one picture to the next, and allocates only for one larger than any before.
#[derive(Clone, Debug, Default)]
pub(super) struct Resampler {
    columns: Taps,
    rows: Taps,
    row: Vec<u8>,
    /// The picture between the passes.
    between: Vec<u8>,
    acc: Vec<i32>,
}

impl Resampler {
    /// Writes what `across` and `down` show of the resized `view` into `canvas`, whose rows have `width` pixels.
    pub(super) fn resize(
        &mut self,
        view: View<'_>,
        (across, down): (&AxisFit, &AxisFit),
        filter: Filter,
        canvas: &mut [u8],
        width: usize,
    ) {
        self.columns.prepare(view.width, across.resized, across.window.clone(), filter);
        self.rows.prepare(view.height, down.resized, down.window.clone(), filter);
        let (left, bytes) = (across.at as usize * 3, self.columns.len() * 3);
        let rows = canvas.chunks_exact_mut(width * 3).skip(down.at as usize).map(|row| &mut row[left..left + bytes]);
        if vertical_first(view, across, down) {
            self.vertical_first(view, rows);
        } else {
            self.horizontal_first(view, rows);
        }
    }

    fn horizontal_first<'a>(&mut self, view: View<'_>, out: impl Iterator<Item = &'a mut [u8]>) {
        let (extent, used, bytes) = (self.rows.extent(), self.columns.extent().end, self.columns.len() * 3);
        self.between.resize(extent.len() * bytes, 0);
        for (y, narrow) in extent.clone().zip(self.between.chunks_exact_mut(bytes)) {
            self.columns.across(view.row(y, used, &mut self.row), narrow);
        }
        for (i, out) in (0..self.rows.len()).zip(out) {
            self.acc.clear();
            self.acc.resize(bytes, ONE / 2);
            for (y, weight) in self.rows.of(i) {
                let at = (y - extent.start) * bytes;
                add(&mut self.acc, &self.between[at..at + bytes], weight);
            }
            out.iter_mut().zip(&self.acc).for_each(|(out, &acc)| *out = round(acc));
        }
    }

    fn vertical_first<'a>(&mut self, view: View<'_>, out: impl Iterator<Item = &'a mut [u8]>) {
        let used = self.columns.extent().end;
        self.between.resize(used * 3, 0);
        for (i, out) in (0..self.rows.len()).zip(out) {
            self.acc.clear();
            self.acc.resize(used * 3, ONE / 2);
            for (y, weight) in self.rows.of(i) {
                add(&mut self.acc, view.row(y, used, &mut self.row), weight);
            }
            self.between.iter_mut().zip(&self.acc).for_each(|(out, &acc)| *out = round(acc));
            self.columns.across(&self.between, out);
        }
    }
}

/// Pillow 13's choice, found by comparing both orders with it over many sizes.
fn vertical_first(view: View<'_>, across: &AxisFit, down: &AxisFit) -> bool {
    let narrower = i64::from(view.width) - i64::from(across.resized);
    let lower = i64::from(view.height) - i64::from(down.resized);
    lower > 0 && lower > 2 * narrower
}
