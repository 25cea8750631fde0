//! Granite 4.0 (IBM, 2025): Mamba 2 or attention, then experts with a shared one or a dense layer.
//!
//! Defaults follow mlx-lm's `models/granitemoehybrid.py`.

use super::decoder::{Block, Decoder, Frame};
use super::mamba2::{MixerKeys, mixer_shape, time_step_limit};
use super::{Model, heads, nested_theta_first, only, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Packing, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{
    Activation, Attention, AttentionShape, ExpertShape, GatedMlp, Linear, Mamba2, Mamba2Shape,
    RmsNorm, Rope, RopeShape, SwitchGlu, top_k_softmax, weighted_sum,
};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    only(config, "hidden_act", "silu")?;
    let n_experts = config.usize_or("num_local_experts", 0)?;
    if n_experts == 0 {
        weights.rename(&[
            (".shared_mlp.input_linear.", ".mlp.gate_up_proj."),
            (".shared_mlp.output_linear.", ".mlp.down_proj."),
        ]);
    } else {
        weights.packed_by(|path| Packing::eight_bits_if(path.ends_with("router.layer")));
        weights.rename(&[(
            ".block_sparse_moe.output_linear.",
            ".block_sparse_moe.switch_mlp.down_proj.",
        )]);
    }
    let tied = config.bool_or("tie_word_embeddings", true)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let recurrent = recurrent_layers(config)?;
    // A model of attention alone has no settings of the other kind.
    let mamba = match recurrent.contains(&true) {
        true => Some(mamba(config)?),
        false => None,
    };
    let d_model = positive(config, "hidden_size")?;
    let attention = attention(config)?;
    let eps = config.f32("rms_norm_eps")?;
    let residual_multiplier = config.f32("residual_multiplier")?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let mixer = match (mamba, recurrent.get(i)) {
            (Some(shape), Some(true)) => Mixer::Mamba(Mamba2::load(&w.at("mamba"), shape)?),
            _ => Mixer::Attention(attention(&w.at("self_attn"))?),
        };
        Ok(Layer {
            input_layernorm: w.rms_norm("input_layernorm", d_model, eps)?,
            mixer,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", d_model, eps)?,
            mlp: match n_experts {
                0 => Mlp::Dense(dense(config, &w.at("mlp"), d_model)?),
                _ => Mlp::Moe(Box::new(Moe::load(config, w, d_model, n_experts)?)),
            },
            residual_multiplier,
        })
    };
    let mut decoder = Decoder::load(config, weights, frame, block)?;
    decoder.embed_scale = Some(config.f32("embedding_multiplier")?);
    decoder.logit_scale = Some(1.0 / config.f32("logits_scaling")?);
    Ok(Box::new(decoder))
}

/// Which layers are Mamba 2, by `layer_types`; the others attend.
fn recurrent_layers(config: &Config) -> LoadResult<Vec<bool>> {
    let types = config.str_list("layer_types")?.unwrap_or_default();
    let n_layers = positive(config, "num_hidden_layers")?;
    if types.len() != n_layers {
        let expected = format!("a type for each of {n_layers} layers");
        return Err(config.invalid("layer_types", expected).into());
    }
    let kind = |kind: &str| match kind {
        "mamba" | "linear_attention" => Ok(true),
        "attention" | "full_attention" => Ok(false),
        other => Err(LoadError::Unsupported(format!(
            "{}: layer_types has {other:?}; supported are mamba and attention",
            config.file()
        ))),
    };
    types.into_iter().map(kind).collect()
}

fn mamba(config: &Config) -> LoadResult<Mamba2Shape> {
    let keys = MixerKeys {
        n_heads: "mamba_n_heads",
        head_dim: "mamba_d_head",
        n_groups: "mamba_n_groups",
        state_size: "mamba_d_state",
        kernel: "mamba_d_conv",
    };
    Ok(Mamba2Shape {
        proj_bias: config.bool_or("mamba_proj_bias", false)?,
        conv_bias: config.bool_or("mamba_conv_bias", false)?,
        eps: config.f32("rms_norm_eps")?,
        time_step_limit: time_step_limit(config)?.unwrap_or([0.001, 100.0]),
        ..mixer_shape(config, &keys)?
    })
}

