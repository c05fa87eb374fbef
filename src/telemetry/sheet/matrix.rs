//! A confusion matrix as a picture: rows are what the photos show, columns what they were taken for.

use super::canvas::{Canvas, Place, shortened, text_width};
use super::{ACCENTS, BACKGROUND, CARD, Colour, HEADER, HEADING, MARGIN, MUTED, SMALL, TEXT};
use crate::capture::Rgb;

/// The matrix and its names.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// One line, large.
    pub title: String,
    /// One line below it.
    pub subtitle: String,
    /// Of rows and columns.
    pub names: Vec<String>,
    /// `[names.len()][names.len()]`, true class by predicted class.
    pub counts: Vec<Vec<usize>>,
}

/// No picture is larger than a screen can show: with more classes, a cell becomes smaller.
const LARGEST: i32 = 1800;
/// A cell that holds a count of three figures.
const CELL: i32 = 30;
/// A cell that holds no text.
const BARE: i32 = 14;

impl Matrix {
    /// Draws it.
    pub fn render(&self) -> Rgb {
        let count = self.names.len().max(1) as i32;
        let cell = CELL.min(LARGEST / count).max(1);
        let names = if cell >= BARE { self.longest_name().min(220) } else { 0 };
        let (left, top) = (MARGIN + names + 12, MARGIN + HEADER + 44);
        let side = cell * count;
        let width = (left + side).max(620) + MARGIN;
        let mut canvas = Canvas::new(width, top + side + MARGIN, BACKGROUND);
        canvas.fill(Place { x: MARGIN, y: MARGIN, width: 6, height: HEADER }, 3.0, ACCENTS[0]);
        let room = width - 2 * MARGIN - 20;
        canvas.large_text(&shortened(&self.title, room / 2, HEADING), MARGIN + 20, MARGIN - 2, HEADING, TEXT);
        canvas.text(&shortened(&self.subtitle, room, HEADING), MARGIN + 20, MARGIN + 40, HEADING, MUTED);
        for (row, counts) in self.counts.iter().enumerate() {
            let y = top + row as i32 * cell;
            if cell >= BARE {
                let line = shortened(&self.numbered(row), names, SMALL);
                canvas.text_right(&line, left - 8, y + (cell - 13) / 2, SMALL, TEXT);
                let number = row.to_string();
                let x = left + row as i32 * cell + (cell - text_width(&number, SMALL)) / 2;
                canvas.text(&number, x, top - 18, SMALL, MUTED);
            }
            let whole = counts.iter().sum::<usize>();
            for (column, &count) in counts.iter().enumerate() {
                let gap = i32::from(cell > 4);
                let place = Place { x: left + column as i32 * cell, y, width: cell - gap, height: cell - gap };
                canvas.fill(place, 0.0, colour(count, whole, row == column));
                if count > 0 && cell >= 24 {
                    let text = count.to_string();
                    let x = place.x + (cell - text_width(&text, SMALL)) / 2;
                    canvas.text(&shortened(&text, cell, SMALL), x, y + (cell - 13) / 2, SMALL, TEXT);
                }
            }
        }
        canvas.picture
    }

    fn numbered(&self, row: usize) -> String {
        format!("{} {row}", self.names[row])
    }

    fn longest_name(&self) -> i32 {
        (0..self.names.len()).map(|row| text_width(&self.numbered(row), SMALL)).max().unwrap_or(0)
    }
}

/// Right answers are green, mistakes red; the more of the row, the stronger.
fn colour(count: usize, whole: usize, right: bool) -> Colour {
    if count == 0 {
        return CARD;
    }
    let strength = 0.25 + 0.75 * count as f32 / whole.max(1) as f32;
    let full: Colour = if right { [38, 145, 98] } else { [222, 66, 84] };
    std::array::from_fn(|i| (f32::from(CARD[i]) + (f32::from(full[i]) - f32::from(CARD[i])) * strength) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(classes: usize) -> Matrix {
        let row = |r: usize| (0..classes).map(|c| if r == c { 9 } else { usize::from(c == 0) }).collect();
        Matrix {
            title: "Confusion".into(),
            names: (0..classes).map(|i| format!("class {i}")).collect(),
            counts: (0..classes).map(row).collect(),
            ..Matrix::default()
        }
    }

    #[test]
    fn right_answers_are_green_and_mistakes_red() {
        let picture = matrix(3).render();
        let pixels: Vec<_> = picture.data.as_chunks::<3>().0.to_vec();
        let count = |is: fn(&[u8; 3]) -> bool| pixels.iter().filter(|p| is(p)).count();
        assert!(count(|p| p[1] > 90 && p[0] < 60) > 3 * 400, "three cells on the diagonal");
        assert!(count(|p| p[0] > 70 && p[1] < 60) > 2 * 400, "two cells beside it");
    }

    #[test]
    fn a_thousand_classes_fit_a_picture() {
        let picture = matrix(1000).render();
        assert!(picture.width < 2500 && picture.height < 2500, "{}x{}", picture.width, picture.height);
    }
}
