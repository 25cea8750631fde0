//! Grouped-query attention, the common form and its usual variations.

use super::{GatedMlp, Joined, Linear, PositionScale, RmsNorm, Rope, plan};
use crate::cache::{Attend, Batch, KvView, LayerCache};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Heading, Held, PackedBlock, Quantized, Result, packed_heads};

/// The sizes of an attention layer, and which of its projections have biases.
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
    /// Whether `q_proj`, `k_proj` and `v_proj` have biases.
    pub qkv_bias: bool,
    /// Whether `o_proj` has one.
    pub o_bias: bool,
}

/// How queries and keys are normalised.
#[derive(Clone, Debug)]
pub enum QkNorm {
    /// Each head by itself, before it turns, `[head_dim]`.
    Heads(RmsNorm, RmsNorm),
    /// Each head by itself, after it turned, `[head_dim]`.
    TurnedHeads(RmsNorm, RmsNorm),
    /// All heads together, before they turn, `[n_heads * head_dim]` and `[n_kv_heads * head_dim]`.
    Whole(RmsNorm, RmsNorm),
}

/// When queries and keys are normalised, on their way to `[B, heads, L, D]`.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Joined,
    Split,
    Turned,
}

/// An attention layer (Vaswani et al., 2017; Ainslie et al., 2023). After `load` a model sets what
/// its family has beside the projections.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[n_heads * head_dim, d_model]`.
    pub q_proj: Linear,
    /// `[n_kv_heads * head_dim, d_model]`.
    pub k_proj: Linear,
    /// `[n_kv_heads * head_dim, d_model]`.
    pub v_proj: Linear,
    /// `[d_model, n_heads * head_dim]`.
    pub o_proj: Linear,
    /// None for layers that do not normalise them.
    pub qk_norm: Option<QkNorm>,
    /// None for layers without positions.
    pub rope: Option<Rope>,
    /// None where queries do not grow with their positions.
    pub position_scale: Option<PositionScale>,
    /// Scores are multiplied by it; `1 / sqrt(head_dim)` after `load`.
    pub scale: f32,
    /// A cap on scores.
    pub softcap: Option<f32>,
    /// A learned score for each head that takes its share of the softmax, `[H]`.
    pub sinks: Option<Array>,
    /// The first three projections as one layer.
    qkv: Option<Joined<3>>,
    n_heads: i32,
    n_kv_heads: i32,
    head_dim: i32,
}

impl Attention {
    /// `q_proj`, `k_proj`, `v_proj` and `o_proj` under `w`.
    pub fn load(w: &Cursor, shape: AttentionShape, rope: Option<Rope>) -> LoadResult<Self> {
        let AttentionShape {
            d_model, qkv_bias, ..
        } = shape;
        let (queries, keys) = shape.widths();
        let qkv = [
            w.linear("q_proj", [queries, d_model], qkv_bias)?,
            w.linear("k_proj", [keys, d_model], qkv_bias)?,
            w.linear("v_proj", [keys, d_model], qkv_bias)?,
        ];
        let o_proj = w.linear("o_proj", [d_model, queries], shape.o_bias)?;
        Self::new(qkv, o_proj, shape, rope).joined()
    }

    /// The same with `qkv_proj`, the first three in one matrix in this order.
    pub fn load_fused(w: &Cursor, shape: AttentionShape, rope: Option<Rope>) -> LoadResult<Self> {
        let (queries, keys) = shape.widths();
        let parts = [queries, keys, keys];
        let qkv = w.split_linear("qkv_proj", parts, shape.d_model, shape.qkv_bias)?;
        let o_proj = w.linear("o_proj", [shape.d_model, queries], shape.o_bias)?;
        Self::new(qkv, o_proj, shape, rope).joined()
    }

    /// With one product for queries, keys and values where that pays.
    fn joined(mut self) -> LoadResult<Self> {
        self.qkv = Joined::of([&mut self.q_proj, &mut self.k_proj, &mut self.v_proj])?;
        Ok(self)
    }

