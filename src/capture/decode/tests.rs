use super::*;
use crate::clock::Monotonic;

fn frame(format: PixelFormat, width: u32, height: u32, stride: usize, data: Vec<u8>) -> Frame {
    Frame { format, width, height, stride, data, captured: Monotonic::default(), sequence: 0, origin: None }
}

/// BT.601, limited range, in floating point.
fn reference(y: u8, u: u8, v: u8) -> [f64; 3] {
    let (y, u, v) = (1.164 * (f64::from(y) - 16.0), f64::from(u) - 128.0, f64::from(v) - 128.0);
    [y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u].map(|x| x.clamp(0.0, 255.0))
}

/// Y, U and V of pixel `(x, y)`: chroma is the same within 2x2.
fn sample(x: usize, y: usize) -> [u8; 3] {
    [(x * 37 + y * 11 + 16) as u8, (x / 2 * 53 + y / 2 * 7) as u8, (x / 2 * 19 + y / 2 * 71) as u8]
}

/// The sample picture in `format`, rows of `stride` bytes.
fn build(format: PixelFormat, width: usize, height: usize, stride: usize) -> Vec<u8> {
    let mut data = vec![0xAA; frame_bytes(format, stride, height)];
    let (even, half) = (stride.next_multiple_of(2), stride.div_ceil(2));
    let luma = stride * height;
    let v_plane = luma + half * height.div_ceil(2);
    for y in 0..height {
        for x in 0..width.next_multiple_of(2) {
            let ([l, u, v], inside) = (sample(x, y), x < width);
            let row = y * stride;
            match format {
                PixelFormat::Yuyv | PixelFormat::Uyvy => {
                    let at = row + x / 2 * 4;
                    let [y_at, c_at] = if format == PixelFormat::Yuyv { [0, 1] } else { [1, 0] };
                    data[at + y_at + x % 2 * 2] = l;
                    data[at + c_at] = u;
                    data[at + c_at + 2] = v;
                }
                PixelFormat::Nv12 if inside => {
                    data[row + x] = l;
                    data[luma + y / 2 * even + x / 2 * 2..][..2].copy_from_slice(&[u, v]);
                }
                PixelFormat::I420 if inside => {
                    data[row + x] = l;
                    data[luma + y / 2 * half + x / 2] = u;
                    data[v_plane + y / 2 * half + x / 2] = v;
                }
                _ => {}
            }
        }
    }
    data
}

#[test]
fn yuv_follows_bt601_with_strides_and_odd_sizes() {
    for format in [PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::I420] {
        for (width, height, padding) in [(8, 4, 0), (7, 5, 0), (7, 5, 6), (1, 1, 1), (2, 3, 10)] {
            let stride = least_stride(format, width) + padding + (least_stride(format, width) + padding) % 2;
            let data = build(format, width, height, stride);
            let mut rgb = Rgb::default();
            // A packed last row may end with its last pixel.
            decode(&frame(format, width as u32, height as u32, stride, data), &mut rgb).unwrap();
            for y in 0..height {
                for x in 0..width {
                    // Rows of packed formats carry their own chroma; the sample's is the same for two rows.
                    let [l, u, v] = sample(x, y);
                    let [_, u2, v2] = sample(x / 2 * 2, y);
                    assert_eq!([u, v], [u2, v2]);
                    let got = &rgb.data[(y * width + x) * 3..][..3];
                    for (got, wanted) in std::iter::zip(got, reference(l, u, v)) {
                        let wrong = (f64::from(*got) - wanted).abs();
                        assert!(wrong <= 1.5, "{format:?} {width}x{height}+{padding} ({x},{y}): {got} for {wanted:.1}");
                    }
                }
            }
        }
    }
}

