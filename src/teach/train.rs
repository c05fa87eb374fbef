//! The head, its penalty, its temperature and its "none", by cross-validation.

use std::collections::BTreeMap;

use super::features::Example;
use super::judgement::{Judgement, best};
use super::logistic::{Head, Sample, fit};
use super::novelty::{Centres, Limit};

/// Tried from strong to weak, each from the minimum of the one before.
const PENALTIES: [f32; 6] = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003];
/// Folds, where every class has so many photos.
const FOLDS: usize = 5;

/// An example with its class.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// Its features.
    pub example: &'a Example,
    /// Below the number of classes.
    pub class: usize,
}

/// What was learnt: for raw features.
#[derive(Clone, Debug)]
pub struct Taught {
    /// Scores whose softmax is calibrated.
    pub head: Head,
    /// "None" by distance; absent where it is a class of its own, or not wanted.
    pub none: Option<(Centres, Limit)>,
    /// The figures of held-out photos.
    pub validation: Validation,
}

/// What cross-validation found.
#[derive(Clone, Debug)]
pub struct Validation {
    /// Folds.
    pub folds: usize,
    /// The chosen one.
    pub penalty: f32,
    /// What the scores were divided by.
    pub temperature: f32,
    /// Of all photos, each held out once; the class after the last is "none" by distance.
    pub judgement: Judgement,
    /// Each photo's probabilities while it was held out.
    pub probabilities: Vec<Vec<f32>>,
    /// Of photos of a class that was left out altogether, the share that "none" would have refused; `None` without it.
    pub strangers_refused: Option<f64>,
}

impl Taught {
    /// Scores of raw features, "none" last.
    pub fn scores(&self, features: &[f32]) -> Vec<f32> {
        with_none(self.head.scores(features), features, self.none.as_ref())
    }
}

fn with_none(mut scores: Vec<f32>, features: &[f32], none: Option<&(Centres, Limit)>) -> Vec<f32> {
    if let Some((centres, limit)) = none {
        let nearest = centres.distances(features).into_iter().fold(f32::INFINITY, f32::min);
        let score = limit.score(&scores, nearest);
        scores.push(score);
    }
    scores
}

/// Teaches a head for `classes` classes. Every class has at least two examples. With `none`, distance decides what is none of them.
pub fn teach(examples: &[Labelled], classes: usize, none: bool) -> Taught {
    let folds = folds(examples, classes);
    let count = folds.iter().max().map_or(2, |f| f + 1);
    let parts: Vec<Vec<Labelled>> = (0..count)
        .map(|fold| std::iter::zip(examples, &folds).filter(|(_, f)| **f != fold).map(|(e, _)| *e).collect())
        .collect();
    let (penalty, scores) = choose_penalty(examples, &folds, &parts, classes);
    let truths: Vec<usize> = examples.iter().map(|e| e.class).collect();
    let temperature = temperature(&scores, &truths);
    let distances: Vec<Vec<f32>> =
        if none { held_out_distances(examples, &folds, &parts, classes) } else { Vec::new() };
    let nearest: Vec<f32> = distances.iter().map(|d| d.iter().copied().fold(f32::INFINITY, f32::min)).collect();
    let limit = none.then(|| Limit::from_known(&nearest));
    let mut judgement = Judgement::default();
    let mut probabilities = Vec::new();
    for (index, scores) in scores.iter().enumerate() {
        let mut scores: Vec<f32> = scores.iter().map(|s| s / temperature).collect();
        if let Some(limit) = limit {
            scores.push(limit.score(&scores, nearest[index]));
        }
        probabilities.push(softmax(&scores));
        judgement.add(truths[index], &probabilities[index]);
    }
    let mut head = train(examples, classes, penalty, None);
    head.rows.iter_mut().for_each(|w| *w /= temperature);
    let strangers_refused = limit.filter(|_| classes > 2).map(|limit| strangers(&distances, &truths, limit));
    let plain: Vec<(&[f32], usize)> = examples.iter().map(|e| (&e.example.views[0][..], e.class)).collect();
    let none = limit.map(|limit| (Centres::of(&plain, classes), limit));
    let validation = Validation { folds: count, penalty, temperature, judgement, probabilities, strangers_refused };
    Taught { head, none, validation }
}

/// A fold for every example: the photos of a class are dealt out in the order of their content, so that names and dates do not matter.
/// Copies of a photo share a fold: a copy in the training part would give the answer away.
fn folds(examples: &[Labelled], classes: usize) -> Vec<usize> {
    let mut by_class: Vec<BTreeMap<_, Vec<usize>>> = vec![BTreeMap::new(); classes];
    for (index, example) in examples.iter().enumerate() {
        by_class[example.class].entry(example.example.key).or_default().push(index);
    }
    let smallest = by_class.iter().map(BTreeMap::len).min().unwrap_or(0);
    let count = smallest.clamp(2, FOLDS);
    let mut folds = vec![0; examples.len()];
    for copies in by_class {
        for (turn, indices) in copies.into_values().enumerate() {
            indices.into_iter().for_each(|index| folds[index] = turn % count);
        }
    }
    folds
}

