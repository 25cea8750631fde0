//! Hunyuan, dense (Tencent, 2025): Llama's form with queries and keys normalised per head after they
//! turned, and a rotary base that `alpha` stretches.
//!
//! Defaults follow mlx-lm's `models/hunyuan_v1_dense.py`.

use super::llama::Form;
use super::{Model, heads, positive};
use crate::checkpoint::{Config, LoadError, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, QkNorm, Rope};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    positive(config, "num_key_value_heads")?;
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let normalised = config.bool_or("use_qk_norm", true)?;
    let eps = config.f32("rms_norm_eps")?;
    let rope = rope(config, shape.head_dim)?;
    let form = Form {
        tied: config.bool_or("tie_word_embeddings", false)?,
        ..Form::default()
    };
    form.load(config, weights, |_, w| {
        let mut attention = Attention::load(w, shape, Some(rope.clone()))?;
        if normalised {
            let norm = |name| w.rms_norm(name, shape.head_dim, eps);
            let norms = (norm("query_layernorm")?, norm("key_layernorm")?);
            attention.qk_norm = Some(QkNorm::TurnedHeads(norms.0, norms.1));
        }
        Ok(attention)
    })
}

/// The base is `rope_theta · alpha^(D / (D - 2))` (NTK-aware scaling with a factor of its own).
fn rope(config: &Config, head_dim: usize) -> LoadResult<Rope> {
    let parameters = config.object("rope_parameters")?;
    let nested = match &parameters {
        Some(parameters) => parameters.f32_opt("rope_theta")?,
        None => None,
    };
    let theta = config.f32_opt("rope_theta")?.or(nested);
    let theta = theta.unwrap_or(10_000.0);
    let scaling = config
        .object("rope_scaling")?
        .filter(|scaling| scaling.keys().next().is_some());
    let alpha = match (scaling, parameters) {
        (Some(scaling), _) => {
            scaling.f32("factor")?;
            scaling.str("type")?;
            Some(alpha(&scaling)?)
        }
        (None, Some(parameters)) => match parameters.str_or("rope_type", "default")? {
            "default" => None,
            "dynamic" => Some(alpha(&parameters)?),
            other => {
                return Err(LoadError::Unsupported(format!(
                    "{}: {} is {other:?}; supported are default, and dynamic with alpha",
                    config.file(),
                    parameters.path_of("rope_type")
                )));
            }
        },
        (None, None) => None,
    };
    let base = match alpha {
        None => theta,
        Some(_) if head_dim <= 2 => {
            let expected = "more than 2 where the rotary base is stretched";
            return Err(config.invalid("head_dim", expected).into());
        }
        Some(alpha) => {
            let d = head_dim as f64;
            (f64::from(theta) * f64::from(alpha).powf(d / (d - 2.0))) as f32
        }
    };
    Ok(Rope::plain(head_dim, base, false))
}

fn alpha(scaling: &Config) -> LoadResult<f32> {
    match scaling.f32("alpha")? {
        alpha if alpha > 0.0 => Ok(alpha),
        _ => Err(scaling.invalid("alpha", "more than 0").into()),
    }
}
