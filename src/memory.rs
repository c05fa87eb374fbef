//! The allocator's habits.

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
