//! GLM-4.5 and 4.6 (Zeng et al., 2025): grouped-query attention that turns a part of each head, and
//! DeepSeek-V3's feed-forward layers.
//!
//! Required settings follow mlx-lm's `models/glm4_moe.py`; as there, the embedding serves as the output
//! layer only where the checkpoint has no `lm_head`.

use super::decoder::{Decoder, Frame};
use super::grouped_moe::{Layer, SelfAttention, further_layers, layer_of};
use super::{Model, heads, positive};
use crate::checkpoint::{Config, Cursor, LoadError, LoadResult, Packing, Weights};
use crate::nn::{Attention, AttentionShape, Rope};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let tied = config.bool("tie_word_embeddings")? && !weights.has("lm_head.weight");
    let further = further_layers(config, 1)?;
    weights.packed_by(|path| Packing::never_if(path.ends_with("mlp.gate")));
    weights.keeping_type(|name| name.contains("e_score_correction_bias"));
    weights.ignoring(move |name| layer_of(name).is_some_and(|i| further.contains(&i)));
    positive(config, "num_key_value_heads")?;
    let shape = AttentionShape {
        head_dim: positive(config, "head_dim")?,
        qkv_bias: config.bool("attention_bias")?,
        o_bias: false,
        ..heads(config)?
    };
    let rope = rope(config, shape.head_dim)?;
    let normalised = config.bool("use_qk_norm")?;
    let eps = config.f32("rms_norm_eps")?;
    let first_dense = config.usize("first_k_dense_replace")?;
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let attn = w.at("self_attn");
        let mut self_attn = Attention::load(&attn, shape, Some(rope.clone()))?;
        if normalised {
            self_attn = self_attn.with_head_norms(&attn, eps)?;
        }
        Layer::load(config, w, SelfAttention::Heads(self_attn), i >= first_dense)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// The rotary embedding of the first `partial_rotary_factor` of a head, without any scaling. Newer
/// configurations have its settings in `rope_parameters`.
fn rope(config: &Config, head_dim: usize) -> LoadResult<Rope> {
    let parameters = config.object("rope_parameters")?;
    let scalings = [config.object("rope_scaling")?, parameters.clone()];
    for scaling in scalings.iter().flatten() {
        let kind = match scaling.str_opt("type")? {
            Some(kind) => kind,
            None => scaling.str_or("rope_type", "default")?,
        };
        if kind != "default" {
            return Err(LoadError::Unsupported(format!(
                "{}: {} is {kind:?}; this architecture supports default only",
                config.file(),
                scaling.path_of("rope_type"),
            )));
        }
    }
    let setting = |key: &str| match (&parameters, config.value(key)) {
        (Some(parameters), None) => parameters.f32(key),
        _ => config.f32(key),
    };
    let part = setting("partial_rotary_factor")?;
    let dims = (head_dim as f32 * part) as usize;
    if !(0.0..=1.0).contains(&part) || dims < 2 || !dims.is_multiple_of(2) {
        let expected = format!("an even part, 2 at least, of head_dim, which is {head_dim}");
        return Err(config.invalid("partial_rotary_factor", expected).into());
    }
    Ok(Rope::plain(dims, setting("rope_theta")?, false))
}
