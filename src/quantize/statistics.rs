//! A tensor's distribution, streamed photo by photo in constant memory, and the range that its codes shall cover.

use std::fmt;

use crate::kernels::Kernel;
use crate::kernels::float::{Loops, vectorized};

/// Bins on each side of zero.
const BINS: usize = 2048;
/// Histograms filled in turn, so that equal values in a row (zeros after a Relu) do not wait for one another.
const LANES: usize = 4;
/// Values of one tensor of one photo that the histogram takes at most, at equal distances: a hundred photos give it millions all the same.
/// Extremes and means are of all values.
const SAMPLES: usize = 1 << 17;
/// The narrowest bin is 2^-60 wide.
const NARROWEST: i32 = -60;
/// Share of the values that [`Method::Percentile`] leaves out on each side.
const TAIL: f64 = 1e-5;
/// Candidates for each end of the range in [`Method::LeastSquares`].
const CANDIDATES: usize = 64;

/// How a range is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// From the smallest value seen to the largest.
    MinMax,
    /// Without the outermost 0.001 % on each side.
    Percentile,
    /// The range whose codes are nearest to the values, in the sum of squares.
    #[default]
    LeastSquares,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::MinMax => "min-max",
            Method::Percentile => "percentile",
            Method::LeastSquares => "least-squares",
        })
    }
}

/// What was seen of a tensor: extremes, a histogram, the mean of each channel.
///
/// A bin's width is a power of two that doubles when a value lies outside; two bins then become one, exactly. So the histogram
/// depends on what was seen but not on the order.
#[derive(Clone, Debug)]
pub(super) struct Statistics {
    smallest: f32,
    largest: f32,
    /// log2 of a bin's width.
    width: i32,
    /// Bin `i` holds `[(i - BINS) * width, (i + 1 - BINS) * width)`.
    counts: Vec<u64>,
    /// Sum of each channel's values.
    sums: Vec<f64>,
    /// Values of each channel.
    pixels: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        Statistics {
            smallest: f32::INFINITY,
            largest: f32::NEG_INFINITY,
            width: NARROWEST,
            counts: vec![0; 2 * BINS],
            sums: Vec::new(),
            pixels: 0,
        }
    }
}

impl Statistics {
    /// Adds `[channels][…]` of one photo. With `means`, the channels' means too.
    ///
    /// # Errors
    /// A value is not finite.
    pub(super) fn add(&mut self, values: &[f32], channels: usize, means: bool) -> Result<(), NotFinite> {
        let survey = Survey { values, channels: if means { channels } else { 1 }, sums: Vec::new() };
        let (smallest, largest, sums) = vectorized(Kernel::best(), survey)?;
        self.smallest = self.smallest.min(smallest);
        self.largest = self.largest.max(largest);
        self.widen(smallest.abs().max(largest.abs()));
        self.count(values);
        if means {
            self.sums.resize(channels, 0.0);
            self.sums.iter_mut().zip(sums).for_each(|(sum, more)| *sum += f64::from(more));
            self.pixels += (values.len() / channels.max(1)) as u64;
        }
        Ok(())
    }

    /// Adds what another has seen.
    pub(super) fn merge(&mut self, mut other: Statistics) {
        self.smallest = self.smallest.min(other.smallest);
        self.largest = self.largest.max(other.largest);
        while self.width < other.width {
            self.double();
        }
        while other.width < self.width {
            other.double();
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(to, from)| *to += from);
        self.sums.resize(self.sums.len().max(other.sums.len()), 0.0);
        self.sums.iter_mut().zip(&other.sums).for_each(|(to, from)| *to += from);
        self.pixels += other.pixels;
    }

    /// Each channel's mean; empty when it was not asked for.
    pub(super) fn means(&self) -> Vec<f32> {
        self.sums.iter().map(|s| (s / self.pixels.max(1) as f64) as f32).collect()
    }

    /// The smallest and the largest value; `None` before anything was seen.
    pub(super) fn extremes(&self) -> Option<(f32, f32)> {
        (self.smallest <= self.largest).then_some((self.smallest, self.largest))
    }

    /// The range by a method, cut to `limits`. It holds 0, and is not empty.
    pub(super) fn range(&self, method: Method, limits: (f32, f32)) -> (f32, f32) {
        let (smallest, largest) = self.extremes().unwrap_or((0.0, 0.0));
        let within = |(low, high): (f32, f32)| (low.max(limits.0).min(0.0), high.min(limits.1).max(0.0));
        let whole = within((smallest, largest));
        let (low, high) = match method {
            Method::MinMax => whole,
            Method::Percentile => {
                let (low, high) = within(self.percentiles());
                (low.max(whole.0), high.min(whole.1))
            }
            Method::LeastSquares => self.least_squares(whole),
        };
        if high - low > f32::MIN_POSITIVE * 1e6 { (low, high) } else { (0.0, 1.0) }
    }

