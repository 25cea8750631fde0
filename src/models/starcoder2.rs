//! StarCoder 2 (Lozhkov et al., 2024): layer norms, biases everywhere, a feed-forward layer without
//! a gate.
//!
//! Defaults follow mlx-lm's `models/starcoder2.py`. Like there, the activation is the exact GELU
//! whatever `hidden_act` says, and `sliding_window` does nothing.

use serde_json::json;

use super::decoder::{Block, Decoder, FinalNorm, Frame};
use super::{Model, heads, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Activation, Attention, AttentionShape, LayerNorm, Linear, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = &config.with_defaults(&json!({"norm_epsilon": 1e-5, "vocab_size": 49152}));
    let tied = config.bool_or("tie_word_embeddings", true)?;
    let shape = AttentionShape {
        n_kv_heads: positive(config, "num_key_value_heads")?,
        qkv_bias: true,
        o_bias: true,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(100_000.0),
        traditional: false,
    };
    let rope = Rope::load_plain(config, rope)?;
    let (d_model, d_ff) = (shape.d_model, positive(config, "intermediate_size")?);
    let eps = config.f32("norm_epsilon")?;
    let root = weights.root();
    let model = root.at("model");
    let frame = Frame {
        norm: FinalNorm::Layer(model.layer_norm("norm", d_model, eps, true)?),
        model,
        head: (!tied).then_some(root),
    };
    let block = |_, w: &Cursor| {
        let norm = |name| w.layer_norm(name, d_model, eps, true);
        let mlp = w.at("mlp");
        Ok(Layer {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(&w.at("self_attn"), shape, Some(rope.clone()))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            c_fc: mlp.linear("c_fc", [d_ff, d_model], true)?,
            c_proj: mlp.linear("c_proj", [d_model, d_ff], true)?,
        })
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// `h += attention(norm(h)); h += mlp(norm(h))`.
struct Layer {
    input_layernorm: LayerNorm,
    self_attn: Attention,
    post_attention_layernorm: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let h = h.add(&self.self_attn.forward(&x, batch, cache)?)?;
        let x = self.post_attention_layernorm.forward(&h)?;
        let inner = Activation::Gelu.apply(&self.c_fc.forward(&x)?)?;
        h.add(&self.c_proj.forward(&inner)?)
    }
}
