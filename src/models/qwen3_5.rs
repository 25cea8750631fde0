//! The language model of Qwen3.5, dense and with experts (Qwen team, 2026): Qwen3-Next's layers with
//! projections of their own. The part that sees is left out.
//!
//! Defaults follow mlx-lm's `models/qwen3_5.py`. Names are taken as they are in a model of several
//! parts, `language_model.` before or after `model.`, or in none.

use serde_json::json;

use super::hybrid::{experts, load_hybrid};
use super::qwen3_moe::dense;
use super::{Model, heads, rotary_dims};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::Rope;

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = &config.text()?.with_defaults(&json!({
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
        "vocab_size": 151_936,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "linear_num_value_heads": 64,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 192,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "num_experts": 0,
    }));
    let rope = rope(config)?;
    weights.leave_out_towers(|name| {
        name.starts_with("vision_tower") || name.starts_with("model.visual")
    });
    weights.rename(&[("language_model.", "")]);
    weights.written_as(&[("", "language_model.")]);
    weights.keeping_type(|name| name.ends_with("A_log"));
    let sparse = config.usize("num_experts")? > 0;
    let normalise = config.bool_or("norm_topk_prob", true)?;
    load_hybrid(config, weights, rope, false, |_, w| match sparse {
        true => experts(config, w, normalise),
        false => dense(config, w),
    })
}

/// As mlx-lm has it, `rope_parameters` alone counts, also where it is absent and has defaults; the
/// older keys count where it is `null` or empty.
fn rope(config: &Config) -> LoadResult<Rope> {
    let key = "rope_parameters";
    let parameters = match config.keys().any(|other| other == key) {
        true => config.object(key)?.filter(|p| p.keys().next().is_some()),
        false => Some(Config::parse(config.file(), b"{}")?),
    };
    let (settings, scaling) = match parameters {
        Some(parameters) => (parameters.clone(), Some(parameters)),
        None => (config.clone(), config.object("rope_scaling")?),
    };
    let dims = rotary_dims(&settings, heads(config)?.head_dim, Some(0.25))?;
    let rope = Rope::plain(dims, settings.f32_or("rope_theta", 1e5)?, false);
    match scaling {
        Some(scaling) => rope.scaled(config, &scaling),
        None => Ok(rope),
    }
}
