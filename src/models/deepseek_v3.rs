//! DeepSeek-V3 (2024), Kimi K2 and JoyAI-LLM Flash: latent attention, and after some dense layers a
//! mixture of experts that are chosen in groups, with shared experts beside them.
//!
//! Defaults follow mlx-lm's `models/deepseek_v3.py`. Layers behind the last, which predict further
//! tokens (MTP), are left out.

use serde_json::json;

use super::decoder::{Decoder, Frame};
use super::grouped_moe::{Layer, SelfAttention, further_layers, layer_of};
use super::{Model, positive};
use crate::checkpoint::{Config, Cursor, LoadResult, Packing, Weights};
use crate::nn::{Mla, MlaShape, Rope, RopeShape};

/// The norms of latents have an epsilon of their own.
const LATENT_EPS: f32 = 1e-6;

pub(super) fn load(config: &Config, weights: &mut Weights) -> LoadResult<Box<dyn Model>> {
    let config = &config.with_defaults(&json!({
        "vocab_size": 102_400,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "moe_intermediate_size": 1407,
        "num_hidden_layers": 30,
        "num_attention_heads": 32,
        "routed_scaling_factor": 1.0,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "norm_topk_prob": true,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 1,
        "moe_layer_freq": 1,
        "first_k_dense_replace": 0,
        "rms_norm_eps": 1e-6,
    }));
    if !config.bool_or("rope_interleave", true)? {
        let expected = "true: pairs of neighbours are supported only";
        return Err(config.invalid("rope_interleave", expected).into());
    }
    let q_lora_rank = match config.value("q_lora_rank") {
        None => None,
        Some(_) => Some(positive(config, "q_lora_rank")?),
    };
    let shape = MlaShape {
        d_model: positive(config, "hidden_size")?,
        n_heads: positive(config, "num_attention_heads")?,
        q_lora_rank,
        kv_lora_rank: positive(config, "kv_lora_rank")?,
        qk_nope_head_dim: positive(config, "qk_nope_head_dim")?,
        qk_rope_head_dim: positive(config, "qk_rope_head_dim")?,
        v_head_dim: positive(config, "v_head_dim")?,
        bias: config.bool_or("attention_bias", false)?,
    };
    let rope = RopeShape {
        dims: shape.qk_rope_head_dim,
        default_theta: Some(10_000.0),
        traditional: true,
    };
    let rope = Rope::load(config, rope)?;
    let mscale = mscale(config)?;
    let further = further_layers(config, 0)?;
    weights.packed_by(|path| Packing::never_if(path.ends_with("mlp.gate")));
    weights.keeping_type(|name| name.contains("e_score_correction_bias"));
    weights.ignoring(move |name| {
        // mlx-lm leaves out layer 61 whatever their number.
        name.contains("rotary_emb.inv_freq")
            || layer_of(name).is_some_and(|i| further.contains(&i) || i == 61 && i > further.start)
    });
    let (first_dense, every) = (
        config.usize("first_k_dense_replace")?,
        positive(config, "moe_layer_freq")?,
    );
    let tied = config.bool_or("tie_word_embeddings", false)? && !weights.has("lm_head.weight");
    let frame = Frame::usual(config, &weights.root(), tied)?;
    let block = |i: usize, w: &Cursor| {
        let mut self_attn = Mla::load(&w.at("self_attn"), shape, LATENT_EPS, rope.clone())?;
        self_attn.scale *= mscale * mscale;
        let sparse = i >= first_dense && i.is_multiple_of(every);
        Layer::load(config, w, SelfAttention::Latent(self_attn), sparse)
    };
    Ok(Box::new(Decoder::load(config, weights, frame, block)?))
}

/// Yarn's temperature, which scores have twice: for queries and for keys.
fn mscale(config: &Config) -> LoadResult<f32> {
    let scaling = match config.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => config.object("rope_parameters")?,
    };
    let Some(scaling) = scaling else {
        return Ok(1.0);
    };
    let mscale = scaling.f32_or("mscale_all_dim", 0.0)?;
    if mscale == 0.0 {
        return Ok(1.0);
    }
    Ok(match scaling.f32("factor")? {
        factor if factor > 1.0 => 0.1 * mscale * factor.ln() + 1.0,
        _ => 1.0,
    })
}
