//! Granite 3 with experts (IBM, 2024): Mixtral's routing, and factors on embeddings, scores,
//! residuals and logits.
//!
//! Required settings follow mlx-lm's `models/granitemoe.py`.

use super::decoder::{Decoder, Frame};
use super::qwen3_moe::{Experts, MoeLayer, Routing};
use super::{Model, heads, positive};
use crate::checkpoint::{Config, Cursor, LoadResult, Packing, Rename, Weights};
use crate::nn::{Attention, AttentionShape, ExpertShape, Rope, RopeShape};

/// Hugging Face's names of the experts' matrices.
const RENAMES: &[Rename] = &[
    (".input_linear.weight", ".experts.gate_up_proj"),
    (".output_linear.weight", ".experts.down_proj"),
];

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.rename(RENAMES);
    let tied = config.bool_or("tie_word_embeddings", true)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    weights.packed_by(|path| {
        let parts = [
            "block_sparse_moe.router.layer",
            "self_attn.o_proj",
            "mlp.down_proj",
        ];
        let named = parts.iter().any(|part| path.ends_with(part));
        Packing::eight_bits_if(named || path == "lm_head")
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
    let scale = config.f32("attention_multiplier")?;
    let residual_scale = config.f32("residual_multiplier")?;
    let logits_scaling = config.f32("logits_scaling")?;
    if logits_scaling == 0.0 {
        return Err(config.invalid("logits_scaling", "other than 0").into());
    }
    let experts = ExpertShape {
        n_experts: positive(config, "num_local_experts")?,
        d_model: shape.d_model,
        d_ff: positive(config, "intermediate_size")?,
    };
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| {
        let mut self_attn = Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?;
        self_attn.scale = scale;
        let (moe, routing) = (w.at("block_sparse_moe"), Routing::TopKSoftmaxFloat32);
        let experts = Experts::load(config, &moe, "router.layer", experts, routing, false)?;
        let mut layer = MoeLayer::load(config, w, self_attn, experts.into())?;
        layer.residual_scale = Some(residual_scale);
        Ok(layer)
    };
    let mut decoder = Decoder::load(config, weights, frame, block)?;
    decoder.embed_scale = Some(config.f32("embedding_multiplier")?);
    decoder.logit_scale = Some(1.0 / logits_scaling);
    Ok(Box::new(decoder))
}
