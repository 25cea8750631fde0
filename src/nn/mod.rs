//! Layers without state of their own: what a model file is made of.

mod activation;
mod adapter;
mod attention;
mod conv;
mod gated_delta;
mod linear;
mod matrix;
mod mla;
mod mlp;
mod moe;
mod norm;
pub mod plan;
mod position_scale;
mod rope;
mod ssm;

pub use activation::{Activation, softplus};
pub use adapter::Adapter;
pub use attention::{Attention, AttentionShape, QkNorm};
pub use conv::Conv1d;
pub use gated_delta::GatedDelta;
pub use linear::{Embedding, Joined, Linear, SwitchLinear};
pub use matrix::{Dense, Matrix};
pub use mla::{Mla, MlaShape};
pub use mlp::GatedMlp;
pub use moe::{
    ExpertShape, GroupRouting, SwitchGlu, by_expert, softmax_top_k, top_k, top_k_softmax,
    weighted_sum,
};
pub use norm::{LayerNorm, RmsNorm};
pub use position_scale::PositionScale;
pub use rope::{Rope, RopeShape, rope_type};
pub use ssm::{Mamba2, Mamba2Shape};
