//! Gemma 4 (Google DeepMind, 2026), its language model: Gemma 3's layer with heads of two sizes,
//! inputs of each layer's own (E2B, E4B), layers that read the keys of earlier ones, and experts
//! beside the feed-forward layer (26B).
//!
//! Defaults follow mlx-lm's `models/gemma4_text.py` and `gemma4.py`. The layers that hold keys and
//! values come first, and they alone have caches.

use serde_json::json;

use super::decoder::{Decoder, FinalNorm, Frame, begin};
use super::gemma2::{refuse_other_forms, root, softcap};
use super::gemma3::with_vocab_size;
use super::gemma4_attention::Attentions;
use super::gemma4_layer::Layer;
use super::{Model, ModelFacts, positive};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult, Packing, Weights};
use crate::mlx::{Array, Result};
use crate::nn::{Embedding, Linear, RmsNorm};

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    match config.model_type()?.ends_with("_text") {
        true => load_text(config, weights),
        false => load_multimodal(config, weights),
    }
}

fn load_text(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let ropes = match config.value("rope_parameters") {
        Some(given) => given.clone(),
        None => json!({
            "full_attention": {
                "rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }),
    };
    let config = with_full_heads(config)?.with("rope_parameters", ropes);
    let config = config.with_defaults(&json!({
        "hidden_size": 1536,
        "num_hidden_layers": 35,
        "intermediate_size": 6144,
        "num_attention_heads": 8,
        "head_dim": 256,
        "global_head_dim": 512,
        "rms_norm_eps": 1e-6,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 20,
        "hidden_size_per_layer_input": 256,
        "sliding_window": 512,
        "sliding_window_pattern": 5,
        "max_position_embeddings": 131072,
        "final_logit_softcapping": 30,
    }));
    refuse_other_forms(&config)?;
    weights.rename(&[
        ("model.language_model.", "model."),
        ("language_model.", ""),
        (".experts.switch_glu.", ".switch_mlp."),
        (".experts.gate_up_proj", ".switch_mlp.gate_up_proj.weight"),
        (".experts.down_proj", ".switch_mlp.down_proj.weight"),
    ]);
    weights.written_as(&[(".switch_mlp.", ".experts.switch_glu.")]);
    weights.packed_by(|path| Packing::eight_bits_if(path.ends_with("router.proj")));
    weights.ignoring(is_of_no_use);
    let tied = config.bool_or("tie_word_embeddings", true)?;
    let (d_model, eps) = (
        positive(&config, "hidden_size")?,
        config.f32("rms_norm_eps")?,
    );
    let model = weights.root().at("model");
    let per_layer = PerLayer::load(&config, &model, d_model, eps)?;
    let frame = Frame {
        norm: FinalNorm::Rms(model.rms_norm("norm", d_model, eps)?),
        model,
        head: (!tied).then(|| weights.root()),
    };
    let attentions = Attentions::new(&config)?;
    let block = |i, w: &Cursor| Layer::load(&config, &attentions, i, w);
    let mut decoder = Decoder::load(&config, weights, frame, block)?;
    decoder.embed_scale = Some(root(d_model));
    decoder.logit_softcap = softcap(&config, "final_logit_softcapping")?;
    Ok(Box::new(Gemma4 { decoder, per_layer }))
}

/// The language model of a checkpoint that sees and hears.
fn load_multimodal(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    weights.written_as(&[("", "language_model.")]);
    let vocab_size = 262_144;
    let text = with_vocab_size(config, config.text()?, vocab_size)?;
    load_text(&text, weights)
}

/// The settings with the heads of full layers as the reference names them, where transformers wrote
/// them as the difference of single layers.
fn with_full_heads(config: &Config) -> LoadResult<Config> {
    let mut config = config.clone();
    let Some(layers) = config.object("per_layer_config")? else {
        return Ok(config);
    };
    for layer in layers.keys().map(|key| layers.object(key)) {
        let Some(layer) = layer? else { continue };
        for key in layer.keys() {
            let global = match key {
                "head_dim" => "global_head_dim",
                "num_key_value_heads" => "num_global_key_value_heads",
                _ => {
                    let expected = "head_dim and num_key_value_heads alone";
                    return Err(layer.invalid(key, expected).into());
                }
            };
            let size = positive(&layer, key)?;
            config = config.with_defaults(&json!({
                global: size as f64,
            }));
            if config.usize_opt(global)? != Some(size) {
                let expected = format!("the same as {global}");
                return Err(layer.invalid(key, expected).into());
            }
        }
    }
    Ok(config)
}

/// The other parts of a checkpoint that sees and hears, and what converters leave in.
fn is_of_no_use(name: &str) -> bool {
    const PARTS: [&str; 6] = [
        "vision_tower",
        "multi_modal_projector",
        "audio_tower",
        "embed_audio",
        "embed_vision",
        "vision_embedder",
    ];
    const BUFFERS: [&str; 5] = [
        "self_attn.rotary_emb",
        "input_max",
        "input_min",
        "output_max",
        "output_min",
    ];
    let part = name.strip_prefix("model.").unwrap_or(name);
    PARTS.iter().any(|prefix| part.starts_with(prefix))
        || BUFFERS.iter().any(|buffer| name.contains(buffer))
}

struct Gemma4 {
    decoder: Decoder<Layer>,
    per_layer: Option<PerLayer>,
}

impl Model for Gemma4 {
    fn forward(&self, batch: &Batch, caches: &mut [LayerCache]) -> Result<Array> {
        let mut h = self.decoder.embed(batch)?;
        let inputs = match &self.per_layer {
            Some(per_layer) => Some(per_layer.forward(&h, batch)?),
            None => None,
        };
        let mut caches = caches.iter_mut();
        let mut shown = Default::default();
        for (i, layer) in (0..).zip(&self.decoder.layers) {
            let input = match &inputs {
                Some(inputs) => Some(inputs.slice_axis(2, i, i + 1)?.squeeze(2)?), // [B, L, P]
                None => None,
            };
            h = layer.forward(&h, input.as_ref(), batch, &mut caches, &mut shown)?;
            begin(&h, batch, i as usize)?;
        }
        self.decoder.norm.forward(&h)
    }

    fn unembed(&self, hidden: &Array) -> Result<Array> {
        self.decoder.logits(hidden)
    }

    fn caches(&self) -> Vec<LayerCache> {
        self.decoder
            .layers
            .iter()
            .filter_map(Layer::cache)
            .collect()
    }

    fn facts(&self) -> &ModelFacts {
        &self.decoder.facts
    }
}

/// What each layer gets beside the residual stream: a table's row of the token, and a projection of
/// its embedding.
struct PerLayer {
    /// `[vocab_size_per_layer_input, n_layers * P]`.
    table: Embedding,
    /// `[n_layers * P, d_model]`.
    projection: Linear,
    /// `[P]`.
    norm: RmsNorm,
    n_layers: i32,
    size: i32,
    table_scale: f32,
    projection_scale: f32,
}

impl PerLayer {
    /// None where `hidden_size_per_layer_input` is 0 or `null`.
    fn load(config: &Config, w: &Cursor, d_model: usize, eps: f32) -> LoadResult<Option<Self>> {
        let size = config
            .usize_opt("hidden_size_per_layer_input")?
            .unwrap_or(0);
        if size == 0 {
            return Ok(None);
        }
        let n_layers = positive(config, "num_hidden_layers")?;
        let vocab = positive(config, "vocab_size_per_layer_input")?;
        let width = size.saturating_mul(n_layers);
        Ok(Some(Self {
            table: w.embedding("embed_tokens_per_layer", vocab, width)?,
            projection: w.linear("per_layer_model_projection", [width, d_model], false)?,
            norm: w.rms_norm("per_layer_projection_norm", size, eps)?,
            n_layers: n_layers as i32,
            size: size as i32,
            table_scale: root(size),
            projection_scale: 1.0 / root(d_model),
        }))
    }

    /// The inputs of all layers, `[B, L, n_layers, P]`, for scaled embeddings `h [B, L, d_model]`.
    fn forward(&self, h: &Array, batch: &Batch) -> Result<Array> {
        let split = [self.n_layers, self.size];
        let looked_up = self.table.forward(&batch.tokens)?.scale(self.table_scale)?;
        let projected = self.projection.forward(h)?.scale(self.projection_scale)?;
        let projected = self.norm.forward(&projected.unflatten(-1, &split)?)?; // [B, L, n_layers, P]
        let sum = projected.add(&looked_up.unflatten(-1, &split)?)?;
        sum.scale(0.5f32.sqrt())
    }
}
