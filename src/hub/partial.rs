//! A file that is on its way: its bytes so far, and which they are.
//!
//! Two files beside the finished ones: `ETAG.pensieve.incomplete`, of the final size from the start, and
//! `ETAG.pensieve.map` with one byte for each [`CHUNK`], 1 if it is there. Invariant: a chunk's byte
//! becomes 1 after the chunk was written, so that whoever is killed at any point leaves a file that can
//! be taken up. (After a power failure the bytes may be wrong nevertheless; then the hash says so.)

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::{Result, io};

/// Bytes that are noted as one.
pub const CHUNK: u64 = 64 * 1024;

/// Endings of the two files' names, behind the finished one's.
pub const ENDINGS: [&str; 2] = [".pensieve.incomplete", ".pensieve.map"];

/// An unfinished file.
#[derive(Debug)]
pub struct Partial {
    data: File,
    map: File,
    path: PathBuf,
    map_path: PathBuf,
    size: u64,
}

impl Partial {
    /// Where the two files of what will be `blob` are.
    pub fn paths(blob: &Path) -> [PathBuf; 2] {
        ENDINGS.map(|ending| {
            let mut path = blob.as_os_str().to_owned();
            path.push(ending);
            path.into()
        })
    }

    /// Takes up or begins the file of `size` bytes that will be `blob`. Gives the chunks that are there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(blob: &Path, size: u64) -> Result<(Partial, Vec<bool>)> {
        let [path, map_path] = Partial::paths(blob);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io("create", parent))?;
        }
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            file.map_err(io("open", path))
        };
        let partial = Partial {
            data: open(&path)?,
            map: open(&map_path)?,
            path,
            map_path,
            size,
        };
        let there = match partial.noted()? {
            Some(there) => there,
            None => {
                partial.reset()?;
                vec![false; partial.chunks()]
            }
        };
        Ok((partial, there))
    }

    /// How many chunks `size` bytes are.
    pub fn chunks_of(size: u64) -> usize {
        usize::try_from(size.div_ceil(CHUNK)).unwrap_or(usize::MAX)
    }

    fn chunks(&self) -> usize {
        Partial::chunks_of(self.size)
    }

    /// The bytes of chunk `index`.
    pub fn range(&self, index: usize) -> Range<u64> {
        range_of(index, self.size)
    }

    /// What the map says; none if the files are not of one another, or of another size.
    fn noted(&self) -> Result<Option<Vec<bool>>> {
        let data = self.data.metadata().map_err(io("look at", &self.path))?;
        let map = self.map.metadata().map_err(io("look at", &self.map_path))?;
        if data.len() != self.size || map.len() != self.chunks() as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; self.chunks()];
        let read = self.map.read_exact_at(&mut bytes, 0);
        read.map_err(io("read", &self.map_path))?;
        Ok(Some(bytes.iter().map(|&byte| byte == 1).collect()))
    }

    /// Forgets everything that is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn reset(&self) -> Result {
        // The map first and last, so that there is none in between that speaks of other bytes.
        self.map.set_len(0).map_err(io("empty", &self.map_path))?;
        self.data.set_len(0).map_err(io("empty", &self.path))?;
        self.data
            .set_len(self.size)
            .map_err(io("make room for", &self.path))?;
        let chunks = self.chunks() as u64;
        self.map
            .set_len(chunks)
            .map_err(io("make room for", &self.map_path))
    }

    /// Writes chunk `index`, whole, and notes that it is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, index: usize, bytes: &[u8]) -> Result {
        let at = self.range(index).start;
        self.data
            .write_all_at(bytes, at)
            .map_err(io("write", &self.path))?;
        let noted = self.map.write_all_at(&[1], index as u64);
        noted.map_err(io("write", &self.map_path))
    }

    /// The content, from its beginning.
    ///
    /// # Errors
    /// What the system says.
    pub fn content(&self) -> Result<File> {
        File::open(&self.path).map_err(io("open", &self.path))
    }

    /// Makes this the finished file `blob`.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&self, blob: &Path) -> Result {
        self.data.sync_all().map_err(io("write", &self.path))?;
        std::fs::rename(&self.path, blob).map_err(io("rename", &self.path))?;
        Partial::forget(blob)
    }

    /// Removes what there is of an unfinished `blob`.
    ///
    /// # Errors
    /// What the system says.
    pub fn forget(blob: &Path) -> Result {
        for path in Partial::paths(blob) {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(io("remove", &path)(e)),
            }
        }
        Ok(())
    }

    /// Bytes of what will be `blob` that are here already, of `size`; 0 if there is nothing to take up.
    pub fn bytes_here(blob: &Path, size: u64) -> u64 {
        let [path, map_path] = Partial::paths(blob);
        let whole = std::fs::metadata(path).is_ok_and(|data| data.len() == size);
        match std::fs::read(map_path) {
            Ok(map) if whole && map.len() == Partial::chunks_of(size) => {
                let there = map.iter().enumerate().filter(|(_, byte)| **byte == 1);
                there.map(|(index, _)| span(&range_of(index, size))).sum()
            }
            _ => 0,
        }
    }
}

