//! SmolLM3 (Hugging Face, 2025): Llama's form, where some layers have no positions.
//!
//! Defaults follow mlx-lm's `models/smollm3.py`.

use super::{Model, llama, positive};
use crate::checkpoint::{Config, LoadResult, Weights};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool_or("tie_word_embeddings", true)?;
    let n_layers = positive(config, "num_hidden_layers")?;
    // Despite its name, 1 stands for a layer with positions.
    let Some(turns) = config.usize_list("no_rope_layers")? else {
        let interval = match config.value("no_rope_layer_interval") {
            Some(_) => positive(config, "no_rope_layer_interval")?,
            None => 4,
        };
        return llama::load_as(config, weights, tied, |i| (i + 1) % interval != 0);
    };
    if turns.len() != n_layers {
        let expected = format!("a number for each of {n_layers} layers");
        return Err(config.invalid("no_rope_layers", expected).into());
    }
    llama::load_as(config, weights, tied, |i| {
        turns.get(i).is_none_or(|&turns| turns != 0)
    })
}
