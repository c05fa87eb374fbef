//! Writing files so that a reader, or a power cut, finds the old one or the new one and never half of either; telling whether one was replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A file as it was. Writing to it, or putting another in its place, changes one of these, whatever time the new file is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Without links.
    path: PathBuf,
    bytes: u64,
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    modified: [i64; 2],
    changed: [i64; 2],
}

impl Stamp {
    /// `None` where there is nothing, or it cannot be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let path = path.canonicalize().ok()?;
        let about = fs::metadata(&path).ok()?;
        Some(Stamp {
            bytes: about.len(),
            device: about.dev(),
            inode: about.ino(),
            modified: [about.mtime(), about.mtime_nsec()],
            changed: [about.ctime(), about.ctime_nsec()],
            path,
        })
    }

    /// Where the file was.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Replaces (or makes) the file at `path` with `bytes`: a temporary file beside it is written, synchronised and renamed over
/// it, then the folder is synchronised. A temporary file is left behind only if the process dies in between.
///
/// # Errors
/// Says which step failed, and on which file. The old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// [`write_atomically`], with what `write` writes into the new file.
///
/// # Errors
/// As [`write_atomically`].
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = beside(path)?;
    let written = write_synchronised(&temporary, write)
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| told(e, "renaming to", path)));
    if written.is_err() {
        // Whatever this says, the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    let folder = folder(path);
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| told(e, "synchronising the folder", folder))
}

fn write_synchronised(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| told(e, "making the file", path))?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(|e| told(e, "writing", path))
}

/// Removes what writers that have died left in `folder`: temporary files of this module whose process is gone.
pub fn remove_abandoned(folder: &Path) {
    let alive = |pid: &str| pid == std::process::id().to_string() || Path::new("/proc").join(pid).exists();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { continue };
        let Some((rest, number)) = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.')) else { continue };
        let Some((_, pid)) = rest.rsplit_once('.') else { continue };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits(number) && digits(pid) && !alive(pid) {
            // another process may have removed it meanwhile, and what stays is tried again the next time
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A name that no other writer of this process or another uses, in the same folder, so that a rename suffices.
fn beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not name a file", path.display())));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(hidden))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn told(error: io::Error, doing: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn makes_and_replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        for bytes in [&b"first"[..], b"the second, longer", b""] {
            write_atomically(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn only_what_dead_writers_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ours = format!(".a.bin.{}.0.tmp", std::process::id());
        let kept = ["a.bin", ".hidden.tmp", ".a.bin.x.0.tmp", ".a.bin.0.tmp.bak", ours.as_str()];
        // no process has a number above 2^22
        for name in kept.iter().chain(&[".a.bin.9999999.3.tmp"]) {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        remove_abandoned(folder.path());
        let mut kept: Vec<String> = kept.map(String::from).into();
        kept.sort();
        assert_eq!(names(folder.path()), kept);
    }

    #[test]
    fn a_failure_names_the_file_and_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("taken");
        fs::create_dir_all(target.join("x")).unwrap();
        let error = write_atomically(&target, b"bytes").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(names(folder.path()), ["taken"]);
        let missing = folder.path().join("no/such/folder/file");
        assert!(write_atomically(&missing, b"bytes").unwrap_err().to_string().contains("making the file"));
        assert!(write_atomically(Path::new("/"), b"bytes").is_err());
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder(Path::new("sheet.png")), Path::new("."));
        assert_eq!(folder(Path::new("out/sheet.png")), Path::new("out"));
    }
}
