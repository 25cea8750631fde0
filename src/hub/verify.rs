//! Whether the contents in the cache are still what they are called by.

use std::fs::File;
use std::path::PathBuf;

use super::digest::Digest;
use super::error::{Result, io};
use super::installed::{Installed, files_in};

/// The finished files of a model whose hash is not their name. Reads all of them. Files that are not
/// called by a hash, because they are copies in a snapshot, are not looked at.
///
/// # Errors
/// If one cannot be read.
pub fn damaged(model: &Installed) -> Result<Vec<PathBuf>> {
    let mut damaged = Vec::new();
    for path in files_in(&model.root.join("blobs"))? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(digest) = name.and_then(Digest::from_etag) else {
            continue;
        };
        let mut file = File::open(&path).map_err(io("open", &path))?;
        let size = file.metadata().map_err(io("look at", &path))?.len();
        if digest.of(&mut file, size).map_err(io("read", &path))? != digest {
            damaged.push(path);
        }
    }
    Ok(damaged)
}
