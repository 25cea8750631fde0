//! Llama (Touvron et al., 2023; Llama 3, 2024) and Mistral 7B (Jiang et al., 2023): grouped-query
//! attention, RMS norms, SwiGLU. Layers may see a sliding window only, by `layer_types`; without these
//! `sliding_window` is not read, so Mistral 7B v0.1 sees all positions.
//!
//! Defaults follow mlx-lm's `models/llama.py`.

use super::decoder::{Block, Decoder, Frame};
use super::{Model, heads, positive, windows};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Held, Result};
use crate::nn::{Attention, AttentionShape, GatedMlp, RmsNorm, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", true)?;
    load_as(config, weights, tied, |_| true)
}

/// The same with embeddings `tied` or not, and rotary positions where `turns` says so of a layer.
pub(super) fn load_as(
    config: &Config,
    weights: &mut Weights,
    tied: bool,
    turns: impl Fn(usize) -> bool,
) -> LoadResult<Box<dyn Model>> {
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let rope = rope(config, shape.head_dim, 10_000.0)?;
    let form = Form {
        tied,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        windows: windows(config)?,
    };
    form.load(config, weights, |i, w| {
        Attention::load(w, shape, turns(i).then(|| rope.clone()))
    })
}

/// The rotary embedding of `head_dim` features, whose pairs `rope_traditional` chooses.
pub(super) fn rope(config: &Config, head_dim: usize, default_theta: f32) -> LoadResult<Rope> {
    let shape = RopeShape {
        dims: head_dim,
        default_theta: Some(default_theta),
        traditional: config.bool_or("rope_traditional", false)?,
    };
    Rope::load(config, shape)
}

/// What decoders of Llama's form differ in, beside their attention layers.
#[derive(Default)]
pub(super) struct Form {
    /// Whether the embedding serves as the output layer.
    pub tied: bool,
    /// Whether the feed-forward layers have biases.
    pub mlp_bias: bool,
    /// How many positions each layer's queries see, as [`windows`] reads it.
    pub windows: Vec<Option<usize>>,
}

impl Form {
    /// A decoder around the attention layers that `attention` makes of a layer's number and its
    /// `self_attn`.
    pub fn load(
        self,
        config: &Config,
        weights: &mut Weights,
        attention: impl Fn(usize, &Cursor) -> LoadResult<Attention>,
    ) -> LoadResult<Box<dyn Model>> {
        if self.tied {
            weights.ignoring(|name| name == "lm_head.weight" || precomputed_freqs(name));
        } else {
            weights.ignoring(precomputed_freqs);
        }
        let frame = Frame::usual(config, &weights.root(), self.tied)?;
        let block = |i: usize, w: &Cursor| {
            let self_attn = attention(i, &w.at("self_attn"))?;
            let window = self.windows.get(i).copied().flatten();
            Layer::load(config, w, self_attn, self.mlp_bias, window)
        };
        Ok(Box::new(Decoder::load(config, weights, frame, block)?))
    }
}

/// Angles that old converters stored; they are computed here.
pub(super) fn precomputed_freqs(name: &str) -> bool {
    name.contains("self_attn.rotary_emb.inv_freq")
}

/// A pre-norm layer: `h += attention(norm(h)); h += mlp(norm(h))`.
pub(super) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
    /// How many positions a query sees; all where there is none.
    window: Option<usize>,
    /// What joins the residual stream is multiplied by it.
    pub residual_scale: Option<f32>,
    held: Held,
}

impl Layer {
    /// Norms and feed-forward layer under `w`, around an attention layer.
    pub fn load(
        config: &Config,
        w: &Cursor,
        self_attn: Attention,
        mlp_bias: bool,
        window: Option<usize>,
    ) -> LoadResult<Self> {
        let d_model = positive(config, "hidden_size")?;
        let d_ff = positive(config, "intermediate_size")?;
        let mlp = GatedMlp::load(&w.at("mlp"), d_model, d_ff, mlp_bias)?;
        Self::around(config, w, self_attn, mlp, window)
    }

    /// Norms under `w`, around an attention and a feed-forward layer.
    pub fn around(
        config: &Config,
        w: &Cursor,
        self_attn: Attention,
        mlp: GatedMlp,
        window: Option<usize>,
    ) -> LoadResult<Self> {
        let d_model = positive(config, "hidden_size")?;
        let eps = config.f32("rms_norm_eps")?;
        Ok(Self {
            input_layernorm: w.rms_norm("input_layernorm", d_model, eps)?,
            self_attn,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", d_model, eps)?,
            mlp,
            window,
            residual_scale: None,
            held: Held::default(),
        })
    }
}

impl Layer {
    fn joined(&self, h: &Array, mut more: Array) -> Result<Array> {
        if let Some(scale) = self.residual_scale {
            more = more.scale(scale)?;
        }
        h.add(&more)
    }
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        if self.residual_scale.is_none() {
            let norms = [&self.input_layernorm, &self.post_attention_layernorm];
            let (mlp, held) = (&self.mlp, &self.held);
            let done = self.self_attn.block(norms, mlp, held, h, batch, cache);
            if let Some(done) = done {
                return done;
            }
        }
        let attended = self
            .self_attn
            .forward(&self.input_layernorm.forward(h)?, batch, cache)?;
        let h = self.joined(h, attended)?;
        let fed = self
            .mlp
            .forward(&self.post_attention_layernorm.forward(&h)?)?;
        self.joined(&h, fed)
    }

    fn cache(&self) -> LayerCache {
        self.window
            .map_or_else(LayerCache::full, LayerCache::sliding)
    }
}
