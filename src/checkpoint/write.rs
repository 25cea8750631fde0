//! Writing checkpoints: safetensors shards and their index, as mlx-lm lays them out.
//!
//! What is to be written is said first, by name, type and shape; the data comes a tensor at a time, so
//! that no more than one has to be in memory. A file has its own name only when it is complete: it is
//! written under another one, brought to disk, and renamed.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::{CheckpointError, Result};
use super::index::INDEX;
use super::safetensors::Dtype;

/// The most bytes of tensors in a shard, mlx-lm's; a larger tensor has one of its own.
pub const SHARD_BYTES: u64 = 5 << 30;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its full name.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dims, outermost first.
    pub shape: Vec<usize>,
}

impl Entry {
    /// The bytes of its elements; saturates where no memory could hold them.
    pub fn bytes(&self) -> u64 {
        let dims = self.shape.iter();
        dims.fold(self.dtype.itemsize() as u64, |n, &dim| {
            n.saturating_mul(dim as u64)
        })
    }
}

/// How a checkpoint is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// What `format` in the files' metadata says; `mlx` for MLX's own names and shapes.
    pub format: &'a str,
    /// The most bytes of tensors in a shard.
    pub shard_bytes: u64,
    /// The model's parameters, for the index: packed ones count as what they unpack to.
    pub parameters: u64,
}

/// Writes `model.safetensors`, or shards `model-00001-of-0000N.safetensors`, and the index, in the
/// order of `entries`. `content` gives a tensor's bytes, row-major and little-endian.
///
/// # Errors
/// What `content` says, and what the system says; also if `content` gives other than the bytes that
/// an entry announced. Shards that were complete by then stay.
pub fn write_shards<'c, E: From<CheckpointError>>(
    directory: &Path,
    entries: &[Entry],
    layout: Layout,
    mut content: impl FnMut(&Entry) -> std::result::Result<Cow<'c, [u8]>, E>,
) -> std::result::Result<(), E> {
    let mut writer = ShardWriter::new(directory, entries, layout);
    for entry in entries {
        let bytes = content(entry)?;
        if bytes.len() as u64 != entry.bytes() {
            return Err(writer.wrong(&entry.name, bytes.len() as u64).into());
        }
        writer.write(&entry.name, &bytes)?;
    }
    Ok(writer.finish()?)
}

/// The same for data that comes in parts, as it is made.
pub struct ShardWriter<'a> {
    directory: &'a Path,
    layout: Layout<'a>,
    entries: &'a [Entry],
    shards: Vec<&'a [Entry]>,
    /// The tensor that is being written, and the shard that it is in.
    at: usize,
    shard: usize,
    /// Bytes of that tensor that were written.
    written: u64,
    file: Option<NewFile>,
}

impl<'a> ShardWriter<'a> {
    /// Writes nothing yet.
    pub fn new(directory: &'a Path, entries: &'a [Entry], layout: Layout<'a>) -> Self {
        Self {
            directory,
            layout,
            entries,
            shards: shards(entries, layout.shard_bytes),
            at: 0,
            shard: 0,
            written: 0,
            file: None,
        }
    }

