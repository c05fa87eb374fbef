//! Packed weights: made once from a layer's weights, then only read, from memory of our own or from a mapped file.
//!
//! An algorithm asks its [`Packer`] for every array and every decision that depends on the weights, always in the same order. A packer without
//! parts makes them; one with the parts of an earlier run hands those out, and the weights are not needed again. So there is one constructor for
//! both ways, and what comes out of a file is what was packed.

use super::{
    KernelError,
    scratch::{Buffer, Plain},
};
use crate::memory::Mapping;
use std::{marker::PhantomData, ops::Deref, ptr::NonNull, sync::Arc};

/// Bytes that start on a cache line, stay where they are and do not change.
#[derive(Clone)]
pub struct Part(Arc<Memory>);

enum Memory {
    Own(Buffer<u8>),
    File(Mapping),
}

impl Part {
    /// A copy of `bytes`.
    pub fn copied(bytes: &[u8]) -> Self {
        Self(Arc::new(Memory::Own(Buffer::padded(bytes.iter().copied(), bytes.len()))))
    }

    /// A part of a file, in place. A mapping starts on a page, and so on a cache line.
    pub fn mapped(mapping: Mapping) -> Self {
        Self(Arc::new(Memory::File(mapping)))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &*self.0 {
            Memory::Own(buffer) => buffer,
            Memory::File(mapping) => mapping,
        }
    }
}

/// A packed array: a typed view of a [`Part`].
pub(crate) struct Packed<T: Plain> {
    data: NonNull<T>,
    len: usize,
    _part: Option<Part>,
    _elements: PhantomData<T>,
}

// SAFETY: it reads memory that nobody writes, which its part keeps alive, and `T` is `Sync`.
unsafe impl<T: Plain> Send for Packed<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Packed<T> {}

impl<T: Plain> Packed<T> {
    /// No elements.
    pub(crate) fn empty() -> Self {
        Self { data: NonNull::dangling(), len: 0, _part: None, _elements: PhantomData }
    }

    /// `part` as `len` elements, when it has that length.
    fn view(part: Part, len: usize) -> Option<Self> {
        let bytes = part.bytes();
        if len == 0 && bytes.is_empty() {
            return Some(Self::empty());
        }
        let fits = len.checked_mul(size_of::<T>()) == Some(bytes.len());
        let data = NonNull::new(bytes.as_ptr().cast_mut().cast::<T>()).filter(|data| data.is_aligned())?;
        fits.then_some(Self { data, len, _part: Some(part), _elements: PhantomData })
    }
}

impl<T: Plain> Deref for Packed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `view` checked length and alignment; any bytes are valid elements, and the part keeps them; dangling only when `len` is 0.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

/// What a layer was packed into.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    /// The arrays.
    pub(crate) arrays: Vec<Part>,
    /// What was decided from the weights.
    pub(crate) decisions: Vec<bool>,
}

/// Makes a layer's parts, or hands out those that are there.
pub(crate) struct Packer {
    /// How many of `parts` were handed out; `None` while parts are made.
    given: Option<[usize; 2]>,
    parts: Parts,
    fits: bool,
}

impl Packer {
    /// Makes parts.
    pub(crate) fn new() -> Self {
        Self { given: None, parts: Parts::default(), fits: true }
    }

    /// Hands out parts.
    pub(crate) fn with(parts: Parts) -> Self {
        Self { given: Some([0, 0]), parts, fits: true }
    }

    /// The next array: `len` zeros that `fill` fills. Where parts are handed out and the next has another length, an empty array, and [`Packer::finish`]
    /// will fail.
    pub(crate) fn array<T: Plain>(&mut self, len: usize, fill: impl FnOnce(&mut [T])) -> Packed<T> {
        let part = match &mut self.given {
            Some([next, _]) => {
                *next += 1;
                self.parts.arrays.get(*next - 1).cloned()
            }
            None => {
                let mut buffer = Buffer::<u8>::new(len * size_of::<T>());
                // SAFETY: the buffer has that many bytes on a cache line, all zero, which is a valid `T`; it is borrowed exclusively.
                fill(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), len) });
                let part = Part(Arc::new(Memory::Own(buffer)));
                self.parts.arrays.push(part.clone());
                Some(part)
            }
        };
        part.and_then(|part| Packed::view(part, len)).unwrap_or_else(|| {
            self.fits = false;
            Packed::empty()
        })
    }

    /// The next decision.
    pub(crate) fn decide(&mut self, decide: impl FnOnce() -> bool) -> bool {
        match &mut self.given {
            Some([_, next]) => {
                *next += 1;
                self.parts.decisions.get(*next - 1).copied().unwrap_or_else(|| {
                    self.fits = false;
                    false
                })
            }
            None => {
                self.parts.decisions.push(decide());
                self.parts.decisions.last() == Some(&true)
            }
        }
    }

    /// All parts.
    ///
    /// # Errors
    /// The parts that were handed out are not this layer's: what was made of them must not be run.
    pub(crate) fn finish(self) -> Result<Parts, KernelError> {
        let all = self.given.is_none_or(|given| given == [self.parts.arrays.len(), self.parts.decisions.len()]);
        if self.fits && all { Ok(self.parts) } else { Err(KernelError::Parts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(packer: &mut Packer) -> (Packed<i16>, bool, Packed<i8>) {
        let wide = packer.array(3, |to| to.copy_from_slice(&[1, -2, 300]));
        let large = packer.decide(|| true);
        (wide, large, packer.array(2, |to| to[1] = 7))
    }

    #[test]
    fn parts_are_made_once_and_handed_out_afterwards() {
        let mut packer = Packer::new();
        let made = pack(&mut packer);
        assert_eq!((&*made.0, made.1, &*made.2), (&[1i16, -2, 300][..], true, &[0i8, 7][..]));
        let parts = packer.finish().unwrap();
        let mut packer = Packer::with(parts.clone());
        let same = pack(&mut packer);
        assert_eq!((&*same.0, same.1, &*same.2), (&*made.0, made.1, &*made.2));
        assert_eq!(same.0.as_ptr(), made.0.as_ptr(), "not a copy");
        packer.finish().unwrap();
    }

    #[test]
    fn parts_of_another_layer_are_refused() {
        let mut packer = Packer::new();
        pack(&mut packer);
        let parts = packer.finish().unwrap();
        let changes: [fn(&mut Parts); 5] = [
            |p| p.arrays[0] = Part::copied(&[0; 5]),
            |p| p.arrays.truncate(1),
            |p| p.arrays.push(Part::copied(&[])),
            |p| p.decisions.clear(),
            |p| p.decisions.push(true),
        ];
        for change in changes {
            let mut parts = parts.clone();
            change(&mut parts);
            let mut packer = Packer::with(parts);
            pack(&mut packer);
            assert_eq!(packer.finish().err(), Some(KernelError::Parts));
        }
    }
}
