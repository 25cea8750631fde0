//! Command R7B and Command A (Cohere, 2024): attention and feed-forward layer side by side behind
//! one norm; a sliding window in most layers, and no positions in the others.
//!
//! Defaults follow mlx-lm's `models/cohere2.py`.

use serde_json::{Value, json};

use super::decoder::{Block, Decoder, FinalNorm, Frame};
use super::{Model, heads, positive, windows};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Dtype, Result};
use crate::nn::{Attention, AttentionShape, GatedMlp, LayerNorm, Rope, RopeShape};

fn defaults() -> Value {
    json!({
        "hidden_size": 4096,
        "head_dim": 128,
        "num_hidden_layers": 32,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 256000,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "sliding_window": 4096,
    })
}

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = &config.with_defaults(&defaults());
    let bias = config.bool_or("attention_bias", false)?;
    let shape = AttentionShape {
        qkv_bias: bias,
        o_bias: bias,
        ..heads(config)?
    };
    if shape.n_heads.checked_mul(shape.head_dim) != Some(shape.d_model) {
        let expected = format!(
            "{} (hidden_size) shared out among {} heads",
            shape.d_model, shape.n_heads
        );
        return Err(config.invalid("head_dim", expected).into());
    }
    let rope = RopeShape {
        dims: shape.head_dim,
        default_theta: Some(50_000.0),
        traditional: true,
    };
    let rope = Rope::load_plain(config, rope)?;
    let window_of = layer_windows(config)?;
    let model = weights.root().at("model");
    let frame = Frame {
        norm: FinalNorm::Layer(norm(config, &model, "norm")?),
        model,
        head: None,
    };
    let block = |i: usize, w: &Cursor| {
        let window = window_of(i);
        let rope = window.map(|_| rope.clone());
        let d_ff = positive(config, "intermediate_size")?;
        Ok(Layer {
            input_layernorm: norm(config, w, "input_layernorm")?,
            self_attn: Attention::load(&w.at("self_attn"), shape, rope)?,
            mlp: GatedMlp::load(&w.at("mlp"), shape.d_model, d_ff, false)?,
            window,
        })
    };
    let mut decoder = Decoder::load(config, weights, frame, block)?;
    decoder.logit_scale = Some(config.f32("logit_scale")?);
    Ok(Box::new(decoder))
}

fn norm(config: &Config, w: &Cursor, name: &str) -> LoadResult<LayerNorm> {
    let d_model = positive(config, "hidden_size")?;
    let bias = config.bool_or("layer_norm_bias", false)?;
    w.layer_norm(name, d_model, config.f32("layer_norm_eps")?, bias)
}

/// The last of every `sliding_window_pattern` layers sees all positions. mlx-lm reads nothing else;
/// where the pattern is absent, `layer_types` say the same of each layer.
fn layer_windows(config: &Config) -> LoadResult<impl Fn(usize) -> Option<usize>> {
    let key = "sliding_window_pattern";
    let types = match config.value(key) {
        None => windows(config)?,
        Some(_) => Vec::new(),
    };
    let pattern = match config.value(key) {
        Some(_) => positive(config, key)?,
        None => 4,
    };
    let window = positive(config, "sliding_window")?;
    Ok(move |i: usize| match types.is_empty() {
        true => (!(i + 1).is_multiple_of(pattern)).then_some(window),
        false => types.get(i).copied().flatten(),
    })
}

/// `h += attention(norm(h)) + mlp(norm(h))`.
struct Layer {
    input_layernorm: LayerNorm,
    self_attn: Attention,
    mlp: GatedMlp,
    /// How many positions a query sees; all where there is none.
    window: Option<usize>,
}

impl Layer {
    /// In float32 where the model is in float16, as the reference has it.
    fn attention(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        if x.dtype() != Dtype::Float16 {
            return self.self_attn.forward(x, batch, cache);
        }
        let queries = self.self_attn.queries(x, batch)?.astype(Dtype::Float32)?;
        let view = self.self_attn.remember(x, batch, cache)?;
        let joined = self.self_attn.attend(&queries, &view)?;
        self.self_attn.output(&joined.astype(Dtype::Float16)?)
    }
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let x = self.input_layernorm.forward(h)?;
        let attended = self.attention(&x, batch, cache)?;
        attended.add(&self.mlp.forward(&x)?)?.add(h)
    }

    fn cache(&self) -> LayerCache {
        self.window
            .map_or_else(LayerCache::full, LayerCache::sliding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the first layers slide.
    fn of(json: &str) -> LoadResult<Vec<bool>> {
        let config = Config::parse("config.json", json.as_bytes())?.with_defaults(&defaults());
        let window_of = layer_windows(&config)?;
        Ok((0..5).map(|i| window_of(i).is_some()).collect())
    }

    #[test]
    fn the_pattern_goes_before_layer_types() {
        let types =
            r#""num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]"#;
        assert_eq!(of(&format!("{{{types}}}")).unwrap()[..2], [false, true]);
        let both = format!(r#"{{"sliding_window_pattern": 2, {types}}}"#);
        assert_eq!(of(&both).unwrap()[..2], [true, false]);
        assert_eq!(of("{}").unwrap(), [true, true, true, false, true]);
    }

    #[test]
    fn a_pattern_of_no_layers_is_refused() {
        let message = of(r#"{"sliding_window_pattern": 0}"#)
            .unwrap_err()
            .to_string();
        assert!(message.contains("sliding_window_pattern"), "{message}");
    }
}
