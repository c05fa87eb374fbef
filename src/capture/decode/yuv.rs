//! Raw formats to RGB.
//!
//! Cameras deliver BT.601 in limited range (Y' 16..=235, chroma 16..=240) unless they say otherwise: it is the default of
//! the UVC specification (Color Matching Descriptor, matrix "SMPTE 170M") and of V4L2 for such a camera. With
//! `y = (Y - 16) * 255 / 219`, `u = U - 128`, `v = V - 128` (ITU-R BT.601-7, section 2.5, for 8 bits):
//!
//! ```text
//! R = y                + 1.596027 v
//! G = y - 0.391762 u   - 0.812968 v
//! B = y + 2.017232 u
//! ```
//!
//! The arithmetic is in 16-bit integers with five fraction bits, so that the compiler finds SIMD instructions for it on
//! every CPU (`pmulhw`, `smull`); the result is within 0.6 levels of the formula. A pixel takes the chroma sample that
//! covers it; chroma is not interpolated.

use super::DecodeError;
use crate::capture::{Frame, PixelFormat};

/// Pixels that are converted at once: the arrays of a block fit the registers and the first-level cache.
const BLOCK: usize = 32;
/// No camera pads a row to more: sums of plane sizes cannot overflow below it.
const MAX_STRIDE: usize = 1 << 24;

/// Row `y` of the picture, into `width * 3` bytes.
pub(super) fn row(frame: &Frame, planes: &Planes<'_>, y: usize, out: &mut [u8]) {
    let luma = &planes.first[y * frame.stride..];
    let chroma = |plane: &'_ [u8]| y / 2 * planes.chroma_stride..plane.len();
    match frame.format {
        PixelFormat::Yuyv => blocks(out, |x, block| packed(&luma[x * 2..], [0, 1, 2, 3], block)),
        PixelFormat::Uyvy => blocks(out, |x, block| packed(&luma[x * 2..], [1, 0, 3, 2], block)),
        PixelFormat::Nv12 => {
            let uv = &planes.second[chroma(planes.second)];
            blocks(out, |x, block| {
                block.luma(&luma[x..]);
                for (i, pair) in uv[x..].chunks_exact(2).take(BLOCK / 2).enumerate() {
                    (block.u[i], block.v[i]) = (pair[0], pair[1]);
                }
            });
        }
        PixelFormat::I420 => {
            let (u, v) = (&planes.second[chroma(planes.second)], &planes.third[chroma(planes.third)]);
            blocks(out, |x, block| {
                block.luma(&luma[x..]);
                copy_prefix(&mut block.u, &u[x / 2..]);
                copy_prefix(&mut block.v, &v[x / 2..]);
            });
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
        PixelFormat::Rgb24 | PixelFormat::Jpeg => out.copy_from_slice(&luma[..out.len()]),
    }
}

/// Samples of [`BLOCK`] pixels of a row; what lies past the row's end is of no account.
struct Block {
    y: [u8; BLOCK],
    u: [u8; BLOCK / 2],
    v: [u8; BLOCK / 2],
}

impl Block {
    fn luma(&mut self, row: &[u8]) {
        copy_prefix(&mut self.y, row);
    }

    /// The block's pixels in RGB.
    #[inline(always)]
    fn to_rgb(&self) -> [u8; BLOCK * 3] {
        let (mut red, mut green, mut blue) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
        for i in 0..BLOCK / 2 {
            let (u, v) = ((i16::from(self.u[i]) - 128) << 7, (i16::from(self.v[i]) - 128) << 7);
            red[2 * i] = high(v, 26149);
            green[2 * i] = -high(u, 6419) - high(v, 13320);
            // 2.017 is halved to fit 16 bits.
            blue[2 * i] = 2 * high(u, 16525);
            (red[2 * i + 1], green[2 * i + 1], blue[2 * i + 1]) = (red[2 * i], green[2 * i], blue[2 * i]);
        }
        let mut bytes = [[0; BLOCK]; 3];
        for i in 0..BLOCK {
            let luma = high((i16::from(self.y[i]) - 16) << 7, 19077) + 16;
            bytes[0][i] = ((luma + red[i]) >> 5).clamp(0, 255) as u8;
            bytes[1][i] = ((luma + green[i]) >> 5).clamp(0, 255) as u8;
            bytes[2][i] = ((luma + blue[i]) >> 5).clamp(0, 255) as u8;
        }
        let mut rgb = [0; BLOCK * 3];
        for i in 0..BLOCK {
            (rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]) = (bytes[0][i], bytes[1][i], bytes[2][i]);
        }
        rgb
    }
}

/// The upper half of a product: `x * 128 * (c * 512) / 65536 = c * x` in units of 1/32 has `factor = c * 16384`.
#[inline(always)]
fn high(value: i16, factor: i16) -> i16 {
    ((i32::from(value) * i32::from(factor)) >> 16) as i16
}

/// Converts a row block by block; `load` fills the block that starts at pixel `x`.
#[inline(always)]
fn blocks(out: &mut [u8], load: impl Fn(usize, &mut Block)) {
    let mut block = Block { y: [0; BLOCK], u: [0; BLOCK / 2], v: [0; BLOCK / 2] };
    for (i, rgb) in out.chunks_mut(BLOCK * 3).enumerate() {
        load(i * BLOCK, &mut block);
        let bytes = block.to_rgb();
        rgb.copy_from_slice(&bytes[..rgb.len()]);
    }
}

