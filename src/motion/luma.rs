//! A frame's brightness in blocks, read from the driver's bytes where they have it, so that a frame that is not classified is
//! not decoded either.

use crate::capture::decode::needed_bytes;
use crate::capture::{Frame, PixelFormat, Rgb};

/// A block's side in pixels. The mean of 256 pixels has a sixteenth of their noise; a thing that changes no block is smaller than
/// what a classifier can recognise in a frame.
pub const BLOCK: usize = 16;
/// Every so many rows are read: the mean of the others is noise of the same size, at twice the time.
const ROW_STEP: usize = 2;
/// Parts of a level in a mean.
pub const UNITS: u16 = 16;

/// Where the brightness lies in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// A byte a pixel.
    Plane,
    /// Every second byte, from the first or the second.
    Packed { odd: bool },
    /// Three bytes a pixel; their mean stands for the brightness.
    Triple,
}

/// The brightness of a picture, borrowed from a frame or from decoded RGB.
#[derive(Clone, Copy, Debug)]
pub struct Luma<'a> {
    bytes: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
    layout: Layout,
}

impl<'a> Luma<'a> {
    /// Of a raw frame; `None` for a JPEG, and for a frame that is shorter than its format says.
    pub fn of_frame(frame: &'a Frame) -> Option<Self> {
        let layout = match frame.format {
            PixelFormat::Jpeg => return None,
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Grey => Layout::Plane,
            PixelFormat::Yuyv => Layout::Packed { odd: false },
            PixelFormat::Uyvy => Layout::Packed { odd: true },
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => Layout::Triple,
        };
        let needed = needed_bytes(frame.format, frame.width, frame.height, frame.stride).ok()?;
        let whole = frame.data.len() >= needed;
        let (width, height) = (frame.width as usize, frame.height as usize);
        whole.then_some(Self { bytes: &frame.data, stride: frame.stride, width, height, layout })
    }

    /// Of a decoded picture.
    pub fn of_rgb(rgb: &'a Rgb) -> Self {
        let (width, height) = (rgb.width as usize, rgb.height as usize);
        Self { bytes: &rgb.data, stride: width * 3, width, height, layout: Layout::Triple }
    }

    /// Width and height in pixels, as captured.
    pub fn size(&self) -> [u32; 2] {
        [self.width as u32, self.height as u32]
    }

    /// The mean of each whole block, row after row of [`columns`] blocks, in sixteenths of a level (0 to 4080). What is left at
    /// the right and the bottom is less than a block and is not looked at.
    pub fn block_means(&self, out: &mut Vec<u16>) {
        let (columns, rows) = (columns(self.width), columns(self.height));
        out.clear();
        let mut sums = vec![0u32; columns];
        for row in 0..rows {
            sums.fill(0);
            for y in (row * BLOCK..(row + 1) * BLOCK).step_by(ROW_STEP) {
                self.add_row(&self.bytes[y * self.stride..], &mut sums);
            }
            let samples = (BLOCK * BLOCK / ROW_STEP) as u32 * if self.layout == Layout::Triple { 3 } else { 1 };
            out.extend(sums.iter().map(|sum| (sum * u32::from(UNITS) / samples) as u16));
        }
    }

    /// Adds each block's part of a row to its sum. Fixed lengths, for the compiler's sums of absolute differences.
    fn add_row(&self, row: &[u8], sums: &mut [u32]) {
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        match self.layout {
            Layout::Plane => {
                std::iter::zip(sums, row.as_chunks::<BLOCK>().0).for_each(|(total, block)| *total += sum(block));
            }
            Layout::Triple => {
                std::iter::zip(sums, row.as_chunks::<{ BLOCK * 3 }>().0)
                    .for_each(|(total, block)| *total += sum(block));
            }
            Layout::Packed { odd } => {
                let shift = if odd { 8 } else { 0 };
                for (total, block) in std::iter::zip(sums, row.as_chunks::<{ BLOCK * 2 }>().0) {
                    let pairs = block.as_chunks::<2>().0.iter();
                    *total += u32::from(pairs.map(|&pair| u16::from_le_bytes(pair) >> shift & 0xff).sum::<u16>());
                }
            }
        }
    }
}

/// Whole blocks on a side of so many pixels.
pub fn columns(side: usize) -> usize {
    side / BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::decode::{decode, least_stride};
    use crate::clock::Monotonic;

    fn frame(format: PixelFormat, data: Vec<u8>, width: u32, height: u32) -> Frame {
        let stride = least_stride(format, width as usize);
        Frame { format, width, height, stride, data, captured: Monotonic::default(), sequence: 0, origin: None }
    }

    /// A noisy frame whose byte `i` is `value(i)`.
    fn filled(format: PixelFormat, width: u32, height: u32, value: impl Fn(usize) -> u8) -> Frame {
        let stride = least_stride(format, width as usize);
        let length = needed_bytes(format, width, height, stride).unwrap();
        frame(format, (0..length).map(value).collect(), width, height)
    }

    fn means(luma: &Luma<'_>) -> Vec<u16> {
        let mut out = Vec::new();
        luma.block_means(&mut out);
        out
    }

    #[test]
    fn every_format_gives_the_mean_of_its_blocks() {
        use PixelFormat::*;
        for format in [Nv12, I420, Grey, Yuyv, Uyvy, Rgb24, Bgr24] {
            let flat = filled(format, 53, 34, |_| 77);
            let luma = Luma::of_frame(&flat).unwrap();
            assert_eq!(means(&luma), [77 * 16; 3 * 2], "{format:?}: the part blocks at the edges are left out");
            // Against a sum that knows nothing of layouts: the naive mean of the rows that are read.
            let noisy = filled(format, 32, 32, |i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]);
            let byte = |x: usize, y: usize| match format {
                Yuyv => noisy.data[y * noisy.stride + 2 * x].into(),
                Uyvy => noisy.data[y * noisy.stride + 2 * x + 1].into(),
                Rgb24 | Bgr24 => (0..3).map(|c| f64::from(noisy.data[y * noisy.stride + 3 * x + c])).sum::<f64>() / 3.0,
                _ => f64::from(noisy.data[y * noisy.stride + x]),
            };
            for (index, mean) in means(&Luma::of_frame(&noisy).unwrap()).into_iter().enumerate() {
                let (left, top) = (index % 2 * 16, index / 2 * 16);
                let rows = (top..top + 16).step_by(2);
                let sum: f64 = rows.flat_map(|y| (left..left + 16).map(move |x| byte(x, y))).sum();
                assert!((f64::from(mean) - sum / 128.0 * 16.0).abs() <= 1.0, "{format:?} {index}: {mean}");
            }
        }
    }

    #[test]
    fn decoded_pictures_are_read_too_and_short_or_packed_ones_are_not() {
        let grey = filled(PixelFormat::Grey, 48, 32, |i| i as u8);
        let mut rgb = Rgb::default();
        decode(&grey, &mut rgb).unwrap();
        assert_eq!(means(&Luma::of_rgb(&rgb)), means(&Luma::of_frame(&grey).unwrap()));
        let mut short = grey.clone();
        short.data.pop();
        assert!(Luma::of_frame(&short).is_none());
        assert!(Luma::of_frame(&frame(PixelFormat::Jpeg, vec![0; 9], 48, 32)).is_none());
        let tiny = filled(PixelFormat::Grey, 15, 200, |_| 1);
        assert!(means(&Luma::of_frame(&tiny).unwrap()).is_empty());
    }
}
