//! One repository's folders in the cache, and how finished files become visible in them.
//!
//! Invariant: a name in `snapshots/COMMIT/` leads to a whole file or is not there; `config.json` is made
//! the last one, so that a snapshot of ours that has it has all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use hf_hub::{CacheRepo, Repo, RepoType};

use super::error::{Result, io as failed};
use super::name::Name;
use super::settings::Settings;

/// A repository in the cache.
#[derive(Debug)]
pub struct Store {
    repo: CacheRepo,
    root: PathBuf,
    locks: PathBuf,
    revision: String,
    links: bool,
}

impl Store {
    /// Where the files of `name` are or will be.
    pub fn new(settings: &Settings, name: &Name) -> Store {
        let folder = Repo::new(name.repo().to_owned(), RepoType::Model).folder_name();
        Store {
            repo: settings.repo(name.repo(), name.revision()),
            root: settings.cache.join(&folder),
            locks: settings.cache.join(".locks").join(folder),
            revision: name.revision().to_owned(),
            links: settings.links,
        }
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of its lock files.
    pub fn locks(&self) -> &Path {
        &self.locks
    }

    /// The finished file with this ETag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(etag)
    }

    /// The lock for the file with this ETag.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// The files of a commit, under their names.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// The commit that the revision was when it was fetched.
    pub fn reference(&self) -> Option<String> {
        let commit = std::fs::read_to_string(self.reference_path()).ok()?;
        let commit = commit.trim();
        super::name::is_commit(commit).then(|| commit.to_owned())
    }

    fn reference_path(&self) -> PathBuf {
        self.root.join("refs").join(&self.revision)
    }

    /// Notes that the revision is `commit` now.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_reference(&self, commit: &str) -> Result {
        if self.revision == commit || self.reference().as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference_path();
        let parent = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        // Beside the folder: everything in it is taken for a revision.
        let new = self.root.join(unique(".pensieve.ref"));
        std::fs::write(&new, commit).map_err(failed("write", &new))?;
        std::fs::rename(&new, &path).map_err(failed("write", &path))
    }

    /// Notes that the commit has no file `name`, for programs that would ask the hub for it. Where
    /// nothing can be written they will ask.
    ///
    /// # Errors
    /// What the system says.
    pub fn note_absent(&self, commit: &str, name: &str) -> Result {
        let folder = self.root.join(".no_exist").join(commit);
        let path = folder.join(name);
        // What is noted stays as it is: the cache may be read-only now.
        if path.exists() {
            return Ok(());
        }
        let made = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, b""));
        match made {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            made => made.map_err(failed("write", &path)),
        }
    }

    /// Makes the finished file with `etag` visible as `name` of `commit`. Gives whether it is a copy, so
    /// that the blob is not needed any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn publish(&self, commit: &str, name: &str, etag: &str) -> Result<bool> {
        let (blob, pointer) = (self.blob(etag), self.snapshot(commit).join(name));
        let parent = pointer.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        if self.links {
            let target = format!(
                "{}blobs/{etag}",
                "../".repeat(2 + name.matches('/').count())
            );
            if std::fs::read_link(&pointer).is_ok_and(|old| old == Path::new(&target)) {
                return Ok(false);
            }
            remove_old(&pointer)?;
            match std::os::unix::fs::symlink(&target, &pointer) {
                Ok(()) => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                Err(e) if !has_no_links(&e) => return Err(failed("link", &pointer)(e)),
                Err(e) => tracing::info!("{}: no symbolic links ({e})", pointer.display()),
            }
        }
        // Made beside it first: neither a half file nor none must be seen under the name.
        let new = self.root.join(unique(".pensieve.copy"));
        let copied = match std::fs::hard_link(&blob, &new) {
            Ok(()) => false,
            Err(_) => match std::fs::copy(&blob, &new) {
                Ok(_) => true,
                // Another process made its copy of it and needs the blob no more.
                Err(e) if e.kind() == io::ErrorKind::NotFound && pointer.is_file() => {
                    remove_old(&new)?;
                    return Ok(false);
                }
                Err(e) => {
                    remove_old(&new)?;
                    return Err(failed("copy", &blob)(e));
                }
            },
        };
        std::fs::rename(&new, &pointer).map_err(failed("write", &pointer))?;
        // Two names of one file are left as they are.
        remove_old(&new)?;
        Ok(copied)
    }
}

/// A name that no other process or thread uses.
fn unique(start: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{start}.{}.{n}", std::process::id())
}

fn remove_old(pointer: &Path) -> Result {
    match std::fs::remove_file(pointer) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("replace", pointer)(e)),
    }
}

