//! Whether two pictures are nearly the same: a difference hash (Krawetz 2013, "Kind of Like That") of 16 x 16 bits instead of its
//! usual 8 x 8, because an animal in a wide scene changes only a few cells.

use crate::capture::Rgb;

/// Bits a side.
const SIDE: usize = 16;
/// A step from one cell to the next counts when it is larger than this, in grey levels: what noise does to a flat wall is none.
const STEP: f32 = 1.5;
/// Bits of a hash.
pub const BITS: u32 = (SIDE * SIDE) as u32;

/// What a picture looks like, in 256 bits: whether each cell of its grid is brighter than its left neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Likeness([u64; SIDE * SIDE / 64]);

impl Likeness {
    /// Of a picture with at least one pixel.
    pub fn of(picture: &Rgb) -> Likeness {
        let mut bits = [0u64; SIDE * SIDE / 64];
        for row in 0..SIDE {
            let cells: [f32; SIDE + 1] = std::array::from_fn(|column| brightness(picture, column, row));
            for column in 0..SIDE {
                let at = row * SIDE + column;
                bits[at / 64] |= u64::from(cells[column + 1] > cells[column] + STEP) << (at % 64);
            }
        }
        Likeness(bits)
    }

    /// Bits that differ: 0 for the same picture, about [`BITS`] / 3 for any two.
    pub fn distance(&self, other: &Likeness) -> u32 {
        self.0.iter().zip(other.0).map(|(a, b)| (a ^ b).count_ones()).sum()
    }
}

/// The mean grey level of a cell: of 17 columns and 16 rows.
fn brightness(picture: &Rgb, column: usize, row: usize) -> f32 {
    let span = |index: usize, cells: usize, side: u32| {
        let start = index * side as usize / cells;
        start..((index + 1) * side as usize / cells).max(start + 1)
    };
    let (across, down) = (span(column, SIDE + 1, picture.width), span(row, SIDE, picture.height));
    let count = across.len() * down.len() * 3;
    let line = |y: usize| {
        let start = y * picture.width as usize;
        let pixels = picture.data.get((start + across.start) * 3..(start + across.end) * 3).unwrap_or_default();
        pixels.iter().map(|v| u64::from(*v)).sum::<u64>()
    };
    down.map(line).sum::<u64>() as f32 / count as f32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::capture::decode;

    fn photo(name: &str) -> Rgb {
        decode::decode_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos").join(name)).unwrap()
    }

    /// The same scene a moment later: noise of some grey levels on every pixel.
    fn noisy(picture: &Rgb, amplitude: i16) -> Rgb {
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i16 % (2 * amplitude + 1) - amplitude
        };
        let data = picture.data.iter().map(|v| (i16::from(*v) + noise()).clamp(0, 255) as u8).collect();
        Rgb { data, ..*picture }
    }

    /// A grey square of a side of the shorter side's `part`, in the middle.
    fn visited(picture: &Rgb, part: f64) -> Rgb {
        let side = (f64::from(picture.width.min(picture.height)) * part) as u32;
        let (left, top) = ((picture.width - side) / 2, (picture.height - side) / 2);
        let mut visited = picture.clone();
        for y in top..top + side {
            let start = ((y * picture.width + left) * 3) as usize;
            visited.data[start..start + side as usize * 3].fill(90);
        }
        visited
    }

    #[test]
    fn noise_is_the_same_scene_and_a_visitor_is_another() {
        for name in ["wild_cat/image_0006.jpg", "airplanes/image_0084.jpg", "pizza/image_0003.jpg"] {
            let picture = photo(name);
            let scene = Likeness::of(&picture);
            assert_eq!(scene.distance(&scene), 0);
            let noise = scene.distance(&Likeness::of(&noisy(&picture, 8)));
            let visitor = scene.distance(&Likeness::of(&visited(&picture, 0.3)));
            assert!(noise <= 6, "{name}: {noise} by noise");
            assert!(visitor > 6, "{name}: {visitor} by a visitor");
        }
        let [cat, pizza] = ["wild_cat/image_0006.jpg", "pizza/image_0003.jpg"].map(|name| Likeness::of(&photo(name)));
        assert!(cat.distance(&pizza) > BITS / 6, "{}", cat.distance(&pizza));
    }

    #[test]
    fn a_picture_smaller_than_the_grid_has_a_hash_too() {
        let picture = |data: Vec<u8>| Rgb { width: 1, height: data.len() as u32 / 3, data };
        assert_eq!(Likeness::of(&picture(vec![9; 3])).distance(&Likeness::of(&picture(vec![200; 6]))), 0);
    }
}
