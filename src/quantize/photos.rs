//! Which photos of a folder calibrate, and which are held back to judge.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Folders within folders at most.
const MAX_DEPTH: usize = 8;
/// Photos at most, so that a wrong folder ends in a message.
const MAX_PHOTOS: usize = 1_000_000;

/// Photos that calibrate, and others that do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// For the calibration.
    pub calibration: Vec<PathBuf>,
    /// Held back.
    pub held_back: Vec<PathBuf>,
}

/// All photos (.jpg, .jpeg, .png) of a folder and the folders in it, in the order of their names.
///
/// # Errors
/// The folder cannot be read, or holds none; the message says so.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = VecDeque::from([(folder.to_owned(), 0)]);
    let mut photos = Vec::new();
    while let Some((folder, depth)) = folders.pop_front() {
        let failed = |e: std::io::Error| format!("reading the folder {}: {e}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && depth < MAX_DEPTH {
                folders.push_back((path, depth + 1));
            } else if is_photo(&path) && path.is_file() {
                photos.push(path);
            }
        }
        if photos.len() > MAX_PHOTOS {
            return Err(format!("more than {MAX_PHOTOS} photos in {}; is it the right folder?", folder.display()));
        }
    }
    if photos.is_empty() {
        return Err(format!("no photo (.jpg, .jpeg, .png) in {} or the folders in it", folder.display()));
    }
    photos.sort();
    Ok(photos)
}

fn is_photo(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
}

/// `calibration` photos at equal distances, so that every folder has its share, and `held_back` of the others likewise. Where
/// there are fewer than that, the calibration comes first, but leaves one photo in six (where there are six) to the judges.
pub fn split(photos: &[PathBuf], calibration: usize, held_back: usize) -> Split {
    let for_judges = if held_back == 0 { 0 } else { held_back.min(photos.len() / 6) };
    let calibration = calibration.min(photos.len() - for_judges);
    let chosen: Vec<usize> = spread(photos.len(), calibration);
    let others: Vec<usize> = (0..photos.len()).filter(|i| chosen.binary_search(i).is_err()).collect();
    let held_back = spread(others.len(), held_back.min(others.len())).into_iter().map(|i| others[i]);
    let path = |index: usize| photos[index].clone();
    Split { held_back: held_back.map(path).collect(), calibration: chosen.into_iter().map(path).collect() }
}

/// `count` of `all` indices at equal distances.
fn spread(all: usize, count: usize) -> Vec<usize> {
    (0..count).map(|i| i * all / count.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<PathBuf> {
        (0..count).map(|i| PathBuf::from(format!("{i:04}.jpg"))).collect()
    }

    #[track_caller]
    fn check(all: usize, wanted: [usize; 2], found: [usize; 2]) {
        let split = split(&names(all), wanted[0], wanted[1]);
        assert_eq!([split.calibration.len(), split.held_back.len()], found);
        assert!(split.held_back.iter().all(|p| !split.calibration.contains(p)));
    }

    #[test]
    fn no_photo_serves_twice() {
        check(589, [100, 20], [100, 20]);
        check(60, [100, 20], [50, 10]);
        check(110, [100, 20], [92, 18]);
        check(5, [100, 20], [5, 0]);
        check(60, [100, 0], [60, 0]);
        check(1, [1, 1], [1, 0]);
    }

    #[test]
    fn photos_are_found_in_folders_of_folders() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(folder.path()).unwrap_err().contains("no photo"));
        std::fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for name in ["b/c/1.JPG", "b/2.png", "z.jpeg", "b/notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = list(folder.path()).unwrap();
        assert_eq!(found, ["b/2.png", "b/c/1.JPG", "z.jpeg"].map(|n| folder.path().join(n)));
    }
}
