//! The layers of Gemma 4: attention, a feed-forward layer with or without experts beside it, and an
//! input of the layer's own.

use super::gemma2::root;
use super::gemma4_attention::{Attentions, SelfAttention, Shown};
use super::positive;
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult};
use crate::mlx::{Array, Result};
use crate::nn::{
    Activation, ExpertShape, GatedMlp, Linear, RmsNorm, SwitchGlu, top_k_softmax, weighted_sum,
};

/// One layer.
pub(super) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    moe: Option<Moe>,
    post_feedforward_layernorm: RmsNorm,
    own_input: Option<OwnInput>,
    /// `[1]`.
    layer_scalar: Array,
}

impl Layer {
    /// Layer `i` from its place.
    pub fn load(
        config: &Config,
        attentions: &Attentions,
        i: usize,
        w: &Cursor,
    ) -> LoadResult<Self> {
        let (d_model, eps) = (
            positive(config, "hidden_size")?,
            config.f32("rms_norm_eps")?,
        );
        let norm = |name| w.rms_norm(name, d_model, eps);
        let shared = i >= attentions.first_shared;
        let wide = shared && config.bool_or("use_double_wide_mlp", true)?;
        let d_ff = positive(config, "intermediate_size")?.saturating_mul(if wide { 2 } else { 1 });
        let mut mlp = GatedMlp::load(&w.at("mlp"), d_model, d_ff, false)?;
        mlp.activation = Activation::GeluTanh;
        let moe = config.bool_or("enable_moe_block", false)?;
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: attentions.load(config, i, &w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp,
            moe: moe
                .then(|| Moe::load(config, w, d_model, eps))
                .transpose()?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            own_input: match config
                .usize_opt("hidden_size_per_layer_input")?
                .unwrap_or(0)
            {
                0 => None,
                size => Some(OwnInput {
                    gate: w.linear("per_layer_input_gate", [size, d_model], false)?,
                    projection: w.linear("per_layer_projection", [d_model, size], false)?,
                    norm: norm("post_per_layer_input_norm")?,
                }),
            },
            layer_scalar: w.tensor("layer_scalar", &[1])?,
        })
    }

    /// `h [B, L, d_model]` to the same shape. `input [B, L, P]` is the layer's own, if it has one;
    /// `caches` are those of this layer and of later ones that have one.
    pub fn forward<'c>(
        &self,
        h: &Array,
        input: Option<&Array>,
        batch: &Batch,
        caches: &mut impl Iterator<Item = &'c mut LayerCache>,
        shown: &mut Shown,
    ) -> Result<Array> {
        let normed = self.input_layernorm.forward(h)?;
        let attended = self.self_attn.forward(&normed, batch, caches, shown)?;
        let h = h.add(&self.post_attention_layernorm.forward(&attended)?)?;
        let mut fed = self
            .mlp
            .forward(&self.pre_feedforward_layernorm.forward(&h)?)?;
        if let Some(moe) = &self.moe {
            fed = moe.beside(&fed, &h)?;
        }
        let mut h = h.add(&self.post_feedforward_layernorm.forward(&fed)?)?;
        if let (Some(own), Some(input)) = (&self.own_input, input) {
            let gated = Activation::GeluTanh.gated(&own.gate.forward(&h)?, input)?;
            h = h.add(&own.norm.forward(&own.projection.forward(&gated)?)?)?;
        }
        h.multiply(&self.layer_scalar)
    }

    /// An empty cache; none where the layer reads the keys of another.
    pub fn cache(&self) -> Option<LayerCache> {
        self.self_attn.cache()
    }
}

/// What becomes of a layer's own input.
struct OwnInput {
    /// `[P, d_model]`.
    gate: Linear,
    /// `[d_model, P]`.
    projection: Linear,
    norm: RmsNorm,
}

/// Experts beside the feed-forward layer.
struct Moe {
    /// The router's norm, its scale and `1 / sqrt(d_model)` in one.
    router_norm: RmsNorm,
    /// `[E, d_model]`.
    router_proj: Linear,
    /// `[E]`.
    per_expert_scale: Array,
    top_k: usize,
    experts: SwitchGlu,
    pre_norm: RmsNorm,
    post_norm: RmsNorm,
    /// Behind the feed-forward layer.
    mlp_norm: RmsNorm,
}

impl Moe {
    /// Of the layer at `w`.
    fn load(config: &Config, w: &Cursor, d_model: usize, eps: f32) -> LoadResult<Self> {
        let shape = ExpertShape {
            n_experts: positive(config, "num_experts")?,
            d_model,
            d_ff: positive(config, "moe_intermediate_size")?,
        };
        let top_k = positive(config, "top_k_experts")?;
        if top_k > shape.n_experts {
            let expected = format!("at most num_experts, which is {}", shape.n_experts);
            return Err(config.invalid("top_k_experts", expected).into());
        }
        let router = w.at("router");
        let scale = router
            .tensor("scale", &[d_model])?
            .scale(1.0 / root(d_model))?;
        scale.eval()?;
        let norm = |name| w.rms_norm(name, d_model, eps);
        Ok(Self {
            router_norm: RmsNorm::new(Some(scale), eps),
            router_proj: router.linear("proj", [shape.n_experts, d_model], false)?,
            per_expert_scale: router.tensor("per_expert_scale", &[shape.n_experts])?,
            top_k,
            experts: experts(w, shape)?,
            pre_norm: norm("pre_feedforward_layernorm_2")?,
            post_norm: norm("post_feedforward_layernorm_2")?,
            mlp_norm: norm("post_feedforward_layernorm_1")?,
        })
    }

    /// What the experts make of the stream `h`, added to what the feed-forward layer made of it,
    /// `fed`; all `[B, L, d_model]`.
    fn beside(&self, fed: &Array, h: &Array) -> Result<Array> {
        let gates = self.router_proj.forward(&self.router_norm.forward(h)?)?;
        let (indices, scores) = top_k_softmax(&gates, self.top_k)?;
        let scores = scores.multiply(&self.per_expert_scale.take(&indices, 0)?)?;
        let y = self.experts.forward(&self.pre_norm.forward(h)?, &indices)?;
        let y = self.post_norm.forward(&weighted_sum(&y, &scores)?)?;
        self.mlp_norm.forward(fed)?.add(&y)
    }
}

/// The experts of the layer at `w`, whose gates and inputs may lie in one tensor.
fn experts(w: &Cursor, shape: ExpertShape) -> LoadResult<SwitchGlu> {
    let ExpertShape {
        n_experts,
        d_model,
        d_ff,
    } = shape;
    let fused = w.at("switch_mlp.gate_up_proj");
    let mut experts = if fused.has("weight") {
        let (into, sizes) = (w.at("switch_mlp"), [n_experts, d_ff, d_model]);
        let [gate_proj, up_proj] = SwitchGlu::load_parted(&fused, &into, sizes)?;
        SwitchGlu {
            gate_proj,
            up_proj,
            down_proj: w.experts("down_proj", [n_experts, d_model, d_ff], false)?,
            activation: Activation::GeluTanh,
        }
    } else {
        SwitchGlu::load(w, shape, false)?
    };
    experts.activation = Activation::GeluTanh;
    Ok(experts)
}
