//! `[[camera]]` and its regions.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::defaults::{DEFAULT_FIT, DEFAULT_STALE, DEFAULT_TIMEOUT};
use super::keys::Section;
use super::plan::{Area, CameraPlan, Fit, Flip, Orientation, PixelFormat, RegionPlan, Rotation, SourcePlan};
use super::reader::Table;

const SIDE: RangeInclusive<f64> = 16.0..=16384.0;
const MOST_REGIONS: usize = 32;
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);

/// V4L2's four-character codes.
const DEVICE_FORMATS: [(&str, PixelFormat); 8] = [
    ("MJPG", PixelFormat::Jpeg),
    ("YUYV", PixelFormat::Yuyv),
    ("UYVY", PixelFormat::Uyvy),
    ("NV12", PixelFormat::Nv12),
    ("YU12", PixelFormat::I420),
    ("RGB3", PixelFormat::Rgb24),
    ("BGR3", PixelFormat::Bgr24),
    ("GREY", PixelFormat::Grey),
];

/// As rpicam-vid (`--codec`) and ffmpeg (`-pix_fmt`) call them.
const PROCESS_FORMATS: [(&str, PixelFormat); 3] =
    [("mjpeg", PixelFormat::Jpeg), ("yuv420", PixelFormat::I420), ("rgb24", PixelFormat::Rgb24)];

const SOURCES: [&str; 3] = ["device", "process", "files"];

/// Keys that only some sources have.
const SOURCE_KEYS: [(&str, &[&str]); 4] =
    [("format", &["device", "process"]), ("controls", &["device"]), ("repeat", &["files"]), ("live", &["files"])];

/// Reads one camera; `names` are those of the cameras before it.
pub(super) fn read(table: &Table<'_>, names: &[Arc<str>]) -> CameraPlan {
    table.require("name");
    let name: Arc<str> = table.name("name").unwrap_or_default().into();
    if names.contains(&name) && !name.is_empty() {
        table.problem("name", format!("{name:?} is the name of another camera too; names must differ"));
    }
    let size = size(table);
    let orientation = orientation(table);
    CameraPlan {
        source: source(table, size),
        size,
        fps: table.number("fps", 0.001..=1000.0),
        orientation,
        fit: table
            .choice("fit", &[("crop", Fit::Crop), ("pad", Fit::Pad), ("stretch", Fit::Stretch)])
            .unwrap_or(DEFAULT_FIT),
        regions: regions(table, size.map(|size| orient(size, orientation))),
        timeout: table.duration("timeout", PATIENCE).unwrap_or(DEFAULT_TIMEOUT),
        stale: table.duration("stale", PATIENCE).unwrap_or(DEFAULT_STALE),
        controls: controls(table),
        motion: super::motion::read(table),
        name,
    }
}

fn size(table: &Table<'_>) -> Option<[u32; 2]> {
    let size = table.exact_numbers::<2>("size")?;
    if size.iter().any(|&(side, whole)| !whole || !SIDE.contains(&side)) {
        table.problem("size", format!("width and height must be whole numbers, {} to {}", SIDE.start(), SIDE.end()));
        return None;
    }
    Some(size.map(|(side, _)| side as u32))
}

fn orientation(table: &Table<'_>) -> Orientation {
    let rotate = match table.integer("rotate", i64::MIN..=i64::MAX).unwrap_or(0) {
        0 => Rotation::None,
        90 => Rotation::Quarter,
        180 => Rotation::Half,
        270 => Rotation::ThreeQuarters,
        other => {
            table.problem("rotate", format!("{other} is no quarter turn; write 0, 90, 180 or 270"));
            Rotation::None
        }
    };
    Orientation {
        rotate,
        flip: table.choice("flip", &[("horizontal", Flip::Horizontal), ("vertical", Flip::Vertical)]),
    }
}

/// The size of a frame after its rotation.
fn orient([width, height]: [u32; 2], orientation: Orientation) -> [u32; 2] {
    match orientation.rotate {
        Rotation::None | Rotation::Half => [width, height],
        Rotation::Quarter | Rotation::ThreeQuarters => [height, width],
    }
}

fn source(table: &Table<'_>, size: Option<[u32; 2]>) -> SourcePlan {
    let given: Vec<_> = SOURCES.into_iter().filter(|key| table.has(key)).collect();
    match given.as_slice() {
        [_] => {}
        [] => table.problem_here("has no source; add one of `device`, `process`, `files`"),
        _ => table.problem(given[1], format!("is one source too many beside `{}`; keep one of them", given[0])),
    }
    for (key, sources) in SOURCE_KEYS {
        if table.has(key) && !given.is_empty() && !given.iter().any(|source| sources.contains(source)) {
            table.problem(
                key,
                format!("has no effect with `{}`, only with `{}`; remove it", given[0], sources.join("` or `")),
            );
        }
    }
    // Each is read even if another is given, so that its own problems are told as well.
    let process = table.has("process").then(|| process(table, size));
    let files = table.has("files").then(|| files(table));
    let device = table.text("device").map(|device| SourcePlan::V4l2 {
        device,
        format: if process.is_none() { table.choice("format", &DEVICE_FORMATS) } else { None },
    });
    let none = SourcePlan::V4l2 { device: String::new(), format: None };
    device.or(process).or(files).unwrap_or(none)
}

