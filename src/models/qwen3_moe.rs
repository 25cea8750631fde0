//! Qwen3 with experts (Qwen team, 2025): Qwen3's attention, and mixtures of experts in place of most
//! feed-forward layers. Its layers serve the other families that differ in attention or routing.
//!
//! Required settings follow mlx-lm's `models/qwen3_moe.py`, which knows no scaling of positions, no
//! biases and no sliding window; with them it is transformers' model.

use super::decoder::{Block, Decoder, Frame};
use super::{Model, heads, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Packing, Weights};
use crate::mlx::{Array, Dtype, Result};
use crate::nn::{
    Attention, AttentionShape, ExpertShape, GatedMlp, Linear, RmsNorm, Rope, RopeShape, SwitchGlu,
    softmax_top_k, top_k_softmax, weighted_sum,
};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool("tie_word_embeddings")?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    weights.packed_by(|path| Packing::eight_bits_if(path.ends_with("mlp.gate")));
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        n_kv_heads: positive(config, "num_key_value_heads")?,
        head_dim: positive(config, "head_dim")?,
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
    let mixture = ExpertShape {
        // transformers 5 writes it under the name that Mixtral has for it.
        n_experts: match config.usize_opt("num_experts")? {
            None if config.value("num_local_experts").is_some() => {
                config.usize("num_local_experts")?
            }
            _ => config.usize("num_experts")?,
        },
        d_model: shape.d_model,
        d_ff: positive(config, "moe_intermediate_size")?,
    };
    let routing = Routing::SoftmaxTopK {
        normalise: config.bool("norm_topk_prob")?,
    };
    let sparse = SparseLayers {
        step: positive(config, "decoder_sparse_step")?,
        dense: required(config.usize_list("mlp_only_layers")?, config)?,
    };
    let window = match config.bool_or("use_sliding_window", false)? {
        true => Some(positive(config, "sliding_window")?),
        false => None,
    };
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let attn = w.at("self_attn");
        let self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        let self_attn = self_attn.with_head_norms(&attn, config.f32("rms_norm_eps")?)?;
        let mlp = w.at("mlp");
        let feed_forward = match mixture.n_experts > 0 && sparse.has(i) {
            true => Experts::load(config, &mlp, "gate", mixture, routing, false)?.into(),
            false => dense(config, &mlp)?,
        };
        let mut layer = MoeLayer::load(config, w, self_attn, feed_forward)?;
        layer.window = window;
        Ok(layer)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

fn required(layers: Option<Vec<usize>>, config: &Config) -> LoadResult<Vec<usize>> {
    let expected = "a list of layers, which may be empty";
    layers.ok_or_else(|| config.invalid("mlp_only_layers", expected).into())
}

/// Which layers have experts.
pub(super) struct SparseLayers {
    /// `decoder_sparse_step`: the last of so many, and so on; at least 1.
    pub step: usize,
    /// `mlp_only_layers`: none of these.
    pub dense: Vec<usize>,
}

impl SparseLayers {
    pub fn has(&self, layer: usize) -> bool {
        !self.dense.contains(&layer) && (layer + 1).is_multiple_of(self.step)
    }
}

/// A feed-forward layer of `intermediate_size` without experts.
pub(super) fn dense(config: &Config, w: &Cursor) -> LoadResult<FeedForward> {
    let d_model = positive(config, "hidden_size")?;
    let d_ff = positive(config, "intermediate_size")?;
    Ok(FeedForward::Dense(GatedMlp::load(w, d_model, d_ff, false)?))
}

/// How a token's experts and their weights follow from its gates.
#[derive(Clone, Copy)]
pub(super) enum Routing {
    /// Softmax over all, then the best; `normalise` makes their weights add up to 1.
    SoftmaxTopK { normalise: bool },
    /// The best, then softmax over these.
    TopKSoftmax,
    /// The same, and the sum of the experts too, in float32.
    TopKSoftmaxFloat32,
}

/// A mixture of experts.
pub(super) struct Experts {
    gate: Linear,
    switch_mlp: SwitchGlu,
    top_k: usize,
    routing: Routing,
    /// An expert for all tokens, and the gate that weighs it.
    pub shared: Option<(GatedMlp, Linear)>,
}

