//! A model's shards: which safetensors files belong to it, mapped and checked, as one set of named
//! tensors.
//!
//! With `model.safetensors.index.json`, the shards are the files it names and no others. Without
//! one, they are all files `model*.safetensors`, as mlx-lm takes them. A tensor that a shard holds
//! beside those the index names is kept: whoever uses the tensors says which of them were wanted.
//!
//! Invariants: every shard's header is checked before [`Shards::open`] returns, each tensor is in
//! one shard, and each tensor that an index names is where the index says.

use std::collections::BTreeMap;
use std::fs::File;

use memmap2::Mmap;
use serde::Deserialize;

use super::error::{CheckpointError, Result, cut};
use super::files::{Source, is_plain};
use super::json::UniqueMap;
use super::map::{let_go, map_file};
use super::safetensors::{self, Dtype, Header};

/// The file that says which shard holds which tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// What the name of every shard ends in.
const EXTENSION: &str = ".safetensors";

/// A tensor in a shard, its bytes where the file is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Its full name, for example `model.embed_tokens.weight`.
    pub name: &'a str,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dims, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The elements, row-major and little-endian; not aligned to their size.
    pub bytes: &'a [u8],
}

/// All weights of a model.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    /// Tensor to position in `shards`.
    shard_of: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    name: String,
    content: Content,
    header: Header,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Content::Mapped(map) => map,
            Content::Embedded(bytes) => bytes,
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

impl Shards {
    /// Maps and checks every shard of the model at `source`. Reads the headers, not the data.
    ///
    /// The files must not be truncated while this lives: reading a mapped page that is gone ends
    /// the process.
    ///
    /// # Errors
    /// [`CheckpointError`] when there are no weights, a shard or its header is bad, or index and
    /// shards disagree.
    pub fn open(source: &Source) -> Result<Shards> {
        let index = source.label_of(INDEX);
        let placed = read_index(source, &index)?;
        let names = match &placed {
            Some(placed) => shards_named(source, &index, placed)?,
            None => shards_found(source)?,
        };

        let mut shards = Vec::with_capacity(names.len());
        let mut shard_of = BTreeMap::new();
        for name in names {
            let shard = Shard::open(source, name)?;
            for tensor in shard.header.tensors.keys() {
                if let Some(first) = shard_of.insert(tensor.clone(), shards.len()) {
                    let first: &Shard = &shards[first];
                    return Err(CheckpointError::InTwoShards {
                        tensor: tensor.clone(),
                        first: source.label_of(&first.name),
                        second: source.label_of(&shard.name),
                    });
                }
            }
            shards.push(shard);
        }

        for (tensor, shard) in placed.iter().flatten() {
            let holder = shard_of.get(tensor).map(|&at| &shards[at].name);
            if holder != Some(shard) {
                return Err(CheckpointError::NotInShard {
                    index,
                    tensor: tensor.clone(),
                    shard: shard.clone(),
                });
            }
        }
        Ok(Shards { shards, shard_of })
    }

    /// Maps and checks one safetensors file `name`, which must be there, without looking for others.
    ///
    /// # Errors
    /// [`CheckpointError`] when it or its header is bad.
    pub fn open_file(source: &Source, name: &str) -> Result<Shards> {
        let shard = Shard::open(source, name.to_owned())?;
        let tensors = shard.header.tensors.keys();
        Ok(Shards {
            shard_of: tensors.map(|tensor| (tensor.clone(), 0)).collect(),
            shards: vec![shard],
        })
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shard_of.keys().map(String::as_str)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<Tensor<'_>> {
        let shard = &self.shards[*self.shard_of.get(name)?];
        shard.tensor(shard.header.tensors.get_key_value(name)?.0)
    }

    /// Says that the tensor `name` was read, so that its pages need not stay in memory.
    pub fn let_go(&self, name: &str) {
        let shard = self.shard_of.get(name).and_then(|&at| self.shards.get(at));
        if let Some(Shard {
            content: Content::Mapped(map),
            header,
            ..
        }) = shard
            && let Some(info) = header.tensors.get(name)
        {
            let_go(map, info.range.clone());
        }
    }

    /// The file name of the shard that holds the tensor `name`.
    pub fn shard_of(&self, name: &str) -> Option<&str> {
        self.shard_of
            .get(name)
            .map(|&at| self.shards[at].name.as_str())
    }

