//! The contact sheet: pictures as the model saw them, with what it made of them. Also the picture that `spotter look` writes.

mod canvas;
mod caption;
mod matrix;

use std::io;
use std::path::Path;

use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{FONT_7X13, FONT_7X13_BOLD, FONT_8X13_BOLD, FONT_10X20};

use crate::capture::Rgb;
use crate::files::write_atomically;
use crate::preprocess::Rect;
use canvas::{Canvas, Place, shortened, text_width};

pub use canvas::Colour;
pub use caption::captioned;
pub use matrix::Matrix;

/// Colours that are told apart on the sheet, for rules in their order; more rules start over.
pub const ACCENTS: [Colour; 6] =
    [[255, 176, 59], [86, 204, 157], [99, 164, 255], [255, 110, 127], [196, 148, 255], [240, 222, 90]];

/// The most tiles that a sheet shows. The footer tells how many were left out.
pub const MAX_TILES: usize = 240;

const BACKGROUND: Colour = [18, 21, 27];
const CARD: Colour = [30, 35, 44];
const TRACK: Colour = [52, 59, 72];
const TEXT: Colour = [236, 239, 244];
const MUTED: Colour = [150, 160, 178];
const QUIET: Colour = [116, 132, 160];

const MARGIN: i32 = 32;
const HEADER: i32 = 60;
const GAP: i32 = 16;
const PADDING: i32 = 10;
const CORNER: f32 = 8.0;
const HEADING: &MonoFont<'_> = &FONT_10X20;
const LABEL: &MonoFont<'_> = &FONT_8X13_BOLD;
const SMALL: &MonoFont<'_> = &FONT_7X13;
const BADGE: &MonoFont<'_> = &FONT_7X13_BOLD;
const BADGE_HEIGHT: i32 = 19;
const LINE: i32 = 17;

/// One picture of the sheet.
#[derive(Clone, Debug, Default)]
pub struct Tile {
    /// As the model saw it ([`Preprocessor::view`](crate::preprocess::Preprocessor::view)), or any other.
    pub picture: Rgb,
    /// The first line is the label, the others are small print.
    pub caption: Vec<String>,
    /// Of the label, 0 to 1: a figure and a bar.
    pub probability: Option<f32>,
    /// What it triggered: a name (a rule's) and its colour. The first one also frames the tile.
    pub badges: Vec<(String, Colour)>,
}

/// What a sheet shows, from top to bottom.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// One line, large.
    pub title: String,
    /// One line below it.
    pub subtitle: String,
    /// A large picture above the tiles: the whole frame with its regions, for `look`.
    pub banner: Option<Rgb>,
    /// From left to right, then down.
    pub tiles: Vec<Tile>,
    /// Lines below the tiles.
    pub footer: Vec<String>,
}

impl Sheet {
    /// Draws the sheet. Its size follows from what is on it.
    pub fn render(&self) -> Rgb {
        let tiles = &self.tiles[..self.tiles.len().min(MAX_TILES)];
        let layout = Layout::new(self, tiles);
        let mut canvas = Canvas::new(layout.width, layout.height, BACKGROUND);
        let room = layout.width - 2 * MARGIN;
        canvas.fill(Place { x: MARGIN, y: MARGIN, width: 6, height: HEADER }, 3.0, ACCENTS[0]);
        canvas.large_text(&shortened(&self.title, (room - 20) / 2, HEADING), MARGIN + 20, MARGIN - 2, HEADING, TEXT);
        canvas.text(&shortened(&self.subtitle, room - 20, HEADING), MARGIN + 20, MARGIN + 40, HEADING, MUTED);
        if let Some(banner) = &self.banner {
            let (width, height) = (banner.width as i32, banner.height as i32);
            let place = Place { x: MARGIN, y: layout.banner_top, width, height };
            canvas.paste(banner, place.x, place.y, place, CORNER);
        }
        for (i, tile) in tiles.iter().enumerate() {
            layout.tile(&mut canvas, tile, layout.place(i));
        }
        for (line, y) in footer(self).iter().zip((layout.footer_top..).step_by(LINE as usize)) {
            canvas.text(&shortened(line, room, SMALL), MARGIN, y, SMALL, MUTED);
        }
        canvas.picture
    }
}

