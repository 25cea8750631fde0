//! Ministral 3 (Mistral AI, 2025): Llama's form with yarn, sliding windows, and queries that grow with
//! their positions.
//!
//! Defaults follow mlx-lm's `models/ministral3.py`.

use super::llama::Form;
use super::{Model, heads, positive, windows};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Attention, PositionScale, Rope};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", true)?;
    load_as(config, weights, tied)
}

/// The same with embeddings `tied` or not.
pub(super) fn load_as(
    config: &Config,
    weights: &mut Weights,
    tied: bool,
) -> LoadResult<Box<dyn Model>> {
    let Some(parameters) = config.object("rope_parameters")? else {
        return Err(config
            .invalid("rope_parameters", "the rotary embedding's settings")
            .into());
    };
    let position_scale = PositionScale {
        beta: parameters.f32("llama_4_scaling_beta")?,
        size: positive(&parameters, "original_max_position_embeddings")?,
    };
    let shape = heads(config)?;
    let theta = parameters.f32("rope_theta")?;
    let rope = Rope::plain(shape.head_dim, theta, false).scaled(config, &parameters)?;
    let form = Form {
        tied,
        mlp_bias: false,
        windows: windows(config)?,
    };
    form.load(config, weights, |_, w| {
        let mut attention = Attention::load(w, shape, Some(rope.clone()))?;
        attention.position_scale = Some(position_scale);
        Ok(attention)
    })
}
