//! Pensieve: a local LLM server over MLX. `src/main.rs` is the command line; the rooms are below.
//!
//! Imports run one way: `mlx ← nn, cache, checkpoint ← models ← engine ← server, bench ← cli`;
//! `text` and `sample::Params` know no arrays. `tests/rooms.rs` holds that to be true.

pub mod bench;
pub mod builtin;
pub mod cache;
pub mod checkpoint;
pub mod cli;
pub mod convert;
pub mod engine;
pub mod hub;
pub mod mlx;
pub mod models;
pub mod nn;
pub mod sample;
pub mod server;
pub mod text;

/// The CPU kernels: a crate of their own, so that debug builds optimize them too.
pub use pensieve_kernels as kernels;
