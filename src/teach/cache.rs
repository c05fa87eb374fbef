//! Features kept from one teaching to the next, so that another label costs its own photos only.
//!
//! The file: `MAGIC`, the trunk's key (32 bytes), the number of features (u32), then entries of a photo's key (32 bytes) and its features
//! (f32 each), all little-endian. It is only ever a saving: what does not fit is made anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::files::write_atomically;

const MAGIC: &[u8; 8] = b"spotfea1";
/// A quarter of a million entries of 512 features.
const MAX_BYTES: u64 = 512 << 20;

/// SHA-256.
pub type Key = [u8; 32];

/// The features of photos by their keys.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    trunk: Key,
    entries: HashMap<Key, Vec<f32>>,
    changed: bool,
}

impl Cache {
    /// Reads the file at `path`, if there is one, and if it is of this trunk.
    pub fn open(path: &Path, trunk: Key) -> Cache {
        let entries = read(path, &trunk).unwrap_or_default();
        Cache { path: path.into(), trunk, entries, changed: false }
    }

    /// The features of a photo, if they are known.
    pub fn get(&self, key: &Key) -> Option<&Vec<f32>> {
        self.entries.get(key)
    }

    /// Keeps a photo's features.
    pub fn put(&mut self, key: Key, features: Vec<f32>) {
        self.changed = true;
        self.entries.insert(key, features);
    }

    /// Writes the file, if something is new; entries of another length than the first are left out.
    ///
    /// # Errors
    /// The file cannot be written; the message names it.
    pub fn store(&mut self) -> std::io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let dims = self.entries.values().next().map_or(0, Vec::len);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.trunk);
        bytes.extend((dims as u32).to_le_bytes());
        for (key, features) in self.entries.iter().filter(|(_, f)| f.len() == dims) {
            if bytes.len() as u64 + 32 + dims as u64 * 4 > MAX_BYTES {
                break;
            }
            bytes.extend(key);
            bytes.extend(features.iter().flat_map(|v| v.to_le_bytes()));
        }
        write_atomically(&self.path, &bytes)?;
        self.changed = false;
        Ok(())
    }
}

fn read(path: &Path, trunk: &Key) -> Option<HashMap<Key, Vec<f32>>> {
    let about = std::fs::metadata(path).ok().filter(|m| m.is_file() && m.len() <= MAX_BYTES)?;
    let bytes = std::fs::read(path).ok().filter(|b| b.len() as u64 == about.len())?;
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(trunk)?;
    let (dims, rest) = rest.split_first_chunk::<4>()?;
    let size = (u32::from_le_bytes(*dims) as usize).checked_mul(4)?.checked_add(32)?;
    if rest.len() % size != 0 {
        return None;
    }
    let entry = |entry: &[u8]| {
        let (key, values) = entry.split_first_chunk::<32>()?;
        let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
        values.iter().all(|v| v.is_finite()).then_some((*key, values))
    };
    rest.chunks_exact(size).map(entry).collect()
}

/// The key of parts that follow one another.
pub fn key(parts: &[&[u8]]) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_the_next_time_and_only_for_this_trunk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let (trunk, photo) = (key(&[b"trunk"]), key(&[b"photo", b"1"]));
        let mut cache = Cache::open(&path, trunk);
        cache.store().unwrap();
        assert!(!path.exists(), "nothing new, nothing written");
        cache.put(photo, vec![1.5, -2.0]);
        cache.store().unwrap();
        assert_eq!(Cache::open(&path, trunk).get(&photo), Some(&vec![1.5, -2.0]));
        assert_eq!(Cache::open(&path, key(&[b"other"])).get(&photo), None);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Cache::open(&path, trunk).get(&photo), None, "cut at {cut}");
        }
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
