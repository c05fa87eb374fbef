//! Labelled photos: a folder of folders, or a list.

use std::path::{Path, PathBuf};

/// Photos at most, so that a wrong folder ends in a message.
const MAX_PHOTOS: usize = 1_000_000;

/// A photo and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// JPEG or PNG.
    pub path: PathBuf,
    /// Its folder's name, or what the list says.
    pub label: String,
}

/// Why no list of photos came about.
#[derive(Debug, thiserror::Error)]
pub enum PhotosError {
    /// A folder or list could not be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of a list is not one.
    #[error("{}:{line}: a line is a photo's path, a space or tab, and its label (or class index)", path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Nothing was found.
    #[error(
        "no photo (.jpg, .jpeg, .png) in {}; put each label's photos into a folder of its name, or give a list with a path and a label a line",
        path.display()
    )]
    None {
        /// Where was looked.
        path: PathBuf,
    },
    /// More than anybody has.
    #[error("more than {MAX_PHOTOS} photos in {}; is it the right folder?", path.display())]
    TooMany {
        /// Where was looked.
        path: PathBuf,
    },
}

/// The photos of `path`, in the order of labels and names: `path/<label>/*`, or the lines of a text file (`PHOTO LABEL`, paths
/// relative to the list's folder).
///
/// # Errors
/// [`PhotosError`].
pub fn list(path: &Path) -> Result<Vec<Photo>, PhotosError> {
    let mut photos = if path.is_dir() { from_folders(path)? } else { from_list(path)? };
    if photos.is_empty() {
        return Err(PhotosError::None { path: path.into() });
    }
    if photos.len() > MAX_PHOTOS {
        return Err(PhotosError::TooMany { path: path.into() });
    }
    photos.sort_by(|a, b| (&a.label, &a.path).cmp(&(&b.label, &b.path)));
    Ok(photos)
}

/// The photos of one folder (not of folders in it), all with one label.
///
/// # Errors
/// The folder cannot be read, or holds no photo.
pub fn of_folder(folder: &Path, label: &str) -> Result<Vec<Photo>, PhotosError> {
    let mut photos: Vec<Photo> =
        entries(folder)?.into_iter().filter(|p| is_photo(p)).map(|path| Photo { path, label: label.into() }).collect();
    photos.sort_by(|a, b| a.path.cmp(&b.path));
    if photos.is_empty() { Err(PhotosError::None { path: folder.into() }) } else { Ok(photos) }
}

fn from_folders(path: &Path) -> Result<Vec<Photo>, PhotosError> {
    let mut photos = Vec::new();
    for folder in entries(path)?.into_iter().filter(|p| p.is_dir()) {
        let label = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if label.starts_with('.') {
            continue;
        }
        let found = entries(&folder)?.into_iter().filter(|p| is_photo(p));
        photos.extend(found.map(|path| Photo { path, label: label.clone() }));
    }
    Ok(photos)
}

fn from_list(path: &Path) -> Result<Vec<Photo>, PhotosError> {
    let text = std::fs::read_to_string(path).map_err(|source| PhotosError::Read { path: path.into(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|(index, line)| {
            let split = line.split_once('\t').or_else(|| line.rsplit_once(' '));
            let (photo, label) = split.ok_or(PhotosError::Line { path: path.into(), line: index + 1 })?;
            Ok(Photo { path: folder.join(photo.trim()), label: label.trim().into() })
        })
        .collect()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, PhotosError> {
    let failed = |source| PhotosError::Read { path: folder.into(), source };
    let read = std::fs::read_dir(folder).map_err(failed)?;
    read.map(|entry| entry.map(|e| e.path()).map_err(failed)).collect()
}

fn is_photo(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    path.is_file() && ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_lists_give_the_same_photos() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/1.png", "a/2.JPG", "a/1.jpeg", "a/notes.txt", ".hidden/x.png"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let found = list(folder.path()).unwrap();
        let told: Vec<_> = found.iter().map(|p| (p.label.as_str(), p.path.file_name().unwrap())).collect();
        assert_eq!(told, [("a", "1.jpeg".as_ref()), ("a", "2.JPG".as_ref()), ("b", "1.png".as_ref())]);
        let text = folder.path().join("list.txt");
        std::fs::write(&text, "# photos\nb/1.png b\na/1.jpeg\ta\n\na/2.JPG a\n").unwrap();
        assert_eq!(list(&text).unwrap(), found);
        assert_eq!(of_folder(&folder.path().join("a"), "none").unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(folder.path()).unwrap_err().to_string().contains("a folder of its name"));
        assert!(list(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
        let text = folder.path().join("list.txt");
        std::fs::write(&text, "good.png a\nalone.png\n").unwrap();
        assert!(list(&text).unwrap_err().to_string().contains("list.txt:2"));
    }
}
