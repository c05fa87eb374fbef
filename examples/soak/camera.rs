//! `soak camera PHOTOS FPS FORMAT PLUG`: a camera as a child process: photos in turn to its stdout, as JPEG or as raw I420 of [`RAW`] pixels.
//! It ends at once while the file PLUG is not there: its cable is out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spotter::capture::{Rgb, decode};

use super::Failure;

/// Width and height of a raw frame.
pub(super) const RAW: [u32; 2] = [640, 480];

pub(super) fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let arguments: Vec<String> = arguments.collect();
    let [photos, fps, format, plug] = arguments.as_slice() else { return Err("camera PHOTOS FPS FORMAT PLUG".into()) };
    let (period, plug) = (Duration::from_secs_f64(1.0 / fps.parse::<f64>()?), Path::new(plug));
    let mut frames = Vec::new();
    for photo in photos_below(Path::new(photos))? {
        frames.push(match format.as_str() {
            "yuv420" => i420(&decode::decode_file(&photo)?),
            _ => std::fs::read(&photo)?,
        });
    }
    let mut output = std::io::stdout().lock();
    let started = Instant::now();
    for (turn, frame) in (1u32..).zip(frames.iter().cycle()) {
        if !plug.exists() {
            return Err("the cable is out".into());
        }
        output.write_all(frame)?;
        output.flush()?;
        std::thread::sleep((period * turn).saturating_sub(started.elapsed()));
    }
    Ok(())
}

fn photos_below(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut photos = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => photos.extend(photos_below(&path)?),
            false if path.extension().is_some_and(|it| it == "jpg") => photos.push(path),
            false => {}
        }
    }
    photos.sort();
    Ok(photos)
}

/// The photo at [`RAW`] pixels by the nearest neighbour, in BT.601's limited range, its planes one after another.
fn i420(photo: &Rgb) -> Vec<u8> {
    let [width, height] = RAW;
    let pixel = |x: u32, y: u32| {
        let (x, y) = (x * photo.width / width, y * photo.height / height);
        let at = (y * photo.width + x) as usize * 3;
        [0, 1, 2].map(|channel| f32::from(photo.data[at + channel]))
    };
    let plane = |step: u32, offset: f32, [r, g, b]: [f32; 3]| {
        let places =
            (0..height).step_by(step as usize).flat_map(|y| (0..width).step_by(step as usize).map(move |x| (x, y)));
        let value = move |(x, y)| {
            let [red, green, blue] = pixel(x, y);
            (offset + r * red + g * green + b * blue).round() as u8
        };
        places.map(value).collect::<Vec<u8>>()
    };
    let mut frame = plane(1, 16.0, [0.257, 0.504, 0.098]);
    frame.extend(plane(2, 128.0, [-0.148, -0.291, 0.439]));
    frame.extend(plane(2, 128.0, [0.439, -0.368, -0.071]));
    frame
}
