//! The attention layer of Qwen3-Next and Qwen3.5: heads turn in part, and a gate of the input scales
//! what they found (Qiu et al., 2025, "Gated Attention for Large Language Models").

use super::heads;
use super::hybrid::Norms;
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult};
use crate::mlx::{Array, Result};
use crate::nn::{Attention, AttentionShape, QkNorm, Rope};

/// An attention layer whose `q_proj` has each head's queries and then its gate.
pub(super) struct GatedAttention {
    attention: Attention,
    n_heads: i32,
    head_dim: i32,
}

impl GatedAttention {
    /// Under `w`.
    pub fn load(config: &Config, w: &Cursor, norms: &Norms, rope: &Rope) -> LoadResult<Self> {
        let bias = config.bool_or("attention_bias", false)?;
        let shape = AttentionShape {
            qkv_bias: bias,
            o_bias: bias,
            ..heads(config)?
        };
        let AttentionShape {
            d_model,
            n_heads,
            head_dim,
            ..
        } = shape;
        let (queries, keys) = shape.widths();
        let qkv = [
            w.linear("q_proj", [2 * queries, d_model], bias)?,
            w.linear("k_proj", [keys, d_model], bias)?,
            w.linear("v_proj", [keys, d_model], bias)?,
        ];
        let o_proj = w.linear("o_proj", [d_model, queries], bias)?;
        let mut attention = Attention::new(qkv, o_proj, shape, Some(rope.clone()));
        attention.qk_norm = Some(QkNorm::Heads(
            norms.load(w, "q_norm", head_dim)?,
            norms.load(w, "k_norm", head_dim)?,
        ));
        Ok(Self {
            attention,
            n_heads: n_heads as i32,
            head_dim: head_dim as i32,
        })
    }

    /// `x [B, L, d_model]` to the same shape; keys and values join `cache`.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let attention = &self.attention;
        let both = attention.q_proj.forward(x)?;
        let both = both.unflatten(2, &[self.n_heads, 2 * self.head_dim])?; // [B, L, H, 2 * D]
        let [queries, gate] = both.split([self.head_dim; 2], -1)?;
        let queries = attention.split_queries(queries.flatten(2, 3)?, batch)?;
        let view = attention.remember(x, batch, cache)?;
        let found = attention.attend(&queries, &view)?; // [B, L, H * D]
        attention.output(&found.multiply(&gate.flatten(2, 3)?.sigmoid()?)?)
    }
}
