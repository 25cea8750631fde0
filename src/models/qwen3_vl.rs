//! The text towers of Qwen3-VL (Qwen team, 2025), which are Qwen3 and Qwen3 with experts: for text
//! alone the sections of its positions are the same. The vision tower is left out.

use super::{Model, qwen3, qwen3_moe};
use crate::checkpoint::{Config, LoadResult, Rename, Weights};

/// mlx-lm's names, those of newer Hugging Face checkpoints and those of older ones.
const RENAMES: &[Rename] = &[("model.language_model.", "model."), ("language_model.", "")];

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let mut text = text(config, weights)?;
    if config.model_type()? != "qwen3_vl_moe" {
        return qwen3::load(&text, weights);
    }
    if text.value("norm_topk_prob").is_none() {
        // transformers has no such setting for these: their weights always add up to 1.
        text = text.with("norm_topk_prob", true);
    }
    qwen3_moe::load(&text, weights)
}

/// The text tower's settings, and its weights alone, under the names of Qwen3.
fn text(config: &Config, weights: &mut Weights) -> LoadResult<Config> {
    weights.leave_out_towers(|name| {
        let towers = ["visual.", "model.visual.", "vision_tower."];
        towers.iter().any(|tower| name.starts_with(tower))
    });
    weights.rename(RENAMES);
    weights.written_as(&[("", "language_model.")]);
    let text = config.text()?;
    // mlx-lm reads the text tower's setting, transformers the other: it then writes a head.
    let outer = config.bool_opt("tie_word_embeddings")?;
    let inner = text.bool_opt("tie_word_embeddings")?.or(outer);
    Ok(match (inner, outer) {
        (Some(true), Some(false)) => {
            let headless = !weights.has("lm_head.weight");
            text.with("tie_word_embeddings", headless)
        }
        (Some(tied), _) => text.with("tie_word_embeddings", tied),
        (None, _) => text,
    })
}
