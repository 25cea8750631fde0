//! Which models are in the cache, whoever fetched them.
//!
//! Sizes are those of the files on disk, each counted once however many names it has. The time of last
//! use is the latest time of access of a model's files, which Python's `scan_cache_dir` shows too.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Result, io};
use super::name::is_commit;
use super::settings::Settings;

/// A repository in the cache.
#[derive(Clone, Debug)]
pub struct Installed {
    /// `ORG/NAME`.
    pub repo: String,
    /// Its folder.
    pub root: PathBuf,
    /// Its commits that have files here, the latest last.
    pub revisions: Vec<Revision>,
    /// Bytes of its finished files.
    pub size: u64,
    /// Bytes of files that did not arrive in full.
    pub unfinished: u64,
    /// Names that lead nowhere.
    pub dangling: Vec<PathBuf>,
}

/// A commit that has files here.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The commit.
    pub commit: String,
    /// The folder with its files.
    pub folder: PathBuf,
    /// Branches and tags that were this commit when they were fetched.
    pub references: Vec<String>,
    /// Bytes of its files.
    pub size: u64,
    /// When a file of it was read last.
    pub used: Option<SystemTime>,
    /// When a file of it was written last.
    pub written: Option<SystemTime>,
}

impl Installed {
    /// The revision that a bare name means: what `main` was, or else the latest.
    pub fn current(&self) -> Option<&Revision> {
        let main = |revision: &&Revision| revision.references.iter().any(|name| name == "main");
        self.revisions.iter().find(main).or(self.revisions.last())
    }
}

/// All models in the cache, by name. A cache that is not there has none.
///
/// # Errors
/// What the system says.
pub fn installed(settings: &Settings) -> Result<Vec<Installed>> {
    let mut models = Vec::new();
    for folder in folders(&settings.cache)? {
        let name = folder.file_name().and_then(|name| name.to_str());
        if let Some((org, model)) = name
            .and_then(|name| name.strip_prefix("models--"))
            .and_then(|rest| rest.split_once("--"))
        {
            models.push(look(format!("{org}/{model}"), folder.clone())?);
        }
    }
    models.sort_by_key(|model| model.repo.to_lowercase());
    Ok(models)
}

fn look(repo: String, root: PathBuf) -> Result<Installed> {
    let references = references(&root.join("refs"))?;
    let (mut all, mut dangling, mut revisions) = (HashMap::new(), Vec::new(), Vec::new());
    for folder in folders(&root.join("snapshots"))? {
        let Some(commit) = folder.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let mut files = HashMap::new();
        let (mut used, mut written) = (None, None);
        for path in files_in(&folder)? {
            let Ok(file) = std::fs::metadata(&path) else {
                dangling.push(path);
                continue;
            };
            used = used.max(file.accessed().ok());
            written = written.max(file.modified().ok());
            files.insert((file.dev(), file.ino()), file.len());
        }
        let mut names: Vec<String> = references
            .iter()
            .filter(|(_, of)| of == commit)
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        revisions.push(Revision {
            commit: commit.to_owned(),
            size: files.values().sum(),
            references: names,
            used,
            written,
            folder,
        });
        all.extend(files);
    }
    revisions.sort_by_key(|revision| revision.written);
    let mut unfinished = 0;
    for path in files_in(&root.join("blobs"))? {
        let is_part = path.extension().is_some_and(|end| end == "incomplete");
        if let (true, Ok(file)) = (is_part, std::fs::metadata(&path)) {
            // Blocks of 512 bytes: it may have holes.
            unfinished += file.blocks() * 512;
        }
    }
    dangling.sort();
    Ok(Installed {
        repo,
        root,
        size: all.values().sum(),
        revisions,
        unfinished,
        dangling,
    })
}

/// Names under `refs`, with folders, and the commits that they were.
fn references(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for path in files_in(folder)? {
        let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
        let commit = std::fs::read_to_string(&path).unwrap_or_default();
        if let (Some(name), true) = (name, is_commit(commit.trim())) {
            found.push((name.to_owned(), commit.trim().to_owned()));
        }
    }
    Ok(found)
}

/// The folders right in `folder`.
pub(super) fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect())
}

/// All that is in `folder` and the folders in it and is no folder. A link to a folder is not followed.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut left) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = left.pop() {
        for path in entries(&folder)? {
            match path.symlink_metadata() {
                Ok(file) if file.is_dir() => left.push(path),
                _ => files.push(path),
            }
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io("list", folder)(e)),
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|e| e.map(|e| e.path())).collect();
    let mut paths = paths.map_err(io("list", folder))?;
    paths.sort();
    Ok(paths)
}
