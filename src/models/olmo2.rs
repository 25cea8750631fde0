//! OLMo 2 (OLMo team, 2024): norms behind attention and feed-forward layers instead of before them;
//! queries and keys normalised across all heads.
//!
//! Defaults follow mlx-lm's `models/olmo2.py`.

use super::decoder::{Block, Decoder, Frame};
use super::llama::precomputed_freqs;
use super::{Model, heads, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Attention, AttentionShape, GatedMlp, RmsNorm, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", true)?;
    weights.ignoring(precomputed_freqs);
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(10_000.0),
        traditional: config.bool_or("rope_traditional", false)?,
    };
    let rope = Rope::load(config, rope)?;
    let eps = config.f32("rms_norm_eps")?;
    let mlp_bias = config.bool_or("mlp_bias", false)?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| {
        let attn = w.at("self_attn");
        let self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        let self_attn = self_attn.with_whole_norms(&attn, eps)?;
        PostNormLayer::load(config, w, self_attn, mlp_bias, None)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// A post-norm layer: `h += norm(attention(h)); h += norm(mlp(h))`.
pub(super) struct PostNormLayer {
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
    /// How many positions a query sees; all where there is none.
    window: Option<usize>,
}

impl PostNormLayer {
    /// Norms and feed-forward layer under `w`, around an attention layer.
    pub fn load(
        config: &Config,
        w: &Cursor,
        self_attn: Attention,
        mlp_bias: bool,
        window: Option<usize>,
    ) -> LoadResult<Self> {
        let d_model = positive(config, "hidden_size")?;
        let d_ff = positive(config, "intermediate_size")?;
        let eps = config.f32("rms_norm_eps")?;
        Ok(Self {
            self_attn,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", d_model, eps)?,
            mlp: GatedMlp::load(&w.at("mlp"), d_model, d_ff, mlp_bias)?,
            post_feedforward_layernorm: w.rms_norm("post_feedforward_layernorm", d_model, eps)?,
            window,
        })
    }
}

impl Block for PostNormLayer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let attended = self.self_attn.forward(h, batch, cache)?;
        let h = h.add(&self.post_attention_layernorm.forward(&attended)?)?;
        let fed = self.mlp.forward(&h)?;
        h.add(&self.post_feedforward_layernorm.forward(&fed)?)
    }

    fn cache(&self) -> LayerCache {
        self.window
            .map_or_else(LayerCache::full, LayerCache::sliding)
    }
}
