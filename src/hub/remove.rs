//! Removing models from the cache.
//!
//! Invariants: nothing outside the repository's own folders is touched; what another process is fetching
//! stays; a file that another revision has stays.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::{HubError, Result, io};
use super::installed::{Installed, files_in, installed};
use super::lock::{Lock, Tried};
use super::name::Name;
use super::settings::Settings;
use super::store::Store;

/// What would be, or was, removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// `ORG/NAME`.
    pub repo: String,
    /// The commits.
    pub commits: Vec<String>,
    /// Bytes that become free.
    pub bytes: u64,
    /// Whether nothing of the repository stays.
    pub whole: bool,
    root: PathBuf,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    locks: PathBuf,
}

/// What removing the model would remove: of the whole repository, or of the revision of `name` alone.
///
/// # Errors
/// If it is not in the cache.
pub fn plan(settings: &Settings, name: &Name, only_revision: bool) -> Result<Removal> {
    let absent = || HubError::Absent {
        name: name.to_string(),
        cache: settings.cache.clone(),
    };
    let models = installed(settings)?;
    let model = models.into_iter().find(|model| model.repo == name.repo());
    let model = model.ok_or_else(absent)?;
    let locks = Store::new(settings, name).locks().to_path_buf();
    let commits: Vec<String> = match only_revision {
        false => model.revisions.iter().map(|r| r.commit.clone()).collect(),
        true => {
            let wanted = name.revision();
            let of = |r: &&super::Revision| {
                r.commit == wanted || r.references.iter().any(|name| name == wanted)
            };
            vec![
                model
                    .revisions
                    .iter()
                    .find(of)
                    .ok_or_else(absent)?
                    .commit
                    .clone(),
            ]
        }
    };
    if commits.len() == model.revisions.len() {
        return Ok(Removal {
            repo: model.repo,
            commits,
            bytes: model.size + model.unfinished,
            whole: true,
            folders: vec![model.root.clone()],
            files: Vec::new(),
            root: model.root,
            locks,
        });
    }
    part(model, commits, locks)
}

/// The folders of `commits`, and the files that no other commit has.
fn part(model: Installed, commits: Vec<String>, locks: PathBuf) -> Result<Removal> {
    let mut needed = HashSet::new();
    let mut gone = HashSet::new();
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for revision in &model.revisions {
        let goes = commits.contains(&revision.commit);
        for file in files_in(&revision.folder)? {
            // Where the link leads; a file of its own is no blob and goes with its folder.
            if let Ok(content) = file.canonicalize() {
                match goes {
                    true => gone.insert(content),
                    false => needed.insert(content),
                };
            }
        }
        if goes {
            folders.push(revision.folder.clone());
            folders.push(model.root.join(".no_exist").join(&revision.commit));
            let reference = |name: &String| model.root.join("refs").join(name);
            files.extend(revision.references.iter().map(reference));
            // What Python remembers of the commit's files.
            let tree = format!("{}.json", revision.commit);
            files.push(model.root.join("trees").join(tree));
        }
    }
    let mut bytes = 0;
    let blobs = model.root.join("blobs").canonicalize().ok();
    for content in gone.difference(&needed) {
        bytes += std::fs::metadata(content).map_or(0, |file| file.len());
        if blobs
            .as_deref()
            .is_some_and(|blobs| content.parent() == Some(blobs))
        {
            files.push(content.clone());
        }
    }
    Ok(Removal {
        repo: model.repo,
        commits,
        bytes,
        whole: false,
        root: model.root,
        folders,
        files,
        locks,
    })
}

/// Removes what [`plan`] found.
///
/// # Errors
/// If another process is fetching the model, or the system refuses.
pub fn remove(removal: &Removal) -> Result {
    // Held until all is gone, so that nobody begins to fetch what is being removed.
    let mut held = Vec::new();
    for path in files_in(&removal.locks)? {
        match Lock::attempt(&path)? {
            Tried::Held(lock) => held.push(lock),
            Tried::Taken => {
                return Err(HubError::Busy {
                    repo: removal.repo.clone(),
                });
            }
        }
    }
    // Names before contents: no name may lead nowhere in between.
    let mut folders = removal.folders.clone();
    if removal.whole {
        folders.splice(
            0..0,
            ["refs", "snapshots"].map(|name| removal.root.join(name)),
        );
        folders.push(removal.locks.clone());
    }
    let (names, contents): (Vec<&PathBuf>, Vec<&PathBuf>) = removal
        .files
        .iter()
        .partition(|file| file.starts_with(removal.root.join("refs")));
    for file in names {
        gone(file, std::fs::remove_file(file))?;
    }
    for folder in &folders {
        gone(folder, std::fs::remove_dir_all(folder))?;
    }
    for file in contents {
        gone(file, std::fs::remove_file(file))?;
    }
    Ok(())
}

fn gone(path: &Path, removed: std::io::Result<()>) -> Result {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(e)),
        _ => Ok(()),
    }
}
