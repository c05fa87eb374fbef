//! From a frame's bytes to RGB: raw formats and JPEG. Hostile sizes and short data are errors, never panics.

mod huffman;
#[cfg(test)]
mod tests;
mod yuv;

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::jpeg::{Scanner, Walk};
use super::{Frame, PixelFormat, Rgb};
use crate::panics;

pub use yuv::{least_stride, needed_bytes};

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
    /// A JPEG without its end: a decoder would fill the rest with grey.
    #[error("the JPEG of {got} bytes breaks off before its end")]
    Truncated {
        /// What came.
        got: usize,
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
        return decode_jpeg(&frame.data, out);
    }
    let planes = yuv::Planes::of(frame)?;
    (out.width, out.height) = (frame.width, frame.height);
    let row_bytes = frame.width as usize * 3;
    out.data.resize(row_bytes * frame.height as usize, 0);
    for (y, row) in out.data.chunks_exact_mut(row_bytes).enumerate() {
        yuv::row(frame, &planes, y, row);
    }
    Ok(())
}

/// Reads a JPEG or PNG file, at most 64 MiB and 100 million pixels. EXIF's orientation is not applied, see [`decode`].
///
/// # Errors
/// [`DecodeError::File`] with the path and what is wrong.
pub fn decode_file(path: &Path) -> Result<Rgb, DecodeError> {
    decode_bytes(&read_limited(path)?)
        .map_err(|problem| DecodeError::File { path: path.to_owned(), problem: problem.to_string() })
}

/// Decodes the bytes of a JPEG or PNG file, whichever they are.
///
/// # Errors
/// [`DecodeError`]
pub fn decode_bytes(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let mut rgb = Rgb::default();
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => decode_jpeg(bytes, &mut rgb)?,
        Ok(ImageFormat::Png) => decode_png(bytes, &mut rgb)?,
        _ => return Err(DecodeError::Broken("it is neither JPEG nor PNG".to_owned())),
    }
    Ok(rgb)
}

/// Checks what can be checked of a JPEG without decoding it, that it is whole and of an accepted size, and gives its width
/// and height.
///
/// # Errors
/// [`DecodeError::Truncated`], [`DecodeError::TooLarge`], [`DecodeError::Broken`]
pub fn check_jpeg(bytes: &[u8]) -> Result<[u32; 2], DecodeError> {
    scan_jpeg(bytes).map(|(scanner, _)| scanner.size.unwrap_or_default())
}

/// The bytes of a photo, [`MAX_FILE`] at most.
///
/// # Errors
/// [`DecodeError::File`]
pub fn read_limited(path: &Path) -> Result<Vec<u8>, DecodeError> {
    let problem = |problem: String| DecodeError::File { path: path.to_owned(), problem };
    // Looked at before it is opened: opening a pipe waits for its other end.
    if !std::fs::metadata(path).map_err(|e| problem(e.to_string()))?.is_file() {
        return Err(problem("it is no file".into()));
    }
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

/// The markers of a JPEG from its start to its end, and the position after it: some cameras add zeroes up to a fixed size.
fn scan_jpeg(bytes: &[u8]) -> Result<(Scanner, usize), DecodeError> {
    let mut scanner = Scanner::default();
    let length = match scanner.walk(bytes) {
        Walk::End(length) => length,
        Walk::More => return Err(DecodeError::Truncated { got: bytes.len() }),
        Walk::Broken(at) => return Err(DecodeError::Broken(format!("the JPEG is broken at byte {at}"))),
    };
    let (Some([width, height]), Some(_)) = (scanner.size, scanner.scan) else {
        return Err(DecodeError::Broken("the JPEG has no picture in it".to_owned()));
    };
    check_size(width, height)?;
    Ok((scanner, length))
}

/// The stream that the decoder is given: with Huffman tables, and such that it notices when data is missing.
///
/// At an end marker zune-jpeg takes zeroes for the data that did not come, even in its strict mode; at the end of the
/// bytes it does not. So a picture in one scan goes to it without the marker, followed by as many zeroes as the decoder
/// may read ahead (8 bytes) without having missed anything.
fn prepared(scanner: &Scanner, picture: &[u8]) -> Vec<u8> {
    let mut stream = match scanner.scan {
        Some(scan) if !scanner.tables => huffman::with_tables_at(scan, picture),
        _ => picture.to_vec(),
    };
    if scanner.sequential && scanner.scans == 1 {
        stream.truncate(stream.len() - 2);
        stream.extend_from_slice(&[0; 16]);
    }
    stream
}

fn decode_jpeg(bytes: &[u8], out: &mut Rgb) -> Result<(), DecodeError> {
    let (scanner, length) = scan_jpeg(bytes)?;
    let [width, height] = scanner.size.unwrap_or_default();
    let stream = prepared(&scanner, &bytes[..length]);
    (out.width, out.height) = (width, height);
    out.data.resize(width as usize * height as usize * 3, 0);
    contained(|| {
        let broken = |error: zune_jpeg::errors::DecodeErrors| DecodeError::Broken(error.to_string());
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream), tolerant());
        decoder.decode_headers().map_err(broken)?;
        if decoder.output_buffer_size() != Some(out.data.len()) {
            return Err(DecodeError::Broken("the JPEG has two headers of different sizes".to_owned()));
        }
        // Cameras take liberties in the header. A fault in the data would be painted over with grey, which is no frame.
        decoder.set_options(decoder.options().set_strict_mode(true));
        decoder.decode_into(&mut out.data).map_err(broken)
    })
}

/// RGB out, any width and height: the number of pixels has been checked.
fn tolerant() -> DecoderOptions {
    DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX)
}

fn decode_png(bytes: &[u8], out: &mut Rgb) -> Result<(), DecodeError> {
    contained(|| {
        let broken = |error: image::ImageError| DecodeError::Broken(error.to_string());
        let mut decoder =
            ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png).into_decoder().map_err(broken)?;
        let (width, height) = decoder.dimensions();
        check_size(width, height)?;
        decoder.set_limits(image::Limits::default()).map_err(broken)?;
        let image = DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgb8();
        *out = Rgb { width, height, data: image.into_raw() };
        Ok(())
    })
}

/// A panic in a decoder costs the picture and no more.
fn contained(work: impl FnOnce() -> Result<(), DecodeError>) -> Result<(), DecodeError> {
    panics::contain(work).unwrap_or_else(|panic| Err(DecodeError::Broken(panic)))
}
