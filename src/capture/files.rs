//! Photos as a source: a photo, a glob, or a folder (with the folders in it), in the order of their paths.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{CaptureError, Frame, Next, PixelFormat, Source, decode};
use crate::clock::Monotonic;
use crate::telemetry::CameraCounters;

/// Photos at most, so that a glob over a whole disk ends.
const MAX_PHOTOS: usize = 1_000_000;

/// A list of photos, played at a rate.
pub(super) struct Files {
    photos: Vec<Arc<Path>>,
    next: usize,
    repeat: bool,
    interval: Duration,
    due: Monotonic,
    sequence: u64,
    counters: Arc<CameraCounters>,
    complained: HashSet<usize>,
}

impl Files {
    /// Lists the photos of `path`.
    pub(super) fn open(
        path: &Path,
        repeat: bool,
        fps: Option<f64>,
        counters: Arc<CameraCounters>,
    ) -> Result<Self, CaptureError> {
        let photos = list(path)?;
        if photos.is_empty() {
            return Err(CaptureError::NoPhotos { path: path.to_owned() });
        }
        let interval = fps.map_or(Duration::ZERO, |fps| Duration::from_secs_f64(1.0 / fps.clamp(1e-6, 1e6)));
        let complained = HashSet::new();
        Ok(Self { photos, next: 0, repeat, interval, due: Monotonic::now(), sequence: 0, counters, complained })
    }

    /// The next photo that can be read; `None` at the end.
    fn read_next(&mut self) -> Option<Frame> {
        let mut failed_in_a_row = 0;
        while failed_in_a_row < self.photos.len() {
            if self.next == self.photos.len() {
                if !self.repeat {
                    return None;
                }
                self.next = 0;
            }
            let index = self.next;
            self.next += 1;
            match read(&self.photos[index], self.sequence) {
                Ok(frame) => {
                    self.sequence += 1;
                    return Some(frame);
                }
                Err(error) => {
                    self.counters.dropped_corrupt.increment();
                    failed_in_a_row += 1;
                    if self.complained.insert(index) {
                        log::warn!("{error}");
                    }
                }
            }
        }
        None
    }
}

impl Source for Files {
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let wait = self.due.since(Monotonic::now());
        std::thread::sleep(wait.min(timeout));
        if wait > timeout {
            return Ok(Next::Idle);
        }
        let Some(frame) = self.read_next() else { return Ok(Next::End) };
        self.due = self.due.max(Monotonic::now() - self.interval) + self.interval;
        self.counters.captured.increment();
        Ok(Next::Frame(frame))
    }

    fn describe(&self) -> String {
        format!("{} photos", self.photos.len())
    }
}

fn read(path: &Arc<Path>, sequence: u64) -> Result<Frame, decode::DecodeError> {
    let captured = Monotonic::now();
    let frame = |format, width, height, stride, data| Frame {
        format,
        width,
        height,
        stride,
        data,
        captured,
        sequence,
        origin: Some(path.clone()),
    };
    let bytes = decode::read_limited(path)?;
    if bytes.starts_with(&[0xFF, 0xD8]) {
        return Ok(frame(PixelFormat::Jpeg, 0, 0, 0, bytes));
    }
    let rgb = decode::decode_file(path)?;
    Ok(frame(PixelFormat::Rgb24, rgb.width, rgb.height, rgb.width as usize * 3, rgb.data))
}

fn list(path: &Path) -> Result<Vec<Arc<Path>>, CaptureError> {
    let mut photos: Vec<PathBuf> = if path.is_dir() {
        let mut found = Vec::new();
        walk(path, 0, &mut found)?;
        found
    } else if path.exists() {
        vec![path.to_owned()]
    } else {
        let pattern = path.to_string_lossy();
        let bad = |problem: String| CaptureError::Pattern { pattern: pattern.clone().into_owned(), problem };
        let matches = glob::glob(&pattern).map_err(|e| bad(e.to_string()))?;
        matches.filter_map(Result::ok).filter(|p| is_photo(p)).take(MAX_PHOTOS).collect()
    };
    photos.sort();
    Ok(photos.into_iter().map(Arc::from).collect())
}

/// Collects the photos of a folder and of the folders in it, four levels deep.
fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), CaptureError> {
    let unreadable = |source| CaptureError::Folder { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            if depth < 4 {
                walk(&path, depth + 1, found)?;
            }
        } else if is_photo(&path) && found.len() < MAX_PHOTOS {
            found.push(path);
        }
    }
    Ok(())
}

fn is_photo(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two photos in folders of their own, one that is none, and a text.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, grey) in [("b/2.png", 20), ("a/1.JPG", 10)] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(4, 4, image::Rgb([grey; 3])).save(path).unwrap();
        }
        std::fs::write(folder.path().join("a/0.png"), "no photo").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no photo either").unwrap();
        folder
    }

    fn names(source: &mut Files, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        while names.len() < count {
            match source.next_frame(Duration::from_secs(1)).unwrap() {
                Next::Frame(f) => names.push(f.origin.unwrap().file_name().unwrap().to_string_lossy().into_owned()),
                Next::Idle => {}
                Next::End => break,
            }
        }
        names
    }

    #[test]
    fn photos_come_in_order_and_a_bad_one_is_counted() {
        let (folder, counters) = (folder(), Arc::new(CameraCounters::default()));
        let mut source = Files::open(folder.path(), false, None, counters.clone()).unwrap();
        assert_eq!(names(&mut source, 9), ["1.JPG", "2.png"]);
        assert_eq!((counters.captured.get(), counters.dropped_corrupt.get()), (2, 1));
        let pattern = folder.path().join("*/*.png");
        let mut source = Files::open(&pattern, true, Some(1000.0), counters).unwrap();
        assert_eq!(names(&mut source, 3), ["2.png", "2.png", "2.png"]);
    }

    #[test]
    fn the_rate_is_kept_and_waiting_is_idle() {
        let folder = folder();
        let mut source = Files::open(&folder.path().join("b"), true, Some(20.0), Arc::default()).unwrap();
        let started = std::time::Instant::now();
        names(&mut source, 4);
        assert!(started.elapsed() >= Duration::from_millis(145), "{:?}", started.elapsed());
        assert!(matches!(source.next_frame(Duration::ZERO).unwrap(), Next::Idle));
    }

    #[test]
    fn nothing_to_show_is_an_error_that_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none-*.jpg"), folder.path().join("[")] {
            let error = Files::open(&path, false, None, Arc::default()).err().unwrap().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
