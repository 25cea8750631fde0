//! Helium 1 (Kyutai, 2025): Llama's form with rotary pairs of neighbouring features, and no bias behind
//! attention whatever its projections have.
//!
//! Required settings follow mlx-lm's `models/helium.py`. There heads share `hidden_size` out whatever
//! `head_dim` says; another `head_dim` is refused here.

use super::llama::Form;
use super::{Model, heads, only, positive};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    only(config, "hidden_act", "silu")?;
    let shape = attention_shape(config)?;
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: None,
        traditional: true,
    };
    let rope = Rope::load_plain(config, rope)?;
    let form = Form {
        tied: config.bool("tie_word_embeddings")?,
        mlp_bias: config.bool("mlp_bias")?,
        ..Form::default()
    };
    form.load(config, weights, |_, w| {
        Attention::load(w, shape, Some(rope.clone()))
    })
}

fn attention_shape(config: &Config) -> LoadResult<AttentionShape> {
    let shape = AttentionShape {
        n_kv_heads: positive(config, "num_key_value_heads")?,
        qkv_bias: config.bool("attention_bias")?,
        ..heads(config)?
    };
    let shared = shape.d_model / shape.n_heads;
    if shape.head_dim != shared {
        let expected = format!(
            "{shared}, hidden_size shared out among {} heads",
            shape.n_heads
        );
        return Err(config.invalid("head_dim", expected).into());
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features of a head, of 4 in 40 features.
    fn head_dim(json: &str) -> LoadResult<usize> {
        let json = format!(
            r#"{{"hidden_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "attention_bias": false{json}}}"#
        );
        let config = Config::parse("config.json", json.as_bytes())?;
        Ok(attention_shape(&config)?.head_dim)
    }

    #[test]
    fn heads_share_out_the_model_and_no_other_size_is_taken() {
        assert_eq!(head_dim("").unwrap(), 10);
        assert_eq!(head_dim(r#", "head_dim": 10"#).unwrap(), 10);
        let message = head_dim(r#", "head_dim": 14"#).unwrap_err().to_string();
        assert!(message.contains("head_dim"), "{message}");
    }
}
