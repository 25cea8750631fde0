//! Where a conversion goes: into a hidden directory beside the place, which gets its name at the end.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Holds the directory for one process.
const LOCK: &str = ".lock";

/// A directory in the making; it is removed if it is not finished.
#[derive(Debug)]
pub struct Place {
    part: PathBuf,
    to: PathBuf,
    /// Released with the process, however that ends.
    lock: Option<File>,
}

impl Place {
    /// Prepares to make the directory `to`. What an earlier process left unfinished goes.
    ///
    /// # Errors
    /// What the system says; also if `to` is there and not empty, unless `overwrite`, or another process is
    /// making it.
    pub fn new(to: &Path, overwrite: bool) -> io::Result<Self> {
        let to = std::path::absolute(to)?;
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            return Err(io::Error::other("is no name for a directory"));
        };
        if to.exists() && !overwrite {
            let empty = to.is_dir() && fs::read_dir(&to)?.next().is_none();
            if !empty {
                let problem = "is there already; name another directory, or use --overwrite";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
            }
        }
        fs::create_dir_all(parent)?;
        let part = parent.join(format!(".{}.unfinished", name.to_string_lossy()));
        fs::create_dir_all(&part)?;
        let lock = File::create(part.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = "is being written by another process";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, problem));
            }
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        for entry in fs::read_dir(&part)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false if entry.file_name() == LOCK => {}
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(Self {
            part,
            to,
            lock: Some(lock),
        })
    }

    /// Where to write.
    pub fn folder(&self) -> &Path {
        &self.part
    }

    /// Gives the directory its name, in the place of what had it.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> io::Result<()> {
        fs::remove_file(self.part.join(LOCK))?;
        let mut old = None;
        if self.to.exists() {
            let mut aside = self.part.clone().into_os_string();
            aside.push(".old");
            fs::rename(&self.to, &aside)?;
            old = Some(PathBuf::from(aside));
        }
        if let Err(e) = fs::rename(&self.part, &self.to) {
            if let Some(old) = &old {
                fs::rename(old, &self.to)?;
            }
            return Err(e);
        }
        self.lock = None;
        if let Some(old) = old {
            match old.is_dir() {
                true => fs::remove_dir_all(old)?,
                false => fs::remove_file(old)?,
            }
        }
        if let Some(parent) = self.to.parent() {
            // A directory can be brought to disk on some systems only.
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.lock.take().is_some() {
            // Nobody needs the half of it; the next process removes what stays.
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}
