//! The file of a kept model.
//!
//! ```text
//! 0      magic, format, the index's place, length and CRC, then the CRC of all that (numbers little-endian)
//! 64     small arrays, each on a cache line
//! 64 Ki  large arrays, each on a multiple of 64 KiB, which every page size divides: these are mapped
//! …      the index, in JSON: the key, the place and CRC of every array, the program
//! ```
//! Every byte that is used is under a CRC-32, and all are checked when the file is opened: that reads the weights once, at the speed of memory, which brings
//! them in before the first picture. The checks are against accidents (a card that lies, a file cut short), not against malice: whoever may write
//! to the folder may as well write the model.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::Key;
use crate::files;
use crate::kernels::Part;
use crate::memory::Mapping;

const MAGIC: [u8; 8] = *b"SPOTTERP";
/// Raised with each change to this file's structure. Changes in what is packed need nothing: the key has the program's stamp.
const FORMAT: u32 = 1;
const HEADER: usize = 64;
/// How the files' names end.
pub(super) const EXTENSION: &str = "packed";
/// Arrays of this size on are mapped.
const LARGE: u64 = 64 << 10;
const LINE: u64 = 64;
/// No index is larger: VGG16's has 0.14 MB.
const MOST_INDEX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Index<K, T> {
    key: K,
    arrays: Vec<Place>,
    kept: T,
}

/// Where an array lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    offset: u64,
    bytes: u64,
    crc: u32,
}

/// Writes the file, through a temporary one.
pub(super) fn write(path: &Path, key: &Key, kept: serde_json::Value, arrays: &[Part]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| io::Error::new(e.kind(), format!("making {}: {e}", folder.display())))?;
    files::remove_abandoned(folder);
    remove_orphans(folder);
    let (places, end) = place(arrays);
    let index = serde_json::to_vec(&Index { key, arrays: places.clone(), kept }).map_err(io::Error::other)?;
    files::replace(path, |file| {
        for (place, array) in places.iter().zip(arrays) {
            file.seek(SeekFrom::Start(place.offset))?;
            file.write_all(array.bytes())?;
        }
        file.seek(SeekFrom::Start(end))?;
        file.write_all(&index)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header(end, &index))
    })
}

/// Removes the files of models that are gone: a model that was renamed would leave its old file for ever.
fn remove_orphans(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != EXTENSION) {
            continue;
        }
        let index = File::open(&path).and_then(|file| read_index(&file)).ok();
        let index = index.and_then(|i| serde_json::from_slice::<Index<Key, IgnoredAny>>(&i).ok());
        if index.is_some_and(|index| !index.key.model_exists()) {
            // what cannot be removed is met again the next time
            let _ = fs::remove_file(path);
        }
    }
}

/// The places of all arrays, and where the index begins.
fn place(arrays: &[Part]) -> (Vec<Place>, u64) {
    let bytes = |array: &Part| array.bytes().len() as u64;
    let small: u64 = arrays.iter().map(bytes).filter(|b| *b < LARGE).map(|b| b.next_multiple_of(LINE)).sum();
    let (mut line, mut page) = (HEADER as u64, (HEADER as u64 + small).next_multiple_of(LARGE));
    let places = arrays.iter().map(|array| {
        let bytes = bytes(array);
        let (next, align) = if bytes < LARGE { (&mut line, LINE) } else { (&mut page, LARGE) };
        let offset = *next;
        *next = (offset + bytes).next_multiple_of(align);
        Place { offset, bytes, crc: crc32fast::hash(array.bytes()) }
    });
    (places.collect(), page)
}

fn header(offset: u64, index: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&crc32fast::hash(index).to_le_bytes());
    header[16..24].copy_from_slice(&offset.to_le_bytes());
    header[24..32].copy_from_slice(&(index.len() as u64).to_le_bytes());
    let crc = crc32fast::hash(&header[..32]);
    header[32..36].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads what [`write`] wrote for the same key; large arrays are mapped.
pub(super) fn read<T: DeserializeOwned>(path: &Path, key: &Key) -> io::Result<(T, Vec<Part>)> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(wrong("it is not a regular file"));
    }
    let index = read_index(&file)?;
    // the key first: an index of another format of programs need not make sense beyond it
    let Index { key: found, .. } =
        serde_json::from_slice::<Index<serde_json::Value, IgnoredAny>>(&index).map_err(io::Error::other)?;
    if serde_json::to_value(key).map_err(io::Error::other)? != found {
        return Err(wrong("the model, its manifest or this program has changed since"));
    }
    let index: Index<IgnoredAny, T> = serde_json::from_slice(&index).map_err(io::Error::other)?;
    let arrays = index.arrays.iter().map(|place| read_array(&file, *place)).collect::<io::Result<_>>()?;
    Ok((index.kept, arrays))
}

