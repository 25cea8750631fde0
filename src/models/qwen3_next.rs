//! Qwen3-Next (Qwen team, 2025): three gated delta nets to each layer of gated attention, and a
//! mixture of experts with one that all tokens share.
//!
//! Required settings follow mlx-lm's `models/qwen3_next.py`.

use super::hybrid::{experts, load_hybrid, size};
use super::qwen3_moe::{SparseLayers, dense};
use super::{Model, positive, rotary_dims};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let head_dim = size(config, "head_dim")?;
    let rope = RopeShape {
        dims: rotary_dims(config, head_dim, None)?,
        default_theta: None,
        traditional: false,
    };
    let rope = Rope::load(config, rope)?;
    let Some(dense_layers) = config.usize_list("mlp_only_layers")? else {
        return Err(config.invalid("mlp_only_layers", "a list of layers").into());
    };
    let sparse = match config.usize("num_experts")? {
        0 => None,
        _ => Some(SparseLayers {
            step: positive(config, "decoder_sparse_step")?,
            dense: dense_layers,
        }),
    };
    let normalise = config.bool_or("norm_topk_prob", false)?;
    load_hybrid(config, weights, rope, true, |i, w| {
        match sparse.as_ref().is_some_and(|sparse| sparse.has(i)) {
            true => experts(config, w, normalise),
            false => dense(config, w),
        }
    })
}
