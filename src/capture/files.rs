//! Photos as a source: a photo, a glob, or a folder (with the folders in it), in the order of their paths.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::decode::{self, DecodeError};
use super::{CaptureError, Frame, Next, PixelFormat, Source};
use crate::clock::Monotonic;
use crate::telemetry::CameraCounters;

/// Photos at most, so that a glob over a whole disk ends.
const MAX_PHOTOS: usize = 1_000_000;

/// A list of photos, played at a rate.
pub(super) struct Files {
    path: PathBuf,
    photos: Vec<Arc<Path>>,
    next: usize,
    repeat: bool,
    interval: Duration,
    due: Monotonic,
    sequence: u64,
    /// Photos since the last one that could be read.
    unreadable: usize,
    complained: HashSet<Arc<Path>>,
    counters: Arc<CameraCounters>,
}

impl Files {
    /// Lists the photos of `path`.
    pub(super) fn open(
        path: &Path,
        repeat: bool,
        fps: Option<f64>,
        counters: Arc<CameraCounters>,
    ) -> Result<Self, CaptureError> {
        let interval = fps.map_or(Duration::ZERO, |fps| Duration::from_secs_f64(1.0 / fps.clamp(1e-6, 1e6)));
        Ok(Self {
            path: path.to_owned(),
            photos: list(path)?,
            next: 0,
            repeat,
            interval,
            due: Monotonic::now(),
            sequence: 0,
            unreadable: 0,
            complained: HashSet::new(),
            counters,
        })
    }

    /// The next photo's path; `None` at the end. Another round takes the photos that are there by then.
    fn next_photo(&mut self) -> Result<Option<Arc<Path>>, CaptureError> {
        if self.next == self.photos.len() && self.repeat {
            if self.unreadable >= self.photos.len() {
                return Err(CaptureError::Unreadable { path: self.path.clone(), count: self.photos.len() });
            }
            (self.photos, self.next) = (list(&self.path)?, 0);
        }
        let photo = self.photos.get(self.next).cloned();
        self.next += usize::from(photo.is_some());
        Ok(photo)
    }
}

impl Source for Files {
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let wait = self.due.since(Monotonic::now());
        std::thread::sleep(wait.min(timeout));
        if wait > timeout {
            return Ok(Next::Idle);
        }
        let Some(photo) = self.next_photo()? else { return Ok(Next::End) };
        match read(&photo, self.sequence) {
            Ok(frame) => {
                self.due = self.due.max(Monotonic::now() - self.interval) + self.interval;
                self.sequence += 1;
                self.unreadable = 0;
                self.counters.captured.increment();
                Ok(Next::Frame(frame))
            }
            Err(error) => {
                self.counters.dropped_corrupt.increment();
                self.unreadable += 1;
                if self.complained.insert(photo) {
                    log::warn!("{error}");
                }
                // The caller looks at its stop flag between any two of a thousand bad files.
                Ok(Next::Idle)
            }
        }
    }

    fn describe(&self) -> String {
        format!("{} photos of {}", self.photos.len(), self.path.display())
    }
}

/// Reads a photo: a JPEG that is whole stays one, a PNG is decoded.
fn read(path: &Arc<Path>, sequence: u64) -> Result<Frame, DecodeError> {
    let captured = Monotonic::now();
    let frame = |format, [width, height]: [u32; 2], stride, data| {
        let origin = Some(path.clone());
        Frame { format, width, height, stride, data, captured, sequence, origin }
    };
    let bytes = decode::read_limited(path)?;
    let named = |error: DecodeError| DecodeError::File { path: path.to_path_buf(), problem: error.to_string() };
    if bytes.starts_with(&[0xFF, 0xD8]) {
        let size = decode::check_jpeg(&bytes).map_err(named)?;
        return Ok(frame(PixelFormat::Jpeg, size, 0, bytes));
    }
    let rgb = decode::decode_bytes(&bytes).map_err(named)?;
    Ok(frame(PixelFormat::Rgb24, [rgb.width, rgb.height], rgb.width as usize * 3, rgb.data))
}

/// The photos of a file, folder or glob, in the order of their paths; at least one.
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
    if photos.is_empty() {
        return Err(CaptureError::NoPhotos { path: path.to_owned() });
    }
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
    fn a_photo_that_is_cut_off_is_passed_over_and_another_round_takes_what_is_there_by_then() {
        let (folder, counters) = (folder(), Arc::new(CameraCounters::default()));
        let whole = std::fs::read(folder.path().join("a/1.JPG")).unwrap();
        std::fs::write(folder.path().join("a/2.jpg"), &whole[..whole.len() - 1]).unwrap();
        let mut source = Files::open(folder.path(), true, None, counters.clone()).unwrap();
        assert_eq!(names(&mut source, 2), ["1.JPG", "2.png"]);
        std::fs::remove_file(folder.path().join("a/1.JPG")).unwrap();
        std::fs::write(folder.path().join("b/3.jpg"), whole).unwrap();
        assert_eq!(names(&mut source, 3), ["2.png", "3.jpg", "2.png"]);
        // Text and the broken one, three times; each is complained of once.
        assert_eq!((counters.dropped_corrupt.get(), source.complained.len()), (6, 2));
    }

    #[test]
    fn a_folder_of_nothing_readable_ends_once_and_fails_when_it_repeats() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1.jpg", "2.png"] {
            std::fs::write(folder.path().join(name), "no photo").unwrap();
        }
        let mut once = Files::open(folder.path(), false, None, Arc::default()).unwrap();
        assert!(names(&mut once, 1).is_empty());
        let mut repeated = Files::open(folder.path(), true, None, Arc::default()).unwrap();
        let error = (0..9).find_map(|_| repeated.next_frame(Duration::ZERO).err()).unwrap().to_string();
        assert!(error.contains("none of the 2 photos") && error.contains(&*folder.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn what_is_no_file_or_enormous_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let huge = folder.path().join("huge.jpg");
        std::fs::File::create(&huge).unwrap().set_len((64 << 20) + 1).unwrap();
        for (path, expected) in [(&*huge, "64 MiB"), (Path::new("/dev/zero"), "no file"), (folder.path(), "no file")] {
            let error = decode::read_limited(path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&*path.to_string_lossy()), "{error}");
        }
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
