//! Aligned memory: packed weights, and the buffers that a layer needs while it runs.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

/// A cache line on every CPU that we know, and the width of the widest vector.
pub(crate) const LINE: usize = 64;
/// The size of a huge page on x86-64, and on aarch64 with 4 KiB pages.
const HUGE: usize = 2 << 20;

/// Numbers without padding or invalid bit patterns, for which all-zero bytes are zero.
///
/// # Safety
/// Implementors have no padding, no invalid bit pattern, no drop glue, and at most 64-byte alignment.
pub(crate) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: a primitive integer.
unsafe impl Plain for u8 {}
// SAFETY: a primitive integer.
unsafe impl Plain for i8 {}
// SAFETY: a primitive integer.
unsafe impl Plain for i16 {}
// SAFETY: a primitive integer.
unsafe impl Plain for i32 {}
// SAFETY: a primitive float.
unsafe impl Plain for f32 {}

/// A zeroed array on its own cache lines; on huge pages where it is large and the system has them.
pub(crate) struct Buffer<T: Plain> {
    data: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its memory as a `Vec` does, and `T` is `Send`.
unsafe impl<T: Plain> Send for Buffer<T> {}
// SAFETY: shared access only reads, and `T` is `Sync`.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else { return Self { data: NonNull::dangling(), len: 0 } };
        // SAFETY: `layout` has a size above zero.
        let Some(data) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        advise_huge(data, layout);
        // SAFETY: the memory is ours and `layout.size()` bytes long.
        unsafe { data.write_bytes(0, layout.size()) };
        Self { data: data.cast(), len }
    }

    /// At least `len` zeros, in whole huge pages where they fill one: for memory that is written and read again, layer after layer. A rest on small pages
    /// lies wherever the system had some, and where their addresses share sets of L2, half of the layers that use it are 10 % slower.
    pub(crate) fn working(len: usize) -> Self {
        let each = HUGE / size_of::<T>();
        Self::new(if len < each { len } else { len.next_multiple_of(each) })
    }

    /// `values`, followed by zeros up to `len`.
    pub(crate) fn padded(values: impl IntoIterator<Item = T>, len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.iter_mut().zip(values).for_each(|(to, from)| *to = from);
        buffer
    }

    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>()).expect("more memory than addresses was asked for");
        let align = if bytes >= HUGE { HUGE } else { LINE };
        (bytes > 0).then(|| Layout::from_size_align(bytes, align).expect("more memory than addresses was asked for"))
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.data.as_ptr().cast(), layout) };
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values, all initialised in `new`; dangling only when `len` is 0.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and we are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

/// Asks for huge pages before the first touch: a 512 x 512 layer's weights span hundreds of 4 KiB pages a tile, more than a TLB holds.
fn advise_huge(data: NonNull<u8>, layout: Layout) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if layout.align() == HUGE {
        // Whole pages only: the tail may share its page with a neighbour.
        let len = layout.size() / HUGE * HUGE;
        // SAFETY: the range is ours; the advice changes no contents. Failure (no support) costs only speed.
        unsafe { libc::madvise(data.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (data, layout);
}

/// Fetches a cache line into L2, if the CPU likes to.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
pub(crate) fn prefetch<T>(line: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(any(miri, not(target_arch = "x86_64")))]
    let _ = line;
}

/// Fetches a cache line into L1, if the CPU likes to.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
pub(crate) fn prefetch_near<T>(line: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(any(miri, not(target_arch = "x86_64")))]
    let _ = line;
}

/// Working memory for [`Conv::run`](super::Conv::run) and [`Dense::run`](super::Dense::run): one a model, used by layer after layer.
///
/// It grows to the largest layer's need at that layer's first run and allocates nothing afterwards.
///
/// A worker's area stays where it is from layer to layer. Were each layer to divide the memory anew, a core would write to lines that another core
/// changed in the layer before, and fetch them from its cache: a tenth to a quarter of the time of conv 3_1, 4_1, 4_2 and 5_1 on two cores.
#[derive(Default)]
pub struct Scratch {
    memory: Option<Buffer<u8>>,
    /// What it was made for: bytes for all, bytes for each worker, workers.
    room: [usize; 3],
}

impl Scratch {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |m| m.len())
    }

    /// `shared` bytes for all, and `each` bytes for every one of `workers` threads. The contents are left over from earlier runs.
    pub(crate) fn areas(&mut self, shared: usize, workers: usize, each: usize) -> Areas<'_> {
        // Areas a multiple of 4096 bytes apart would all fall into the same sets of the L1 cache.
        let need = [shared.next_multiple_of(LINE), each.next_multiple_of(4096) + LINE, workers];
        if std::iter::zip(need, self.room).any(|(need, room)| need > room) {
            self.room = std::array::from_fn(|i| need[i].max(self.room[i]));
            let [shared, each, workers] = self.room;
            self.memory = None;
            self.memory = Some(Buffer::working(shared + workers * each));
        }
        let [shared, each, _] = self.room;
        let start = self.memory.as_mut().map_or(NonNull::dangling(), |m| m.data);
        Areas { start, shared, each, workers, _scratch: std::marker::PhantomData }
    }
}

/// [`Scratch`] divided among threads. Every area starts on a cache line.
#[derive(Clone, Copy)]
pub(crate) struct Areas<'a> {
    start: NonNull<u8>,
    shared: usize,
    each: usize,
    workers: usize,
    _scratch: std::marker::PhantomData<&'a mut [u8]>,
}

// SAFETY: it only hands out pointers; whoever uses them answers for it.
unsafe impl Sync for Areas<'_> {}
// SAFETY: as above.
unsafe impl Send for Areas<'_> {}

impl Areas<'_> {
    /// The memory that all threads see.
    pub(crate) fn shared(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The memory of one worker: initialised bytes, touched by nobody else while that worker's task runs.
    pub(crate) fn of(&self, worker: usize) -> *mut u8 {
        assert!(worker < self.workers);
        // SAFETY: inside of the allocation that `areas` sized.
        unsafe { self.start.as_ptr().add(self.shared + worker * self.each) }
    }
}

/// A raw pointer that tasks on several threads write through, each to a place of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: the pointer is dereferenced in `unsafe` blocks only, and each says why its target is not shared.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer (a method, so that closures capture the whole wrapper).
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        // Miri looks at some of the largest only: it takes a microsecond for each
        let step = if cfg!(miri) { 1009 } else { 1 };
        for len in [0, 1, 63, 1000, HUGE / 4 + 5] {
            let buffer = Buffer::<i32>::new(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().step_by(step).all(|&v| v == 0));
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(LINE));
        }
        assert_eq!(*Buffer::padded([1u8, 2, 3], 5), [1, 2, 3, 0, 0]);
        assert_eq!([Buffer::<i32>::working(9).len(), Buffer::<i32>::working(HUGE / 4 + 5).len()], [9, HUGE / 2]);
    }

    #[test]
    fn scratch_grows_once_and_areas_do_not_overlap() {
        let mut scratch = Scratch::new();
        let areas = scratch.areas(100, 3, 5000);
        let starts: Vec<usize> = (0..3).map(|w| areas.of(w) as usize).collect();
        assert!(starts[0] >= areas.shared() as usize + 100);
        assert!(starts.windows(2).all(|p| p[1] - p[0] >= 5000));
        let bytes = scratch.bytes();
        assert!(bytes >= starts[2] - starts[0] + 5000);
        let smaller = scratch.areas(10, 2, 100);
        assert_eq!([smaller.of(0) as usize, smaller.of(1) as usize], starts[..2], "a worker's area stays where it is");
        assert_eq!(scratch.bytes(), bytes);
    }
}
