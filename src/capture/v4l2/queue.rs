//! Our own queue of mapped buffers on a V4L2 device.
//!
//! The `v4l` crate's stream answers EINVAL for ever after one time-out, because it leaves its buffers where the time-out
//! found them. Here a buffer is either with the driver or copied from and queued again at once: a time-out changes nothing.

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use v4l::device::Handle;
use v4l::v4l_sys::{v4l2_buffer, v4l2_requestbuffers};
use v4l::v4l2::vidioc;

use super::abi::{CAPTURE, call, descriptor};
use crate::clock::Monotonic;

/// `V4L2_MEMORY_MMAP`
const MMAP: u32 = 1;
/// `V4L2_BUF_FLAG_ERROR`: the driver knows that the data is damaged.
const FLAG_ERROR: u32 = 0x0040;
/// `V4L2_BUF_FLAG_TIMESTAMP_MASK` and `…_MONOTONIC`
const STAMP_MASK: u32 = 0xe000;
const STAMP_MONOTONIC: u32 = 0x2000;

/// A failed call and the kernel's answer.
pub(super) type CallError = (&'static str, io::Error);

/// Buffers that the driver fills.
pub(super) struct Queue {
    handle: Arc<Handle>,
    buffers: Vec<Mapping>,
    streaming: bool,
}

/// What the driver says of a filled buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    /// The driver knows that the data is damaged.
    pub(super) error: bool,
    /// The frame's number.
    pub(super) sequence: u32,
    /// When it was captured, by the driver's clock if that is the monotonic one, otherwise now.
    pub(super) captured: Monotonic,
}

impl Queue {
    /// Asks for `count` buffers, maps and queues them, and starts the stream.
    pub(super) fn start(handle: Arc<Handle>, count: u32) -> Result<Self, CallError> {
        let mut queue = Self { handle, buffers: Vec::new(), streaming: false };
        for index in 0..queue.request(count)? {
            let mapping = queue.map(index)?;
            queue.buffers.push(mapping);
            queue.enqueue(index)?;
        }
        if queue.buffers.is_empty() {
            return Err(("VIDIOC_REQBUFS", io::Error::other("the driver gave no buffer")));
        }
        queue.stream(vidioc::VIDIOC_STREAMON, "VIDIOC_STREAMON")?;
        queue.streaming = true;
        Ok(queue)
    }

    /// Waits for a filled buffer, hands its bytes to `take`, and queues it again. `None` after `timeout`.
    pub(super) fn next<R>(
        &mut self,
        timeout: Duration,
        take: impl FnOnce(&[u8], Filled) -> R,
    ) -> Result<Option<R>, CallError> {
        let Some(ready) = self.wait(timeout)? else { return Ok(None) };
        let mut buffer = description(0);
        // SAFETY: VIDIOC_DQBUF is defined with v4l2_buffer; for buffer type CAPTURE the kernel follows no pointer in it.
        match unsafe { call(&self.handle, vidioc::VIDIOC_DQBUF, &mut buffer) } {
            Ok(()) => {}
            // Woken for nothing; but an error that poll reports and DQBUF does not would be reported for ever.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.intersects(broken()) => return Ok(None),
            Err(error) => return Err(("VIDIOC_DQBUF", error)),
        }
        let Some(mapping) = self.buffers.get(buffer.index as usize) else {
            return Err(("VIDIOC_DQBUF", io::Error::other("the driver names a buffer that it was not given")));
        };
        let used = (buffer.bytesused as usize).min(mapping.length);
        // SAFETY: the mapping is `length` bytes, lives as long as `self`, and `used <= length`. The driver has handed the
        // buffer over with DQBUF and does not write to it before QBUF below, after the slice's last use.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.start.as_ptr(), used) };
        let taken = take(bytes, filled(&buffer, Monotonic::now()));
        self.enqueue(buffer.index)?;
        Ok(Some(taken))
    }

