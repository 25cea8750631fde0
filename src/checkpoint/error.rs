//! What can be wrong with a model's files, said so that the reader knows what to do next.
//!
//! Names and values that come out of a file are quoted, escaped and cut short before they enter a
//! message, so a hostile file cannot flood or forge a log line.

use std::fmt;
use std::io;

use super::safetensors::Dtype;

/// The room's result.
pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// A model's files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file or the directory could not be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file, with its place.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that every model has is not there.
    #[error(
        "{place} has no {name}: a model directory in MLX format holds one; check the path, or download the model again"
    )]
    Missing {
        /// The directory, or the embedded model.
        place: String,
        /// The file's name.
        name: &'static str,
    },
    /// A directory that should hold a fine-tune lacks a file.
    #[error(
        "{place} has no {name}: the directory that `mlx_lm.lora` writes holds adapter_config.json and \
        adapters.safetensors; check the path"
    )]
    NoAdapter {
        /// The directory.
        place: String,
        /// The file's name.
        name: &'static str,
    },
    /// A file could not be written.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The file, with its place.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A safetensors file is not well formed.
    #[error("{file}: {problem}")]
    Header {
        /// The file, with its place.
        file: String,
        /// What is wrong with it.
        problem: HeaderError,
    },
    /// No file matches `model*.safetensors`, and there is no index.
    #[error(
        "{place} holds no weights: expected model.safetensors.index.json or model*.safetensors, found {}; {}",
        list(found),
        no_weights_hint(found)
    )]
    NoWeights {
        /// The directory, or the embedded model.
        place: String,
        /// Files there that look like weights of another kind.
        found: Vec<String>,
    },
    /// The index names a shard by something other than a plain file name.
    #[error(
        "{index} places tensor {} in {}: expected the plain name of a .safetensors file in the same directory; \
        the index is damaged or hostile, download the model again from a source you trust",
        shown(tensor),
        shown(shard)
    )]
    ShardName {
        /// The index file.
        index: String,
        /// A tensor placed there.
        tensor: String,
        /// The name as the index has it.
        shard: String,
    },
    /// The index names a shard that is not there.
    #[error(
        "{index} places {tensors} tensors in {}, which is not there: download that file, or, if the index belongs \
        to another version of the model, remove the index",
        shown(shard)
    )]
    ShardMissing {
        /// The index file.
        index: String,
        /// The shard's name.
        shard: String,
        /// How many tensors the index places in it.
        tensors: usize,
    },
    /// The index places a tensor in a shard that does not hold it.
    #[error(
        "{index} places tensor {} in {}, which does not hold it: the shard and the index belong to different \
        versions of the model; download both again, or remove the index",
        shown(tensor),
        shown(shard)
    )]
    NotInShard {
        /// The index file.
        index: String,
        /// The tensor.
        tensor: String,
        /// The shard the index names.
        shard: String,
    },
    /// Two shards hold a tensor of the same name.
    #[error(
        "tensor {} is in both {first} and {second}: expected each tensor in one shard; remove the file that does not \
        belong to this model",
        shown(tensor)
    )]
    InTwoShards {
        /// The tensor.
        tensor: String,
        /// A shard that holds it.
        first: String,
        /// Another shard that holds it.
        second: String,
    },
    /// A JSON file is not JSON, or not of the shape its kind has.
    #[error("{file} is not valid: {problem}; download it again")]
    Json {
        /// The file, with its place.
        file: String,
        /// What the parser said, with line and column.
        problem: String,
    },
    /// A setting is absent.
    #[error("{file}: {path} is missing, expected {expected}")]
    MissingSetting {
        /// The file, with its place.
        file: String,
        /// The setting, with dots for nesting.
        path: String,
        /// What it should be.
        expected: String,
    },
    /// A setting has a value that cannot be used.
    #[error("{file}: {path} is {found}, expected {expected}")]
    Setting {
        /// The file, with its place.
        file: String,
        /// The setting, with dots for nesting.
        path: String,
        /// Its value, as JSON, cut short.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The weights are quantized by a method other than MLX's own.
    #[error(
        "{file}: {path} says the weights are quantized by {}, which is not supported: use an MLX conversion of this \
        model, or convert the unquantized original with pensieve convert -q",
        shown(method)
    )]
    QuantizationMethod {
        /// The file, with its place.
        file: String,
        /// The setting that says so.
        path: String,
        /// The method's name.
        method: String,
    },
}

