//! Mixtures of experts: routing, and the experts themselves.
//!
//! Shapes: tokens `x [.., d_model]`, chosen experts `indices [.., k]` (uint32), their weights
//! `scores [.., k]`.

use super::{Activation, SwitchLinear};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Dtype, Error, Result};

/// From this many chosen experts on, tokens are sorted by expert, so that each is read once.
const SORT_FROM: usize = 64;

/// Gated feed-forward experts.
#[derive(Clone, Debug)]
pub struct SwitchGlu {
    /// `[E, d_ff, d_model]`.
    pub gate_proj: SwitchLinear,
    /// `[E, d_ff, d_model]`.
    pub up_proj: SwitchLinear,
    /// `[E, d_model, d_ff]`.
    pub down_proj: SwitchLinear,
    /// What the gate goes through.
    pub activation: Activation,
}

/// The sizes of a set of experts.
#[derive(Clone, Copy, Debug)]
pub struct ExpertShape {
    /// Experts.
    pub n_experts: usize,
    /// Features of the residual stream.
    pub d_model: usize,
    /// Features inside an expert.
    pub d_ff: usize,
}

impl SwitchGlu {
    /// `gate_proj`, `up_proj` and `down_proj` of experts that lie stacked under `switch_mlp`, or one
    /// by one or fused under `experts` of `w`, with SiLU as the activation.
    pub fn load(w: &Cursor, shape: ExpertShape, bias: bool) -> LoadResult<Self> {
        let ExpertShape {
            n_experts,
            d_model,
            d_ff,
        } = shape;
        if !bias && w.at("experts").has("gate_up_proj") {
            let [gate_proj, up_proj, down_proj] = w.fused_experts([n_experts, d_ff, d_model])?;
            return Ok(Self {
                gate_proj,
                up_proj,
                down_proj,
                activation: Activation::Silu,
            });
        }
        Ok(Self {
            gate_proj: w.experts("gate_proj", [n_experts, d_ff, d_model], bias)?,
            up_proj: w.experts("up_proj", [n_experts, d_ff, d_model], bias)?,
            down_proj: w.experts("down_proj", [n_experts, d_model, d_ff], bias)?,
            activation: Activation::Silu,
        })
    }

    /// The gates and inputs of experts out of one matrix `[E, 2 d_ff, d_model]` under `fused`, gates first,
    /// which MLX's format has apart under `into`.
    pub fn load_parted(
        fused: &Cursor,
        into: &Cursor,
        [n_experts, d_ff, d_model]: [usize; 3],
    ) -> LoadResult<[SwitchLinear; 2]> {
        let both = d_ff.saturating_mul(2);
        let matrix = fused.untold().matrix(&[n_experts, both, d_model])?;
        let rows =
            |name, start, end| into.told_stack(name, SwitchLinear::plain(matrix.rows(start, end)?));
        Ok([rows("gate_proj", 0, d_ff)?, rows("up_proj", d_ff, both)?])
    }

    /// Each token through each of its experts: `[.., k, d_model]`.
    pub fn forward(&self, x: &Array, indices: &Array) -> Result<Array> {
        self.forward_with(x, indices, |gate, up| self.activation.gated(gate, up))
    }

    /// The same with a function of gate and up in place of the activation.
    pub fn forward_with(
        &self,
        x: &Array,
        indices: &Array,
        join: impl Fn(&Array, &Array) -> Result<Array>,
    ) -> Result<Array> {
        by_expert(x, indices, |x, indices, sorted| {
            let up = self.up_proj.forward(x, indices, sorted)?;
            let gate = self.gate_proj.forward(x, indices, sorted)?;
            self.down_proj.forward(&join(&gate, &up)?, indices, sorted)
        })
    }
}

