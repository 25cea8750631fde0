//! OLMo 3 (OLMo team, 2025): OLMo 2's form with a sliding window in three of four layers, whose
//! rotary embedding is not scaled.
//!
//! Defaults follow mlx-lm's `models/olmo3.py`.

use super::decoder::{Decoder, Frame};
use super::olmo2::PostNormLayer;
use super::{Model, heads, positive, windows};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", false)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let eps = config.f32("rms_norm_eps")?;
    let ropes = Ropes::load(config, shape.head_dim)?;
    let windows = windows(config)?;
    let default = positive(config, "sliding_window")?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let window = match windows.is_empty() {
            true => (!(i + 1).is_multiple_of(4)).then_some(default),
            false => windows.get(i).copied().flatten(),
        };
        let rope = match window {
            Some(_) => &ropes.sliding,
            None => &ropes.full,
        };
        let attn = w.at("self_attn");
        let self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        let self_attn = self_attn.with_whole_norms(&attn, eps)?;
        PostNormLayer::load(config, w, self_attn, false, window)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// The rotary embeddings of the two kinds of layers.
struct Ropes {
    full: Rope,
    sliding: Rope,
}

impl Ropes {
    /// From `rope_theta`, with `rope_scaling` for layers of full attention; or from
    /// `rope_parameters`, which has an object for each kind of layer.
    fn load(config: &Config, head_dim: usize) -> LoadResult<Self> {
        let shape = RopeShape {
            dims: head_dim,
            default_theta: None,
            traditional: false,
        };
        if config.value("rope_theta").is_none()
            && let Some(parameters) = config.object("rope_parameters")?
            && let Some(full) = parameters.object("full_attention")?
            && let Some(sliding) = parameters.object("sliding_attention")?
        {
            let of = |own: &Config| {
                Rope::plain(head_dim, own.f32("rope_theta")?, false).scaled(config, own)
            };
            return Ok(Self {
                full: of(&full)?,
                sliding: of(&sliding)?,
            });
        }
        let (sliding, scaling) = Rope::with_scaling(config, shape)?;
        let full = match scaling {
            Some(scaling) => sliding.clone().scaled(config, &scaling)?,
            None => sliding.clone(),
        };
        Ok(Self { full, sliding })
    }
}
