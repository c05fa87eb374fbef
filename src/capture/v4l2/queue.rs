//! Our own queue of mapped buffers on a V4L2 device.
//!
//! The `v4l` crate's stream answers EINVAL for ever after one time-out, because it leaves its buffers where the time-out
//! found them. Here a buffer is either with the driver or copied from and queued again at once: a time-out changes nothing.

use std::io;
use std::os::raw::c_void;
use std::sync::Arc;
use std::time::Duration;

use v4l::device::Handle;
use v4l::v4l_sys::{v4l2_buffer, v4l2_requestbuffers};
use v4l::v4l2::{self, vidioc};

use crate::clock::Monotonic;

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`
const CAPTURE: u32 = 1;
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

/// One buffer's memory, shared with the driver.
struct Mapping {
    start: *mut c_void,
    length: usize,
}

// SAFETY: a mapping is plain memory of the process, not bound to the thread that made it; `Queue` is its only owner.
unsafe impl Send for Mapping {}

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
        let granted = queue.request(count)?;
        for index in 0..granted {
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
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        match self.handle.poll(libc::POLLIN, milliseconds) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(("poll", error)),
        }
        let mut buffer = self.description(0);
        self.call(vidioc::VIDIOC_DQBUF, &mut buffer).map_err(|e| ("VIDIOC_DQBUF", e))?;
        let Some(mapping) = self.buffers.get(buffer.index as usize) else {
            return Err(("VIDIOC_DQBUF", io::Error::other("the driver names a buffer that it was not given")));
        };
        let used = (buffer.bytesused as usize).min(mapping.length);
        // SAFETY: the mapping is `length` bytes, lives as long as `self`, and `used <= length`. The driver has handed the
        // buffer over with DQBUF and does not write to it before QBUF below, after the slice's last use.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.start.cast::<u8>(), used) };
        let taken = take(bytes, filled(&buffer));
        self.enqueue(buffer.index)?;
        Ok(Some(taken))
    }

    fn request(&self, count: u32) -> Result<u32, CallError> {
        // SAFETY: the struct is plain C data, for which all zeroes is valid.
        let mut request: v4l2_requestbuffers = unsafe { std::mem::zeroed() };
        (request.count, request.type_, request.memory) = (count, CAPTURE, MMAP);
        self.call(vidioc::VIDIOC_REQBUFS, &mut request).map_err(|e| ("VIDIOC_REQBUFS", e))?;
        Ok(request.count)
    }

    fn map(&self, index: u32) -> Result<Mapping, CallError> {
        let mut buffer = self.description(index);
        self.call(vidioc::VIDIOC_QUERYBUF, &mut buffer).map_err(|e| ("VIDIOC_QUERYBUF", e))?;
        let length = buffer.length as usize;
        // SAFETY: QUERYBUF of a buffer of memory type MMAP fills `m.offset`.
        let offset = unsafe { buffer.m.offset };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, of the length and offset that the driver gave for
        // this descriptor; it touches no memory of ours.
        let start = unsafe {
            v4l2::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, self.handle.fd(), offset.into())
        }
        .map_err(|e| ("mmap", e))?;
        Ok(Mapping { start, length })
    }

    fn enqueue(&self, index: u32) -> Result<(), CallError> {
        self.call(vidioc::VIDIOC_QBUF, &mut self.description(index)).map_err(|e| ("VIDIOC_QBUF", e))
    }

    fn stream(&self, request: vidioc::_IOC_TYPE, name: &'static str) -> Result<(), CallError> {
        self.call(request, &mut (CAPTURE as libc::c_int)).map_err(|e| (name, e))
    }

    fn description(&self, index: u32) -> v4l2_buffer {
        // SAFETY: the struct is plain C data, for which all zeroes is valid.
        let mut buffer: v4l2_buffer = unsafe { std::mem::zeroed() };
        (buffer.index, buffer.type_, buffer.memory) = (index, CAPTURE, MMAP);
        buffer
    }

    /// One ioctl on the device; every caller passes the struct that the request is defined with.
    fn call<T>(&self, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
        // SAFETY: the descriptor is open as long as `handle` lives; `argument` is a live, writable struct of the type that
        // `request` encodes (the four requests here and their structs stand side by side in videodev2.h).
        unsafe { v4l2::ioctl(self.handle.fd(), request, std::ptr::from_mut(argument).cast()) }
    }
}

impl Drop for Queue {
    /// Gives everything back, so that the device can be opened again at once. Errors mean that it has gone away already.
    fn drop(&mut self) {
        if self.streaming {
            let _ = self.stream(vidioc::VIDIOC_STREAMOFF, "VIDIOC_STREAMOFF");
        }
        for mapping in self.buffers.drain(..) {
            // SAFETY: start and length are of a mapping made in `map`, unmapped nowhere else; no slice of it is alive.
            let _ = unsafe { v4l2::munmap(mapping.start, mapping.length) };
        }
        let _ = self.request(0);
    }
}

fn filled(buffer: &v4l2_buffer) -> Filled {
    let monotonic = buffer.flags & STAMP_MASK == STAMP_MONOTONIC;
    let stamp = &buffer.timestamp;
    let since_boot =
        Duration::from_secs(stamp.tv_sec.max(0) as u64) + Duration::from_micros(stamp.tv_usec.max(0) as u64);
    let now = Monotonic::now();
    // A stamp from the future would make latencies negative.
    let captured = if monotonic { Monotonic::from_duration(since_boot).min(now) } else { now };
    Filled { error: buffer.flags & FLAG_ERROR != 0, sequence: buffer.sequence, captured }
}
