//! Float against int8 on photos that the calibration has not seen: noise of each layer, agreement at the end.

use std::collections::HashMap;

/// What a layer's codes are away from the float layer, over all photos.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNoise {
    /// The node.
    pub name: String,
    /// Signal to noise in decibels: `10 log10(sum of squares / sum of squared differences)`.
    pub snr_db: f64,
}

/// Float against int8.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Photos compared.
    pub photos: usize,
    /// Share of the photos with the same first class; for a model of scores.
    pub top1: Option<f64>,
    /// Mean cosine between the outputs.
    pub cosine: f64,
    /// The smallest cosine.
    pub worst_cosine: f64,
    /// Layer by layer, in the order in which they run.
    pub layers: Vec<LayerNoise>,
}

/// What a thread gathers.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    cosines: Vec<f64>,
    same: usize,
    /// Signal and noise by watched tensor.
    pub(super) power: HashMap<usize, (f64, f64)>,
}

impl Gathered {
    /// The outputs of one photo.
    pub(super) fn outputs(&mut self, float: &[f32], int8: &[f32]) {
        self.cosines.push(cosine(float, int8));
        self.same += usize::from(first(float) == first(int8));
    }

    /// A layer's output of one photo: `[channels][pixels]` floats, `[pixels][channels]` codes.
    pub(super) fn layer(&mut self, tensor: usize, float: &[f32], codes: &[u8], channels: usize, affine: (f32, u8)) {
        let pixels = float.len() / channels.max(1);
        if codes.len() != float.len() || pixels == 0 {
            return;
        }
        let (mut signal, mut noise) = (0f64, 0f64);
        for (channel, values) in float.chunks(pixels).enumerate() {
            let (mut s, mut n) = (0f32, 0f32);
            for (pixel, value) in values.iter().enumerate() {
                let code = codes[pixel * channels + channel];
                let error = (f32::from(code) - f32::from(affine.1)) * affine.0 - value;
                s += value * value;
                n += error * error;
            }
            signal += f64::from(s);
            noise += f64::from(n);
        }
        let power = self.power.entry(tensor).or_default();
        *power = (power.0 + signal, power.1 + noise);
    }

    pub(super) fn merge(&mut self, other: Gathered) {
        self.cosines.extend(other.cosines);
        self.same += other.same;
        for (tensor, (signal, noise)) in other.power {
            let power = self.power.entry(tensor).or_default();
            *power = (power.0 + signal, power.1 + noise);
        }
    }

    /// `names`: tensor and node of each layer, in order.
    pub(super) fn finish(mut self, scores: bool, names: &[(usize, String)]) -> Comparison {
        let photos = self.cosines.len();
        // the threads' order must not show in the last digit
        self.cosines.sort_by(f64::total_cmp);
        let layer = |(tensor, name): &(usize, String)| {
            let (signal, noise) = self.power.get(tensor)?;
            let snr_db = 10.0 * (signal / noise.max(f64::MIN_POSITIVE)).max(f64::MIN_POSITIVE).log10();
            Some(LayerNoise { name: name.clone(), snr_db })
        };
        Comparison {
            photos,
            top1: scores.then(|| self.same as f64 / photos.max(1) as f64),
            cosine: self.cosines.iter().sum::<f64>() / photos.max(1) as f64,
            worst_cosine: self.cosines.first().copied().unwrap_or(0.0),
            layers: names.iter().filter_map(layer).collect(),
        }
    }
}

fn first(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a)))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    // two outputs of nothing are alike
    if lengths == 0.0 { f64::from(u8::from(a == b)) } else { dot(a, b) / lengths }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_noise_is_in_decibels() {
        let mut gathered = Gathered::default();
        // two channels of two pixels; one code is off by one step of 0.1
        gathered.layer(3, &[1.0, 0.0, 0.0, 1.0], &[110, 100, 100, 111], 2, (0.1, 100));
        let comparison = gathered.finish(false, &[(3, "conv".into()), (4, "unseen".into())]);
        assert_eq!(comparison.layers.len(), 1);
        assert!((comparison.layers[0].snr_db - 10.0 * (2.0f64 / 0.01).log10()).abs() < 1e-3, "{comparison:?}");
    }

    #[test]
    fn outputs_agree_or_not() {
        let mut gathered = Gathered::default();
        gathered.outputs(&[1.0, 2.0, 0.0], &[2.0, 4.0, 0.0]);
        gathered.outputs(&[1.0, 0.0], &[0.0, 1.0]);
        let comparison = gathered.finish(true, &[]);
        assert_eq!((comparison.photos, comparison.top1, comparison.worst_cosine), (2, Some(0.5), 0.0));
        assert!((comparison.cosine - 0.5).abs() < 1e-12);
        assert_eq!(cosine(&[0.0], &[0.0]), 1.0);
    }

    #[test]
    fn of_equal_scores_the_first_wins() {
        assert_eq!(first(&[1.0, 3.0, 3.0]), Some(1));
    }
}
