//! What a source hands over: one frame as the device delivered it, and the RGB picture made from it.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Monotonic;
pub use crate::config::plan::PixelFormat;

/// One captured frame, still in the device's own format: it is decoded only if it is classified.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How `data` is to be read.
    pub format: PixelFormat,
    /// Width in pixels. For [`PixelFormat::Jpeg`] what the device promised; the JPEG header decides.
    pub width: u32,
    /// Height in pixels, like `width`.
    pub height: u32,
    /// Bytes from one row to the next in the first plane; 0 for JPEG.
    pub stride: usize,
    /// The bytes; planes follow one another.
    pub data: Vec<u8>,
    /// When the frame was captured: the driver's monotonic stamp, or when the source got it.
    pub captured: Monotonic,
    /// The source's frame number. A gap means frames lost before they reached us.
    pub sequence: u64,
    /// The file it came from, for a files source.
    pub origin: Option<Arc<Path>>,
}

/// A picture in 8-bit RGB, rows from the top, without padding: `data.len() == width * height * 3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `height * width * 3` bytes, R then G then B.
    pub data: Vec<u8>,
}
