//! GLM-4-0414, dense (GLM team, 2025): a norm before and behind each attention and feed-forward
//! layer, part of each head turning.
//!
//! Required settings and defaults follow mlx-lm's `models/glm4.py`.

use super::decoder::{Block, Decoder, Frame};
use super::{Model, heads, positive, rotary_dims};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Attention, AttentionShape, GatedMlp, RmsNorm, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    // mlx-lm does not look at the setting: an output layer that is there counts.
    let tied = config.bool_or("tie_word_embeddings", false)? && !weights.has("lm_head.weight");
    let shape = AttentionShape {
        n_kv_heads: positive(config, "num_key_value_heads")?,
        head_dim: positive(config, "head_dim")?,
        qkv_bias: config.bool("attention_bias")?,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: rotary_dims(config, shape.head_dim, None)?,
        default_theta: None,
        traditional: config.bool_or("rope_traditional", true)?,
    };
    let rope = Rope::load_plain(config, rope)?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| Layer::load(config, w, shape, &rope);
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// `h += norm(attention(norm(h))); h += norm(mlp(norm(h)))`.
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_self_attn_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_mlp_layernorm: RmsNorm,
}

impl Layer {
    fn load(config: &Config, w: &Cursor, shape: AttentionShape, rope: &Rope) -> LoadResult<Self> {
        let d_ff = positive(config, "intermediate_size")?;
        let eps = config.f32("rms_norm_eps")?;
        let norm = |name| w.rms_norm(name, shape.d_model, eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?,
            post_self_attn_layernorm: norm("post_self_attn_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load_fused(&w.at("mlp"), shape.d_model, d_ff)?,
            post_mlp_layernorm: norm("post_mlp_layernorm")?,
        })
    }
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let attended = self.self_attn.forward(&x, batch, cache)?;
        let h = h.add(&self.post_self_attn_layernorm.forward(&attended)?)?;
        let x = self.post_attention_layernorm.forward(&h)?;
        let fed = self.mlp.forward(&x)?;
        h.add(&self.post_mlp_layernorm.forward(&fed)?)
    }
}
