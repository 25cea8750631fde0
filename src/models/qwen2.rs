//! Qwen2 and Qwen2.5, dense (Qwen team, 2024): Llama's form with biases on queries, keys and values.
//!
//! Defaults follow mlx-lm's `models/qwen2.py`. As there, heads share `hidden_size` out whatever
//! `head_dim` says, and all layers see all positions whatever `use_sliding_window` says.

use super::llama::{Form, rope};
use super::{Model, heads, positive};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    positive(config, "num_key_value_heads")?;
    let shape = heads(config)?;
    let shape = AttentionShape {
        head_dim: shape.d_model / shape.n_heads,
        qkv_bias: true,
        ..shape
    };
    if shape.head_dim == 0 {
        let expected = format!("at least num_attention_heads, which is {}", shape.n_heads);
        return Err(config.invalid("hidden_size", expected).into());
    }
    let rope = rope(config, shape.head_dim, 1_000_000.0)?;
    let form = Form {
        tied: config.bool_or("tie_word_embeddings", true)?,
        ..Form::default()
    };
    form.load(config, weights, |_, w| {
        Attention::load(w, shape, Some(rope.clone()))
    })
}
