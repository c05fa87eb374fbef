//! Raw formats to RGB.
//!
//! Cameras deliver BT.601 in limited range (16..=235) unless they say otherwise (UVC 1.5, 3.9.2.6, and V4L2's default for
//! SMPTE 170M). In 8.8 fixed point: R = 1.164 (Y-16) + 1.596 (V-128), G = … - 0.813 (V-128) - 0.391 (U-128),
//! B = … + 2.018 (U-128).

use super::DecodeError;
use crate::capture::{Frame, PixelFormat};

/// No camera pads a row to more: sums of plane sizes cannot overflow below it.
const MAX_STRIDE: usize = 1 << 24;

/// One row of the picture, as the planes that it is made of.
pub(super) fn row(frame: &Frame, planes: &Planes<'_>, y: usize, out: &mut [u8]) {
    let width = frame.width as usize;
    let luma = &planes.first[y * frame.stride..];
    match frame.format {
        PixelFormat::Yuyv => packed(luma, [0, 1, 2, 3], out),
        PixelFormat::Uyvy => packed(luma, [1, 0, 3, 2], out),
        PixelFormat::Nv12 => {
            let chroma = &planes.second[y / 2 * planes.chroma_stride..];
            for (x, rgb) in out.chunks_exact_mut(3).enumerate() {
                rgb.copy_from_slice(&to_rgb(luma[x], chroma[x / 2 * 2], chroma[x / 2 * 2 + 1]));
            }
        }
        PixelFormat::I420 => {
            let (u, v) =
                (&planes.second[y / 2 * planes.chroma_stride..], &planes.third[y / 2 * planes.chroma_stride..]);
            for (x, rgb) in out.chunks_exact_mut(3).enumerate() {
                rgb.copy_from_slice(&to_rgb(luma[x], u[x / 2], v[x / 2]));
            }
        }
        PixelFormat::Bgr24 => {
            for (rgb, bgr) in std::iter::zip(out.chunks_exact_mut(3), luma.chunks_exact(3)) {
                rgb.copy_from_slice(&[bgr[2], bgr[1], bgr[0]]);
            }
        }
        PixelFormat::Grey => {
            for (rgb, &grey) in std::iter::zip(out.chunks_exact_mut(3), luma) {
                rgb.fill(grey);
            }
        }
        PixelFormat::Rgb24 | PixelFormat::Jpeg => out.copy_from_slice(&luma[..width * 3]),
    }
}

/// 4:2:2 in four bytes a pair of pixels; `order` gives the places of Y0, U, Y1, V.
fn packed(row: &[u8], order: [usize; 4], out: &mut [u8]) {
    let pair = |bytes: &[u8]| order.map(|i| bytes[i]);
    for (rgb, bytes) in std::iter::zip(out.chunks_mut(6), row.chunks_exact(4)) {
        let [y0, u, y1, v] = pair(bytes);
        rgb[..3].copy_from_slice(&to_rgb(y0, u, v));
        if let Some(second) = rgb.get_mut(3..6) {
            second.copy_from_slice(&to_rgb(y1, u, v));
        }
    }
}

fn to_rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let y = 298 * (i32::from(y) - 16) + 128;
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    [y + 409 * v, y - 208 * v - 100 * u, y + 516 * u].map(|value| (value >> 8).clamp(0, 255) as u8)
}

/// The planes of a raw frame.
pub(super) struct Planes<'a> {
    first: &'a [u8],
    second: &'a [u8],
    third: &'a [u8],
    chroma_stride: usize,
}

impl<'a> Planes<'a> {
    /// Cuts the frame's bytes into planes; every row that [`row`] reads is then inside of them.
    pub(super) fn of(frame: &'a Frame) -> Result<Self, DecodeError> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let least = least_stride(frame.format, width);
        if frame.stride < least || frame.stride > MAX_STRIDE {
            return Err(DecodeError::Stride { stride: frame.stride, least, width: frame.width });
        }
        let (chroma_stride, chroma_planes) = match frame.format {
            PixelFormat::Nv12 => (frame.stride.next_multiple_of(2), 1),
            PixelFormat::I420 => (frame.stride.div_ceil(2), 2),
            _ => (0, 0),
        };
        let too_large = DecodeError::TooLarge { width: frame.width, height: frame.height };
        let first = frame.stride.checked_mul(height).ok_or(too_large)?;
        let chroma = chroma_stride * height.div_ceil(2);
        // The last row may end with its last pixel.
        let last = |stride: usize, used: usize| stride - used.min(stride);
        let slack = if chroma_planes == 0 { last(frame.stride, least) } else { 0 };
        let needed = first + chroma_planes * chroma - slack;
        if frame.data.len() < needed {
            return Err(DecodeError::Short { got: frame.data.len(), needed });
        }
        let (first, rest) = frame.data.split_at(first.min(frame.data.len()));
        let (second, third) = rest.split_at(chroma.min(rest.len()));
        Ok(Self { first, second, third, chroma_stride })
    }
}

/// The bytes of a row's pixels in the first plane.
pub fn least_stride(format: PixelFormat, width: usize) -> usize {
    match format {
        PixelFormat::Yuyv | PixelFormat::Uyvy => width.div_ceil(2) * 4,
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Grey => width,
        PixelFormat::Rgb24 | PixelFormat::Bgr24 => width * 3,
        PixelFormat::Jpeg => 0,
    }
}

/// The bytes of a whole frame with rows of `stride` bytes.
pub fn frame_bytes(format: PixelFormat, stride: usize, height: usize) -> usize {
    match format {
        PixelFormat::Nv12 => stride * height + stride.next_multiple_of(2) * height.div_ceil(2),
        PixelFormat::I420 => stride * height + 2 * stride.div_ceil(2) * height.div_ceil(2),
        _ => stride * height,
    }
}