#[test]
fn plain_formats_keep_their_values() {
    let mut rgb = Rgb::default();
    decode(&frame(PixelFormat::Bgr24, 1, 2, 4, vec![1, 2, 3, 9, 4, 5, 6]), &mut rgb).unwrap();
    assert_eq!(rgb.data, [3, 2, 1, 6, 5, 4]);
    decode(&frame(PixelFormat::Rgb24, 1, 2, 4, vec![1, 2, 3, 9, 4, 5, 6]), &mut rgb).unwrap();
    assert_eq!(rgb.data, [1, 2, 3, 4, 5, 6]);
    decode(&frame(PixelFormat::Grey, 2, 1, 2, vec![7, 8]), &mut rgb).unwrap();
    assert_eq!(rgb.data, [7, 7, 7, 8, 8, 8]);
}

#[test]
fn hostile_sizes_and_short_data_are_errors() {
    let formats = [
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::I420,
        PixelFormat::Rgb24,
        PixelFormat::Bgr24,
        PixelFormat::Grey,
        PixelFormat::Jpeg,
    ];
    let sizes =
        [(0, 0, 0), (1, 0, 9), (u32::MAX, u32::MAX, usize::MAX), (8, 8, 64), (8, 8, 1), (9999, 9999, usize::MAX)];
    for format in formats {
        for (width, height, stride) in sizes {
            for length in [0, 1, 63] {
                let frame = frame(format, width, height, stride, vec![0x55; length]);
                assert!(decode(&frame, &mut Rgb::default()).is_err(), "{format:?} {width}x{height} {stride} {length}");
            }
        }
    }
}

/// A JPEG of a smooth picture, and the picture.
fn jpeg() -> (Vec<u8>, Rgb) {
    let picture = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, 128]));
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).unwrap();
    (bytes, Rgb { width: 64, height: 48, data: picture.into_raw() })
}

/// The stream without its DHT segments, as webcams send it. (The encoder uses Annex K's tables, so none is missed.)
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (jpeg[..2].to_vec(), 2);
    loop {
        let length = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        match jpeg[at + 1] {
            0xDA => return [&out[..], &jpeg[at..]].concat(),
            0xC4 => {}
            _ => out.extend_from_slice(&jpeg[at..at + length]),
        }
        at += length;
    }
}

#[test]
fn a_jpeg_without_huffman_tables_decodes_to_the_same_picture() {
    let (whole, picture) = jpeg();
    let bare = without_tables(&whole);
    assert!(bare.len() + 400 < whole.len());
    let (mut a, mut b) = (Rgb::default(), Rgb::default());
    decode(&frame(PixelFormat::Jpeg, 64, 48, 0, whole), &mut a).unwrap();
    decode(&frame(PixelFormat::Jpeg, 64, 48, 0, bare), &mut b).unwrap();
    assert_eq!(a, b);
    let worst = std::iter::zip(&a.data, &picture.data).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst < Some(16), "{worst:?}");
}

#[test]
fn a_corrupt_jpeg_never_panics_and_a_truncated_header_is_an_error() {
    let (whole, _) = jpeg();
    for length in 0..whole.len().min(200) {
        assert!(decode(&frame(PixelFormat::Jpeg, 64, 48, 0, whole[..length].to_vec()), &mut Rgb::default()).is_err());
    }
    for position in 0..whole.len() {
        let mut broken = whole.clone();
        broken[position] ^= 0x5A;
        // Whether it decodes is the decoder's business; that it returns is ours.
        let _ = decode(&frame(PixelFormat::Jpeg, 64, 48, 0, broken), &mut Rgb::default());
    }
}

#[test]
fn a_file_that_is_no_picture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.jpg");
    std::fs::write(&path, "not a photo").unwrap();
    let error = decode_file(&path).unwrap_err().to_string();
    assert!(error.contains("photo.jpg") && error.contains("neither JPEG nor PNG"), "{error}");
    assert!(decode_file(Path::new("/nowhere/at/all.png")).unwrap_err().to_string().contains("/nowhere/at/all.png"));
}
