//! OLMoE (Muennighoff et al., 2024): mixtures of experts in all layers, queries and keys normalised
//! over all heads together.
//!
//! Defaults follow mlx-lm's `models/olmoe.py`.

use super::decoder::{Decoder, Frame};
use super::qwen3_moe::{Experts, MoeLayer, Routing};
use super::{Model, heads, positive};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, ExpertShape, QkNorm, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    // mlx-lm and transformers differ in the default; an output layer shows which of them it is.
    let tied = config.bool_opt("tie_word_embeddings")?;
    let tied = tied.unwrap_or_else(|| !weights.has("lm_head.weight"));
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    if config.value("clip_qkv").is_some() {
        let clip = config.f32("clip_qkv")?;
        return Err(LoadError::Unsupported(format!(
            "{}: clip_qkv is {clip}; supported is null",
            config.file()
        )));
    }
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
    let experts = ExpertShape {
        n_experts: positive(config, "num_experts")?,
        d_model: shape.d_model,
        d_ff: positive(config, "intermediate_size")?,
    };
    let routing = Routing::SoftmaxTopK {
        normalise: config.bool_or("norm_topk_prob", false)?,
    };
    let mlp_bias = config.bool_or("mlp_bias", false)?;
    let eps = config.f32("rms_norm_eps")?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let (queries, keys) = shape.widths();
    let block = |_, w: &Cursor| {
        let attn = w.at("self_attn");
        let mut self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        self_attn.qk_norm = Some(QkNorm::Whole(
            attn.rms_norm("q_norm", queries, eps)?,
            attn.rms_norm("k_norm", keys, eps)?,
        ));
        let experts = Experts::load(config, &w.at("mlp"), "gate", experts, routing, mlp_bias)?;
        MoeLayer::load(config, w, self_attn, experts.into())
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}
