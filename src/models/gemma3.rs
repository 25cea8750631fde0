//! Gemma 3 (Gemma team, 2025): Gemma 2's layer with normalised queries and keys in place of caps, and
//! windows in most layers. Of a checkpoint that sees images, the language model.
//!
//! Defaults follow mlx-lm's `models/gemma3_text.py` and `gemma3.py`. What newer configurations say as
//! `rope_parameters` and `layer_types` counts where the older keys are absent.

use serde_json::json;

use super::decoder::Decoder;
use super::gemma2::{Layer, attention_scale, frame, refuse_other_forms, root};
use super::{Model, heads, positive, windows};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::mlx::{Array, Dtype};
use crate::nn::{Attention, AttentionShape, QkNorm, Rope};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    match config.model_type()?.ends_with("_text") {
        true => load_text(config, weights),
        false => load_multimodal(config, weights),
    }
}

fn load_text(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = config.with_defaults(&json!({
        "hidden_size": 1152,
        "num_hidden_layers": 26,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "vocab_size": 262144,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
    }));
    refuse_other_forms(&config)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = config.value(key) {
            return Err(LoadError::Unsupported(format!(
                "{}: {} is {cap}; supported is null",
                config.file(),
                config.path_of(key)
            )));
        }
    }
    let shape = AttentionShape {
        head_dim: positive(&config, "head_dim")?,
        ..heads(&config)?
    };
    let near = rope(&config, shape.head_dim, &SLIDING)?;
    let far = rope(&config, shape.head_dim, &FULL)?;
    let (scale, eps) = (attention_scale(&config)?, config.f32("rms_norm_eps")?);
    let window = window_of(&config)?;
    let block = |i, w: &Cursor| {
        let (window, attn) = (window(i), w.at("self_attn"));
        let rope = if window.is_some() { &near } else { &far };
        let mut self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        let norm = |name| attn.rms_norm_plus_one(name, shape.head_dim, eps);
        self_attn.qk_norm = Some(QkNorm::Heads(norm("q_norm")?, norm("k_norm")?));
        self_attn.scale = scale;
        Layer::load(&config, w, self_attn, window)
    };
    let tied = !weights.has("lm_head.weight");
    let frame = frame(&config, &weights.root(), tied)?;
    let mut decoder = Decoder::load(&config, weights, frame, block)?;
    // Rounded, as the reference has it, whatever the type of the weights.
    let scale = Array::from_f32(root(shape.d_model))?.astype(Dtype::Bfloat16)?;
    decoder.embed_scale = Some(scale.astype(Dtype::Float32)?.item()?);
    Ok(Box::new(decoder))
}

/// The language model of a checkpoint that sees images.
fn load_multimodal(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.rename(&[("model.language_model.", "model."), ("language_model.", "")]);
    weights.written_as(&[("", "language_model.")]);
    weights.ignoring(|name| {
        let name = name.strip_prefix("model.").unwrap_or(name);
        name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.")
    });
    let Some(text) = config.object("text_config")? else {
        return Err(config.invalid("text_config", "an object").into());
    };
    let vocab_size = 262_208;
    let defaults = json!({"num_attention_heads": 8, "num_key_value_heads": 4});
    let text = with_vocab_size(config, text, vocab_size)?.with_defaults(&defaults);
    load_text(&text, weights)
}

/// The settings of a language model with the `vocab_size` of the whole model, as the reference takes
/// it; where that has none the language model's own counts before the default.
pub(super) fn with_vocab_size(config: &Config, text: Config, default: usize) -> LoadResult<Config> {
    Ok(match config.usize_opt("vocab_size")? {
        Some(vocab_size) => text.with("vocab_size", vocab_size),
        None => text.with_defaults(&json!({
            "vocab_size": default,
        })),
    })
}

/// How the layers of one type turn queries and keys.
struct RopeKeys {
    /// The object within `rope_parameters`.
    kind: &'static str,
    theta: &'static str,
    default_theta: f32,
    scaling: Option<&'static str>,
}

const SLIDING: RopeKeys = RopeKeys {
    kind: "sliding_attention",
    theta: "rope_local_base_freq",
    default_theta: 10_000.0,
    scaling: None,
};
const FULL: RopeKeys = RopeKeys {
    kind: "full_attention",
    theta: "rope_theta",
    default_theta: 1_000_000.0,
    scaling: Some("rope_scaling"),
};

fn rope(config: &Config, dims: usize, keys: &RopeKeys) -> LoadResult<Rope> {
    let nested = match config.object("rope_parameters")? {
        Some(parameters) => parameters.object(keys.kind)?,
        None => None,
    };
    let nested_theta = match &nested {
        Some(nested) => nested.f32_opt("rope_theta")?,
        None => None,
    };
    let theta = config.f32_opt(keys.theta)?.or(nested_theta);
    let rope = Rope::plain(dims, theta.unwrap_or(keys.default_theta), false);
    let older = match keys.scaling {
        Some(key) => config.object(key)?,
        None => None,
    };
    match older.or(nested) {
        Some(scaling) => rope.scaled(config, &scaling),
        None => Ok(rope),
    }
}

/// How many positions the queries of a layer see, by its number: none for all.
fn window_of(config: &Config) -> LoadResult<impl Fn(usize) -> Option<usize>> {
    let pattern = config.value("sliding_window_pattern").is_some();
    let types = if pattern {
        Vec::new()
    } else {
        windows(config)?
    };
    let config = config.with_defaults(&json!({
        "sliding_window_pattern": 6,
    }));
    let pattern = positive(&config, "sliding_window_pattern")?;
    let window = match pattern {
        1 => None,
        _ => Some(positive(&config, "sliding_window")?),
    };
    Ok(move |i| match types.get(i) {
        Some(window) => *window,
        None if i % pattern == pattern - 1 => None,
        None => window,
    })
}
