//! Multinomial logistic regression with an L2 penalty, by L-BFGS (Nocedal & Wright, "Numerical Optimization", algorithm 7.5).
//!
//! Own code: a few hundred parameters a class, one smooth convex function; the crates for it bring a linear algebra stack.

/// Steps and gradients that the inverse Hessian is made from.
const MEMORY: usize = 10;
/// An end, should the precision of floats prevent the usual one.
const MAX_ITERATIONS: usize = 200;
/// The gradient's norm relative to the parameters' at which no digit of a probability changes any more.
const TOLERANCE: f32 = 2e-4;

/// One photo's view.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Standardised.
    pub features: &'a [f32],
    /// Its class.
    pub class: usize,
    /// What it counts.
    pub weight: f32,
}

/// `scores = weights * features + bias`
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[classes][dims + 1]`, the bias last.
    pub rows: Vec<f32>,
    /// The number of features.
    pub dims: usize,
}

impl Head {
    /// All scores 0.
    pub fn zero(classes: usize, dims: usize) -> Head {
        Head { rows: vec![0.0; classes * (dims + 1)], dims }
    }

    /// Before softmax.
    pub fn scores(&self, features: &[f32]) -> Vec<f32> {
        self.rows.chunks_exact(self.dims + 1).map(|row| dot(&row[..self.dims], features) + row[self.dims]).collect()
    }
}

/// Minimises `sum(weight * -log p) / sum(weight) + penalty / 2 * |weights|^2` from `start` on; the bias is free.
pub fn fit(samples: &[Sample], start: Head, penalty: f32) -> Head {
    let dims = start.dims;
    let mut at = start.rows;
    let (mut loss, mut gradient) = evaluate(samples, &at, dims, penalty);
    let mut memory: Vec<(Vec<f32>, Vec<f32>, f32)> = Vec::new();
    for _ in 0..MAX_ITERATIONS {
        if norm(&gradient) <= TOLERANCE * norm(&at).max(1.0) {
            break;
        }
        let direction = direction(&gradient, &memory);
        let Some((next, next_loss, next_gradient)) =
            search(samples, &at, loss, &gradient, &direction, (dims, penalty, memory.is_empty()))
        else {
            // along a direction of stale memory nothing was found: start anew, or stop
            if memory.is_empty() {
                break;
            }
            memory.clear();
            continue;
        };
        let step: Vec<f32> = std::iter::zip(&next, &at).map(|(a, b)| a - b).collect();
        let change: Vec<f32> = std::iter::zip(&next_gradient, &gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > 1e-12 {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push((step, change, 1.0 / curvature));
        }
        (at, loss, gradient) = (next, next_loss, next_gradient);
    }
    Head { rows: at, dims }
}

type Point = (Vec<f32>, f64, Vec<f32>);

/// Halves the step until the loss falls enough (Armijo's condition).
fn search(
    samples: &[Sample],
    at: &[f32],
    loss: f64,
    gradient: &[f32],
    direction: &[f32],
    (dims, penalty, first): (usize, f32, bool),
) -> Option<Point> {
    let slope = f64::from(dot(gradient, direction));
    let mut length = if first { 1.0 / norm(gradient).max(1.0) } else { 1.0 };
    for _ in 0..20 {
        let next: Vec<f32> = std::iter::zip(at, direction).map(|(a, d)| a + length * d).collect();
        let (next_loss, next_gradient) = evaluate(samples, &next, dims, penalty);
        if next_loss <= loss + 1e-4 * f64::from(length) * slope {
            return Some((next, next_loss, next_gradient));
        }
        length *= 0.5;
    }
    None
}

/// The two-loop recursion.
fn direction(gradient: &[f32], memory: &[(Vec<f32>, Vec<f32>, f32)]) -> Vec<f32> {
    let mut q: Vec<f32> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::new();
    for (step, change, inverse) in memory.iter().rev() {
        let alpha = inverse * dot(step, &q);
        add_scaled(&mut q, change, -alpha);
        alphas.push(alpha);
    }
    if let Some((_, change, inverse)) = memory.last() {
        let scale = 1.0 / (inverse * dot(change, change));
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for ((step, change, inverse), alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = inverse * dot(change, &q);
        add_scaled(&mut q, step, alpha - beta);
    }
    q
}

/// The loss and its gradient, over all cores.
fn evaluate(samples: &[Sample], rows: &[f32], dims: usize, penalty: f32) -> (f64, Vec<f32>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(samples.len().div_ceil(64)).max(1);
    let share = samples.len().div_ceil(threads).max(1);
    let parts: Vec<(f64, Vec<f32>)> = std::thread::scope(|scope| {
        let work = |part| scope.spawn(move || partial(part, rows, dims));
        let others: Vec<_> = samples.chunks(share).skip(1).map(work).collect();
        let first = partial(&samples[..share.min(samples.len())], rows, dims);
        // a thread of pure arithmetic does not panic
        std::iter::once(first).chain(others.into_iter().filter_map(|t| t.join().ok())).collect()
    });
    let total: f32 = samples.iter().map(|s| s.weight).sum();
    let mut gradient = vec![0.0; rows.len()];
    let mut loss = 0.0;
    for (part_loss, part) in parts {
        loss += part_loss;
        add_scaled(&mut gradient, &part, 1.0 / total);
    }
    loss /= f64::from(total);
    for (row, slope) in rows.chunks_exact(dims + 1).zip(gradient.chunks_exact_mut(dims + 1)) {
        loss += 0.5 * f64::from(penalty) * f64::from(dot(&row[..dims], &row[..dims]));
        add_scaled(&mut slope[..dims], &row[..dims], penalty);
    }
    (loss, gradient)
}

fn partial(samples: &[Sample], rows: &[f32], dims: usize) -> (f64, Vec<f32>) {
    let (mut loss, mut gradient) = (0.0, vec![0.0; rows.len()]);
    let mut scores = vec![0.0; rows.len() / (dims + 1)];
    for sample in samples {
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(dims + 1)) {
            *score = dot(&row[..dims], sample.features) + row[dims];
        }
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let own = scores[sample.class];
        scores.iter_mut().for_each(|s| *s = (*s - largest).exp());
        let sum: f32 = scores.iter().sum();
        loss += f64::from(sample.weight) * f64::from(sum.ln() + largest - own);
        for (class, (score, row)) in scores.iter().zip(gradient.chunks_exact_mut(dims + 1)).enumerate() {
            let slope = sample.weight * (score / sum - f32::from(u8::from(class == sample.class)));
            add_scaled(&mut row[..dims], sample.features, slope);
            row[dims] += slope;
        }
    }
    (loss, gradient)
}

/// In eight sums, which the compiler turns into vectors: one sum has a fixed order and cannot be.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (whole_a, rest_a) = a.as_chunks::<8>();
    let (whole_b, rest_b) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in whole_a.iter().zip(whole_b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

fn add_scaled(to: &mut [f32], from: &[f32], by: f32) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += by * f);
}

fn norm(values: &[f32]) -> f32 {
    dot(values, values).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes on a line, at -1 and 1: by symmetry the bias is 0, and the gradient condition gives the weight.
    #[test]
    fn the_minimum_fulfils_its_own_equation() {
        let (left, right) = ([-1.0f32], [1.0f32]);
        let sample = |features, class| Sample { features, class, weight: 1.0 };
        let samples = [sample(&left[..], 0), sample(&right[..], 1)];
        let head = fit(&samples, Head::zero(2, 1), 0.1);
        let (w0, w1) = (head.rows[0], head.rows[2]);
        assert!((w0 + w1).abs() < 1e-4 && (head.rows[1] - head.rows[3]).abs() < 1e-3, "{head:?}");
        // derivative: penalty * w1 = 1 - p(right), p = sigmoid(2 w1)
        let p = 1.0 / (1.0 + (-2.0 * w1).exp());
        assert!((0.1 * w1 - (1.0 - p)).abs() < 1e-3, "{head:?}");
    }

    #[test]
    fn the_gradient_is_the_losss_slope() {
        let features: Vec<[f32; 3]> =
            (0..9).map(|i| [i as f32 * 0.3 - 1.0, (i * i % 7) as f32 * 0.2, 1.0 - (i % 4) as f32]).collect();
        let sample = |(i, f): (usize, &'static [f32; 3])| Sample { features: f, class: i % 3, weight: 1.0 + i as f32 };
        let kept: &'static [[f32; 3]] = Box::leak(features.into_boxed_slice());
        let samples: Vec<Sample> = kept.iter().enumerate().map(sample).collect();
        let rows: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
        let (_, gradient) = evaluate(&samples, &rows, 3, 0.3);
        for i in 0..rows.len() {
            let moved = |by: f32| {
                let mut rows = rows.clone();
                rows[i] += by;
                evaluate(&samples, &rows, 3, 0.3).0
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - f64::from(gradient[i])).abs() < 1e-3, "{i}: {slope} {}", gradient[i]);
        }
    }
}
