//! Grouped-query attention with rotary positions, the common form.

use super::{Linear, RmsNorm, Rope};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Result, scaled_dot_product_attention};

/// The sizes of an attention layer, and which optional parts it has.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Features of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Whether the four projections have biases.
    pub bias: bool,
    /// The epsilon of `q_norm` and `k_norm`, if queries and keys are normalised per head.
    pub qk_norm: Option<f32>,
}

/// An attention layer (Vaswani et al., 2017; Ainslie et al., 2023).
#[derive(Debug)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    qk_norm: Option<(RmsNorm, RmsNorm)>,
    rope: Rope,
    n_heads: i32,
    n_kv_heads: i32,
    head_dim: i32,
}

impl Attention {
    /// `q_proj`, `k_proj`, `v_proj`, `o_proj` and perhaps `q_norm`, `k_norm` under `w`.
    pub fn load(w: &Cursor, shape: AttentionShape, rope: Rope) -> LoadResult<Self> {
        let AttentionShape {
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            bias,
            qk_norm,
        } = shape;
        let (queries, keys) = (n_heads * head_dim, n_kv_heads * head_dim);
        let norms = |eps| -> LoadResult<_> {
            let q_norm = w.rms_norm("q_norm", head_dim, eps)?;
            Ok((q_norm, w.rms_norm("k_norm", head_dim, eps)?))
        };
        Ok(Self {
            q_proj: w.linear("q_proj", [queries, d_model], bias)?,
            k_proj: w.linear("k_proj", [keys, d_model], bias)?,
            v_proj: w.linear("v_proj", [keys, d_model], bias)?,
            o_proj: w.linear("o_proj", [d_model, queries], bias)?,
            qk_norm: qk_norm.map(norms).transpose()?,
            rope,
            n_heads: n_heads as i32,
            n_kv_heads: n_kv_heads as i32,
            head_dim: head_dim as i32,
        })
    }

    /// `x [B, L, d_model]` to the same shape; keys and values join `cache`.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let (b, l) = (x.dim(0)?, x.dim(1)?);
        let split = |y: Array, heads| y.reshape(&[b, l, heads, self.head_dim]);
        let heads_first = |y: Array| y.transpose_axes(&[0, 2, 1, 3]);
        let mut queries = split(self.q_proj.forward(x)?, self.n_heads)?; // [B, L, H, D]
        let mut keys = split(self.k_proj.forward(x)?, self.n_kv_heads)?; // [B, L, K, D]
        let values = split(self.v_proj.forward(x)?, self.n_kv_heads)?; // [B, L, K, D]
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            queries = q_norm.forward(&queries)?;
            keys = k_norm.forward(&keys)?;
        }
        let queries = self.rope.forward(&heads_first(queries)?, batch.offset)?; // [B, H, L, D]
        let keys = self.rope.forward(&heads_first(keys)?, batch.offset)?; // [B, K, L, D]
        let view = cache.update(&keys, &heads_first(values)?, batch)?;
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let mixed = scaled_dot_product_attention(&queries, &view.k, &view.v, scale, view.mask)?;
        let joined =
            mixed
                .transpose_axes(&[0, 2, 1, 3])?
                .reshape(&[b, l, self.n_heads * self.head_dim])?; // [B, L, H * D]
        self.o_proj.forward(&joined)
    }

    /// Bytes of the weights in memory.
    pub fn nbytes(&self) -> usize {
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj, &self.o_proj];
        let norms = self
            .qk_norm
            .as_ref()
            .map_or(0, |(q, k)| q.nbytes() + k.nbytes());
        projections.iter().map(|p| p.nbytes()).sum::<usize>() + norms
    }
}
