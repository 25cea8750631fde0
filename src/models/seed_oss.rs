//! Seed-OSS (ByteDance Seed, 2025): Llama's form with biases where the settings say so.
//!
//! Defaults follow mlx-lm's `models/seed_oss.py`.

use super::llama::{Form, rope};
use super::{Model, heads, positive};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    positive(config, "num_key_value_heads")?;
    let shape = AttentionShape {
        head_dim: positive(config, "head_dim")?,
        qkv_bias: config.bool_or("attention_bias", false)?,
        o_bias: config.bool_or("attention_out_bias", false)?,
        ..heads(config)?
    };
    let rope = rope(config, shape.head_dim, 10_000.0)?;
    let form = Form {
        tied: config.bool_or("tie_word_embeddings", true)?,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ..Form::default()
    };
    form.load(config, weights, |_, w| {
        Attention::load(w, shape, Some(rope.clone()))
    })
}
