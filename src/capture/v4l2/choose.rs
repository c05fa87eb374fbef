//! Which of a camera's formats is asked for.

use crate::config::plan::PixelFormat;

/// The four-character codes of our formats, in the order of preference among equals. Uncompressed ones first: they carry
/// no artefacts and cost a tenth of a JPEG's decoding. Grey last: the models want colour.
const FORMATS: [(PixelFormat, [u8; 4]); 9] = [
    (PixelFormat::Yuyv, *b"YUYV"),
    (PixelFormat::Uyvy, *b"UYVY"),
    (PixelFormat::Nv12, *b"NV12"),
    (PixelFormat::I420, *b"YU12"),
    (PixelFormat::Rgb24, *b"RGB3"),
    (PixelFormat::Bgr24, *b"BGR3"),
    (PixelFormat::Jpeg, *b"MJPG"),
    (PixelFormat::Jpeg, *b"JPEG"),
    (PixelFormat::Grey, *b"GREY"),
];

/// Frames a second that a format should reach where the configuration names none: slower ones add a tenth of a second and
/// more to every reaction.
const USEFUL_RATE: f64 = 15.0;

/// Our format of a four-character code.
pub(super) fn format_of(code: [u8; 4]) -> Option<PixelFormat> {
    FORMATS.into_iter().find(|(_, known)| *known == code).map(|(format, _)| format)
}

/// A four-character code as `v4l2-ctl` prints it: the topmost bit marks the big-endian variant.
pub(super) fn name_of(code: [u8; 4]) -> String {
    let [a, b, c, d] = code;
    let name: String = [a, b, c, d & 0x7f].map(char::from).into_iter().filter(|c| c.is_ascii_graphic()).collect();
    if d & 0x80 == 0 { name } else { name + "-BE" }
}

/// A format that the camera has, at its size nearest to the one wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offer {
    /// Four-character code.
    pub(super) code: [u8; 4],
    /// Width and height in pixels.
    pub(super) size: [u32; 2],
    /// The fastest rate at this size in frames a second; `None` where the driver does not say.
    pub(super) rate: Option<f64>,
}

/// The best of the offers: the one nearest to the wanted size, then the first in the order of preference that reaches the
/// wanted rate (15 a second unless configured), else the fastest. So a webcam is read uncompressed at 640x480, and as
/// JPEG at 1280x720, where USB 2 carries no more than 10 uncompressed frames a second.
pub(super) fn best(offers: &[Offer], size: [u32; 2], fps: Option<f64>) -> Option<&Offer> {
    let wanted = fps.unwrap_or(USEFUL_RATE);
    let rank = |offer: &Offer| {
        let order = FORMATS.iter().position(|(_, code)| *code == offer.code)?;
        // 29.97 is 30, and a driver that does not say is believed.
        let missing = (wanted - offer.rate.unwrap_or(wanted)).round().max(0.0) as u32;
        Some((offer.code == *b"GREY", distance(offer.size, size), missing, order))
    };
    offers.iter().filter_map(|o| Some((rank(o)?, o))).min_by_key(|(rank, _)| *rank).map(|(_, offer)| offer)
}

/// Sizes that a driver lists one by one, or as a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    /// Width and height.
    One([u32; 2]),
    /// The least, the greatest, and the step of width and height.
    Range([u32; 2], [u32; 2], [u32; 2]),
}

/// The size nearest to `wanted` that the driver has; `wanted` itself where it lists none.
pub(super) fn nearest(sizes: &[Sizes], wanted: [u32; 2]) -> [u32; 2] {
    let candidates = sizes.iter().map(|size| match *size {
        Sizes::One(size) => size,
        Sizes::Range(least, greatest, step) => {
            std::array::from_fn(|i| on_grid(wanted[i], least[i], greatest[i], step[i]))
        }
    });
    candidates.min_by_key(|size| distance(*size, wanted)).unwrap_or(wanted)
}

/// The greatest value of `least, least + step, …, greatest` that is not above `wanted`, or `least`.
fn on_grid(wanted: u32, least: u32, greatest: u32, step: u32) -> u32 {
    let within = wanted.min(greatest).max(least);
    within - (within - least) % step.max(1)
}