    fn bin_width(&self) -> f32 {
        2f32.powi(self.width)
    }

    /// Until `magnitude` has a bin.
    fn widen(&mut self, magnitude: f32) {
        while magnitude >= self.bin_width() * (BINS - 1) as f32 {
            self.double();
        }
    }

    fn double(&mut self) {
        let mut wider = vec![0; 2 * BINS];
        for (index, count) in self.counts.iter().enumerate() {
            let signed = index as i64 - BINS as i64;
            wider[(signed.div_euclid(2) + BINS as i64) as usize] += count;
        }
        (self.counts, self.width) = (wider, self.width + 1);
    }

    fn count(&mut self, values: &[f32]) {
        let factor = self.bin_width().recip();
        let mut lanes = vec![[0u32; LANES]; 2 * BINS];
        // times a power of two and rounded down, both exactly
        let bin = |value: f32| {
            let place = value * factor;
            let whole = place as i32;
            (whole - i32::from(place < whole as f32) + BINS as i32) as usize % (2 * BINS)
        };
        // an odd distance falls into step with no even width
        let step = values.len().div_ceil(SAMPLES) | 1;
        for (index, value) in values.iter().step_by(step).enumerate() {
            lanes[bin(*value)][index % LANES] += 1;
        }
        for (count, lanes) in self.counts.iter_mut().zip(lanes) {
            *count += lanes.iter().map(|l| u64::from(*l)).sum::<u64>();
        }
    }

    fn percentiles(&self) -> (f32, f32) {
        let total: u64 = self.counts.iter().sum();
        let tail = (total as f64 * TAIL) as u64;
        // the bin in which the tail ends, counted from one side
        let edge = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut seen = 0;
            counts
                .take_while(|count| {
                    seen += **count;
                    seen <= tail
                })
                .count() as i64
        };
        let low = edge(&mut self.counts.iter()) - BINS as i64;
        let high = BINS as i64 - edge(&mut self.counts.iter().rev());
        (low as f32 * self.bin_width(), high as f32 * self.bin_width())
    }

    /// The two ends are searched in turn, twice; each end among equal parts of the whole range.
    fn least_squares(&self, whole: (f32, f32)) -> (f32, f32) {
        let bins = self.weighted(whole);
        let part = |end: f32, index: usize| end * (index + 1) as f32 / CANDIDATES as f32;
        let mut best = (squared_error(&bins, whole), whole);
        for _ in 0..2 {
            for index in 0..CANDIDATES {
                let (low, high) = best.1;
                for candidate in [(low, part(whole.1, index)), (part(whole.0, index), high)] {
                    if candidate.1 - candidate.0 <= 0.0 {
                        continue;
                    }
                    let error = squared_error(&bins, candidate);
                    if error < best.0 {
                        best = (error, candidate);
                    }
                }
            }
        }
        best.1
    }

    /// Middle and count of each bin that holds something; what lies outside of `whole` is cut there before it is a code.
    fn weighted(&self, whole: (f32, f32)) -> Vec<(f32, f32)> {
        let width = self.bin_width();
        let middle = |index: usize| (index as f32 - BINS as f32 + 0.5) * width;
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(index, count)| (middle(index).clamp(whole.0, whole.1), *count as f32)).collect()
    }
}

/// A value that no range covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotFinite;

/// Extremes of all values, and each channel's sum.
struct Survey<'a> {
    values: &'a [f32],
    channels: usize,
    sums: Vec<f32>,
}

