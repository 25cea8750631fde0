//! The frame that all decoders share: an embedding, blocks, a norm, an output layer.

use super::{Model, ModelFacts, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Device, Result, async_eval, current_device};
use crate::nn::{Embedding, LayerNorm, Linear, RmsNorm};

/// Tokens from which a GPU takes longer for some layers than the host for building the next.
const LONG: usize = 64;
/// Layers that a GPU begins together.
const TOGETHER: usize = 4;

/// Has a GPU begin a long pass with what is built of it, `h` behind layer `i`, instead of waiting until
/// all of it is.
pub(super) fn begin(h: &Array, batch: &Batch, i: usize) -> Result<()> {
    let last = i % TOGETHER == TOGETHER - 1;
    if !last || batch.tokens.size() < LONG || current_device() != Some(Device::Gpu) {
        return Ok(());
    }
    async_eval(&[h])
}

/// One layer of a decoder.
pub(super) trait Block {
    /// `h [B, L, d_model]` to the same shape.
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array>;

    /// An empty cache of the kind that this layer needs.
    fn cache(&self) -> LayerCache {
        LayerCache::full()
    }
}

/// The norm behind the last block.
pub(super) enum FinalNorm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

/// A decoder of blocks `B`.
pub(super) struct Decoder<B> {
    pub embed_tokens: Embedding,
    /// The embeddings are multiplied by it.
    pub embed_scale: Option<f32>,
    pub layers: Vec<B>,
    pub norm: FinalNorm,
    /// Absent where the embedding serves.
    pub lm_head: Option<Linear>,
    /// The logits are multiplied by it.
    pub logit_scale: Option<f32>,
    /// The logits are divided by it.
    pub logit_divisor: Option<f32>,
    /// Logits l become `c * tanh(l / c)`.
    pub logit_softcap: Option<f32>,
    pub facts: ModelFacts,
}

/// What [`Decoder::load`] needs beside the blocks.
pub(super) struct Frame<'w> {
    /// Where `embed_tokens`, `layers` and the norm are; most often `model`.
    pub model: Cursor<'w>,
    /// Where `lm_head` is; most often the root. None where the embedding serves.
    pub head: Option<Cursor<'w>>,
    pub norm: FinalNorm,
}

impl<'w> Frame<'w> {
    /// The usual names, with `model.norm` a root-mean-square norm of `rms_norm_eps`.
    pub fn usual(config: &Config, root: &Cursor<'w>, tied: bool) -> LoadResult<Self> {
        let model = root.at("model");
        let d_model = positive(config, "hidden_size")?;
        let norm = model.rms_norm("norm", d_model, config.f32("rms_norm_eps")?)?;
        Ok(Self {
            model,
            head: (!tied).then(|| root.clone()),
            norm: FinalNorm::Rms(norm),
        })
    }
}

impl<B> Decoder<B> {
    /// `vocab_size`, `hidden_size` and `num_hidden_layers` of `config`; `block` makes the layer of a
    /// number from its place, `layers.i`.
    pub fn load(
        config: &Config,
        weights: &Weights,
        frame: Frame,
        block: impl Fn(usize, &Cursor) -> LoadResult<B>,
    ) -> LoadResult<Self> {
        let (vocab, d_model) = (
            positive(config, "vocab_size")?,
            positive(config, "hidden_size")?,
        );
        let n_layers = positive(config, "num_hidden_layers")?;
        let layers = (0..n_layers).map(|i| block(i, &frame.model.index("layers", i)));
        let mut decoder = Self {
            embed_tokens: frame.model.embedding("embed_tokens", vocab, d_model)?,
            embed_scale: None,
            layers: layers.collect::<LoadResult<_>>()?,
            norm: frame.norm,
            lm_head: match frame.head {
                Some(head) => Some(head.linear("lm_head", [vocab, d_model], false)?),
                None => None,
            },
            logit_scale: None,
            logit_divisor: None,
            logit_softcap: None,
            facts: ModelFacts::new(config, vocab)?,
        };
        decoder.facts.weight_bytes = weights.resident_bytes();
        Ok(decoder)
    }

    /// What the first layer gets, `[B, L, d_model]`.
    pub fn embed(&self, batch: &Batch) -> Result<Array> {
        let h = self.embed_tokens.forward(&batch.tokens)?;
        match self.embed_scale {
            Some(scale) => h.scale(scale),
            None => Ok(h),
        }
    }

    /// Logits `[.., vocab]` of hidden states `[.., d_model]`.
    pub fn logits(&self, hidden: &Array) -> Result<Array> {
        let mut logits = match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden)?,
            None => self.embed_tokens.as_linear(hidden)?,
        };
        if let Some(scale) = self.logit_scale {
            logits = logits.scale(scale)?;
        }
        if let Some(divisor) = self.logit_divisor {
            logits = logits.divide(&logits.scalar_like(divisor)?)?;
        }
        match self.logit_softcap {
            Some(cap) => logits.scale(1.0 / cap)?.tanh()?.scale(cap),
            None => Ok(logits),
        }
    }
}

impl FinalNorm {
    /// Over the last axis of `x [.., d]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            FinalNorm::Rms(norm) => norm.forward(x),
            FinalNorm::Layer(norm) => norm.forward(x),
        }
    }
}

impl<B: Block> Model for Decoder<B> {
    fn forward(&self, batch: &Batch, caches: &mut [LayerCache]) -> Result<Array> {
        let mut h = self.embed(batch)?;
        for (i, (layer, cache)) in self.layers.iter().zip(caches).enumerate() {
            h = layer.forward(&h, batch, cache)?;
            begin(&h, batch, i)?;
        }
        self.norm.forward(&h)
    }

    fn unembed(&self, hidden: &Array) -> Result<Array> {
        self.logits(hidden)
    }

    fn caches(&self) -> Vec<LayerCache> {
        self.layers.iter().map(Block::cache).collect()
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }
}
