//! Cuts the byte stream of a child into frames.

use crate::capture::PixelFormat;
use crate::capture::decode::{DecodeError, least_stride, needed_bytes};
use crate::capture::jpeg::{Scanner, Walk, find_start};
use crate::clock::Monotonic;

/// No JPEG frame is larger; a stream in which no picture ends does not fill the memory.
const MAX_JPEG: usize = 32 << 20;

/// A frame cut from the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// Its bytes.
    pub(super) data: Vec<u8>,
    /// Width and height in pixels.
    pub(super) size: [u32; 2],
    /// When its first byte came: nearer to the capture than when its last one did.
    pub(super) begun: Monotonic,
}

/// Collects bytes until they are a frame.
pub(super) struct Splitter {
    buffer: Vec<u8>,
    /// When the first byte of the buffer came.
    begun: Monotonic,
    /// When the last one came.
    arrived: Monotonic,
    kind: Kind,
    dropped: u64,
}

enum Kind {
    Raw {
        format: PixelFormat,
        size: [u32; 2],
        stride: usize,
        length: usize,
    },
    /// The walk through the picture that starts the buffer, once one does.
    Jpeg(Option<Scanner>),
}

impl Splitter {
    /// For frames of `format`; raw ones need a size.
    pub(super) fn new(format: PixelFormat, size: Option<[u32; 2]>) -> Result<Self, DecodeError> {
        let kind = match format {
            PixelFormat::Jpeg => Kind::Jpeg(None),
            _ => {
                let size @ [width, height] = size.unwrap_or_default();
                let stride = least_stride(format, width as usize);
                Kind::Raw { format, size, stride, length: needed_bytes(format, width, height, stride)? }
            }
        };
        Ok(Self { buffer: Vec::new(), begun: Monotonic::default(), arrived: Monotonic::default(), kind, dropped: 0 })
    }

    pub(super) fn format(&self) -> PixelFormat {
        match self.kind {
            Kind::Raw { format, .. } => format,
            Kind::Jpeg(_) => PixelFormat::Jpeg,
        }
    }

    /// Bytes from row to row of a frame; 0 for JPEG.
    pub(super) fn stride(&self) -> usize {
        match self.kind {
            Kind::Raw { stride, .. } => stride,
            Kind::Jpeg(_) => 0,
        }
    }

    /// Adds bytes that came at `now`. [`Self::next`] is called until it has no more before the next ones are added.
    pub(super) fn push(&mut self, bytes: &[u8], now: Monotonic) {
        if self.buffer.is_empty() {
            self.begun = now;
        }
        self.arrived = now;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Option<Picture> {
        match &mut self.kind {
            Kind::Raw { size, length, .. } => {
                let (size, length) = (*size, *length);
                (self.buffer.len() >= length).then(|| self.take(length, size))
            }
            Kind::Jpeg(_) => self.next_jpeg(),
        }
    }

    /// How many pictures had to be thrown away since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn next_jpeg(&mut self) -> Option<Picture> {
        loop {
            let Kind::Jpeg(walk) = &mut self.kind else { return None };
            let Some(scanner) = walk else {
                let start = find_start(&self.buffer);
                *walk = start.map(|_| Scanner::default());
                // Two bytes may be the beginning of a start.
                let garbage = start.unwrap_or(self.buffer.len().saturating_sub(2));
                self.cut(garbage);
                start?;
                continue;
            };
            match scanner.walk(&self.buffer) {
                Walk::More if self.buffer.len() <= MAX_JPEG => return None,
                Walk::More => self.give_up(self.buffer.len()),
                Walk::Broken(at) => self.give_up(at.max(2)),
                Walk::End(length) => {
                    let size = scanner.size.unwrap_or_default();
                    *walk = None;
                    return Some(self.take(length, size));
                }
            }
        }
    }

    /// Throws away what was to be a picture.
    fn give_up(&mut self, length: usize) {
        self.kind = Kind::Jpeg(None);
        self.dropped += 1;
        self.cut(length);
    }

    fn take(&mut self, length: usize, size: [u32; 2]) -> Picture {
        let begun = self.begun;
        let rest = self.buffer.split_off(length);
        let data = std::mem::replace(&mut self.buffer, rest);
        self.begun = self.arrived;
        Picture { data, size, begun }
    }