fn footer(sheet: &Sheet) -> Vec<String> {
    let mut lines = sheet.footer.clone();
    if sheet.tiles.len() > MAX_TILES {
        lines.push(format!("The first {MAX_TILES} of {} pictures.", sheet.tiles.len()));
    }
    lines
}

/// Where everything goes.
struct Layout {
    width: i32,
    height: i32,
    columns: i32,
    tile_width: i32,
    picture_height: i32,
    tile_height: i32,
    banner_top: i32,
    tiles_top: i32,
    footer_top: i32,
}

impl Layout {
    fn new(sheet: &Sheet, tiles: &[Tile]) -> Self {
        let count = tiles.len() as i32;
        let most = |of: &dyn Fn(&Tile) -> i32| tiles.iter().map(of).max().unwrap_or(0);
        let tile_width = most(&|t| t.picture.width as i32).max(160);
        let columns = match &sheet.banner {
            Some(banner) => (banner.width as i32 + GAP) / (tile_width + GAP),
            // About 3:2, and never so wide that the text becomes dust on a screen.
            None => ((f64::from(count) * 1.7).sqrt().round() as i32).min(8),
        };
        let columns = columns.clamp(1, count.max(1));
        let picture_height = most(&|t| t.picture.height as i32);
        let small_lines = most(&|t| t.caption.len() as i32 - 1).max(0);
        let badges = if tiles.iter().any(|t| !t.badges.is_empty()) { BADGE_HEIGHT + 6 } else { 0 };
        let bar = if tiles.iter().any(|t| t.probability.is_some()) { 12 } else { 0 };
        let tile_height = picture_height + PADDING + LINE + bar + small_lines * LINE + badges + PADDING - 2;
        let rows = (count + columns - 1) / columns;
        let banner = sheet.banner.as_ref().map_or((0, 0), |b| (b.width as i32, b.height as i32 + GAP));
        let text = footer(sheet).iter().map(|l| text_width(l, SMALL)).max().unwrap_or(0).min(1100);
        let content = (columns * (tile_width + GAP) - GAP).max(banner.0).max(text).max(480);
        let banner_top = MARGIN + HEADER + 24;
        let tiles_top = banner_top + banner.1;
        let footer_top = tiles_top + rows * (tile_height + GAP) + if sheet.footer.is_empty() { 0 } else { 6 };
        let lines = footer(sheet).len() as i32;
        let height = footer_top + lines * LINE + MARGIN - if lines == 0 { GAP } else { 4 };
        Self {
            width: content + 2 * MARGIN,
            height,
            columns,
            tile_width,
            picture_height,
            tile_height,
            banner_top,
            tiles_top,
            footer_top,
        }
    }

    fn place(&self, i: usize) -> Place {
        let (column, row) = (i as i32 % self.columns, i as i32 / self.columns);
        Place {
            x: MARGIN + column * (self.tile_width + GAP),
            y: self.tiles_top + row * (self.tile_height + GAP),
            width: self.tile_width,
            height: self.tile_height,
        }
    }