/// The penalty with the smallest loss on held-out photos, and their scores under it.
fn choose_penalty(
    examples: &[Labelled],
    folds: &[usize],
    parts: &[Vec<Labelled>],
    classes: usize,
) -> (f32, Vec<Vec<f32>>) {
    let weights = class_weights(examples, classes);
    let mut heads: Vec<Option<Standardised>> = parts.iter().map(|_| None).collect();
    let mut found: Option<(f64, f32, Vec<Vec<f32>>)> = None;
    for penalty in PENALTIES {
        for (part, head) in parts.iter().zip(&mut heads) {
            let start = head.take();
            *head = Some(standardised(part, classes, penalty, start));
        }
        let raw: Vec<Head> = heads.iter().flatten().map(Standardised::raw).collect();
        let scores: Vec<Vec<f32>> =
            std::iter::zip(examples, folds).map(|(e, fold)| raw[*fold].scores(&e.example.views[0])).collect();
        let truths: Vec<usize> = examples.iter().map(|e| e.class).collect();
        // at its own best temperature: that is how it will be used
        let temperature = temperature(&scores, &truths);
        let loss: f64 = std::iter::zip(&scores, examples)
            .map(|(s, e)| f64::from(weights[e.class]) * surprise(s, e.class, temperature))
            .sum();
        match &found {
            Some((least, ..)) if loss >= *least => {}
            _ => found = Some((loss, penalty, scores)),
        }
    }
    found.map_or((PENALTIES[0], Vec::new()), |(_, penalty, scores)| (penalty, scores))
}

/// A head on features of mean 0 and deviation 1.
struct Standardised {
    head: Head,
    means: Vec<f32>,
    reciprocal: Vec<f32>,
}

impl Standardised {
    /// The same head for features as the trunk gives them.
    fn raw(&self) -> Head {
        let dims = self.head.dims;
        let mut rows = self.head.rows.clone();
        for row in rows.chunks_exact_mut(dims + 1) {
            let (weights, bias) = row.split_at_mut(dims);
            for ((weight, mean), reciprocal) in weights.iter_mut().zip(&self.means).zip(&self.reciprocal) {
                *weight *= reciprocal;
                bias[0] -= *weight * mean;
            }
        }
        Head { rows, dims }
    }
}

fn train(examples: &[Labelled], classes: usize, penalty: f32, start: Option<Standardised>) -> Head {
    standardised(examples, classes, penalty, start).raw()
}

fn standardised(examples: &[Labelled], classes: usize, penalty: f32, start: Option<Standardised>) -> Standardised {
    let (means, reciprocal) = match &start {
        Some(start) => (start.means.clone(), start.reciprocal.clone()),
        None => moments(examples),
    };
    let dims = means.len();
    let weights = class_weights(examples, classes);
    let views = examples.iter().flat_map(|e| e.example.views.iter().map(move |v| (v, e)));
    let scaled: Vec<(Vec<f32>, usize, f32)> = views
        .map(|(view, e)| {
            let scale = |((v, m), r): ((&f32, &f32), &f32)| (v - m) * r;
            let features = view.iter().zip(&means).zip(&reciprocal).map(scale).collect();
            (features, e.class, weights[e.class] / e.example.views.len() as f32)
        })
        .collect();
    let samples: Vec<Sample> =
        scaled.iter().map(|(features, class, weight)| Sample { features, class: *class, weight: *weight }).collect();
    let start = start.map_or_else(|| Head::zero(classes, dims), |s| s.head);
    Standardised { head: fit(&samples, start, penalty), means, reciprocal }
}

/// The mean of each feature, and the reciprocal of its standard deviation (0 for a feature that never varies).
fn moments(examples: &[Labelled]) -> (Vec<f32>, Vec<f32>) {
    let views: Vec<&Vec<f32>> = examples.iter().flat_map(|e| &e.example.views).collect();
    let (dims, count) = (views.first().map_or(0, |v| v.len()), views.len().max(1) as f64);
    let (mut sums, mut squares) = (vec![0.0f64; dims], vec![0.0f64; dims]);
    for (i, v) in views.iter().flat_map(|view| view.iter().enumerate()) {
        sums[i] += f64::from(*v);
        squares[i] += f64::from(*v).powi(2);
    }
    let means: Vec<f32> = sums.iter().map(|s| (s / count) as f32).collect();
    let deviation = |(sum, square): (&f64, &f64)| (square / count - (sum / count).powi(2)).max(0.0).sqrt();
    let reciprocal = sums.iter().zip(&squares).map(deviation).map(|d| if d > 1e-6 { (1.0 / d) as f32 } else { 0.0 });
    (means, reciprocal.collect())
}