/// How far a size is from the wanted one: any that covers it is nearer than any that does not.
fn distance(size: [u32; 2], wanted: [u32; 2]) -> (bool, u64) {
    let area = |[width, height]: [u32; 2]| u64::from(width) * u64::from(height);
    let covers = size[0] >= wanted[0] && size[1] >= wanted[1];
    (!covers, area(size).abs_diff(area(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(code: &[u8; 4], size: [u32; 2], rate: f64) -> Offer {
        Offer { code: *code, size, rate: (rate > 0.0).then_some(rate) }
    }

    #[test]
    fn the_best_format_has_the_size_then_the_rate_then_no_compression() {
        let check = |offers: &[Offer], size, fps, expected: Option<&[u8; 4]>| {
            let got = best(offers, size, fps).map(|o| o.code);
            assert_eq!(got, expected.copied(), "{size:?} {fps:?} of {offers:?}");
        };
        let vga = [offer(b"MJPG", [640, 480], 30.0), offer(b"YUYV", [640, 480], 30.0)];
        check(&vga, [640, 480], None, Some(b"YUYV"));
        let hd = [offer(b"YUYV", [1280, 720], 10.0), offer(b"MJPG", [1280, 720], 30.0)];
        check(&hd, [1280, 720], None, Some(b"MJPG"));
        check(&hd, [1280, 720], Some(10.0), Some(b"YUYV"));
        check(
            &[offer(b"YUYV", [1280, 720], 29.97), offer(b"MJPG", [1280, 720], 60.0)],
            [1280, 720],
            Some(30.0),
            Some(b"YUYV"),
        );
        // Only JPEG has the size.
        check(
            &[offer(b"YUYV", [640, 480], 30.0), offer(b"MJPG", [1920, 1080], 30.0)],
            [1920, 1080],
            None,
            Some(b"MJPG"),
        );
        // Nothing reaches the rate: the fastest.
        check(&[offer(b"YUYV", [1280, 720], 5.0), offer(b"NV12", [1280, 720], 9.0)], [1280, 720], None, Some(b"NV12"));
        // A driver that tells no rates.
        check(&[offer(b"MJPG", [640, 480], 0.0), offer(b"UYVY", [640, 480], 0.0)], [640, 480], None, Some(b"UYVY"));
        // Grey only if there is no colour, and never what we cannot read.
        check(&[offer(b"GREY", [640, 480], 30.0), offer(b"MJPG", [320, 240], 30.0)], [640, 480], None, Some(b"MJPG"));
        check(&[offer(b"GREY", [640, 480], 30.0), offer(b"H264", [640, 480], 30.0)], [640, 480], None, Some(b"GREY"));
        check(&[offer(b"H264", [640, 480], 30.0)], [640, 480], None, None);
        check(&[], [640, 480], None, None);
    }

    #[test]
    fn the_nearest_size_covers_the_wanted_one_if_any_does() {
        let listed = [[320, 240], [640, 480], [1280, 720], [1280, 960]].map(Sizes::One);
        for (wanted, expected) in [
            ([640, 480], [640, 480]),
            ([800, 600], [1280, 720]),
            ([1280, 800], [1280, 960]),
            ([1920, 1080], [1280, 960]),
            ([1, 1], [320, 240]),
        ] {
            assert_eq!(nearest(&listed, wanted), expected, "{wanted:?}");
        }
        let range = [Sizes::Range([32, 32], [1920, 1080], [8, 2])];
        assert_eq!(nearest(&range, [641, 481]), [640, 480]);
        assert_eq!(nearest(&range, [9999, 1]), [1920, 32]);
        assert_eq!(nearest(&[Sizes::Range([2, 2], [9, 9], [0, 0])], [5, 5]), [5, 5]);
        assert_eq!(nearest(&[], [5, 5]), [5, 5]);
    }

    #[test]
    fn codes_are_printed_as_v4l2_ctl_does() {
        for (code, expected) in [(b"YUYV", "YUYV"), (b"Y10 ", "Y10"), (b"Y16\xa0", "Y16-BE"), (b"\0\n\xff\0", "")] {
            assert_eq!(name_of(*code), expected);
        }
    }

    #[test]
    fn every_format_has_a_code() {
        assert_eq!(format_of(*b"YU12"), Some(PixelFormat::I420));
        assert_eq!(format_of(*b"MJPG"), format_of(*b"JPEG"));
        assert_eq!(format_of(*b"H264"), None);
    }
}
