//! A camera's last snapshot, small enough for a broker and a phone.

use image::codecs::jpeg::JpegEncoder;

use crate::actions::Picture;

/// The longer side at most, in pixels: a picture of some 40 to 80 kB, far below what brokers and we take in a packet.
const LONGEST: u32 = 640;
const QUALITY: u8 = 75;

/// `picture` upright, every n-th pixel of every n-th row, as the bytes of a JPEG file.
///
/// # Errors
/// It has no pixels, or the encoder refuses them.
pub(super) fn jpeg(picture: &Picture) -> Result<Vec<u8>, String> {
    let (frame, _) = picture.upright(None);
    let step = frame.width.max(frame.height).div_ceil(LONGEST).max(1) as usize;
    let (width, height) = (frame.width as usize / step, frame.height as usize / step);
    if width == 0 || height == 0 || frame.data.len() != frame.width as usize * frame.height as usize * 3 {
        return Err(format!("a frame of {}x{} makes no snapshot", frame.width, frame.height));
    }
    let mut small = Vec::with_capacity(width * height * 3);
    for row in frame.data.chunks_exact(frame.width as usize * 3).step_by(step).take(height) {
        row.chunks_exact(3).step_by(step).take(width).for_each(|pixel| small.extend_from_slice(pixel));
    }
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&small, width as u32, height as u32, image::ExtendedColorType::Rgb8)
        .map_err(|error| format!("a frame of {width}x{height} makes no JPEG: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Rgb;
    use crate::capture::decode::decode_bytes;
    use crate::config::plan::{Orientation, Rotation};

    #[test]
    fn a_snapshot_is_upright_small_and_readable() {
        for (size, rotate, expected) in [
            ([1280, 720], Rotation::None, [640, 360]),
            ([1280, 720], Rotation::Quarter, [360, 640]),
            ([64, 48], Rotation::None, [64, 48]),
        ] {
            let [width, height] = size;
            let rgb = Rgb { width, height, data: vec![99; (width * height * 3) as usize] };
            let picture = Picture { rgb, orientation: Orientation { rotate, flip: None }, regions: vec![] };
            let bytes = jpeg(&picture).unwrap();
            let read = decode_bytes(&bytes).unwrap();
            assert_eq!([read.width, read.height], expected, "{size:?} {rotate:?}");
            assert!(bytes.len() < 64 << 10);
        }
        let nothing = Picture { rgb: Rgb::default(), orientation: Orientation::default(), regions: vec![] };
        assert!(jpeg(&nothing).unwrap_err().contains("no snapshot"));
    }
}
