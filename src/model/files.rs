//! Reading files of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::ModelError;

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read_limited(
    what: &'static str,
    path: &Path,
    limit: u64,
    missing: &str,
    too_large: &'static str,
) -> Result<Vec<u8>, ModelError> {
    let failed = |source: std::io::Error| ModelError::Read { what, path: path.into(), source, remedy: missing.into() };
    // before opening: to open a pipe would wait for a writer
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let too_large = |bytes| ModelError::TooLarge { what, path: path.into(), bytes, limit, remedy: too_large };
    if about.len() > limit {
        return Err(too_large(about.len()));
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
    // one more than allowed: a file that grows meanwhile is noticed
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}
