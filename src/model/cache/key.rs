//! What a kept model depends on.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::file::EXTENSION;
use crate::files::Stamp;
use crate::kernels::{Choice, Kernel};
use crate::model::manifest::Manifest;

/// Everything that went into a kept model. Any change, and it is made anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::model) struct Key {
    /// This program: another build may pack in another order.
    program: Option<Stamp>,
    /// The ONNX file. By its stamp and not by its contents: hashing reads all of it (VGG16's has 138 MB), which a start from the cache is there to avoid.
    model: Stamp,
    /// SHA-256 of the manifest: it says the size of the picture, and which digest of the model was checked.
    manifest: String,
    kernel: Kernel,
    choice: Choice,
}

impl Key {
    /// `None` where the files cannot be looked at.
    pub(in crate::model) fn new(model: &Path, manifest: &Manifest, kernel: Kernel, choice: Choice) -> Option<Key> {
        let program = std::env::current_exe().ok().and_then(|path| Stamp::of(&path));
        let manifest = hexadecimal(&Sha256::digest(fs::read(&manifest.path).ok()?));
        Some(Key { program, model: Stamp::of(model)?, manifest, kernel, choice })
    }

    pub(super) fn model_exists(&self) -> bool {
        self.model.path().exists()
    }

    /// One file for a model, kernel and choice of algorithms, so that a model that changes replaces its own.
    pub(super) fn file_name(&self) -> String {
        let stem = self.model.path().file_stem().unwrap_or_default().to_string_lossy();
        let stem: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(80).collect();
        let which = format!("{}\0{}\0{:?}", self.model.path().display(), self.kernel, self.choice);
        let which = hexadecimal(&Sha256::digest(which.as_bytes()));
        format!("{}-{}.{EXTENSION}", stem.trim_start_matches('.'), &which[..12])
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