    /// Writes the next bytes, which are of tensor `name`: its last ones, or the first of the next.
    ///
    /// # Errors
    /// What the system says; also if these are not the bytes that were announced.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.advance()?;
        if bytes.is_empty() {
            return Ok(());
        }
        match self.entries.get(self.at) {
            Some(entry)
                if entry.name == name
                    && entry.bytes() >= self.written.saturating_add(bytes.len() as u64) => {}
            _ => return Err(self.wrong(name, self.written + bytes.len() as u64)),
        }
        if let Some(file) = &mut self.file {
            file.write(bytes)?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Goes on to the next tensor that has bytes left, and to its file.
    fn advance(&mut self) -> Result<()> {
        loop {
            if self.file.is_none() && self.shard < self.shards.len() {
                let mut file = NewFile::create(self.directory, &self.file_name(self.shard))?;
                file.write(&header(self.shards[self.shard], self.layout.format))?;
                self.file = Some(file);
            }
            let end: usize = self
                .shards
                .iter()
                .take(self.shard + 1)
                .map(|s| s.len())
                .sum();
            match self.entries.get(self.at) {
                Some(entry) if self.at < end && self.written < entry.bytes() => return Ok(()),
                Some(_) if self.at < end => (self.at, self.written) = (self.at + 1, 0),
                _ => {
                    let Some(file) = self.file.take() else {
                        return Ok(());
                    };
                    file.finish()?;
                    self.shard += 1;
                }
            }
        }
    }

    /// Finishes the last shard and writes the index.
    ///
    /// # Errors
    /// What the system says; also if announced bytes were not written.
    pub fn finish(mut self) -> Result<()> {
        self.advance()?;
        if let Some(entry) = self.entries.get(self.at) {
            return Err(self.wrong(&entry.name, self.written));
        }
        let mut places = std::collections::BTreeMap::new();
        for (i, shard) in self.shards.iter().enumerate() {
            let name = self.file_name(i);
            places.extend(shard.iter().map(|entry| (entry.name.clone(), json!(name))));
        }
        let total = self.entries.iter().map(Entry::bytes).sum::<u64>();
        let index = json!({
            "metadata": {"total_size": total, "total_parameters": self.layout.parameters},
            "weight_map": places.into_iter().collect::<Map<String, Value>>(),
        });
        write_json(self.directory, INDEX, &index)
    }

    fn file_name(&self, shard: usize) -> String {
        match self.shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", shard + 1),
        }
    }

    /// The error for other bytes than were announced.
    fn wrong(&self, name: &str, bytes: u64) -> CheckpointError {
        let expected = self.entries.iter().find(|entry| entry.name == name);
        let expected = expected.map_or(0, Entry::bytes);
        CheckpointError::Write {
            file: self
                .directory
                .join(self.file_name(self.shard))
                .display()
                .to_string(),
            source: io::Error::other(format!("{name} has {bytes} bytes, expected {expected}")),
        }
    }
}

/// Writes a JSON file `name`, indented by four as Python's writers of such files do.
///
/// # Errors
/// What the system says.
pub fn write_json(directory: &Path, name: &str, value: &Value) -> Result<()> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    // Writing a value into memory cannot fail.
    let _ = serde::Serialize::serialize(value, &mut writer);
    write_file(directory, name, &text)
}

/// Writes a whole file `name`.
///
/// # Errors
/// What the system says.
pub fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(directory, name)?;
    file.write(bytes)?;
    file.finish()
}

/// Cuts `entries` where the next tensor would be too much for a shard; one shard at least.
fn shards(entries: &[Entry], most: u64) -> Vec<&[Entry]> {
    let (mut shards, mut start, mut size) = (Vec::new(), 0, 0u64);
    for (i, entry) in entries.iter().enumerate() {
        let bytes = entry.bytes();
        if i > start && size.saturating_add(bytes) > most {
            shards.push(&entries[start..i]);
            (start, size) = (i, 0);
        }
        size = size.saturating_add(bytes);
    }
    shards.push(&entries[start..]);
    shards
}