fn process(table: &Table<'_>, size: Option<[u32; 2]>) -> SourcePlan {
    let command: Vec<String> = table.strings("process").unwrap_or_default().into_iter().map(|(_, word)| word).collect();
    if command.is_empty() {
        table.problem("process", "names no program; write a list such as [\"rpicam-vid\", \"-t\", \"0\", …]");
    }
    let format = table.choice("format", &PROCESS_FORMATS).unwrap_or(PixelFormat::Jpeg);
    if format != PixelFormat::Jpeg {
        match size {
            None if !table.has("size") => table.problem(
                "format",
                "raw frames do not say their size; add `size = [width, height]`, the same as in the command",
            ),
            Some([width, height]) if format == PixelFormat::I420 && (width % 2 != 0 || height % 2 != 0) => {
                table.problem("size", "yuv420 needs an even width and height");
            }
            _ => {}
        }
    }
    SourcePlan::Process { command, format }
}

fn files(table: &Table<'_>) -> SourcePlan {
    SourcePlan::Files {
        path: table.path("files").unwrap_or_default(),
        repeat: table.boolean("repeat").unwrap_or(false),
        live: table.boolean("live").unwrap_or(false),
    }
}

fn controls(table: &Table<'_>) -> BTreeMap<String, i64> {
    let Some(controls) = table.table("controls", Section::Controls) else { return BTreeMap::new() };
    let read = |key: &String| match controls.is_boolean(key) {
        true => controls.boolean(key).map(i64::from),
        false => controls.integer(key, i64::MIN..=i64::MAX),
    };
    controls.keys().into_iter().filter_map(|key| read(&key).map(|value| (key, value))).collect()
}

fn regions(table: &Table<'_>, frame: Option<[u32; 2]>) -> Vec<RegionPlan> {
    let mut regions: Vec<RegionPlan> = Vec::new();
    for region in table.tables("region", Section::Region, MOST_REGIONS) {
        region.require("name");
        region.require("box");
        let name: Arc<str> = region.name("name").unwrap_or_default().into();
        if regions.iter().any(|other| other.name == name && !name.is_empty()) {
            region.problem(
                "name",
                format!("{name:?} is the name of another region of this camera too; names must differ"),
            );
        }
        let area = region.exact_numbers::<4>("box").map(|numbers| area(numbers, frame));
        if let Some(Err(problem)) = &area {
            region.problem("box", problem);
        }
        let area = area.and_then(Result::ok).unwrap_or(Area::Fractions([0.0, 0.0, 1.0, 1.0]));
        regions.push(RegionPlan { name, area });
    }
    regions
}

/// Left, top, width, height: all at most 1 are fractions of the frame; all whole are pixels of it.
fn area(numbers: [(f64, bool); 4], frame: Option<[u32; 2]>) -> Result<Area, String> {
    let values = numbers.map(|(value, _)| value);
    let [left, top, width, height] = values;
    if !values.iter().all(|value| value.is_finite() && *value >= 0.0) {
        return Err("left, top, width and height must not be negative".into());
    }
    if width == 0.0 || height == 0.0 {
        return Err("is empty; width and height must be above 0".into());
    }
    if values.iter().all(|&value| value <= 1.0) {
        // Decimal fractions do not add up exactly: 0.7 + 0.3 may be above 1 by an ulp.
        inside(left + width, 1.0 + 1e-9, "wide").and(inside(top + height, 1.0 + 1e-9, "high"))?;
        return Ok(Area::Fractions([left, top, width.min(1.0 - left), height.min(1.0 - top)]));
    }
    if !numbers.iter().all(|&(_, whole)| whole) {
        return Err("mixes fractions and pixels; write four numbers of at most 1, or four whole numbers".into());
    }
    let [right, bottom] = frame.unwrap_or([*SIDE.end() as u32; 2]).map(f64::from);
    inside(left + width, right, "wide").and(inside(top + height, bottom, "high"))?;
    Ok(Area::Pixels(values.map(|value| value as u32)))
}

fn inside(end: f64, frame: f64, what: &str) -> Result<(), String> {
    if end <= frame {
        return Ok(());
    }
    Err(format!("reaches to {end}, outside of the frame, which is {} {what}; make it smaller", frame.round()))
}

/// What a rule may name: each camera, and each of its regions.
pub(super) fn view_names(cameras: &[CameraPlan]) -> Vec<String> {
    let mut names = Vec::new();
    // A camera without a valid name is a problem already.
    for camera in cameras.iter().filter(|camera| !camera.name.is_empty()) {
        names.push(camera.name.to_string());
        names.extend(camera.regions.iter().map(|region| format!("{}/{}", camera.name, region.name)));
    }
    names
}
