//! Locks between processes, as `huggingface_hub` has them: `flock` on
//! `.locks/models--ORG--NAME/ETAG.lock`.
//!
//! Invariant: who holds a [`Lock`] holds the file that has the path now. (Some versions of Python's
//! `filelock` remove the file when they let go, so one that was opened before may be nobody's.) The file
//! stays when the lock is let go: programs that do not look again could otherwise hold two.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::{Result, io};

/// A lock that is held until this is dropped; the system lets it go if the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What came of trying to lock.
#[derive(Debug)]
pub enum Tried {
    /// It is ours. None where the file system has no locks.
    Held(Option<Lock>),
    /// Another process has it.
    Taken,
}

impl Lock {
    /// Takes the lock at `path` if nobody has it.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn attempt(path: &Path) -> Result<Tried> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io("create", parent))?;
        }
        loop {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            let file = file.map_err(io("open the lock file", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Tried::Taken),
                Err(TryLockError::Error(e)) if unsupported(&e) => {
                    tracing::warn!(
                        "{} has no file locks: other processes must not fetch the same model now",
                        path.display()
                    );
                    return Ok(Tried::Held(None));
                }
                Err(TryLockError::Error(e)) => return Err(io("lock", path)(e)),
            }
            let ours = file.metadata().map_err(io("look at", path))?;
            match std::fs::metadata(path) {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Tried::Held(Some(Lock { _file: file })));
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io("look at", path)(e)),
            }
        }
    }
}

fn unsupported(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::Unsupported)
        // No locks available: what NFS without a lock daemon says.
        || e.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".locks/models--a--b/etag.lock");
        let Tried::Held(Some(held)) = Lock::attempt(&path).unwrap() else {
            panic!("nobody had it");
        };
        assert!(matches!(Lock::attempt(&path).unwrap(), Tried::Taken));
        drop(held);
        assert!(matches!(
            Lock::attempt(&path).unwrap(),
            Tried::Held(Some(_))
        ));
    }

    #[test]
    fn a_lock_file_that_was_removed_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let Tried::Held(first) = Lock::attempt(&path).unwrap() else {
            panic!("nobody had it");
        };
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            Lock::attempt(&path).unwrap(),
            Tried::Held(Some(_))
        ));
        drop(first);
    }
}
