//! gpt-oss (OpenAI, 2025): a mixture of experts with biases everywhere, attention sinks, and a sliding
//! window in every other layer.
//!
//! Defaults follow mlx-lm's `models/gpt_oss.py`, and so does yarn: `truncate` is not read.

use serde_json::json;

use super::decoder::{Block, Decoder, Frame};
use super::{Model, heads, only, positive, windows};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Packing, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{
    Activation, Attention, AttentionShape, ExpertShape, Linear, RmsNorm, Rope, RopeShape,
    SwitchGlu, SwitchLinear, top_k_softmax, weighted_sum,
};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = &config.with_defaults(&json!({
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "vocab_size": 201_088,
        "rms_norm_eps": 1e-5,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
    }));
    only(config, "hidden_act", "silu")?;
    for (key, supported) in [("swiglu_alpha", 1.702), ("swiglu_limit", 7.0)] {
        if config.f32_or(key, supported)? != supported {
            let expected = format!("{supported}: no other value is supported");
            return Err(config.invalid(key, expected).into());
        }
    }
    weights.packed_by(|path| Packing::eight_bits_if(path.ends_with("router")));
    // mlx-lm does not read the setting: where there are biases, they count.
    let stored = weights.has("model.layers.0.self_attn.q_proj.bias");
    let bias = config.bool_or("attention_bias", true)? || stored;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(150_000.0),
        traditional: false,
    };
    let rope = Rope::load(config, rope)?;
    let windows = Windows::load(config)?;
    let tied = config.bool_or("tie_word_embeddings", false)? && !weights.has("lm_head.weight");
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let attn = w.at("self_attn");
        let mut self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        self_attn.sinks = Some(attn.tensor("sinks", &[shape.n_heads])?);
        let eps = config.f32("rms_norm_eps")?;
        Ok(Layer {
            input_layernorm: w.rms_norm("input_layernorm", shape.d_model, eps)?,
            self_attn,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", shape.d_model, eps)?,
            mlp: Moe::load(config, &w.at("mlp"))?,
            window: windows.of(i),
        })
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// How far back each layer sees.
enum Windows {
    /// By `layer_types`.
    Named(Vec<Option<usize>>),
    /// This far in every other layer, the first among them.
    Alternating(usize),
}

impl Windows {
    fn load(config: &Config) -> LoadResult<Self> {
        if config.value("layer_types").is_some() {
            return Ok(Windows::Named(windows(config)?));
        }
        if !positive(config, "num_hidden_layers")?.is_multiple_of(2) {
            // mlx-lm leaves out the last layer then, transformers does not.
            let expected = "even, or layer_types beside it";
            return Err(config.invalid("num_hidden_layers", expected).into());
        }
        Ok(Windows::Alternating(positive(config, "sliding_window")?))
    }

    fn of(&self, layer: usize) -> Option<usize> {
        match self {
            Windows::Named(windows) => windows.get(layer).copied().flatten(),
            Windows::Alternating(window) => layer.is_multiple_of(2).then_some(*window),
        }
    }
}

/// A pre-norm layer.
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Moe,
    /// How many positions a query sees; all where there is none.
    window: Option<usize>,
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let h = h.add(&self.self_attn.forward(&x, batch, cache)?)?;
        let x = self.post_attention_layernorm.forward(&h)?;
        h.add(&self.mlp.forward(&x)?)
    }

    fn cache(&self) -> LayerCache {
        self.window
            .map_or_else(LayerCache::full, LayerCache::sliding)
    }
}

/// A router and its experts.
struct Moe {
    router: Linear,
    experts: SwitchGlu,
    /// Experts a token.
    top_k: usize,
}

impl Moe {
    fn load(config: &Config, w: &Cursor) -> LoadResult<Self> {
        let shape = ExpertShape {
            n_experts: positive(config, "num_local_experts")?,
            d_model: positive(config, "hidden_size")?,
            d_ff: positive(config, "intermediate_size")?,
        };
        let top_k = positive(config, "num_experts_per_tok")?;
        if top_k > shape.n_experts {
            let expected = format!("at most num_local_experts, which is {}", shape.n_experts);
            return Err(config.invalid("num_experts_per_tok", expected).into());
        }
        Ok(Self {
            router: w.linear("router", [shape.n_experts, shape.d_model], true)?,
            experts: experts(&w.at("experts"), shape)?,
            top_k,
        })
    }

    /// `x [B, L, d_model]` to the same shape.
    fn forward(&self, x: &Array) -> Result<Array> {
        let (indices, scores) = top_k_softmax(&self.router.forward(x)?, self.top_k)?;
        weighted_sum(&self.experts.forward(x, &indices)?, &scores)
    }
}

/// The experts under `w`, in mlx-lm's layout or with gate and up in one tensor, their rows in turn: as
/// published (4-bit floats), the same as plain matrices, or transposed as transformers saves them.
fn experts(w: &Cursor, shape: ExpertShape) -> LoadResult<SwitchGlu> {
    let ExpertShape {
        n_experts: e,
        d_model,
        d_ff,
    } = shape;
    if w.at("gate_proj").has("weight") {
        return Ok(SwitchGlu {
            gate_proj: w.stacked("gate_proj", [e, d_ff, d_model], true)?,
            up_proj: w.stacked("up_proj", [e, d_ff, d_model], true)?,
            down_proj: w.stacked("down_proj", [e, d_model, d_ff], true)?,
            activation: Activation::SwigluOai,
        });
    }
    // Laid out otherwise in MLX's format.
    let told = w;
    let w = &w.untold();
    let matrix = |name: &str, out, inner| {
        if w.has(&format!("{name}_blocks")) {
            w.mxfp4_blocks(name, [e, out, inner])
        } else if w.at(name).has("weight") {
            w.at(name).matrix(&[e, out, inner])
        } else {
            let transposed = w.tensor(name, &[e, inner, out])?;
            Ok(own(&transposed.swap_last()?)?.into())
        }
    };
    let gate_up = matrix("gate_up_proj", 2 * d_ff, d_model)?;
    let gate_up_bias = w.tensor("gate_up_proj_bias", &[e, 2 * d_ff])?;
    let every_other = |name, first| -> LoadResult<SwitchLinear> {
        let layer = SwitchLinear {
            weight: gate_up.map(|part| own(&part.slice_step(1, first, 2)?))?,
            bias: Some(own(&gate_up_bias.slice_step(1, first, 2)?)?),
            adapter: w.at(name).stack_adapter([e, d_ff, d_model])?,
        };
        told.told_stack(name, layer)
    };
    Ok(SwitchGlu {
        gate_proj: every_other("gate_proj", 0)?,
        up_proj: every_other("up_proj", 1)?,
        down_proj: told.told_stack(
            "down_proj",
            SwitchLinear {
                weight: matrix("down_proj", d_model, d_ff)?,
                bias: Some(w.tensor("down_proj_bias", &[e, d_model])?),
                adapter: w.at("down_proj").stack_adapter([e, d_model, d_ff])?,
            },
        )?,
        activation: Activation::SwigluOai,
    })
}

/// Memory of its own, laid out row by row.
fn own(array: &Array) -> Result<Array> {
    let array = array.contiguous()?;
    array.eval()?;
    Ok(array)
}
