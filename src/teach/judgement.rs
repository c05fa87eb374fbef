//! What a classifier is worth: top-k, confusions, precision and recall, calibration.

use std::collections::BTreeMap;

/// Bins of the calibration error, as Guo et al. 2017 use them.
const BINS: usize = 15;

/// Figures over labelled photos, added one by one.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    photos: usize,
    first: usize,
    among_five: usize,
    /// By true and predicted class: sparse, as ImageNet-21k squared would not fit.
    confusion: BTreeMap<(usize, usize), usize>,
    /// Photos, right ones, sum of probabilities.
    bins: [(usize, usize, f64); BINS],
}

/// One class's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassFigures {
    /// Its index.
    pub class: usize,
    /// Photos of it.
    pub photos: usize,
    /// Photos taken for it.
    pub predicted: usize,
    /// Photos of it that were taken for it.
    pub right: usize,
}

impl ClassFigures {
    /// Of the photos taken for it, the share that shows it; `None` when none was.
    pub fn precision(&self) -> Option<f64> {
        share(self.right, self.predicted)
    }

    /// Of the photos of it, the share that was recognised; `None` when there are none.
    pub fn recall(&self) -> Option<f64> {
        share(self.right, self.photos)
    }
}

impl Judgement {
    /// Adds a photo of class `truth`.
    pub fn add(&mut self, truth: usize, probabilities: &[f32]) {
        let predicted = best(probabilities);
        let own = probabilities.get(truth).copied().unwrap_or(f32::NEG_INFINITY);
        let above = probabilities.iter().filter(|p| **p > own).count();
        let right = predicted == truth;
        self.photos += 1;
        self.first += usize::from(right);
        self.among_five += usize::from(above < 5);
        *self.confusion.entry((truth, predicted)).or_default() += 1;
        let sure = probabilities.get(predicted).copied().unwrap_or(0.0).clamp(0.0, 1.0);
        let bin = &mut self.bins[((sure * BINS as f32) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + usize::from(right), bin.2 + f64::from(sure));
    }

    /// Photos so far.
    pub fn photos(&self) -> usize {
        self.photos
    }

    /// The share whose most probable class is the true one.
    pub fn top1(&self) -> f64 {
        share(self.first, self.photos).unwrap_or(0.0)
    }

    /// The share whose true class is among the five most probable.
    pub fn top5(&self) -> f64 {
        share(self.among_five, self.photos).unwrap_or(0.0)
    }

    /// The expected calibration error, 0 to 1: how far the probability of the top class is from the share of right answers, weighted by
    /// the number of photos in each of 15 bins of equal width (Guo et al. 2017).
    pub fn calibration_error(&self) -> f64 {
        let gaps = self.bins.iter().map(|&(_, right, sum)| (right as f64 - sum).abs());
        gaps.sum::<f64>() / self.photos.max(1) as f64
    }

    /// Photos of class `truth` that were taken for `predicted`.
    pub fn count(&self, truth: usize, predicted: usize) -> usize {
        self.confusion.get(&(truth, predicted)).copied().unwrap_or(0)
    }

    /// The classes that occur, as truth or as prediction, ascending.
    pub fn classes(&self) -> Vec<ClassFigures> {
        let mut classes: BTreeMap<usize, ClassFigures> = BTreeMap::new();
        for (&(truth, predicted), &count) in &self.confusion {
            classes_entry(&mut classes, truth).photos += count;
            classes_entry(&mut classes, predicted).predicted += count;
            if truth == predicted {
                classes_entry(&mut classes, truth).right += count;
            }
        }
        classes.into_values().collect()
    }

    /// What was taken for something else: truth, prediction, photos; the most frequent first.
    pub fn mistakes(&self) -> Vec<(usize, usize, usize)> {
        let wrong = self.confusion.iter().filter(|((truth, predicted), _)| truth != predicted);
        let mut wrong: Vec<_> = wrong.map(|(&(truth, predicted), &count)| (truth, predicted, count)).collect();
        wrong.sort_by_key(|&(truth, predicted, count)| (std::cmp::Reverse(count), truth, predicted));
        wrong
    }
}

fn classes_entry(classes: &mut BTreeMap<usize, ClassFigures>, class: usize) -> &mut ClassFigures {
    classes.entry(class).or_insert(ClassFigures { class, photos: 0, predicted: 0, right: 0 })
}

/// The index of the largest value, the first among equals; 0 for none.
pub fn best(values: &[f32]) -> usize {
    let pairs = values.iter().enumerate();
    pairs.fold((0, f32::NEG_INFINITY), |found, (i, &v)| if v > found.1 { (i, v) } else { found }).0
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_four_photos_by_hand() {
        let mut judged = Judgement::default();
        judged.add(0, &[0.8, 0.2, 0.0]);
        judged.add(0, &[0.4, 0.6, 0.0]);
        judged.add(1, &[0.0, 1.0, 0.0]);
        judged.add(2, &[0.6, 0.3, 0.1]);
        assert_eq!((judged.photos(), judged.top1(), judged.top5()), (4, 0.5, 1.0));
        let classes = judged.classes();
        let told: Vec<_> = classes.iter().map(|c| (c.photos, c.predicted, c.right)).collect();
        assert_eq!(told, [(2, 2, 1), (1, 2, 1), (1, 0, 0)]);
        assert_eq!((classes[1].precision(), classes[1].recall()), (Some(0.5), Some(1.0)));
        assert_eq!(classes[2].precision(), None);
        assert_eq!(judged.mistakes(), [(0, 1, 1), (2, 0, 1)]);
        // 0.6 twice and wrong, 0.8 right, 1.0 right
        assert!((judged.calibration_error() - (1.2 + 0.2) / 4.0).abs() < 1e-6);
    }

    #[test]
    fn the_fifth_counts_and_the_sixth_does_not() {
        let mut judged = Judgement::default();
        judged.add(4, &[0.3, 0.25, 0.2, 0.15, 0.06, 0.04]);
        judged.add(5, &[0.3, 0.25, 0.2, 0.15, 0.06, 0.04]);
        assert_eq!((judged.top1(), judged.top5()), (0.0, 0.5));
    }
}
