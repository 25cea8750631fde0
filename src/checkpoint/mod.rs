//! A model's files, from a directory to named tensors and typed settings.
//!
//! What stands here: where the files are ([`Source`]), the safetensors shards mapped into memory
//! and checked whole before anything is built from them ([`Shards`]), `config.json` with accessors
//! that name what is wrong ([`Config`], [`GenerationConfig`]), and which modules are quantized and
//! how ([`Quantization`]).
//!
//! Invariants: every byte range handed out lies inside its file and holds exactly the tensor its
//! header describes; a file is read only from its [`Source`], by a plain file name; nothing is
//! allocated in proportion to a number that a file merely claims.

pub mod adapter;
pub mod companions;
pub mod config;
pub mod error;
pub mod files;
pub mod finite;
pub mod generation;
pub mod index;
pub mod plan;
pub mod quantization;
pub mod safetensors;
pub mod weights;
pub mod write;

mod adapt;
mod arrays;
#[cfg(test)]
mod fixture;
mod foreign;
mod json;
mod layers;
mod map;
mod tap;

pub use adapter::{Adapters, FineTune};
pub use config::Config;
pub use error::{CheckpointError, HeaderError, Result};
pub use files::Source;
pub use generation::GenerationConfig;
pub use index::{Shards, Tensor};
pub use plan::{Module, Plan};
pub use quantization::{Quantization, Scheme};
pub use safetensors::Dtype;
pub use tap::{Packing, Tap};
pub use weights::{Cursor, LoadError, LoadResult, Rename, Weights, WeightsAs};