impl Loops for Survey<'_> {
    type Output = Result<(f32, f32, Vec<f32>), NotFinite>;

    #[inline(always)]
    fn run(mut self) -> Self::Output {
        /// Side by side: what the compiler makes vectors of.
        const WIDTH: usize = 32;
        let mut low = [f32::INFINITY; WIDTH];
        let mut high = [f32::NEG_INFINITY; WIDTH];
        // a NaN or an infinity times zero is a NaN, and stays one in the sum
        let mut odd = [0f32; WIDTH];
        let each = self.values.len() / self.channels.max(1);
        for channel in self.values.chunks(each.max(1)) {
            let mut sum = [0f32; WIDTH];
            let (chunks, rest) = channel.as_chunks::<WIDTH>();
            for chunk in chunks {
                for lane in 0..WIDTH {
                    let value = chunk[lane];
                    low[lane] = if value < low[lane] { value } else { low[lane] };
                    high[lane] = if value > high[lane] { value } else { high[lane] };
                    odd[lane] += value * 0.0;
                    sum[lane] += value;
                }
            }
            for &value in rest {
                low[0] = low[0].min(value);
                high[0] = high[0].max(value);
                odd[0] += value * 0.0;
                sum[0] += value;
            }
            self.sums.push(sum.iter().sum());
        }
        if odd.iter().any(|o| o.is_nan()) {
            return Err(NotFinite);
        }
        let least = low.into_iter().fold(f32::INFINITY, f32::min);
        Ok((least, high.into_iter().fold(f32::NEG_INFINITY, f32::max), self.sums))
    }
}

/// Of rounding inside the range (a twelfth of the step's square each) and of cutting outside.
fn squared_error(bins: &[(f32, f32)], (low, high): (f32, f32)) -> f64 {
    let step = (high - low) / 255.0;
    let rounding = f64::from(step) * f64::from(step) / 12.0;
    let error = |(value, count): &(f32, f32)| {
        let cut = f64::from(value - value.clamp(low, high));
        // zero has a code of its own
        let inside = if value.abs() * 2.0 < step { f64::from(value * value) } else { rounding };
        f64::from(*count) * if cut == 0.0 { inside } else { cut * cut }
    };
    bins.iter().map(error).sum()
}

/// Scale and zero point of `u8` codes that cover a range that holds 0.
pub(super) fn codes((low, high): (f32, f32)) -> (f32, u8) {
    let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
    (scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    fn seen(photos: &[&[f32]]) -> Statistics {
        let mut statistics = Statistics::default();
        photos.iter().for_each(|p| statistics.add(p, 1, true).unwrap());
        statistics
    }

    #[test]
    fn the_order_of_the_photos_does_not_matter() {
        let photos: [&[f32]; 3] = [&[0.1, -0.3, 2.5, 0.0, 7.0], &[100.0, -3.0, 0.001], &[1e-9, 0.5]];
        let forth = seen(&photos);
        let back = seen(&[photos[2], photos[1], photos[0]]);
        let mut merged = seen(&photos[..1]);
        merged.merge(seen(&photos[1..]));
        for other in [back, merged] {
            assert_eq!((&forth.counts, forth.width, forth.extremes()), (&other.counts, other.width, other.extremes()));
        }
        assert_eq!(forth.counts.iter().sum::<u64>(), 10);
    }

    #[test]
    fn min_max_holds_zero_and_the_limits() {
        let statistics = seen(&[&[2.0, 3.0]]);
        assert_eq!(statistics.range(Method::MinMax, ANY), (0.0, 3.0));
        assert_eq!(seen(&[&[-4.0, 9.0]]).range(Method::MinMax, (0.0, 6.0)), (0.0, 6.0));
        assert_eq!(seen(&[&[0.0, 0.0]]).range(Method::MinMax, ANY), (0.0, 1.0));
        assert_eq!(Statistics::default().range(Method::LeastSquares, ANY), (0.0, 1.0));
    }

    /// A few outliers cost all other values most of their steps: they are cut off.
    #[test]
    fn outliers_are_cut_by_the_other_methods() {
        let mut values: Vec<f32> = (0..1_000_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        values.push(8.0);
        let statistics = seen(&[&values]);
        assert_eq!(statistics.range(Method::MinMax, ANY).1, 8.0);
        for method in [Method::Percentile, Method::LeastSquares] {
            let (low, high) = statistics.range(method, ANY);
            assert!(low == 0.0 && (0.9..4.0).contains(&high), "{method}: {low} {high}");
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 100];
            values[37] = odd;
            assert_eq!(Statistics::default().add(&values, 1, false), Err(NotFinite), "{odd}");
        }
    }

    #[test]
    fn codes_hold_zero_exactly() {
        assert_eq!(codes((0.0, 255.0)), (1.0, 0));
        assert_eq!(codes((-1.0, 3.0)), (4.0 / 255.0, 64));
        assert_eq!(codes((-5.0, 0.0)).1, 255);
    }

    #[test]
    fn means_are_a_channels_own() {
        let mut statistics = Statistics::default();
        statistics.add(&[1.0, 3.0, -1.0, -1.0], 2, true).unwrap();
        statistics.add(&[5.0, 7.0, 1.0, 1.0], 2, true).unwrap();
        assert_eq!(statistics.means(), [4.0, 0.0]);
    }
}
