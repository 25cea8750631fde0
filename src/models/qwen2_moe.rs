//! Qwen 1.5 and 2 with experts (Qwen team, 2024): biases on queries, keys and values, and beside the
//! chosen experts one that all tokens share, weighed by a gate of its own.
//!
//! Defaults follow mlx-lm's `models/qwen2_moe.py`; what only transformers reads (layers without
//! experts, normalised weights, sliding windows) is as in transformers.

use super::decoder::{Decoder, Frame};
use super::qwen3_moe::{Experts, MoeLayer, Routing, SparseLayers, dense};
use super::{Model, heads, positive, positive_or, windows};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, ExpertShape, GatedMlp, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    // mlx-lm's checkpoints have an output layer whatever this says.
    let tied = config.bool_or("tie_word_embeddings", false)? && !weights.has("lm_head.weight");
    let shape = AttentionShape {
        qkv_bias: config.bool_or("qkv_bias", true)?,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(1e6),
        traditional: config.bool_or("rope_traditional", false)?,
    };
    let rope = Rope::load(config, rope)?;
    let d_model = shape.d_model;
    let experts = ExpertShape {
        n_experts: positive(config, "num_experts")?,
        d_model,
        d_ff: positive(config, "moe_intermediate_size")?,
    };
    let d_shared = positive(config, "shared_expert_intermediate_size")?;
    let routing = Routing::SoftmaxTopK {
        normalise: config.bool_or("norm_topk_prob", false)?,
    };
    let sparse = SparseLayers {
        step: positive_or(config, "decoder_sparse_step", 1)?,
        dense: config.usize_list("mlp_only_layers")?.unwrap_or_default(),
    };
    let windows = windows(config)?;
    if windows.is_empty() && config.bool_or("use_sliding_window", false)? {
        return Err(LoadError::Unsupported(format!(
            "{}: use_sliding_window is true; supported is false, or layer_types that say which \
             layers have a window",
            config.file()
        )));
    }
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let self_attn = Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?;
        let mlp = w.at("mlp");
        let feed_forward = if sparse.has(i) {
            let mut experts = Experts::load(config, &mlp, "gate", experts, routing, false)?;
            let shared = GatedMlp::load(&mlp.at("shared_expert"), d_model, d_shared, false)?;
            let gate = mlp.linear("shared_expert_gate", [1, d_model], false)?;
            experts.shared = Some((shared, gate));
            experts.into()
        } else {
            dense(config, &mlp)?
        };
        let mut layer = MoeLayer::load(config, w, self_attn, feed_forward)?;
        layer.window = windows.get(i).copied().flatten();
        Ok(layer)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}
