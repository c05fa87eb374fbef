//! The folder of one label's photos, without photos that are nearly the same: they would teach nothing, and a copy on both sides of a
//! cross-validation flatters it.

use std::path::{Path, PathBuf};

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use jiff::Timestamp;

use super::likeness::Likeness;
use super::photos::{PhotosError, of_folder};
use crate::capture::{Rgb, decode};
use crate::files::write_atomically;

/// For a picture that a head is taught with: no artefacts that it could learn.
const QUALITY: u8 = 95;
/// Photos of an earlier time that are looked at, the newest (by name): a Pi reads some thirty a second.
const EARLIER: usize = 500;

/// What became of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is a photo now.
    Kept(PathBuf),
    /// It is nearly the same as a photo that is there: so many bits of the hash differ.
    Alike(u32),
}

/// The photos of one label, to which others are added.
#[derive(Debug)]
pub struct Gallery {
    folder: PathBuf,
    camera: String,
    known: Vec<Likeness>,
    least: u32,
}

impl Gallery {
    /// Opens (or makes) `DIR/LABEL` for photos of a camera. A picture is kept when at least `least` bits of its hash differ from every
    /// photo's; 0 keeps all. The photos that are there already count too (the newest 500).
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path, label: &str, camera: &str, least: u32) -> std::io::Result<Gallery> {
        let folder = folder.join(label);
        std::fs::create_dir_all(&folder)
            .map_err(|e| std::io::Error::new(e.kind(), format!("making the folder {}: {e}", folder.display())))?;
        let photos = match of_folder(&folder, label) {
            Ok(photos) if least > 0 => photos,
            Ok(_) | Err(PhotosError::None { .. }) => Vec::new(),
            Err(error) => return Err(std::io::Error::other(error.to_string())),
        };
        let earlier = photos.iter().rev().take(EARLIER).filter_map(|photo| decode::decode_file(&photo.path).ok());
        let known = earlier.map(|rgb| Likeness::of(&rgb)).collect();
        Ok(Gallery { folder, camera: camera.into(), known, least })
    }

    /// Where the photos are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Photos that are known, of earlier times and added.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Keeps the picture as `CAMERA-TIME.jpg` (whole or not at all), unless a photo is nearly the same.
    ///
    /// # Errors
    /// The file cannot be written; the message names it.
    pub fn offer(&mut self, picture: &Rgb) -> std::io::Result<Offered> {
        let likeness = Likeness::of(picture);
        let nearest = self.known.iter().map(|known| known.distance(&likeness)).min();
        if let Some(nearest) = nearest.filter(|nearest| *nearest < self.least) {
            return Ok(Offered::Alike(nearest));
        }
        let path = self.free_name();
        write_atomically(&path, &jpeg(picture)?)?;
        self.known.push(likeness);
        Ok(Offered::Kept(path))
    }

    /// In the order of time; two within a millisecond have different names all the same.
    fn free_name(&self) -> PathBuf {
        let mut time = Timestamp::now().as_millisecond();
        loop {
            let path = self.folder.join(format!("{}-{time}.jpg", self.camera));
            if !path.exists() {
                return path;
            }
            time += 1;
        }
    }
}

fn jpeg(picture: &Rgb) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    let encoded = encoder.encode(&picture.data, picture.width, picture.height, ExtendedColorType::Rgb8);
    encoded.map_err(std::io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripes of a width of their own.
    fn stripes(width: u32) -> Rgb {
        let data =
            (0..64 * 64 * 3).map(|i: u32| if (i / 3 % 64 / width).is_multiple_of(2) { 30 } else { 220 }).collect();
        Rgb { width: 64, height: 64, data }
    }

    #[test]
    fn a_picture_is_kept_once_also_by_the_next_session() {
        let folder = tempfile::tempdir().unwrap();
        let mut gallery = Gallery::open(folder.path(), "cat", "feeder", 6).unwrap();
        let mut kept = Vec::new();
        for width in [4, 4, 9, 4, 13] {
            match gallery.offer(&stripes(width)).unwrap() {
                Offered::Kept(path) => kept.push(path),
                Offered::Alike(distance) => assert_eq!(distance, 0),
            }
        }
        assert_eq!((kept.len(), gallery.known()), (3, 3));
        for path in &kept {
            assert!(path.starts_with(folder.path().join("cat")) && decode::decode_file(path).is_ok());
            assert!(path.file_name().unwrap().to_str().unwrap().starts_with("feeder-"));
        }
        let mut again = Gallery::open(folder.path(), "cat", "feeder", 6).unwrap();
        assert_eq!(again.known(), 3);
        assert!(matches!(again.offer(&stripes(9)).unwrap(), Offered::Alike(distance) if distance < 6));
        let mut all = Gallery::open(folder.path(), "cat", "feeder", 0).unwrap();
        for _ in 0..2 {
            assert!(matches!(all.offer(&stripes(9)).unwrap(), Offered::Kept(_)));
        }
        assert_eq!(std::fs::read_dir(folder.path().join("cat")).unwrap().count(), 5);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cat"), "").unwrap();
        let error = Gallery::open(folder.path(), "cat", "feeder", 6).unwrap_err().to_string();
        assert!(error.contains("making the folder") && error.contains("cat"), "{error}");
    }
}
