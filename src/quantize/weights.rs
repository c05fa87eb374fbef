//! Weights as codes: `i8` without a zero point, one scale an output channel.

/// The largest code. -128 is not used: the range is symmetric.
const LARGEST: f32 = 127.0;

/// A weight tensor in codes, outputs first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QuantizedWeights {
    /// `[outputs][…]`
    pub(super) codes: Vec<i8>,
    /// One an output.
    pub(super) scales: Vec<f32>,
    /// What rounding adds to each weight, summed over the window: `[outputs][inputs]`. Empty unless asked for.
    pub(super) error: Vec<f32>,
}

/// Quantises `[outputs][inputs][window]`. With `error`, keeps what bias correction needs.
pub(super) fn quantize(weights: &[f32], outputs: usize, window: usize, error: bool) -> QuantizedWeights {
    let each = weights.len() / outputs.max(1);
    let mut made = QuantizedWeights { codes: Vec::with_capacity(weights.len()), scales: Vec::new(), error: Vec::new() };
    for channel in weights.chunks(each.max(1)) {
        let scale = scale(channel);
        let first = made.codes.len();
        made.codes.extend(channel.iter().map(|w| (w / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8));
        made.scales.push(scale);
        if error {
            let codes = made.codes[first..].chunks(window.max(1));
            let added = |(codes, weights): (&[i8], &[f32])| {
                codes.iter().zip(weights).map(|(c, w)| f32::from(*c) * scale - w).sum::<f32>()
            };
            made.error.extend(codes.zip(channel.chunks(window.max(1))).map(added));
        }
    }
    made
}

/// Quantises `[inputs][window][outputs]` as [`quantize`] does its transpose, of which only a few rows are there at a time.
pub(super) fn quantize_columns(weights: &[f32], outputs: usize, window: usize, error: bool) -> QuantizedWeights {
    /// Outputs at a time: what a line of the cache holds.
    const ROWS: usize = 16;
    let mut made = QuantizedWeights { codes: Vec::with_capacity(weights.len()), scales: Vec::new(), error: Vec::new() };
    for first in (0..outputs).step_by(ROWS) {
        let some = first..outputs.min(first + ROWS);
        let count = some.len();
        let rows: Vec<f32> = some.flat_map(|o| weights.iter().skip(o).step_by(outputs)).copied().collect();
        let part = quantize(&rows, count, window, error);
        made.codes.extend(part.codes);
        made.scales.extend(part.scales);
        made.error.extend(part.error);
    }
    made
}

/// A channel of zeros gets the scale 1; a channel of next to nothing one that is no subnormal number.
fn scale(channel: &[f32]) -> f32 {
    let largest = channel.iter().fold(0f32, |m, w| m.max(w.abs()));
    if largest == 0.0 { 1.0 } else { (largest / LARGEST).max(f32::MIN_POSITIVE) }
}

/// A bias in units of `input scale * weight scale`: what the products are summed in.
pub(super) fn bias(bias: &[f32], input_scale: f32, scales: &[f32]) -> Vec<i32> {
    // the cast saturates
    let code =
        |(b, s): (&f32, &f32)| (f64::from(*b) / (f64::from(input_scale) * f64::from(*s))).round_ties_even() as i32;
    bias.iter().zip(scales).map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_uses_its_whole_range() {
        let made = quantize(&[0.5, -1.0, 0.25, 0.001, 0.0, -0.002, 0.0, 0.0, 0.0], 3, 1, false);
        assert_eq!(made.codes, [64, -127, 32, 64, 0, -127, 0, 0, 0]);
        assert_eq!(made.scales, [1.0 / 127.0, 0.002 / 127.0, 1.0]);
    }

    #[test]
    fn columns_are_quantised_as_the_rows_of_their_transpose() {
        let (outputs, inputs) = (35, 6);
        let rows: Vec<f32> = (0..outputs * inputs).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let columns: Vec<f32> = (0..rows.len()).map(|i| rows[i % outputs * inputs + i / outputs]).collect();
        assert_eq!(quantize_columns(&columns, outputs, 2, true), quantize(&rows, outputs, 2, true));
    }

    #[test]
    fn the_error_is_what_rounding_adds() {
        let made = quantize(&[1.27, 0.004, 0.006, -0.003], 1, 2, true);
        assert_eq!(made.codes, [127, 0, 1, 0]);
        assert!((made.error[0] + 0.004).abs() < 1e-6 && (made.error[1] - 0.007).abs() < 1e-6, "{made:?}");
    }

    #[test]
    fn biases_are_in_units_of_the_products() {
        assert_eq!(bias(&[1.0, -0.5], 0.1, &[0.01, 0.005]), [1000, -1000]);
        assert_eq!(bias(&[1e30], 1e-6, &[1e-6]), [i32::MAX]);
    }
}
