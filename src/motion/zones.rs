//! Which blocks of a frame count: those of the camera's regions (or of the whole frame), without the masks.
//!
//! Regions and masks are drawn in the oriented frame, as people see it; blocks are of the captured one.

use crate::config::plan::{Area, CameraPlan, Flip, MaskPlan, Orientation, Rotation};

use super::luma::{BLOCK, columns};

/// Fewer moving blocks than this are a spark of noise.
const LEAST_BLOCKS: usize = 2;

/// The blocks of one region, or of the whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Zone {
    name: String,
    blocks: Vec<usize>,
}

/// The zones of a camera, for one size of its frames.
#[derive(Clone, Debug)]
pub struct Zones {
    size: [u32; 2],
    zones: Vec<Zone>,
    watched: Vec<bool>,
}

impl Zones {
    /// For frames of `size` pixels as captured.
    pub fn new(camera: &CameraPlan, masks: &[MaskPlan], size: [u32; 2]) -> Self {
        let [width, height] = size.map(|side| side as usize);
        let turned = matches!(camera.orientation.rotate, Rotation::Quarter | Rotation::ThreeQuarters);
        let oriented = if turned { [height, width] } else { [width, height] };
        let places: Vec<[f64; 2]> = (0..columns(height))
            .flat_map(|row| (0..columns(width)).map(move |column| (column, row)))
            .map(|(column, row)| {
                let centre = |index: usize, side: usize| (index as f64 + 0.5) * BLOCK as f64 / side as f64;
                orient(camera.orientation, [centre(column, width), centre(row, height)])
            })
            .collect();
        let half = oriented.map(|side| BLOCK as f64 / 2.0 / side.max(1) as f64);
        let open = |place: &[f64; 2]| !masks.iter().any(|mask| mask.holds(*place));
        let zone = |name: &str, area: Option<&Area>| {
            let inside = |place: &[f64; 2]| area.is_none_or(|area| touches(area, oriented, *place, half));
            let blocks = (0..places.len()).filter(|&block| inside(&places[block]) && open(&places[block]));
            Zone { name: name.to_owned(), blocks: blocks.collect() }
        };
        let mut zones: Vec<_> =
            camera.regions.iter().map(|region| zone(&format!("region {}", region.name), Some(&region.area))).collect();
        if zones.is_empty() {
            zones.push(zone("the frame", None));
        }
        let mut watched = vec![false; places.len()];
        zones.iter().flat_map(|zone| &zone.blocks).for_each(|&block| watched[block] = true);
        Self { size, zones, watched }
    }

    /// The captured size that it is for.
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// By block, whether any zone has it.
    pub fn watched(&self) -> &[bool] {
        &self.watched
    }

    /// The zones of which the masks leave nothing.
    pub fn blind(&self) -> impl Iterator<Item = &str> {
        self.zones.iter().filter(|zone| zone.blocks.is_empty()).map(|zone| &*zone.name)
    }

    /// Whether in any zone more than `area` of its blocks move.
    pub fn any_moves(&self, moving: &[bool], area: f64) -> bool {
        self.zones.iter().any(|zone| {
            let count = zone.blocks.iter().filter(|&&block| moving[block]).count();
            count >= LEAST_BLOCKS.min(zone.blocks.len()).max(1) && count as f64 >= area * zone.blocks.len() as f64
        })
    }
}

/// A place in the captured frame, as fractions of it, in the oriented one.
fn orient(orientation: Orientation, [x, y]: [f64; 2]) -> [f64; 2] {
    let [u, v] = match orientation.rotate {
        Rotation::None => [x, y],
        Rotation::Quarter => [1.0 - y, x],
        Rotation::Half => [1.0 - x, 1.0 - y],
        Rotation::ThreeQuarters => [y, 1.0 - x],
    };
    match orientation.flip {
        None => [u, v],
        Some(Flip::Horizontal) => [1.0 - u, v],
        Some(Flip::Vertical) => [u, 1.0 - v],
    }
}

/// Whether a block around `place`, `half` its sides, has a part of `area`.
fn touches(area: &Area, oriented: [usize; 2], place: [f64; 2], half: [f64; 2]) -> bool {
    let [left, top, width, height] = match area {
        Area::Fractions(fractions) => *fractions,
        Area::Pixels([left, top, width, height]) => {
            let [w, h] = oriented.map(|side| side as f64);
            [f64::from(*left) / w, f64::from(*top) / h, f64::from(*width) / w, f64::from(*height) / h]
        }
    };
    let along = |place: f64, half: f64, start: f64, length: f64| place + half > start && place - half < start + length;
    along(place[0], half[0], left, width) && along(place[1], half[1], top, height)
}