    fn tile(&self, canvas: &mut Canvas, tile: &Tile, place: Place) {
        let accent = tile.badges.first().map(|(_, colour)| *colour);
        canvas.fill(place, CORNER, CARD);
        let left = place.x + (place.width - tile.picture.width as i32) / 2;
        let top = place.y + (self.picture_height - tile.picture.height as i32) / 2;
        canvas.paste(&tile.picture, left, top, place, CORNER);
        let (x, right) = (place.x + PADDING, place.x + place.width - PADDING);
        let mut y = place.y + self.picture_height + PADDING;
        let mut room = right - x;
        if let Some(probability) = tile.probability {
            let percent = format!("{:.0} %", 100.0 * probability);
            canvas.text_right(&percent, right, y, LABEL, accent.unwrap_or(MUTED));
            room -= text_width(&percent, LABEL) + 8;
        }
        let label = tile.caption.first().map_or("", String::as_str);
        canvas.text(&shortened(label, room, LABEL), x, y, LABEL, TEXT);
        y += LINE;
        if let Some(probability) = tile.probability {
            let bar = Place { x, y: y + 1, width: right - x, height: 5 };
            canvas.fill(bar, 2.5, TRACK);
            let width = (probability.clamp(0.0, 1.0) * bar.width as f32).round().max(5.0) as i32;
            canvas.fill(Place { width, ..bar }, 2.5, accent.unwrap_or(QUIET));
            y += 12;
        }
        for line in tile.caption.iter().skip(1) {
            canvas.text(&shortened(line, right - x, SMALL), x, y, SMALL, MUTED);
            y += LINE;
        }
        badges(canvas, tile, x, right, place.y + place.height - PADDING - BADGE_HEIGHT + 2);
        if let Some(colour) = accent {
            canvas.outline(place, CORNER, 2, colour);
        }
    }
}

/// The pills of one tile, as many as fit between `x` and `right`; the rest are counted.
fn badges(canvas: &mut Canvas, tile: &Tile, mut x: i32, right: i32, y: i32) {
    for (i, (name, colour)) in tile.badges.iter().enumerate() {
        let left_out = tile.badges.len() - i;
        let more = format!("+{left_out}");
        let reserved = if left_out > 1 { text_width(&more, BADGE) + 4 } else { 0 };
        let room = right - x - reserved - 14;
        if i > 0 && room < text_width(name, BADGE) {
            canvas.text(&more, x, y + 3, BADGE, MUTED);
            return;
        }
        let name = shortened(name, room, BADGE);
        let width = text_width(&name, BADGE) + 14;
        canvas.fill(Place { x, y, width, height: BADGE_HEIGHT }, BADGE_HEIGHT as f32 / 2.0, *colour);
        canvas.text(&name, x + 7, y + 3, BADGE, BACKGROUND);
        x += width + 5;
    }
}

/// Outlines `rect` on `picture`, with a name at its upper edge.
pub fn annotate(picture: &mut Rgb, rect: Rect, name: &str, colour: Colour) {
    let mut canvas = Canvas { picture: std::mem::take(picture) };
    let font = if canvas.picture.width >= 800 { HEADING } else { BADGE };
    let thickness = if canvas.picture.width >= 800 { 3 } else { 2 };
    let [x, y, width, height] = [rect.left, rect.top, rect.width, rect.height].map(|v| v as i32);
    let place = Place { x, y, width, height };
    // A dark line on both sides keeps it visible on any background.
    canvas.outline(place.inset(-1), 3.0, thickness + 2, BACKGROUND);
    canvas.outline(place, 2.0, thickness, colour);
    if !name.is_empty() {
        let line = font.character_size.height as i32;
        let tag = Place { x, y, width: text_width(name, font) + 12, height: line + 4 };
        canvas.fill(tag, 3.0, colour);
        canvas.text(name, x + 6, y + 2, font, BACKGROUND);
    }
    *picture = canvas.picture;
}

/// `picture` as the bytes of a PNG file.
///
/// # Errors
/// The picture's data do not fit its size.
pub fn png(picture: &Rgb) -> io::Result<Vec<u8>> {
    use image::ImageEncoder;
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let bytes = picture.width as usize * picture.height as usize * 3;
    if picture.data.len() != bytes {
        let told = format!("encoding a picture of {}x{}: {} bytes", picture.width, picture.height, picture.data.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
    }
    let mut out = Vec::new();
    PngEncoder::new_with_quality(&mut out, CompressionType::Default, FilterType::Adaptive)
        .write_image(&picture.data, picture.width, picture.height, image::ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(out)
}

/// Writes `picture` as a PNG file, whole or not at all.
///
/// # Errors
/// The file could not be written; the message names it.
pub fn write_png(path: &Path, picture: &Rgb) -> io::Result<()> {
    write_atomically(path, &png(picture)?)
}

#[cfg(test)]
mod tests;
