//! Gemma 2 (Gemma team, 2024): norms before and after each part of a layer, stored less 1, capped
//! scores and logits, GELU.
//!
//! Defaults follow mlx-lm's `models/gemma2.py`, which also sees the whole context in every layer: the
//! `sliding_window` of the even ones is not read.

use serde_json::json;

use super::decoder::{Block, Decoder, FinalNorm, Frame};
use super::{Model, heads, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::mlx::{Array, Dtype, Result};
use crate::nn::{Activation, Attention, AttentionShape, GatedMlp, RmsNorm, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = config.with_defaults(&json!({
        "attn_logit_softcapping": 50,
        "final_logit_softcapping": 30,
        "query_pre_attn_scalar": 144,
    }));
    refuse_other_forms(&config)?;
    let shape = AttentionShape {
        n_kv_heads: positive(&config, "num_key_value_heads")?,
        head_dim: positive(&config, "head_dim")?,
        ..heads(&config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(10_000.0),
        traditional: config.bool_or("rope_traditional", false)?,
    };
    let rope = Rope::load(&config, rope)?;
    let scale = attention_scale(&config)?;
    let cap = softcap(&config, "attn_logit_softcapping")?;
    let block = |_, w: &Cursor| {
        let mut self_attn = Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?;
        (self_attn.scale, self_attn.softcap) = (scale, cap);
        Layer::load(&config, w, self_attn, None)
    };
    let frame = frame(&config, &weights.root(), true)?;
    let mut decoder = Decoder::load(&config, weights, frame, block)?;
    decoder.embed_scale = Some(root(positive(&config, "hidden_size")?));
    decoder.logit_softcap = softcap(&config, "final_logit_softcapping")?;
    Ok(Box::new(decoder))
}

/// The usual names, with a norm that is stored less 1.
pub(super) fn frame<'w>(config: &Config, root: &Cursor<'w>, tied: bool) -> LoadResult<Frame<'w>> {
    let model = root.at("model");
    let (d_model, eps) = (
        positive(config, "hidden_size")?,
        config.f32("rms_norm_eps")?,
    );
    Ok(Frame {
        norm: FinalNorm::Rms(model.rms_norm_plus_one("norm", d_model, eps)?),
        model,
        head: (!tied).then(|| root.clone()),
    })
}

/// The square root of a number of features.
pub(super) fn root(features: usize) -> f32 {
    (features as f64).sqrt() as f32
}

/// `1 / sqrt(query_pre_attn_scalar)`.
pub(super) fn attention_scale(config: &Config) -> LoadResult<f32> {
    match config.f32("query_pre_attn_scalar")? {
        scalar if scalar > 0.0 => Ok(1.0 / scalar.sqrt()),
        _ => Err(config.invalid("query_pre_attn_scalar", "above 0").into()),
    }
}

/// A cap on scores or logits; none where it is `null`.
pub(super) fn softcap(config: &Config, key: &str) -> LoadResult<Option<f32>> {
    match config.f32_opt(key)? {
        Some(cap) if cap.is_nan() || cap <= 0.0 => Err(config.invalid(key, "above 0").into()),
        cap => Ok(cap),
    }
}

/// Refuses what transformers reads from the configurations of this family and mlx-lm does not.
///
/// # Errors
/// If another activation or attention to later positions is asked for.
pub(super) fn refuse_other_forms(config: &Config) -> LoadResult<()> {
    let refused = |key, supported: &str| {
        let value = config.value(key).cloned().unwrap_or_default();
        Err(LoadError::Unsupported(format!(
            "{}: {} is {value}; supported is {supported}",
            config.file(),
            config.path_of(key)
        )))
    };
    let activation = config.value("hidden_activation");
    if activation.is_some_and(|name| name != "gelu_pytorch_tanh") {
        return refused("hidden_activation", "gelu_pytorch_tanh");
    }
    let both_ways = config.value("use_bidirectional_attention");
    if both_ways.is_some_and(|who| who != false && who != "vision") {
        return refused("use_bidirectional_attention", "false");
    }
    Ok(())
}

/// A layer with norms around both parts: `h += norm(attention(norm(h))); h += norm(mlp(norm(h)))`.
pub(super) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
    /// How many positions a query sees; all where there is none.
    window: Option<usize>,
}

impl Layer {
    /// Norms and feed-forward layer under `w`, around an attention layer.
    pub fn load(
        config: &Config,
        w: &Cursor,
        self_attn: Attention,
        window: Option<usize>,
    ) -> LoadResult<Self> {
        let d_model = positive(config, "hidden_size")?;
        let d_ff = positive(config, "intermediate_size")?;
        let eps = config.f32("rms_norm_eps")?;
        let norm = |name| w.rms_norm_plus_one(name, d_model, eps);
        let mut mlp = GatedMlp::load(&w.at("mlp"), d_model, d_ff, false)?;
        mlp.activation = Activation::GeluTanh;
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            window,
        })
    }
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let normed = self.input_layernorm.forward(h)?;
        let attended = self.self_attn.forward(&normed, batch, cache)?;
        let h = add(h, &self.post_attention_layernorm.forward(&attended)?)?;
        let fed = self
            .mlp
            .forward(&self.pre_feedforward_layernorm.forward(&h)?)?;
        add(&h, &self.post_feedforward_layernorm.forward(&fed)?)
    }

    fn cache(&self) -> LayerCache {
        self.window
            .map_or_else(LayerCache::full, LayerCache::sliding)
    }
}

/// `h + part`, held within float16, which the residual stream of these models exceeds.
fn add(h: &Array, part: &Array) -> Result<Array> {
    const LARGEST: f32 = 65_504.0;
    if h.dtype() != Dtype::Float16 {
        return h.add(part);
    }
    let sum = h
        .astype(Dtype::Float32)?
        .add(&part.astype(Dtype::Float32)?)?;
    let (low, high) = (sum.scalar_like(-LARGEST)?, sum.scalar_like(LARGEST)?);
    sum.maximum(&low)?.minimum(&high)?.astype(Dtype::Float16)
}
