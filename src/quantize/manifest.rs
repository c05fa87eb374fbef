//! The manifest of the quantised model: the float model's, with its files beside it and a digest of its own.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::files::write_atomically;
use crate::model::Manifest;

/// Writes the model, the files that its manifest names (where the folder is another one), and the manifest, last.
///
/// # Errors
/// A file cannot be read or written; the message names it.
pub(super) fn write(source: &Manifest, output: &Path, onnx: &[u8], sha256: &str, origin: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(&source.path).map_err(|e| format!("reading {}: {e}", source.path.display()))?;
    let mut table: Table = text.parse().map_err(|e| format!("{}: {e}", source.path.display()))?;
    let (from, to) = (folder(&source.path), folder(output));
    let elsewhere = std::fs::canonicalize(&from).ok() != std::fs::canonicalize(&to).ok();
    for (section, key) in [("output", "labels"), ("source", "photo")] {
        let named = table.get_mut(section).and_then(Value::as_table_mut).and_then(|s| s.get_mut(key));
        if let (Some(Value::String(name)), true) = (named, elsewhere) {
            *name = copy(&from.join(&*name), &to)?;
        }
    }
    let section = table.entry("source").or_insert_with(|| Value::Table(Table::new()));
    let section = section.as_table_mut().ok_or_else(|| format!("{}: `source` is no table", source.path.display()))?;
    section.insert("origin".into(), origin.into());
    section.insert("sha256".into(), sha256.into());
    let text = format!("# Made by `spotter quantize`.\n\n{}", toml::to_string(&table).map_err(|e| e.to_string())?);
    // the model first: a manifest of a model that is not there yet would be of the old one
    write_atomically(output, onnx).map_err(|e| e.to_string())?;
    write_atomically(&Manifest::path_for(output), text.as_bytes()).map_err(|e| e.to_string())
}

/// Whether `output` can be written, before the work of an hour is done.
///
/// # Errors
/// Its folder is not there; the message names it.
pub(super) fn check_folder(output: &Path) -> Result<(), String> {
    let folder = folder(output);
    if folder.is_dir() {
        return Ok(());
    }
    Err(format!("there is no folder {} to write {} into; make it first", folder.display(), output.display()))
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).into()
}

/// Copies a file into a folder; a different file of that name there is not overwritten. Gives its name.
fn copy(file: &Path, folder: &Path) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("reading {}: {e}", file.display()))?;
    let name = file.file_name().ok_or_else(|| format!("{} does not name a file", file.display()))?;
    let target = folder.join(name);
    match std::fs::read(&target) {
        Ok(there) if there == bytes => {}
        Ok(_) => {
            return Err(format!(
                "{} is there already and differs from {}; move it away, or write the model into another folder",
                target.display(),
                file.display()
            ));
        }
        Err(_) => write_atomically(&target, &bytes).map_err(|e| e.to_string())?,
    }
    Ok(name.to_string_lossy().into_owned())
}
