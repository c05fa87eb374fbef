//! From a frame's bytes to RGB: raw formats and JPEG. Hostile sizes and short data are errors, never panics.

mod huffman;
#[cfg(test)]
mod tests;
mod yuv;

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{Frame, PixelFormat, Rgb};
use crate::panics;

pub use huffman::with_tables;
pub use yuv::{frame_bytes, least_stride};

/// The largest picture in pixels: 100 million, twelve times 4K.
const MAX_PIXELS: u64 = 100_000_000;
/// The largest photo file.
const MAX_FILE: u64 = 64 << 20;

/// Why a frame or a photo is not a picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the format and size need.
    #[error("the frame has {got} bytes where its format and size need {needed}")]
    Short {
        /// What came.
        got: usize,
        /// What the format and size need.
        needed: usize,
    },
    /// Rows overlap.
    #[error("rows of {stride} bytes cannot hold {width} pixels, which need {least}")]
    Stride {
        /// Bytes from row to row.
        stride: usize,
        /// What a row needs.
        least: usize,
        /// Pixels of a row.
        width: u32,
    },
    /// Over the limit, or empty.
    #[error("a picture of {width}x{height} is not accepted: at least 1x1, at most {MAX_PIXELS} pixels")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The JPEG or PNG decoder refused.
    #[error("not a picture that can be read: {0}")]
    Broken(String),
    /// The file could not be read.
    #[error("reading {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Decodes `frame` into `out`, whose buffer is reused.
///
/// The orientation that a JPEG's EXIF data may ask for is not applied: a camera's frames have none, and the models were
/// trained on photos read without it.
///
/// # Errors
/// [`DecodeError`]; `out` then holds nothing of use.
pub fn decode(frame: &Frame, out: &mut Rgb) -> Result<(), DecodeError> {
    if frame.format == PixelFormat::Jpeg {
        *out = decode_image(&with_tables(&frame.data), ImageFormat::Jpeg)?;
        return Ok(());
    }
    check_size(frame.width, frame.height)?;
    let planes = yuv::Planes::of(frame)?;
    (out.width, out.height) = (frame.width, frame.height);
    let row_bytes = frame.width as usize * 3;
    out.data.resize(row_bytes * frame.height as usize, 0);
    for (y, row) in out.data.chunks_exact_mut(row_bytes).enumerate() {
        yuv::row(frame, &planes, y, row);
    }
    Ok(())
}

/// Reads a JPEG or PNG file.
///
/// # Errors
/// [`DecodeError::File`] with the path and what is wrong.
pub fn decode_file(path: &Path) -> Result<Rgb, DecodeError> {
    let problem = |problem: String| DecodeError::File { path: path.to_owned(), problem };
    let bytes = read_limited(path)?;
    let format = image::guess_format(&bytes).map_err(|_| problem("it is neither JPEG nor PNG".into()))?;
    decode_image(&with_tables(&bytes), format).map_err(|e| problem(e.to_string()))
}

/// The bytes of a photo, [`MAX_FILE`] at most.
///
/// # Errors
/// [`DecodeError::File`]
pub fn read_limited(path: &Path) -> Result<Vec<u8>, DecodeError> {
    let problem = |problem: String| DecodeError::File { path: path.to_owned(), problem };
    let file = std::fs::File::open(path).map_err(|e| problem(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| problem(e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(problem(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(bytes)
}

fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS { Err(DecodeError::TooLarge { width, height }) } else { Ok(()) }
}

fn decode_image(bytes: &[u8], format: ImageFormat) -> Result<Rgb, DecodeError> {
    let broken = |error: image::ImageError| DecodeError::Broken(error.to_string());
    // The decoder is contained: a panic in it costs this picture and no more.
    panics::contain(|| {
        let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(broken)?;
        let (width, height) = decoder.dimensions();
        check_size(width, height)?;
        decoder.set_limits(image::Limits::default()).map_err(broken)?;
        let image = DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgb8();
        Ok(Rgb { width: image.width(), height: image.height(), data: image.into_raw() })
    })
    .unwrap_or_else(|panic| Err(DecodeError::Broken(panic)))
}