/// Whether an error means that the file system has no symbolic links.
fn has_no_links(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn store(cache: &Path, links: bool, name: &str) -> Store {
        let cache = cache.to_str().unwrap().to_owned();
        let mut settings = Settings::read(&move |variable| match variable {
            "HOME" | "HF_HUB_CACHE" => Some(cache.clone()),
            _ => None,
        })
        .unwrap();
        settings.links = links;
        Store::new(&settings, &Name::parse(name).unwrap())
    }

    #[test]
    fn a_published_file_is_a_relative_link() {
        let cache = tempfile::tempdir().unwrap();
        let store = store(cache.path(), true, "a/b");
        std::fs::create_dir_all(store.root().join("blobs")).unwrap();
        std::fs::write(store.blob("e1"), "one").unwrap();
        std::fs::write(store.blob("e2"), "two").unwrap();
        store.publish(COMMIT, "config.json", "e1").unwrap();
        store.publish(COMMIT, "sub/x.jinja", "e1").unwrap();
        let pointer = cache
            .path()
            .join("models--a--b/snapshots")
            .join(COMMIT)
            .join("config.json");
        assert_eq!(
            std::fs::read_link(&pointer).unwrap(),
            Path::new("../../blobs/e1")
        );
        assert_eq!(
            std::fs::read(pointer.with_file_name("sub/x.jinja")).unwrap(),
            b"one"
        );
        store.publish(COMMIT, "config.json", "e1").unwrap();
        store.publish(COMMIT, "config.json", "e2").unwrap();
        assert_eq!(std::fs::read(&pointer).unwrap(), b"two");
    }

    #[test]
    fn without_links_it_is_a_file_of_its_own() {
        let cache = tempfile::tempdir().unwrap();
        let store = store(cache.path(), false, "a/b");
        std::fs::create_dir_all(store.root().join("blobs")).unwrap();
        std::fs::write(store.blob("e1"), "one").unwrap();
        store.publish(COMMIT, "config.json", "e1").unwrap();
        store.publish(COMMIT, "config.json", "e1").unwrap();
        let pointer = store.snapshot(COMMIT).join("config.json");
        assert!(pointer.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(&pointer).unwrap(), b"one");
    }

    /// Everything under a folder that this file makes on its way.
    fn left_over(store: &Store) -> Vec<String> {
        let entries = std::fs::read_dir(store.root()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.contains("pensieve")).collect()
    }

    #[test]
    fn several_may_note_a_reference_and_show_a_file_at_once() {
        let cache = tempfile::tempdir().unwrap();
        let first = store(cache.path(), false, "a/b");
        std::fs::create_dir_all(first.root().join("blobs")).unwrap();
        std::fs::write(first.blob("e1"), "one").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let path = cache.path();
                scope.spawn(move || {
                    let store = store(path, false, "a/b");
                    for round in 0..50 {
                        let commit = format!("{:040x}", thread * 100 + round);
                        store.set_reference(&commit).unwrap();
                        store.publish(COMMIT, "config.json", "e1").unwrap();
                    }
                });
            }
        });
        assert!(first.reference().is_some());
        let shown = first.snapshot(COMMIT).join("config.json");
        assert_eq!(std::fs::read(shown).unwrap(), b"one");
        assert_eq!(left_over(&first), [""; 0]);
    }

    #[test]
    fn a_blob_that_another_process_used_up_is_not_missed() {
        let cache = tempfile::tempdir().unwrap();
        let store = store(cache.path(), false, "a/b");
        let shown = store.snapshot(COMMIT).join("config.json");
        std::fs::create_dir_all(shown.parent().unwrap()).unwrap();
        assert!(store.publish(COMMIT, "config.json", "e1").is_err());
        std::fs::write(&shown, "one").unwrap();
        assert!(!store.publish(COMMIT, "config.json", "e1").unwrap());
        assert_eq!(std::fs::read(&shown).unwrap(), b"one");
        assert_eq!(left_over(&store), [""; 0]);
    }

    #[test]
    fn what_is_noted_as_absent_is_not_written_again() {
        let cache = tempfile::tempdir().unwrap();
        let store = store(cache.path(), true, "a/b");
        let note = store.root().join(".no_exist").join(COMMIT).join("x.json");
        store.note_absent(COMMIT, "x.json").unwrap();
        std::fs::write(&note, "there").unwrap();
        store.note_absent(COMMIT, "x.json").unwrap();
        assert_eq!(std::fs::read_to_string(&note).unwrap(), "there");
    }

    #[test]
    fn references_may_have_folders() {
        let cache = tempfile::tempdir().unwrap();
        let main = store(cache.path(), true, "a/b");
        assert_eq!(main.reference(), None);
        main.set_reference(COMMIT).unwrap();
        assert_eq!(main.reference().as_deref(), Some(COMMIT));
        let pr = store(cache.path(), true, "a/b@refs/pr/1");
        pr.set_reference(COMMIT).unwrap();
        let path = cache.path().join("models--a--b/refs/refs/pr/1");
        assert_eq!(std::fs::read_to_string(path).unwrap(), COMMIT);
        let itself = store(cache.path(), true, &format!("a/b@{COMMIT}"));
        itself.set_reference(COMMIT).unwrap();
        assert_eq!(itself.reference(), None);
        std::fs::write(cache.path().join("models--a--b/refs/main"), "../../..").unwrap();
        assert_eq!(main.reference(), None);
    }
}
