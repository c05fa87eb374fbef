//! A picture to draw on: smooth shapes of our own, text by `embedded-graphics`.

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Dimensions, OriginDimensions, Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::RgbColor;
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};

use crate::capture::Rgb;

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

/// A rectangle on the canvas, in pixels; what reaches outside is not drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

impl Place {
    /// Smaller by `by` pixels on every side.
    pub(super) fn inset(self, by: i32) -> Self {
        Self { x: self.x + by, y: self.y + by, width: self.width - 2 * by, height: self.height - 2 * by }
    }

    /// How much of the pixel at `x`, `y` a rectangle with corners of `radius` covers, 0 to 1.
    fn coverage(self, x: i32, y: i32, radius: f32) -> f32 {
        let (half_width, half_height) = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        let dx = ((x - self.x) as f32 + 0.5 - half_width).abs() - (half_width - radius);
        let dy = ((y - self.y) as f32 + 0.5 - half_height).abs() - (half_height - radius);
        let outside = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius;
        (0.5 - outside).clamp(0.0, 1.0)
    }
}

/// The picture being drawn.
pub(super) struct Canvas {
    pub(super) picture: Rgb,
}

impl Canvas {
    pub(super) fn new(width: i32, height: i32, colour: Colour) -> Self {
        let (width, height) = (width.max(1) as u32, height.max(1) as u32);
        Self { picture: Rgb { width, height, data: colour.repeat(width as usize * height as usize) } }
    }

    /// Mixes `colour` into a pixel; `alpha` is 0 to 1.
    fn blend(&mut self, x: i32, y: i32, colour: Colour, alpha: f32) {
        let (Ok(column), Ok(row)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if column >= self.picture.width || row >= self.picture.height {
            return;
        }
        let at = (row as usize * self.picture.width as usize + column as usize) * 3;
        for (old, new) in self.picture.data[at..at + 3].iter_mut().zip(colour) {
            *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * alpha).round() as u8;
        }
    }

    /// The pixels of `place` that are on the canvas.
    fn visible(&self, place: Place) -> impl Iterator<Item = (i32, i32)> + use<> {
        let columns = place.x.max(0)..(place.x + place.width).min(self.picture.width as i32);
        let rows = place.y.max(0)..(place.y + place.height).min(self.picture.height as i32);
        rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
    }

    /// A filled rectangle with round corners.
    pub(super) fn fill(&mut self, place: Place, radius: f32, colour: Colour) {
        for (x, y) in self.visible(place) {
            self.blend(x, y, colour, place.coverage(x, y, radius));
        }
    }

    /// A rectangle's outline, `thickness` pixels inwards, with round corners.
    pub(super) fn outline(&mut self, place: Place, radius: f32, thickness: i32, colour: Colour) {
        let inner = place.inset(thickness);
        let inner_radius = (radius - thickness as f32).max(0.0);
        for (x, y) in self.visible(place) {
            let alpha = place.coverage(x, y, radius) - inner.coverage(x, y, inner_radius);
            if alpha > 0.0 {
                self.blend(x, y, colour, alpha);
            }
        }
    }

    /// `picture` as it is, the corners within `frame` rounded: a frame that goes on below the picture leaves the lower ones.
    pub(super) fn paste(&mut self, picture: &Rgb, x: i32, y: i32, frame: Place, radius: f32) {
        let place = Place { x, y, width: picture.width as i32, height: picture.height as i32 };
        let (pixels, _) = picture.data.as_chunks::<3>();
        for (column, row) in self.visible(place) {
            let at = (row - y) as usize * picture.width as usize + (column - x) as usize;
            self.blend(column, row, pixels[at], frame.coverage(column, row, radius));
        }
    }

    /// One line of text; `x`, `y` is its left top corner. Returns where it ends.
    pub(super) fn text(&mut self, text: &str, x: i32, y: i32, font: &MonoFont<'_>, colour: Colour) -> i32 {
        let style = MonoTextStyle::new(font, Rgb888::new(colour[0], colour[1], colour[2]));
        let text = drawable(text);
        // Drawing on a canvas cannot fail.
        let Ok(end) = Text::with_baseline(&text, Point::new(x, y), style, Baseline::Top).draw(self);
        end.x
    }

    /// As [`text`](Self::text), twice as large.
    pub(super) fn large_text(&mut self, text: &str, x: i32, y: i32, font: &MonoFont<'_>, colour: Colour) {
        let (width, height) = (text_width(text, font), font.character_size.height as i32);
        let mut small = Self::new(width, height, [0; 3]);
        small.text(text, 0, 0, font, [255; 3]);
        let lit = |column: i32, row: i32| {
            let inside = (0..width).contains(&column) && (0..height).contains(&row);
            inside && small.picture.data[(row * width + column) as usize * 3] > 0
        };
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                // Scale2x: a quarter of a pixel takes its two neighbours' side where they agree and the others do not.
                let (side, across) = (lit(column + 2 * j - 1, row), lit(column, row + 2 * i - 1));
                let (other, opposite) = (lit(column + 1 - 2 * j, row), lit(column, row + 1 - 2 * i));
                let on = if side == across && side != other && side != opposite { side } else { lit(column, row) };
                if on {
                    self.blend(x + 2 * column + j, y + 2 * row + i, colour, 1.0);
                }
            }
        }
    }

    /// As [`text`](Self::text), ending at `x`.
    pub(super) fn text_right(&mut self, text: &str, x: i32, y: i32, font: &MonoFont<'_>, colour: Colour) {
        self.text(text, x - text_width(text, font), y, font, colour);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.picture.width, self.picture.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        let canvas = self.bounding_box();
        for Pixel(at, colour) in pixels {
            if canvas.contains(at) {
                self.blend(at.x, at.y, [colour.r(), colour.g(), colour.b()], 1.0);
            }
        }
        Ok(())
    }
}

/// The width of a line in pixels.
pub(super) fn text_width(text: &str, font: &MonoFont<'_>) -> i32 {
    let advance = font.character_size.width + font.character_spacing;
    drawable(text).chars().count() as i32 * advance as i32
}

/// `text`, or as much of it as fits `width` pixels, then two dots.
pub(super) fn shortened(text: &str, width: i32, font: &MonoFont<'_>) -> String {
    let room = (width / (font.character_size.width + font.character_spacing) as i32).max(0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(2)).collect();
    kept.trim_end().to_owned() + ".."
}

/// The fonts hold Latin-1; its nearest relatives of common characters, and no control characters.
fn drawable(text: &str) -> String {
    let nearest = |c: char| match c {
        '–' | '—' | '−' => '-',
        '‘' | '’' => '\'',
        '“' | '”' => '"',
        '→' => '>',
        '…' => '.',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(nearest).collect()
}
