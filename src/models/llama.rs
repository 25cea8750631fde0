//! Llama (Touvron et al., 2023; Llama 3, 2024): grouped-query attention, RMS norms, SwiGLU.
//!
//! Defaults follow mlx-lm's `models/llama.py`.

use super::{Model, ModelFacts, positive, positive_or};
use crate::cache::{Batch, FullCache, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Attention, AttentionShape, Embedding, Linear, RmsNorm, Rope, RopeShape, SwiGlu};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let d_model = positive(config, "hidden_size")?;
    let n_heads = positive(config, "num_attention_heads")?;
    let head_dim = positive_or(config, "head_dim", d_model / n_heads)?;
    let tied = config.bool_or("tie_word_embeddings", true)?;
    refuse_sliding(config)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight" || precomputed_freqs(name));
    } else {
        weights.ignoring(precomputed_freqs);
    }
    let decoder = DecoderShape {
        attention: AttentionShape {
            d_model,
            n_heads,
            n_kv_heads: positive_or(config, "num_key_value_heads", n_heads)?,
            head_dim,
            bias: config.bool_or("attention_bias", false)?,
            qk_norm: None,
        },
        mlp_bias: config.bool_or("mlp_bias", false)?,
        rope: RopeShape {
            dims: head_dim,
            default_theta: Some(10_000.0),
            traditional: config.bool_or("rope_traditional", false)?,
        },
        tied,
    };
    Ok(Box::new(Decoder::load(config, &weights.root(), decoder)?))
}

/// Angles that old converters stored; they are computed here.
fn precomputed_freqs(name: &str) -> bool {
    name.contains("self_attn.rotary_emb.inv_freq")
}

fn refuse_sliding(config: &Config) -> LoadResult<()> {
    let types = config.str_list("layer_types")?.unwrap_or_default();
    match types.iter().find(|kind| **kind != "full_attention") {
        None => Ok(()),
        Some(kind) => Err(LoadError::Unsupported(format!(
            "{}: layer_types has {kind:?}; only full_attention is supported for this architecture",
            config.file()
        ))),
    }
}

/// What distinguishes one decoder of this form from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecoderShape {
    pub attention: AttentionShape,
    pub mlp_bias: bool,
    pub rope: RopeShape,
    /// Whether the embedding is the output layer too.
    pub tied: bool,
}

/// A pre-norm decoder: `h += attention(norm(h)); h += mlp(norm(h))`.
pub(super) struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// Absent where the embedding serves.
    lm_head: Option<Linear>,
    facts: ModelFacts,
}

struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGlu,
}

impl Decoder {
    pub fn load(config: &Config, w: &Cursor, shape: DecoderShape) -> LoadResult<Self> {
        let vocab_size = positive(config, "vocab_size")?;
        let d_model = shape.attention.d_model;
        let d_ff = positive(config, "intermediate_size")?;
        let eps = config.f32("rms_norm_eps")?;
        let n_heads = shape.attention.n_heads;
        if !n_heads.is_multiple_of(shape.attention.n_kv_heads) {
            let expected = format!("a divisor of num_attention_heads, which is {n_heads}");
            return Err(config.invalid("num_key_value_heads", expected).into());
        }
        let model = w.at("model");
        let layer = |i| -> LoadResult<Layer> {
            let w = model.index("layers", i);
            let rope = Rope::load(config, shape.rope)?;
            Ok(Layer {
                input_layernorm: w.rms_norm("input_layernorm", d_model, eps)?,
                self_attn: Attention::load(&w.at("self_attn"), shape.attention, rope)?,
                post_attention_layernorm: w.rms_norm("post_attention_layernorm", d_model, eps)?,
                mlp: SwiGlu::load(&w.at("mlp"), d_model, d_ff, shape.mlp_bias)?,
            })
        };
        let n_layers = positive(config, "num_hidden_layers")?;
        let mut decoder = Self {
            embed_tokens: model.embedding("embed_tokens", vocab_size, d_model)?,
            layers: (0..n_layers).map(layer).collect::<LoadResult<_>>()?,
            norm: model.rms_norm("norm", d_model, eps)?,
            lm_head: match shape.tied {
                true => None,
                false => Some(w.linear("lm_head", [vocab_size, d_model], false)?),
            },
            facts: ModelFacts {
                vocab_size,
                context_length: config.usize_opt("max_position_embeddings")?,
                weight_bytes: 0,
            },
        };
        decoder.facts.weight_bytes = decoder.nbytes();
        Ok(decoder)
    }

    fn nbytes(&self) -> usize {
        let layer = |layer: &Layer| {
            layer.input_layernorm.nbytes()
                + layer.self_attn.nbytes()
                + layer.post_attention_layernorm.nbytes()
                + layer.mlp.nbytes()
        };
        self.embed_tokens.nbytes()
            + self.layers.iter().map(layer).sum::<usize>()
            + self.norm.nbytes()
            + self.lm_head.as_ref().map_or(0, Linear::nbytes)
    }
}

impl Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let attended = self
            .self_attn
            .forward(&self.input_layernorm.forward(h)?, batch, cache)?;
        let h = h.add(&attended)?;
        let fed = self
            .mlp
            .forward(&self.post_attention_layernorm.forward(&h)?)?;
        h.add(&fed)
    }
}

impl Model for Decoder {
    fn forward(&self, batch: &Batch, caches: &mut [LayerCache]) -> Result<Array> {
        let mut h = self.embed_tokens.forward(&batch.tokens)?;
        for (layer, cache) in self.layers.iter().zip(caches) {
            h = layer.forward(&h, batch, cache)?;
        }
        self.norm.forward(&h)
    }

    fn unembed(&self, hidden: &Array) -> Result<Array> {
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden),
            None => self.embed_tokens.as_linear(hidden),
        }
    }

    fn caches(&self) -> Vec<LayerCache> {
        let empty = |_: &Layer| LayerCache::Full(FullCache::default());
        self.layers.iter().map(empty).collect()
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }
}
