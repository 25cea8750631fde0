//! Mamba 2 (Dao and Gu, 2024; Codestral Mamba, 2024): state-space layers alone.
//!
//! Settings and norms follow mlx-lm's `models/mamba2.py`: the gated norm takes all groups at once, where
//! transformers takes each by itself. What it requires but does not use is not asked for.

use super::decoder::{Block, Decoder, FinalNorm, Frame};
use super::{Model, only, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Mamba2, Mamba2Shape, RmsNorm};

/// The norms before the layers have this one whatever `layer_norm_epsilon` is, as in mlx-lm.
const LAYER_EPS: f32 = 1e-5;

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.rename(&[("backbone.embeddings.", "backbone.embed_tokens.")]);
    weights.written_as(&[("backbone.embed_tokens", "backbone.embeddings")]);
    only(config, "hidden_act", "silu")?;
    let tied = config.bool("tie_word_embeddings")?;
    if tied {
        weights.ignoring(|name| name == "lm_head.weight");
    }
    let state = match config.value("ssm_state_size") {
        Some(_) => "ssm_state_size",
        None => "state_size",
    };
    let keys = MixerKeys {
        n_heads: "num_heads",
        head_dim: "head_dim",
        n_groups: "n_groups",
        state_size: state,
        kernel: "conv_kernel",
    };
    let Some(time_step_limit) = time_step_limit(config)? else {
        let expected = "a list of the least and the largest time step";
        return Err(config.invalid("time_step_limit", expected).into());
    };
    let shape = Mamba2Shape {
        proj_bias: config.bool("use_bias")?,
        conv_bias: config.bool("use_conv_bias")?,
        eps: config.f32("layer_norm_epsilon")?,
        time_step_limit,
        ..mixer_shape(config, &keys)?
    };
    let root = weights.root();
    let model = root.at("backbone");
    let norm = model.rms_norm("norm_f", shape.d_model, shape.eps)?;
    let frame = Frame {
        model,
        head: (!tied).then_some(root),
        norm: FinalNorm::Rms(norm),
    };
    let block = |_, w: &Cursor| {
        Ok(Layer {
            norm: w.rms_norm("norm", shape.d_model, LAYER_EPS)?,
            mixer: Mamba2::load(&w.at("mixer"), shape)?,
        })
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// What a family calls the sizes of a Mamba 2 layer.
pub(super) struct MixerKeys {
    pub n_heads: &'static str,
    pub head_dim: &'static str,
    pub n_groups: &'static str,
    pub state_size: &'static str,
    pub kernel: &'static str,
}

/// The sizes that `keys` name; without biases, an epsilon of 0, time steps without limit and one norm.
pub(super) fn mixer_shape(config: &Config, keys: &MixerKeys) -> LoadResult<Mamba2Shape> {
    let n_heads = positive(config, keys.n_heads)?;
    let n_groups = positive(config, keys.n_groups)?;
    if !n_heads.is_multiple_of(n_groups) {
        let expected = format!("a divisor of {}, which is {n_heads}", keys.n_heads);
        return Err(config.invalid(keys.n_groups, expected).into());
    }
    Ok(Mamba2Shape {
        d_model: positive(config, "hidden_size")?,
        n_heads,
        head_dim: positive(config, keys.head_dim)?,
        n_groups,
        state_size: positive(config, keys.state_size)?,
        kernel: positive(config, keys.kernel)?,
        proj_bias: false,
        conv_bias: false,
        eps: 0.0,
        norm_groups: 1,
        time_step_limit: [0.0, f32::INFINITY],
    })
}

/// `time_step_limit`, if there.
pub(super) fn time_step_limit(config: &Config) -> LoadResult<Option<[f32; 2]>> {
    match config.f32_list("time_step_limit")?.as_deref() {
        None => Ok(None),
        Some(&[least, most]) => Ok(Some([least, most])),
        Some(_) => Err(config.invalid("time_step_limit", "two numbers").into()),
    }
}

/// `h += mixer(norm(h))`.
struct Layer {
    norm: RmsNorm,
    mixer: Mamba2,
}

impl Block for Layer {
    fn forward(&self, h: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        h.add(&self.mixer.forward(&self.norm.forward(h)?, batch, cache)?)
    }

    fn cache(&self) -> LayerCache {
        LayerCache::recurrent()
    }
}