/// What loads an attention layer from its place.
fn attention(config: &Config) -> LoadResult<impl Fn(&Cursor) -> LoadResult<Attention>> {
    let bias = config.bool("attention_bias")?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let rope = match config.str_or("position_embedding_type", "rope")? {
        "rope" => {
            let rope = RopeShape {
                dims: shape.head_dim,
                default_theta: Some(10_000.0),
                traditional: false,
            };
            Some(Rope::load_plain(&nested_theta_first(config)?, rope)?)
        }
        "nope" => None,
        other => {
            return Err(LoadError::Unsupported(format!(
                "{}: position_embedding_type is {other:?}; supported are rope and nope",
                config.file()
            )));
        }
    };
    let scale = config.f32("attention_multiplier")?;
    Ok(move |w: &Cursor| {
        let mut attention = Attention::load(w, shape, rope.clone())?;
        attention.scale = scale;
        Ok(attention)
    })
}

fn dense(config: &Config, w: &Cursor, d_model: usize) -> LoadResult<GatedMlp> {
    let d_ff = positive(config, "intermediate_size")?;
    match w.has("gate_up_proj.weight") {
        true => GatedMlp::load_parted(w, d_model, d_ff),
        false => GatedMlp::load(w, d_model, d_ff, config.bool_or("mlp_bias", false)?),
    }
}

/// Experts, and one that all tokens share.
struct Moe {
    router: Linear,
    top_k: usize,
    experts: SwitchGlu,
    shared: GatedMlp,
}

impl Moe {
    /// `block_sparse_moe` and `shared_mlp` under `w`.
    fn load(config: &Config, w: &Cursor, d_model: usize, n_experts: usize) -> LoadResult<Self> {
        let top_k = positive(config, "num_experts_per_tok")?;
        if top_k > n_experts {
            let expected = format!("at most num_local_experts, which is {n_experts}");
            return Err(config.invalid("num_experts_per_tok", expected).into());
        }
        let d_ff = positive(config, "intermediate_size")?;
        let moe = w.at("block_sparse_moe");
        let experts = if moe.has("input_linear.weight") {
            let (fused, into) = (moe.at("input_linear"), moe.at("switch_mlp"));
            let shape = [n_experts, d_ff, d_model];
            let [gate_proj, up_proj] = SwitchGlu::load_parted(&fused, &into, shape)?;
            SwitchGlu {
                gate_proj,
                up_proj,
                down_proj: moe.experts("down_proj", [n_experts, d_model, d_ff], false)?,
                activation: Activation::Silu,
            }
        } else {
            let shape = ExpertShape {
                n_experts,
                d_model,
                d_ff,
            };
            SwitchGlu::load(&moe, shape, false)?
        };
        let w = w.at("shared_mlp");
        let d_ff = positive(config, "shared_intermediate_size")?;
        let gate_up = w.split_linear("input_linear", [d_ff; 2], d_model, false)?;
        let down_proj = w.linear("output_linear", [d_model, d_ff], false)?;
        Ok(Self {
            router: moe
                .at("router")
                .linear("layer", [n_experts, d_model], false)?,
            top_k,
            experts,
            shared: GatedMlp::new(gate_up, down_proj)?,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let (indices, scores) = top_k_softmax(&self.router.forward(x)?, self.top_k)?;
        let y = weighted_sum(&self.experts.forward(x, &indices)?, &scores)?;
        y.add(&self.shared.forward(x)?)
    }
}

/// What mixes positions.
enum Mixer {
    Mamba(Mamba2),
    Attention(Attention),
}

enum Mlp {
    Dense(GatedMlp),
    Moe(Box<Moe>),
}

/// `h += m · mixer(norm(h)); h += m · mlp(norm(h))`.
struct Layer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
    residual_multiplier: f32,
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let mixed = match &self.mixer {
            Mixer::Mamba(mamba) => mamba.forward(&x, batch, cache)?,
            Mixer::Attention(attention) => attention.forward(&x, batch, cache)?,
        };
        let h = h.add(&mixed.scale(self.residual_multiplier)?)?;
        let x = self.post_attention_layernorm.forward(&h)?;
        let fed = match &self.mlp {
            Mlp::Dense(mlp) => mlp.forward(&x)?,
            Mlp::Moe(moe) => moe.forward(&x)?,
        };
        h.add(&fed.scale(self.residual_multiplier)?)
    }

    fn cache(&self) -> LayerCache {
        match self.mixer {
            Mixer::Mamba(_) => LayerCache::recurrent(),
            Mixer::Attention(_) => LayerCache::full(),
        }
    }
}
