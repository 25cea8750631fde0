//! Granite 3, dense (Granite team, IBM, 2024): Llama's form with four multipliers (Yang et al., 2022).
//!
//! Required settings follow mlx-lm's `models/granite.py`.

use super::decoder::{Decoder, Frame};
use super::llama::Layer;
use super::{Model, heads, positive};
use crate::checkpoint::{Config, Cursor, LoadResult, Packing, Weights};
use crate::nn::{Attention, AttentionShape, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", true)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    weights.packed_by(|path| {
        let spoilt = ["self_attn.o_proj", "mlp.down_proj"];
        let spoilt = spoilt.iter().any(|part| path.ends_with(part));
        Packing::eight_bits_if(spoilt || path == "lm_head")
    });
    let bias = config.bool("attention_bias")?;
    let shape = AttentionShape {
        n_kv_heads: positive(config, "num_key_value_heads")?,
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: None,
        traditional: false,
    };
    let rope = Rope::load(config, rope)?;
    let mlp_bias = config.bool("mlp_bias")?;
    let attention_multiplier = config.f32("attention_multiplier")?;
    let residual_multiplier = config.f32("residual_multiplier")?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| {
        let mut self_attn = Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?;
        self_attn.scale = attention_multiplier;
        let mut layer = Layer::load(config, w, self_attn, mlp_bias, None)?;
        layer.residual_scale = Some(residual_multiplier);
        Ok(layer)
    };
    let mut decoder = Decoder::load(config, weights, frame, block)?;
    decoder.embed_scale = Some(config.f32("embedding_multiplier")?);
    decoder.logit_divisor = Some(config.f32("logits_scaling")?);
    Ok(Box::new(decoder))
}
