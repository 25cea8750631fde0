//! LFM2 (Liquid AI, 2025): short gated convolutions, and attention in some layers.
//!
//! Defaults follow mlx-lm's `models/lfm2.py`.

use super::decoder::{Block, Decoder, FinalNorm, Frame};
use super::{Model, heads, nested_theta_first, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Attention, Conv1d, GatedMlp, Linear, RmsNorm, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.rename(&[
        (".self_attn.out_proj.", ".self_attn.o_proj."),
        (".self_attn.q_layernorm.", ".self_attn.q_norm."),
        (".self_attn.k_layernorm.", ".self_attn.k_norm."),
        (".feed_forward.w1.", ".feed_forward.gate_proj."),
        (".feed_forward.w2.", ".feed_forward.down_proj."),
        (".feed_forward.w3.", ".feed_forward.up_proj."),
    ]);
    weights.written_as(&[
        (".self_attn.o_proj", ".self_attn.out_proj"),
        (".self_attn.q_norm", ".self_attn.q_layernorm"),
        (".self_attn.k_norm", ".self_attn.k_layernorm"),
        (".feed_forward.gate_proj", ".feed_forward.w1"),
        (".feed_forward.down_proj", ".feed_forward.w2"),
        (".feed_forward.up_proj", ".feed_forward.w3"),
    ]);
    let tied = config.bool_or("tie_word_embeddings", true)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let shape = heads(config)?;
    let d_model = shape.d_model;
    if config.usize_opt("block_dim")?.is_some_and(|d| d != d_model) {
        let expected = format!("hidden_size, which is {d_model}");
        return Err(config.invalid("block_dim", expected).into());
    }
    let d_ff = d_ff(config)?;
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(1_000_000.0),
        traditional: false,
    };
    let rope = Rope::load_plain(&nested_theta_first(config)?, rope)?;
    let attends = attention_layers(config)?;
    let eps = config.f32("norm_eps")?;
    let root = weights.root();
    let model = root.at("model");
    let norm = model.rms_norm("embedding_norm", d_model, eps)?;
    let frame = Frame {
        model,
        // mlx-lm has no output layer of its own, whatever the setting.
        head: (!tied && root.has("lm_head.weight")).then_some(root),
        norm: FinalNorm::Rms(norm),
    };
    let block = |i: usize, w: &Cursor| {
        let operator = if attends.contains(&i) {
            let w = w.at("self_attn");
            let attention = Attention::load(&w, shape, Some(rope.clone()))?;
            Operator::Attention(Box::new(attention.with_head_norms(&w, eps)?))
        } else {
            Operator::Conv(ShortConv::load(config, &w.at("conv"), d_model)?)
        };
        Ok(Layer {
            operator_norm: w.rms_norm("operator_norm", d_model, eps)?,
            operator,
            ffn_norm: w.rms_norm("ffn_norm", d_model, eps)?,
            feed_forward: GatedMlp::load(&w.at("feed_forward"), d_model, d_ff, false)?,
        })
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// Features inside the feed-forward layer: two thirds of the stated number, scaled and rounded up to a
/// multiple, where `block_auto_adjust_ff_dim` asks for that.
fn d_ff(config: &Config) -> LoadResult<usize> {
    let key = match config.value("block_ff_dim") {
        Some(_) => "block_ff_dim",
        None => "intermediate_size",
    };
    let stated = positive(config, key)?;
    if !config.bool("block_auto_adjust_ff_dim")? {
        return Ok(stated);
    }
    let mut d_ff = stated.saturating_mul(2) / 3;
    if config.f32_opt("block_ffn_dim_multiplier")?.is_some() {
        // In double precision, because the product is cut off to a whole number.
        let multiplier = config.value("block_ffn_dim_multiplier");
        let multiplier = multiplier.and_then(serde_json::Value::as_f64);
        d_ff = (multiplier.unwrap_or(1.0) * d_ff as f64) as usize;
    }
    let unit = positive(config, "block_multiple_of")?;
    Ok(d_ff.div_ceil(unit).saturating_mul(unit))
}

/// Which layers attend: `full_attn_idxs`, else those that `layer_types` says so of.
fn attention_layers(config: &Config) -> LoadResult<Vec<usize>> {
    if let Some(layers) = config.usize_list("full_attn_idxs")? {
        return Ok(layers);
    }
    let Some(types) = config.str_list("layer_types")? else {
        let expected = "a type for each layer, or full_attn_idxs";
        return Err(config.invalid("layer_types", expected).into());
    };
    let mut layers = Vec::new();
    for (i, kind) in types.into_iter().enumerate() {
        match kind {
            "full_attention" => layers.push(i),
            "conv" | "short_conv" | "linear_attention" => {}
            other => {
                return Err(LoadError::Unsupported(format!(
                    "{}: layer_types has {other:?}; supported are full_attention and conv",
                    config.file()
                )));
            }
        }
    }
    Ok(layers)
}

/// `out(c · conv(b · x))`, where b, c and x are projections.
struct ShortConv {
    in_proj: Linear,
    conv: Conv1d,
    out_proj: Linear,
    d_model: i32,
}

impl ShortConv {
    /// `in_proj`, `conv` and `out_proj` under `w`.
    fn load(config: &Config, w: &Cursor, d_model: usize) -> LoadResult<Self> {
        let bias = config.bool("conv_bias")?;
        let kernel = positive(config, "conv_L_cache")?;
        Ok(Self {
            in_proj: w.linear("in_proj", [d_model.saturating_mul(3), d_model], bias)?,
            conv: w.conv1d("conv", d_model, kernel, bias)?,
            out_proj: w.linear("out_proj", [d_model, d_model], bias)?,
            d_model: d_model as i32,
        })
    }

    /// `x [B, L, d_model]` to the same shape; `cache` is a recurrent one.
    fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let cache = cache.as_recurrent()?;
        let [b, c, x] = self.in_proj.forward(x)?.split([self.d_model; 3], -1)?;
        let convolved = self.conv.forward(&b.multiply(&x)?, cache)?;
        cache.advance(batch)?;
        self.out_proj.forward(&c.multiply(&convolved)?)
    }
}

/// What mixes positions.
enum Operator {
    Attention(Box<Attention>),
    Conv(ShortConv),
}

/// `h += operator(norm(h)); h += mlp(norm(h))`.
struct Layer {
    operator_norm: RmsNorm,
    operator: Operator,
    ffn_norm: RmsNorm,
    feed_forward: GatedMlp,
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let normed = self.operator_norm.forward(h)?;
        let mixed = match &self.operator {
            Operator::Attention(attention) => attention.forward(&normed, batch, cache)?,
            Operator::Conv(conv) => conv.forward(&normed, batch, cache)?,
        };
        let h = h.add(&mixed)?;
        h.add(&self.feed_forward.forward(&self.ffn_norm.forward(&h)?)?)
    }

    fn cache(&self) -> LayerCache {
        match self.operator {
            Operator::Attention(_) => LayerCache::full(),
            Operator::Conv(_) => LayerCache::recurrent(),
        }
    }
}