/// The bytes of chunk `index` of a file of `size` bytes.
pub fn range_of(index: usize, size: u64) -> Range<u64> {
    let start = (index as u64).saturating_mul(CHUNK).min(size);
    start..start.saturating_add(CHUNK).min(size)
}

/// How many bytes a range has.
pub fn span(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SIZE: u64 = 2 * CHUNK + 7;

    #[test]
    fn what_was_written_is_there_when_it_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("blobs/etag");
        let (partial, there) = Partial::open(&blob, SIZE).unwrap();
        assert_eq!(there, [false, false, false]);
        partial.write(2, b"seventh").unwrap();
        drop(partial);
        assert_eq!(Partial::bytes_here(&blob, SIZE), 7);

        let (partial, there) = Partial::open(&blob, SIZE).unwrap();
        assert_eq!(there, [false, false, true]);
        partial.write(0, &vec![1; CHUNK as usize]).unwrap();
        partial.write(1, &vec![2; CHUNK as usize]).unwrap();
        assert_eq!(Partial::bytes_here(&blob, SIZE), SIZE);
        assert!(!blob.exists());
        partial.finish(&blob).unwrap();
        let mut content = Vec::new();
        File::open(&blob)
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(content.len() as u64, SIZE);
        assert!(content.ends_with(b"\x02seventh"));
        assert_eq!(
            std::fs::read_dir(folder.path().join("blobs"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn files_that_do_not_belong_together_are_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("etag");
        let [data, map] = Partial::paths(&blob);
        let fill = |other: u64| {
            let (partial, _) = Partial::open(&blob, other).unwrap();
            (0..Partial::chunks_of(other)).for_each(|i| {
                let range = partial.range(i);
                partial.write(i, &vec![9; span(&range) as usize]).unwrap();
            });
        };
        // Of another size, without a map, with a torn map, without data.
        fill(SIZE + 1);
        assert_eq!(Partial::open(&blob, SIZE).unwrap().1, [false; 3]);
        fill(SIZE);
        std::fs::remove_file(&map).unwrap();
        assert_eq!(Partial::bytes_here(&blob, SIZE), 0);
        assert_eq!(Partial::open(&blob, SIZE).unwrap().1, [false; 3]);
        fill(SIZE);
        std::fs::write(&map, [1, 1]).unwrap();
        assert_eq!(Partial::open(&blob, SIZE).unwrap().1, [false; 3]);
        fill(SIZE);
        std::fs::remove_file(&data).unwrap();
        assert_eq!(Partial::bytes_here(&blob, SIZE), 0);
        assert_eq!(Partial::open(&blob, SIZE).unwrap().1, [false; 3]);
    }

    #[test]
    fn an_empty_file_has_no_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("etag");
        let (partial, there) = Partial::open(&blob, 0).unwrap();
        assert!(there.is_empty());
        partial.finish(&blob).unwrap();
        assert_eq!(std::fs::read(&blob).unwrap(), b"");
    }
}
