//! From photos to features, through the trunk.

use std::path::Path;

use crate::capture::decode;
use crate::config::plan::{Area, Fit, Flip, Orientation};
use crate::model::Model;
use crate::preprocess::{InputTensor, Preprocessor};

use super::cache::{Cache, Key, key};
use super::photos::Photo;
use super::progress::Progress;

/// Entries between two writings of the cache: what an interruption costs.
const STORE_EVERY: usize = 200;

/// How a photo is shown to the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As the daemon will see it.
    Plain,
    /// Mirrored.
    Flipped,
    /// The middle four fifths.
    Cropped,
    /// The middle four fifths, mirrored.
    CroppedFlipped,
}

impl View {
    /// All, the plain one first.
    pub const ALL: [View; 4] = [View::Plain, View::Flipped, View::Cropped, View::CroppedFlipped];

    fn orientation(self) -> Orientation {
        let flip = matches!(self, View::Flipped | View::CroppedFlipped).then_some(Flip::Horizontal);
        Orientation { flip, ..Orientation::default() }
    }

    fn area(self) -> Option<Area> {
        matches!(self, View::Cropped | View::CroppedFlipped).then_some(Area::Fractions([0.1, 0.1, 0.8, 0.8]))
    }
}

/// The features of one photo, by view.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Where it lies in the list of photos.
    pub photo: usize,
    /// Its content.
    pub key: Key,
    /// As many as views were asked for, the plain one first.
    pub views: Vec<Vec<f32>>,
}

/// What the extraction did.
#[derive(Clone, Debug, Default)]
pub struct Extracted {
    /// The photos that could be read.
    pub examples: Vec<Example>,
    /// The others, each with its error.
    pub unreadable: Vec<String>,
    /// Runs of the trunk: the others were in the cache.
    pub runs: usize,
}

/// Features of all photos in all `views`.
///
/// # Errors
/// The trunk fails, or the cache cannot be written.
pub fn extract(trunk: &mut Model, cache: &mut Cache, photos: &[Photo], views: &[View]) -> Result<Extracted, String> {
    let mut preprocessors: Vec<Preprocessor> =
        views.iter().map(|v| Preprocessor::new(trunk.input(), Fit::Crop, v.orientation())).collect();
    let mut progress = Progress::new("photos", photos.len());
    let (mut extracted, mut stored) = (Extracted::default(), 0);
    for (index, photo) in photos.iter().enumerate() {
        match one(trunk, cache, &photo.path, views, &mut preprocessors, &mut extracted.runs) {
            Ok((key, views)) => extracted.examples.push(Example { photo: index, key, views }),
            Err(Trouble::Photo(error)) => extracted.unreadable.push(error),
            Err(Trouble::Trunk(error)) => return Err(error),
        }
        if extracted.runs >= stored + STORE_EVERY {
            stored = extracted.runs;
            cache.store().map_err(|e| e.to_string())?;
        }
        progress.step();
    }
    cache.store().map_err(|e| e.to_string())?;
    Ok(extracted)
}

enum Trouble {
    Photo(String),
    Trunk(String),
}

fn one(
    trunk: &mut Model,
    cache: &mut Cache,
    path: &Path,
    views: &[View],
    preprocessors: &mut [Preprocessor],
    runs: &mut usize,
) -> Result<(Key, Vec<Vec<f32>>), Trouble> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = decode::read_limited(path).map_err(|e| Trouble::Photo(e.to_string()))?;
    let content = key(&[&bytes]);
    let mut rgb = None;
    let mut features = Vec::new();
    for (view, preprocessor) in views.iter().zip(preprocessors) {
        let key = key(&[&content, &[*view as u8]]);
        if let Some(known) = cache.get(&key) {
            features.push(known.clone());
            continue;
        }
        if rgb.is_none() {
            rgb = Some(decode::decode_bytes(&bytes).map_err(|e| Trouble::Photo(told(&e)))?);
        }
        let Some(rgb) = &rgb else { continue };
        let mut input = InputTensor::U8(Vec::new());
        preprocessor.fill(rgb, view.area().as_ref(), &mut input).map_err(|e| Trouble::Photo(told(&e)))?;
        let made = trunk.run(&input).map_err(|e| Trouble::Trunk(told(&e)))?;
        if made.iter().any(|v| !v.is_finite()) {
            return Err(Trouble::Trunk(told(&"the trunk's features are not finite numbers: quantise it anew")));
        }
        *runs += 1;
        cache.put(key, made.clone());
        features.push(made);
    }
    Ok((content, features))
}
