//! The language model of Qwen3.5, dense and with experts (Qwen team, 2026): Qwen3-Next's layers with
//! projections of their own. The part that sees is left out.
//!
//! Defaults follow mlx-lm's `models/qwen3_5.py`. Names are taken as they are in a model of several
//! parts, `language_model.` before or after `model.`, or in none.

use serde_json::{Map, Value};

use super::Model;
use super::gated_attention::turning;
use super::hybrid::{Mlp, SparseMlp, load_hybrid, size};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::Rope;

const DEFAULTS: &[(&str, u32)] = &[
    ("hidden_size", 4096),
    ("intermediate_size", 14_336),
    ("num_hidden_layers", 32),
    ("num_attention_heads", 32),
    ("vocab_size", 151_936),
    ("num_key_value_heads", 8),
    ("max_position_embeddings", 131_072),
    ("linear_num_value_heads", 64),
    ("linear_num_key_heads", 16),
    ("linear_key_head_dim", 192),
    ("linear_value_head_dim", 128),
    ("linear_conv_kernel_dim", 4),
    ("num_experts", 0),
];

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let mut defaults: Map<String, Value> = DEFAULTS
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.into()))
        .collect();
    defaults.insert("rms_norm_eps".to_owned(), 1e-6.into());
    let config = &config.text()?.with_defaults(defaults);
    let share = size(config, "hidden_size")? / size(config, "num_attention_heads")?;
    let head_dim = Map::from_iter([("head_dim".to_owned(), share.into())]);
    let config = &config.clone().with_defaults(head_dim);
    let rope = rope(config)?;
    weights.rename(&[("language_model.", "")]);
    let sparse = config.usize("num_experts")? > 0;
    let normalise = config.bool_or("norm_topk_prob", true)?;
    load_hybrid(config, weights, rope, false, |_, w| match sparse {
        true => SparseMlp::load(config, w, normalise),
        false => Mlp::dense(config, w),
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
    let part = Map::from_iter([("partial_rotary_factor".to_owned(), 0.25.into())]);
    let settings = settings.with_defaults(part);
    let dims = turning(&settings, size(config, "head_dim")?)?;
    let rope = Rope::plain(dims, settings.f32_or("rope_theta", 1e5)?, false);
    match scaling {
        Some(scaling) => rope.scaled(config, &scaling),
        None => Ok(rope),
    }
}
