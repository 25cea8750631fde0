//! Nemotron-H and Nemotron 3 (NVIDIA, 2025): layers of one kind each, by a pattern of Mamba 2, attention
//! without positions, a feed-forward layer and a mixture of experts.
//!
//! Defaults follow mlx-lm's `models/nemotron_h.py`. Only the first two kinds have caches.

use super::decoder::begin;
use super::mamba2::{MixerKeys, mixer_shape, time_step_limit};
use super::relu2::{Mlp, Moe};
use super::{Model, ModelFacts, heads, only, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, LoadError, LoadResult, Packing, Weights};
use crate::mlx::{Array, Error, Result};
use crate::nn::{Attention, AttentionShape, Embedding, Linear, Mamba2, Mamba2Shape, RmsNorm};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.rename(&[
        (".mixer.switch_mlp.fc1.", ".mixer.switch_mlp.up_proj."),
        (".mixer.switch_mlp.fc2.", ".mixer.switch_mlp.down_proj."),
    ]);
    weights.written_as(&[
        (".mixer.switch_mlp.up_proj", ".mixer.switch_mlp.fc1"),
        (".mixer.switch_mlp.down_proj", ".mixer.switch_mlp.fc2"),
    ]);
    weights.packed_by(|path| Packing::never_if(path.ends_with("mixer.gate")));
    weights.keeping_type(|name| name.contains("e_score_correction_bias") || name.contains("A_log"));
    // Heads that guess several tokens ahead.
    weights.ignoring(|name| name.starts_with("mtp."));
    only(config, "mlp_hidden_act", "relu2")?;
    only(config, "mamba_hidden_act", "silu")?;
    let (vocab, d_model) = (
        positive(config, "vocab_size")?,
        positive(config, "hidden_size")?,
    );
    let eps = config.f32("layer_norm_epsilon")?;
    let attention_bias = config.bool("attention_bias")?;
    let attention = AttentionShape {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        ..heads(config)?
    };
    let mamba = mamba(config, eps)?;
    let mlp_bias = config.bool("mlp_bias")?;
    let root = weights.root();
    let backbone = root.at("backbone");
    let layer = |(i, kind): (usize, char)| {
        let here = backbone.index("layers", i);
        let w = here.at("mixer");
        let mixer = match kind {
            'M' => Mixer::Mamba(Mamba2::load(&w, mamba)?),
            '*' => Mixer::Attention(Attention::load(&w, attention, None)?),
            'E' => Mixer::Moe(Box::new(Moe::load(config, &w, mlp_bias)?)),
            _ => {
                let d_ff = positive(config, "intermediate_size")?;
                Mixer::Mlp(Mlp::load(&w, d_model, d_ff, mlp_bias)?)
            }
        };
        let norm = here.rms_norm("norm", d_model, eps)?;
        Ok(Layer { norm, mixer })
    };
    let layers = pattern(config)?.into_iter().enumerate().map(layer);
    let mut model = NemotronH {
        embeddings: backbone.embedding("embeddings", vocab, d_model)?,
        layers: layers.collect::<LoadResult<_>>()?,
        norm_f: backbone.rms_norm("norm_f", d_model, eps)?,
        lm_head: root.linear("lm_head", [vocab, d_model], false)?,
        facts: ModelFacts::new(config, vocab)?,
    };
    model.facts.weight_bytes = weights.resident_bytes();
    Ok(Box::new(model))
}

fn mamba(config: &Config, eps: f32) -> LoadResult<Mamba2Shape> {
    let keys = MixerKeys {
        n_heads: "mamba_num_heads",
        head_dim: "mamba_head_dim",
        n_groups: "n_groups",
        state_size: "ssm_state_size",
        kernel: "conv_kernel",
    };
    let shape = mixer_shape(config, &keys)?;
    Ok(Mamba2Shape {
        proj_bias: config.bool("mamba_proj_bias")?,
        conv_bias: config.bool("use_conv_bias")?,
        eps,
        norm_groups: shape.n_groups,
        time_step_limit: time_step_limit(config)?.unwrap_or(shape.time_step_limit),
        ..shape
    })
}

