//! Resizing as Pillow does it, bit for bit: two passes over 8-bit pixels with fixed-point weights.
//!
//! The definition is the `resize` of Pillow (`src/libImaging/Resample.c` for bilinear, `Geometry.c` for nearest). An output
//! pixel `i` looks at the input around `centre = (i + 0.5) * scale`, with `scale = input / output`. Bilinear weighs the
//! input pixels by a triangle of half-width `max(scale, 1)`, so that shrinking averages and does not skip (antialiasing);
//! the weights are normalised to 1 and rounded to 22 fractional bits. The horizontal pass comes first, and each pass rounds to
//! 8 bits. Nearest takes the one pixel that holds the centre, which is a single weight of 1 in the same scheme.
//!
//! `fast_image_resize` was measured against it: it rounds its weights to 16 bits, which is up to one level away from Pillow, and it
//! allocates at every call.

use std::ops::Range;

use super::Filter;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 of headroom, as in Pillow.
const PRECISION: u32 = 22;
const ONE: i32 = 1 << PRECISION;

/// Which input pixels an axis's output pixels are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Taps {
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
    pub(super) fn prepare(&mut self, input: u32, output: u32, window: Range<u32>, filter: Filter) {
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
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The input pixels that any output pixel uses.
    pub(super) fn extent(&self) -> Range<usize> {
        let start = self.spans.first().map_or(0, |s| s.start);
        start..self.spans.last().map_or(start, |s| s.start + s.count)
    }

    fn weights(&self, span: Span) -> &[i32] {
        &self.weights[span.weight..span.weight + span.count]
    }

    /// The horizontal pass of one row of RGB pixels; `row` begins at input pixel 0 and reaches to the end of the extent.
    pub(super) fn across(&self, row: &[u8], out: &mut [u8]) {
        debug_assert_eq!(out.len(), self.len() * 3);
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

    /// The vertical pass for output row `i`. `rows` holds the extent's rows, each of `out.len()` bytes; `acc` is scratch.
    pub(super) fn down(&self, i: usize, rows: &[u8], acc: &mut Vec<i32>, out: &mut [u8]) {
        let span = self.spans[i];
        let first = span.start - self.extent().start;
        acc.clear();
        acc.resize(out.len(), ONE / 2);
        for (row, weight) in rows.chunks_exact(out.len()).skip(first).zip(self.weights(span)) {
            for (acc, &value) in acc.iter_mut().zip(row) {
                *acc += i32::from(value) * weight;
            }
        }
        for (out, &acc) in out.iter_mut().zip(acc.iter()) {
            *out = round(acc);
        }
    }
}

/// To 8 bits; half a unit has been added already.
fn round(acc: i32) -> u8 {
    (acc >> PRECISION).clamp(0, 255) as u8
}
