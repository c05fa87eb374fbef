//! One piece of memory for all values of a program, and the plan of who lives where.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ProgramError;
use crate::kernels::{Buffer, Plain};

/// Values start on a cache line, which is also the width of the widest vector.
const ALIGN: usize = 64;

/// A value's place: bytes in the arena of codes, or floats in the arena of floats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::model) enum Slot {
    /// `u8`
    Codes(Range<usize>),
    /// `f32`
    Floats(Range<usize>),
}

/// Zeroed memory whose first element lies on a cache line.
pub(in crate::model) struct Arena<T: Plain> {
    memory: Buffer<T>,
}

impl<T: Plain> Arena<T> {
    /// Room for `len` elements.
    pub(in crate::model) fn new(len: usize) -> Arena<T> {
        Arena { memory: Buffer::working(len) }
    }

    /// Reads a value.
    pub(in crate::model) fn get(&self, range: &Range<usize>) -> &[T] {
        &self.memory[range.clone()]
    }

    /// Writes a value.
    pub(in crate::model) fn get_mut(&mut self, range: &Range<usize>) -> &mut [T] {
        &mut self.memory[range.clone()]
    }

    /// Several values at once; they must not overlap.
    pub(in crate::model) fn disjoint<const N: usize>(
        &mut self,
        ranges: [&Range<usize>; N],
    ) -> Result<[&mut [T]; N], ProgramError> {
        let ranges = ranges.map(Range::clone);
        self.memory.get_disjoint_mut(ranges).map_err(|_| ProgramError::Overlap)
    }
}

/// A value to be placed: it lives from the step that writes it to the last step that reads it, both included.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Lifetime {
    /// Elements.
    pub(in crate::model) len: usize,
    /// Step number.
    pub(in crate::model) first: usize,
    /// Step number.
    pub(in crate::model) last: usize,
}

/// Places values so that those alive at the same time do not overlap: the largest first, each at the lowest offset that is free for
/// its whole life. Returns the ranges and the total size.
pub(in crate::model) fn place(lives: &[Lifetime]) -> (Vec<Range<usize>>, usize) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lives[i].len));
    let mut placed: Vec<(Range<usize>, usize)> = Vec::with_capacity(lives.len());
    let mut ranges = vec![0..0; lives.len()];
    for index in order {
        let life = lives[index];
        let mut taken: Vec<&Range<usize>> = placed
            .iter()
            .filter(|(_, other)| lives[*other].first <= life.last && life.first <= lives[*other].last)
            .map(|(range, _)| range)
            .collect();
        taken.sort_by_key(|r| r.start);
        let mut start = 0;
        for range in taken {
            if start + life.len <= range.start {
                break;
            }
            start = start.max(range.end.next_multiple_of(ALIGN));
        }
        ranges[index] = start..start + life.len;
        placed.push((start..start + life.len, index));
    }
    let total = ranges.iter().map(|r| r.end).max().unwrap_or(0);
    (ranges, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn values_alive_together_do_not_overlap(raw in proptest::collection::vec((1usize..300, 0usize..20, 0usize..6), 1..40)) {
            let lives: Vec<Lifetime> = raw.iter().map(|&(len, first, more)| Lifetime { len, first, last: first + more }).collect();
            let (ranges, total) = place(&lives);
            for (i, a) in lives.iter().enumerate() {
                assert_eq!(ranges[i].len(), a.len);
                assert!(ranges[i].end <= total && ranges[i].start % ALIGN == 0);
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let overlap = ranges[i].start < ranges[j].end && ranges[j].start < ranges[i].end;
                    assert!(!(together && overlap), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let chain: Vec<Lifetime> =
            [640, 6400, 640, 64].iter().enumerate().map(|(i, &len)| Lifetime { len, first: i, last: i + 1 }).collect();
        assert_eq!(place(&chain).1, 7040);
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let mut arena = Arena::<u8>::new(10);
        assert!(arena.disjoint([&(0..5), &(5..10)]).is_ok());
        assert_eq!(arena.disjoint([&(0..6), &(5..10)]).unwrap_err(), ProgramError::Overlap);
        assert_eq!(arena.get(&(0..1)).as_ptr() as usize % ALIGN, 0);
    }
}