/// Calls `experts` with tokens `[.., 1, d_model]`, the expert of each and whether these ascend, and
/// puts what it returns in the tokens' order: `[.., k, d_model]`.
pub fn by_expert(
    x: &Array,
    indices: &Array,
    experts: impl Fn(&Array, &Array, bool) -> Result<Array>,
) -> Result<Array> {
    let k = indices.dim(-1)?;
    if indices.size() < SORT_FROM {
        let x = x.expand_dims(-2)?.expand_dims(-2)?; // [.., 1, 1, d_model]
        return experts(&x, indices, false)?.squeeze(-2);
    }
    let flat = indices.reshape(&[-1])?; // [N * k]
    let order = flat.argsort()?;
    let tokens = x.reshape(&[-1, 1, x.dim(-1)?])?; // [N, 1, d_model]
    let token_of = order.floor_divide(&Array::from_slice(&[k as u32], &[])?)?;
    let y = experts(&tokens.take(&token_of, 0)?, &flat.take(&order, 0)?, true)?;
    let mut shape = indices.shape();
    shape.push(y.dim(-1)?);
    y.squeeze(-2)?.take(&order.argsort()?, 0)?.reshape(&shape)
}

/// The sum of the experts' answers `y [.., k, d_model]`, weighted: `[.., d_model]`.
pub fn weighted_sum(y: &Array, scores: &Array) -> Result<Array> {
    y.multiply(&scores.expand_dims(-1)?)?.sum_axis(-2, false)
}

/// The `k` largest of `scores [.., E]`: their indices, in no order.
pub fn top_k(scores: &Array, k: usize) -> Result<Array> {
    let (k, n) = (k as i32, scores.dim(-1)?);
    if k < 1 || k > n {
        let message = format!("{k} experts a token of {n}");
        return Err(Error::new("top_k", &[scores], message));
    }
    scores.argpartition(n - k, -1)?.slice_axis(-1, n - k, n)
}

/// Softmax over all experts, then the `k` best of them; `normalise` makes their weights add up to 1.
pub fn softmax_top_k(gates: &Array, k: usize, normalise: bool) -> Result<(Array, Array)> {
    let probs = gates.softmax()?;
    let indices = top_k(&probs, k)?;
    let scores = probs.take_along_axis(&indices, -1)?;
    let scores = match normalise {
        true => scores.divide(&scores.sum_axis(-1, true)?)?,
        false => scores,
    };
    Ok((indices, scores))
}

/// The `k` best experts, then softmax over these.
pub fn top_k_softmax(gates: &Array, k: usize) -> Result<(Array, Array)> {
    let indices = top_k(gates, k)?;
    let scores = gates.take_along_axis(&indices, -1)?.softmax()?;
    Ok((indices, scores))
}

/// How DeepSeek-V3 (2024) and its followers choose experts.
#[derive(Clone, Copy, Debug)]
pub struct GroupRouting {
    /// Experts a token.
    pub top_k: usize,
    /// Groups of experts.
    pub n_group: usize,
    /// Groups that a token may use.
    pub topk_group: usize,
    /// The weights are multiplied by it.
    pub routed_scaling_factor: f32,
    /// Whether the weights add up to 1 before that.
    pub norm_topk_prob: bool,
}

impl GroupRouting {
    /// Sigmoid scores of `gates [.., E]`; `bias [E]` joins them in choosing, not in weighing. The
    /// groups whose best two experts score least are left out.
    pub fn choose(&self, gates: &Array, bias: &Array) -> Result<(Array, Array)> {
        let plain = gates.astype(Dtype::Float32)?.sigmoid()?;
        let mut scores = plain.add(bias)?;
        if self.n_group > 1 {
            scores = scores.unflatten(-1, &[self.n_group as i32, -1])?; // [.., G, E / G]
            let best = scores.topk(2, -1)?.sum_axis(-1, true)?; // [.., G, 1]
            let dropped = self.n_group.saturating_sub(self.topk_group) as i32;
            if dropped > 0 {
                let worst = best
                    .argpartition(dropped - 1, -2)?
                    .slice_axis(-2, 0, dropped)?;
                // As the reference has it: not minus infinity, so a left-out expert can still win
                // over one whose bias makes it negative.
                scores = scores.put_along_axis(&worst, &scores.scalar_like(0.0)?, -2)?;
            }
            scores = scores.flatten(-2, -1)?;
        }
        // Experts that were left out tie: which of them come first is the reference's order too.
        let k = self.top_k as i32;
        let indices = scores.negative()?.argpartition(k - 1, -1)?;
        let indices = indices.slice_axis(-1, 0, k)?;
        let mut scores = plain.take_along_axis(&indices, -1)?;
        if self.top_k > 1 && self.norm_topk_prob {
            scores = scores.divide(&scores.sum_axis(-1, true)?)?;
        }
        Ok((indices, scores.scale(self.routed_scaling_factor)?))
    }
}