/// Each class counts alike, however many photos it has; 1 on average.
fn class_weights(examples: &[Labelled], classes: usize) -> Vec<f32> {
    let mut counts = vec![0usize; classes];
    examples.iter().for_each(|e| counts[e.class] += 1);
    counts.iter().map(|&c| examples.len() as f32 / (classes * c.max(1)) as f32).collect()
}

/// `-log p` of the true class.
fn surprise(scores: &[f32], truth: usize, temperature: f32) -> f64 {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scaled = |s: f32| f64::from((s - top) / temperature);
    scores.iter().map(|s| scaled(*s).exp()).sum::<f64>().ln() - scaled(scores[truth])
}

/// The temperature with the smallest loss (Guo et al. 2017), by golden-section search over its logarithm.
fn temperature(scores: &[Vec<f32>], truths: &[usize]) -> f32 {
    let loss =
        |log: f64| -> f64 { std::iter::zip(scores, truths).map(|(s, t)| surprise(s, *t, log.exp() as f32)).sum() };
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    // no surer than five-fold: with few photos, all right, the loss would fall for ever
    let (mut low, mut high) = (0.2f64.ln(), 10f64.ln());
    while high - low > 1e-3 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if loss(a) < loss(b) { high = b } else { low = a }
    }
    f64::midpoint(low, high).exp() as f32
}

fn held_out_distances(
    examples: &[Labelled],
    folds: &[usize],
    parts: &[Vec<Labelled>],
    classes: usize,
) -> Vec<Vec<f32>> {
    let centres = |part: &Vec<Labelled>| {
        let plain: Vec<(&[f32], usize)> = part.iter().map(|e| (&e.example.views[0][..], e.class)).collect();
        Centres::of(&plain, classes)
    };
    let centres: Vec<Centres> = parts.iter().map(centres).collect();
    std::iter::zip(examples, folds).map(|(e, fold)| centres[*fold].distances(&e.example.views[0])).collect()
}

/// Of photos whose own class is not counted, the share beyond the limit.
fn strangers(distances: &[Vec<f32>], truths: &[usize], limit: Limit) -> f64 {
    let nearest_other = |(distances, truth): (&Vec<f32>, &usize)| {
        let others = distances.iter().enumerate().filter(|(class, _)| class != truth);
        others.map(|(_, d)| *d).fold(f32::INFINITY, f32::min)
    };
    let refused = std::iter::zip(distances, truths).map(nearest_other).filter(|d| *d > limit.distance).count();
    refused as f64 / truths.len().max(1) as f64
}

/// Probabilities of scores.
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let top = scores[best(scores)];
    let powers: Vec<f32> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teach::cache::key;

    /// Three clouds in eight dimensions; the third class has few photos.
    fn clouds() -> Vec<(Example, usize)> {
        let mut state = 7u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let cloud = |class: usize, count: usize| (0..count).map(move |i| (class, i));
        let photos: Vec<(usize, usize)> = cloud(0, 20).chain(cloud(1, 20)).chain(cloud(2, 5)).collect();
        let example = |(class, i): (usize, usize)| {
            let features = (0..8).map(|d| noise() + if d == class { 2.0 } else { 0.0 }).collect();
            (Example { photo: i, key: key(&[&[class as u8, i as u8]]), views: vec![features] }, class)
        };
        photos.into_iter().map(example).collect()
    }

    #[test]
    fn clouds_are_told_apart_and_strangers_refused() {
        let clouds = clouds();
        let examples: Vec<Labelled> =
            clouds.iter().map(|(example, class)| Labelled { example, class: *class }).collect();
        let taught = teach(&examples, 3, true);
        assert_eq!(taught.validation.folds, 5);
        assert!(taught.validation.judgement.top1() > 0.95, "{}", taught.validation.judgement.top1());
        assert!(taught.validation.strangers_refused > Some(0.9), "{:?}", taught.validation.strangers_refused);
        assert_eq!(best(&taught.scores(&[2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])), 0);
        assert_eq!(best(&taught.scores(&[0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0])), 2);
        assert_eq!(best(&taught.scores(&[0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0])), 3, "none of these");
    }

    #[test]
    fn copies_of_a_photo_share_a_fold() {
        let clouds = clouds();
        let mut examples: Vec<Labelled> =
            clouds.iter().map(|(example, class)| Labelled { example, class: *class }).collect();
        examples.extend(examples.clone());
        let folds = folds(&examples, 3);
        let half = clouds.len();
        assert_eq!(folds[..half], folds[half..]);
        assert!((0..5).all(|fold| folds.contains(&fold)));
    }
}
