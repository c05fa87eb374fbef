//! Where things lie: regions in a frame, the oriented frame in the captured one, the picture in the model's square.

use std::ops::Range;

use super::{InputSpec, PreprocessError, Resize};
use crate::capture::Rgb;
use crate::config::plan::{Area, Fit, Flip, Orientation, Rotation};

/// A rectangle of whole pixels, within its picture and never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The pixels of `area` (the whole frame when absent) in a frame of `width` by `height` pixels, oriented already.
///
/// Fractions are rounded at each edge, so that regions which touch in the configuration touch in the frame.
///
/// # Errors
/// The area reaches outside of the frame, or holds no pixel.
pub fn area_in_frame(area: Option<&Area>, width: u32, height: u32) -> Result<Rect, PreprocessError> {
    let rect = match area {
        None => Some(Rect { left: 0, top: 0, width, height }),
        Some(&Area::Pixels([left, top, w, h])) => {
            let inside =
                |start: u32, length: u32, frame: u32| start.checked_add(length).is_some_and(|end| end <= frame);
            (inside(left, w, width) && inside(top, h, height)).then_some(Rect { left, top, width: w, height: h })
        }
        Some(&Area::Fractions([left, top, w, h])) => {
            let (x, y) = (fraction(left, w, width), fraction(top, h, height));
            x.zip(y).map(|(x, y)| Rect { left: x.start, top: y.start, width: x.end - x.start, height: y.end - y.start })
        }
    };
    let outside = |area: &Area| PreprocessError::Outside { area: describe(area), width, height };
    match (rect, area) {
        (Some(rect), _) if rect.width > 0 && rect.height > 0 => Ok(rect),
        (Some(_), Some(area)) => Err(PreprocessError::EmptyArea { area: describe(area), width, height }),
        (None, Some(area)) => Err(outside(area)),
        (_, None) => Err(PreprocessError::EmptyFrame { width, height, bytes: 0 }),
    }
}

/// The pixels from `start` over `length` of a side of `side` pixels; `None` if that is outside of it.
fn fraction(start: f64, length: f64, side: u32) -> Option<Range<u32>> {
    // 0.7 + 0.3 may come out a little above 1.
    let inside = start >= 0.0 && length >= 0.0 && start + length <= 1.0 + 1e-9;
    let pixel = |at: f64| ((at * f64::from(side)).round() as u32).min(side);
    inside.then(|| pixel(start)..pixel(start + length))
}

fn describe(area: &Area) -> String {
    match area {
        Area::Fractions(f) => format!("{f:?} (fractions)"),
        Area::Pixels(p) => format!("{p:?} (pixels)"),
    }
}

/// The size of a frame after [`Orientation`].
pub fn oriented_size(orientation: Orientation, width: u32, height: u32) -> (u32, u32) {
    match orientation.rotate {
        Rotation::None | Rotation::Half => (width, height),
        Rotation::Quarter | Rotation::ThreeQuarters => (height, width),
    }
}

/// The whole frame, turned and mirrored: for people to look at. The model's input is made without this copy.
pub fn oriented(rgb: &Rgb, orientation: Orientation) -> Rgb {
    let (width, height) = oriented_size(orientation, rgb.width, rgb.height);
    let walk = Walk::new(orientation, Rect { left: 0, top: 0, width, height }, rgb.width, rgb.height);
    let pixel = |(x, y): (u32, u32)| {
        let at = (walk.origin + x as isize * walk.right + y as isize * walk.down) as usize * 3;
        [rgb.data[at], rgb.data[at + 1], rgb.data[at + 2]]
    };
    let data = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(pixel).collect();
    Rgb { width, height, data }
}

/// How to walk a region of the oriented frame over the captured frame's pixels: `origin + x * right + y * down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// The pixel of the region's left top corner.
    pub(super) origin: isize,
    /// Pixels from one column of the region to the next.
    pub(super) right: isize,
    /// Pixels from one row of the region to the next.
    pub(super) down: isize,
}

impl Walk {
    /// For `rect` in the oriented frame; `width` and `height` are of the captured one.
    pub(super) fn new(orientation: Orientation, rect: Rect, width: u32, height: u32) -> Self {
        let (w, h) = (width as isize, height as isize);
        let (mut origin, mut right, mut down) = match orientation.rotate {
            Rotation::None => (0, 1, w),
            Rotation::Quarter => ((h - 1) * w, -w, 1),
            Rotation::Half => (h * w - 1, -1, -w),
            Rotation::ThreeQuarters => (w - 1, w, -1),
        };
        let (oriented_width, oriented_height) = oriented_size(orientation, width, height);
        match orientation.flip {
            None => {}
            Some(Flip::Horizontal) => {
                origin += right * (oriented_width as isize - 1);
                right = -right;
            }
            Some(Flip::Vertical) => {
                origin += down * (oriented_height as isize - 1);
                down = -down;
            }
        }
        Self { origin: origin + rect.left as isize * right + rect.top as isize * down, right, down }
    }
}

/// One axis of a fit: the region's side becomes `resized` pixels, of which `window` is seen, from input pixel `at` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AxisFit {
    pub(super) resized: u32,
    pub(super) window: Range<u32>,
    pub(super) at: u32,
}

impl AxisFit {
    /// `resized` pixels in the middle of `side` pixels: what is too much is cut, what is missing is left to the bars.
    fn centred(resized: u32, side: u32) -> Self {
        let seen = resized.min(side);
        let start = half_to_even(resized - seen);
        Self { resized, window: start..start + seen, at: (side - seen) / 2 }
    }
}

/// `round(n / 2)` as Python rounds: a half goes to the even neighbour.
fn half_to_even(n: u32) -> u32 {
    n / 2 + u32::from(n % 4 == 3)
}

/// The horizontal and the vertical fit of a region of `width` by `height` pixels into the model's input.
pub(super) fn fit(input: &InputSpec, fit: Fit, width: u32, height: u32) -> (AxisFit, AxisFit) {
    let (w, h) = (input.width as u32, input.height as u32);
    let (resized_width, resized_height) = match (fit, input.preprocess.resize) {
        (Fit::Crop, Resize::ShorterSide(side)) => {
            if width <= height {
                (side, scaled(side, height, width))
            } else {
                (scaled(side, width, height), side)
            }
        }
        (Fit::Crop, Resize::Stretch) | (Fit::Stretch, _) => (w, h),
        (Fit::Pad, _) => {
            // The longer side fills the input: compare width / height with w / h.
            if u64::from(width) * u64::from(h) >= u64::from(height) * u64::from(w) {
                (w, rounded(w, height, width).min(h))
            } else {
                (rounded(h, width, height).min(w), h)
            }
        }
    };
    (AxisFit::centred(resized_width, w), AxisFit::centred(resized_height, h))
}

/// `trunc(side * long / short)`.
fn scaled(side: u32, long: u32, short: u32) -> u32 {
    u32::try_from(u64::from(side) * u64::from(long) / u64::from(short)).unwrap_or(u32::MAX)
}

/// `round(side * part / whole)`, at least 1.
fn rounded(side: u32, part: u32, whole: u32) -> u32 {
    let whole = u64::from(whole);
    let value = (2 * u64::from(side) * u64::from(part) + whole) / (2 * whole);
    u32::try_from(value).unwrap_or(u32::MAX).max(1)
}
