//! Qwen3-Next (Qwen team, 2025): three gated delta nets to each layer of gated attention, and a
//! mixture of experts with one that all tokens share.
//!
//! Required settings follow mlx-lm's `models/qwen3_next.py`.

use super::Model;
use super::gated_attention::turning;
use super::hybrid::{Mlp, SparseMlp, load_hybrid, size};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let head_dim = size(config, "head_dim")?;
    // Newer configurations have all settings of the rotary embedding in one object.
    let settings = match config.value("partial_rotary_factor") {
        Some(_) => None,
        None => config.object("rope_parameters")?,
    };
    let rope = RopeShape {
        dims: turning(settings.as_ref().unwrap_or(config), head_dim)?,
        default_theta: None,
        traditional: false,
    };
    let rope = Rope::load(config, rope)?;
    let Some(mlp_only) = config.usize_list("mlp_only_layers")? else {
        return Err(config.invalid("mlp_only_layers", "a list of layers").into());
    };
    let step = match config.usize("num_experts")? {
        0 => None,
        _ => Some(size(config, "decoder_sparse_step")?),
    };
    let sparse =
        |i: usize| !mlp_only.contains(&i) && step.is_some_and(|n| (i + 1).is_multiple_of(n));
    let normalise = config.bool_or("norm_topk_prob", false)?;
    load_hybrid(config, weights, rope, true, |i, w| match sparse(i) {
        true => SparseMlp::load(config, w, normalise),
        false => Mlp::dense(config, w),
    })
}
