//! The allocator's habits, and files mapped into memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tract_onnx::prelude::{Tensor, TractResult};

/// From this size on, a freed block goes back to the system at once.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Makes freed blocks of 1 MiB or more go back to the system at once, for the rest of the process.
///
/// glibc raises this limit to the largest block that was ever freed (up to 32 MiB), and from then on cuts such blocks out of heaps that
/// only shrink at their end: for a command that handles tensors of all sizes, half as much memory again. Does nothing with another
/// C library.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes no pointers and changes one tunable under the allocator's own lock.
    let accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    #[cfg(target_env = "gnu")]
    if accepted != 1 {
        log::debug!("the allocator keeps its own mind on large blocks");
    }
}

/// A tensor of zeros, a large one on large pages. They must be asked for before the first touch, which tract's own `zero` is.
///
/// # Errors
/// The shape is beyond what memory can hold.
pub fn zeros(shape: &[usize]) -> TractResult<Tensor> {
    // SAFETY: all of it is written below, before anybody reads it.
    let mut tensor = unsafe { Tensor::uninitialized::<f32>(shape)? };
    let mut plain = tensor.try_as_plain_ram_mut()?;
    let values = plain.as_slice_mut::<f32>()?;
    prefer_large_pages(values);
    values.fill(0.0);
    Ok(tensor)
}

/// Asks the system to back a large block, which nobody has written to yet, by few large pages instead of many small ones: a first touch costs
/// a fault each. Advice only, of which a system without large pages takes no notice.
fn prefer_large_pages<T>(block: &mut [T]) {
    const PAGE: usize = 4096;
    let (from, to) = (block.as_ptr().addr().next_multiple_of(PAGE), block.as_ptr_range().end.addr() / PAGE * PAGE);
    if to <= from {
        return;
    }
    let start = block.as_mut_ptr().cast::<u8>().wrapping_add(from - block.as_ptr().addr());
    // SAFETY: whole pages within the block; how they are backed changes nothing that is in them.
    let advised = unsafe { rustix::mm::madvise(start.cast(), to - from, rustix::mm::Advice::LinuxHugepage) };
    if let Err(error) = advised {
        log::trace!("the system has no large pages: {error}");
    }
}

/// A part of a file, mapped for reading: its pages are the page cache's own, read when they are first touched and dropped when memory is short.
///
/// The file must not be cut short while it is mapped (reading a page that is gone is a bus error), so only files are mapped that are
/// replaced by renaming, never written in place.
pub struct Mapping {
    start: std::ptr::NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its pages, and they are only read.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset` on, which must be a multiple of the page size.
    ///
    /// # Errors
    /// The file is shorter than that, or the system refuses.
    pub fn new(file: &File, offset: u64, len: usize) -> io::Result<Mapping> {
        let end = offset.checked_add(len as u64);
        if len == 0 || end.is_none_or(|end| file.metadata().is_ok_and(|about| about.len() < end)) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than what is to be mapped"));
        }
        // SAFETY: a new mapping at an address of the system's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, offset) }?;
        let start = std::ptr::NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Mapping { start, len })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped in `new` with this length, until `drop`; the file is not changed in place (see the type).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; nobody borrows it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Gives the memory that the allocator keeps for later back to the system: after loading a model, that is most of what it took.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointers and works under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_mapping_shows_the_files_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let mapping = Mapping::new(&file, 1 << 16, 100_000).unwrap();
        drop(file);
        assert_eq!(*mapping, bytes[1 << 16..][..100_000]);
    }

    #[test]
    fn large_pages_change_nothing_that_a_block_holds() {
        for length in [0, 1, 5000, 3 << 20] {
            let mut block: Vec<u32> = (0..length).collect();
            prefer_large_pages(&mut block);
            assert!(block.iter().enumerate().all(|(i, v)| i == *v as usize), "{length}");
        }
    }

    #[test]
    fn new_tensors_are_zeros() {
        for shape in [vec![0], vec![], vec![1, 3, 700, 701]] {
            let tensor = zeros(&shape).unwrap();
            assert_eq!(tensor.shape(), shape);
            assert!(tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().iter().all(|v| *v == 0.0));
        }
        assert!(zeros(&[usize::MAX, 8]).is_err());
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error_and_not_a_bus_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(70_000).unwrap();
        assert!(Mapping::new(&file, 1 << 16, 5000).is_err());
        assert!(Mapping::new(&file, u64::MAX - 10, 100).is_err());
        assert!(Mapping::new(&file, 0, 0).is_err());
        assert!(Mapping::new(&file, 0, 70_000).is_ok());
    }
}
