//! The text tower of Mistral Small 3.1 and of Ministral 3 (Mistral AI, 2025), and of Pixtral and other
//! models that call themselves `llava`: a decoder in `text_config` beside a vision tower.
//!
//! Names and defaults follow mlx-lm's `models/mistral3.py`.

use super::{Model, llama, ministral3};
use crate::checkpoint::{Config, LoadError, LoadResult, Weights};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let Some(text) = config.object("text_config")? else {
        return Err(config
            .invalid("text_config", "the language model's settings")
            .into());
    };
    weights.leave_out_towers(|name| {
        name.contains("vision_tower") || name.contains("multi_modal_projector")
    });
    weights.rename(&[("model.language_model.", "model."), ("language_model.", "")]);
    weights.written_as(&[("", "language_model.")]);
    let tied = text.bool_or("tie_word_embeddings", false)?;
    match text.str_or("model_type", "llama")? {
        "llama" | "mistral" | "ministral" => llama::load_as(&text, weights, tied, |_| true),
        "ministral3" => ministral3::load_as(&text, weights, tied),
        other => Err(LoadError::Unsupported(format!(
            "{}: {} is {other:?}; supported are llama, mistral, ministral and ministral3",
            text.file(),
            text.path_of("model_type")
        ))),
    }
}
