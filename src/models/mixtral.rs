//! Mixtral (Jiang et al., 2024): Mistral's attention with mixtures of experts; the best experts are
//! chosen by their gates, and softmax weighs these alone.
//!
//! Defaults follow mlx-lm's `models/mixtral.py`.

use serde_json::json;

use super::decoder::{Decoder, Frame};
use super::qwen3_moe::{Experts, MoeLayer, Routing};
use super::{Model, heads, positive};
use crate::checkpoint::{Config, Cursor, LoadResult, Rename, Weights};
use crate::nn::{Attention, ExpertShape, Rope, RopeShape};

/// Hugging Face's names of the experts' projections, and transformers' own of the experts.
const RENAMES: &[Rename] = &[
    (".w1.", ".gate_proj."),
    (".w2.", ".down_proj."),
    (".w3.", ".up_proj."),
    (".mlp.experts.", ".block_sparse_moe.experts."),
    (".mlp.gate.", ".block_sparse_moe.gate."),
];

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.rename(RENAMES);
    let config = &config.with_defaults(&json!({
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "rms_norm_eps": 1e-5,
    }));
    let tied = config.bool_or("tie_word_embeddings", false)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let shape = heads(config)?;
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(1e6),
        traditional: config.bool_or("rope_traditional", false)?,
    };
    let rope = Rope::load(config, rope)?;
    let experts = ExpertShape {
        n_experts: positive(config, "num_local_experts")?,
        d_model: shape.d_model,
        d_ff: positive(config, "intermediate_size")?,
    };
    let window = match config.value("sliding_window") {
        Some(_) => Some(positive(config, "sliding_window")?),
        None => None,
    };
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| {
        let self_attn = Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?;
        let moe = w.at("block_sparse_moe");
        let experts = Experts::load(config, &moe, "gate", experts, Routing::TopKSoftmax, false)?;
        let mut layer = MoeLayer::load(config, w, self_attn, experts.into())?;
        layer.window = window;
        Ok(layer)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}
