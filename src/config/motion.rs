//! `motion` of a camera and `[device.thermal]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::defaults::{
    DEFAULT_MOTION_AREA, DEFAULT_MOTION_FLOOR, DEFAULT_MOTION_LINGER, DEFAULT_MOTION_THRESHOLD, DEFAULT_SYSFS,
    DEFAULT_THERMAL_LIMIT,
};
use super::keys::Section;
use super::plan::{MaskPlan, MotionPlan, ThermalPlan};
use super::reader::Table;
use super::values;

const FLOOR: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const LINGER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const RATE: RangeInclusive<f64> = 0.1..=1000.0;
const MOST_MASKS: usize = 32;
const MOST_POINTS: usize = 64;

/// Reads `motion` of the camera `table`; `None` without it.
pub(super) fn read(table: &Table<'_>) -> Option<MotionPlan> {
    let motion = table.table("motion", Section::Motion)?;
    let (idle_fps, active_fps) = (motion.number("idle_fps", RATE), motion.number("active_fps", RATE));
    let replayed = table.has("files") && !table.boolean_quietly("live");
    for key in ["idle_fps", "active_fps"].into_iter().filter(|key| replayed && motion.has(key)) {
        motion.problem(key, "has no effect with `files`, which wait for their turn; add `live = true`, or remove it");
    }
    if let (Some(idle), Some(active)) = (idle_fps, active_fps)
        && idle > active
    {
        motion.problem("idle_fps", format!("{idle} is more than `active_fps`, which is {active}; make it smaller"));
    }
    let threshold = motion.integer("threshold", 1..=100).and_then(|levels| u8::try_from(levels).ok());
    Some(MotionPlan {
        threshold: threshold.unwrap_or(DEFAULT_MOTION_THRESHOLD),
        area: motion.number("area", 0.0..=1.0).unwrap_or(DEFAULT_MOTION_AREA),
        floor: motion.duration("floor", FLOOR).unwrap_or(DEFAULT_MOTION_FLOOR),
        linger: motion.duration("linger", LINGER).unwrap_or(DEFAULT_MOTION_LINGER),
        idle_fps,
        active_fps,
        masks: masks(&motion),
    })
}

fn masks(motion: &Table<'_>) -> Vec<MaskPlan> {
    let masks = motion.list("masks", |_, value| mask(value)).unwrap_or_default();
    if masks.len() > MOST_MASKS {
        motion.problem("masks", format!("there are {}; at most {MOST_MASKS} are allowed", masks.len()));
    }
    masks.into_iter().map(|(_, mask)| mask).collect()
}

fn mask(value: &DeValue<'_>) -> Result<MaskPlan, String> {
    let wrong = || "is no polygon; write at least three points, such as [[0, 0], [1, 0], [1, 0.2]]".to_owned();
    let list = value.as_array().ok_or_else(wrong)?;
    if list.len() > MOST_POINTS {
        return Err(format!("has {} points; at most {MOST_POINTS} are allowed", list.len()));
    }
    let point = |element: &DeValue<'_>| {
        let [x, y] = element.as_array()?.iter().map(|number| values::number(number.get_ref())).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        Some([x?, y?])
    };
    let points: Vec<[f64; 2]> = list.iter().map(|it| point(it.get_ref())).collect::<Option<_>>().ok_or_else(wrong)?;
    if points.len() < 3 {
        return Err(wrong());
    }
    match points.iter().flatten().find(|number| !(0.0..=1.0).contains(*number)) {
        Some(bad) => Err(format!("holds {bad}; left and top are fractions of the frame, 0 to 1")),
        None => Ok(MaskPlan { points }),
    }
}

/// Reads `[device.thermal]`; `None` without it.
pub(super) fn thermal(device: &Table<'_>) -> Option<ThermalPlan> {
    let thermal = device.table("thermal", Section::Thermal)?;
    Some(ThermalPlan {
        limit: thermal.number("limit", 40.0..=120.0).unwrap_or(DEFAULT_THERMAL_LIMIT),
        sysfs: thermal.path("sysfs").unwrap_or_else(|| DEFAULT_SYSFS.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Plan, parse};

    fn read(device: &str, camera: &str) -> Result<Plan, String> {
        let text = format!("[model]\npath = \"m\"\n[device]\n{device}\n[[camera]]\nname = \"c\"\n{camera}");
        parse(&text, Path::new("f.toml"), &|_| None).map_err(|problems| problems.to_string())
    }

    #[test]
    fn both_are_off_unless_asked_for() {
        let plan = read("", "device = \"d\"").unwrap();
        assert_eq!((plan.thermal, plan.cameras[0].motion.as_ref()), (None, None));
        let plan = read("thermal = {}", "device = \"d\"\nmotion = {}").unwrap();
        assert_eq!(plan.thermal.unwrap().limit, 80.0);
        let motion = plan.cameras[0].motion.clone().unwrap();
        assert_eq!((motion.threshold, motion.masks.len(), motion.idle_fps), (4, 0, None));
    }

    #[test]
    fn what_is_wrong_names_its_remedy() {
        for (camera, words) in [
            ("motion = { masks = [[[0, 0], [1, 1]]] }", "masks[0]: is no polygon"),
            ("motion = { masks = [[[0, 0], [1, 1], [1, 2]]] }", "holds 2; left and top are fractions"),
            ("motion = { masks = [[[0, 0], [1, 1], [1]]] }", "is no polygon"),
            ("motion = { masks = [[[0, 0], [1, 1], [\"a\", 1]]] }", "is no polygon"),
            ("motion = { masks = [0, 0, 1, 0, 1, 1] }", "masks[5]: is no polygon"),
            ("motion = { masks = [[[0, 0], [1, 1], [nan, 1]]] }", "fractions"),
            ("motion = { floor = \"100ms\" }", "out of range; write 1s"),
            ("motion = { idle_fps = 9, active_fps = 5 }", "more than `active_fps`"),
            ("motion = { threshold = 0 }", "1 to 100"),
            ("motion = { flor = \"5s\" }", "did you mean `floor`?"),
            ("motion = true", "must be a table"),
        ] {
            let problem = read("", &format!("device = \"d\"\n{camera}")).unwrap_err();
            assert!(problem.contains(words), "{camera}: {problem}");
        }
        let problem = read("", "files = \"f\"\nmotion = { idle_fps = 2 }").unwrap_err();
        assert!(problem.contains("motion.idle_fps") && problem.contains("`live = true`"), "{problem}");
        assert!(read("", "files = \"f\"\nlive = true\nmotion = { idle_fps = 2 }").is_ok());
        let problem = read("thermal = { limit = 20 }", "device = \"d\"").unwrap_err();
        assert!(problem.contains("device.thermal.limit"), "{problem}");
    }
}