fn read_index(file: &File) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let four = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let eight = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if header[..8] != MAGIC || four(32) != crc32fast::hash(&header[..32]) {
        return Err(wrong("it does not begin as such a file does"));
    }
    if four(8) != FORMAT {
        return Err(wrong("it is of another version's format"));
    }
    let (offset, bytes) = (eight(16), eight(24));
    if bytes > MOST_INDEX || offset.checked_add(bytes) != Some(file.metadata()?.len()) {
        return Err(wrong("it has been cut short"));
    }
    let mut index = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut index, offset)?;
    if crc32fast::hash(&index) == four(12) { Ok(index) } else { Err(wrong("its index is damaged")) }
}

fn read_array(file: &File, place: Place) -> io::Result<Part> {
    let len = usize::try_from(place.bytes).map_err(io::Error::other)?;
    let part = if place.bytes < LARGE {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, place.offset)?;
        Part::copied(&bytes)
    } else {
        Part::mapped(Mapping::new(file, place.offset, len)?)
    };
    if crc32fast::hash(part.bytes()) == place.crc { Ok(part) } else { Err(wrong("its weights are damaged")) }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Choice, Kernel};
    use crate::model::manifest::Manifest;

    /// A key and arrays of every kind: empty, small, just mapped, of many pages.
    fn sample(folder: &Path) -> (Key, Vec<Part>) {
        let model = folder.join("m.onnx");
        fs::write(&model, b"model").unwrap();
        fs::write(
            folder.join("m.toml"),
            "[input]\nname = \"x\"\nsize = [8, 8]\npreprocess = \"torchvision\"\n[output]\nkind = \"logits\"\n",
        )
        .unwrap();
        let key = Key::new(&model, &Manifest::beside(&model).unwrap(), Kernel::Generic, Choice::default()).unwrap();
        let array = |len: usize| Part::copied(&(0..len).map(|i| (i * 31 % 253) as u8 + 1).collect::<Vec<_>>());
        (key, [0, 5, 64 << 10, 100, 200_001, (64 << 10) - 1].map(array).into())
    }

    fn bytes(arrays: &[Part]) -> Vec<&[u8]> {
        arrays.iter().map(Part::bytes).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (key, arrays) = sample(folder.path());
        let path = folder.path().join("cache/a.packed");
        write(&path, &key, serde_json::json!({ "program": [1, 2] }), &arrays).unwrap();
        let (kept, found): (serde_json::Value, _) = read(&path, &key).unwrap();
        assert_eq!(kept, serde_json::json!({ "program": [1, 2] }));
        assert_eq!(bytes(&found), bytes(&arrays));
        let mut filled = found.iter().filter(|part| !part.bytes().is_empty());
        assert!(filled.all(|part| (part.bytes().as_ptr() as usize).is_multiple_of(64)));
        // replaced while it is mapped: the mapping keeps the old file
        write(&path, &key, serde_json::json!(0), &[]).unwrap();
        assert_eq!(bytes(&found), bytes(&arrays));
        assert_eq!(read::<u8>(&path, &key).unwrap().1.len(), 0);
    }

    /// A bit changed in any section: header, small arrays, mapped arrays, index.
    #[test]
    fn damage_anywhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (key, arrays) = sample(folder.path());
        let path = folder.path().join("a.packed");
        write(&path, &key, serde_json::json!("kept"), &arrays).unwrap();
        let whole = fs::read(&path).unwrap();
        let (places, end) = place(&arrays);
        let mut used: Vec<usize> = (0..36).chain(end as usize..whole.len()).collect();
        for place in places.iter().filter(|place| place.bytes > 0) {
            let (first, last) = (place.offset as usize, (place.offset + place.bytes) as usize - 1);
            used.extend([first, (first + last) / 2, last]);
        }
        for at in used {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&path, &damaged).unwrap();
            assert!(read::<String>(&path, &key).is_err(), "byte {at}");
        }
        for len in (0..whole.len()).step_by(9973) {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(read::<String>(&path, &key).is_err(), "{len} bytes");
        }
        fs::write(&path, &whole).unwrap();
        read::<String>(&path, &key).unwrap();
    }

    #[test]
    fn another_models_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (key, arrays) = sample(folder.path());
        let path = folder.path().join("a.packed");
        write(&path, &key, serde_json::json!(1), &arrays).unwrap();
        // written again: another time
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (changed, _) = sample(folder.path());
        let error = read::<u8>(&path, &changed).err().unwrap().to_string();
        assert!(error.contains("has changed"), "{error}");
        assert!(read::<u8>(folder.path(), &key).is_err(), "a folder");
    }
}
