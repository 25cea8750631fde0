//! Qwen3, dense (Qwen team, 2025): Llama's form with queries and keys normalised per head.
//!
//! Required settings follow mlx-lm's `models/qwen3.py`.

use super::llama::{Decoder, DecoderShape};
use super::{Model, positive};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{AttentionShape, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool("tie_word_embeddings")?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let head_dim = positive(config, "head_dim")?;
    let shape = DecoderShape {
        attention: AttentionShape {
            d_model: positive(config, "hidden_size")?,
            n_heads: positive(config, "num_attention_heads")?,
            n_kv_heads: positive(config, "num_key_value_heads")?,
            head_dim,
            bias: config.bool_or("attention_bias", false)?,
            qk_norm: Some(config.f32("rms_norm_eps")?),
        },
        mlp_bias: false,
        rope: RopeShape {
            dims: head_dim,
            default_theta: None,
            traditional: false,
        },
        tied,
    };
    Ok(Box::new(Decoder::load(config, &weights.root(), shape)?))
}
