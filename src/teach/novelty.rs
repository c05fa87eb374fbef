//! "None of these" without a photo of it: how far features are from every class.
//!
//! The distance is that of Mahalanobis with a diagonal covariance, pooled within the classes (Lee et al. 2018, "A Simple Unified
//! Framework for Detecting Out-of-Distribution Samples", made diagonal: with few photos a full covariance is noise). The score of
//! "none" is `largest score + steepness * (distance - limit)`: it wins exactly where the distance exceeds the limit.

use super::logistic::dot;

/// Features that never vary must not divide by nothing: this share of the mean variance is added.
const SHRINKAGE: f32 = 0.1;
/// Photos of the known classes that may be refused, by the held-out distances.
const REFUSED: f32 = 0.01;
/// The odds of "none" at the median distance are 1 to this.
const ODDS: f32 = 99.0;

/// The classes' centres.
#[derive(Clone, Debug)]
pub struct Centres {
    /// `1 / standard deviation` of each feature within the classes, over the root of their number: distances are then about 1.
    pub reciprocal: Vec<f32>,
    /// By class, already times `reciprocal`.
    pub centres: Vec<Vec<f32>>,
}

/// When "none" wins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The squared distance above which nothing is recognised.
    pub distance: f32,
    /// Score for a squared distance of 1.
    pub steepness: f32,
}

impl Centres {
    /// From features and their classes; every class below `classes` has at least one.
    pub fn of(examples: &[(&[f32], usize)], classes: usize) -> Centres {
        let dims = examples.first().map_or(0, |e| e.0.len());
        let (mut means, mut counts) = (vec![vec![0.0f64; dims]; classes], vec![0usize; classes]);
        for (features, class) in examples {
            counts[*class] += 1;
            means[*class].iter_mut().zip(*features).for_each(|(m, v)| *m += f64::from(*v));
        }
        for (mean, count) in means.iter_mut().zip(&counts) {
            mean.iter_mut().for_each(|m| *m /= (*count).max(1) as f64);
        }
        let mut variance = vec![0.0f64; dims];
        for (features, class) in examples {
            let pairs = features.iter().zip(&means[*class]);
            variance.iter_mut().zip(pairs).for_each(|(s, (v, m))| *s += (f64::from(*v) - m).powi(2));
        }
        let freedom = examples.len().saturating_sub(classes).max(1) as f64;
        let mean = variance.iter().sum::<f64>() / freedom / dims.max(1) as f64;
        let floor = f64::from(SHRINKAGE) * mean.max(1e-12);
        let reciprocal: Vec<f32> =
            variance.iter().map(|v| (1.0 / ((v / freedom + floor) * dims as f64).sqrt()) as f32).collect();
        let scaled = |m: &Vec<f64>| m.iter().zip(&reciprocal).map(|(m, r)| *m as f32 * r).collect();
        let centres = means.iter().map(scaled).collect();
        Centres { reciprocal, centres }
    }

    /// The squared distances to every class.
    pub fn distances(&self, features: &[f32]) -> Vec<f32> {
        let scaled: Vec<f32> = features.iter().zip(&self.reciprocal).map(|(v, r)| v * r).collect();
        let distance = |centre: &Vec<f32>| {
            let gap: Vec<f32> = scaled.iter().zip(centre).map(|(a, b)| a - b).collect();
            dot(&gap, &gap)
        };
        self.centres.iter().map(distance).collect()
    }
}

impl Limit {
    /// From the distances of held-out photos of the known classes to the nearest class.
    pub fn from_known(distances: &[f32]) -> Limit {
        let mut sorted = distances.to_vec();
        sorted.sort_by(f32::total_cmp);
        let at =
            |share: f32| sorted.get(((sorted.len() as f32 - 1.0) * share).round() as usize).copied().unwrap_or(1.0);
        // with few photos the largest one stands for the quantile, and a photo beyond it is no surprise: a tenth of room
        let distance = at(1.0 - REFUSED) * 1.1;
        let gap = (distance - at(0.5)).max(1e-3);
        Limit { distance, steepness: ODDS.ln() / gap }
    }

    /// The score of "none", where `scores` are those of the classes.
    pub fn score(&self, scores: &[f32], distance: f32) -> f32 {
        scores.iter().copied().fold(f32::NEG_INFINITY, f32::max) + self.steepness * (distance - self.distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_from_every_class_is_none() {
        let points: Vec<([f32; 2], usize)> =
            (0..40).map(|i| ([(i % 2) as f32 * 10.0 + (i % 5) as f32 * 0.1, (i % 3) as f32 * 0.2], i % 2)).collect();
        let examples: Vec<(&[f32], usize)> = points.iter().map(|(f, c)| (&f[..], *c)).collect();
        let centres = Centres::of(&examples, 2);
        let nearest = |f: &[f32]| centres.distances(f).into_iter().fold(f32::INFINITY, f32::min);
        let known: Vec<f32> = examples.iter().map(|e| nearest(e.0)).collect();
        let limit = Limit::from_known(&known);
        let scores = [3.0, 1.0];
        assert!(examples.iter().all(|e| limit.score(&scores, nearest(e.0)) < 3.0));
        assert!(limit.score(&scores, nearest(&[5.0, 0.2])) > 3.0, "between the two");
        assert!(limit.score(&scores, nearest(&[0.2, 9.0])) > 3.0, "beside them");
        assert_eq!(centres.distances(&[0.2, 0.2]).len(), 2);
    }
}