    /// What poll says of the device; `None` after `timeout`.
    fn wait(&self, timeout: Duration) -> Result<Option<PollFlags>, CallError> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut device = [PollFd::from_borrowed_fd(descriptor(&self.handle), PollFlags::IN)];
        match poll(&mut device, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
            Ok(_) => Ok(Some(device[0].revents())),
            Err(errno) => Err(("poll", errno.into())),
        }
    }

    fn request(&self, count: u32) -> Result<u32, CallError> {
        // SAFETY: integers, for which all zeroes is valid.
        let mut request: v4l2_requestbuffers = unsafe { std::mem::zeroed() };
        (request.count, request.type_, request.memory) = (count, CAPTURE, MMAP);
        // SAFETY: VIDIOC_REQBUFS is defined with v4l2_requestbuffers.
        unsafe { call(&self.handle, vidioc::VIDIOC_REQBUFS, &mut request) }.map_err(|e| ("VIDIOC_REQBUFS", e))?;
        Ok(request.count)
    }

    fn map(&self, index: u32) -> Result<Mapping, CallError> {
        let mut buffer = description(index);
        // SAFETY: VIDIOC_QUERYBUF is defined with v4l2_buffer; for buffer type CAPTURE the kernel follows no pointer in it.
        unsafe { call(&self.handle, vidioc::VIDIOC_QUERYBUF, &mut buffer) }.map_err(|e| ("VIDIOC_QUERYBUF", e))?;
        let length = buffer.length as usize;
        // SAFETY: QUERYBUF of a buffer of memory type MMAP fills `m.offset`.
        let offset = u64::from(unsafe { buffer.m.offset });
        let device = descriptor(&self.handle);
        // SAFETY: a new mapping at an address of the kernel's choice, of the length and offset that the driver gave for
        // this descriptor; it touches no memory of ours. The manual asks for both permissions, for old drivers' sake.
        let start =
            unsafe { mmap(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, device, offset) };
        let start = start.map_err(|e| ("mmap", e.into()))?;
        let start = NonNull::new(start.cast()).ok_or_else(|| ("mmap", io::Error::other("a mapping at address 0")))?;
        Ok(Mapping { start, length })
    }

    fn enqueue(&self, index: u32) -> Result<(), CallError> {
        let mut buffer = description(index);
        // SAFETY: VIDIOC_QBUF is defined with v4l2_buffer; for memory type MMAP the kernel follows no pointer in it.
        unsafe { call(&self.handle, vidioc::VIDIOC_QBUF, &mut buffer) }.map_err(|e| ("VIDIOC_QBUF", e))
    }

    fn stream(&self, request: vidioc::_IOC_TYPE, name: &'static str) -> Result<(), CallError> {
        // SAFETY: STREAMON and STREAMOFF, the two requests that are passed here, are defined with an int.
        unsafe { call(&self.handle, request, &mut (CAPTURE as libc::c_int)) }.map_err(|e| (name, e))
    }
}

impl Drop for Queue {
    /// Gives everything back, so that the device can be opened again at once. Errors mean that it has gone away already.
    fn drop(&mut self) {
        if self.streaming {
            let _ = self.stream(vidioc::VIDIOC_STREAMOFF, "VIDIOC_STREAMOFF");
        }
        // The driver frees no buffer that is still mapped.
        self.buffers.clear();
        let _ = self.request(0);
    }
}

/// One buffer's memory, shared with the driver.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is plain memory of the process, not bound to the thread that made it; `Queue` is its only owner.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are of the mapping made in `map`, unmapped nowhere else; slices of it do not outlive
        // the borrow of the queue that owns it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// What poll reports when the device is gone or its stream has failed.
fn broken() -> PollFlags {
    PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL
}

fn description(index: u32) -> v4l2_buffer {
    // SAFETY: integers, and unions of integers and pointers that buffer type CAPTURE does not use; all zeroes is valid.
    let mut buffer: v4l2_buffer = unsafe { std::mem::zeroed() };
    (buffer.index, buffer.type_, buffer.memory) = (index, CAPTURE, MMAP);
    buffer
}

fn filled(buffer: &v4l2_buffer, now: Monotonic) -> Filled {
    let monotonic = buffer.flags & STAMP_MASK == STAMP_MONOTONIC;
    let stamp = &buffer.timestamp;
    let since_boot =
        Duration::from_secs(stamp.tv_sec.max(0) as u64) + Duration::from_micros(stamp.tv_usec.max(0) as u64);
    // A stamp from the future would make latencies negative.
    let captured = if monotonic { Monotonic::from_duration(since_boot).min(now) } else { now };
    Filled { error: buffer.flags & FLAG_ERROR != 0, sequence: buffer.sequence, captured }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_the_drivers_only_if_its_clock_is_ours() {
        let now = Monotonic::from_duration(Duration::from_secs(100));
        let check = |flags, seconds, expected: Duration| {
            let mut buffer = description(0);
            (buffer.flags, buffer.sequence) = (flags, 7);
            (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec) = (seconds, 250_000);
            let got = filled(&buffer, now);
            assert_eq!((got.captured.as_duration(), got.sequence), (expected, 7), "{flags:#x} {seconds}");
            assert_eq!(got.error, flags & FLAG_ERROR != 0);
        };
        check(STAMP_MONOTONIC, 99, Duration::from_millis(99_250));
        check(STAMP_MONOTONIC | FLAG_ERROR, 99, Duration::from_millis(99_250));
        // Unknown clock; copied from elsewhere; from the future; before the boot.
        check(0, 99, Duration::from_secs(100));
        check(0x4000, 99, Duration::from_secs(100));
        check(STAMP_MONOTONIC, 101, Duration::from_secs(100));
        check(STAMP_MONOTONIC, -5, Duration::from_millis(250));
    }
}
