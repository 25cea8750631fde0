//! ERNIE 4.5, dense (Baidu, 2025): Llama's form with neighbouring features as rotary pairs, and one
//! switch for all biases.
//!
//! Required settings follow mlx-lm's `models/ernie4_5.py`.

use super::llama::Form;
use super::{Model, heads, positive};
use crate::checkpoint::{Config, LoadResult, Weights};
use crate::nn::{Attention, AttentionShape, Rope, RopeShape};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    positive(config, "num_key_value_heads")?;
    // Readers differ in what they take where it is not there at all.
    if !config.keys().any(|key| key == "head_dim") {
        let expected = "a number of features, or null for hidden_size shared out among the heads";
        return Err(config.invalid("head_dim", expected).into());
    }
    let bias = config.bool("use_bias")?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: None,
        traditional: true,
    };
    let rope = Rope::load(config, rope)?;
    let form = Form {
        tied: config.bool("tie_word_embeddings")?,
        mlp_bias: bias,
        ..Form::default()
    };
    form.load(config, weights, |_, w| {
        Attention::load(w, shape, Some(rope.clone()))
    })
}