/// The kind of each layer: `M`, `*`, `-` or `E`. Their number is that of the layers, whatever
/// `num_hidden_layers` says.
fn pattern(config: &Config) -> LoadResult<Vec<char>> {
    let key = "hybrid_override_pattern";
    let kinds: Vec<char> = match config.value(key) {
        Some(value) if value.is_string() => config.str(key)?.chars().collect(),
        Some(_) => {
            let kinds = config.str_list(key)?.unwrap_or_default();
            kinds.into_iter().flat_map(str::chars).collect()
        }
        None => {
            let of = |key| -> LoadResult<_> {
                Ok(config.str_list(key)?.filter(|types| !types.is_empty()))
            };
            let types = match of("layers_block_type")? {
                Some(types) => Some(types),
                None => of("layer_types")?,
            };
            let char_of = |kind: &str| match kind {
                "linear_attention" | "mamba" | "conv" => Ok('M'),
                "full_attention" | "attention" => Ok('*'),
                "mlp" => Ok('-'),
                "moe" => Ok('E'),
                other => Err(unknown(config, other)),
            };
            let types = types.unwrap_or_default().into_iter();
            types.map(char_of).collect::<LoadResult<_>>()?
        }
    };
    if kinds.is_empty() {
        let expected = "the kind of each layer, or layers_block_type";
        return Err(config.invalid(key, expected).into());
    }
    match kinds.iter().find(|kind| !"M*-E".contains(**kind)) {
        Some(kind) => Err(unknown(config, &kind.to_string())),
        None => Ok(kinds),
    }
}

fn unknown(config: &Config, kind: &str) -> LoadError {
    LoadError::Unsupported(format!(
        "{}: there is a layer of kind {kind:?}; supported are linear_attention (M), full_attention \
         (*), mlp (-) and moe (E)",
        config.file()
    ))
}

/// The decoder; its `facts` are those of the configuration.
struct NemotronH {
    embeddings: Embedding,
    layers: Vec<Layer>,
    norm_f: RmsNorm,
    lm_head: Linear,
    facts: ModelFacts,
}

/// `h += mixer(norm(h))`.
struct Layer {
    norm: RmsNorm,
    mixer: Mixer,
}

enum Mixer {
    Mamba(Mamba2),
    Attention(Attention),
    Mlp(Mlp),
    Moe(Box<Moe>),
}

impl Model for NemotronH {
    fn forward(&self, batch: &Batch, caches: &mut [LayerCache]) -> Result<Array> {
        let mut h = self.embeddings.forward(&batch.tokens)?;
        let mut caches = caches.iter_mut();
        let mut next = || {
            let none = || {
                Error::new(
                    "forward",
                    &[],
                    "there are fewer caches than layers with one",
                )
            };
            caches.next().ok_or_else(none)
        };
        for (i, Layer { norm, mixer }) in self.layers.iter().enumerate() {
            let x = norm.forward(&h)?;
            let y = match mixer {
                Mixer::Mamba(mamba) => mamba.forward(&x, batch, next()?)?,
                Mixer::Attention(attention) => attention.forward(&x, batch, next()?)?,
                Mixer::Mlp(mlp) => mlp.forward(&x)?,
                Mixer::Moe(moe) => moe.forward(&x)?,
            };
            h = h.add(&y)?;
            begin(&h, batch, i)?;
        }
        self.norm_f.forward(&h)
    }

    fn unembed(&self, hidden: &Array) -> Result<Array> {
        self.lm_head.forward(hidden)
    }

    fn caches(&self) -> Vec<LayerCache> {
        let cache = |layer: &Layer| match layer.mixer {
            Mixer::Mamba(_) => Some(LayerCache::recurrent()),
            Mixer::Attention(_) => Some(LayerCache::full()),
            Mixer::Mlp(_) | Mixer::Moe(_) => None,
        };
        self.layers.iter().filter_map(cache).collect()
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }
}