/// A safetensors file is not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file is the stand-in that Git LFS leaves for a file it has not fetched.
    #[error(
        "this is a Git LFS pointer, not the weights: run `git lfs pull` in the model's directory"
    )]
    LfsPointer,
    /// Too short to hold even the header's length.
    #[error(
        "the file has {found} bytes, expected at least 8 for the header's length: it is truncated; download it again"
    )]
    TooShort {
        /// The file's length in bytes.
        found: usize,
    },
    /// The header's length is beyond what the format allows.
    #[error(
        "the header claims {claimed} bytes, expected at most {limit}: this is not a safetensors file, or it is damaged; \
        download it again"
    )]
    HeaderTooLarge {
        /// Bytes claimed.
        claimed: u64,
        /// The format's limit in bytes.
        limit: u64,
    },
    /// The header does not end inside the file.
    #[error(
        "the header claims {claimed} bytes, but {left} follow: the file is truncated; download it again"
    )]
    HeaderPastEnd {
        /// Bytes claimed.
        claimed: u64,
        /// Bytes of the file after the length.
        left: usize,
    },
    /// The header is not text.
    #[error("the header is not UTF-8 at byte {at}: the file is damaged; download it again")]
    NotUtf8 {
        /// Offset of the first bad byte, from the header's start.
        at: usize,
    },
    /// The header is not a JSON object of the right shape.
    #[error(
        "the header is not valid: {problem}; the file is damaged or badly written: download or convert it again"
    )]
    Json {
        /// What the parser said, with the tensor where one is concerned.
        problem: String,
    },
    /// A dtype that has no name here.
    #[error(
        "tensor {} has dtype {}, expected one of {}: convert the model to one of these",
        shown(tensor),
        shown(dtype),
        Dtype::names()
    )]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
    },
    /// A dtype whose elements are not whole bytes.
    #[error(
        "tensor {} has dtype {dtype}, whose elements are smaller than a byte; expected one of {}: use an MLX \
        conversion, which packs such weights in U32",
        shown(tensor),
        Dtype::names()
    )]
    SubByteDtype {
        /// The tensor.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
    },
    /// A dim that MLX cannot hold.
    #[error(
        "tensor {} has a dim of {dim}, expected at most {}: the file is damaged",
        shown(tensor),
        i32::MAX
    )]
    DimTooLarge {
        /// The tensor.
        tensor: String,
        /// The dim.
        dim: u64,
    },
    /// The shape's size in bytes overflows.
    #[error(
        "tensor {} of shape {} is larger than memory can address: the file is damaged",
        shown(tensor),
        dims(shape)
    )]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor ends before it begins.
    #[error(
        "tensor {} ends at byte {end}, before it begins at {begin}: the file is damaged",
        shown(tensor)
    )]
    Reversed {
        /// The tensor.
        tensor: String,
        /// First byte, from the data's start.
        begin: u64,
        /// One past the last byte, from the data's start.
        end: u64,
    },
    /// A tensor ends after the file does.
    #[error(
        "tensor {} ends at byte {end} of the data, but the file holds {data} bytes of it: the file is truncated; \
        download it again",
        shown(tensor)
    )]
    PastEnd {
        /// The tensor.
        tensor: String,
        /// One past its last byte, from the data's start.
        end: u64,
        /// Bytes of data in the file.
        data: usize,
    },
    /// A tensor's bytes do not fit its dtype and shape.
    #[error(
        "tensor {} has {found} bytes, expected {expected} for {dtype} of shape {}: the file is damaged or badly \
        written; download or convert it again",
        shown(tensor),
        dims(shape)
    )]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that dtype and shape ask for.
        expected: usize,
        /// Bytes between the offsets.
        found: usize,
    },
    /// Two tensors share bytes.
    #[error(
        "tensors {} and {} overlap at byte {at} of the data: the file is damaged or badly written; download or \
        convert it again",
        shown(first),
        shown(second)
    )]
    Overlap {
        /// The tensor that begins earlier.
        first: String,
        /// The tensor that begins inside it.
        second: String,
        /// Where the second begins, from the data's start.
        at: usize,
    },
    /// Bytes that belong to no tensor, before one or at the file's end.
    #[error(
        "bytes {from} to {to} of the data belong to no tensor: the format allows no gaps, so the file is damaged or \
        badly written; download or convert it again"
    )]
    Gap {
        /// First such byte, from the data's start.
        from: usize,
        /// One past the last such byte, from the data's start.
        to: usize,
    },
}

/// Longest piece of a file's text that a message repeats, in characters.
const SHOWN: usize = 120;

/// Text from a file, quoted, escaped and cut short, for a message.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?} (cut; {} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

/// A parser's message, cut short, because it may repeat the file's text.
pub(super) fn cut(problem: impl fmt::Display) -> String {
    let text = problem.to_string();
    match text.char_indices().nth(3 * SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A shape for a message, its rank kept readable.
fn dims(shape: &[usize]) -> String {
    const MOST: usize = 12;
    if shape.len() <= MOST {
        format!("{shape:?}")
    } else {
        format!("{:?} (first of {})", &shape[..MOST], shape.len())
    }
}

fn list(names: &[String]) -> String {
    const MOST: usize = 8;
    match names.len() {
        0 => "no file of weights".to_owned(),
        n if n <= MOST => shown_all(names),
        n => format!("{} and {} more", shown_all(&names[..MOST]), n - MOST),
    }
}

fn shown_all(names: &[String]) -> String {
    names
        .iter()
        .map(|name| shown(name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn no_weights_hint(found: &[String]) -> &'static str {
    if found.is_empty() {
        "the download may be incomplete: download the model again"
    } else {
        "these are not in MLX format: use an MLX conversion of this model, or convert it with mlx_lm.convert"
    }
}
