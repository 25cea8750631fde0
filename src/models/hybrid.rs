//! The decoder of Qwen3-Next and Qwen3.5: layers of linear and of gated attention.
//!
//! Hugging Face's checkpoints store the norms' scales less 1, but for the one inside a gated delta
//! net.

use super::decoder::{Block, Decoder, FinalNorm, Frame};
use super::gated_attention::GatedAttention;
use super::gated_delta_net::GatedDeltaNet;
use super::qwen3_moe::{Experts, FeedForward, Routing};
use super::{Model, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{CheckpointError, Config, Cursor, LoadError, LoadResult, Packing, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{ExpertShape, GatedMlp, RmsNorm, Rope};

/// A decoder of gated delta nets and attention layers, every `full_attention_interval`-th or as
/// `layer_types` says; `fused` is what [`GatedDeltaNet::load`] asks for, and `mlp` makes the
/// feed-forward part of a layer.
pub(super) fn load_hybrid(
    config: &Config,
    weights: &mut Weights,
    rope: Rope,
    fused: bool,
    mlp: impl Fn(usize, &Cursor) -> LoadResult<FeedForward>,
) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", false)?;
    // Layers that predict several tokens are not used.
    weights.ignoring(move |name| name.contains("mtp.") || (tied && name == "lm_head.weight"));
    weights.packed_by(|path| {
        let gates = ["mlp.gate", "shared_expert_gate"];
        Packing::eight_bits_if(gates.iter().any(|gate| path.ends_with(gate)))
    });
    let n_layers = size(config, "num_hidden_layers")?;
    let root = weights.root();
    let model = root.at("model");
    let norms = Norms {
        d_model: size(config, "hidden_size")?,
        eps: config.f32("rms_norm_eps")?,
        one_less: (0..n_layers)
            .map(|i| model.index("layers", i))
            .take_while(|layer| layer.has("input_layernorm.weight"))
            .any(|layer| unconverted(&layer)),
    };
    let frame = Frame {
        norm: FinalNorm::Rms(norms.load(&model, "norm", norms.d_model)?),
        model,
        head: (!tied).then_some(root),
    };
    let linear = linear_layers(config, n_layers)?;
    let block = |i: usize, w: &Cursor| {
        Ok(Layer {
            input_layernorm: norms.load(w, "input_layernorm", norms.d_model)?,
            mixer: match linear(i) {
                true => Mixer::Linear(GatedDeltaNet::load(config, &w.at("linear_attn"), fused)?),
                false => Mixer::Full(GatedAttention::load(
                    config,
                    &w.at("self_attn"),
                    &norms,
                    &rope,
                )?),
            },
            post_attention_layernorm: norms.load(w, "post_attention_layernorm", norms.d_model)?,
            mlp: mlp(i, &w.at("mlp"))?,
        })
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// Whether a layer is laid out as Hugging Face has it: what tells that scales are stored less 1.
fn unconverted(layer: &Cursor) -> bool {
    let conv1d = layer.shape_of("linear_attn.conv1d.weight");
    conv1d.is_some_and(|shape| shape.last() != Some(&1))
        || layer.has("mlp.experts.0.up_proj.weight")
}

/// Which layers are gated delta nets.
fn linear_layers(config: &Config, n_layers: usize) -> LoadResult<impl Fn(usize) -> bool> {
    let interval = config.usize_opt("full_attention_interval")?;
    if interval == Some(0) {
        return Err(config
            .invalid("full_attention_interval", "at least 1")
            .into());
    }
    let every = move |i: usize| !(i + 1).is_multiple_of(interval.unwrap_or(4));
    let mut types = Vec::new();
    for (i, kind) in config
        .str_list("layer_types")?
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        types.push(*kind == "linear_attention");
        let known = matches!(*kind, "linear_attention" | "full_attention");
        let agrees = interval.is_none() || i >= n_layers || types[i] == every(i);
        if !known || !agrees {
            return Err(LoadError::Unsupported(format!(
                "{}: layer_types[{i}] is {kind:?}; supported are linear_attention and \
                 full_attention, in agreement with full_attention_interval",
                config.file()
            )));
        }
    }
    Ok(move |i| types.get(i).copied().unwrap_or_else(|| every(i)))
}

/// The norms of a checkpoint.
pub(super) struct Norms {
    d_model: usize,
    eps: f32,
    /// Whether scales are stored less 1.
    one_less: bool,
}

impl Norms {
    /// The norm `name` over `d` features.
    pub fn load(&self, w: &Cursor, name: &str, d: usize) -> LoadResult<RmsNorm> {
        match self.one_less {
            true => w.rms_norm_one_less(name, d, self.eps),
            false => w.rms_norm(name, d, self.eps),
        }
    }
}

/// A size that is at least 1, and small enough to be multiplied by another.
pub(super) fn size(config: &Config, key: &str) -> std::result::Result<usize, CheckpointError> {
    match positive(config, key)? {
        n if n <= 1 << 24 => Ok(n),
        _ => Err(config.invalid(key, "at most 16777216")),
    }
}

/// A pre-norm layer: `h += mixer(norm(h)); h += mlp(norm(h))`.
struct Layer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

enum Mixer {
    Linear(GatedDeltaNet),
    Full(GatedAttention),
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let mixed = match &self.mixer {
            Mixer::Linear(net) => net.forward(&x, batch, cache.as_recurrent()?)?,
            Mixer::Full(attention) => attention.forward(&x, batch, cache)?,
        };
        let h = h.add(&mixed)?;
        let x = self.post_attention_layernorm.forward(&h)?;
        h.add(&self.mlp.forward(&x)?)
    }

    fn cache(&self) -> LayerCache {
        match self.mixer {
            Mixer::Linear(_) => LayerCache::recurrent(),
            Mixer::Full(_) => LayerCache::full(),
        }
    }
}

/// Experts under `w`, and one more that every token goes through, by a gate of its own.
pub(super) fn experts(config: &Config, w: &Cursor, normalise: bool) -> LoadResult<FeedForward> {
    let d_model = size(config, "hidden_size")?;
    let shape = ExpertShape {
        n_experts: size(config, "num_experts")?,
        d_model,
        d_ff: size(config, "moe_intermediate_size")?,
    };
    let routing = Routing::SoftmaxTopK { normalise };
    let mut experts = Experts::load(config, w, "gate", shape, routing, false)?;
    let d_ff = size(config, "shared_expert_intermediate_size")?;
    let shared = GatedMlp::load(&w.at("shared_expert"), d_model, d_ff, false)?;
    let gate = w.linear("shared_expert_gate", [1, d_model], false)?;
    experts.shared = Some((shared, gate));
    Ok(experts.into())
}