/// The length and the header that open a file; the data then starts at a multiple of 8.
fn header(entries: &[Entry], format: &str) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("__metadata__".into(), json!({"format": format}));
    let mut at = 0u64;
    for entry in entries {
        let end = at.saturating_add(entry.bytes());
        let value = json!({
            "dtype": entry.dtype.name(),
            "shape": entry.shape,
            "data_offsets": [at, end],
        });
        object.insert(entry.name.clone(), value);
        at = end;
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

/// A file that gets its name when it is complete, and is gone if it never is.
struct NewFile {
    file: Option<BufWriter<File>>,
    part: std::path::PathBuf,
    place: std::path::PathBuf,
}

impl NewFile {
    fn create(directory: &Path, name: &str) -> Result<Self> {
        let mut new = Self {
            file: None,
            part: directory.join(format!(".{name}.part")),
            place: directory.join(name),
        };
        let file = File::create(&new.part).map_err(|e| new.failed(e))?;
        new.file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(new)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        };
        done.map_err(|e| self.failed(e))
    }

    fn finish(mut self) -> Result<()> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let done = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&self.part, &self.place));
        done.map_err(|e| self.failed(e))
    }

    fn failed(&self, source: io::Error) -> CheckpointError {
        CheckpointError::Write {
            file: self.place.display().to_string(),
            source,
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After a rename there is none; after a failure nobody needs the half of it.
        let _ = std::fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shards, Source};
    use super::*;

    fn entry(name: &str, dtype: Dtype, shape: &[usize]) -> Entry {
        Entry {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    fn layout(shard_bytes: u64) -> Layout<'static> {
        Layout {
            format: "mlx",
            shard_bytes,
            parameters: 7,
        }
    }

    /// Bytes that count up from the length of the tensor's name.
    fn content(entry: &Entry) -> Result<Cow<'static, [u8]>> {
        let first = entry.name.len() as u64;
        let bytes = (0..entry.bytes()).map(|i| (i + first) as u8);
        Ok(bytes.collect::<Vec<u8>>().into())
    }

    fn names(directory: &Path) -> Vec<String> {
        Source::Directory(directory.to_owned()).names().unwrap()
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let entries = [
            entry("b.weight", Dtype::BF16, &[3, 2]),
            entry("a", Dtype::F32, &[]),
            entry("c.scales", Dtype::U8, &[5]),
            entry("none", Dtype::F32, &[0, 4]),
        ];
        for (most, files) in [(SHARD_BYTES, 1), (16, 2), (1, 4)] {
            let folder = tempfile::tempdir().unwrap();
            write_shards(folder.path(), &entries, layout(most), content).unwrap();
            let shards = Shards::open(&Source::Directory(folder.path().to_owned())).unwrap();
            assert_eq!(shards.metadata("format"), Some("mlx"));
            assert_eq!(shards.len(), entries.len());
            for entry in &entries {
                let found = shards.get(&entry.name).unwrap();
                assert_eq!((found.dtype, found.shape), (entry.dtype, &entry.shape[..]));
                assert_eq!(found.bytes, &*content(entry).unwrap());
            }
            let shards: Vec<&str> = shards.shard_names().collect();
            assert_eq!(shards.len(), files, "{shards:?}");
            assert_eq!(names(folder.path()).len(), files + 1, "shards and index");
            let last = match files {
                1 => "model.safetensors".to_owned(),
                n => format!("model-{n:05}-of-{n:05}.safetensors"),
            };
            assert_eq!(shards.last(), Some(&last.as_str()));
        }
    }

    #[test]
    fn the_index_has_mlx_lms_form() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [
            entry("b", Dtype::F16, &[4]),
            entry("a", Dtype::F32, &[1, 2]),
        ];
        write_shards(folder.path(), &entries, layout(8), content).unwrap();
        let text = std::fs::read_to_string(folder.path().join(INDEX)).unwrap();
        assert!(text.starts_with("{\n    \"metadata\": {\n        \"total_size\": 16,"));
        let index: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(index["metadata"]["total_parameters"], 7);
        let places = index["weight_map"].as_object().unwrap();
        let places: Vec<_> = places.iter().map(|(k, v)| (&k[..], v.as_str())).collect();
        let shard = |i| {
            Some(
                [
                    "",
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                ][i],
            )
        };
        assert_eq!(places, [("a", shard(2)), ("b", shard(1))]);
    }

    #[test]
    fn what_fails_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [entry("a", Dtype::F32, &[2])];
        let short = |_: &Entry| Ok(Cow::Borrowed(&[0u8; 4][..]));
        let done: Result<()> = write_shards(folder.path(), &entries, layout(100), short);
        let message = done.unwrap_err().to_string();
        assert!(message.contains("a has 4 bytes, expected 8"), "{message}");
        assert!(names(folder.path()).is_empty());
        let nowhere = folder.path().join("absent");
        let message = write_file(&nowhere, "x", b"").unwrap_err().to_string();
        assert!(message.contains("cannot write") && message.contains("absent"));
    }
}
