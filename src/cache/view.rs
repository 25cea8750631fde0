//! What attention reads: keys, values, and which of them a query sees.

use crate::mlx::{
    Array, Dtype, Error, Mask, Ragged, Result, on_cuda, scaled_dot_product_attention,
};

/// Which keys the queries of a step see.
#[derive(Clone, Debug)]
pub enum KvMask {
    /// All.
    None,
    /// Those up to each query's own place; the last query stands at the last key.
    Causal,
    /// Those where this boolean `[L, S]` is true.
    Array(Array),
}

impl KvMask {
    /// For `added` queries at the end of all keys.
    pub(super) fn causal(added: usize) -> Self {
        match added {
            1 => KvMask::None,
            _ => KvMask::Causal,
        }
    }
}

/// How scores become weights.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Scores are multiplied by it.
    pub scale: f32,
    /// Scores s become `c · tanh(s / c)` (Gemma 2, 2024).
    pub softcap: Option<f32>,
    /// A score for each head, `[H]`, that takes its share of the softmax and has no value.
    pub sinks: Option<&'a Array>,
}

impl Attend<'_> {
    /// Plain attention.
    pub fn scaled(scale: f32) -> Self {
        Self {
            scale,
            softcap: None,
            sinks: None,
        }
    }
}

/// The keys and values that a step's queries attend to. Layers that share them share a view.
///
/// Rows of different lengths have a view each: padding them to one length would take a mask, and a
/// mask turns MLX's fused attention off.
#[derive(Clone, Debug)]
pub struct KvView(Views);

#[derive(Clone, Debug)]
enum Views {
    /// One for the whole batch, or one for each row.
    Rows(Vec<RowView>),
    /// A stretch of a common store for each row.
    Ragged(Ragged),
}

impl KvView {
    pub(super) fn rows(rows: Vec<RowView>) -> Self {
        Self(Views::Rows(rows))
    }

    pub(super) fn ragged(ragged: Ragged) -> Self {
        Self(Views::Ragged(ragged))
    }

    /// The view that all rows share.
    ///
    /// # Errors
    /// If rows have a view each.
    pub fn shared(&self) -> Result<&RowView> {
        match &self.0 {
            Views::Rows(rows) if rows.len() == 1 => Ok(&rows[0]),
            _ => Err(Error::new("attention", &[], "its rows have a cache each")),
        }
    }

    /// Attention of `queries [B, H, L, D]`, where H is a multiple of K: `[B, H, L, V]`.
    pub fn attend(&self, queries: &Array, how: Attend) -> Result<Array> {
        let row = |i: usize| queries.slice_axis(0, i as i32, i as i32 + 1);
        let attended: Result<Vec<Array>> = match &self.0 {
            Views::Rows(rows) => match &rows[..] {
                [view] => return view.attend(queries, how),
                rows => {
                    let rows = rows.iter().enumerate();
                    rows.map(|(i, view)| view.attend(&row(i)?, how)).collect()
                }
            },
            Views::Ragged(ragged) if on_cuda() => {
                return ragged.attend(queries, how.scale, how.softcap, how.sinks);
            }
            Views::Ragged(ragged) => {
                let rows = (0..ragged.len()).map(|i| {
                    let (k, v) = ragged.row(i)?;
                    let mask = KvMask::None;
                    RowView { k, v, mask }.attend(&row(i)?, how)
                });
                rows.collect()
            }
        };
        let attended = attended?;
        Array::concatenate(&attended.iter().collect::<Vec<_>>(), 0)
    }
}

impl From<RowView> for KvView {
    fn from(view: RowView) -> Self {
        Self(Views::Rows(vec![view]))
    }
}

/// The keys and values of one row, or of rows that are alike.
#[derive(Clone, Debug)]
pub struct RowView {
    /// `[B, K, S, D]`.
    pub k: Array,
    /// `[B, K, S, V]`.
    pub v: Array,
    /// Which of them a query sees.
    pub mask: KvMask,
}

impl RowView {
    fn attend(&self, queries: &Array, how: Attend) -> Result<Array> {
        if let Some(cap) = how.softcap {
            return self.attend_capped(queries, how.scale, cap, how.sinks);
        }
        let mask = match &self.mask {
            KvMask::None => Mask::None,
            KvMask::Causal => Mask::Causal,
            KvMask::Array(array) => Mask::Array(array),
        };
        scaled_dot_product_attention(queries, &self.k, &self.v, how.scale, mask, how.sinks)
    }

    /// The same with capped scores, which no fused kernel does.
    fn attend_capped(
        &self,
        queries: &Array,
        scale: f32,
        cap: f32,
        sinks: Option<&Array>,
    ) -> Result<Array> {
        let (n_heads, l) = (queries.dim(1)?, queries.dim(2)?);
        let (n_kv_heads, s) = (self.k.dim(1)?, self.k.dim(2)?);
        let queries = queries
            .scale(scale)?
            .unflatten(1, &[n_kv_heads, n_heads / n_kv_heads])?; // [B, K, R, L, D]
        let keys = self.k.expand_dims(2)?.swap_last()?; // [B, K, 1, D, S]
        let scores = queries.matmul(&keys)?; // [B, K, R, L, S]
        let scores = scores.scale(1.0 / cap)?.tanh()?.scale(cap)?;
        let seen = match &self.mask {
            KvMask::None => None,
            KvMask::Causal => Some(Array::full(&[l, s], 1.0, Dtype::Bool)?.tril(s - l)?),
            KvMask::Array(array) => Some(array.clone()),
        };
        let scores = match seen {
            None => scores,
            Some(seen) => seen.select(&scores, &scores.scalar_like(f32::NEG_INFINITY)?)?,
        };
        let weights = match sinks {
            None => scores.softmax()?,
            Some(sinks) => {
                let mut column = scores.shape();
                column[4] = 1;
                let sinks = sinks.astype(scores.dtype())?;
                let sinks = sinks.reshape(&[1, n_kv_heads, n_heads / n_kv_heads, 1, 1])?;
                let scores = Array::concatenate(&[&scores, &sinks.broadcast_to(&column)?], -1)?;
                scores.softmax()?.slice_axis(-1, 0, s)?
            }
        };
        let values = self.v.expand_dims(2)?; // [B, K, 1, S, V]
        weights.matmul(&values)?.flatten(1, 2) // [B, H, L, V]
    }
}
