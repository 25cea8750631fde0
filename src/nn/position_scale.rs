//! Queries that grow with their positions.

use crate::cache::Batch;
use crate::mlx::{Array, Dtype, Result};

/// A query at position p is multiplied by `1 + beta · ln(1 + floor(p / size))`, which keeps attention
/// sharp over more keys than the model was first trained with (Llama 4, 2025; Ministral 3, 2025).
#[derive(Clone, Copy, Debug)]
pub struct PositionScale {
    /// How much the queries grow.
    pub beta: f32,
    /// The positions within which they do not; at least 1.
    pub size: usize,
}

impl PositionScale {
    /// Of `queries [B, H, L, D]`.
    pub fn forward(self, queries: Array, batch: &Batch) -> Result<Array> {
        if batch.end()? <= self.size {
            return Ok(queries); // Each factor is 1.
        }
        let size = Array::from_i32(i32::try_from(self.size).unwrap_or(i32::MAX).max(1))?;
        let periods = batch.positions()?.floor_divide(&size)?;
        let periods = periods.astype(Dtype::Float32)?; // [B, L]
        let one = Array::from_f32(1.0)?;
        let grown = periods.add(&one)?.log()?.scale(self.beta)?.add(&one)?;
        let grown = grown.expand_dims(1)?.expand_dims(-1)?; // [B, 1, L, 1]
        queries.multiply(&grown.astype(queries.dtype())?)
    }
}
