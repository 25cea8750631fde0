//! Where a model's files are: a directory, or bytes inside the binary.
//!
//! Invariant: a [`Source`] is read by paths of plain names only, so nothing outside the directory can
//! be reached by a name that a model's own files contain. Links inside the directory are followed,
//! because download caches are made of them.

use std::io;
use std::path::{Component, Path, PathBuf};

/// A place that holds a model's files under their usual names.
#[derive(Debug, Clone)]
pub enum Source {
    /// A directory on disk.
    Directory(PathBuf),
    /// Names and contents compiled into the binary.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Source {
    /// The whole content of file `name`, which may lie in a folder (`a/b`); none where there is no
    /// such file.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` for a name that is not made of plain ones.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self {
            Source::Directory(directory) => {
                plain(name)?;
                match std::fs::read(directory.join(name)) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(e),
                }
            }
            Source::Embedded(_) => Ok(self.embedded(name).map(<[u8]>::to_vec)),
        }
    }

    /// Whether there is a file `name`; false for a directory, and for a name that is not plain.
    pub fn exists(&self, name: &str) -> bool {
        match self {
            Source::Directory(directory) => is_plain(name) && directory.join(name).is_file(),
            Source::Embedded(_) => self.embedded(name).is_some(),
        }
    }

    /// The names of all files, sorted; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// What the system says, for example when the directory does not exist.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match self {
            Source::Directory(directory) => {
                for entry in std::fs::read_dir(directory)? {
                    let entry = entry?;
                    if let Ok(name) = entry.file_name().into_string()
                        && entry.path().is_file()
                    {
                        names.push(name);
                    }
                }
            }
            Source::Embedded(files) => {
                names.extend(files.iter().map(|(name, _)| (*name).to_owned()))
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The place, for a message: the directory's path, or `the built-in model`.
    pub fn label(&self) -> String {
        match self {
            Source::Directory(directory) => directory.display().to_string(),
            Source::Embedded(_) => "the built-in model".to_owned(),
        }
    }

    /// The place of file `name`, for a message.
    pub fn label_of(&self, name: &str) -> String {
        match self {
            Source::Directory(directory) => directory.join(name).display().to_string(),
            Source::Embedded(_) => format!("{name} of the built-in model"),
        }
    }

    /// Content of an embedded file.
    pub(super) fn embedded(&self, wanted: &str) -> Option<&'static [u8]> {
        match self {
            Source::Directory(_) => None,
            Source::Embedded(files) => files
                .iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, bytes)| *bytes),
        }
    }
}

/// Whether `name` names a file right inside a directory: one path component, neither `.` nor `..`,
/// on any system.
pub fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['/', '\\', '\0'])
}

fn plain(name: &str) -> io::Result<()> {
    if name.split('/').all(is_plain) {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not a plain file name"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_embedded_files_read_alike() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("b.json"), b"{}").unwrap();
        std::fs::write(directory.path().join("a.json"), b"[]").unwrap();
        std::fs::create_dir(directory.path().join("c.json")).unwrap();
        let on_disk = Source::Directory(directory.path().to_owned());
        let embedded = Source::Embedded(&[("b.json", b"{}"), ("a.json", b"[]")]);
        for source in [on_disk, embedded] {
            assert_eq!(source.names().unwrap(), ["a.json", "b.json"]);
            assert_eq!(source.read("a.json").unwrap().as_deref(), Some(&b"[]"[..]));
            assert_eq!(source.read("d.json").unwrap(), None);
            assert!(source.exists("b.json"));
            assert!(!source.exists("c.json"));
            assert!(!source.exists("d.json"));
            assert!(source.label_of("a.json").contains("a.json"));
        }
    }

    #[test]
    fn a_missing_directory_is_an_error_only_to_list() {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::Directory(directory.path().join("absent"));
        assert_eq!(source.read("a.json").unwrap(), None);
        assert!(source.names().is_err());
        assert!(source.label().ends_with("absent"));
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(directory.path().join("secret"), b"s").unwrap();
        let absolute = directory.path().join("secret").display().to_string();
        let source = Source::Directory(inside);
        for name in [
            "../secret",
            absolute.as_str(),
            "./../secret",
            "..",
            ".",
            "",
            "x/",
            "a\0b",
            "a\\b",
        ] {
            assert!(!source.exists(name), "{name:?}");
            assert_eq!(
                source.read(name).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("blob"), b"x").unwrap();
        std::os::unix::fs::symlink("blob", directory.path().join("model.safetensors")).unwrap();
        let source = Source::Directory(directory.path().to_owned());
        assert!(source.exists("model.safetensors"));
        assert_eq!(source.names().unwrap(), ["blob", "model.safetensors"]);
        assert_eq!(
            source.read("model.safetensors").unwrap().as_deref(),
            Some(&b"x"[..])
        );
    }
}