    fn cut(&mut self, length: usize) {
        if length > 0 {
            self.buffer.drain(..length);
            // What is left came with the bytes that told what to cut.
            self.begun = self.arrived;
        }
    }
}

/// Cuts `stream`, which comes in pieces, for the fuzzer: nothing is in two pictures, and no picture is empty.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_split(format: PixelFormat, size: Option<[u32; 2]>, stream: &[u8]) {
    let Ok(mut splitter) = Splitter::new(format, size) else { return };
    let mut left = stream.len();
    for bytes in stream.chunks(1021) {
        splitter.push(bytes, Monotonic::default());
        while let Some(picture) = splitter.next() {
            assert!(!picture.data.is_empty());
            left = left.checked_sub(picture.data.len()).expect("pictures are no larger than the stream");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::jpeg::tests::PICTURE;
    use std::time::Duration;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_duration(Duration::from_secs(seconds))
    }

    /// The pictures of a stream that comes in pieces of `step` bytes, and how many were thrown away.
    fn cut(mut splitter: Splitter, stream: &[u8], step: usize) -> (Vec<Vec<u8>>, u64) {
        let mut pictures = Vec::new();
        for bytes in stream.chunks(step) {
            splitter.push(bytes, at(1));
            pictures.extend(std::iter::from_fn(|| splitter.next()).map(|p| p.data));
        }
        (pictures, splitter.take_dropped())
    }

    #[test]
    fn jpegs_are_cut_at_their_markers_whatever_lies_between() {
        let torn = &PICTURE[..35];
        let stream =
            [b"noise\xff\xd8!", &PICTURE[..], b"--\xff", torn, &PICTURE[..], &PICTURE[..], b"\xff\xd8\xff"].concat();
        for step in 1..=stream.len() {
            let (pictures, dropped) = cut(Splitter::new(PixelFormat::Jpeg, None).unwrap(), &stream, step);
            assert_eq!((pictures, dropped), (vec![PICTURE.to_vec(); 3], 1), "in steps of {step}");
        }
    }

    #[test]
    fn a_picture_that_never_ends_is_thrown_away() {
        let mut splitter = Splitter::new(PixelFormat::Jpeg, None).unwrap();
        splitter.push(&PICTURE[..30], at(1));
        for _ in 0..40 {
            splitter.push(&vec![7; 1 << 20], at(1));
            assert_eq!(splitter.next(), None);
            assert!(splitter.buffer.len() <= MAX_JPEG + (1 << 20));
        }
        splitter.push(&PICTURE, at(2));
        assert_eq!(splitter.next().map(|p| p.data), Some(PICTURE.to_vec()));
        assert_eq!(splitter.take_dropped(), 1);
    }

    #[test]
    fn a_frame_is_stamped_when_its_first_byte_comes() {
        let mut splitter = Splitter::new(PixelFormat::Jpeg, None).unwrap();
        let (head, tail) = PICTURE.split_at(20);
        splitter.push(head, at(5));
        assert_eq!(splitter.next(), None);
        splitter.push(&[tail, head].concat(), at(6));
        let first = splitter.next().unwrap();
        assert_eq!((first.begun, first.size), (at(5), [320, 48]));
        assert_eq!(splitter.next(), None);
        splitter.push(tail, at(7));
        assert_eq!(splitter.next().unwrap().begun, at(6));
    }

    #[test]
    fn raw_frames_are_cut_by_their_size() {
        for (format, size, length) in
            [(PixelFormat::Rgb24, [2, 1], 6), (PixelFormat::I420, [4, 2], 12), (PixelFormat::I420, [3, 3], 17)]
        {
            let stream: Vec<u8> = (0..3 * length + 5).map(|i| i as u8).collect();
            for step in [1, 4, length, stream.len()] {
                let (frames, _) = cut(Splitter::new(format, Some(size)).unwrap(), &stream, step);
                let expected: Vec<_> = stream.chunks_exact(length).map(<[u8]>::to_vec).collect();
                assert_eq!(frames, expected, "{format:?} {size:?} in steps of {step}");
            }
        }
        assert!(Splitter::new(PixelFormat::Rgb24, None).is_err());
        assert!(Splitter::new(PixelFormat::I420, Some([u32::MAX, u32::MAX])).is_err());
    }
}
