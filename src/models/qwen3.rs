//! Qwen3, dense (Qwen team, 2025): Llama's form with queries and keys normalised per head.
//!
//! Required settings follow mlx-lm's `models/qwen3.py`.

use super::decoder::{Decoder, Frame};
use super::llama::Layer;
use super::{Model, heads, positive};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool("tie_word_embeddings")?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        head_dim: positive(config, "head_dim")?,
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let eps = config.f32("rms_norm_eps")?;
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: None,
        traditional: false,
    };
    let rope = Rope::load(config, rope)?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| {
        let attn = w.at("self_attn");
        let self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        Layer::load(
            config,
            w,
            self_attn.with_head_norms(&attn, eps)?,
            false,
            None,
        )
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}
