//! Phi-3 (Abdin et al., 2024) and the dense models after it up to Phi-4-mini: Llama's form with fused
//! projections and longrope.
//!
//! Defaults follow mlx-lm's `models/phi3.py`. Like there, `sliding_window` does nothing, and the
//! long factors of longrope serve every length, while transformers takes the short ones up to
//! `original_max_position_embeddings`.

use super::decoder::{Decoder, Frame};
use super::llama::Layer;
use super::{Model, heads, positive, rotary_dims};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::nn::{Attention, GatedMlp, Rope, RopeShape, rope_type};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", false)?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let shape = heads(config)?;
    let rope = rope(config, shape.head_dim)?;
    let d_ff = positive(config, "intermediate_size")?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |_, w: &Cursor| {
        let self_attn = Attention::load_fused(&w.at("self_attn"), shape, Some(rope.clone()))?;
        let mlp = GatedMlp::load_fused(&w.at("mlp"), shape.d_model, d_ff)?;
        Layer::around(config, w, self_attn, mlp, None)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// The rotary embedding, with the scalings that this family knows.
fn rope(config: &Config, head_dim: usize) -> LoadResult<Rope> {
    let shape = RopeShape {
        dims: rotary_dims(config, head_dim, Some(1.0))?,
        default_theta: Some(10_000.0),
        traditional: config.bool_or("rope_traditional", false)?,
    };
    let (plain, scaling) = Rope::with_scaling(config, shape)?;
    let Some(scaling) = scaling else {
        return Ok(plain);
    };
    match rope_type(&scaling)? {
        "default" | "linear" => plain.scaled(config, &scaling),
        "longrope" | "su" => {
            let key = "original_max_position_embeddings";
            // Within `rope_scaling` it does not count; `rope_parameters` may be all there is.
            let nested = match config.object("rope_scaling")? {
                Some(_) => None,
                None => scaling.f32_opt(key)?,
            };
            let original = match nested {
                Some(original) => original,
                None => config.f32_or(key, 4096.0)?,
            };
            plain.stretched(config, &scaling, original)
        }
        other => Err(LoadError::Unsupported(format!(
            "{}: {} is {other:?}; supported with phi3 are default, linear, longrope and su",
            config.file(),
            scaling.path_of("type")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalings_of_other_families_are_refused_by_name() {
        for (kind, fine) in [("default", true), ("yarn", false), ("llama3", false)] {
            let json = format!(r#"{{"rope_scaling": {{"type": "{kind}", "factor": 2.0}}}}"#);
            let config = Config::parse("config.json", json.as_bytes()).unwrap();
            let message = rope(&config, 8).err().map(|e| e.to_string());
            assert_eq!(message.is_none(), fine, "{message:?}");
            assert!(message.is_none_or(|m| m.contains(kind)));
        }
    }
}