    /// From its projections: queries, keys and values, and the output.
    pub fn new(
        [q_proj, k_proj, v_proj]: [Linear; 3],
        o_proj: Linear,
        shape: AttentionShape,
        rope: Option<Rope>,
    ) -> Self {
        Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            qk_norm: None,
            rope,
            position_scale: None,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            softcap: None,
            sinks: None,
            qkv: None,
            n_heads: shape.n_heads as i32,
            n_kv_heads: shape.n_kv_heads as i32,
            head_dim: shape.head_dim as i32,
        }
    }

    /// With `q_norm` and `k_norm` under `w`, each head by itself.
    pub fn with_head_norms(mut self, w: &Cursor, eps: f32) -> LoadResult<Self> {
        let d = self.head_dim as usize;
        self.qk_norm = Some(QkNorm::Heads(
            w.rms_norm("q_norm", d, eps)?,
            w.rms_norm("k_norm", d, eps)?,
        ));
        Ok(self)
    }

    /// With `q_norm` and `k_norm` under `w`, all heads together.
    pub fn with_whole_norms(mut self, w: &Cursor, eps: f32) -> LoadResult<Self> {
        let queries = (self.n_heads * self.head_dim) as usize;
        let keys = (self.n_kv_heads * self.head_dim) as usize;
        self.qk_norm = Some(QkNorm::Whole(
            w.rms_norm("q_norm", queries, eps)?,
            w.rms_norm("k_norm", keys, eps)?,
        ));
        Ok(self)
    }

    /// `x [B, L, d_model]` to the same shape; keys and values join `cache`.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        if let Some(heads) = self.heads(x, batch) {
            let [queries, keys, values] = heads?;
            let view = cache.update(&keys, &values, batch)?;
            return self.output(&self.attend(&queries, &view)?);
        }
        let joined = self.qkv.as_ref().map(|all| all.side_by_side(x));
        let (queries, view) = match joined.transpose()?.flatten() {
            Some(all) => {
                let [queries, keys, values] = self.part(&all, batch)?;
                (queries, cache.update(&keys, &values, batch)?)
            }
            None => (self.queries(x, batch)?, self.remember(x, batch, cache)?),
        };
        self.output(&self.attend(&queries, &view)?)
    }

    /// What [`Attention::queries`] gives, and the keys and values of [`Attention::remember`], by one
    /// operation, where there is one.
    fn heads(&self, x: &Array, batch: &Batch) -> Option<Result<[Array; 3]>> {
        let (qkv, heading) = self.packed(batch)?;
        let made = packed_heads(x, qkv, &heading)?;
        Some(plan::note(x, qkv).and(made))
    }

    /// Its first three matrices and what becomes of their heads, if those are packed and that is all.
    fn packed<'a>(&'a self, batch: &'a Batch) -> Option<([&'a Quantized; 3], Heading<'a>)> {
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [q, k, v] = projections.map(Linear::packed);
        let norms = match &self.qk_norm {
            None => None,
            Some(QkNorm::Heads(q, k)) => Some([q.parts(), k.parts()]),
            Some(_) => return None,
        };
        self.position_scale.is_none().then_some(())?;
        let rope = match &self.rope {
            None => None,
            Some(rope) => Some(rope.turning(batch)?),
        };
        let heading = Heading {
            head_dim: self.head_dim,
            norms,
            rope,
        };
        Some(([q?, k?, v?], heading))
    }

    /// `h += attention(norm(h)); h += mlp(norm(h))`, by one operation that writes to `cache` itself, where
    /// there is one: for a few tokens of one sequence on the CPU. `held` is of this layer alone.
    pub fn block(
        &self,
        norms: [&RmsNorm; 2],
        mlp: &GatedMlp,
        held: &Held,
        h: &Array,
        batch: &Batch,
        cache: &mut LayerCache,
    ) -> Option<Result<Array>> {
        (self.softcap.is_none() && self.sinks.is_none()).then_some(())?;
        let (qkv, heading) = self.packed(batch)?;
        let block = PackedBlock {
            norms: norms.map(RmsNorm::parts),
            qkv,
            heading,
            scale: self.scale,
            o: self.o_proj.packed()?,
            mlp: mlp.packed()?,
            held,
        };
        let weights = block.qkv.into_iter().chain([block.o]).chain(block.mlp);
        cache.write_with(block.entries(h)?, batch, |keys, values, len| {
            plan::note(h, weights)?;
            let [h, keys, values] = block.forward(h, keys, values, len)?;
            Ok((h, [keys, values]))
        })
    }

    /// The turned queries `[B, H, L, D]` of `x [B, L, d_model]`.
    pub fn queries(&self, x: &Array, batch: &Batch) -> Result<Array> {
        self.split_queries(self.q_proj.forward(x)?, batch)
    }

    /// The turned queries `[B, H, L, D]` of projected ones `[B, L, H * D]`.
    pub fn split_queries(&self, projected: Array, batch: &Batch) -> Result<Array> {
        let norm = self.qk_norm.as_ref().map(|norm| match norm {
            QkNorm::Whole(q, _) => (Stage::Joined, q),
            QkNorm::Heads(q, _) => (Stage::Split, q),
            QkNorm::TurnedHeads(q, _) => (Stage::Turned, q),
        });
        let queries = self.split(projected, self.n_heads, norm, self.rope.as_ref(), batch)?;
        match self.position_scale {
            Some(scale) => scale.forward(queries, batch),
            None => Ok(queries),
        }
    }

    /// Adds the keys and values of `x [B, L, d_model]` to `cache` and shows what queries may see.
    pub fn remember(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<KvView> {
        let keys = self.split_keys(self.k_proj.forward(x)?, batch)?;
        let values = self.v_proj.forward(x)?;
        let values = self.split(values, self.n_kv_heads, None, None, batch)?;
        cache.update(&keys, &values, batch)
    }

    /// The turned queries `[B, H, L, D]`, the turned keys and the values `[B, K, L, D]` of all three side
    /// by side, `[B, L, (H + 2K) * D]`.
    fn part(&self, all: &Array, batch: &Batch) -> Result<[Array; 3]> {
        let (h, k, d) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let [turning, values] = all.split([(h + k) * d, k * d], -1)?;
        let values = self.split(values, k, None, None, batch)?;
        if self.qk_norm.is_some() || self.position_scale.is_some() {
            let [queries, keys] = turning.split([h * d, k * d], -1)?;
            let queries = self.split_queries(queries, batch)?;
            return Ok([queries, self.split_keys(keys, batch)?, values]);
        }
        let turned = self.split(turning, h + k, None, self.rope.as_ref(), batch)?;
        let [queries, keys] = turned.split([h, k], 1)?;
        Ok([queries, keys, values])
    }

    /// The turned keys `[B, K, L, D]` of projected ones `[B, L, K * D]`.
    fn split_keys(&self, projected: Array, batch: &Batch) -> Result<Array> {
        let norm = self.qk_norm.as_ref().map(|norm| match norm {
            QkNorm::Whole(_, k) => (Stage::Joined, k),
            QkNorm::Heads(_, k) => (Stage::Split, k),
            QkNorm::TurnedHeads(_, k) => (Stage::Turned, k),
        });
        let rope = self.rope.as_ref();
        self.split(projected, self.n_kv_heads, norm, rope, batch)
    }

    /// Attention of the queries to what `view` shows, the heads joined: `[B, L, H * D]`.
    pub fn attend(&self, queries: &Array, view: &KvView) -> Result<Array> {
        let how = Attend {
            scale: self.scale,
            softcap: self.softcap,
            sinks: self.sinks.as_ref(),
        };
        let attended = view.attend(queries, how)?;
        if let &[b, h, 1, d] = &attended.shape()[..] {
            return attended.reshape(&[b, 1, h * d]); // [B, 1, H * D]
        }
        attended.transpose_axes(&[0, 2, 1, 3])?.flatten(2, 3) // [B, L, H * D]
    }

    /// The output projection of joined heads `[B, L, H * D]`.
    pub fn output(&self, joined: &Array) -> Result<Array> {
        self.o_proj.forward(joined)
    }

    /// `y [B, L, heads * D]` to `[B, heads, L, D]`, normalised and turned.
    fn split(
        &self,
        mut y: Array,
        heads: i32,
        norm: Option<(Stage, &RmsNorm)>,
        rope: Option<&Rope>,
        batch: &Batch,
    ) -> Result<Array> {
        let norm_at = |stage, y: Array| match norm {
            Some((at, norm)) if at == stage => norm.forward(&y),
            _ => Ok(y),
        };
        y = norm_at(Stage::Joined, y)?;
        let (b, l) = (y.dim(0)?, y.dim(1)?);
        if l == 1 {
            y = y.reshape(&[b, heads, 1, self.head_dim])?; // [B, heads, 1, D]
            y = norm_at(Stage::Split, y)?;
        } else {
            y = y.unflatten(2, &[heads, self.head_dim])?; // [B, L, heads, D]
            y = norm_at(Stage::Split, y)?;
            y = y.transpose_axes(&[0, 2, 1, 3])?; // [B, heads, L, D]
        }
        if let Some(rope) = rope {
            y = rope.forward(&y, batch)?;
        }
        norm_at(Stage::Turned, y)
    }
}

impl AttentionShape {
    /// Features of all query heads, and of all key heads; more than any tensor has where a
    /// configuration makes them overflow.
    pub fn widths(&self) -> (usize, usize) {
        (
            self.n_heads.saturating_mul(self.head_dim),
            self.n_kv_heads.saturating_mul(self.head_dim),
        )
    }
}