/// 4:2:2 in four bytes a pair of pixels; `order` gives the places of Y0, U, Y1, V.
#[inline(always)]
fn packed(row: &[u8], order: [usize; 4], block: &mut Block) {
    for (i, bytes) in row.chunks_exact(4).take(BLOCK / 2).enumerate() {
        let [y0, u, y1, v] = order.map(|place| bytes[place]);
        (block.y[2 * i], block.u[i], block.y[2 * i + 1], block.v[i]) = (y0, u, y1, v);
    }
}

#[inline(always)]
fn copy_prefix(to: &mut [u8], from: &[u8]) {
    let length = to.len().min(from.len());
    to[..length].copy_from_slice(&from[..length]);
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
        let needed = needed_bytes(frame.format, frame.width, frame.height, frame.stride)?;
        if frame.data.len() < needed {
            return Err(DecodeError::Short { got: frame.data.len(), needed });
        }
        let (chroma_stride, _) = chroma(frame.format, frame.stride);
        let cut = |bytes: &'a [u8], stride: usize, rows: u32| bytes.split_at((stride * rows as usize).min(bytes.len()));
        let (first, rest) = cut(&frame.data, frame.stride, frame.height);
        let (second, third) = cut(rest, chroma_stride, frame.height.div_ceil(2));
        Ok(Self { first, second, third, chroma_stride })
    }
}

/// Bytes from row to row of a chroma plane, and the number of such planes.
fn chroma(format: PixelFormat, stride: usize) -> (usize, usize) {
    match format {
        PixelFormat::Nv12 => (stride.next_multiple_of(2), 1),
        PixelFormat::I420 => (stride.div_ceil(2), 2),
        _ => (0, 0),
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

/// The bytes from the first to the last pixel of a raw frame with rows of `stride` bytes: the last row may end there.
///
/// # Errors
/// [`DecodeError::TooLarge`], [`DecodeError::Stride`]
pub fn needed_bytes(format: PixelFormat, width: u32, height: u32, stride: usize) -> Result<usize, DecodeError> {
    super::check_size(width, height)?;
    let least = least_stride(format, width as usize);
    if stride < least || stride > MAX_STRIDE {
        return Err(DecodeError::Stride { stride, least, width });
    }
    let height = height as usize;
    // At most 100 million rows of 16 MiB, four times: far from the end of 64 bits, and checked for the sake of 32.
    let rows =
        |stride: usize, rows: usize| stride.checked_mul(rows).ok_or(DecodeError::Stride { stride, least, width });
    let (chroma_stride, chroma_planes) = chroma(format, stride);
    let (last_stride, last_used) = match format {
        PixelFormat::Nv12 => (chroma_stride, least.next_multiple_of(2)),
        PixelFormat::I420 => (chroma_stride, least.div_ceil(2)),
        _ => (stride, least),
    };
    let whole = rows(stride, height)?.checked_add(rows(chroma_stride, chroma_planes * height.div_ceil(2))?);
    let whole = whole.ok_or(DecodeError::Stride { stride, least, width })?;
    Ok(whole - (last_stride - last_used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_is_within_a_level_of_the_formula_for_every_colour() {
        for y in 0..=255u8 {
            for (u, v) in (0..=255u8).step_by(5).flat_map(|u| (0..=255u8).step_by(5).map(move |v| (u, v))) {
                let block = Block { y: [y; BLOCK], u: [u; BLOCK / 2], v: [v; BLOCK / 2] };
                let got = block.to_rgb();
                let (luma, b, r) = ((f64::from(y) - 16.0) * 255.0 / 219.0, f64::from(u) - 128.0, f64::from(v) - 128.0);
                let wanted = [luma + 1.596027 * r, luma - 0.391762 * b - 0.812968 * r, luma + 2.017232 * b];
                for (got, wanted) in std::iter::zip(got, wanted) {
                    let wrong = (f64::from(got) - wanted.clamp(0.0, 255.0)).abs();
                    assert!(wrong <= 0.6, "Y {y} U {u} V {v}: {got} for {wanted:.2}");
                }
            }
        }
    }

    #[test]
    fn needed_bytes_end_at_the_last_pixel() {
        for (format, width, height, stride, expected) in [
            (PixelFormat::Yuyv, 4, 3, 10, 28),
            (PixelFormat::Yuyv, 3, 1, 8, 8),
            (PixelFormat::Rgb24, 2, 2, 8, 14),
            (PixelFormat::Grey, 5, 2, 8, 13),
            (PixelFormat::Nv12, 4, 4, 6, 34),
            (PixelFormat::Nv12, 3, 3, 3, 17),
            (PixelFormat::I420, 4, 4, 8, 46),
            (PixelFormat::I420, 3, 3, 3, 17),
        ] {
            let needed = needed_bytes(format, width, height, stride).unwrap();
            assert_eq!(needed, expected, "{format:?} {width}x{height}, rows of {stride}");
        }
    }
}
