//! The pictures that commands write: the contact sheet of a run, and what `look` shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::{Rgb, decode};
use crate::config::plan::CameraPlan;
use crate::daemon::recorder::Sighting;
use crate::daemon::summary::Summary;
use crate::model::Labels;
use crate::preprocess::{area_in_frame, oriented};
use crate::teach::judgement::Judgement;
use crate::telemetry::sheet::{ACCENTS, Matrix, Sheet, Tile, annotate, write_png};

/// One view, as `look` shows it.
pub(super) struct Look {
    /// The region's name.
    pub(super) name: Arc<str>,
    /// What the model sees.
    pub(super) picture: Rgb,
    /// What it takes it for.
    pub(super) label: Arc<str>,
    /// How surely.
    pub(super) probability: f32,
}

/// Writes the contact sheet of a run: each view as the model saw it, its label and the rules that it triggered.
pub(super) fn write(summary: &Summary, device: &str, path: &Path) -> Result<(), String> {
    let record = summary.recorder.lock();
    let mut rules: Vec<Arc<str>> = record.sightings.iter().flat_map(|s| s.fired.iter().cloned()).collect();
    rules.sort();
    rules.dedup();
    let colour = |rule: &Arc<str>| ACCENTS[rules.iter().position(|r| r == rule).unwrap_or(0) % ACCENTS.len()];
    let tile = |sighting: &Sighting| Tile {
        picture: sighting.picture.clone().unwrap_or_default(),
        caption: vec![sighting.label.to_string(), sighting.title.clone()],
        probability: Some(sighting.probability),
        badges: sighting.fired.iter().map(|rule| (rule.to_string(), colour(rule))).collect(),
    };
    let tiles = record.sightings.iter().filter(|s| s.picture.is_some()).map(tile).collect();
    let fired = rules.join(", ");
    let sheet = Sheet {
        title: format!("What {device} saw"),
        subtitle: format!(
            "{} frames; rules that fired: {}",
            record.frames,
            if fired.is_empty() { "none" } else { &fired }
        ),
        banner: None,
        tiles,
        footer: vec![summary.model.clone()],
    };
    drop(record);
    store(path, &sheet)
}

/// Writes what a camera's frame and its regions look like to the model.
pub(super) fn write_look(frame: &Rgb, camera: &CameraPlan, seen: &[Look], path: &Path) -> Result<(), String> {
    let mut banner = oriented(frame, camera.orientation);
    let (width, height) = (banner.width, banner.height);
    for (region, colour) in std::iter::zip(&camera.regions, ACCENTS.iter().cycle()) {
        if let Ok(rect) = area_in_frame(Some(&region.area), width, height) {
            annotate(&mut banner, rect, &region.name, *colour);
        }
    }
    let tile = |look: &Look| Tile {
        picture: look.picture.clone(),
        caption: vec![look.label.to_string(), look.name.to_string()],
        probability: Some(look.probability),
        badges: Vec::new(),
    };
    let sheet = Sheet {
        title: format!("What the model sees through {}", camera.name),
        subtitle: format!("A frame of {width}x{height}"),
        banner: Some(banner),
        tiles: seen.iter().map(tile).collect(),
        footer: Vec::new(),
    };
    store(path, &sheet)
}

fn store(path: &Path, sheet: &Sheet) -> Result<(), String> {
    store_picture(path, &sheet.render())
}

fn store_picture(path: &Path, picture: &Rgb) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("writing {}: {error}", path.display());
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    write_png(path, picture).map_err(failed)
}

/// Writes a confusion matrix of the classes that occur.
pub(super) fn write_confusion(judgement: &Judgement, labels: &Labels, of: &str, path: &Path) -> Result<(), String> {
    let classes: Vec<usize> = judgement.classes().iter().map(|c| c.class).collect();
    let name = |&class: &usize| labels.get(class).unwrap_or_default().to_owned();
    let row = |&truth: &usize| classes.iter().map(|&predicted| judgement.count(truth, predicted)).collect();
    let matrix = Matrix {
        title: "What was taken for what".into(),
        subtitle: format!("{} {of}, {:.1} % right; rows: truth", judgement.photos(), 100.0 * judgement.top1()),
        names: classes.iter().map(name).collect(),
        counts: classes.iter().map(row).collect(),
    };
    store_picture(path, &matrix.render())
}

/// A photo that was taken for something else.
pub(super) struct Mistake {
    pub(super) photo: PathBuf,
    pub(super) truth: String,
    pub(super) taken_for: String,
    pub(super) probability: f32,
}

/// Writes the worst of `count` mistakes.
pub(super) fn write_mistakes(worst: &[Mistake], count: usize, path: &Path) -> Result<(), String> {
    let tile = |mistake: &Mistake| Tile {
        picture: thumbnail(&mistake.photo),
        caption: vec![
            mistake.taken_for.clone(),
            format!("is {}", mistake.truth),
            mistake.photo.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        ],
        probability: Some(mistake.probability),
        badges: Vec::new(),
    };
    let sheet = Sheet {
        title: "The worst mistakes".into(),
        subtitle: format!("{count} held-out photos were taken for something else; the surest first"),
        tiles: worst.iter().map(tile).collect(),
        ..Sheet::default()
    };
    store(path, &sheet)
}

/// At most 200 pixels wide and high; empty where the photo is gone.
fn thumbnail(photo: &Path) -> Rgb {
    let rgb = decode::decode_file(photo).unwrap_or_default();
    let (width, height) = (rgb.width, rgb.height);
    let Some(picture) = image::RgbImage::from_raw(width, height, rgb.data).filter(|p| !p.is_empty()) else {
        return Rgb::default();
    };
    let small = image::DynamicImage::ImageRgb8(picture).thumbnail(200, 200).into_rgb8();
    Rgb { width: small.width(), height: small.height(), data: small.into_raw() }
}
