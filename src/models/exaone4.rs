//! EXAONE 4.0 (LG AI Research, 2025): norms behind attention and feed-forward layers, queries and
//! keys normalised per head; in the larger models local layers, which turn them, and global ones,
//! which do not.
//!
//! Required settings follow mlx-lm's `models/exaone4.py`.

use super::decoder::{Decoder, Frame};
use super::olmo2::PostNormLayer;
use super::{Model, heads, positive, windows};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool("tie_word_embeddings")?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let shape = AttentionShape {
        n_kv_heads: positive(config, "num_key_value_heads")?,
        head_dim: positive(config, "head_dim")?,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: None,
        traditional: false,
    };
    let rope = Rope::load(config, rope)?;
    let eps = config.f32("rms_norm_eps")?;
    let reaches = reaches(config)?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        // Where no layer is local, all turn.
        let local = match reaches.is_empty() {
            true => None,
            false => reaches.get(i % reaches.len()).copied().flatten(),
        };
        let rope = (reaches.is_empty() || local.is_some()).then(|| rope.clone());
        let attn = w.at("self_attn");
        let self_attn = Attention::load(&attn, shape, rope)?.with_head_norms(&attn, eps)?;
        PostNormLayer::load(config, w, self_attn, false, local)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// How many positions the layers' queries see, in turn, none for all of them: by the letters L and G
/// of `sliding_window_pattern`. Where that is absent, `layer_types` say the same of each layer, as
/// transformers has it. Empty where no layer is local.
fn reaches(config: &Config) -> LoadResult<Vec<Option<usize>>> {
    let key = "sliding_window_pattern";
    let Some(pattern) = config.str_opt(key)? else {
        let types = windows(config)?;
        return Ok(match types.iter().any(Option::is_some) {
            true => types,
            false => Vec::new(),
        });
    };
    let reach = |letter| match letter {
        'L' => Ok(Some(positive(config, "sliding_window")?)),
        'G' => Ok(None),
        _ => Err(LoadError::Unsupported(format!(
            "{}: {key} is {pattern:?}; supported are the letters L (local) and G (global)",
            config.file()
        ))),
    };
    pattern.chars().map(reach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Vec<Option<usize>>, String> {
        let config = Config::parse("config.json", json.as_bytes()).unwrap();
        reaches(&config).map_err(|e| e.to_string())
    }

    #[test]
    fn a_pattern_or_layer_types_say_which_layers_are_local() {
        let pattern = r#"{"sliding_window": 8, "sliding_window_pattern": "LLG"}"#;
        assert_eq!(of(pattern), Ok(vec![Some(8), Some(8), None]));
        let types = r#"{"sliding_window": 8, "num_hidden_layers": 2,
            "layer_types": ["full_attention", "sliding_attention"]}"#;
        assert_eq!(of(types), Ok(vec![None, Some(8)]));
        let full = r#"{"num_hidden_layers": 1, "layer_types": ["full_attention"]}"#;
        assert_eq!(of(full), Ok(vec![]));
        assert_eq!(of(r#"{"sliding_window_pattern": null}"#), Ok(vec![]));
    }

    #[test]
    fn other_patterns_are_refused_by_name() {
        for (json, named) in [
            (
                r#"{"sliding_window": 8, "sliding_window_pattern": "LXG"}"#,
                "LXG",
            ),
            (
                r#"{"sliding_window": 8, "sliding_window_pattern": 4}"#,
                "sliding_window_pattern",
            ),
            (r#"{"sliding_window_pattern": "LG"}"#, "sliding_window"),
        ] {
            let message = of(json).unwrap_err();
            assert!(message.contains(named), "{message}");
        }
    }
}