impl MaskPlan {
    /// Whether `place` lies inside: a ray to the right crosses its sides an odd number of times.
    fn holds(&self, [x, y]: [f64; 2]) -> bool {
        let sides = self.points.iter().zip(self.points.iter().cycle().skip(1));
        sides.filter(|([x0, y0], [x1, y1])| (y0 > &y) != (y1 > &y) && x < (x1 - x0) * (y - y0) / (y1 - y0) + x0).count()
            % 2
            == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Rgb;
    use crate::preprocess::oriented;

    fn camera(keys: &str) -> CameraPlan {
        let text = format!("[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"d\"\n{keys}");
        crate::config::parse(&text, std::path::Path::new("f.toml"), &|_| None).unwrap().cameras.remove(0)
    }

    fn zones(keys: &str, size: [u32; 2]) -> Zones {
        let camera = camera(keys);
        Zones::new(&camera, &camera.motion.as_ref().unwrap().masks, size)
    }

    /// The watched blocks as a picture, `#` and `.`, a row a line.
    fn drawn(zones: &Zones) -> Vec<String> {
        let rows = zones.watched.chunks(columns(zones.size[0] as usize));
        rows.map(|row| row.iter().map(|&on| if on { '#' } else { '.' }).collect()).collect()
    }

    #[test]
    fn regions_are_watched_and_masks_are_not() {
        for (keys, expected) in [
            ("motion = {}", ["####", "####"]),
            ("motion = {}\nregion = [{ name = \"r\", box = [0.5, 0, 0.5, 0.5] }]", ["..##", "...."]),
            ("motion = {}\nregion = [{ name = \"r\", box = [17, 17, 2, 2] }]", ["....", ".#.."]),
            ("motion = { masks = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]] }", ["..##", "..##"]),
            // A triangle over the upper left corner, and the same at a camera that hangs upside down.
            ("motion = { masks = [[[0, 0], [0.7, 0], [0, 0.9]]] }", ["..##", "####"]),
            ("rotate = 180\nmotion = { masks = [[[0, 0], [0.7, 0], [0, 0.9]]] }", ["####", "##.."]),
        ] {
            assert_eq!(drawn(&zones(keys, [64, 32])), expected, "{keys}");
        }
    }

    #[test]
    fn masks_turn_with_the_frame_as_the_model_sees_it() {
        for rotate in [0, 90, 180, 270] {
            for flip in ["", "flip = \"horizontal\"", "flip = \"vertical\""] {
                // The mask covers the upper left sixth of what is seen.
                let mask = "masks = [[[0, 0], [0.5, 0], [0.5, 0.33], [0, 0.33]]]";
                let keys = format!("rotate = {rotate}\n{flip}\nmotion = {{ {mask} }}");
                let (zones, camera) = (zones(&keys, [96, 64]), camera(&keys));
                let mut frame = Rgb { width: 96, height: 64, data: Vec::new() };
                for y in 0..64 {
                    frame
                        .data
                        .extend((0..96).flat_map(|x| [if zones.watched[y / 16 * 6 + x / 16] { 9 } else { 0 }; 3]));
                }
                let seen = oriented(&frame, camera.orientation);
                let dark = |x: u32, y: u32| seen.data[((y * seen.width + x) * 3) as usize] == 0;
                let (w, h) = (seen.width, seen.height);
                assert!(dark(8, 8) && !dark(w - 8, 8) && !dark(8, h - 8) && !dark(w - 8, h - 8), "{keys}");
            }
        }
    }

    #[test]
    fn a_zone_moves_by_its_own_share() {
        let zones = zones(
            "motion = {}\nregion = [{ name = \"a\", box = [0, 0, 0.125, 1] }, { name = \"b\", box = [0.5, 0, 0.5, 1] }]",
            [640, 160],
        );
        let moving = |count: usize, column: usize| {
            let mut moving = vec![false; 400];
            (0..count).for_each(|n| moving[n % 5 + column + n / 5 * 40] = true);
            moving
        };
        // a has 50 blocks, b 200, and no zone has column 10.
        assert!(zones.any_moves(&moving(3, 0), 0.05) && !zones.any_moves(&moving(3, 20), 0.05));
        assert!(zones.any_moves(&moving(10, 20), 0.05) && !zones.any_moves(&moving(40, 10), 0.05));
        assert!(!zones.any_moves(&moving(1, 0), 0.0), "one block is noise");
        assert_eq!(zones.blind().count(), 0);
    }

    #[test]
    fn a_zone_without_blocks_is_told_and_never_moves() {
        let zones = zones("motion = { masks = [[[0, 0], [1, 0], [1, 1], [0, 1]]] }", [64, 32]);
        assert_eq!(zones.blind().collect::<Vec<_>>(), ["the frame"]);
        assert!(!zones.any_moves(&[true; 8], 0.0));
    }
}
