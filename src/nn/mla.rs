//! Multi-head latent attention (DeepSeek-V2, 2024, section 2.1): one latent a position, from which
//! every head has its keys and values.
//!
//! The cache holds latents. Many queries attend to keys and values made of them; a single one is
//! taken to the latents instead (the absorbed form of the paper), which saves making them.

use super::{Linear, Matrix, RmsNorm, Rope};
use crate::cache::{Attend, Batch, KvView, LayerCache, RowView};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Result};

/// The sizes of a latent attention layer, with Hugging Face's names.
#[derive(Clone, Copy, Debug)]
pub struct MlaShape {
    /// Features of the residual stream.
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Features of the queries' latent; none where queries come straight from the stream.
    pub q_lora_rank: Option<usize>,
    /// Features of the keys' and values' latent.
    pub kv_lora_rank: usize,
    /// Features of a query or key without a position.
    pub qk_nope_head_dim: usize,
    /// Features of a query or key with a position; all heads share the keys'.
    pub qk_rope_head_dim: usize,
    /// Features of a value.
    pub v_head_dim: usize,
    /// Whether the projections from and to the stream have biases.
    pub bias: bool,
}

/// Where queries come from.
#[derive(Clone, Debug)]
enum Queries {
    Straight(Linear),
    Latent(Linear, RmsNorm, Linear),
}

/// A latent attention layer.
#[derive(Clone, Debug)]
pub struct Mla {
    /// Scores are multiplied by it; `1 / sqrt(qk_nope_head_dim + qk_rope_head_dim)` after `load`.
    pub scale: f32,
    queries: Queries,
    /// `[R + P, d_model]`: the latent, and the shared part of the keys.
    kv_a_proj_with_mqa: Linear,
    kv_a_layernorm: RmsNorm,
    /// `[H, R, N]`: a query to the latents, or transposed the latents to keys.
    embed_q: Matrix,
    /// `[H, V, R]`: the latents to values.
    unembed_out: Matrix,
    /// `[d_model, H * V]`.
    o_proj: Linear,
    rope: Rope,
    n_heads: i32,
    /// N, P and R.
    nope: i32,
    turning: i32,
    rank: i32,
}

impl Mla {
    /// The layer under `w`, with keys and values from `embed_q` and `unembed_out` or, as Hugging
    /// Face has it, `kv_b_proj`. `eps` is that of the latents' norms.
    pub fn load(w: &Cursor, shape: MlaShape, eps: f32, rope: Rope) -> LoadResult<Self> {
        let MlaShape {
            d_model,
            n_heads,
            kv_lora_rank: rank,
            qk_nope_head_dim: nope,
            qk_rope_head_dim: turning,
            v_head_dim,
            bias,
            ..
        } = shape;
        let width = n_heads * (nope + turning);
        let queries = match shape.q_lora_rank {
            None => Queries::Straight(w.linear("q_proj", [width, d_model], false)?),
            Some(q_rank) => Queries::Latent(
                w.linear("q_a_proj", [q_rank, d_model], bias)?,
                w.rms_norm("q_a_layernorm", q_rank, eps)?,
                w.linear("q_b_proj", [width, q_rank], false)?,
            ),
        };
        let kv_b_proj = w.at("kv_b_proj");
        let [embed_q, unembed_out] = if kv_b_proj.has("weight") {
            let shape = [n_heads * (nope + v_head_dim), rank];
            kv_b_proj.cut_matrix(&shape, w, ["embed_q", "unembed_out"], |whole| {
                let heads = whole.unflatten(0, &[n_heads as i32, -1])?; // [H, N + V, R]
                let [keys, values] = heads.split([nope as i32, v_head_dim as i32], 1)?;
                Ok([keys.swap_last()?, values])
            })?
        } else {
            [
                w.at("embed_q").matrix(&[n_heads, rank, nope])?,
                w.at("unembed_out").matrix(&[n_heads, v_head_dim, rank])?,
            ]
        };
        Ok(Self {
            scale: 1.0 / ((nope + turning) as f32).sqrt(),
            queries,
            kv_a_proj_with_mqa: w.linear("kv_a_proj_with_mqa", [rank + turning, d_model], bias)?,
            kv_a_layernorm: w.rms_norm("kv_a_layernorm", rank, eps)?,
            embed_q,
            unembed_out,
            o_proj: w.linear("o_proj", [d_model, n_heads * v_head_dim], bias)?,
            rope,
            n_heads: n_heads as i32,
            nope: nope as i32,
            turning: turning as i32,
            rank: rank as i32,
        })
    }

    /// `x [B, L, d_model]` to the same shape; latents join `cache`.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let queries = match &self.queries {
            Queries::Straight(q_proj) => q_proj.forward(x)?,
            Queries::Latent(a, norm, b) => b.forward(&norm.forward(&a.forward(x)?)?)?,
        };
        let queries = queries
            .unflatten(2, &[self.n_heads, -1])?
            .transpose_axes(&[0, 2, 1, 3])?; // [B, H, L, N + P]
        let [q_nope, q_turning] = queries.split([self.nope, self.turning], -1)?;
        let q_turning = self.rope.forward(&q_turning, batch)?;

        let view = cache.update_latent(&self.latents(x, batch)?, self.rank, batch)?;
        let how = Attend::scaled(self.scale);
        let attended = if batch.len()? == 1 {
            let absorbed = self.embed_q.times(&q_nope)?; // [B, H, 1, R]
            let queries = Array::concatenate(&[&absorbed, &q_turning], -1)?;
            self.unembed_out.times(&view.attend(&queries, how)?)?
        } else {
            let queries = Array::concatenate(&[&q_nope, &q_turning], -1)?;
            self.expand(view.shared()?)?.attend(&queries, how)?
        }; // [B, H, L, V]
        let joined = attended.transpose_axes(&[0, 2, 1, 3])?.flatten(2, 3)?; // [B, L, H * V]
        self.o_proj.forward(&joined)
    }

    /// What the cache is to remember of `x`: `[B, 1, L, R + P]`.
    fn latents(&self, x: &Array, batch: &Batch) -> Result<Array> {
        let compressed = self.kv_a_proj_with_mqa.forward(x)?.expand_dims(1)?; // [B, 1, L, R + P]
        let [latent, turning] = compressed.split([self.rank, self.turning], -1)?;
        let latent = self.kv_a_layernorm.forward(&latent)?;
        Array::concatenate(&[&latent, &self.rope.forward(&turning, batch)?], -1)
    }

    /// Every head's keys `[B, H, S, N + P]` and values `[B, H, S, V]` of a view of latents.
    fn expand(&self, view: &RowView) -> Result<KvView> {
        let RowView { k, v: latent, mask } = view; // [B, 1, S, R + P], [B, 1, S, R]
        let keys = self.embed_q.times_transposed(latent)?; // [B, H, S, N]
        let mut shape = keys.shape();
        shape[3] = self.turning;
        let turning = k.slice_axis(-1, self.rank, self.rank + self.turning)?;
        let keys = Array::concatenate(&[&keys, &turning.broadcast_to(&shape)?], -1)?;
        let expanded = RowView {
            k: keys,
            v: self.unembed_out.times(latent)?,
            mask: mask.clone(),
        };
        Ok(expanded.into())
    }
}
