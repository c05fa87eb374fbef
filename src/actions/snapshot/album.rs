//! The pictures of one action in its folder: bounded in number and in bytes, the oldest go first.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::plan::SnapshotPlan;
use crate::files::write_atomically;
use crate::rules::Event;

/// See the [module](self).
pub(super) struct Album {
    folder: PathBuf,
    /// What the names of this action's files begin with. An action's name holds no dot, so no other's files do.
    prefix: String,
    count: usize,
    bytes: u64,
    /// Name and size, oldest first; `None` until the folder could be read.
    kept: Option<VecDeque<(OsString, u64)>>,
}

impl Album {
    pub(super) fn new(plan: &SnapshotPlan, action: &str) -> Self {
        let (folder, count, bytes) = (plan.folder.clone(), plan.count, plan.bytes);
        Self { folder, prefix: format!("{action}."), count, bytes, kept: None }
    }

    /// Makes the folder, finds the pictures of earlier runs, and deletes what a crash or a power cut left half written.
    ///
    /// # Errors
    /// A sentence that names the folder.
    pub(super) fn open(&mut self) -> Result<(), String> {
        if self.kept.is_none() {
            self.kept = Some(self.find().map_err(|error| {
                let folder = self.folder.display();
                format!("the folder {folder} cannot be used: {error}; the daemon's user must be able to write there")
            })?);
        }
        Ok(())
    }

    fn find(&self) -> io::Result<VecDeque<(OsString, u64)>> {
        fs::create_dir_all(&self.folder)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            // As `write_atomically` names them.
            let torn =
                text.strip_prefix('.').is_some_and(|rest| rest.starts_with(&self.prefix) && rest.ends_with(".tmp"));
            if torn {
                fs::remove_file(entry.path())?;
            } else if text.starts_with(&self.prefix) && text.ends_with(".jpg") {
                let size = entry.metadata()?.len();
                found.push((name, size));
            }
        }
        // The names begin with the time.
        found.sort();
        Ok(found.into())
    }

    /// Writes a picture, and before it deletes the oldest until it fits.
    ///
    /// # Errors
    /// A sentence that names what is too large, full or missing.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let size = bytes.len() as u64;
        if size > self.bytes {
            return Err(format!("a picture of {size} bytes is larger than `megabytes` allows; raise it"));
        }
        self.open()?;
        self.make_room(size)?;
        let path = self.folder.join(name);
        if let Err(error) = write_atomically(&path, bytes) {
            // The folder may be gone, or what is in it may have changed: it is looked at anew.
            self.kept = None;
            let full = error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded;
            return Err(format!("{error}{}", if full { "; free some space, or lower `megabytes`" } else { "" }));
        }
        let kept = self.kept.get_or_insert_default();
        // A name twice is one file: the same rule at the same millisecond.
        kept.retain(|(other, _)| *other != *name);
        kept.push_back((name.into(), size));
        Ok(())
    }

    fn make_room(&mut self, size: u64) -> Result<(), String> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let mut total: u64 = kept.iter().map(|(_, size)| size).sum();
        while kept.len() >= self.count || total + size > self.bytes {
            let Some((name, size)) = kept.front() else { break };
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                // Whoever took it away made the room.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("deleting the oldest picture {} failed: {error}", path.display()));
                }
                _ => total -= size,
            }
            kept.pop_front();
        }
        Ok(())
    }
}

/// `ACTION.TIME.RULE.LABEL.jpg`; what a label holds besides letters, digits, `-` and `_` becomes `_`.
pub(super) fn file_name(action: &Arc<str>, event: &Event, captured: Timestamp) -> String {
    let time = captured.strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let label: String = event.label.chars().take(40).map(plain).collect();
    format!("{action}.{time}.{}.{label}.jpg", event.rule)
}
