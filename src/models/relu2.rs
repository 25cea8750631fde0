//! Feed-forward layers of squared ReLU without gates (So et al., 2021), and mixtures of such experts
//! (Nemotron 3, NVIDIA, 2025).

use serde_json::json;

use super::grouped_moe::routing;
use super::{positive, positive_or};
use crate::checkpoint::{Config, Cursor, LoadResult};
use crate::mlx::{Array, Result};
use crate::nn::{Activation, GroupRouting, Linear, SwitchLinear, by_expert, weighted_sum};

/// `down(relu(up(x))²)`.
pub(super) struct Mlp {
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    /// `up_proj` and `down_proj` under `w`.
    pub fn load(w: &Cursor, d_model: usize, d_ff: usize, bias: bool) -> LoadResult<Self> {
        Ok(Self {
            up_proj: w.linear("up_proj", [d_ff, d_model], bias)?,
            down_proj: w.linear("down_proj", [d_model, d_ff], bias)?,
        })
    }

    /// `x [.., d_model]` to the same shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let up = Activation::Relu2.apply(&self.up_proj.forward(x)?)?;
        self.down_proj.forward(&up)
    }
}

/// Experts without gates, perhaps in a space of fewer features, and perhaps one that all tokens share.
pub(super) struct Moe {
    gate: Linear,
    /// `[E]`.
    e_score_correction_bias: Array,
    routing: GroupRouting,
    /// Into the experts' space and out of it.
    latent: Option<[Linear; 2]>,
    up_proj: SwitchLinear,
    down_proj: SwitchLinear,
    shared_experts: Option<Mlp>,
}

impl Moe {
    /// `gate`, the experts and what is around them under `w`, as mlx-lm's `models/nemotron_h.py` reads the
    /// configuration.
    pub fn load(config: &Config, w: &Cursor, bias: bool) -> LoadResult<Self> {
        let d_model = positive(config, "hidden_size")?;
        let n_experts = positive(config, "n_routed_experts")?;
        let d_ff = positive(config, "moe_intermediate_size")?;
        let inner = match config.value("moe_latent_size") {
            Some(_) => Some(positive(config, "moe_latent_size")?),
            None => None,
        };
        let latent = |inner: usize| -> LoadResult<[Linear; 2]> {
            Ok([
                w.linear("fc1_latent_proj", [inner, d_model], bias)?,
                w.linear("fc2_latent_proj", [d_model, inner], bias)?,
            ])
        };
        let shared = |_| {
            let default = config.usize_or("intermediate_size", 0)?;
            let d_ff = positive_or(config, "moe_shared_expert_intermediate_size", default)?;
            Mlp::load(&w.at("shared_experts"), d_model, d_ff, bias)
        };
        let routing_config = config.with_defaults(&json!({"norm_topk_prob": false}));
        let gate = w.at("gate");
        let d_in = inner.unwrap_or(d_model);
        Ok(Self {
            gate: w.linear("gate", [n_experts, d_model], false)?,
            e_score_correction_bias: gate.tensor("e_score_correction_bias", &[n_experts])?,
            routing: routing(&routing_config, n_experts)?,
            latent: inner.map(latent).transpose()?,
            up_proj: w.experts("up_proj", [n_experts, d_ff, d_in], false)?,
            down_proj: w.experts("down_proj", [n_experts, d_in, d_ff], false)?,
            shared_experts: config
                .usize_opt("n_shared_experts")?
                .map(shared)
                .transpose()?,
        })
    }

    /// `x [.., d_model]` to the same shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let gates = self.gate.forward(x)?;
        let (indices, scores) = self.routing.choose(&gates, &self.e_score_correction_bias)?;
        let inner = match &self.latent {
            Some([into, _]) => &into.forward(x)?,
            None => x,
        };
        let y = by_expert(inner, &indices, |x, indices, sorted| {
            let up = self.up_proj.forward(x, indices, sorted)?;
            self.down_proj
                .forward(&Activation::Relu2.apply(&up)?, indices, sorted)
        })?;
        let mut y = weighted_sum(&y, &scores)?.astype(y.dtype())?;
        if let Some([_, out]) = &self.latent {
            y = out.forward(&y)?;
        }
        match &self.shared_experts {
            Some(shared) => y.add(&shared.forward(x)?),
            None => Ok(y),
        }
    }
}
