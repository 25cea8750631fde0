//! What the followers of DeepSeek-V3 (2024) share: pre-norm layers that are dense or a mixture of
//! experts chosen in groups, with shared experts beside them; and further layers that predict further
//! tokens (MTP), which are left out.

use super::decoder::Block;
use super::{only, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult};
use crate::mlx::{Array, Result};
use crate::nn::{
    Attention, ExpertShape, GatedMlp, GroupRouting, Linear, Mla, RmsNorm, SwitchGlu, weighted_sum,
};

/// The layers for further tokens: behind the last, as many as `num_nextn_predict_layers` says, else
/// `default`.
pub(super) fn further_layers(
    config: &Config,
    default: usize,
) -> LoadResult<std::ops::Range<usize>> {
    let n_layers = positive(config, "num_hidden_layers")?;
    let key = match config.value("num_mtp_layers") {
        Some(_) => "num_mtp_layers",
        None => "num_nextn_predict_layers",
    };
    let further = config.usize_or(key, default)?;
    Ok(n_layers..n_layers.saturating_add(further))
}

/// The number of the layer that a tensor belongs to.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("model.layers.")?;
    rest.split('.').next()?.parse().ok()
}

/// A pre-norm layer.
pub(super) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

/// Its attention.
pub(super) enum SelfAttention {
    Latent(Mla),
    Heads(Attention),
}

enum FeedForward {
    Dense(GatedMlp),
    Sparse(Box<Moe>),
}

impl Layer {
    /// Norms and feed-forward layer under `w`, around an attention layer. A sparse layer has experts,
    /// if the model has any.
    pub fn load(
        config: &Config,
        w: &Cursor,
        self_attn: SelfAttention,
        sparse: bool,
    ) -> LoadResult<Self> {
        only(config, "hidden_act", "silu")?;
        let d_model = positive(config, "hidden_size")?;
        let eps = config.f32("rms_norm_eps")?;
        let mlp = w.at("mlp");
        let mlp = if sparse && config.value("n_routed_experts").is_some() {
            FeedForward::Sparse(Box::new(Moe::load(config, &mlp)?))
        } else {
            let d_ff = positive(config, "intermediate_size")?;
            FeedForward::Dense(GatedMlp::load(&mlp, d_model, d_ff, false)?)
        };
        Ok(Self {
            input_layernorm: w.rms_norm("input_layernorm", d_model, eps)?,
            self_attn,
            post_attention_layernorm: w.rms_norm("post_attention_layernorm", d_model, eps)?,
            mlp,
        })
    }
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let h = h.add(&match &self.self_attn {
            SelfAttention::Latent(attention) => attention.forward(&x, batch, cache)?,
            SelfAttention::Heads(attention) => attention.forward(&x, batch, cache)?,
        })?;
        let x = self.post_attention_layernorm.forward(&h)?;
        h.add(&match &self.mlp {
            FeedForward::Dense(mlp) => mlp.forward(&x)?,
            FeedForward::Sparse(moe) => moe.forward(&x)?,
        })
    }

    fn cache(&self) -> LayerCache {
        match self.self_attn {
            SelfAttention::Latent(_) => LayerCache::latent(),
            SelfAttention::Heads(_) => LayerCache::full(),
        }
    }
}

/// Routed experts, and those that every token goes through.
struct Moe {
    gate: Linear,
    /// `[E]`.
    e_score_correction_bias: Array,
    routing: GroupRouting,
    experts: SwitchGlu,
    shared_experts: Option<GatedMlp>,
}

impl Moe {
    fn load(config: &Config, w: &Cursor) -> LoadResult<Self> {
        let (d_model, d_ff) = (
            positive(config, "hidden_size")?,
            positive(config, "moe_intermediate_size")?,
        );
        let n_experts = positive(config, "n_routed_experts")?;
        let shape = ExpertShape {
            n_experts,
            d_model,
            d_ff,
        };
        let shared_experts = match config.usize_opt("n_shared_experts")? {
            None | Some(0) => None,
            Some(_) => {
                let width = d_ff * positive(config, "n_shared_experts")?;
                let shared = GatedMlp::load(&w.at("shared_experts"), d_model, width, false)?;
                Some(shared)
            }
        };
        Ok(Self {
            gate: w.linear("gate", [n_experts, d_model], false)?,
            e_score_correction_bias: w
                .at("gate")
                .tensor("e_score_correction_bias", &[n_experts])?,
            routing: routing(config, n_experts)?,
            experts: SwitchGlu::load(w, shape, false)?,
            shared_experts,
        })
    }

    /// `x [B, L, d_model]` to the same shape.
    fn forward(&self, x: &Array) -> Result<Array> {
        let gates = self.gate.forward(x)?;
        let (indices, scores) = self.routing.choose(&gates, &self.e_score_correction_bias)?;
        let y = self.experts.forward(x, &indices)?;
        let routed = weighted_sum(&y, &scores)?.astype(y.dtype())?;
        match &self.shared_experts {
            Some(shared) => routed.add(&shared.forward(x)?),
            None => Ok(routed),
        }
    }
}

/// How `num_experts_per_tok`, `n_group`, `topk_group` and the rest choose among the experts.
pub(super) fn routing(config: &Config, n_experts: usize) -> LoadResult<GroupRouting> {
    only(config, "topk_method", "noaux_tc")?;
    only(config, "scoring_func", "sigmoid")?;
    let top_k = positive(config, "num_experts_per_tok")?;
    let (n_group, topk_group) = (
        positive(config, "n_group")?,
        positive(config, "topk_group")?,
    );
    let wrong = |key, expected: String| -> LoadResult<GroupRouting> {
        Err(LoadError::from(config.invalid(key, expected)))
    };
    if top_k > n_experts {
        let expected = format!("at most n_routed_experts, which is {n_experts}");
        return wrong("num_experts_per_tok", expected);
    }
    // A group's score is that of its best two.
    if !n_experts.is_multiple_of(n_group) || n_group > 1 && n_experts / n_group < 2 {
        let expected = format!("groups of two or more of {n_experts} experts");
        return wrong("n_group", expected);
    }
    if topk_group > n_group {
        return wrong("topk_group", format!("at most n_group, which is {n_group}"));
    }
    Ok(GroupRouting {
        top_k,
        n_group,
        topk_group,
        routed_scaling_factor: config.f32("routed_scaling_factor")?,
        norm_topk_prob: config.bool("norm_topk_prob")?,
    })
}