impl Experts {
    /// `num_experts_per_tok` of the experts and their gate, called `gate`, under `w`; `bias` is
    /// whether the experts have biases.
    pub fn load(
        config: &Config,
        w: &Cursor,
        gate: &str,
        shape: ExpertShape,
        routing: Routing,
        bias: bool,
    ) -> LoadResult<Self> {
        let (n_experts, top_k) = (shape.n_experts, positive(config, "num_experts_per_tok")?);
        if top_k > n_experts {
            let expected = format!("at most the number of experts, which is {n_experts}");
            return Err(config.invalid("num_experts_per_tok", expected).into());
        }
        Ok(Self {
            gate: w.linear(gate, [n_experts, shape.d_model], false)?,
            switch_mlp: SwitchGlu::load(w, shape, bias)?,
            top_k,
            routing,
            shared: None,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let (gates, k) = (self.gate.forward(x)?, self.top_k);
        let (indices, scores) = match self.routing {
            Routing::SoftmaxTopK { normalise } => softmax_top_k(&gates, k, normalise)?,
            Routing::TopKSoftmax => top_k_softmax(&gates, k)?,
            Routing::TopKSoftmaxFloat32 => top_k_softmax(&gates.astype(Dtype::Float32)?, k)?,
        };
        let y = self.switch_mlp.forward(x, &indices)?;
        let y = weighted_sum(&y, &scores)?.astype(y.dtype())?;
        match &self.shared {
            Some((expert, gate)) => {
                let weight = gate.forward(x)?.sigmoid()?; // [B, L, 1]
                y.add(&weight.multiply(&expert.forward(x)?)?)
            }
            None => Ok(y),
        }
    }
}

/// What follows attention in a layer.
pub(super) enum FeedForward {
    Dense(GatedMlp),
    Experts(Box<Experts>),
}

impl From<Experts> for FeedForward {
    fn from(experts: Experts) -> Self {
        FeedForward::Experts(Box::new(experts))
    }
}

impl FeedForward {
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            FeedForward::Dense(mlp) => mlp.forward(x),
            FeedForward::Experts(experts) => experts.forward(x),
        }
    }
}

/// A pre-norm layer: `h += attention(norm(h)); h += feed_forward(norm(h))`.
pub(super) struct MoeLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    feed_forward: FeedForward,
    /// What joins the residual stream is multiplied by it.
    pub residual_scale: Option<f32>,
    /// How many positions a query sees; all where there is none.
    pub window: Option<usize>,
}

impl MoeLayer {
    /// Norms under `w`, around an attention and a feed-forward layer.
    ///
    /// # Errors
    /// Also if `hidden_act` is not SiLU.
    pub fn load(
        config: &Config,
        w: &Cursor,
        self_attn: Attention,
        feed_forward: FeedForward,
    ) -> LoadResult<Self> {
        let activation = config.str_or("hidden_act", "silu")?;
        if !["silu", "swish"].contains(&activation) {
            return Err(LoadError::Unsupported(format!(
                "{}: hidden_act is {activation:?}; supported is silu",
                config.file()
            )));
        }
        let d_model = positive(config, "hidden_size")?;
        let eps = config.f32("rms_norm_eps")?;
        Ok(Self {
            input_layernorm: w.rms_norm("input_layernorm", d_model, eps)?,
            self_attn,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", d_model, eps)?,
            feed_forward,
            residual_scale: None,
            window: None,
        })
    }

    fn join(&self, h: &Array, more: Array) -> Result<Array> {
        match self.residual_scale {
            Some(scale) => h.add(&more.scale(scale)?),
            None => h.add(&more),
        }
    }
}

impl Block for MoeLayer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let h = self.join(h, self.self_attn.forward(&x, batch, cache)?)?;
        let x = self.post_attention_layernorm.forward(&h)?;
        self.join(&h, self.feed_forward.forward(&x)?)
    }

    fn cache(&self) -> LayerCache {
        self.window
            .map_or_else(LayerCache::full, LayerCache::sliding)
    }
}