    /// The shards' file names, sorted.
    pub fn shard_names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(|shard| shard.name.as_str())
    }

    /// Every tensor in file order: shard by shard as [`Shards::shard_names`] has them, and within
    /// one by place.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.shards.iter().flat_map(|shard| {
            let mut names: Vec<_> = shard.header.tensors.iter().collect();
            names.sort_by_key(|(name, info)| (info.range.start, info.range.end, *name));
            names.into_iter().filter_map(|(name, _)| shard.tensor(name))
        })
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.shard_of.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.shard_of.is_empty()
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        let tensors = self
            .shards
            .iter()
            .flat_map(|shard| shard.header.tensors.values());
        tensors.map(|info| info.range.len() as u64).sum()
    }

    /// The text under `key` in the first shard whose `__metadata__` has it; `format` is `mlx` where
    /// MLX wrote the file.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.shards
            .iter()
            .find_map(|shard| shard.header.metadata.get(key))
            .map(String::as_str)
    }
}

impl Shard {
    fn open(source: &Source, name: String) -> Result<Shard> {
        let file = source.label_of(&name);
        let content = match source {
            Source::Directory(directory) => {
                let map = File::open(directory.join(&name)).and_then(|file| map_file(&file));
                Content::Mapped(map.map_err(|source| CheckpointError::Io {
                    file: file.clone(),
                    source,
                })?)
            }
            Source::Embedded(_) => Content::Embedded(source.embedded(&name).unwrap_or_default()),
        };
        match safetensors::parse(content.bytes()) {
            Ok(header) => Ok(Shard {
                name,
                content,
                header,
            }),
            Err(problem) => Err(CheckpointError::Header { file, problem }),
        }
    }

    fn tensor<'a>(&'a self, name: &'a str) -> Option<Tensor<'a>> {
        let info = self.header.tensors.get(name)?;
        let bytes = self.content.bytes().get(info.range.clone())?;
        Some(Tensor {
            name,
            dtype: info.dtype,
            shape: &info.shape,
            bytes,
        })
    }
}

/// Tensor to shard as the index has it; none where there is no index.
fn read_index(source: &Source, index: &str) -> Result<Option<BTreeMap<String, String>>> {
    let bytes = source.read(INDEX).map_err(|source| CheckpointError::Io {
        file: index.to_owned(),
        source,
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    match serde_json::from_slice::<Index>(&bytes) {
        Ok(Index {
            weight_map: UniqueMap(map),
        }) if !map.is_empty() => Ok(Some(map)),
        Ok(_) => Err(CheckpointError::Json {
            file: index.to_owned(),
            problem: "weight_map names no tensor".to_owned(),
        }),
        Err(e) => Err(CheckpointError::Json {
            file: index.to_owned(),
            problem: cut(e),
        }),
    }
}

/// The shards an index names, sorted, each a plain name of a file that is there.
fn shards_named(
    source: &Source,
    index: &str,
    placed: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let mut tensors_in: BTreeMap<&str, usize> = BTreeMap::new();
    for (tensor, shard) in placed {
        if !is_plain(shard) || !shard.ends_with(EXTENSION) {
            return Err(CheckpointError::ShardName {
                index: index.to_owned(),
                tensor: tensor.clone(),
                shard: shard.clone(),
            });
        }
        *tensors_in.entry(shard).or_default() += 1;
    }
    for (&shard, &tensors) in &tensors_in {
        if !source.exists(shard) {
            let (index, shard) = (index.to_owned(), shard.to_owned());
            return Err(CheckpointError::ShardMissing {
                index,
                shard,
                tensors,
            });
        }
    }
    Ok(tensors_in.into_keys().map(str::to_owned).collect())
}

/// The shards that are there by their names, sorted.
fn shards_found(source: &Source) -> Result<Vec<String>> {
    let place = source.label();
    let names = source.names().map_err(|source| CheckpointError::Io {
        file: place.clone(),
        source,
    })?;
    let (shards, others): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| name.starts_with("model") && name.ends_with(EXTENSION));
    if !shards.is_empty() {
        return Ok(shards);
    }
    let weights = [EXTENSION, ".npz", ".gguf", ".bin", ".pt", ".pth", ".onnx"];
    let found = others
        .into_iter()
        .filter(|name| weights.iter().any(|end| name.ends_with(end)))
        .collect();
    Err(CheckpointError::NoWeights { place, found })
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
