//! A strip of text below a picture: nothing of the picture is hidden.

use embedded_graphics::mono_font::MonoFont;

use super::canvas::{Canvas, Place, shortened, text_width};
use super::{BACKGROUND, HEADING, MUTED, SMALL, TEXT};
use crate::capture::Rgb;

const PADDING: i32 = 6;
/// From this width on the large font.
const WIDE: u32 = 480;

/// `picture` with a strip below it: the `label`, and after it the `details`, to the right where they fit beside it and in
/// lines of their own where they do not. The strip is as wide as the picture; what does not fit ends in two dots.
pub fn captioned(picture: &Rgb, label: &str, details: &[&str]) -> Rgb {
    let font: &MonoFont<'_> = if picture.width >= WIDE { HEADING } else { SMALL };
    let (width, height) = (picture.width as i32, picture.height as i32);
    let (line, room) = (font.character_size.height as i32 + 2, width - 2 * PADDING);
    let beside = details.join("   ");
    let fits = text_width(label, font) + 3 * PADDING + text_width(&beside, font) <= room;
    let lines = if fits { 1 } else { 1 + details.len() as i32 };
    let mut canvas = Canvas::new(width, height + 2 * PADDING + lines * line, BACKGROUND);
    canvas.paste(picture, 0, 0, Place { x: 0, y: 0, width, height }, 0.0);
    let top = height + PADDING;
    canvas.text(&shortened(label, room, font), PADDING, top, font, TEXT);
    if fits {
        canvas.text_right(&beside, width - PADDING, top, font, MUTED);
    } else {
        for (detail, y) in details.iter().zip((top + line..).step_by(line as usize)) {
            canvas.text(&shortened(detail, room, font), PADDING, y, font, MUTED);
        }
    }
    canvas.picture
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32) -> Rgb {
        Rgb { width, height, data: vec![128; (width * height * 3) as usize] }
    }

    /// Pixels of `colour` in the strip, left and right of its middle.
    fn inked(picture: &Rgb, from: u32, colour: [u8; 3]) -> [usize; 2] {
        let (pixels, _) = picture.data.as_chunks::<3>();
        let strip = pixels.iter().enumerate().skip((picture.width * from) as usize);
        let mut sides = [0; 2];
        strip
            .filter(|(_, pixel)| **pixel == colour)
            .for_each(|(at, _)| sides[usize::from(at as u32 % picture.width >= picture.width / 2)] += 1);
        sides
    }

    #[test]
    fn the_picture_stays_and_the_text_is_below_it() {
        let out = captioned(&grey(640, 48), "wild_cat 87 %", &["cat at feeder"]);
        assert_eq!((out.width, out.height), (640, 48 + 2 * 6 + 22));
        assert_eq!(out.data[..640 * 48 * 3], grey(640, 48).data);
        let ([left, none], [nothing, right]) = (inked(&out, 48, TEXT), inked(&out, 48, MUTED));
        assert!(left > 50 && right > 50, "{left} {right}");
        assert_eq!((none, nothing), (0, 0));
    }

    #[test]
    fn a_narrow_picture_gets_more_lines_and_any_size_is_drawn() {
        let out = captioned(&grey(100, 10), "wild_cat 87 %", &["cat at feeder/perch", "2026-01-01 00:00:00"]);
        assert_eq!((out.width, out.height), (100, 10 + 2 * 6 + 3 * 15));
        for size in [(1, 1), (3, 200), (2000, 2)] {
            assert_eq!(captioned(&grey(size.0, size.1), "wild_cat", &["a", "b"]).width, size.0);
        }
    }
}
